//! Looking at a state, and editing one field of it.

use super::Admin;
use super::edit::{Edit, Edited, plan};
use super::error::AdminError;
use super::page::{Damage, or_damage};
use crate::codec::{CodecError, Leaves, Path, Value};
use crate::durable::keys::InstanceKeys;
use crate::durable::{Work, ready, state};
use crate::id::InstanceId;
use crate::store::{CommitStamp, StoreError, Tx};
use bytes::Bytes;
use futures_util::future::try_join;

/// A state as it is stored.
#[derive(Debug, Clone)]
pub struct StateView {
    /// The schema number of the type that wrote it; none if its version is missing or damaged.
    pub schema: Option<u32>,
    /// The commit that changed it last.
    pub changed: Option<CommitStamp>,
    /// The leaves with their paths.
    pub leaves: Leaves,
    /// What cannot be read.
    pub damaged: Vec<Damage>,
}

impl StateView {
    fn new(
        keys: &InstanceKeys,
        version: Result<Option<state::StateVersion>, StoreError>,
        (leaves, damage): (Leaves, Vec<(Bytes, StoreError)>),
    ) -> Result<Self, StoreError> {
        let damage = damage.into_iter();
        let mut damaged: Vec<Damage> = damage
            .map(|(key, error)| Damage::new(key, &error))
            .collect();
        let version = or_damage(version, &keys.version(), &mut damaged)?.flatten();
        Ok(Self {
            schema: version.map(|version| version.schema),
            changed: version.map(|version| version.stamp),
            leaves,
            damaged,
        })
    }

    /// The state as one value.
    ///
    /// # Errors
    ///
    /// Those of [`Value::from_leaves`]: when something is missing or damaged.
    pub fn value(&self) -> Result<Value, CodecError> {
        Value::from_leaves(&self.leaves)
    }

    /// The part of it that lies at a path.
    ///
    /// # Errors
    ///
    /// Those of [`Value::from_leaves_at`].
    pub fn value_at(&self, path: &Path) -> Result<Value, CodecError> {
        Value::from_leaves_at(&self.leaves, path)
    }
}

/// How to [set](Admin::set) a field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// Allows a value of another type than what stands there: text for a number, say, or null. The
    /// server may be unable to read its state afterwards.
    pub change_type: bool,
    /// Only says what would be.
    pub dry_run: bool,
}

impl Admin {
    /// Reads a state, whole: as its server does, in one transaction, which lives for five seconds. A state
    /// that takes longer is read in parts, with [`state_at`](Self::state_at).
    ///
    /// # Errors
    ///
    /// [`NotFound`](super::AdminErrorKind::NotFound) if the instance has no state; whatever the
    /// store answers.
    pub async fn state(&self, instance: &InstanceId) -> Result<StateView, AdminError> {
        self.state_at(instance, &Path::root()).await
    }

    /// Reads the part of a state that lies at a path and below it, and nothing else: however large the
    /// rest is. Without leaves if nothing is stored there.
    ///
    /// # Errors
    ///
    /// As [`state`](Self::state).
    pub async fn state_at(
        &self,
        instance: &InstanceId,
        path: &Path,
    ) -> Result<StateView, AdminError> {
        let keys = self.namespace.keys().instance(instance);
        let read = self.look(|tx| {
            let keys = keys.clone();
            async move {
                let version = async { Ok(state::read_version(&tx, &keys).await) };
                let part = state::tree(&keys, path);
                try_join(version, state::salvage(&tx, &keys, part)).await
            }
        });
        let (version, salvaged) = read.await?;
        let view = StateView::new(&keys, version, salvaged)?;
        if view.schema.is_none() && view.leaves.is_empty() && view.damaged.is_empty() {
            return Err(no_state(instance));
        }
        Ok(view)
    }

    /// Reads the beginning of a state, about so many leaves, and whether there are more: for whoever
    /// looks again and again. An instance without a state has none.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn state_head(
        &self,
        instance: &InstanceId,
        leaves: usize,
    ) -> Result<(StateView, bool), AdminError> {
        let keys = self.namespace.keys().instance(instance);
        let rows = leaves.clamp(1, super::MAX_PAGE);
        let read = self.look(|tx| {
            let keys = keys.clone();
            async move {
                let version = async { Ok(state::read_version(&tx, &keys).await) };
                try_join(version, state::salvage_head(&tx, &keys, rows)).await
            }
        });
        let (version, (salvaged, more)) = read.await?;
        Ok((StateView::new(&keys, version, salvaged)?, more))
    }

    /// Sets the leaf at `path` to a value, as if the server had, and returns what stood there; nothing
    /// for a new entry of a map. See [`Edit::Set`] for what can be set.
    ///
    /// # Errors
    ///
    /// As [`edit`](Self::edit).
    ///
    /// # Cancel safety
    ///
    /// As [`edit`](Self::edit).
    pub async fn set(
        &self,
        instance: &InstanceId,
        path: &Path,
        value: &Value,
        options: SetOptions,
    ) -> Result<Value, AdminError> {
        let edit = Edit::Set(value.clone());
        let edited = self.edit(instance, path, &edit, options).await?;
        Ok(edited.before.unwrap_or(Value::Nil))
    }

    /// Changes what lies at a path, as if the server had. Nodes see it before their next message.
    ///
    /// The whole state is read for it, in one transaction, which lives for five seconds.
    ///
    /// # Errors
    ///
    /// - [`NotFound`](super::AdminErrorKind::NotFound) if the instance has no state, or the state
    ///   nothing at this path.
    /// - [`Refused`](super::AdminErrorKind::Refused) for whatever the server could not have written:
    ///   see [`Edit`].
    /// - [`Corrupt`](super::AdminErrorKind::Corrupt) if the state is damaged.
    /// - Whatever the store answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the outcome unknown.
    pub async fn edit(
        &self,
        instance: &InstanceId,
        path: &Path,
        edit: &Edit,
        options: SetOptions,
    ) -> Result<Edited, AdminError> {
        self.edit_if(instance, path, edit, options, None).await
    }

    /// As [`edit`](Self::edit), but only if what lies at the path is what a dry run has shown.
    ///
    /// # Errors
    ///
    /// [`Refused`](super::AdminErrorKind::Refused) if it is not; else as [`edit`](Self::edit).
    ///
    /// # Cancel safety
    ///
    /// As [`edit`](Self::edit).
    pub async fn edit_planned(
        &self,
        instance: &InstanceId,
        path: &Path,
        edit: &Edit,
        options: SetOptions,
        planned: &Edited,
    ) -> Result<Edited, AdminError> {
        self.edit_if(instance, path, edit, options, Some(planned))
            .await
    }

    async fn edit_if(
        &self,
        instance: &InstanceId,
        path: &Path,
        edit: &Edit,
        options: SetOptions,
        planned: Option<&Edited>,
    ) -> Result<Edited, AdminError> {
        let namespace = &self.namespace;
        let keys = namespace.keys().instance(instance);
        self.change_or_plan(options.dry_run, |tx| {
            let keys = keys.clone();
            async move {
                // The leaves are covered by the version, which is read serializably.
                let version = state::read_version(&tx, &keys).await?;
                let version = version.ok_or_else(|| no_state(instance))?;
                let leaves = state::load(&tx, &keys).await?;
                let (edited, changes) = plan(&leaves, path, edit, options.change_type)?;
                // What it becomes follows from what it was.
                if planned.is_some_and(|planned| planned.before != edited.before) {
                    return Err(AdminError::refused(format!(
                        "{path} is not what was shown any more"
                    )));
                }
                if options.dry_run {
                    return Ok(Work::Look(edited));
                }
                // Whoever has parked the instance because of its state looks again.
                nudge(&tx, namespace, &keys).await?;
                state::write(&tx, &keys, &changes, &leaves, version.schema)?;
                Ok(Work::Write(edited))
            }
        })
        .await
    }
}

fn no_state(instance: &InstanceId) -> AdminError {
    AdminError::not_found(format!("the instance {instance} has no state"))
}

/// Gives the mark of an instance that has one a new value, and wakes its shard: whoever has parked
/// the instance looks again.
pub(super) async fn nudge(
    tx: &Tx,
    namespace: &crate::durable::Namespace,
    keys: &InstanceKeys,
) -> Result<(), StoreError> {
    if ready::read_mark(tx, keys).await?.is_some() {
        ready::set_mark(tx, keys);
    }
    ready::wake(tx, namespace, keys.shard());
    Ok(())
}

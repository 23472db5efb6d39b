//! Looking at a state, and editing one field of it.

use super::Admin;
use super::error::AdminError;
use super::instances::absent;
use super::page::Damage;
use crate::codec::{self, Change, CodecError, Ignored, Leaves, Path, PathElement, Value};
use crate::durable::keys::InstanceKeys;
use crate::durable::{Work, ready, state};
use crate::id::InstanceId;
use crate::store::{CommitStamp, StoreError, Tx};
use bytes::Bytes;
use futures_util::future::try_join;
use std::collections::BTreeMap;

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
    /// Reads a state, whole: as its server does.
    ///
    /// # Errors
    ///
    /// [`NotFound`](super::AdminErrorKind::NotFound) if the instance has no state; whatever the
    /// store answers.
    pub async fn state(&self, instance: &InstanceId) -> Result<StateView, AdminError> {
        let keys = self.namespace.keys().instance(instance);
        let read = self.look(|tx| {
            let keys = keys.clone();
            async move {
                let version = async { Ok(state::read_version(&tx, &keys).await) };
                try_join(version, state::salvage(&tx, &keys)).await
            }
        });
        let (version, (leaves, damage)) = read.await?;
        let mut damaged: Vec<Damage> = damage
            .into_iter()
            .map(|(key, error)| Damage::new(key, &error))
            .collect();
        let version = super::page::or_damage(version, &keys.version(), &mut damaged)?.flatten();
        if version.is_none() && leaves.is_empty() && damaged.is_empty() {
            return Err(absent(instance));
        }
        Ok(StateView {
            schema: version.map(|version| version.schema),
            changed: version.map(|version| version.stamp),
            leaves,
            damaged,
        })
    }

    /// Sets the leaf at `path` to a value, as if the server had, and returns what stood there.
    ///
    /// Nodes see it before their next message. Only single leaves can be set: scalars, and lists,
    /// tuples, enums and maps that are stored as one value.
    ///
    /// # Errors
    ///
    /// - [`NotFound`](super::AdminErrorKind::NotFound) if the instance has no state, or the state
    ///   nothing at this path.
    /// - [`Refused`](super::AdminErrorKind::Refused) if a container with parts of its own stands
    ///   there, if the value is of another type, or if it is the `id` of a list's item.
    /// - [`Corrupt`](super::AdminErrorKind::Corrupt) if the state is damaged.
    /// - Whatever the store answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the outcome unknown.
    pub async fn set(
        &self,
        instance: &InstanceId,
        path: &Path,
        value: &Value,
        options: SetOptions,
    ) -> Result<Value, AdminError> {
        let namespace = &self.namespace;
        let keys = namespace.keys().instance(instance);
        self.change(|tx| {
            let keys = keys.clone();
            async move {
                // The leaves are covered by the version, which is read serializably.
                let version = state::read_version(&tx, &keys).await?;
                let version = version.ok_or_else(|| absent(instance))?;
                let leaves = state::load(&tx, &keys).await?;
                let (before, bytes) = replacement(&leaves, path, value, options.change_type)?;
                if options.dry_run {
                    return Ok(Work::Look(before));
                }
                let change = [Change::Set(path.clone(), bytes)];
                // Whoever has parked the instance because of its state looks again.
                nudge(&tx, namespace, &keys).await?;
                state::write(&tx, &keys, &change, &leaves, version.schema)?;
                Ok(Work::Write(before))
            }
        })
        .await
    }
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

/// What stands at the path, and the bytes of the leaf that is to stand there.
fn replacement(
    leaves: &Leaves,
    path: &Path,
    value: &Value,
    change_type: bool,
) -> Result<(Value, Bytes), AdminError> {
    let leaf = leaves
        .get(path)
        .ok_or_else(|| AdminError::not_found(format!("nothing is stored at {path}")))?;
    let before = Value::from_leaves_at(leaves, path)?;
    let below = leaves.iter().any(|(of, _)| of != path && path.contains(of));
    // A marker of a container, which is no value of its own.
    let is_marker = Value::from_payload(leaf).is_err();
    if below {
        return Err(AdminError::refused(format!(
            "{path} has parts of its own: set those"
        )));
    }
    if is_marker && !matches!((&before, value), (Value::Array(_), Value::Array(_))) {
        return Err(AdminError::refused(format!(
            "{path} is an empty container, whose entries only the server can write"
        )));
    }
    if is_item_id(leaves, path) {
        return Err(AdminError::refused(format!(
            "{path} is what its item is stored under"
        )));
    }
    if !change_type && class(&before) != class(value) {
        return Err(AdminError::refused(format!(
            "{path} holds {}, and this is {}",
            class(&before),
            class(value)
        )));
    }
    let bytes = packed(path, value)?;
    let mut after = leaves.clone();
    after.insert(path.clone(), bytes.clone());
    let read_back = Value::from_leaves(&after)
        .and_then(|_| Value::from_leaves_at(&after, path))
        .map_err(|error| AdminError::refused("the state would be damaged").with_source(error))?;
    if read_back != *value {
        return Err(AdminError::refused(format!(
            "{path} would be read as another value"
        )));
    }
    Ok((before, bytes))
}

/// The leaf that holds a value, where the codec would not cut it into several.
fn packed(path: &Path, value: &Value) -> Result<Bytes, AdminError> {
    let empty = |encoded: codec::Encoded| {
        let marker = encoded.leaves.get(&Path::root()).cloned();
        marker.ok_or_else(|| AdminError::refused("an empty container has no encoding"))
    };
    match value {
        Value::Array(items) if items.is_empty() => empty(codec::encode(
            &Vec::<u8>::new(),
            &Leaves::new(),
            &Ignored::none(),
        )?),
        Value::Map(entries) if entries.is_empty() => empty(codec::encode(
            &BTreeMap::<String, u8>::new(),
            &Leaves::new(),
            &Ignored::none(),
        )?),
        Value::Array(items) if items.iter().all(|item| item.get("id").is_some()) => {
            Err(AdminError::refused(format!(
                "{path} would become a list whose items are stored one by one"
            )))
        }
        value => Ok(value.to_payload()?),
    }
}

/// Whether a path is the `id` of an item of a list that is stored item by item.
fn is_item_id(leaves: &Leaves, path: &Path) -> bool {
    let elements: Vec<PathElement<'_>> = path.elements().collect();
    let Some((PathElement::Str(last), of)) = elements.split_last() else {
        return false;
    };
    let Some((_, list)) = of.split_last() else {
        return false;
    };
    let list = list
        .iter()
        .fold(Path::root(), |list, element| list.child(element.clone()));
    last == "id" && matches!(Value::from_leaves_at(leaves, &list), Ok(Value::Array(_)))
}

fn class(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Int(_) | Value::Huge(_) => "an integer",
        Value::F32(_) => "a float of single precision",
        Value::F64(_) => "a float",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
        Value::Array(_) => "a list",
        Value::Map(_) => "a map",
        Value::Ext(..) => "an extension value",
    }
}

//! Pauses: durable switches that make ordinary messages wait, for an instance or a whole kind.

use super::Admin;
use super::error::AdminError;
use super::page::{Damage, or_damage};
use super::state::nudge;
use crate::durable::keys::Key;
use crate::durable::pause::{self, Paused};
use crate::durable::{Work, kill, ready, value};
use crate::id::{InstanceId, MAX_KIND_BYTES};
use crate::store::{KeyRange, TransactionExt, after};

/// How many instances one transaction wakes.
const WOKEN: usize = 500;

/// How many pauses of kinds one transaction reads.
const KINDS: usize = 1_000;

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseView {
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Why, in the operator's words.
    pub reason: String,
}

impl From<Paused> for PauseView {
    fn from(paused: Paused) -> Self {
        Self {
            since_ms: paused.since_ms,
            reason: paused.reason,
        }
    }
}

/// A kind that is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindPause {
    /// The kind.
    pub kind: String,
    /// Its pause.
    pub pause: PauseView,
}

impl Admin {
    /// Makes an instance's ordinary messages wait until it is [resumed](Self::resume). What is being
    /// handled is finished; priority messages pass, and so does the end of a lock that is held. An
    /// instance may be paused before its first message.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn pause(&self, instance: &InstanceId, reason: &str) -> Result<(), AdminError> {
        let keys = self.namespace.keys().instance(instance);
        self.pause_at(&keys.paused(), reason).await
    }

    /// Makes the ordinary messages of all instances of a kind wait until it is
    /// [resumed](Self::resume_kind), those of instances to come too.
    ///
    /// # Errors
    ///
    /// [`Invalid`](super::AdminErrorKind::Invalid) for a kind that is none; whatever the store
    /// answers.
    pub async fn pause_kind(&self, kind: &str, reason: &str) -> Result<(), AdminError> {
        check_kind(kind)?;
        let key = self.namespace.keys().kind_paused(kind);
        self.pause_at(&key, reason).await
    }

    async fn pause_at(&self, key: &[u8], reason: &str) -> Result<(), AdminError> {
        let paused = Paused {
            since_ms: self.now_ms(),
            reason: reason.to_owned(),
        };
        self.change(|tx| {
            let paused = &paused;
            async move {
                pause::set_at(&tx, key, paused)?;
                Ok(Work::Write(()))
            }
        })
        .await
    }

    /// Ends the pause of an instance; that of its kind stays. Whether there was one.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn resume(&self, instance: &InstanceId) -> Result<bool, AdminError> {
        let namespace = &self.namespace;
        let keys = namespace.keys().instance(instance);
        self.change(|tx| {
            let keys = keys.clone();
            async move {
                if tx.read(&keys.paused()).await?.is_none() {
                    return Ok(Work::Look(false));
                }
                nudge(&tx, namespace, &keys).await?;
                pause::clear(&tx, &keys);
                Ok(Work::Write(true))
            }
        })
        .await
    }

    /// Ends the pause of a kind, and wakes its instances; those that are paused themselves stay so.
    /// Whether there was one.
    ///
    /// # Errors
    ///
    /// Whatever the store answers. If the kind is no longer paused then, resuming it once more wakes
    /// whoever was not woken.
    pub async fn resume_kind(&self, kind: &str) -> Result<bool, AdminError> {
        check_kind(kind)?;
        let namespace = &self.namespace;
        let key = namespace.keys().kind_paused(kind);
        let ended = self.change(|tx| {
            let key = key.clone();
            async move {
                if tx.read(&key).await?.is_none() {
                    return Ok(Work::Look(false));
                }
                tx.clear(&key);
                Ok(Work::Write(true))
            }
        });
        let ended = ended.await?;
        for shard in 0..namespace.keys().shards() {
            let mut rest = Some(namespace.keys().ready_of_kind(shard, kind));
            while let Some(range) = rest.take() {
                rest = self.wake_some(shard, range).await?;
            }
        }
        Ok(ended)
    }

    /// Gives some marks of a shard a new value, so that whoever has parked the instances looks again.
    async fn wake_some(&self, shard: u32, range: KeyRange) -> Result<Option<KeyRange>, AdminError> {
        let namespace = &self.namespace;
        self.change(|tx| {
            let range = range.clone();
            async move {
                let marks = ready::read_marks(&tx, namespace, range, WOKEN).await?;
                if marks.instances.is_empty() {
                    return Ok(Work::Look(marks.next));
                }
                for (instance, _) in &marks.instances {
                    ready::set_mark(&tx, &namespace.keys().instance(instance));
                }
                ready::wake(&tx, namespace, shard);
                Ok(Work::Write(marks.next))
            }
        })
        .await
    }

    /// The kinds that are paused, all of them, and what of their pauses cannot be read. Kinds are written
    /// by programmers: there are few.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn paused_kinds(&self) -> Result<(Vec<KindPause>, Vec<Damage>), AdminError> {
        let keys = self.namespace.keys();
        let (mut kinds, mut damaged) = (Vec::new(), Vec::new());
        let mut rest = keys.kinds_paused();
        loop {
            let read = rest.read().limit(KINDS).snapshot();
            let rows = self.look(|tx| {
                let read = read.clone();
                async move { tx.get_range(read).await }
            });
            let rows = rows.await?;
            let full = rows.len() >= KINDS;
            for row in rows {
                rest.begin = after(&row.key);
                let Ok(Key::KindPaused { kind }) = keys.decode(&row.key) else {
                    damaged.push(Damage::foreign(row.key));
                    continue;
                };
                let paused = value::decode::<Paused>(&row.key, &row.value);
                if let Some(paused) = or_damage(paused, &row.key, &mut damaged)? {
                    let pause = paused.into();
                    kinds.push(KindPause { kind, pause });
                }
            }
            if !full {
                return Ok((kinds, damaged));
            }
        }
    }

    /// Removes an instance: its messages, whose callers are told, its lock, its state, its dead
    /// letters. What is pushed afterwards begins a new one.
    ///
    /// # Errors
    ///
    /// Whatever the store answers. The instance is paused then; kill it again.
    ///
    /// # Cancel safety
    ///
    /// As after an error.
    pub async fn kill(&self, instance: &InstanceId) -> Result<(), AdminError> {
        let session = self.session().await?;
        Ok(kill::kill(&session, instance).await?)
    }

    /// Removes an instance's state; the next message initializes it anew. Its messages stay.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the outcome unknown.
    pub async fn reset(&self, instance: &InstanceId) -> Result<(), AdminError> {
        let session = self.session().await?;
        Ok(kill::reset(&session, instance).await?)
    }
}

fn check_kind(kind: &str) -> Result<(), AdminError> {
    if kind.is_empty() || kind.len() > MAX_KIND_BYTES {
        return Err(AdminError::invalid(format!(
            "a kind is 1 to {MAX_KIND_BYTES} bytes long"
        )));
    }
    Ok(())
}

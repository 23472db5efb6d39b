//! The end of an instance, and of its state.
//!
//! Invariants of [`kill`]:
//!
//! - *Nobody is left waiting.* Whatever stands in the mailboxes or holds the lock is removed in the
//!   transaction that stages its caller's answer.
//! - *No acknowledged push vanishes untold.* What is left is deleted in a transaction that looks
//!   serializably at empty mailboxes and no lock; a push that comes meanwhile is drained too.
//! - *Nothing runs meanwhile* but priority messages: the pause stops all else, and its end with the
//!   instance makes every turn under way fail.
//!
//! Each step runs in the one outcome lane, so that no late attempt of an earlier step lands after a
//! later one: a pause, say, after the instance is gone.

use super::keys::{InstanceKeys, Key, Lane as MailboxLane, Part};
use super::message::Message;
use super::namespace::Namespace;
use super::pause::{self, Paused};
use super::reply::{self, Answer};
use super::session::{Session, SessionError, millis};
use super::{attempts, directory, lock, queue, ready, state};
use crate::id::InstanceId;
use crate::planted::{Bug, planted};
use crate::store::{Isolation, StoreError, StoreErrorKind, Tx};
use futures_util::future::try_join;
use std::sync::Arc;

/// How many rows and bytes of messages one transaction drains: it also writes their answers.
const BATCH_ROWS: usize = 500;
const BATCH_BYTES: usize = 1_000_000;

/// Why the instance is paused, for whoever finds a kill that did not come to its end.
const REASON: &str = "being killed; kill it again if that has stopped";

/// Removes an instance: its messages, whose callers are told, its lock, its state, its dead
/// letters. What is pushed afterwards begins a new one.
///
/// # Errors
///
/// Those of [`Lane::run`](super::Lane::run). The instance stays paused then; kill it again.
///
/// # Cancel safety
///
/// As after an error.
pub(crate) async fn kill(
    session: &Arc<Session>,
    instance: &InstanceId,
) -> Result<(), SessionError> {
    let namespace = session.namespace().clone();
    let keys = namespace.keys().instance(instance);
    let mut lane = session.lane();
    let paused = Paused {
        since_ms: millis(namespace.database().env().wall_clock()),
        reason: REASON.to_owned(),
    };
    lane.run(|tx| {
        let (keys, paused) = (keys.clone(), paused.clone());
        async move { Ok(pause::set(&tx, &keys, &paused)?) }
    })
    .await?;
    loop {
        for mailbox in [MailboxLane::Priority, MailboxLane::Ordinary] {
            let mut more = true;
            while more {
                let drained = lane.run(|tx| {
                    let (namespace, keys) = (namespace.clone(), keys.clone());
                    async move { Ok(drain(&tx, &namespace, &keys, mailbox).await?) }
                });
                more = drained.await?.value;
            }
        }
        let fenced = lane.run(|tx| {
            let (namespace, keys) = (namespace.clone(), keys.clone());
            async move { Ok(fence(&tx, &namespace, &keys).await?) }
        });
        fenced.await?;
        let deleted = lane.run(|tx| {
            let (namespace, keys, instance) = (namespace.clone(), keys.clone(), instance.clone());
            async move { Ok(delete(&tx, &namespace, &keys, &instance).await?) }
        });
        if deleted.await?.value {
            return Ok(());
        }
    }
}

/// Removes an instance's state; the next message initializes it anew. Its messages stay, and so
/// does its lock: the holder's result is applied to the new state.
///
/// # Errors
///
/// Those of [`Lane::run`](super::Lane::run).
///
/// # Cancel safety
///
/// Dropping the future leaves the outcome unknown.
pub(crate) async fn reset(
    session: &Arc<Session>,
    instance: &InstanceId,
) -> Result<(), SessionError> {
    let namespace = session.namespace().clone();
    let keys = namespace.keys().instance(instance);
    let mut lane = session.lane();
    let reset = lane.run(|tx| {
        let (namespace, keys, instance) = (namespace.clone(), keys.clone(), instance.clone());
        async move {
            // Serializably, whatever it is: a turn that changes the state meanwhile is not lost
            // between the clearing of the leaves and that of their version.
            let version = tx.get(&keys.version(), Isolation::Serializable);
            let mark = ready::read_mark(&tx, &keys);
            let (_, mark) = try_join(version, mark).await?;
            state::delete(&tx, &keys);
            directory::remove(&tx, namespace.keys(), &instance);
            // Changed, so that nodes which hold the instance parked, because of a state that they
            // cannot read say, look again. Without one there is nothing to look for, and one that
            // comes meanwhile is a new one.
            if mark.is_some() {
                ready::set_mark(&tx, &keys);
            }
            ready::wake(&tx, &namespace, keys.shard());
            Ok(())
        }
    });
    reset.await.map(drop)
}

/// Takes a batch out of the head of a mailbox and answers its callers. Whether more may stand there.
async fn drain(
    tx: &Tx,
    namespace: &Namespace,
    keys: &InstanceKeys,
    mailbox: MailboxLane,
) -> Result<bool, StoreError> {
    let head = queue::read_head(tx, keys, mailbox, BATCH_ROWS, BATCH_BYTES).await;
    let head = match head {
        Ok(head) => head,
        Err(error) if error.kind() == StoreErrorKind::Corrupt => {
            return match clear_foreign(tx, namespace, keys, mailbox).await? {
                0 => Err(error),
                _ => Ok(true),
            };
        }
        Err(error) => return Err(error),
    };
    queue::pop(tx, keys, &head.messages);
    // It told of a head that is gone.
    attempts::clear(tx, keys, mailbox);
    for message in head.messages.iter().flat_map(|queued| &queued.message) {
        answer(tx, namespace, message)?;
    }
    Ok(head.more)
}

/// Removes keys that are no messages from the head of a mailbox: nobody can read past them, and there
/// is no other way to be rid of them. How many there were.
async fn clear_foreign(
    tx: &Tx,
    namespace: &Namespace,
    keys: &InstanceKeys,
    mailbox: MailboxLane,
) -> Result<usize, StoreError> {
    let rows = keys.mailbox(mailbox).read().limit(BATCH_ROWS).snapshot();
    let rows = tx.get_range(rows).await?;
    let is_message = |key: &[u8]| {
        let decoded = namespace.keys().decode(key);
        matches!(
            decoded,
            Ok(Key::Instance {
                part: Part::Message { .. },
                ..
            })
        )
    };
    let mut cleared = 0;
    for row in rows.iter().filter(|row| !is_message(&row.key)) {
        tracing::error!(key = %row.key.escape_ascii(), "a key that is no message is removed");
        tx.clear(&row.key);
        cleared += 1;
    }
    Ok(cleared)
}

/// Ends the lock, whose holder finds his token gone, and answers its message's caller.
async fn fence(tx: &Tx, namespace: &Namespace, keys: &InstanceKeys) -> Result<(), StoreError> {
    match lock::read_lock(tx, keys).await {
        Ok(None) => return Ok(()),
        // One that cannot be read is ended too.
        Err(error) if error.kind() != StoreErrorKind::Corrupt => return Err(error),
        Ok(Some(_)) | Err(_) => {}
    }
    match lock::read_message(tx, keys).await {
        Ok(message) => answer(tx, namespace, &message)?,
        Err(error) if error.kind() == StoreErrorKind::Corrupt => {
            tracing::warn!(%error, "the caller of a lock's message cannot be told of its end");
        }
        Err(error) => return Err(error),
    }
    lock::clear(tx, keys);
    Ok(())
}

/// Deletes what is left, unless a message or a lock has come meanwhile. Whether it did.
async fn delete(
    tx: &Tx,
    namespace: &Namespace,
    keys: &InstanceKeys,
    instance: &InstanceId,
) -> Result<bool, StoreError> {
    let isolation = match planted(Bug::KillDoesNotLook) {
        true => Isolation::Snapshot,
        false => Isolation::Serializable,
    };
    let empty = |mailbox| queue::mailbox_is_empty(tx, keys, mailbox, isolation);
    let mailboxes = try_join(empty(MailboxLane::Ordinary), empty(MailboxLane::Priority));
    let lock = tx.get(&keys.lock(), Isolation::Serializable);
    let ((ordinary, priority), lock) = try_join(mailboxes, lock).await?;
    let is_empty = ordinary && priority && lock.is_none();
    if !is_empty && !planted(Bug::KillDoesNotLook) {
        return Ok(false);
    }
    tx.clear_range(&keys.all());
    tx.clear(keys.ready());
    tx.clear(&namespace.keys().directory(instance));
    // Nodes that hold it parked, or its state, look again.
    ready::wake(tx, namespace, keys.shard());
    Ok(true)
}

fn answer(tx: &Tx, namespace: &Namespace, message: &Message) -> Result<(), StoreError> {
    match message.call {
        Some(call) => reply::stage(tx, namespace.keys(), call, &Answer::Killed),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

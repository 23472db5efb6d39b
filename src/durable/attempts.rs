//! What became of earlier attempts at the head of a mailbox, and who is at it now.

use super::keys::{InstanceKeys, Lane, SessionId};
use super::{message, value};
use crate::store::{Isolation, Stamp, StoreError, Tx};
use serde::{Deserialize, Serialize};
use std::future::Future;

/// The most bytes of an error's text that are stored.
pub(crate) const MAX_ERROR_BYTES: usize = 4_096;

/// The attempts at the head of a mailbox.
///
/// The record speaks of the messages from `stamp` to `until`. At a head of another stamp it says
/// nothing: whoever took the messages out has forgotten to clear it, or could not know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempts {
    /// The head that it is about.
    #[serde(with = "message::stamp")]
    pub(crate) stamp: Stamp,
    /// The last message that it is about; `stamp` unless a batch was claimed.
    #[serde(with = "message::stamp")]
    pub(crate) until: Stamp,
    /// How many attempts of the head have failed.
    pub(crate) attempts: u32,
    /// How many failures count against every message up to `until`: a process died while it held a
    /// claim on all of them, and any may be the cause.
    #[serde(default)]
    pub(crate) shared: u32,
    /// When to try again, in milliseconds since 1970.
    pub(crate) not_before_ms: u64,
    /// The session that is at it, and would take the blame for dying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim: Option<SessionId>,
    /// What the last failure said; at most [`MAX_ERROR_BYTES`] are stored.
    pub(crate) error: String,
    /// When the first attempt failed, in milliseconds since 1970.
    pub(crate) first_ms: u64,
}

impl Attempts {
    /// The record of a head that has not been tried.
    pub(crate) fn fresh(stamp: Stamp) -> Self {
        Self {
            stamp,
            until: stamp,
            attempts: 0,
            shared: 0,
            not_before_ms: 0,
            claim: None,
            error: String::new(),
            first_ms: 0,
        }
    }
}

/// Reads the record of a mailbox, serializably: a claim or a failure that comes meanwhile fails the
/// commit.
///
/// # Errors
///
/// Those of the store; [`Corrupt`](crate::store::StoreErrorKind::Corrupt) for foreign bytes.
pub(crate) fn read(
    tx: &Tx,
    instance: &InstanceKeys,
    lane: Lane,
) -> impl Future<Output = Result<Option<Attempts>, StoreError>> + Send + 'static + use<> {
    let key = instance.attempts(lane);
    let stored = tx.get(&key, Isolation::Serializable);
    async move {
        let stored = stored.await?;
        stored.map(|bytes| decode(&key, &bytes)).transpose()
    }
}

/// The record in a value.
///
/// # Errors
///
/// [`Corrupt`](crate::store::StoreErrorKind::Corrupt), naming the key.
pub(super) fn decode(key: &[u8], stored: &[u8]) -> Result<Attempts, StoreError> {
    value::decode(key, stored)
}

/// Writes the record of a mailbox.
///
/// # Errors
///
/// None that the record's content could cause.
pub(crate) fn write(
    tx: &Tx,
    instance: &InstanceKeys,
    lane: Lane,
    attempts: &Attempts,
) -> Result<(), StoreError> {
    let mut attempts = attempts.clone();
    shorten(&mut attempts.error);
    tx.set(&instance.attempts(lane), &value::encode(&attempts)?);
    Ok(())
}

/// Takes the claim out of a record, and the record away if it says nothing else.
///
/// # Errors
///
/// As [`write`].
pub(crate) fn release(
    tx: &Tx,
    instance: &InstanceKeys,
    lane: Lane,
    attempts: &Attempts,
) -> Result<(), StoreError> {
    let record = Attempts {
        claim: None,
        ..attempts.clone()
    };
    match record.attempts {
        0 => clear(tx, instance, lane),
        _ => write(tx, instance, lane, &record)?,
    }
    Ok(())
}

/// Clears the record of a mailbox.
pub(crate) fn clear(tx: &Tx, instance: &InstanceKeys, lane: Lane) {
    tx.clear(&instance.attempts(lane));
}

/// Cuts an error's text to [`MAX_ERROR_BYTES`], between two characters.
pub(crate) fn shorten(error: &mut String) {
    let mut end = error.len().min(MAX_ERROR_BYTES);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    error.truncate(end);
}

#[cfg(test)]
mod tests;

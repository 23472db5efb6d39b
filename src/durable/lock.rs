//! The lock of an instance: who holds it, and the message that it is held for.
//!
//! Invariants:
//!
//! - *A token names one taking.* It is the stamp of the commit that took the lock, so no two
//!   takings share one, and a former holder's token is never the lock's again.
//! - *The header covers the rest.* Every taking, renewal and end writes or clears the header, and
//!   whoever acts on a lock reads it serializably: of two that act at once, one fails.
//! - *A renewal is small.* The message stands under keys of its own and stays there.
//!
//! The header is a format byte, the token, and the other fields as MessagePack. The token stands at
//! a fixed place because the commit itself fills it in.

use super::chunk;
use super::keys::{self, InstanceKeys, SessionId};
use super::message::{LaneName, Message};
use super::value::{self, corrupt};
use crate::planted::{Bug, planted};
use crate::store::{CommitStamp, Isolation, Stamp, StoreError, Tx};
use serde::{Deserialize, Serialize};
use std::future::Future;

/// Where the token stands in the header: behind the format.
const TOKEN_AT: usize = 1;

/// The longest error text that a header keeps, in bytes: every renewal writes it again.
pub(crate) const MAX_ERROR_BYTES: usize = 4_096;

/// The session of a lock that its holder has left. Real ones are random.
const NOBODY: SessionId = SessionId::from_bytes([0; SessionId::LEN]);

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lock {
    /// Names this taking of the lock.
    pub(crate) token: CommitStamp,
    /// The holder's session.
    pub(crate) session: SessionId,
    /// Grows with each renewal. Others watch it; nobody compares clocks.
    pub(crate) nonce: u64,
    /// How often the message was tried under a lock and failed.
    pub(crate) attempts: u32,
    /// How often a node stopped while it was tried: no fault of the message's, but what it does
    /// outside may have been done.
    pub(crate) stops: u32,
    /// When the message may be tried again, in milliseconds since 1970.
    pub(crate) not_before_ms: u64,
    /// When the lock was taken, in milliseconds since 1970: for people.
    pub(crate) taken_ms: u64,
    /// The message's stamp; none if it never stood in a mailbox.
    pub(crate) stamp: Option<Stamp>,
    /// The mailbox that the message was for.
    pub(crate) lane: keys::Lane,
    /// Why the last attempt failed; empty before the first.
    pub(crate) error: String,
}

/// A lock to be taken. Its token comes from the commit, its nonce begins at zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewLock {
    /// See [`Lock::session`].
    pub(crate) session: SessionId,
    /// See [`Lock::attempts`].
    pub(crate) attempts: u32,
    /// See [`Lock::stops`].
    pub(crate) stops: u32,
    /// See [`Lock::not_before_ms`].
    pub(crate) not_before_ms: u64,
    /// See [`Lock::taken_ms`].
    pub(crate) taken_ms: u64,
    /// See [`Lock::stamp`].
    pub(crate) stamp: Option<Stamp>,
    /// See [`Lock::lane`].
    pub(crate) lane: keys::Lane,
    /// See [`Lock::error`]; cut to [`MAX_ERROR_BYTES`].
    pub(crate) error: String,
}

/// The part of the header that is MessagePack.
#[derive(Serialize, Deserialize)]
struct Fields {
    session: SessionId,
    nonce: u64,
    attempts: u32,
    /// Left out by those who never counted them.
    #[serde(default)]
    stops: u32,
    not_before_ms: u64,
    taken_ms: u64,
    #[serde(with = "serde_bytes")]
    stamp: Option<[u8; Stamp::LEN]>,
    #[serde(with = "LaneName")]
    lane: keys::Lane,
    error: String,
}

impl Lock {
    /// Whether this is the taking that `token` names. If not, its holder is fenced.
    pub(crate) fn is_held_by(&self, token: CommitStamp) -> bool {
        self.token == token || planted(Bug::LockTokenUnchecked)
    }

    /// This lock, left by its holder to whoever comes next.
    pub(crate) fn given_up(&self) -> Self {
        Self {
            session: NOBODY,
            ..self.renewed()
        }
    }

    /// Which attempt at its message the next run is; the first is 1.
    pub(crate) fn next_attempt(&self) -> u32 {
        let ended = self.attempts.saturating_add(self.stops);
        ended.saturating_add(1)
    }

    /// Whether its holder has left it.
    pub(crate) fn is_given_up(&self) -> bool {
        self.session == NOBODY
    }

    /// This lock, renewed once more.
    pub(crate) fn renewed(&self) -> Self {
        Self {
            nonce: self.nonce.wrapping_add(1),
            ..self.clone()
        }
    }
}

/// Reads the lock without its message, serializably.
///
/// # Errors
///
/// [`Corrupt`](crate::store::StoreErrorKind::Corrupt), naming the key; whatever the store answers.
pub(crate) fn read_lock(
    tx: &Tx,
    keys: &InstanceKeys,
) -> impl Future<Output = Result<Option<Lock>, StoreError>> + Send + use<> {
    let key = keys.lock();
    let header = tx.get(&key, Isolation::Serializable);
    async move {
        let header = header.await?;
        header.map(|header| decode(&key, &header)).transpose()
    }
}

/// Reads the message of a lock that is held, by snapshot: covered by the header, which the caller
/// [reads](read_lock).
///
/// # Errors
///
/// [`Corrupt`](crate::store::StoreErrorKind::Corrupt), naming the key, also if there is no message;
/// whatever the store answers.
pub(crate) fn read_message(
    tx: &Tx,
    keys: &InstanceKeys,
) -> impl Future<Output = Result<Message, StoreError>> + Send + use<> {
    let (chunks, keys) = (keys.lock_message(), keys.clone());
    let first = keys.lock_message_chunk(0);
    let value = chunk::read(tx, &chunks, Isolation::Snapshot, move |number| {
        keys.lock_message_chunk(number)
    });
    async move {
        let value = value.await?;
        let value = value.ok_or_else(|| corrupt(&first, "the lock has no message"))?;
        value::decode(&first, &value)
    }
}

/// Takes the lock: for `message`, or, from a holder that is dead or failed, for the one that stands
/// in it. The caller has read serializably that it may.
///
/// The token is the stamp of the commit.
///
/// # Errors
///
/// [`ValueTooLarge`](crate::store::StoreErrorKind::ValueTooLarge) for a message that no transaction
/// could hold.
pub(crate) fn take(
    tx: &Tx,
    keys: &InstanceKeys,
    lock: &NewLock,
    message: Option<&Message>,
) -> Result<(), StoreError> {
    let unnamed = Lock {
        token: CommitStamp::from_bytes([0; CommitStamp::LEN]),
        session: lock.session,
        nonce: 0,
        attempts: lock.attempts,
        stops: lock.stops,
        not_before_ms: lock.not_before_ms,
        taken_ms: lock.taken_ms,
        stamp: lock.stamp,
        lane: lock.lane,
        error: lock.error.clone(),
    };
    let template = encode(&unnamed)?;
    if let Some(message) = message {
        let message = value::encode(message)?;
        // Whatever stood here belonged to another message, which may have been longer.
        tx.clear_range(&keys.lock_message());
        chunk::write(tx, |number| keys.lock_message_chunk(number), &message)?;
    }
    tx.set_versionstamped_value(&keys.lock(), &template, TOKEN_AT);
    Ok(())
}

/// Renews the lock that was taken under `token`, unless it was taken over or ended. Returns what it is
/// now; nothing means that the holder is fenced.
///
/// # Errors
///
/// As [`read_lock`].
pub(crate) fn renew(
    tx: &Tx,
    keys: &InstanceKeys,
    token: CommitStamp,
) -> impl Future<Output = Result<Option<Lock>, StoreError>> + Send + use<> {
    let found = read_lock(tx, keys);
    let (tx, keys) = (Tx::clone(tx), keys.clone());
    async move {
        let Some(held) = found.await?.filter(|held| held.is_held_by(token)) else {
            return Ok(None);
        };
        let renewed = held.renewed();
        write_renewed(&tx, &keys, &renewed)?;
        Ok(Some(renewed))
    }
}

/// Writes the header of a lock that the caller has read in this transaction and that keeps its
/// token.
///
/// # Errors
///
/// When the record cannot be encoded.
pub(crate) fn write_renewed(tx: &Tx, keys: &InstanceKeys, lock: &Lock) -> Result<(), StoreError> {
    tx.set(&keys.lock(), &encode(lock)?);
    Ok(())
}

/// Ends the lock: nothing of it stays.
pub(crate) fn clear(tx: &Tx, keys: &InstanceKeys) {
    tx.clear(&keys.lock());
    tx.clear_range(&keys.lock_message());
}

fn encode(lock: &Lock) -> Result<Vec<u8>, StoreError> {
    let mut header = value::encode(&Fields {
        session: lock.session,
        nonce: lock.nonce,
        attempts: lock.attempts,
        stops: lock.stops,
        not_before_ms: lock.not_before_ms,
        taken_ms: lock.taken_ms,
        stamp: lock.stamp.map(|stamp| *stamp.as_bytes()),
        lane: lock.lane,
        error: shortened(&lock.error),
    })?;
    header.splice(TOKEN_AT..TOKEN_AT, *lock.token.as_bytes());
    Ok(header)
}

/// The lock in a header.
///
/// # Errors
///
/// As [`read_lock`].
pub(super) fn decode(key: &[u8], header: &[u8]) -> Result<Lock, StoreError> {
    let parts = header.split_first().and_then(|(format, rest)| {
        let (token, fields) = rest.split_first_chunk()?;
        Some((*format, *token, fields))
    });
    let Some((format, token, fields)) = parts else {
        return Err(corrupt(key, "the header is too short for a lock's"));
    };
    let fields: Fields = value::decode(key, &[&[format], fields].concat())?;
    Ok(Lock {
        token: CommitStamp::from_bytes(token),
        session: fields.session,
        nonce: fields.nonce,
        attempts: fields.attempts,
        stops: fields.stops,
        not_before_ms: fields.not_before_ms,
        taken_ms: fields.taken_ms,
        stamp: fields.stamp.map(Stamp::from_bytes),
        lane: fields.lane,
        error: fields.error,
    })
}

/// The beginning of a text, no longer than [`MAX_ERROR_BYTES`] and whole characters.
fn shortened(text: &str) -> String {
    let mut end = text.len().min(MAX_ERROR_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;

//! Replies to calls from other processes, under the caller's session until the caller has read them.
//!
//! Invariants:
//!
//! - *An answer wakes.* Whoever stages a reply bumps the session's wake in the same transaction.
//! - *One bad reply spoils no other.* What cannot be read is an error of its call alone, and can be
//!   cleared like any other; so can a key that is no reply's.
//! - *The answer staged last counts.* A call that was answered twice has the chunks of the second
//!   answer, and maybe further ones of the first, which are passed over and cleared with it.

use super::chunk::{self, Assembler, MAX_CHUNKS};
use super::keys::{Keys, SessionKeys};
use super::message::CallId;
use super::value;
use crate::codec::{Path, PathElement};
use crate::store::{KeyRange, KeyValue, StoreError, TransactionExt, Tx, after};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::future::Future;

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The handler's reply, as MessagePack.
    Reply(#[serde(with = "payload")] Bytes),
    /// The handler refused the message, and why.
    Rejected(String),
    /// The message failed too often and is a dead letter now; why it failed last.
    DeadLetter(String),
    /// The instance was killed, reset, or its mailbox purged.
    Killed,
    /// The message could not be handled at all, and why.
    Failed(String),
}

/// Bytes as MessagePack's binary type.
mod payload {
    use bytes::Bytes;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        serde_bytes::deserialize::<Vec<u8>, D>(from).map(Bytes::from)
    }
}

/// A page of a session's replies.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The calls with their answers. An answer that cannot be read is
    /// [`Corrupt`](crate::store::StoreErrorKind::Corrupt) and names the key.
    pub(crate) answers: Vec<(u64, Result<Answer, StoreError>)>,
    /// Keys among the replies that are no reply's: see [`clear_foreign`].
    pub(crate) foreign: Vec<Bytes>,
    /// Whether there may be more behind. Clear what is here, then read again.
    pub(crate) more: bool,
}

/// Stages the answer to a call, and wakes the caller.
///
/// # Errors
///
/// [`ValueTooLarge`](crate::store::StoreErrorKind::ValueTooLarge) for an answer that no transaction
/// could hold; nothing is staged then.
pub(crate) fn stage(tx: &Tx, keys: &Keys, call: CallId, answer: &Answer) -> Result<(), StoreError> {
    let session = keys.session(call.session);
    let answer = value::encode(answer)?;
    chunk::write(tx, |number| session.reply(call.call, number), &answer)?;
    tx.add_i64(&session.reply_wake(), 1);
    Ok(())
}

/// Reads a session's replies in the order of their calls, by snapshot: about `rows` rows, but whole
/// replies only, and at least one row.
///
/// # Errors
///
/// Whatever the store answers.
pub(crate) fn read_inbox(
    tx: &Tx,
    keys: &SessionKeys,
    rows: usize,
) -> impl Future<Output = Result<Inbox, StoreError>> + Send + use<> {
    let (tx, keys) = (Tx::clone(tx), keys.clone());
    let rows = rows.max(1);
    async move {
        let all = keys.replies();
        let page = tx.get_range(all.read().limit(rows).snapshot()).await?;
        let mut reading = Reading::default();
        let mut last = None;
        let full = page.len() >= rows;
        for row in page {
            last = Some(row.key.clone());
            reading.add(&all.begin, row);
        }
        // The rest of the reply that the end of the page has cut.
        if let (Some(last), Some(call), true) = (last, reading.cut(), full) {
            let rest = KeyRange::new(after(&last), keys.reply_chunks(call).end);
            let read = rest.read().limit(usize::from(MAX_CHUNKS)).snapshot();
            for row in tx.get_range(read).await? {
                reading.add(&all.begin, row);
            }
        }
        Ok(reading.finish(full))
    }
}

/// Removes the reply to a call, readable or not.
pub(crate) fn clear(tx: &Tx, keys: &SessionKeys, call: u64) {
    tx.clear_range(&keys.reply_chunks(call));
}

/// Removes a key that [`read_inbox`] found and that is no reply's.
pub(crate) fn clear_foreign(tx: &Tx, key: &[u8]) {
    tx.clear(key);
}

/// Replies under way from the store, in the order of their keys.
#[derive(Default)]
struct Reading {
    answers: Vec<(u64, Result<Answer, StoreError>)>,
    foreign: Vec<Bytes>,
    open: Option<Open>,
}

/// The reply that is being read.
struct Open {
    call: u64,
    key: Bytes,
    chunks: usize,
    value: Result<Assembler, StoreError>,
}

impl Reading {
    fn add(&mut self, prefix: &[u8], row: KeyValue) {
        let Some((call, chunk)) = reply_of(prefix, &row.key) else {
            self.foreign.push(row.key);
            return;
        };
        if self.open.as_ref().is_none_or(|open| open.call != call) {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| Open {
            call,
            key: row.key.clone(),
            chunks: 0,
            value: Ok(Assembler::default()),
        });
        open.add(chunk, row);
    }

    /// The call whose reply still lacks chunks.
    fn cut(&self) -> Option<u64> {
        let open = self.open.as_ref()?;
        let value = open.value.as_ref().ok()?;
        (value.missing() > 0).then_some(open.call)
    }

    fn close(&mut self) {
        if let Some(Open {
            call, key, value, ..
        }) = self.open.take()
        {
            let answer = value
                .and_then(|value| value.finish(&key))
                .and_then(|bytes| value::decode(&key, &bytes));
            self.answers.push((call, answer));
        }
    }

    fn finish(mut self, more: bool) -> Inbox {
        self.close();
        Inbox {
            answers: self.answers,
            foreign: self.foreign,
            more,
        }
    }
}

impl Open {
    fn add(&mut self, chunk: u32, row: KeyValue) {
        let Ok(value) = &mut self.value else {
            return;
        };
        let is_whole = self.chunks > 0 && value.missing() == 0;
        if is_whole {
            return;
        }
        match value.add(&row.key, chunk, row.value) {
            Ok(()) => self.chunks += 1,
            Err(error) => self.value = Err(error),
        }
    }
}

/// The call and the chunk that a key among the replies is of.
fn reply_of(prefix: &[u8], key: &[u8]) -> Option<(u64, u32)> {
    // Two numbers in the tuple layer's encoding, which is a path's.
    let path = Path::from_tuple(key.strip_prefix(prefix)?).ok()?;
    let mut elements = path.elements();
    let (call, chunk) = (elements.next()?, elements.next()?);
    match (call, chunk, elements.next()) {
        (PathElement::Int(call), PathElement::Int(chunk), None) => Some((
            u64::try_from(call.get()).ok()?,
            u32::try_from(chunk.get()).ok()?,
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

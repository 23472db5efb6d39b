//! Dead letters: messages that were taken out of the mailbox after they had failed too often.

use super::chunk::{self, Layout, Limits};
use super::keys::{InstanceKeys, Key, Keys, Lane, Part};
use super::message::{LaneName, Message};
use super::namespace::Namespace;
use super::{attempts, value};
use crate::store::{Isolation, KeyRange, Stamp, StoreError, Tx, after};
use serde::{Deserialize, Serialize};
use std::future::Future;

/// A dead letter. It stands under the stamp that the message had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeadLetter {
    /// The message.
    pub(crate) message: Message,
    /// The mailbox that it stood in.
    #[serde(with = "LaneName")]
    pub(crate) lane: Lane,
    /// The namespace's incarnation when it was pushed.
    pub(crate) incarnation: u32,
    /// What the last failure said; at most [`attempts::MAX_ERROR_BYTES`] are stored.
    pub(crate) error: String,
    /// How many attempts failed.
    pub(crate) attempts: u32,
    /// When the first attempt failed, in milliseconds since 1970.
    pub(crate) first_failed_ms: u64,
    /// When it was given up, in milliseconds since 1970.
    pub(crate) dead_ms: u64,
}

/// A page of dead letters.
#[derive(Debug)]
pub(crate) struct Letters {
    /// The letters, oldest first; one that cannot be read can still be removed by its stamp.
    pub(crate) letters: Vec<(Stamp, Result<DeadLetter, StoreError>)>,
    /// Where the next page begins; none if this was the last.
    pub(crate) next: Option<KeyRange>,
}

/// Writes a dead letter. Blind.
///
/// # Errors
///
/// [`ValueTooLarge`](crate::store::StoreErrorKind::ValueTooLarge) if the message is as large as a
/// message can be, and its error does not fit in beside it.
pub(crate) fn write(
    tx: &Tx,
    instance: &InstanceKeys,
    stamp: Stamp,
    letter: &DeadLetter,
) -> Result<(), StoreError> {
    let mut letter = letter.clone();
    attempts::shorten(&mut letter.error);
    let encoded = value::encode(&letter)?;
    // Another incarnation may have used the stamp.
    remove(tx, instance, stamp);
    chunk::write(tx, |chunk| instance.dead_letter(stamp, chunk), &encoded)
}

/// Writes a dead letter under the stamp of the commit, as the `user`-th of its transaction. Blind.
///
/// # Errors
///
/// As [`write`].
pub(crate) fn write_new(
    tx: &Tx,
    instance: &InstanceKeys,
    user: u16,
    letter: &DeadLetter,
) -> Result<(), StoreError> {
    let mut letter = letter.clone();
    attempts::shorten(&mut letter.error);
    let encoded = value::encode(&letter)?;
    chunk::write_stamped(tx, |chunk| instance.new_dead_letter(user, chunk), &encoded)
}

/// Reads one dead letter, serializably: of two who take it to retry it, one fails.
///
/// # Errors
///
/// Those of the store; [`Corrupt`](crate::store::StoreErrorKind::Corrupt) for foreign bytes.
pub(crate) fn read(
    tx: &Tx,
    instance: &InstanceKeys,
    stamp: Stamp,
) -> impl Future<Output = Result<Option<DeadLetter>, StoreError>> + Send + 'static + use<> {
    let range = span(instance, stamp);
    let keys = instance.clone();
    let read = chunk::read(tx, &range, Isolation::Serializable, move |chunk| {
        keys.dead_letter(stamp, chunk)
    });
    async move {
        let value = read.await?;
        value
            .map(|value| value::decode(&range.begin, &value))
            .transpose()
    }
}

/// Reads a page of dead letters without a conflict: of all of an instance
/// ([`InstanceKeys::dead_letters`]), or of the [rest](Letters::next). At least one, if there is one;
/// about `rows` rows and `bytes` bytes.
///
/// # Errors
///
/// Those of the store; [`Corrupt`](crate::store::StoreErrorKind::Corrupt) if the range begins with a
/// key that is not one of a dead letter.
pub(crate) fn list(
    tx: &Tx,
    namespace: &Namespace,
    instance: &InstanceKeys,
    range: KeyRange,
    rows: usize,
    bytes: usize,
) -> impl Future<Output = Result<Letters, StoreError>> + Send + 'static + use<> {
    let layout = Graves {
        keys: namespace.keys().clone(),
        instance: instance.clone(),
    };
    let scanned = chunk::scan(tx, layout, range.clone(), Limits { rows, bytes });
    async move {
        let scanned = scanned.await?;
        let next = scanned
            .records
            .last()
            .filter(|_| scanned.more)
            .map(|last| KeyRange::new(last.span.end.clone(), range.end));
        let letters = scanned.records.into_iter().map(|record| {
            let letter = record
                .value
                .and_then(|value| value::decode(&record.span.begin, &value));
            (record.id, letter)
        });
        Ok(Letters {
            letters: letters.collect(),
            next,
        })
    }
}

/// Removes a dead letter. Blind.
pub(crate) fn remove(tx: &Tx, instance: &InstanceKeys, stamp: Stamp) {
    tx.clear_range(&span(instance, stamp));
}

/// Every chunk of a dead letter.
fn span(instance: &InstanceKeys, stamp: Stamp) -> KeyRange {
    KeyRange::new(
        instance.dead_letter(stamp, 0),
        after(&instance.dead_letter(stamp, u32::MAX)),
    )
}

/// The keys of an instance's dead letters.
struct Graves {
    keys: Keys,
    instance: InstanceKeys,
}

impl Layout for Graves {
    type Id = Stamp;

    fn locate(&self, key: &[u8]) -> Result<(Stamp, u32), StoreError> {
        match self.keys.decode(key) {
            Ok(Key::Instance {
                part: Part::DeadLetter { stamp, chunk },
                ..
            }) => Ok((stamp, chunk)),
            _ => Err(value::corrupt(key, "it is not the key of a dead letter")),
        }
    }

    fn span(&self, stamp: &Stamp) -> KeyRange {
        span(&self.instance, *stamp)
    }
}

#[cfg(test)]
mod tests;

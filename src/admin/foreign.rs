//! Reading past keys that are nothing's: they stand where something should, and hide nothing.

use super::page::Damage;
use crate::durable::Namespace;
use crate::durable::dead::{self, Letters};
use crate::durable::keys::{InstanceKeys, Lane};
use crate::durable::queue::{self, Head};
use crate::store::{KeyRange, StoreError, StoreErrorKind, Tx, after};

/// How many such keys one read passes over.
const MAX_FOREIGN: usize = 100;

/// What a read came to.
enum Past<T> {
    Found(T),
    /// Nothing but such keys, so far.
    Rest(KeyRange),
}

/// Reads messages as [`queue::read_from`] does, but passes over keys that are no message's.
pub(super) async fn read_messages(
    tx: &Tx,
    keys: &InstanceKeys,
    lane: Lane,
    range: KeyRange,
    rows: usize,
    bytes: usize,
) -> Result<(Head, Vec<Damage>), StoreError> {
    let read = |range| queue::read_from(tx, keys, lane, range, rows, bytes);
    let (past, damaged) = pass(tx, range, read).await?;
    let head = match past {
        Past::Found(head) => head,
        Past::Rest(rest) => Head {
            messages: Vec::new(),
            more: true,
            rest,
        },
    };
    Ok((head, damaged))
}

/// Reads dead letters as [`dead::list`] does, but passes over keys that are no letter's.
pub(super) async fn read_letters(
    tx: &Tx,
    namespace: &Namespace,
    keys: &InstanceKeys,
    range: KeyRange,
    rows: usize,
    bytes: usize,
) -> Result<(Letters, Vec<Damage>), StoreError> {
    let read = |range| dead::list(tx, namespace, keys, range, rows, bytes);
    let (past, damaged) = pass(tx, range, read).await?;
    let letters = match past {
        Past::Found(letters) => letters,
        Past::Rest(rest) => Letters {
            letters: Vec::new(),
            next: Some(rest),
        },
    };
    Ok((letters, damaged))
}

/// Such a key fails a read that begins with it, and ends one that begins before it.
async fn pass<T, Fut>(
    tx: &Tx,
    mut range: KeyRange,
    read: impl Fn(KeyRange) -> Fut,
) -> Result<(Past<T>, Vec<Damage>), StoreError>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut damaged = Vec::new();
    while damaged.len() < MAX_FOREIGN {
        let error = match read(range.clone()).await {
            Ok(found) => return Ok((Past::Found(found), damaged)),
            Err(error) if error.kind() == StoreErrorKind::Corrupt => error,
            Err(error) => return Err(error),
        };
        let first = tx.get_range(range.read().limit(1).snapshot()).await?;
        let Some(first) = first.into_iter().next() else {
            return Err(error);
        };
        range.begin = after(&first.key);
        damaged.push(Damage::new(first.key, &error));
    }
    Ok((Past::Rest(range), damaged))
}

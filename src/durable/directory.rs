//! The directory: which instances have a state, so that operators can list them by kind.
//!
//! Invariant: an instance has an entry as long as it has a state. The turn that writes its first
//! state writes the entry, and whoever deletes the state deletes the entry, in one transaction.

use super::keys::{Key, Keys};
use super::value;
use crate::id::InstanceId;
use crate::store::{Isolation, KeyRange, StoreError, Tx, after};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::future::Future;

/// The value of an entry.
#[derive(Serialize, Deserialize)]
struct Record {
    created_ms: u64,
}

/// A page of the directory.
#[derive(Debug)]
pub(crate) struct Page {
    /// The instances, in the order of kind and id.
    pub(crate) entries: Vec<InstanceId>,
    /// Keys that are no entry's.
    pub(crate) undecodable: Vec<Bytes>,
    /// What is still to be read, if there may be something.
    pub(crate) next: Option<KeyRange>,
}

/// Writes the entry of an instance that has none.
///
/// # Errors
///
/// When the record cannot be encoded.
pub(crate) fn add(
    tx: &Tx,
    keys: &Keys,
    instance: &InstanceId,
    created_ms: u64,
) -> Result<(), StoreError> {
    let record = value::encode(&Record { created_ms })?;
    tx.set(&keys.directory(instance), &record);
    Ok(())
}

/// Removes the entry of an instance.
pub(crate) fn remove(tx: &Tx, keys: &Keys, instance: &InstanceId) {
    tx.clear(&keys.directory(instance));
}

/// When the instance's first state was written, in milliseconds since 1970, read serializably; none
/// if the directory does not know it.
///
/// # Errors
///
/// [`Corrupt`](crate::store::StoreErrorKind::Corrupt), naming the key; whatever the store answers.
pub(crate) fn read(
    tx: &Tx,
    keys: &Keys,
    instance: &InstanceId,
) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send + use<> {
    let key = keys.directory(instance);
    let value = tx.get(&key, Isolation::Serializable);
    async move {
        let value = value.await?;
        value.map(|value| decode(&key, &value)).transpose()
    }
}

/// Reads at most `limit` entries of a range, by snapshot. Begin with
/// [`Keys::directory_of`](Keys::directory_of) a kind or all kinds, go on with the page's `next`.
///
/// # Errors
///
/// Whatever the store answers.
pub(crate) fn list(
    tx: &Tx,
    keys: &Keys,
    range: KeyRange,
    limit: usize,
) -> impl Future<Output = Result<Page, StoreError>> + Send + use<> {
    let keys = keys.clone();
    let limit = limit.max(1);
    let rows = tx.get_range(range.read().limit(limit).snapshot());
    async move {
        let rows = rows.await?;
        let mut page = Page {
            entries: Vec::with_capacity(rows.len()),
            undecodable: Vec::new(),
            next: match rows.last() {
                Some(last) if rows.len() >= limit => {
                    Some(KeyRange::new(after(&last.key), range.end))
                }
                _ => None,
            },
        };
        for row in rows {
            match keys.decode(&row.key) {
                Ok(Key::Directory(instance)) => page.entries.push(instance),
                _ => page.undecodable.push(row.key),
            }
        }
        Ok(page)
    }
}

/// When an entry says that its instance was created.
///
/// # Errors
///
/// [`Corrupt`](crate::store::StoreErrorKind::Corrupt), naming the key.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<u64, StoreError> {
    value::decode(key, value).map(|Record { created_ms }| created_ms)
}

#[cfg(test)]
mod tests;

//! Ready marks and wake counters: how a node learns which instances have work.
//!
//! Invariant: the mark of an instance stands while it has a message or a lock. Every push and every
//! lock gives the mark a new value, and it goes away only by comparison with the value that was read
//! together with empty mailboxes; so a push that came meanwhile keeps it.

use super::keys::{InstanceKeys, Key};
use super::namespace::Namespace;
use crate::id::InstanceId;
use crate::planted::{Bug, planted};
use crate::store::{
    CommitStamp, Isolation, KeyRange, StoreError, StoreFuture, TransactionExt, Tx, after,
};
use bytes::Bytes;
use std::future::Future;

/// The format byte of a mark, before the stamp of the commit that set it.
const FORMAT: u8 = 1;

/// Reads the mark of an instance, without a conflict.
pub(crate) fn read_mark(tx: &Tx, instance: &InstanceKeys) -> StoreFuture<Option<Bytes>> {
    tx.get(instance.ready(), Isolation::Snapshot)
}

/// Removes the mark if it still is what was `seen` at the transaction's read version.
pub(crate) fn clear_mark(tx: &Tx, instance: &InstanceKeys, seen: &Bytes) {
    match planted(Bug::MarkClearedBlindly) {
        true => tx.clear(instance.ready()),
        false => tx.compare_and_clear(instance.ready(), seen),
    }
}

/// Marks an instance ready, with a value that no mark had before. The transaction cannot read the
/// mark any more.
pub(crate) fn set_mark(tx: &Tx, instance: &InstanceKeys) {
    let mut template = [0; 1 + CommitStamp::LEN];
    let (format, _) = template.split_at_mut(1);
    format.fill(FORMAT);
    tx.set_versionstamped_value(instance.ready(), &template, 1);
}

/// The commit that set a mark; none for a value that no mark has. Nodes do not read it: to them any
/// value but the one they know is news.
pub(crate) fn stamp_of(mark: &[u8]) -> Option<CommitStamp> {
    let (format, stamp) = mark.split_first()?;
    let stamp = stamp.try_into().ok().filter(|_| *format == FORMAT)?;
    Some(CommitStamp::from_bytes(stamp))
}

/// Wakes the nodes that watch a shard.
pub(crate) fn wake(tx: &Tx, namespace: &Namespace, shard: u32) {
    tx.add_i64(&namespace.keys().wake(shard), 1);
}

/// A page of marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The instances, in the order of their keys, and the values of their marks.
    pub(crate) instances: Vec<(InstanceId, Bytes)>,
    /// Where the next page begins; none if this was the last.
    pub(crate) next: Option<KeyRange>,
    /// Keys that are no marks.
    pub(crate) undecodable: Vec<Bytes>,
}

/// Reads up to `limit` marks of a range, a shard's or the rest of it, without a conflict.
pub(crate) fn read_marks(
    tx: &Tx,
    namespace: &Namespace,
    range: KeyRange,
    limit: usize,
) -> impl Future<Output = Result<Marks, StoreError>> + Send + 'static + use<> {
    let limit = limit.max(1);
    let page = tx.get_range(range.read().snapshot().limit(limit));
    let keys = namespace.keys().clone();
    async move {
        let rows = page.await?;
        let next = rows
            .last()
            .filter(|_| rows.len() >= limit)
            .map(|last| KeyRange::new(after(&last.key), range.end));
        let mut marks = Marks {
            instances: Vec::with_capacity(rows.len()),
            next,
            undecodable: Vec::new(),
        };
        for row in rows {
            match keys.decode(&row.key) {
                // A mark under another shard's number would be worked on there too.
                Ok(Key::Ready { shard, instance }) if shard == keys.shard(&instance) => {
                    marks.instances.push((instance, row.value));
                }
                _ => marks.undecodable.push(row.key),
            }
        }
        Ok(marks)
    }
}

#[cfg(test)]
mod tests;

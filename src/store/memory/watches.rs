//! Watches: who waits for which key to differ from which value.

use super::Shared;
use super::tree::Tree;
use crate::store::types::KeyRange;
use crate::store::{StoreError, StoreErrorKind};
use bytes::Bytes;
use futures_channel::oneshot;
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};

/// Tells the watches of one store apart.
pub(super) type WatchId = u64;

/// A watch: not yet armed in the hands of its transaction, armed in those of the store.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) id: WatchId,
    pub(super) key: Bytes,
    /// The value that its transaction saw.
    pub(super) seen: Option<Bytes>,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

impl Watch {
    /// A watch and the future that waits for it.
    pub(super) fn new(
        id: WatchId,
        key: Bytes,
        seen: Option<Bytes>,
        store: Weak<Shared>,
    ) -> (Self, Watching) {
        let (answer, answered) = oneshot::channel();
        let watching = Watching {
            id,
            key: key.clone(),
            answered,
            store,
        };
        let watch = Self {
            id,
            key,
            seen,
            answer,
        };
        (watch, watching)
    }

    /// Completes the watch. Never called under the store's lock: the answer may wake a task that
    /// an executor runs at once.
    pub(super) fn complete(self, result: Result<(), StoreError>) {
        // Nobody waits any more: fine.
        let _ = self.answer.send(result);
    }
}

/// The armed watches of a store.
#[derive(Debug, Default)]
pub(super) struct Watches {
    armed: BTreeMap<Bytes, BTreeMap<WatchId, Watch>>,
    last_id: WatchId,
}

impl Watches {
    pub(super) fn next_id(&mut self) -> WatchId {
        self.last_id += 1;
        self.last_id
    }

    /// Arms a watch, or gives it back to be completed if the value differs already.
    ///
    /// Called under the store's lock. A dropped future closes its channel first and takes the lock
    /// second, so either it is seen closed here, or it finds what was armed here.
    pub(super) fn arm(&mut self, watch: Watch, data: &Tree) -> Option<Watch> {
        if watch.answer.is_canceled() {
            return None;
        }
        if data.get(&watch.key) != watch.seen.as_ref() {
            return Some(watch);
        }
        self.armed
            .entry(watch.key.clone())
            .or_default()
            .insert(watch.id, watch);
        None
    }

    /// Takes out the watches of `range` whose value differs in `data`.
    pub(super) fn take_changed(&mut self, range: &KeyRange, data: &Tree, changed: &mut Vec<Watch>) {
        let bounds = (Bound::Included(&range.begin), Bound::Excluded(&range.end));
        let mut emptied = Vec::new();
        for (key, watches) in self.armed.range_mut::<Bytes, _>(bounds) {
            let value = data.get(key);
            let ids: Vec<WatchId> = watches
                .values()
                .filter(|watch| watch.seen.as_ref() != value)
                .map(|watch| watch.id)
                .collect();
            changed.extend(ids.iter().filter_map(|id| watches.remove(id)));
            if watches.is_empty() {
                emptied.push(key.clone());
            }
        }
        for key in emptied {
            self.armed.remove(&key);
        }
    }

    /// Forgets a watch, if it is armed.
    fn remove(&mut self, key: &Bytes, id: WatchId) -> Option<Watch> {
        let watches = self.armed.get_mut(key)?;
        let watch = watches.remove(&id);
        if watches.is_empty() {
            self.armed.remove(key);
        }
        watch
    }

    /// How many watches are armed.
    pub(super) fn len(&self) -> usize {
        self.armed.values().map(BTreeMap::len).sum()
    }
}

/// Waits for a watch; dropping it frees the watch.
#[derive(Debug)]
pub(super) struct Watching {
    id: WatchId,
    key: Bytes,
    answered: oneshot::Receiver<Result<(), StoreError>>,
    store: Weak<Shared>,
}

impl Future for Watching {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answered).poll(cx).map(|answer| {
            answer.unwrap_or_else(|oneshot::Canceled| {
                Err(StoreError::new(StoreErrorKind::Unavailable).with_context(
                    "the watch is lost: its transaction was dropped before it was committed, \
                     or its store was closed",
                ))
            })
        })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.answered.close();
        if let Some(store) = self.store.upgrade() {
            let freed = store.lock().watches.remove(&self.key, self.id);
            // Outside the lock, as everything that runs other people's code.
            drop(freed);
        }
    }
}

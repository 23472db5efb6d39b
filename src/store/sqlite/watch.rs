//! Who waits for which key.
//!
//! Invariant: a watch that is registered completes once its key's value differs, lastingly, from
//! the armed one. Three looks together see to that:
//! - a commit of this process looks at the watched keys it wrote, after it (`writer`);
//! - the poller looks at all watched keys when anyone else committed (`poller`);
//! - the poller looks at a new watch once after it was registered: changes between the moment at
//!   which the armed value was read and the registration are seen by neither of the others.

use super::super::{KeyRange, StoreError, StoreErrorKind, StoreFuture, Version};
use super::error::closed;
use super::lock;
use crate::env::monotonic;
use bytes::Bytes;
use futures_channel::oneshot;
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// A watch whose transaction has not been committed yet.
#[derive(Debug)]
pub(super) struct PendingWatch {
    pub(super) key: Bytes,
    /// The value that the transaction sees.
    pub(super) armed: Option<Bytes>,
    number: u64,
    fire: oneshot::Sender<Result<(), StoreError>>,
}

impl PendingWatch {
    pub(super) fn fail(self, error: StoreError) {
        let _ = self.fire.send(Err(error));
    }
}

/// What the poller does next.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    /// Look at these new watches only: the rest after the last look at all of them is not over.
    New(Vec<Bytes>),
    /// Look whether anyone else committed, and at these new watches in any case.
    Changes(Vec<Bytes>),
}

/// All registered watches of a store.
#[derive(Debug, Default)]
pub(super) struct Hub {
    numbers: AtomicU64,
    state: Mutex<State>,
    /// Wakes the poller.
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    watched: BTreeMap<Bytes, Vec<PendingWatch>>,
    /// Keys of watches that the poller has not looked at yet.
    fresh: Vec<Bytes>,
    /// Every commit up to this version has been looked at.
    looked_at: Option<Version>,
    closed: bool,
}

impl Hub {
    /// A watch to be armed, and the future that it completes.
    pub(super) fn watch(self: &Arc<Self>, key: Bytes) -> (PendingWatch, StoreFuture<()>) {
        let (fire, fired) = oneshot::channel();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let future = WatchFuture {
            fired,
            _registration: Registration {
                hub: Arc::clone(self),
                key: key.clone(),
                number,
            },
        };
        let pending = PendingWatch {
            key,
            armed: None,
            number,
            fire,
        };
        (pending, Box::pin(future))
    }

    /// Registers watches, and has the poller look at them once.
    pub(super) fn arm(&self, watches: Vec<PendingWatch>) {
        if watches.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        for watch in watches {
            if state.closed {
                watch.fail(closed());
            } else if !watch.fire.is_canceled() {
                state.fresh.push(watch.key.clone());
                state
                    .watched
                    .entry(watch.key.clone())
                    .or_default()
                    .push(watch);
            }
        }
        self.wake.notify_one();
    }

    fn remove(&self, key: &Bytes, number: u64) {
        let mut state = lock(&self.state);
        if let Some(watches) = state.watched.get_mut(key) {
            watches.retain(|watch| watch.number != number);
            if watches.is_empty() {
                state.watched.remove(key);
            }
        }
    }

    /// The watched keys among `written`.
    pub(super) fn watched_in(&self, written: &[KeyRange]) -> Vec<Bytes> {
        let state = lock(&self.state);
        let mut keys = Vec::new();
        if state.watched.is_empty() {
            return keys;
        }
        for range in written.iter().filter(|range| !range.is_empty()) {
            let bounds = (
                Bound::Included(range.begin.as_ref()),
                Bound::Excluded(range.end.as_ref()),
            );
            let hit = state.watched.range::<[u8], _>(bounds);
            keys.extend(hit.map(|(key, _)| key.clone()));
        }
        keys
    }

    /// Fires the watches of `key` that were armed with another value.
    pub(super) fn look(&self, key: &Bytes, value: Option<&Bytes>) {
        let mut state = lock(&self.state);
        let Some(watches) = state.watched.get_mut(key) else {
            return;
        };
        let fired: Vec<_> = watches
            .extract_if(.., |watch| watch.armed.as_ref() != value)
            .collect();
        if watches.is_empty() {
            state.watched.remove(key);
        }
        drop(state);
        for watch in fired {
            let _ = watch.fire.send(Ok(()));
        }
    }

    /// Notes that the commits behind `base`, up to `newest`, have been looked at by whoever made
    /// them. A commit of another process between the two notes breaks the chain, and stays for the
    /// poller to find.
    pub(super) fn looked_at_own(&self, base: Version, newest: Version) {
        let mut state = lock(&self.state);
        if state.looked_at == Some(base) {
            state.looked_at = Some(newest);
        }
    }

    /// Notes that all watches have been compared with the data of `version` or later.
    pub(super) fn looked_at_all(&self, version: Version) {
        let mut state = lock(&self.state);
        state.looked_at = state.looked_at.max(Some(version));
    }

    /// Whether there are commits up to `version` that nobody has looked at.
    pub(super) fn is_behind(&self, version: Version) -> bool {
        lock(&self.state).looked_at != Some(version)
    }

    /// All watched keys.
    pub(super) fn watched(&self) -> Vec<Bytes> {
        lock(&self.state).watched.keys().cloned().collect()
    }

    /// Waits until there are new watches, or it is `rested_at` (by [`monotonic`]) and anything is
    /// watched. `None` once the store is closed.
    pub(super) fn next_poll(&self, rested_at: Duration) -> Option<Look> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            let rest = rested_at.saturating_sub(monotonic());
            // The end of the rest comes first, lest many new watches put it off.
            if rest.is_zero() && !state.watched.is_empty() {
                return Some(Look::Changes(std::mem::take(&mut state.fresh)));
            }
            if !state.fresh.is_empty() {
                return Some(Look::New(std::mem::take(&mut state.fresh)));
            }
            state = if state.watched.is_empty() {
                self.wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner)
            } else {
                self.wake
                    .wait_timeout(state, rest)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            };
        }
    }

    /// Fails every watch: nobody can see whether their keys change.
    pub(super) fn fail_all(&self, error: &StoreError) {
        let watched = std::mem::take(&mut lock(&self.state).watched);
        for watch in watched.into_values().flatten() {
            watch.fail(error.clone());
        }
    }

    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.wake.notify_all();
        self.fail_all(&closed());
    }
}

/// Completes when the watch fires. The fields are dropped in this order: `arm` does not register a
/// watch whose receiver is gone, and what it registered before is there to be removed.
struct WatchFuture {
    fired: oneshot::Receiver<Result<(), StoreError>>,
    _registration: Registration,
}

impl Future for WatchFuture {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.fired).poll(context).map(|fired| {
            fired.unwrap_or_else(|_| {
                Err(StoreError::new(StoreErrorKind::InvalidCall)
                    .with_context("the watch's transaction was dropped before its commit"))
            })
        })
    }
}

struct Registration {
    hub: Arc<Hub>,
    key: Bytes,
    number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.hub.remove(&self.key, self.number);
    }
}

//! How much may wait to be pushed: back-pressure for senders that are faster than the store.
//!
//! Invariant: senders are admitted in the order in which they asked; a large one is not overtaken
//! for ever by small ones.

use futures_channel::oneshot;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What waits to be pushed, over all streams.
#[derive(Debug)]
pub(super) struct Budget {
    most: Amount,
    state: Mutex<State>,
}

/// A number of messages and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    used: Amount,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    amount: Amount,
    granted: oneshot::Sender<Permit>,
}

/// The right to have messages wait; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    budget: Arc<Budget>,
    amount: Amount,
}

impl Budget {
    pub(super) fn new(most: Amount) -> Arc<Self> {
        Arc::new(Self {
            most,
            state: Mutex::default(),
        })
    }

    /// Waits until there is room for `amount`. What is larger than the whole budget gets in once
    /// nothing else is.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives up the place in the queue.
    pub(super) async fn acquire(self: &Arc<Self>, amount: Amount) -> Option<Permit> {
        let granted = {
            let mut state = self.lock();
            if state.waiting.is_empty() && self.has_room(state.used, amount) {
                state.used.add(amount);
                return Some(self.permit(amount));
            }
            let (granted, grant) = oneshot::channel();
            state.waiting.push_back(Waiting { amount, granted });
            grant
        };
        granted.await.ok()
    }

    fn permit(self: &Arc<Self>, amount: Amount) -> Permit {
        Permit {
            budget: Arc::clone(self),
            amount,
        }
    }

    fn has_room(&self, used: Amount, amount: Amount) -> bool {
        used.messages == 0
            || (used.messages.saturating_add(amount.messages) <= self.most.messages
                && used.bytes.saturating_add(amount.bytes) <= self.most.bytes)
    }

    fn release(self: &Arc<Self>, amount: Amount) {
        let mut admitted = Vec::new();
        {
            let mut state = self.lock();
            state.used.messages = state.used.messages.saturating_sub(amount.messages);
            state.used.bytes = state.used.bytes.saturating_sub(amount.bytes);
            while let Some(first) = state.waiting.pop_front() {
                if first.granted.is_canceled() {
                    continue;
                }
                if !self.has_room(state.used, first.amount) {
                    state.waiting.push_front(first);
                    break;
                }
                state.used.add(first.amount);
                admitted.push(first);
            }
        }
        for first in admitted {
            // Outside the lock: one that left meanwhile drops its permit here.
            let _ = first.granted.send(self.permit(first.amount));
        }
    }

    /// Changed in single steps, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> Amount {
        self.lock().used
    }
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.release(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;

    const SMALL: Amount = Amount {
        messages: 1,
        bytes: 10,
    };
    const LARGE: Amount = Amount {
        messages: 1,
        bytes: 90,
    };

    fn budget() -> Arc<Budget> {
        Budget::new(Amount {
            messages: 10,
            bytes: 100,
        })
    }

    #[test]
    fn senders_are_admitted_in_order_and_none_is_overtaken() {
        let budget = budget();
        let first = budget.acquire(LARGE).now_or_never().unwrap();
        let second = budget.acquire(SMALL).now_or_never().unwrap();
        let mut large = pin!(budget.acquire(LARGE));
        let mut small = pin!(budget.acquire(SMALL));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(small.as_mut().now_or_never().is_none());
        drop(second);
        assert!(small.as_mut().now_or_never().is_none(), "it would overtake");
        drop(first);
        let third = large.now_or_never().unwrap();
        let fourth = small.now_or_never().unwrap();
        drop((third, fourth));
        assert_eq!(budget.used(), Amount::default());
    }

    #[test]
    fn whoever_leaves_the_queue_takes_nothing_with_him() {
        let budget = budget();
        let first = budget.acquire(LARGE).now_or_never().unwrap();
        let mut gone = Box::pin(budget.acquire(LARGE));
        let mut granted = Box::pin(budget.acquire(LARGE));
        let mut last = pin!(budget.acquire(SMALL));
        assert!(gone.as_mut().now_or_never().is_none());
        assert!(granted.as_mut().now_or_never().is_none());
        assert!(last.as_mut().now_or_never().is_none());
        drop(gone);
        drop(first);
        // Granted, but not looked at yet.
        drop(granted);
        drop(last.now_or_never().unwrap());
        assert_eq!(budget.used(), Amount::default());
    }

    #[test]
    fn what_is_larger_than_everything_gets_in_alone() {
        let budget = budget();
        let huge = Amount {
            messages: 50,
            bytes: 1_000,
        };
        assert!(budget.acquire(huge).now_or_never().is_some());
    }
}

//! The calls that await an answer.
//!
//! Invariants:
//!
//! - *A call is of one session.* It is registered under the session that is current at that moment,
//!   in one step, so a renewal either ends it or comes before it.
//! - *Nothing stays.* Whoever stops waiting, by a time-out or by dropping the future, takes his entry
//!   with him.

use crate::durable::keys::SessionId;
use crate::durable::message::CallId;
use crate::durable::reply::Answer;
use crate::store::StoreError;
use futures_channel::oneshot;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The pending calls of a process.
#[derive(Debug)]
pub(super) struct Calls {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    session: SessionId,
    generation: u64,
    next: u64,
    is_closed: bool,
    /// In the order of the calls, in which they are told should all of them end at once.
    pending: BTreeMap<u64, oneshot::Sender<End>>,
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum End {
    /// With an answer.
    Answered(Answer),
    /// With a stored answer that cannot be read.
    Damaged(StoreError),
    /// Nobody will ever know how, for this reason.
    Lost(String),
}

/// A registered call, until it is dropped.
#[derive(Debug)]
pub(super) struct Pending {
    calls: Arc<Calls>,
    id: CallId,
    end: oneshot::Receiver<End>,
}

impl Calls {
    pub(super) fn new(session: SessionId, generation: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                session,
                generation,
                next: 0,
                is_closed: false,
                pending: BTreeMap::new(),
            }),
        })
    }

    /// Registers a call under the current session; none once the client is closed.
    pub(super) fn register(self: &Arc<Self>) -> Option<Pending> {
        let mut state = self.lock();
        if state.is_closed {
            return None;
        }
        let call = state.next;
        state.next += 1;
        let (sender, end) = oneshot::channel();
        state.pending.insert(call, sender);
        let id = CallId {
            session: state.session,
            call,
        };
        Some(Pending {
            calls: Arc::clone(self),
            id,
            end,
        })
    }

    /// Ends a call. False if it is not a pending one of the current session.
    pub(super) fn end(&self, call: CallId, end: End) -> bool {
        let pending = {
            let mut state = self.lock();
            if state.session != call.session {
                return false;
            }
            state.pending.remove(&call.call)
        };
        // Outside the lock, because it wakes the caller.
        pending.is_some_and(|pending| pending.send(end).is_ok())
    }

    /// Goes over to a new session, which ends the calls of the old one: their inbox is gone.
    pub(super) fn renewed(&self, session: SessionId, generation: u64) {
        let lost = {
            let mut state = self.lock();
            if generation <= state.generation {
                return;
            }
            state.session = session;
            state.generation = generation;
            std::mem::take(&mut state.pending)
        };
        lose(
            lost,
            "the process was taken for dead before the answer came",
        );
    }

    /// Ends every call and accepts no other.
    pub(super) fn close(&self) {
        let lost = {
            let mut state = self.lock();
            state.is_closed = true;
            std::mem::take(&mut state.pending)
        };
        lose(lost, "the process shuts down");
    }

    /// The session that calls are registered under.
    pub(super) fn session(&self) -> SessionId {
        self.lock().session
    }

    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// Changed in single steps, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lose(lost: BTreeMap<u64, oneshot::Sender<End>>, why: &str) {
    for pending in lost.into_values() {
        // A caller that is just leaving need not be told.
        let _ = pending.send(End::Lost(why.to_owned()));
    }
}

impl Pending {
    pub(super) fn id(&self) -> CallId {
        self.id
    }

    /// How the call ends.
    ///
    /// # Cancel safety
    ///
    /// Safe: the end is handed out by whichever wait sees it.
    pub(super) async fn end(&mut self) -> End {
        (&mut self.end)
            .await
            .unwrap_or_else(|_| End::Lost("the answer was dropped".to_owned()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = self.calls.lock();
        if state.session == self.id.session {
            state.pending.remove(&self.id.call);
        }
    }
}

//! Sending: the part of a process that pushes messages and waits for answers.
//!
//! ```text
//! cast ──────────────▶ pusher ──▶ mailbox in the store
//! call ─▶ calls ─┬───▶ pusher ──▶ mailbox … turn … reply in the store ─▶ inbox ─▶ calls
//!                └───▶ the process's own consumer (inline) ─────────────────────▶ calls
//! ```
//!
//! Invariants, besides those of the parts:
//!
//! - A `cast` that returned is durable; one that failed says whether it may have happened.
//! - Every call ends: with an answer, its time-out, or the end of its session.
//! - A process that sends nothing does no work here.
//!
//! # Metrics
//!
//! | name | what |
//! |---|---|
//! | `abide_pushes_total` (`outcome`: ok, failed, unknown) | transactions that pushed |
//! | `abide_push_batch_size`, `abide_push_bytes`, `abide_push_seconds` | messages, bytes and duration of each |
//! | `abide_calls_total` (`outcome`: ok, or the error's kind; `path`: inline or pushed) | calls that ended; one whose future was dropped is not counted |
//! | `abide_call_seconds` | how long they took |
//! | `abide_replies_cleared_total` | stored replies that were read and removed |
//! | `abide_session_renewals_total` | how often the process was taken for dead |
//!
//! Each push is a span `abide.push` with `kind`, `id`, `message`, `batch`, `bytes`, `attempts` and
//! `conflicts`.

mod budget;
mod calls;
mod inbox;
mod options;
mod pusher;
mod unit;

pub(crate) use options::Options;

use crate::durable::keys::SessionId;
use crate::durable::message::{CallId, Message};
use crate::durable::presence::Renewals;
use crate::durable::reply::Answer;
use crate::durable::{Presence, Session, SessionError, kill};
use crate::env::{BoxFuture, Env};
use crate::id::InstanceId;
use crate::server::{CallError, CallErrorKind, Courier, Outgoing};
use crate::trace::Tracer;
use crate::wake::{Callers, Inline, Local};
use bytes::Bytes;
use calls::{Calls, End, Pending};
use futures_util::future::{Either, select};
use inbox::Inbox;
use pusher::Pusher;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};
use unit::Push;

/// What sends for a process: its [`Courier`], and the [`Callers`] of its consumer.
#[derive(Debug)]
pub(crate) struct Client {
    parts: Parts,
}

/// What the futures of a client hold: all of it is shared.
#[derive(Debug, Clone)]
struct Parts {
    presence: Arc<Presence>,
    local: Arc<LocalSlot>,
    calls: Arc<Calls>,
    pusher: Arc<Pusher>,
    inbox: Arc<Inbox>,
    tracer: Tracer,
}

/// The consumer of this process, if it has one.
#[derive(Debug, Default)]
struct LocalSlot(Mutex<Option<Weak<dyn Local>>>);

impl LocalSlot {
    fn get(&self) -> Option<Arc<dyn Local>> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().and_then(Weak::upgrade)
    }

    fn set(&self, local: Weak<dyn Local>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(local);
    }
}

impl Client {
    /// A client that sends under the presence's sessions.
    pub(crate) fn new(presence: Arc<Presence>, options: &Options) -> Arc<Self> {
        let local = Arc::new(LocalSlot::default());
        let (session, generation) = presence.current();
        let calls = Calls::new(session.id(), generation);
        let pusher = Pusher::new(Arc::clone(&presence), Arc::clone(&local), options);
        let inbox = Inbox::new(
            Arc::clone(&presence),
            Arc::clone(&calls),
            options.reports.clone(),
        );
        let client = Arc::new(Self {
            parts: Parts {
                presence,
                local,
                calls,
                pusher: Arc::new(pusher),
                inbox: Arc::new(inbox),
                tracer: options.tracer.clone(),
            },
        });
        let presence = &client.parts.presence;
        let observer: Weak<dyn Renewals> =
            Arc::downgrade(&(Arc::clone(&client) as Arc<dyn Renewals>));
        presence.observe(observer);
        // A renewal between the first look and the registration was not heard of.
        let (session, generation) = presence.current();
        client.renewed(&session, generation);
        client
    }

    /// Tells the client of the process's consumer.
    pub(crate) fn set_local(&self, local: Weak<dyn Local>) {
        self.parts.local.set(local);
    }

    /// Refuses new messages, waits until those that wait are pushed or have failed, and ends the
    /// pending calls: what became of them is not known. The presence stays open.
    pub(crate) async fn close(&self) {
        self.parts.pusher.close().await;
        self.parts.calls.close();
        self.parts.inbox.close();
    }

    /// Ends without waiting for anything: what pending calls wait for, their time-outs included, is
    /// about to go.
    pub(crate) fn abandon(&self) {
        self.parts.pusher.abandon();
        self.parts.calls.close();
        self.parts.inbox.close();
    }
}

impl Courier for Client {
    fn cast(&self, mut batch: Vec<Outgoing>) -> BoxFuture<'static, Result<(), CallError>> {
        let parts = self.parts.clone();
        // Now, on the thread and in the span of whoever sends.
        if let Some(trace) = parts.tracer.current() {
            for outgoing in &mut batch {
                outgoing.trace = Some(trace);
            }
        }
        Box::pin(async move {
            let session = parts.calls.session();
            let unit = batch
                .into_iter()
                .map(|outgoing| parts.push_of(outgoing, session, None))
                .collect();
            parts.pusher.push(unit).await.map(drop)
        })
    }

    fn call(
        &self,
        mut message: Outgoing,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let parts = self.parts.clone();
        message.trace = parts.tracer.current().or(message.trace);
        Box::pin(async move { parts.call(message, timeout).await })
    }

    fn kill(&self, instance: InstanceId) -> BoxFuture<'static, Result<(), CallError>> {
        let parts = self.parts.clone();
        Box::pin(async move {
            let session = parts.presence.session();
            let killed = kill::kill(&session, &instance).await;
            parts.settle(&session, killed).await
        })
    }

    fn reset(&self, instance: InstanceId) -> BoxFuture<'static, Result<(), CallError>> {
        let parts = self.parts.clone();
        Box::pin(async move {
            let session = parts.presence.session();
            let reset = kill::reset(&session, &instance).await;
            parts.settle(&session, reset).await
        })
    }
}

impl Callers for Client {
    fn answer(&self, call: CallId, answer: Answer) -> bool {
        self.parts.calls.end(call, End::Answered(answer))
    }

    fn is_mine(&self, session: SessionId) -> bool {
        self.parts.calls.session() == session
    }

    fn await_stored_reply(&self) {
        self.parts.inbox.arm();
    }

    fn turned_away(&self, inline: Inline) {
        let parts = self.parts.clone();
        parts.inbox.arm();
        let call = inline.message.call;
        let push = Push {
            instance: inline.instance,
            lane: inline.lane,
            message: Arc::unwrap_or_clone(inline.message),
        };
        self.parts.env().spawn(Box::pin(async move {
            if let (Err(error), Some(call)) = (parts.pusher.push(vec![push]).await, call) {
                parts.calls.end(call, End::Lost(error.to_string()));
            }
        }));
    }

    fn lost(&self, call: CallId, why: &str) {
        self.parts.calls.end(call, End::Lost(why.to_owned()));
    }
}

impl Renewals for Client {
    fn renewed(&self, session: &Arc<Session>, generation: u64) {
        // The inbox goes over with the next call that waits for it; no earlier one is left.
        self.parts.calls.renewed(session.id(), generation);
    }
}

impl Parts {
    fn env(&self) -> &Arc<dyn Env> {
        self.presence.namespace().database().env()
    }

    fn push_of(&self, outgoing: Outgoing, sender: SessionId, call: Option<CallId>) -> Push {
        let sent = self.env().wall_clock().duration_since(UNIX_EPOCH);
        Push {
            instance: outgoing.instance,
            lane: outgoing.lane,
            message: Message {
                name: outgoing.name,
                payload: outgoing.payload,
                call,
                query: outgoing.query,
                sender: Some(sender),
                sent_ms: u64::try_from(sent.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
                trace: outgoing.trace,
                failed: None,
                deadline_ms: None,
                idempotency_key: None,
            },
        }
    }

    async fn call(self, outgoing: Outgoing, timeout: Duration) -> Result<Bytes, CallError> {
        let began = self.env().now();
        let mut path = "pushed";
        let called = {
            let call = pin!(self.call_until_answered(outgoing, &mut path));
            match select(call, self.env().sleep(timeout)).await {
                Either::Left((answer, _)) => answer,
                Either::Right(((), _)) => Err(CallError::new(CallErrorKind::TimedOut)
                    .with_message(format!("the call waited for {timeout:?}"))),
            }
        };
        let seconds = self.env().now().saturating_sub(began).as_secs_f64();
        let outcome = called
            .as_ref()
            .map_or_else(|error| label(error.kind()), |_| "ok");
        metrics::counter!("abide_calls_total", "outcome" => outcome, "path" => path).increment(1);
        metrics::histogram!("abide_call_seconds").record(seconds);
        called
    }

    async fn call_until_answered(
        &self,
        outgoing: Outgoing,
        path: &mut &'static str,
    ) -> Result<Bytes, CallError> {
        let mut pending = self.calls.register().ok_or_else(|| {
            CallError::new(CallErrorKind::Unavailable).with_message("the process shuts down")
        })?;
        let id = pending.id();
        let push = self.push_of(outgoing, id.session, Some(id));
        unit::check(std::slice::from_ref(&push))?;
        let Some(push) = self.offer(push) else {
            *path = "inline";
            return answer_of(pending.end().await);
        };
        // Before the push, so that the watch stands by the time the reply comes.
        self.inbox.arm();
        self.push_and_wait(push, &mut pending).await
    }

    /// Offers a call to this process's consumer; hands it back if it is to be pushed.
    fn offer(&self, push: Push) -> Option<Push> {
        let local = self.local.get();
        let Some(local) = local.filter(|local| local.serves(push.instance.kind())) else {
            return Some(push);
        };
        let inline = Inline {
            instance: push.instance,
            lane: push.lane,
            message: Arc::new(push.message),
        };
        let refused = local.offer(inline).err()?;
        Some(Push {
            instance: refused.instance,
            lane: refused.lane,
            message: Arc::unwrap_or_clone(refused.message),
        })
    }

    async fn push_and_wait(&self, push: Push, pending: &mut Pending) -> Result<Bytes, CallError> {
        let answered = {
            let pushed = pin!(self.pusher.push(vec![push]));
            match select(pushed, pin!(pending.end())).await {
                Either::Left((Ok(_), _)) => None,
                Either::Left((Err(error), _)) => return Err(error),
                // A turn was faster than the acknowledgement, or the session was renewed.
                Either::Right((end, _)) => Some(end),
            }
        };
        match answered {
            Some(end) => answer_of(end),
            None => answer_of(pending.end().await),
        }
    }

    /// What the end of an operator's work means to who asked for it.
    async fn settle(
        &self,
        session: &Arc<Session>,
        outcome: Result<(), SessionError>,
    ) -> Result<(), CallError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(SessionError::Store(error)) => Err(error.into()),
            Err(gone @ SessionError::SessionGone) => {
                if let Err(error) = self.presence.renew(session).await {
                    tracing::warn!(%error, "the session cannot be renewed yet");
                }
                Err(CallError::new(CallErrorKind::OutcomeUnknown).with_source(gone))
            }
        }
    }
}

fn answer_of(end: End) -> Result<Bytes, CallError> {
    let error = |kind, message: String| Err(CallError::new(kind).with_message(message));
    match end {
        End::Answered(Answer::Reply(reply)) => Ok(reply),
        End::Answered(Answer::Rejected(why)) => error(CallErrorKind::Rejected, why),
        End::Answered(Answer::DeadLetter(why)) => error(CallErrorKind::DeadLetter, why),
        End::Answered(Answer::Killed) => Err(CallError::new(CallErrorKind::Killed)),
        End::Answered(Answer::Failed(why)) => error(CallErrorKind::Failed, why),
        End::Damaged(damage) => Err(CallError::new(CallErrorKind::Decode).with_source(damage)),
        End::Lost(why) => error(CallErrorKind::OutcomeUnknown, why),
    }
}

/// A kind's name in metrics.
fn label(kind: CallErrorKind) -> &'static str {
    match kind {
        CallErrorKind::TimedOut => "timed_out",
        CallErrorKind::Rejected => "rejected",
        CallErrorKind::DeadLetter => "dead_letter",
        CallErrorKind::Killed => "killed",
        CallErrorKind::TooLarge => "too_large",
        CallErrorKind::Decode => "decode",
        CallErrorKind::Unavailable => "unavailable",
        CallErrorKind::OutcomeUnknown => "unknown",
        CallErrorKind::Invalid => "invalid",
        CallErrorKind::Failed => "failed",
    }
}

#[cfg(test)]
mod tests;

//! Pushing messages into mailboxes, exactly once, in batches that form by themselves.
//!
//! Invariants:
//!
//! - *In order.* An instance's messages go through one stream, chosen by its shard, and a stream has
//!   one push in flight, so they are pushed in the order in which they were submitted. (A batch that
//!   one sender made atomic goes through the stream of its first instance.)
//! - *Exactly once.* Every push runs through an outcome lane. What is acknowledged stands in the
//!   mailbox once; what is not stands there once or not at all.
//! - *Never split.* A unit, the messages of one sender's batch, is in one transaction. Units are
//!   taken together while they are small, and apart again when together they fail.
//! - *Nothing idles.* A stream's task lives while it has work. A lone message never waits; what
//!   comes while a push is in flight is the next batch.

use super::LocalSlot;
use super::budget::{Amount, Budget, Permit};
use super::options::Options;
use super::unit::{Unit, check, common, size_of};
use crate::durable::queue::Pushes;
use crate::durable::{Lane, Presence, Session, SessionError};
use crate::gather::gather;
use crate::id::InstanceId;
use crate::planted::{Bug, planted};
use crate::reports::Reports;
use crate::server::{CallError, CallErrorKind};
use crate::store::Version;
use futures_channel::oneshot;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::Instrument;

/// The most bytes that a batch of several units writes: FoundationDB's advice for a transaction.
const BATCH_BYTES: usize = 1_000_000;

/// The most messages of such a batch: far below what 16-bit user versions tell apart.
const BATCH_MESSAGES: usize = 1_000;

/// The push streams of a process.
#[derive(Debug)]
pub(super) struct Pusher {
    presence: Arc<Presence>,
    local: Arc<LocalSlot>,
    push_for: Duration,
    streams: Vec<Mutex<Stream>>,
    budget: Arc<Budget>,
    reports: Reports,
}

/// What waits for one stream.
#[derive(Debug, Default)]
struct Stream {
    waiting: VecDeque<Waiting>,
    is_running: bool,
    is_closed: bool,
    /// Told when the stream's task ends.
    at_rest: Vec<oneshot::Sender<()>>,
}

/// A unit and its sender.
#[derive(Debug)]
struct Waiting {
    unit: Unit,
    amount: Amount,
    since: Duration,
    done: oneshot::Sender<Result<Version, CallError>>,
    _permit: Permit,
}

/// A stream's lane, of whichever session is current.
#[derive(Debug, Default)]
struct Carrier {
    lane: Option<(Arc<Session>, Lane)>,
    /// A session that is known to be swept, and could not be replaced yet.
    gone: Option<Arc<Session>>,
}

impl Pusher {
    pub(super) fn new(presence: Arc<Presence>, local: Arc<LocalSlot>, options: &Options) -> Self {
        let budget = Budget::new(Amount {
            messages: options.waiting_messages,
            bytes: options.waiting_bytes,
        });
        let streams = options.streams.max(1);
        Self {
            presence,
            local,
            push_for: options.push_for,
            streams: (0..streams).map(|_| Mutex::default()).collect(),
            budget,
            reports: options.reports.clone(),
        }
    }

    /// Pushes a unit; answers once it is durable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the waiting. The unit is pushed all the same, unless it still
    /// waited for room.
    pub(super) async fn push(self: &Arc<Self>, unit: Unit) -> Result<Version, CallError> {
        let amount = check(&unit)?;
        let Some(first) = unit.first() else {
            return Ok(Version(0));
        };
        let shard = self.presence.namespace().keys().shard(&first.instance);
        let permit = self.budget.acquire(amount).await.ok_or_else(closed)?;
        let (done, acknowledged) = oneshot::channel();
        let waiting = Waiting {
            unit,
            amount,
            since: self.now(),
            done,
            _permit: permit,
        };
        self.submit(shard as usize % self.streams.len(), waiting)?;
        // The task that held it is gone: with the environment it ran in, or by a panic.
        acknowledged.await.unwrap_or_else(|_| Err(unknown()))
    }

    fn submit(self: &Arc<Self>, index: usize, waiting: Waiting) -> Result<(), CallError> {
        let Some(stream) = self.streams.get(index) else {
            return Err(closed());
        };
        {
            let mut stream = lock(stream);
            if stream.is_closed {
                return Err(closed());
            }
            stream.waiting.push_back(waiting);
            if std::mem::replace(&mut stream.is_running, true) {
                return Ok(());
            }
        }
        let running = Running {
            pusher: Arc::clone(self),
            index,
            is_at_rest: false,
        };
        let reports = self.reports.clone();
        let env = self.presence.namespace().database().env();
        env.spawn(Box::pin(async move {
            // What comes later gets a task of its own; see what `Running` does at its end.
            let what = || format!("the push stream {index}");
            reports.guard(what, running.drain()).await;
        }));
        Ok(())
    }

    /// Refuses new units and waits until those that wait are pushed or have failed.
    pub(super) async fn close(&self) {
        for stream in &self.streams {
            let at_rest = {
                let mut stream = lock(stream);
                stream.is_closed = true;
                if !stream.is_running {
                    continue;
                }
                let (sender, at_rest) = oneshot::channel();
                stream.at_rest.push(sender);
                at_rest
            };
            // An error says the same: its task is gone.
            let _ = at_rest.await;
        }
    }

    /// Refuses new messages. Those that wait fail with the tasks that would have pushed them.
    pub(super) fn abandon(&self) {
        for stream in &self.streams {
            lock(stream).is_closed = true;
        }
    }

    /// How many messages wait, those in flight included.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.budget.used().messages
    }

    fn now(&self) -> Duration {
        self.presence.namespace().database().env().now()
    }

    /// Pushes a batch and tells its senders; apart, if together it cannot be pushed.
    async fn push_batch(&self, carrier: &mut Carrier, batch: Vec<Waiting>) -> Result<(), ()> {
        let units: Arc<Vec<Unit>> = Arc::new(batch.iter().map(|one| one.unit.clone()).collect());
        let outcome = self.land(carrier, &units).await;
        let Err(error) = &outcome else {
            self.tell_local(&units, &outcome);
            for one in batch {
                finish(one, outcome.clone());
            }
            return Ok(());
        };
        if batch.len() > 1 && is_about_content(error) {
            for one in batch {
                let unit = Arc::new(vec![one.unit.clone()]);
                let outcome = self.land(carrier, &unit).await;
                self.tell_local(&unit, &outcome);
                finish(one, outcome);
            }
            return Ok(());
        }
        let is_away = error.kind() == CallErrorKind::Unavailable;
        for one in batch {
            finish(one, outcome.clone());
        }
        if is_away { Err(()) } else { Ok(()) }
    }

    fn tell_local(&self, units: &[Unit], outcome: &Result<Version, CallError>) {
        let (Ok(version), Some(local)) = (outcome, self.local.get()) else {
            return;
        };
        let instances: BTreeSet<&InstanceId> =
            units.iter().flatten().map(|push| &push.instance).collect();
        for instance in instances {
            if planted(Bug::NotificationsLost) {
                continue;
            }
            local.pushed(instance, *version);
        }
    }

    /// Pushes units in one transaction.
    async fn land(
        &self,
        carrier: &mut Carrier,
        units: &Arc<Vec<Unit>>,
    ) -> Result<Version, CallError> {
        let attempts = Arc::new(AtomicU32::new(0));
        let (messages, bytes) = size_of(units);
        let span = tracing::info_span!(
            "abide.push",
            kind = common(units, |push| push.instance.kind()),
            id = common(units, |push| push.instance.id()),
            message = common(units, |push| &push.message.name),
            batch = messages,
            bytes,
            attempts = tracing::field::Empty,
            conflicts = tracing::field::Empty,
        );
        let began = self.now();
        carrier.leave_the_gone(&self.presence).await?;
        let (session, lane) = carrier.lane(&self.presence);
        let landed = lane
            .run_blind(self.push_for, |tx| {
                let (session, units) = (Arc::clone(&session), Arc::clone(units));
                attempts.fetch_add(1, Ordering::Relaxed);
                // Written by the future and not before it: an attempt that finds an earlier one
                // landed never polls it, and must write nothing.
                async move {
                    let mut pushes = Pushes::new(session.namespace(), &tx);
                    for push in units.iter().flatten() {
                        pushes.push(&push.instance, push.lane, &push.message)?;
                    }
                    Ok(())
                }
            })
            .instrument(span.clone())
            .await;
        span.record("attempts", attempts.load(Ordering::Relaxed));
        let outcome = match landed {
            Ok(landed) => Ok(landed.commit.version),
            Err(SessionError::Store(error)) => Err(CallError::from(error)),
            Err(gone @ SessionError::SessionGone) => {
                carrier.gone = Some(session);
                Err(unknown().with_source(gone))
            }
        };
        let seconds = self.now().saturating_sub(began).as_secs_f64();
        measure(messages, bytes, seconds, &outcome);
        outcome
    }
}

/// Records what the documentation of [the client](super) names.
fn measure(messages: usize, bytes: usize, seconds: f64, outcome: &Result<Version, CallError>) {
    let label = match outcome.as_ref().map_err(CallError::kind) {
        Ok(_) => "ok",
        Err(CallErrorKind::OutcomeUnknown) => "unknown",
        Err(_) => "failed",
    };
    metrics::counter!("abide_pushes_total", "outcome" => label).increment(1);
    // Exact far beyond what a batch holds.
    metrics::histogram!("abide_push_batch_size").record(messages as f64);
    metrics::histogram!("abide_push_bytes").record(bytes as f64);
    metrics::histogram!("abide_push_seconds").record(seconds);
}

impl Carrier {
    /// Gets a new session in place of one that was swept.
    ///
    /// # Errors
    ///
    /// When there is none now: nothing was pushed.
    async fn leave_the_gone(&mut self, presence: &Presence) -> Result<(), CallError> {
        let Some(gone) = &self.gone else {
            return Ok(());
        };
        presence.renew(gone).await.map_err(|error| {
            CallError::new(CallErrorKind::Unavailable)
                .with_message("the process was taken for dead and cannot come back yet")
                .with_source(error)
        })?;
        self.gone = None;
        Ok(())
    }

    /// The lane to use now: a new one when there is none, or its session is not the current one.
    fn lane(&mut self, presence: &Presence) -> (Arc<Session>, &mut Lane) {
        let current = presence.session();
        let kept = self
            .lane
            .take()
            .filter(|(session, _)| session.id() == current.id());
        let (session, lane) = self.lane.insert(kept.unwrap_or_else(|| {
            let lane = current.lane();
            (current, lane)
        }));
        (Arc::clone(session), lane)
    }
}

/// The task of a stream with work. However it ends, nobody waits for it in vain.
struct Running {
    pusher: Arc<Pusher>,
    index: usize,
    /// It found nothing more to do; the stream is free for the next task.
    is_at_rest: bool,
}

impl Running {
    async fn drain(mut self) {
        let mut carrier = Carrier::default();
        while let Some(batch) = self.next_batch() {
            let together = batch.len();
            if self.pusher.push_batch(&mut carrier, batch).await.is_err() {
                self.give_up_on_the_old();
            }
            // At once, and not with the next push: calls wait for the end of their session.
            if let Err(error) = carrier.leave_the_gone(&self.pusher.presence).await {
                tracing::warn!(%error, "the session cannot be renewed yet");
            }
            if together > 1 {
                let expected = together.saturating_add(self.count()).min(BATCH_MESSAGES);
                gather(expected, || self.count()).await;
            }
        }
        self.is_at_rest = true;
    }

    fn stream(&self) -> Option<MutexGuard<'_, Stream>> {
        self.pusher.streams.get(self.index).map(lock)
    }

    /// How many units wait.
    fn count(&self) -> usize {
        self.stream().map_or(0, |stream| stream.waiting.len())
    }

    /// The units that wait, as many as fit together; at rest when there is none.
    fn next_batch(&self) -> Option<Vec<Waiting>> {
        let mut batch = Vec::new();
        let mut sum = Amount::default();
        let at_rest = {
            let mut stream = self.stream()?;
            while let Some(next) = stream.waiting.pop_front() {
                let bytes = sum.bytes.saturating_add(next.amount.bytes);
                let messages = sum.messages.saturating_add(next.amount.messages);
                if !batch.is_empty() && (bytes > BATCH_BYTES || messages > BATCH_MESSAGES) {
                    stream.waiting.push_front(next);
                    break;
                }
                sum = Amount { messages, bytes };
                batch.push(next);
            }
            if batch.is_empty() {
                stream.is_running = false;
                std::mem::take(&mut stream.at_rest)
            } else {
                Vec::new()
            }
        };
        // Outside the lock: closers go on.
        drop(at_rest);
        (!batch.is_empty()).then_some(batch)
    }

    /// While the store is away, whoever has waited as long as a push is tried is told so.
    fn give_up_on_the_old(&self) {
        let now = self.pusher.now();
        let mut old = Vec::new();
        if let Some(mut stream) = self.stream() {
            let is_old = |one: &Waiting| now.saturating_sub(one.since) >= self.pusher.push_for;
            while stream.waiting.front().is_some_and(is_old) {
                old.extend(stream.waiting.pop_front());
            }
        }
        for one in old {
            let error = CallError::new(CallErrorKind::Unavailable)
                .with_message("the store was away for as long as the message waited");
            finish(one, Err(error));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_at_rest {
            return;
        }
        // The environment ended the task, or it panicked. What waits is dropped, which its senders hear.
        let left = self.stream().map(|mut stream| {
            stream.is_running = false;
            (
                std::mem::take(&mut stream.waiting),
                std::mem::take(&mut stream.at_rest),
            )
        });
        drop(left);
    }
}

/// Tells the sender, who may have left.
fn finish(one: Waiting, outcome: Result<Version, CallError>) {
    let Waiting {
        done,
        _permit: permit,
        ..
    } = one;
    drop(permit);
    let _ = done.send(outcome);
}

/// Whether an error may be the fault of one of several units: nothing has landed, and a repetition
/// would fail again.
fn is_about_content(error: &CallError) -> bool {
    !matches!(
        error.kind(),
        CallErrorKind::Unavailable | CallErrorKind::OutcomeUnknown
    )
}

fn closed() -> CallError {
    CallError::new(CallErrorKind::Unavailable).with_message("the process shuts down")
}

fn unknown() -> CallError {
    CallError::new(CallErrorKind::OutcomeUnknown)
}

/// Changed in single steps, so a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

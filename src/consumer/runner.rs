//! A message that runs under its instance's lock, outside of any transaction.
//!
//! Invariants:
//!
//! - *The lease is kept by whoever lives.* The lock is renewed by a task in an environment of its
//!   own, which handlers cannot starve, and which ends with the process.
//! - *Every run ends.* One that abide's own code makes panic is reported and has failed, or else the
//!   lock would stay with a process that lives and does nothing.
//! - *What cannot be read does not count.* A state that is damaged, or of a newer version of the
//!   server, parks the run as it would park a turn: the lock is kept, and renewed, until it can be read.
//! - *A fenced holder stops.* A renewal that finds another token, or none, ends the run; its result,
//!   if it comes all the same, is refused by the closing turn.

use super::Consumer;
use super::kinds::Kind;
use super::lazy::{self, Unprepared};
use super::plan::{Parked, UNFIT_RECHECK};
use super::turn::{Closing, UnderLock};
use super::worker::AWAY;
use crate::codec::Leaves;
use crate::durable::keys::InstanceKeys;
use crate::durable::{SessionError, Work, lock};
use crate::id::InstanceId;
use crate::server::Failure;
use crate::server::{Facts, Held};
use crate::store::{CommitStamp, StoreError};
use crate::trace::TraceParent;
use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::Instrument;

/// A run and what it needs to know of its lock.
struct LockedRun {
    consumer: Arc<Consumer>,
    kind: Arc<Kind>,
    instance: InstanceId,
    token: CommitStamp,
}

impl Consumer {
    /// Runs a message under the lock that this process has just taken, and hands the result to the
    /// instance's next turn.
    pub(super) fn run_locked(
        self: &Arc<Self>,
        kind: &Arc<Kind>,
        instance: &InstanceId,
        token: CommitStamp,
        under: UnderLock,
        leaves: Option<Arc<Leaves>>,
    ) {
        let run = LockedRun {
            consumer: Arc::clone(self),
            kind: Arc::clone(kind),
            instance: instance.clone(),
            token,
        };
        // Taken now: dropping it ends the renewals, however the run ends.
        let (ended, run_ended) = oneshot::channel::<()>();
        let (fence, fenced) = oneshot::channel::<()>();
        let kept = keep(
            Arc::clone(self),
            keys_of(self, instance),
            token,
            kind.options.lease / 3,
            run_ended,
            fence,
        );
        let (reports, what) = (self.reports.clone(), instance.clone());
        self.pulse.spawn(Box::pin(async move {
            // Its end fences the run.
            let what = || format!("what keeps the lock of {what}");
            reports.guard(what, kept).await;
        }));
        self.locked.fetch_add(1, Ordering::SeqCst);
        let consumer = Arc::clone(self);
        self.env.spawn(Box::pin(async move {
            run.guarded(under, leaves, fenced).await;
            consumer.locked.fetch_sub(1, Ordering::SeqCst);
            drop(ended);
        }));
    }
}

fn keys_of(consumer: &Consumer, instance: &InstanceId) -> InstanceKeys {
    consumer.presence.namespace().keys().instance(instance)
}

impl LockedRun {
    /// Runs to the end. A panic of abide's own code counts as a failure of the run: it is tried again
    /// with back-off, and not for ever.
    async fn guarded(
        self,
        under: UnderLock,
        leaves: Option<Arc<Leaves>>,
        fenced: oneshot::Receiver<()>,
    ) {
        let closing = Closing {
            token: self.token,
            message: Arc::clone(&under.message),
            stamp: under.stamp,
            attempt: under.attempt,
            result: Err(Failure::fail("abide itself panicked around it")),
        };
        let what = || format!("the run under the lock of {}", self.instance);
        let run = self.run(under, leaves, fenced);
        let came_to_its_end = self.consumer.reports.guard(what, run).await;
        if !came_to_its_end && !self.consumer.is_stopping() {
            self.close(closing);
        }
    }

    /// Hands the end of the run to the instance's next turn.
    fn close(&self, closing: Closing) {
        let start = self.kind.slots().close(&self.instance, closing);
        if let Some(memory) = start {
            self.consumer
                .work(&self.kind, self.instance.clone(), memory, None);
        }
    }

    async fn run(
        &self,
        under: UnderLock,
        leaves: Option<Arc<Leaves>>,
        fenced: oneshot::Receiver<()>,
    ) {
        let span = tracing::info_span!(
            "abide.lock",
            kind = self.instance.kind(),
            id = self.instance.id(),
            message = under.message.name.as_ref(),
            attempt = under.attempt,
            trace = under.message.trace.map(tracing::field::display),
        );
        let tracer = &self.kind.tracer;
        tracer.attach(&span, under.message.trace);
        let here = tracer.within(&span, under.message.trace);
        let run = async {
            self.consumer.env.sleep(under.after).await;
            self.outcome(&under, leaves, here).instrument(span).await
        };
        let stopped = select(fenced, self.consumer.stopped_signal());
        let ended = match select(Box::pin(run), stopped).await {
            Either::Left((result, _)) => Ok(result),
            // What the run holds goes before the lock does: the next one may begin at once.
            Either::Right((stopped, run)) => {
                drop(run);
                Err(stopped)
            }
        };
        let result = match ended {
            Ok(result) => result,
            // Fenced, or the process stops: either way the result would not count.
            Err(Either::Left(_)) => {
                tracing::warn!(instance = %self.instance, "the lock was lost to another process");
                self.kind.slots().forget_lock(&self.instance, self.token);
                self.consumer.look_now(&self.instance);
                return;
            }
            Err(Either::Right(_)) => {
                self.give_up().await;
                return;
            }
        };
        let closing = Closing {
            token: self.token,
            message: under.message,
            stamp: under.stamp,
            attempt: under.attempt,
            result,
        };
        self.close(closing);
    }

    async fn outcome(
        &self,
        under: &UnderLock,
        leaves: Option<Arc<Leaves>>,
        here: Option<TraceParent>,
    ) -> Result<Bytes, Failure> {
        let facts = Facts {
            instance: self.instance.clone(),
            stamp: under.stamp,
            now: self.consumer.env.wall_clock(),
            attempt: under.attempt,
            call: under.message.call,
            trace: under.message.trace,
            here,
            fence: self.fence(),
        };
        let state = self.state(under, leaves, &facts).await?;
        let run = Arc::clone(&self.kind.behaviour).run(
            state,
            Arc::clone(&under.message.name),
            under.message.payload.clone(),
            facts,
            Arc::clone(&self.consumer.courier),
        );
        AssertUnwindSafe(run)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Err(Failure::fail("it panicked")))
    }

    /// A copy of the committed state, with what the run needs of its lazy collections. As long as it
    /// cannot be read, which is nobody's fault, the lock is kept and it is tried again: nothing is
    /// counted.
    async fn state(
        &self,
        under: &UnderLock,
        leaves: Option<Arc<Leaves>>,
        facts: &Facts,
    ) -> Result<Held, Failure> {
        let behaviour = &self.kind.behaviour;
        // What of lazy collections happens to be in memory is nothing to rely on. And whoever changes
        // the state meanwhile need not copy them for the run's sake.
        let is_known = behaviour.route(&under.message.name).is_some();
        let leaves = leaves.filter(|_| is_known && behaviour.lazy().is_empty());
        if let Some(leaves) = leaves
            && let Ok(state) = behaviour.restore(&leaves)
        {
            return Ok(state);
        }
        loop {
            let reason = match self.prepared(under, facts).await {
                Ok(state) => return Ok(state),
                Err(Unprepared::Failed(failure)) => return Err(failure),
                Err(Unprepared::Unfit(reason)) => reason,
            };
            tracing::warn!(instance = %self.instance, %reason, "the work under the lock waits");
            let wait = match reason {
                Parked::StoreAway => AWAY,
                _ => UNFIT_RECHECK,
            };
            self.consumer.env.sleep(wait).await;
        }
    }

    async fn prepared(&self, under: &UnderLock, facts: &Facts) -> Result<Held, Unprepared> {
        let keys = keys_of(&self.consumer, &self.instance);
        let namespace = self.consumer.presence.namespace();
        let env = self.consumer.env.as_ref();
        let message = &under.message;
        let prepared = namespace.database().run(|attempt| {
            let keys = keys.clone();
            async move {
                let asks = (message.name.as_ref(), &*message.payload, facts);
                lazy::prepared(attempt.tx(), &keys, &self.kind, env, asks).await
            }
        });
        match prepared.await {
            Ok(completed) => completed.value,
            Err(error) => {
                tracing::debug!(instance = %self.instance, %error, "the state was not read for a lock");
                Err(Unprepared::Unfit(Parked::StoreAway))
            }
        }
    }

    /// The token as a number. A namespace that was moved to another store may get the same stamps
    /// again, so that its incarnation stands above them.
    fn fence(&self) -> u128 {
        let incarnation = self.consumer.presence.namespace().incarnation();
        let stamp = self.token.as_bytes().iter();
        stamp.fold(u128::from(incarnation), |fence, byte| {
            fence << 8 | u128::from(*byte)
        })
    }

    /// Leaves the lock to whoever comes next, at once instead of after a lease.
    async fn give_up(&self) {
        let keys = keys_of(&self.consumer, &self.instance);
        let namespace = self.consumer.presence.namespace();
        let session = self.consumer.presence.session();
        let token = self.token;
        let given_up = session
            .lane()
            .run_work(Duration::from_secs(5), None, |tx, _| {
                let keys = keys.clone();
                async move {
                    let Some(held) = lock::read_lock(&tx, &keys).await? else {
                        return Ok(Work::Look(()));
                    };
                    if held.token != token {
                        return Ok(Work::Look(()));
                    }
                    lock::write_renewed(&tx, &keys, &held.given_up())?;
                    crate::durable::ready::set_mark(&tx, &keys);
                    crate::durable::ready::wake(&tx, namespace, keys.shard());
                    Ok::<_, SessionError>(Work::Write(()))
                }
            })
            .await;
        if let Err(error) = given_up {
            tracing::debug!(instance = %self.instance, %error, "a lock is left to its lease");
        }
    }
}

/// Renews a lock until its run ends; if the lock is lost, says so.
async fn keep(
    consumer: Arc<Consumer>,
    keys: InstanceKeys,
    token: CommitStamp,
    every: Duration,
    mut run_ended: oneshot::Receiver<()>,
    fence: oneshot::Sender<()>,
) {
    let mut wait = every;
    loop {
        let pause = consumer.pulse.sleep(wait);
        match select(pause, run_ended).await {
            Either::Left(((), rest)) => run_ended = rest,
            Either::Right(_) => return,
        }
        match renew(&consumer, &keys, token).await {
            Ok(true) => wait = every,
            Ok(false) => {
                // The run may have ended meanwhile.
                let _ = fence.send(());
                return;
            }
            // Tried again sooner than the next beat: a second one missed would cost the lock. An outage
            // counts for nothing with those who watch.
            Err(error) => {
                tracing::debug!(%error, "a lock was not renewed");
                wait = every / 4;
            }
        }
    }
}

/// One renewal. Whether the lock is still ours. Idempotent, so it needs no lane: a renewal too many,
/// or one that lands late, changes a number that only has to change.
async fn renew(
    consumer: &Consumer,
    keys: &InstanceKeys,
    token: CommitStamp,
) -> Result<bool, StoreError> {
    let database = consumer.presence.namespace().database();
    let policy = crate::store::RetryPolicy {
        give_up_after: Duration::from_secs(5),
        ..crate::store::RetryPolicy::retry_unknown()
    };
    let renewed = database.run_with(policy, |attempt| {
        let keys = keys.clone();
        async move { lock::renew(attempt.tx(), &keys, token).await }
    });
    Ok(renewed.await?.value.is_some())
}

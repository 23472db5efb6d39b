//! A transaction of a [`FaultyStore`](super::FaultyStore).

use super::{CommitFate, CommitReport, Shared, Step, crashed, injected};
use crate::store::{
    Committed, Isolation, KeyRange, KeyValue, RangeRead, StoreError, StoreErrorKind, StoreFuture,
    Transaction, Tx, Version,
};
use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{Either, ready, select};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct FaultyTransaction {
    shared: Arc<Shared>,
    /// Taken by the commit: nothing may change a transaction that is on its way.
    inner: Mutex<Option<Tx>>,
    has_written: AtomicBool,
}

type CommitResult = Result<Option<Committed>, StoreError>;

/// What a commit does and what is heard of it.
#[derive(Debug, Clone, Copy)]
enum Plan {
    /// Nothing happens.
    Refuse(StoreErrorKind),
    /// The whole truth.
    Honest,
    Crooked {
        fate: CommitFate,
        report: CommitReport,
    },
}

impl Plan {
    fn is_silent(self) -> bool {
        matches!(
            self,
            Self::Crooked {
                report: CommitReport::Silence,
                ..
            }
        )
    }
}

#[derive(Debug, Clone, Copy)]
enum WatchPlan {
    Faithful,
    Spurious(Duration),
    Late(Duration),
    Lost(Duration),
}

impl FaultyTransaction {
    pub(super) fn new(shared: Arc<Shared>, inner: Tx) -> Self {
        Self {
            shared,
            inner: Mutex::new(Some(inner)),
            has_written: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tx>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inner read begins now, so that it sees the writes before it and none after it; only its
    /// answer is late.
    fn read<T: Debug + Send + 'static>(
        &self,
        operation: &'static str,
        subject: impl Fn() -> String + Send + 'static,
        begin: impl FnOnce(&dyn Transaction) -> StoreFuture<T>,
    ) -> StoreFuture<T> {
        self.answer(false, operation, subject, begin)
    }

    /// As [`read`](Self::read); a patient one waits for the end of an outage, of whatever kind.
    fn answer<T: Debug + Send + 'static>(
        &self,
        patient: bool,
        operation: &'static str,
        subject: impl Fn() -> String + Send + 'static,
        begin: impl FnOnce(&dyn Transaction) -> StoreFuture<T>,
    ) -> StoreFuture<T> {
        let (number, admitted) = self.admit();
        let shared = Arc::clone(&self.shared);
        let answer = admitted.map(|(delay, inner)| (delay, begin(inner.as_ref())));
        Box::pin(async move {
            let result = match answer {
                Ok((delay, answer)) => delayed_read(&shared, delay, patient, answer).await,
                Err(error) => Err(error),
            };
            shared.trace(number, operation, subject, || format!("{result:?}"));
            result
        })
    }

    /// Counts the step of a read and draws its faults.
    fn admit(&self) -> (u64, Result<(Duration, Tx), StoreError>) {
        let (number, step) = self.shared.step();
        let admitted = step.and_then(|step| {
            if step.crash.is_some() {
                return Err(crashed());
            }
            if let Some(kind) = step.refused {
                return Err(injected(kind));
            }
            let inner = self.lock().clone().ok_or_else(used_up)?;
            let mut state = self.shared.lock();
            let too_old = state.faults.too_old_read;
            if state.random.chance(too_old) {
                return Err(injected(StoreErrorKind::TooOld));
            }
            Ok((step.delay, inner))
        });
        (number, admitted)
    }

    /// Lets a buffered write through, unless the commit is on its way already.
    fn write(&self, operation: &'static str, subject: &[u8], write: impl FnOnce(&dyn Transaction)) {
        if let Some(inner) = self.lock().as_deref() {
            self.has_written.store(true, Ordering::Release);
            write(inner);
        } else {
            return;
        }
        let step = self.shared.lock().steps;
        self.shared
            .trace(step, operation, || escaped(subject), || "buffered".into());
    }

    /// Draws what becomes of a commit.
    fn plan(&self, step: &Step) -> Plan {
        if let Some(kind) = step.refused {
            return Plan::Refuse(kind);
        }
        if !self.has_written.load(Ordering::Acquire) {
            return match step.crash {
                Some(_) => Plan::Refuse(StoreErrorKind::Unavailable),
                None => Plan::Honest,
            };
        }
        if let Some(mode) = step.crash {
            return Plan::Crooked {
                fate: mode.fate,
                report: mode.report,
            };
        }
        let unknown = |fate| Plan::Crooked {
            fate,
            report: CommitReport::Unknown,
        };
        if let Some(fate) = step.unknown {
            return unknown(fate);
        }
        let mut state = self.shared.lock();
        let faults = state.faults.clone();
        let mut drawn = state.random.fraction();
        let plans = [
            (faults.conflict, Plan::Refuse(StoreErrorKind::Conflict)),
            (faults.too_old_commit, Plan::Refuse(StoreErrorKind::TooOld)),
            (faults.unknown_applied, unknown(CommitFate::Applied)),
            (faults.unknown_not_applied, unknown(CommitFate::NotApplied)),
            (faults.unknown_late, unknown(CommitFate::Late)),
        ];
        for (probability, plan) in plans {
            if drawn < probability {
                return plan;
            }
            drawn -= probability;
        }
        Plan::Honest
    }

    fn plan_watch(&self) -> WatchPlan {
        let mut state = self.shared.lock();
        let faults = state.faults.clone();
        let drawn = state.random.fraction();
        let wait = state.random.duration(faults.watch_delay_by);
        if drawn < faults.spurious_watch {
            WatchPlan::Spurious(wait)
        } else if drawn < faults.spurious_watch + faults.late_watch {
            WatchPlan::Late(wait)
        } else if drawn < faults.spurious_watch + faults.late_watch + faults.lost_watch {
            WatchPlan::Lost(wait)
        } else {
            WatchPlan::Faithful
        }
    }

    /// Sends the commit off. It runs beside the caller, as a request does that has left the
    /// process: neither dropping the future nor a crash takes it back.
    fn send(&self, inner: Tx, plan: Plan, delay: Duration) -> oneshot::Receiver<CommitResult> {
        let (answer, answered) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let has_written = self.has_written.load(Ordering::Acquire);
        let back = match has_written {
            true => shared.lock().delay(),
            false => Duration::ZERO,
        };
        self.shared.env.spawn(Box::pin(async move {
            let mut result = execute(&shared, inner, plan, delay).await;
            pause(&shared, back).await;
            if shared.lock().has_crashed {
                result = Err(match has_written {
                    true => injected(StoreErrorKind::MaybeCommitted),
                    false => crashed(),
                });
            }
            // Nobody may wait any more.
            let _ = answer.send(result);
        }));
        answered
    }
}

async fn delayed_read<T>(
    shared: &Shared,
    delay: Duration,
    patient: bool,
    answer: StoreFuture<T>,
) -> Result<T, StoreError> {
    pause(shared, delay).await;
    shared.outlast_outage(patient).await?;
    let result = answer.await;
    shared.check_alive()?;
    result
}

async fn execute(shared: &Arc<Shared>, inner: Tx, plan: Plan, delay: Duration) -> CommitResult {
    pause(shared, delay).await;
    shared.outlast_outage(false).await?;
    match plan {
        Plan::Refuse(kind) => Err(injected(kind)),
        Plan::Honest => inner.commit().await,
        Plan::Crooked { fate, .. } => {
            match fate {
                CommitFate::NotApplied => {}
                // Whatever the store says of it is not heard.
                CommitFate::Applied => drop(inner.commit().await),
                CommitFate::Late => land_later(shared, inner),
            }
            Err(injected(StoreErrorKind::MaybeCommitted))
        }
    }
}

fn land_later(shared: &Arc<Shared>, inner: Tx) {
    let late_by = {
        let mut state = shared.lock();
        let longest = state.faults.late_by;
        state.random.duration(longest)
    };
    let later = shared.env.sleep(late_by);
    let env = Arc::clone(&shared.env);
    let shared = Arc::clone(shared);
    env.spawn(Box::pin(async move {
        later.await;
        // What is on its way through an outage comes out behind it.
        if shared.outlast_outage(true).await.is_ok() {
            drop(inner.commit().await);
        }
    }));
}

async fn pause(shared: &Shared, delay: Duration) {
    if !delay.is_zero() {
        shared.env.sleep(delay).await;
    }
}

async fn watch(shared: &Shared, plan: WatchPlan, inner: StoreFuture<()>) -> Result<(), StoreError> {
    match plan {
        WatchPlan::Faithful => inner.await?,
        WatchPlan::Late(wait) => {
            inner.await?;
            shared.env.sleep(wait).await;
        }
        WatchPlan::Spurious(wait) => match select(shared.env.sleep(wait), inner).await {
            Either::Left(((), _)) => {}
            Either::Right((result, _)) => result?,
        },
        WatchPlan::Lost(wait) => {
            drop(inner);
            shared.env.sleep(wait).await;
            return Err(injected(StoreErrorKind::Unavailable));
        }
    }
    shared.outlast_outage(true).await
}

fn escaped(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

fn used_up() -> StoreError {
    StoreError::new(StoreErrorKind::InvalidCall)
        .with_context("the transaction was used after its commit: begin a new one")
}

impl Transaction for FaultyTransaction {
    fn get(&self, key: &[u8], isolation: Isolation) -> StoreFuture<Option<Bytes>> {
        let subject = key.to_vec();
        self.read(
            "get",
            move || escaped(&subject),
            |inner| inner.get(key, isolation),
        )
    }

    fn get_range(&self, read: RangeRead) -> StoreFuture<Vec<KeyValue>> {
        let subject = read.range.clone();
        self.read(
            "get_range",
            move || format!("{subject:?}"),
            |inner| inner.get_range(read),
        )
    }

    fn set(&self, key: &[u8], value: &[u8]) {
        self.write("set", key, |inner| inner.set(key, value));
    }

    fn clear(&self, key: &[u8]) {
        self.write("clear", key, |inner| inner.clear(key));
    }

    fn clear_range(&self, range: &KeyRange) {
        self.write("clear_range", &range.begin, |inner| {
            inner.clear_range(range);
        });
    }

    fn add(&self, key: &[u8], operand: &[u8]) {
        self.write("add", key, |inner| inner.add(key, operand));
    }

    fn compare_and_clear(&self, key: &[u8], expected: &[u8]) {
        self.write("compare_and_clear", key, |inner| {
            inner.compare_and_clear(key, expected);
        });
    }

    fn set_versionstamped_key(&self, template: &[u8], offset: usize, value: &[u8]) {
        self.write("set_versionstamped_key", template, |inner| {
            inner.set_versionstamped_key(template, offset, value);
        });
    }

    fn set_versionstamped_value(&self, key: &[u8], template: &[u8], offset: usize) {
        self.write("set_versionstamped_value", key, |inner| {
            inner.set_versionstamped_value(key, template, offset);
        });
    }

    fn add_read_conflict(&self, range: &KeyRange) {
        if let Some(inner) = self.lock().as_deref() {
            inner.add_read_conflict(range);
        }
    }

    fn read_version(&self) -> StoreFuture<Version> {
        self.read("read_version", String::new, |inner| inner.read_version())
    }

    fn set_read_version(&self, version: Version) {
        if let Some(inner) = self.lock().as_deref() {
            inner.set_read_version(version);
        }
    }

    fn watch(&self, key: &[u8]) -> StoreFuture<()> {
        let plan = self.plan_watch();
        let shared = Arc::clone(&self.shared);
        // Watches survive an outage.
        self.answer(
            true,
            "watch",
            {
                let key = key.to_vec();
                move || escaped(&key)
            },
            |inner| {
                let inner = inner.watch(key);
                Box::pin(async move { watch(&shared, plan, inner).await })
            },
        )
    }

    fn commit(&self) -> StoreFuture<Option<Committed>> {
        let Some(inner) = self.lock().take() else {
            return Box::pin(ready(Err(used_up())));
        };
        let (number, step) = self.shared.step();
        let shared = Arc::clone(&self.shared);
        let sent = step.map(|step| {
            let plan = self.plan(&step);
            (plan, self.send(inner, plan, step.delay))
        });
        Box::pin(async move {
            let result = match sent {
                Ok((plan, answered)) => {
                    let answer = answered.await;
                    if plan.is_silent() {
                        std::future::pending::<()>().await;
                    }
                    answer.unwrap_or_else(|_| Err(injected(StoreErrorKind::MaybeCommitted)))
                }
                Err(error) => Err(error),
            };
            shared.trace(number, "commit", String::new, || format!("{result:?}"));
            result
        })
    }
}

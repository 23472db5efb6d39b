//! A store that fails on purpose: every fault a cluster shows its clients, decided by a seed.
//!
//! A [`FaultyStore`] stands for one client's connection. Give each simulated process its own, all
//! over one [`MemoryStore`](crate::store::MemoryStore):
//!
//! ```
//! use abide::store::{Database, MemoryStore, OnUnknown, RetryPolicy, StoreError, TransactionExt};
//! use abide::testing::faults::{Faults, FaultyStore};
//! use abide::testing::sim::Sim;
//! use std::sync::Arc;
//!
//! let sim = Sim::new(7);
//! let cluster = Arc::new(MemoryStore::with_env(sim.env()));
//! let store = FaultyStore::new(cluster, sim.env(), 7);
//! store.set_faults(Faults { conflict: 0.5, ..Faults::none() });
//!
//! let db = Database::new(Arc::new(store.clone()), sim.node("a").env());
//! let done = sim.block_on(db.run(|attempt| async move {
//!     attempt.tx().add_i64(b"counter", 1);
//!     Ok::<_, StoreError>(())
//! }));
//! assert!(done.unwrap().is_ok());
//! ```

mod transaction;

use super::sim::Random;
use crate::env::Env;
use crate::store::{Store, StoreError, StoreErrorKind, Tx};
use futures_channel::oneshot;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use transaction::FaultyTransaction;

/// How often which fault happens: probabilities between zero and one, each per operation.
///
/// The probabilities of a commit's faults (those that name the commit, a conflict or an unknown
/// outcome) exclude each other, so their sum is at most one.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// A commit that writes is refused as a conflict.
    pub conflict: f64,
    /// A commit that writes is refused as too old.
    pub too_old_commit: f64,
    /// A commit that writes is applied and reported as unknown.
    pub unknown_applied: f64,
    /// A commit that writes is not applied and reported as unknown.
    pub unknown_not_applied: f64,
    /// A commit that writes is reported as unknown, and attempted later. It keeps the read version
    /// that it had; if it had none it obtains one only then, so nothing it would conflict with stops
    /// it: the danger that outcome markers are for.
    pub unknown_late: f64,
    /// A late commit is attempted up to this much later.
    pub late_by: Duration,
    /// A read is refused as too old.
    pub too_old_read: f64,
    /// An operation is delayed: a read's answer, or a commit's journey to the store, or the way back
    /// of its answer, while others already see what it wrote.
    pub delay: f64,
    /// The longest delay of one of them.
    pub delay_by: Duration,
    /// A watch fires though nothing changed.
    pub spurious_watch: f64,
    /// A watch fires late.
    pub late_watch: f64,
    /// A watch misses every change and fails some time later.
    pub lost_watch: f64,
    /// How long at most until a spurious watch fires, a late one does, or a lost one fails.
    pub watch_delay_by: Duration,
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self {
            conflict: 0.0,
            too_old_commit: 0.0,
            unknown_applied: 0.0,
            unknown_not_applied: 0.0,
            unknown_late: 0.0,
            late_by: Duration::from_secs(120),
            too_old_read: 0.0,
            delay: 0.0,
            delay_by: Duration::from_millis(50),
            spurious_watch: 0.0,
            late_watch: 0.0,
            lost_watch: 0.0,
            watch_delay_by: Duration::from_secs(10),
        }
    }

    /// Each fault now and then, and a delay nearly always: a bad day on which work gets done.
    #[must_use]
    pub fn bad_day() -> Self {
        Self {
            conflict: 0.05,
            too_old_commit: 0.02,
            unknown_applied: 0.03,
            unknown_not_applied: 0.03,
            unknown_late: 0.03,
            too_old_read: 0.01,
            delay: 0.8,
            spurious_watch: 0.1,
            late_watch: 0.2,
            lost_watch: 0.1,
            ..Self::none()
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

/// How the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Operations fail with [`Unavailable`](StoreErrorKind::Unavailable).
    Refuse,
    /// Operations wait for the end of the outage.
    Hang,
}

/// What becomes of a commit that a crash overtakes, or whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFate {
    /// It never reaches the store.
    NotApplied,
    /// It is applied.
    Applied,
    /// It is attempted later, up to [`Faults::late_by`].
    Late,
}

/// What is heard of a commit that a crash overtakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitReport {
    /// [`MaybeCommitted`](StoreErrorKind::MaybeCommitted).
    Unknown,
    /// Nothing, ever.
    Silence,
}

/// How a connection crashes, if the step at which it does is a commit that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashMode {
    /// What happens in the store.
    pub fate: CommitFate,
    /// What the caller hears.
    pub report: CommitReport,
}

impl CrashMode {
    /// Every way to crash.
    pub const ALL: [Self; 6] = {
        const fn mode(fate: CommitFate, report: CommitReport) -> CrashMode {
            CrashMode { fate, report }
        }
        [
            mode(CommitFate::NotApplied, CommitReport::Unknown),
            mode(CommitFate::Applied, CommitReport::Unknown),
            mode(CommitFate::Late, CommitReport::Unknown),
            mode(CommitFate::NotApplied, CommitReport::Silence),
            mode(CommitFate::Applied, CommitReport::Silence),
            mode(CommitFate::Late, CommitReport::Silence),
        ]
    };
}

/// One line of a replay: what an operation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it ended, on the environment's clock.
    pub at: Duration,
    /// Which step it was; for a buffered write, the last step before it.
    pub step: u64,
    /// The method's name.
    pub operation: &'static str,
    /// The key or range, escaped.
    pub subject: String,
    /// The result.
    pub outcome: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            step,
            operation,
            subject,
            outcome,
        } = self;
        write!(f, "{at:?} #{step} {operation} {subject}: {outcome}")
    }
}

type Trace = Arc<dyn Fn(Event) + Send + Sync>;

/// A store over another one, with faults. Clones are the same connection.
///
/// One *step* is one read, range read, read version, watch or commit. The same seed draws the same
/// faults for the same sequence of steps.
#[derive(Clone)]
pub struct FaultyStore {
    shared: Arc<Shared>,
}

impl FaultyStore {
    /// A connection without faults so far.
    ///
    /// `env` is the world that outlives the client: a commit that is on its way lands although the
    /// process that sent it has crashed. In a simulation that is
    /// [`Sim::env`](super::sim::Sim::env), not the environment of a node.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, env: Arc<dyn Env>, seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            faults: Faults::none(),
            steps: 0,
            outage: None,
            is_locked: false,
            crash_at: None,
            unknown_at: None,
            fail_at: None,
            has_crashed: false,
            waiting: Vec::new(),
            trace: None,
        };
        Self {
            shared: Arc::new(Shared {
                inner,
                env,
                state: Mutex::new(state),
            }),
        }
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.lock().faults = faults;
    }

    /// Begins an outage, changes its kind, or ends it with `None`. Watches survive an outage; what
    /// fires in it is heard of afterwards.
    pub fn set_outage(&self, outage: Option<Outage>) {
        let waiting = {
            let mut state = self.shared.lock();
            state.outage = outage;
            std::mem::take(&mut state.waiting)
        };
        // Dropped outside the lock: it wakes everyone who waits for the end of the outage.
        drop(waiting);
    }

    /// Locks the store or unlocks it: while it is locked, every step fails with
    /// [`Locked`](StoreErrorKind::Locked).
    pub fn set_locked(&self, locked: bool) {
        self.shared.lock().is_locked = locked;
    }

    /// How many steps were begun.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.shared.lock().steps
    }

    /// Crashes the connection with step number `step` (the first is 1): that step and all after it
    /// fail with [`Unavailable`](StoreErrorKind::Unavailable) for good. If the step is a commit that
    /// writes, `mode` says what becomes of it. What was on its way before goes on; its outcome is
    /// not heard of.
    pub fn crash_at(&self, step: u64, mode: CrashMode) {
        self.shared.lock().crash_at = Some((step, mode));
    }

    /// Leaves the outcome of step number `step` unknown, if it is a commit that writes; the connection
    /// goes on. `fate` is what becomes of the commit.
    pub fn unknown_at(&self, step: u64, fate: CommitFate) {
        self.shared.lock().unknown_at = Some((step, fate));
    }

    /// Refuses step number `step` with an error of this kind, whether it reads or commits; nothing
    /// happens in the store, and the connection goes on.
    pub fn fail_at(&self, step: u64, kind: StoreErrorKind) {
        self.shared.lock().fail_at = Some((step, kind));
    }

    /// Whether the connection has crashed.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.shared.lock().has_crashed
    }

    /// Hands every operation's end to `trace`, which must not call this store.
    pub fn set_trace(&self, trace: impl Fn(Event) + Send + Sync + 'static) {
        self.shared.lock().trace = Some(Arc::new(trace));
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl Store for FaultyStore {
    fn begin(&self) -> Result<Tx, StoreError> {
        if self.has_crashed() {
            return Err(crashed());
        }
        let inner = self.shared.inner.begin()?;
        Ok(Arc::new(FaultyTransaction::new(
            Arc::clone(&self.shared),
            inner,
        )))
    }

    fn read_versions_cost(&self) -> bool {
        self.shared.inner.read_versions_cost()
    }
}

struct Shared {
    inner: Arc<dyn Store>,
    env: Arc<dyn Env>,
    state: Mutex<State>,
}

struct State {
    random: Random,
    faults: Faults,
    steps: u64,
    outage: Option<Outage>,
    is_locked: bool,
    crash_at: Option<(u64, CrashMode)>,
    unknown_at: Option<(u64, CommitFate)>,
    fail_at: Option<(u64, StoreErrorKind)>,
    has_crashed: bool,
    /// Who waits for the end of the outage: woken by being dropped.
    waiting: Vec<oneshot::Sender<()>>,
    trace: Option<Trace>,
}

/// A step that was let in.
#[derive(Debug)]
struct Step {
    delay: Duration,
    /// Set for the step that crashes the connection.
    crash: Option<CrashMode>,
    /// Set for the step whose outcome is to be unknown.
    unknown: Option<CommitFate>,
    /// Set for the step that is to be refused.
    refused: Option<StoreErrorKind>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a step, and refuses it if the connection cannot serve it.
    fn step(&self) -> (u64, Result<Step, StoreError>) {
        let (number, step, woken) = {
            let mut state = self.lock();
            state.steps += 1;
            let step = state.admit();
            let woken = match &step {
                Ok(step) if step.crash.is_some() => std::mem::take(&mut state.waiting),
                _ => Vec::new(),
            };
            (state.steps, step, woken)
        };
        drop(woken);
        (number, step)
    }

    /// Waits for the end of an outage that hangs, and of any other if `patient`.
    async fn outlast_outage(&self, patient: bool) -> Result<(), StoreError> {
        loop {
            let over = {
                let mut state = self.lock();
                match state.outage {
                    None => return Ok(()),
                    Some(Outage::Refuse) if !patient => return Err(outage()),
                    Some(_) => {
                        let (waiting, over) = oneshot::channel();
                        state.waiting.push(waiting);
                        over
                    }
                }
            };
            // Cancelled is how the end is told.
            let _ = over.await;
        }
    }

    /// Refuses the answer of what was under way when the connection crashed.
    fn check_alive(&self) -> Result<(), StoreError> {
        if self.lock().has_crashed {
            return Err(crashed());
        }
        Ok(())
    }

    fn trace(
        &self,
        step: u64,
        operation: &'static str,
        subject: impl FnOnce() -> String,
        outcome: impl FnOnce() -> String,
    ) {
        let trace = self.lock().trace.clone();
        if let Some(trace) = trace {
            trace(Event {
                at: self.env.now(),
                step,
                operation,
                subject: subject(),
                outcome: outcome(),
            });
        }
    }
}

impl State {
    fn admit(&mut self) -> Result<Step, StoreError> {
        if self.has_crashed {
            return Err(crashed());
        }
        let crash = self
            .crash_at
            .filter(|(step, _)| self.steps >= *step)
            .map(|(_, mode)| mode);
        if crash.is_some() {
            self.has_crashed = true;
            // What waited for the end of an outage finds out, and what was on its way goes on.
            self.outage = None;
        }
        if crash.is_none() && self.is_locked {
            return Err(StoreErrorKind::Locked.into());
        }
        if crash.is_none() && self.outage == Some(Outage::Refuse) {
            return Err(outage());
        }
        let unknown = self
            .unknown_at
            .filter(|(step, _)| self.steps == *step)
            .map(|(_, fate)| fate);
        let refused = self
            .fail_at
            .filter(|(step, _)| crash.is_none() && self.steps == *step)
            .map(|(_, kind)| kind);
        Ok(Step {
            delay: self.delay(),
            crash,
            unknown,
            refused,
        })
    }

    /// How long a request, or an answer, is under way.
    fn delay(&mut self) -> Duration {
        if self.random.chance(self.faults.delay) {
            self.random.duration(self.faults.delay_by)
        } else {
            Duration::ZERO
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("FaultyStore")
            .field("inner", &self.inner)
            .field("faults", &state.faults)
            .field("steps", &state.steps)
            .field("outage", &state.outage)
            .field("has_crashed", &state.has_crashed)
            .finish_non_exhaustive()
    }
}

fn crashed() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable).with_context("injected: the connection crashed")
}

fn outage() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable).with_context("injected: an outage")
}

fn injected(kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind).with_context("injected")
}

#[cfg(test)]
mod tests;

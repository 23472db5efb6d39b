//! Time, tasks and randomness, injected.
//!
//! Everything below the node takes these from an [`Env`] and never from the process around it, so
//! that the same code runs under tokio, under a seeded simulation and inside FoundationDB's own
//! simulator. This is the only file that reads a clock.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tokio::runtime::RuntimeFlavor;

/// A boxed, sendable future: the return type of the asynchronous methods of dyn-compatible traits.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where time, background tasks and random numbers come from.
pub trait Env: Debug + Send + Sync + 'static {
    /// Monotonic time since an origin that is fixed for the life of this environment.
    ///
    /// Durations are measured with this clock. It says nothing about the clocks of other processes.
    fn now(&self) -> Duration;

    /// The wall clock. Stored for people to read and never compared between nodes.
    fn wall_clock(&self) -> SystemTime;

    /// Completes once `duration` has passed on the clock of [`now`](Env::now).
    ///
    /// Dropping the future cancels the wait and nothing else.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs `task` beside the caller until it ends or the environment does.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// A uniformly distributed random number.
    fn random(&self) -> u64;

    /// Runs work that keeps the thread busy for long, a user's handlers say, where it keeps no other
    /// task waiting. That has a price: work that is done in a moment just runs.
    ///
    /// Where everything runs on one thread anyway, it just runs too.
    fn run_blocking(&self, work: &mut dyn FnMut()) {
        work();
    }

    /// Runs work that has always been done in a moment, without the price of
    /// [`run_blocking`](Self::run_blocking). Should it take long this time, other tasks go on all the same;
    /// all but the one that the calling task woke last, unless it has yielded since.
    ///
    /// Where everything runs on one thread anyway, it just runs.
    fn run_briefly(&self, work: &mut dyn FnMut()) {
        work();
    }
}

/// The environment of an ordinary process: tokio's timer and tasks, the system's clocks, and a
/// random generator seeded by the operating system.
///
/// Create it inside a tokio runtime; its tasks and timers belong to that runtime.
#[derive(Debug, Clone)]
pub struct TokioEnv {
    /// Where tasks run.
    runtime: tokio::runtime::Handle,
    /// Where the timers are.
    timers: tokio::runtime::Handle,
    /// Keeps the timers' runtime, if it is the environment's own: a timer that outlived its runtime
    /// would panic in whichever task waits for it.
    owned: Option<Arc<OwnedRuntime>>,
}

/// A runtime that ends with its last user, without waiting: that may be one of its own tasks.
#[derive(Debug)]
struct OwnedRuntime(Option<tokio::runtime::Runtime>);

impl Drop for OwnedRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl TokioEnv {
    /// The environment of the tokio runtime that the caller runs in.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, as [`tokio::runtime::Handle::current`] does.
    #[must_use]
    pub fn current() -> Self {
        Self::new(tokio::runtime::Handle::current())
    }

    /// The environment of a given runtime.
    #[must_use]
    pub fn new(runtime: tokio::runtime::Handle) -> Self {
        Self {
            timers: runtime.clone(),
            runtime,
            owned: None,
        }
    }

    /// An environment whose tasks run in a given runtime, while its timers are those of this one: they
    /// go on when that runtime has ended.
    pub(crate) fn with_tasks_in(&self, runtime: tokio::runtime::Handle) -> Self {
        Self {
            runtime,
            ..self.clone()
        }
    }

    /// The environment of a new runtime with so many threads, which lives as long as anything that
    /// uses it: tasks, timers and clones of the environment.
    ///
    /// # Errors
    ///
    /// When the operating system gives no more threads.
    pub(crate) fn with_threads(name: &str, threads: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()?;
        Ok(Self {
            runtime: runtime.handle().clone(),
            timers: runtime.handle().clone(),
            owned: Some(Arc::new(OwnedRuntime(Some(runtime)))),
        })
    }
}

impl Env for TokioEnv {
    fn now(&self) -> Duration {
        monotonic()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that sleeps")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let sleep = {
            let _guard = self.timers.enter();
            tokio::time::sleep(duration)
        };
        let owned = self.owned.clone();
        Box::pin(async move {
            sleep.await;
            drop(owned);
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }

    fn run_blocking(&self, work: &mut dyn FnMut()) {
        // Within a runtime of several threads the others take over what waits on this one.
        let several = tokio::runtime::Handle::try_current()
            .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        if several {
            tokio::task::block_in_place(work);
        } else {
            work();
        }
    }

    fn run_briefly(&self, work: &mut dyn FnMut()) {
        let runtime = tokio::runtime::Handle::try_current();
        let Some(runtime) = runtime
            .ok()
            .filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
        else {
            return work();
        };
        let Some(_brief) = Brief::wait(runtime.metrics().num_workers()) else {
            return tokio::task::block_in_place(work);
        };
        work();
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that draws from the process"
    )]
    fn random(&self) -> u64 {
        rand::random()
    }
}

/// Work that keeps a thread of a runtime although nobody knows how long it takes.
///
/// At most all threads of a runtime but one are kept so, whatever the work turns out to be: the one that
/// is left takes over the tasks and the timers of the others. All runtimes of the process are counted
/// together, because several nodes may share one; that errs on the safe side.
struct Brief;

/// How much such work is under way.
static BRIEF: AtomicUsize = AtomicUsize::new(0);

impl Brief {
    /// How often to look again whether other such work has ended. It mostly does within microseconds,
    /// which is less than what giving the thread away costs.
    const LOOKS: u32 = 200;

    /// As [`begin`](Self::begin), a few microseconds later if need be.
    fn wait(threads: usize) -> Option<Self> {
        if threads < 2 {
            return None;
        }
        Self::begin(threads).or_else(|| {
            (0..Self::LOOKS).find_map(|_| {
                std::hint::spin_loop();
                Self::begin(threads)
            })
        })
    }

    /// Nothing, if a runtime with so many threads might have none left.
    fn begin(threads: usize) -> Option<Self> {
        let one_more = |under_way: usize| (under_way + 1 < threads).then_some(under_way + 1);
        BRIEF
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more)
            .is_ok()
            .then(|| Self)
    }
}

impl Drop for Brief {
    fn drop(&mut self) {
        BRIEF.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A random number as a fraction: uniform, below one.
pub(crate) fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

/// Completes when the process is asked to end: by Ctrl-C, or by SIGTERM where there is one.
///
/// # Errors
///
/// When the signals cannot be listened for.
pub(crate) async fn terminated() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        let terminate = std::pin::pin!(terminate.recv());
        match futures_util::future::select(interrupt, terminate).await {
            futures_util::future::Either::Left((interrupted, _)) => interrupted,
            futures_util::future::Either::Right(_) => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// Monotonic time since this process first asked.
///
/// For the store backends that talk to a real outside world; everything else has an [`Env`].
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the monotonic clock"
)]
pub(crate) fn monotonic() -> Duration {
    static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    ORIGIN.get_or_init(std::time::Instant::now).elapsed()
}

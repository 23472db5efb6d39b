//! Time, tasks and randomness, injected.
//!
//! Everything below the node takes these from an [`Env`] and never from the process around it, so
//! that the same code runs under tokio, under a seeded simulation and inside FoundationDB's own
//! simulator. This is the only file that reads a clock.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

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
}

/// The environment of an ordinary process: tokio's timer and tasks, the system's clocks, and a
/// random generator seeded by the operating system.
///
/// Create it inside a tokio runtime; its tasks and timers belong to that runtime.
#[derive(Debug, Clone)]
pub struct TokioEnv {
    runtime: tokio::runtime::Handle,
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
        Self { runtime }
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
        let _guard = self.runtime.enter();
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that draws from the process"
    )]
    fn random(&self) -> u64 {
        rand::random()
    }
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

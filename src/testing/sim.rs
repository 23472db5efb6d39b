//! A simulation: many processes, one thread, virtual time, and one seed that decides everything.
//!
//! Code that takes its time, tasks and random numbers from an [`Env`] runs here
//! unchanged. The seed decides in which order ready tasks run and what is random; when nothing is
//! ready, time jumps to the next timer. So an hour of a cluster takes a moment, and a run that
//! failed is repeated exactly by its seed.
//!
//! ```
//! use abide::testing::sim::Sim;
//! use std::time::Duration;
//!
//! let sim = Sim::new(7);
//! let env = sim.node("a").env();
//! let slept = sim.block_on(async move {
//!     let begin = env.now();
//!     env.sleep(Duration::from_secs(3600)).await;
//!     env.now() - begin
//! });
//! assert_eq!(slept, Ok(Duration::from_secs(3600)));
//! ```
//!
//! The store of a simulation is a [`MemoryStore`](crate::store::MemoryStore) on [`Sim::env`], with
//! a [`FaultyStore`](super::faults::FaultyStore) per node over it. A whole [node](crate::Node) runs here too, and
//! the test moves its clock:
//!
//! ```
//! # use abide::Node;
//! # use abide::server::*;
//! use abide::store::MemoryStore;
//! use abide::testing::sim::Sim;
//! # use serde::{Deserialize, Serialize};
//! use std::sync::Arc;
//! use std::time::{Duration, SystemTime};
//! # struct Watching;
//! # impl Protocol for Watching { const KIND: &'static str = "clock"; }
//! # #[derive(Serialize, Deserialize)] struct Look;
//! # impl Message<Watching> for Look { const NAME: &'static str = "look"; type Reply = SystemTime; }
//! # struct Clock;
//! # impl Server for Clock {
//! #     type Protocol = Watching;
//! #     type State = ();
//! #     fn init(&self, _: &ReadContext<'_>) -> Result<(), Failure> { Ok(()) }
//! #     fn routes(routes: Routes<Self>) -> Routes<Self> { routes.query::<Look>() }
//! # }
//! # impl Query<Look> for Clock {
//! #     fn query(&self, _: &(), _: Look, cx: &ReadContext<'_>) -> Result<SystemTime, Failure> { Ok(cx.now()) }
//! # }
//!
//! let sim = Sim::new(7);
//! let store = Arc::new(MemoryStore::with_env(sim.env()));
//! let process = sim.node("a");
//! let passed = sim.block_on(async {
//!     // `Clock` answers with the time of its context.
//!     let builder = Node::builder_on(store).env(process.env()).serve(Clock);
//!     let node = builder.start().await.expect("nothing is in its way");
//!     let clock = node.server::<Watching>("one");
//!     let before = clock.query(Look).await.expect("it is served");
//!     process.env().sleep(Duration::from_secs(3600)).await;
//!     let after = clock.query(Look).await.expect("it is served");
//!     node.shutdown(Duration::from_secs(5)).await;
//!     after.duration_since(before)
//! });
//! let passed = passed?.expect("its clock goes forward");
//! assert!(passed >= Duration::from_secs(3600) && passed < Duration::from_secs(3601));
//! # Ok::<(), abide::testing::sim::SimError>(())
//! ```

mod node;
mod random;
mod state;

pub use node::Node;
pub(crate) use random::Random;

use crate::env::Env;
use state::{ROOT, Shared, TaskId};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How much virtual time [`Sim::block_on`] waits for its future by default.
const TIME_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How many steps may be taken in one moment. A real workload sleeps now and then; tasks that only
/// wake each other never would.
const MAX_STEPS_AT_ONCE: u64 = 10_000_000;

/// How far apart the monotonic clocks of the nodes may be, so that comparing them is found out.
const MAX_CLOCK_ORIGIN: Duration = Duration::from_secs(1_000_000);

/// A simulation. Dropping it drops all its tasks.
#[derive(Debug)]
pub struct Sim {
    shared: Arc<Shared>,
    time_limit: Duration,
}

/// Why a simulation cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimError {
    kind: SimErrorKind,
    at: Duration,
    tasks: Vec<String>,
}

/// What kind of end a simulation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimErrorKind {
    /// Nothing is ready and no timer runs: nothing will ever happen again.
    Deadlock,
    /// The awaited future did not complete within the limit of virtual time.
    TimeLimit,
    /// Tasks keep waking each other and never let time pass.
    Livelock,
}

impl SimError {
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> SimErrorKind {
        self.kind
    }
}

impl fmt::Display for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        let what = match self.kind {
            SimErrorKind::Deadlock => "deadlock: nothing will ever wake",
            SimErrorKind::TimeLimit => "the time limit passed while there waited",
            SimErrorKind::Livelock => "livelock: time stands still while there runs",
        };
        write!(f, "at {:?}: {what} ", self.at)?;
        let shown: Vec<&str> = self.tasks.iter().take(SHOWN).map(String::as_str).collect();
        f.write_str(&shown.join(", "))?;
        match self.tasks.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for SimError {}

impl Sim {
    /// A simulation that this seed decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Shared::new(seed),
            time_limit: TIME_LIMIT,
        }
    }

    /// Lets [`block_on`](Self::block_on) wait at most this long, in virtual time. A day by default.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// The environment of the world around the nodes: of the test itself, and of the store. Its
    /// tasks survive every node; its monotonic clock begins at zero.
    #[must_use]
    pub fn env(&self) -> Arc<dyn Env> {
        Node {
            shared: Arc::clone(&self.shared),
            id: ROOT,
        }
        .env()
    }

    /// A new simulated process.
    #[must_use]
    pub fn node(&self, name: &str) -> Node {
        let mut state = self.shared.lock();
        let clock_origin = state.random.duration(MAX_CLOCK_ORIGIN);
        let id = state.add_node(name, clock_origin);
        drop(state);
        Node {
            shared: Arc::clone(&self.shared),
            id,
        }
    }

    /// Runs the simulation until `future` completes. Its other tasks stay as they are then.
    ///
    /// For the test that owns the simulation: a task in it awaits, it does not block.
    ///
    /// # Errors
    ///
    /// When the future cannot complete, or not within the time limit; the error names the tasks
    /// that wait.
    ///
    /// # Panics
    ///
    /// When a task panics, with its panic.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, SimError> {
        let mut future = pin!(future);
        let mut output = None;
        let limit = self.shared.lock().now.saturating_add(self.time_limit);
        let mut main = pin!(async { output = Some(future.as_mut().await) });
        let main_id = self.shared.lock().add_task(&self.shared, ROOT, None).ok();
        let ran = self.run(
            main_id.map(|id| (id, main.as_mut() as Pin<&mut dyn Future<Output = ()>>)),
            limit,
        );
        if let Some(id) = main_id {
            self.shared.lock().remove_task(id);
        }
        ran?;
        output.ok_or_else(|| self.error(SimErrorKind::TimeLimit))
    }

    /// Runs the simulation for this long, whether or not anything happens.
    ///
    /// # Errors
    ///
    /// [`Livelock`](SimErrorKind::Livelock).
    ///
    /// # Panics
    ///
    /// When a task panics, with its panic.
    pub fn run_for(&self, duration: Duration) -> Result<(), SimError> {
        let until = self.now().saturating_add(duration);
        self.run_until(until)
    }

    /// Runs the simulation until its clock, that of [`Sim::env`], shows `time`.
    ///
    /// # Errors
    ///
    /// [`Livelock`](SimErrorKind::Livelock).
    ///
    /// # Panics
    ///
    /// When a task panics, with its panic.
    pub fn run_until(&self, time: Duration) -> Result<(), SimError> {
        self.run(None, time)
    }

    /// The virtual time since the simulation began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.lock().now
    }

    /// A digest of the schedule so far: which task took its turn when. Two runs of one seed agree
    /// in it, unless something in them is not decided by the seed.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.shared.lock().fingerprint
    }

    fn run(
        &self,
        mut main: Option<(TaskId, Pin<&mut dyn Future<Output = ()>>)>,
        until: Duration,
    ) -> Result<(), SimError> {
        let mut steps_at_once: u64 = 0;
        loop {
            let ready = self.shared.lock().next_ready();
            if let Some(id) = ready {
                steps_at_once += 1;
                if steps_at_once > MAX_STEPS_AT_ONCE {
                    let tasks = vec![self.shared.lock().task_name(id)];
                    return Err(SimError {
                        tasks,
                        ..self.error(SimErrorKind::Livelock)
                    });
                }
                let is_done = match &mut main {
                    Some((main_id, future)) if *main_id == id => {
                        self.poll_main(id, future.as_mut())
                    }
                    _ => self.poll_task(id),
                };
                if is_done {
                    return Ok(());
                }
                continue;
            }
            steps_at_once = 0;
            let next = self.shared.lock().next_event();
            let (to, is_last) = match next {
                Some(at) if at <= until => (at, false),
                None if main.is_some() => return Err(self.error(SimErrorKind::Deadlock)),
                Some(_) if main.is_some() => return Err(self.error(SimErrorKind::TimeLimit)),
                _ => (until, true),
            };
            let fired = self.shared.lock().advance(to);
            if is_last {
                return Ok(());
            }
            fired.into_iter().for_each(std::task::Waker::wake);
        }
    }

    fn poll_main(&self, id: TaskId, future: Pin<&mut dyn Future<Output = ()>>) -> bool {
        let waker = self.shared.lock().waker(id);
        waker.is_some_and(|waker| future.poll(&mut Context::from_waker(&waker)).is_ready())
    }

    /// Polls a task; never done, because only the awaited future ends a run.
    fn poll_task(&self, id: TaskId) -> bool {
        let (waker, future) = {
            let mut state = self.shared.lock();
            (state.waker(id), state.take_future(id))
        };
        if let (Some(waker), Some(mut future)) = (waker, future) {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(()) => self.shared.lock().remove_task(id),
                Poll::Pending => {
                    let crashed = self.shared.lock().put_future(id, future);
                    drop(crashed);
                }
            }
        }
        false
    }

    fn error(&self, kind: SimErrorKind) -> SimError {
        let state = self.shared.lock();
        SimError {
            kind,
            at: state.now,
            tasks: state.task_names(),
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // Tasks hold environments, which hold the state, which holds the tasks.
        let nodes = self.shared.lock().nodes.len();
        for node in 0..nodes {
            let ended = self.shared.lock().crash(node);
            drop(ended);
        }
    }
}

#[cfg(test)]
mod tests;

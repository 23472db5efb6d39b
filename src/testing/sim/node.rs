//! A simulated process, and its environment.

use super::state::{Moment, NodeId, Shared};
use crate::env::{BoxFuture, Env};
use futures_channel::oneshot;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

/// What every wall clock shows at the beginning of a simulation: some day in 2023.
const WALL_CLOCK_BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// A simulated process. Clones mean the same one.
///
/// A process that is to come back after a crash is a new node, of the same name if you like.
#[derive(Debug, Clone)]
pub struct Node {
    pub(super) shared: Arc<Shared>,
    pub(super) id: NodeId,
}

impl Node {
    /// The environment of what runs in this process.
    #[must_use]
    pub fn env(&self) -> Arc<dyn Env> {
        Arc::new(SimEnv {
            shared: Arc::clone(&self.shared),
            node: self.id,
        })
    }

    /// Runs a future in this process: `None` if the process crashes first.
    pub fn run<F>(&self, future: F) -> impl Future<Output = Option<F::Output>> + Send + use<F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.env().spawn(Box::pin(async move {
            // Nobody may wait for the result.
            let _ = answer.send(future.await);
        }));
        async move { answered.await.ok() }
    }

    /// Ends the process like a power failure: all its tasks are dropped at once, wherever they
    /// wait, and nothing runs in it again. May be called from one of its own tasks, which then ends
    /// with its current step.
    pub fn crash(&self) {
        let ended = self.shared.lock().crash(self.id);
        drop(ended);
    }

    /// Whether the process has not crashed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.shared
            .lock()
            .nodes
            .get(self.id)
            .is_some_and(|node| node.is_alive)
    }

    /// Stops the process for a while, as a long page fault or a suspended machine does: none of its
    /// tasks runs, while its clocks go on.
    pub fn pause(&self, duration: Duration) {
        let mut state = self.shared.lock();
        let until = state.now.saturating_add(duration);
        if let Some(node) = state.nodes.get_mut(self.id) {
            node.paused_until = node.paused_until.max(until);
        }
    }

    /// Makes the process slow: its sleeps take `factor` times as long, and each step of a task
    /// comes up to `factor - 1` milliseconds late. A factor of one is the ordinary speed, and a
    /// million the slowest.
    pub fn slow(&self, factor: f64) {
        if let Some(node) = self.shared.lock().nodes.get_mut(self.id) {
            node.slowness = factor.clamp(1.0, MAX_SLOWNESS);
        }
    }

    /// Sets the process's wall clock forward, or back. The monotonic clock is not touched.
    pub fn shift_wall_clock(&self, seconds: i64) {
        if let Some(node) = self.shared.lock().nodes.get_mut(self.id) {
            node.wall_clock_shift = node.wall_clock_shift.saturating_add(seconds);
        }
    }
}

/// The slowest: far beyond any machine, and within what the arithmetic of durations holds.
const MAX_SLOWNESS: f64 = 1e6;

/// The environment of one node.
#[derive(Debug)]
struct SimEnv {
    shared: Arc<Shared>,
    node: NodeId,
}

impl Env for SimEnv {
    fn now(&self) -> Duration {
        let state = self.shared.lock();
        let origin = state.nodes.get(self.node).map(|node| node.clock_origin);
        state.now + origin.unwrap_or_default()
    }

    fn wall_clock(&self) -> SystemTime {
        let state = self.shared.lock();
        let shift = state.nodes.get(self.node).map(|node| node.wall_clock_shift);
        let seconds = Duration::from_secs(shift.unwrap_or(0).unsigned_abs());
        let right = WALL_CLOCK_BEGIN + state.now;
        let shown = if shift.is_some_and(i64::is_negative) {
            right.saturating_sub(seconds)
        } else {
            right.saturating_add(seconds)
        };
        SystemTime::UNIX_EPOCH
            .checked_add(shown)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut state = self.shared.lock();
        let slowness = state.nodes.get(self.node).map_or(1.0, |node| node.slowness);
        // Within what a `Duration` can hold, slowed down too; nobody waits for millennia.
        let duration = duration.min(Duration::from_secs(1 << 40)).mul_f64(slowness);
        let end = state.now.saturating_add(duration);
        let at = state.moment(end);
        Box::pin(Sleep {
            shared: Arc::clone(&self.shared),
            at,
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let added = self
            .shared
            .lock()
            .add_task(&self.shared, self.node, Some(task));
        // Outside the lock: what a crashed node would have run.
        drop(added);
    }

    fn random(&self) -> u64 {
        self.shared.lock().random.next()
    }
}

struct Sleep {
    shared: Arc<Shared>,
    at: Moment,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let replaced = {
            let mut state = self.shared.lock();
            if state.now >= self.at.0 {
                return Poll::Ready(());
            }
            state.set_timer(self.at, cx.waker().clone())
        };
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let removed = self.shared.lock().remove_timer(self.at);
        drop(removed);
    }
}

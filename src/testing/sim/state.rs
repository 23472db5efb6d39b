//! What the simulation knows: the time, the nodes, the tasks, and which of them may run.

use super::random::Random;
use crate::env::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

pub(super) type NodeId = usize;
pub(super) type TaskId = u64;

/// A moment, and a number that tells apart what happens in the same moment.
pub(super) type Moment = (Duration, u64);

/// By how much a node that is twice as slow may put off each of its steps.
const SLOW_STEP: Duration = Duration::from_millis(1);

/// The node of the test itself. It cannot crash.
pub(super) const ROOT: NodeId = 0;

#[derive(Debug)]
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::new(seed))))
    }

    /// The state. Held for moments only: no future is polled, woken or dropped under it, because
    /// all of these come back for the lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct State {
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) nodes: Vec<Node>,
    /// Ordered maps throughout: what a hash map yields first differs from run to run.
    tasks: BTreeMap<TaskId, Task>,
    last_task: TaskId,
    ready: Vec<TaskId>,
    /// Tasks that were woken but have to wait: for their slow node, or for the end of a pause.
    deferred: BTreeMap<Moment, TaskId>,
    timers: BTreeMap<Moment, Waker>,
    last_moment: u64,
    /// A digest of which task was polled when.
    pub(super) fingerprint: u64,
}

pub(super) struct Node {
    pub(super) name: String,
    pub(super) is_alive: bool,
    pub(super) paused_until: Duration,
    pub(super) slowness: f64,
    /// What the node's monotonic clock showed at the beginning of the simulation.
    pub(super) clock_origin: Duration,
    pub(super) wall_clock_shift: i64,
}

struct Task {
    node: NodeId,
    is_queued: bool,
    waker: Waker,
    /// Absent while it is being polled, and for the future that `block_on` itself holds.
    future: Option<BoxFuture<'static, ()>>,
}

impl State {
    fn new(seed: u64) -> Self {
        let mut state = Self {
            now: Duration::ZERO,
            random: Random::new(seed),
            nodes: Vec::new(),
            tasks: BTreeMap::new(),
            last_task: 0,
            ready: Vec::new(),
            deferred: BTreeMap::new(),
            timers: BTreeMap::new(),
            last_moment: 0,
            fingerprint: 0,
        };
        state.add_node("sim", Duration::ZERO);
        state
    }

    pub(super) fn add_node(&mut self, name: &str, clock_origin: Duration) -> NodeId {
        self.nodes.push(Node {
            name: name.to_owned(),
            is_alive: true,
            paused_until: Duration::ZERO,
            slowness: 1.0,
            clock_origin,
            wall_clock_shift: 0,
        });
        self.nodes.len() - 1
    }

    /// Adds a task, ready to run; gives the future back if its node has crashed.
    pub(super) fn add_task(
        &mut self,
        shared: &Arc<Shared>,
        node: NodeId,
        future: Option<BoxFuture<'static, ()>>,
    ) -> Result<TaskId, Option<BoxFuture<'static, ()>>> {
        if !self.nodes.get(node).is_some_and(|node| node.is_alive) {
            return Err(future);
        }
        self.last_task += 1;
        let id = self.last_task;
        let waker = Waker::from(Arc::new(TaskWaker {
            id,
            shared: Arc::downgrade(shared),
        }));
        let task = Task {
            node,
            is_queued: false,
            waker,
            future,
        };
        self.tasks.insert(id, task);
        self.wake(id);
        Ok(id)
    }

    fn wake(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut task.is_queued, true) {
            return;
        }
        let slowness = self.nodes.get(task.node).map_or(1.0, |node| node.slowness);
        if slowness > 1.0 {
            let late = self.random.duration(SLOW_STEP.mul_f64(slowness - 1.0));
            let at = self.moment(self.now + late);
            self.deferred.insert(at, id);
        } else {
            self.ready.push(id);
        }
    }

    /// The next task to poll in this moment, any of those that are ready.
    pub(super) fn next_ready(&mut self) -> Option<TaskId> {
        while self.first_deferred().is_some_and(|at| at <= self.now) {
            self.ready
                .extend(self.deferred.pop_first().map(|(_, id)| id));
        }
        while !self.ready.is_empty() {
            let any = self.random.below(self.ready.len());
            let id = self.ready.swap_remove(any);
            let Some(task) = self.tasks.get_mut(&id) else {
                continue;
            };
            let paused_until = self.nodes.get(task.node).map(|node| node.paused_until);
            match paused_until {
                Some(until) if until > self.now => {
                    let at = self.moment(until);
                    self.deferred.insert(at, id);
                }
                _ => {
                    task.is_queued = false;
                    let now = u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX);
                    let step = self.fingerprint ^ id.rotate_left(48) ^ now;
                    self.fingerprint = Random::new(step).next();
                    return Some(id);
                }
            }
        }
        None
    }

    /// When something will happen, if nothing is ready now.
    pub(super) fn next_event(&self) -> Option<Duration> {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        timer.into_iter().chain(self.first_deferred()).min()
    }

    fn first_deferred(&self) -> Option<Duration> {
        self.deferred.first_key_value().map(|((at, _), _)| *at)
    }

    /// Moves the clock, and returns the wakers of the timers that fire.
    pub(super) fn advance(&mut self, to: Duration) -> Vec<Waker> {
        self.now = self.now.max(to);
        let later = self.timers.split_off(&(self.now, u64::MAX));
        std::mem::replace(&mut self.timers, later)
            .into_values()
            .collect()
    }

    pub(super) fn moment(&mut self, at: Duration) -> Moment {
        self.last_moment += 1;
        (at, self.last_moment)
    }

    /// Sets or replaces the waker of a timer; the caller drops the old one outside the lock.
    pub(super) fn set_timer(&mut self, at: Moment, waker: Waker) -> Option<Waker> {
        self.timers.insert(at, waker)
    }

    pub(super) fn remove_timer(&mut self, at: Moment) -> Option<Waker> {
        self.timers.remove(&at)
    }

    pub(super) fn waker(&self, id: TaskId) -> Option<Waker> {
        self.tasks.get(&id).map(|task| task.waker.clone())
    }

    pub(super) fn take_future(&mut self, id: TaskId) -> Option<BoxFuture<'static, ()>> {
        self.tasks.get_mut(&id)?.future.take()
    }

    /// Puts a pending future back; gives it back if its task ended meanwhile, in a crash.
    pub(super) fn put_future(
        &mut self,
        id: TaskId,
        future: BoxFuture<'static, ()>,
    ) -> Option<BoxFuture<'static, ()>> {
        match self.tasks.get_mut(&id) {
            Some(task) => task.future.replace(future),
            None => Some(future),
        }
    }

    pub(super) fn remove_task(&mut self, id: TaskId) {
        self.tasks.remove(&id);
    }

    /// Ends a node: the futures of all its tasks, to be dropped outside the lock.
    pub(super) fn crash(&mut self, node: NodeId) -> Vec<BoxFuture<'static, ()>> {
        if let Some(node) = self.nodes.get_mut(node) {
            node.is_alive = false;
        }
        let (ended, rest) = std::mem::take(&mut self.tasks)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, task)| task.node == node);
        self.tasks = rest;
        ended.into_values().filter_map(|task| task.future).collect()
    }

    /// The tasks that have not ended, for people.
    pub(super) fn task_names(&self) -> Vec<String> {
        self.tasks.keys().map(|id| self.task_name(*id)).collect()
    }

    pub(super) fn task_name(&self, id: TaskId) -> String {
        let node = self
            .tasks
            .get(&id)
            .and_then(|task| self.nodes.get(task.node));
        let node = node.map_or("?", |node| node.name.as_str());
        format!("task {id} of node `{node}`")
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("now", &self.now)
            .field("tasks", &self.task_names())
            .finish_non_exhaustive()
    }
}

struct TaskWaker {
    id: TaskId,
    /// Weak, because the tasks that hold wakers are themselves held by what this points to.
    shared: Weak<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().wake(self.id);
        }
    }
}

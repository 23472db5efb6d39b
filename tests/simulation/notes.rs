//! What is written down of a run while it happens: every operation's beginning and end, every effect,
//! every run under a lock. It stands outside of all simulated processes.

use abide::env::Env;
use abide::server::{CallError, CallErrorKind};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The number of the first operation. Large, so that its encoding has nine bytes, by which it is
/// recognized in a dead letter.
pub(crate) const FIRST_OP: u64 = 0xAB1D_E000_0000_0000;

/// Between two operations: a message that a handler sends has the number of its cause, plus one.
pub(crate) const OP_STEP: u64 = 2;

/// How an operation is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Cast,
    Call,
    Query,
}

/// What an operation is.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) op: u64,
    pub(crate) process: usize,
    pub(crate) instance: String,
    pub(crate) how: How,
    pub(crate) is_priority: bool,
    /// Whether its handler fails of itself.
    pub(crate) is_flawed: bool,
    /// Whether it runs under the lock.
    pub(crate) is_locked: bool,
    /// Whether its handler may refuse it.
    pub(crate) may_reject: bool,
    /// Whether its handler sends a message if it succeeds; and the receiver and the money in it.
    pub(crate) sends: Option<(String, i64)>,
    pub(crate) begin: u64,
    pub(crate) begin_at: Duration,
    pub(crate) end_at: Option<Duration>,
    pub(crate) end: Option<(u64, Result<Answer, CallErrorKind>)>,
}

/// A good end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Acknowledged,
    /// The operation's place in the log.
    Place(u64),
    /// The log's length, from a query or a refusal.
    Length(u64),
    /// A refusal that says nothing of the log.
    Refused,
}

#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) instance: String,
    /// The operation's place in the committed log; none if it was not there.
    pub(crate) place: Option<u64>,
    pub(crate) at: Duration,
}

/// How many messages operators took out of an instance.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Removed {
    /// They were deleted.
    pub(crate) deleted: u64,
    /// They were made dead letters.
    pub(crate) buried: u64,
}

/// A run under a lock.
#[derive(Debug, Clone)]
struct Run {
    instance: String,
    op: u64,
    process: usize,
    is_over: bool,
    /// Its process was held up, and may have lost the lock before the run began.
    may_be_fenced: bool,
}

/// What of a run is written down for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    None,
    Events,
    /// And each step of each process in the store.
    Steps,
}

pub(crate) struct Notes {
    clock: Arc<dyn Env>,
    lease: Duration,
    pub(crate) detail: Detail,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    moments: u64,
    operations: Vec<Operation>,
    effects: BTreeMap<u64, Vec<Effect>>,
    runs: Vec<Run>,
    /// Until when a process was held up by something that may cost it its locks.
    held_up: BTreeMap<usize, Duration>,
    /// When the lock of an instance was broken last.
    broken: BTreeMap<String, Duration>,
    /// The operations that were tried more than once, and how often.
    repeated: BTreeMap<u64, u32>,
    removed: BTreeMap<String, Removed>,
    is_steady: bool,
    violations: Vec<String>,
    log: Option<Vec<String>>,
}

/// A run under way; dropping it ends it.
pub(crate) struct Running {
    notes: Arc<Notes>,
    number: usize,
}

impl Notes {
    pub(crate) fn new(clock: Arc<dyn Env>, lease: Duration, detail: Detail) -> Arc<Self> {
        let inner = Inner {
            log: (detail != Detail::None).then(Vec::new),
            ..Inner::default()
        };
        Arc::new(Self {
            clock,
            lease,
            detail,
            inner: Mutex::new(inner),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// A line for people, if they want any.
    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        let mut inner = self.lock();
        if let Some(log) = &mut inner.log {
            log.push(format!(
                "{:>12.6} {}",
                self.clock.now().as_secs_f64(),
                line()
            ));
        }
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.lock().log.clone().unwrap_or_default()
    }

    pub(crate) fn violation(&self, what: String) {
        self.say(|| format!("VIOLATION {what}"));
        self.lock().violations.push(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// An operation begins; its number.
    pub(crate) fn begin(&self, describe: impl FnOnce(u64) -> Operation) -> u64 {
        let (op, line) = {
            let mut inner = self.lock();
            let op = FIRST_OP + inner.operations.len() as u64 * OP_STEP;
            inner.moments += 1;
            let operation = Operation {
                begin: inner.moments,
                begin_at: self.clock.now(),
                op,
                ..describe(op)
            };
            let line = inner.log.is_some().then(|| {
                let Operation { how, instance, .. } = &operation;
                let priority = if operation.is_priority { " first" } else { "" };
                format!("{} begins: {how:?}{priority} to {instance}", name(op))
            });
            inner.operations.push(operation);
            (op, line)
        };
        if let Some(line) = line {
            self.say(|| line);
        }
        op
    }

    /// An operation ends.
    pub(crate) fn end(&self, op: u64, result: Result<Answer, CallError>) {
        self.say(|| format!("{} ends: {result:?}", name(op)));
        if let Err(error) = &result
            && format!("{error:?}").contains("for dead")
        {
            self.taken_for_dead(op);
        }
        let mut inner = self.lock();
        inner.moments += 1;
        let end = (inner.moments, result.map_err(|error| error.kind()));
        let index = ((op - FIRST_OP) / OP_STEP) as usize;
        inner.operations[index].end = Some(end);
        inner.operations[index].end_at = Some(self.clock.now());
    }

    /// A process was taken for dead. That is a mistake unless it was held up by something that the
    /// others were not.
    fn taken_for_dead(&self, op: u64) {
        let process = {
            let inner = self.lock();
            let process = inner.operations[((op - FIRST_OP) / OP_STEP) as usize].process;
            (inner.is_steady && !inner.held_up.contains_key(&process)).then_some(process)
        };
        if let Some(process) = process {
            self.violation(format!("process {process} was taken for dead, and lived"));
        }
    }

    /// Nobody is held up alone but by what [`Self::hold_up`] tells.
    pub(crate) fn be_strict(&self) {
        self.lock().is_steady = true;
    }

    /// A handler was called for the attempt of an operation that has no fault of its own.
    pub(crate) fn attempt(&self, op: u64, attempt: u32) {
        if attempt > 1 {
            let mut inner = self.lock();
            let most = inner.repeated.entry(op).or_default();
            *most = (*most).max(attempt);
        }
    }

    pub(crate) fn repeated(&self) -> BTreeMap<u64, u32> {
        self.lock().repeated.clone()
    }

    /// The lock of an instance was broken: whoever runs under it runs in vain.
    pub(crate) fn fence(&self, instance: &str) {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.broken.insert(instance.to_owned(), now);
        for run in inner.runs.iter_mut().filter(|run| run.instance == instance) {
            run.is_over = true;
        }
    }

    /// An operator took messages out of an instance.
    pub(crate) fn remove(&self, instance: &str, removed: Removed) {
        let mut inner = self.lock();
        let known = inner.removed.entry(instance.to_owned()).or_default();
        known.deleted += removed.deleted;
        known.buried += removed.buried;
    }

    pub(crate) fn removed(&self, instance: &str) -> Removed {
        let inner = self.lock();
        inner.removed.get(instance).copied().unwrap_or_default()
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.lock().operations.clone()
    }

    /// An effect ran.
    pub(crate) fn effect(&self, instance: &str, op: u64, place: Option<u64>) {
        self.say(|| format!("{} has its effect on {instance}, at {place:?}", name(op)));
        let instance = instance.to_owned();
        let at = self.clock.now();
        let mut inner = self.lock();
        let effects = inner.effects.entry(op).or_default();
        effects.push(Effect {
            instance,
            place,
            at,
        });
    }

    pub(crate) fn effects(&self) -> BTreeMap<u64, Vec<Effect>> {
        self.lock().effects.clone()
    }

    /// A process is held up until a moment from now.
    pub(crate) fn hold_up(&self, process: usize, duration: Duration) {
        let until = self.clock.now() + duration;
        let mut inner = self.lock();
        let known = inner.held_up.entry(process).or_default();
        *known = (*known).max(until);
    }

    /// A run under a lock begins. Nobody else may be at it, unless one of them was held up and does not
    /// know yet that it was fenced, as this one may itself, between taking its lock and its run; or
    /// its lock was broken by an operator. Within a lease from then it has asked, because it renews its
    /// lock three times in a lease.
    pub(crate) fn enter(self: &Arc<Self>, instance: &str, op: u64, process: usize) -> Running {
        let now = self.clock.now();
        let (number, may_be_fenced) = {
            let mut inner = self.lock();
            let held_up = inner.held_up.get(&process).copied();
            let may_be_fenced = held_up.is_some_and(|until| until + self.lease >= now)
                || inner.is_lately_broken(instance, now, self.lease);
            inner.runs.push(Run {
                may_be_fenced,
                instance: instance.to_owned(),
                op,
                process,
                is_over: false,
            });
            (inner.runs.len() - 1, may_be_fenced)
        };
        self.say(|| format!("{} runs under the lock of {instance}: {number}", name(op)));
        let beside: Vec<String> = {
            let inner = self.lock();
            let others = inner.runs.iter().take(number).enumerate();
            others
                .filter(|(_, other)| !may_be_fenced && !other.is_over && other.instance == instance)
                .filter(|(_, other)| {
                    let held_up = inner.held_up.get(&other.process).copied();
                    held_up.is_none_or(|until| until + self.lease < now)
                })
                .map(|(other, run)| {
                    format!("run {other} of {} in process {}", name(run.op), run.process)
                })
                .collect()
        };
        if !beside.is_empty() && !is_mortal(instance) {
            self.violation(format!(
                "run {number} of {} under the lock of {instance} began in process {process} beside {}",
                name(op),
                beside.join(", ")
            ));
        }
        Running {
            notes: Arc::clone(self),
            number,
        }
    }

    /// The number of the last run of each operation that certainly had the lock when it began.
    pub(crate) fn last_runs(&self) -> BTreeMap<u64, u64> {
        let inner = self.lock();
        let runs = inner.runs.iter().enumerate();
        let runs = runs.filter(|(_, run)| !run.may_be_fenced);
        runs.map(|(number, run)| (run.op, number as u64)).collect()
    }
}

impl Inner {
    fn is_lately_broken(&self, instance: &str, now: Duration, lease: Duration) -> bool {
        let broken = self.broken.get(instance);
        broken.is_some_and(|broken| *broken + lease >= now)
    }
}

impl Running {
    pub(crate) fn number(&self) -> u64 {
        self.number as u64
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.notes.say(|| format!("run {} is over", self.number));
        self.notes.lock().runs[self.number].is_over = true;
    }
}

/// An operation's name, for people.
pub(crate) fn name(op: u64) -> String {
    let index = (op.wrapping_sub(FIRST_OP)) / OP_STEP;
    match op.wrapping_sub(FIRST_OP) % OP_STEP {
        0 => format!("op {index}"),
        _ => format!("the message of op {index}"),
    }
}

/// Whether operators kill and reset the instance; of what is lost by that nothing is asked.
pub(crate) fn is_mortal(instance: &str) -> bool {
    instance.starts_with("mortal")
}

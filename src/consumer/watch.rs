//! User code that takes too long, told of while it still runs.
//!
//! A handler that never ends never fails either: its instance stands still, and without this nobody
//! would be told why. So each run is written down, with the message that it is at, and somebody else
//! looks through what is written down.
//!
//! Invariants:
//!
//! - *Whoever watches does not wait for whoever runs.* The look-out is a task of another environment
//!   than the one that handlers run in. Where there is no other, nothing is watched.
//! - *Nothing runs for nothing.* The look-out lives while there is something to look at.

use super::options::HANDLER_TIME;
use crate::durable::Message;
use crate::env::Env;
use crate::id::InstanceId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often what runs is looked through.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What runs now of the kinds of a node.
pub(super) struct Watch {
    /// Whose clock the times are of.
    env: Arc<dyn Env>,
    /// Where the look-out runs.
    pulse: Arc<dyn Env>,
    runs: Mutex<Runs>,
}

#[derive(Default)]
struct Runs {
    /// How many there were.
    begun: u64,
    running: BTreeMap<u64, Arc<Run>>,
    is_watched: bool,
}

/// One run of user code: a batch of messages, or effects, or a hook.
struct Run {
    kind: &'static str,
    at: Mutex<At>,
}

/// What a run is at.
struct At {
    /// None in an effect or a hook.
    message: Option<(InstanceId, Arc<Message>)>,
    /// By the clock of the environment that it runs in.
    since: Duration,
    /// It has been told of.
    told: bool,
}

std::thread_local! {
    /// The run that this thread is in.
    static HERE: RefCell<Option<Arc<Run>>> = const { RefCell::new(None) };
}

/// Notes that the run that this thread is in begins with a message. All of its messages are of one
/// instance.
pub(super) fn begins(instance: &InstanceId, message: &Arc<Message>, now: Duration) {
    HERE.with_borrow(|here| {
        let Some(run) = here else {
            return;
        };
        let mut at = lock(&run.at);
        match &mut at.message {
            Some((_, before)) => before.clone_from(message),
            none => *none = Some((instance.clone(), Arc::clone(message))),
        }
        (at.since, at.told) = (now, false);
    });
}

impl Watch {
    /// Nothing, if there is no other environment to watch from.
    pub(super) fn new(env: &Arc<dyn Env>, pulse: &Arc<dyn Env>) -> Option<Arc<Self>> {
        (!Arc::ptr_eq(env, pulse)).then(|| {
            Arc::new(Self {
                env: Arc::clone(env),
                pulse: Arc::clone(pulse),
                runs: Mutex::default(),
            })
        })
    }

    /// Does `work`, and has an eye on it.
    pub(super) fn over(self: &Arc<Self>, kind: &'static str, work: &mut dyn FnMut()) {
        let run = Arc::new(Run {
            kind,
            at: Mutex::new(At {
                message: None,
                since: self.env.now(),
                told: false,
            }),
        });
        let number = self.begin(&run);
        let _running = Running {
            watch: self,
            number,
            before: HERE.replace(Some(run)),
        };
        work();
    }

    fn begin(self: &Arc<Self>, run: &Arc<Run>) -> u64 {
        let (number, is_watched) = {
            let mut runs = lock(&self.runs);
            runs.begun += 1;
            let number = runs.begun;
            runs.running.insert(number, Arc::clone(run));
            (number, std::mem::replace(&mut runs.is_watched, true))
        };
        if !is_watched {
            self.look_out();
        }
        number
    }

    /// Looks through what runs until nothing does.
    fn look_out(self: &Arc<Self>) {
        let (pulse, me) = (Arc::downgrade(&self.pulse), Arc::downgrade(self));
        let first = self.pulse.sleep(LOOK_EVERY);
        self.pulse.spawn(Box::pin(async move {
            let mut pause = first;
            loop {
                pause.await;
                let still = me.upgrade().is_some_and(|watch| watch.look());
                let Some(pulse) = pulse.upgrade().filter(|_| still) else {
                    return;
                };
                pause = pulse.sleep(LOOK_EVERY);
            }
        }));
    }

    /// Tells of what has taken too long. Whether there is anything left to look at.
    fn look(&self) -> bool {
        let running: Vec<_> = {
            let mut runs = lock(&self.runs);
            runs.is_watched = !runs.running.is_empty();
            runs.running.values().cloned().collect()
        };
        for run in &running {
            run.tell(self.env.now());
        }
        !running.is_empty()
    }
}

impl Run {
    /// Tells of what the run is at, once, if it has taken too long.
    fn tell(&self, now: Duration) {
        let mut at = lock(&self.at);
        let took = now.saturating_sub(at.since);
        if at.told || took <= HANDLER_TIME {
            return;
        }
        at.told = true;
        let seconds = took.as_secs();
        match &at.message {
            Some((instance, message)) => tracing::warn!(
                kind = self.kind,
                id = instance.id(),
                name = message.name.as_ref(),
                seconds,
                "a handler takes too long and still runs"
            ),
            None => tracing::warn!(
                kind = self.kind,
                seconds,
                "an effect or a hook takes too long and still runs"
            ),
        }
    }
}

/// A run that has not ended. However it ends, it is not looked at any more.
struct Running<'a> {
    watch: &'a Watch,
    number: u64,
    before: Option<Arc<Run>>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        HERE.set(self.before.take());
        let ended = lock(&self.watch.runs).running.remove(&self.number);
        drop(ended);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// Changed in single steps, so a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

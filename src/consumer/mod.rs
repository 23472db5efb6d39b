//! The consumer: works on the instances of the kinds that this process serves.
//!
//! Read it in the order of a message's path: [`scan`] finds an instance that has something to do,
//! [`slots`] gives it one worker, [`worker`] runs turn after turn; a [`turn`] reads ([`view`]),
//! decides ([`plan`]), applies ([`apply`]) and stages; [`runner`] runs messages under a lock.

mod ahead;
mod apply;
mod claims;
mod kinds;
mod lazy;
mod metrics;
mod options;
mod plan;
mod runner;
mod scan;
mod slots;
mod turn;
mod view;
mod watch;
mod worker;

pub(crate) use kinds::Kind;
pub use options::{KindOptions, Poison};
pub use plan::Parked;

use crate::durable::presence::Renewals;
use crate::durable::{Presence, Session};
use crate::env::Env;
use crate::id::InstanceId;
use crate::reports::Reports;
use crate::server::{Activation, Courier, Deactivation, DeadLetterNotice, Flow};
use crate::server::{Effect, Held};
use crate::store::{CommitStamp, Version};
use crate::wake::{Callers, Inline, Local};
use claims::Claims;
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::Shared;
use slots::{Look, Visible};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use turn::{Cache, Died};

/// What a consumer is made of.
pub(crate) struct Parts {
    pub(crate) presence: Arc<Presence>,
    /// Where turns and handlers run.
    pub(crate) env: Arc<dyn Env>,
    /// Where locks are renewed: a thread that handlers cannot starve.
    pub(crate) pulse: Arc<dyn Env>,
    pub(crate) callers: Arc<dyn Callers>,
    pub(crate) courier: Arc<dyn Courier>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) reports: Reports,
}

/// Serves kinds.
pub(crate) struct Consumer {
    presence: Arc<Presence>,
    env: Arc<dyn Env>,
    pulse: Arc<dyn Env>,
    callers: Arc<dyn Callers>,
    courier: Arc<dyn Courier>,
    kinds: BTreeMap<&'static str, Arc<Kind>>,
    reports: Reports,
    suspect_until: Mutex<Suspects>,
    claims: Arc<Claims>,
    /// Workers that have not come to their very end, what they do after their last turn included.
    workers: AtomicUsize,
    /// Messages that run under a lock.
    locked: AtomicUsize,
    stopping: AtomicBool,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    stopped: Shared<oneshot::Receiver<()>>,
    /// Told, and made anew, when the store may have become another one.
    reopened: Mutex<Reopened>,
    /// Scanners that wait for room.
    crowd: Mutex<Vec<oneshot::Sender<()>>>,
    me: Weak<Consumer>,
}

/// Messages up to this stamp of this incarnation are suspect, and all older ones.
#[derive(Debug, Clone, Copy)]
struct Suspects {
    until: CommitStamp,
    incarnation: u32,
}

/// Who tells the scanners to begin anew, and what they wait for.
type Reopened = (oneshot::Sender<()>, Shared<oneshot::Receiver<()>>);

fn reopened() -> Reopened {
    let (tell, told) = oneshot::channel();
    (tell, told.shared())
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("kinds", &self.kinds.keys())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Consumer {
    /// A consumer that has not begun to look for work.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let (stop, stopped) = oneshot::channel();
        let session = parts.presence.session();
        let suspects = Suspects {
            until: session.opened(),
            incarnation: session.incarnation(),
        };
        let watch = watch::Watch::new(&parts.env, &parts.pulse);
        let kinds = parts.kinds.into_iter().map(|mut kind| {
            kind.watch.clone_from(&watch);
            kind
        });
        Arc::new_cyclic(|me| Self {
            presence: parts.presence,
            env: parts.env,
            pulse: parts.pulse,
            callers: parts.callers,
            courier: parts.courier,
            kinds: kinds
                .map(|kind| (kind.behaviour.kind(), Arc::new(kind)))
                .collect(),
            reports: parts.reports,
            suspect_until: Mutex::new(suspects),
            claims: Arc::default(),
            workers: AtomicUsize::new(0),
            locked: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            stop: Mutex::new(Some(stop)),
            stopped: stopped.shared(),
            reopened: Mutex::new(reopened()),
            crowd: Mutex::new(Vec::new()),
            me: me.clone(),
        })
    }

    /// Begins to look for work.
    pub(crate) fn start(self: &Arc<Self>) {
        if self.kinds.is_empty() {
            return;
        }
        for shard in 0..self.presence.namespace().keys().shards() {
            let scan = Arc::clone(self).scan(shard);
            let reports = self.reports.clone();
            self.env.spawn(Box::pin(async move {
                let what = || format!("the scan of shard {shard}");
                reports.guard(what, scan).await;
            }));
        }
    }

    /// A process died: what was in the mailboxes at `seen` may be what killed it.
    pub(crate) fn saw_death(&self, seen: CommitStamp) {
        let mut suspects = lock(&self.suspect_until);
        suspects.until = suspects.until.max(seen);
    }

    fn suspect_until(&self) -> CommitStamp {
        lock(&self.suspect_until).until
    }

    /// Ends: no new work is begun, what is under way is waited for, up to `budget`. Returns whether
    /// everything came to its end.
    pub(crate) async fn stop(&self, budget: Duration) -> bool {
        let until = self.env.now().saturating_add(budget);
        self.stopping.store(true, Ordering::SeqCst);
        self.clear_out();
        lock(&self.stop).take();
        let finished = loop {
            let workers = self.workers.load(Ordering::SeqCst);
            if workers == 0 && self.locked.load(Ordering::SeqCst) == 0 {
                break true;
            }
            if self.env.now() >= until {
                break false;
            }
            self.env.sleep(Duration::from_millis(5)).await;
        };
        // What the workers brought back.
        self.clear_out();
        finished
    }

    /// Turns away the messages that wait in memory, and lets the states go.
    fn clear_out(&self) {
        for kind in self.kinds.values() {
            let (inline, cached) = kind.slots().stop();
            for inline in inline {
                // Never begun, so it can be said for certain.
                self.callers.turned_away(inline);
            }
            self.deactivated(kind, cached, Deactivation::Shutdown);
        }
    }

    /// Ends without waiting for anything.
    pub(crate) fn abandon(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        lock(&self.stop).take();
        for kind in self.kinds.values() {
            kind.slots().stop();
        }
    }

    /// The instances that this process cannot work on, and why.
    pub(crate) fn parked(&self) -> Vec<(InstanceId, Parked)> {
        let kinds = self.kinds.values();
        kinds.flat_map(|kind| kind.slots().parked()).collect()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Completes when the consumer stops.
    fn stopped_signal(&self) -> Shared<oneshot::Receiver<()>> {
        self.stopped.clone()
    }

    /// Completes when the store may have become another one.
    fn reopened_signal(&self) -> Shared<oneshot::Receiver<()>> {
        lock(&self.reopened).1.clone()
    }

    /// Looks at an instance.
    fn look_at(&self, instance: &InstanceId, look: &Look, visible: Visible) {
        let Some(kind) = self.kinds.get(instance.kind()) else {
            return;
        };
        let start = kind.slots().look(instance, look, visible);
        if let (Some(memory), Some(me)) = (start, self.me.upgrade()) {
            me.work(kind, instance.clone(), memory, Some(visible));
        }
    }

    fn look_now(&self, instance: &InstanceId) {
        self.look_at(instance, &Look::Now, Visible::Now);
    }

    /// Looks at an instance after a while.
    fn look_later(&self, kind: &Arc<Kind>, instance: &InstanceId, wait: Duration, at: Duration) {
        let me = Weak::clone(&self.me);
        let (kind, instance) = (Arc::clone(kind), instance.clone());
        let sleep = self.env.sleep(wait);
        self.env.spawn(Box::pin(async move {
            sleep.await;
            if kind.slots().timer_fired(&instance, at)
                && let Some(consumer) = me.upgrade()
            {
                consumer.look_now(&instance);
            }
        }));
    }

    /// Waits until there is room for more work.
    async fn wait_for_room(&self) {
        while !self.is_stopping() {
            let room = {
                let mut crowd = lock(&self.crowd);
                // Under the lock, so that room made after this look finds this waiter.
                if !self.kinds.values().any(|kind| kind.slots().is_full()) {
                    return;
                }
                let (tell, told) = oneshot::channel();
                crowd.push(tell);
                told
            };
            let _ = futures_util::future::select(room, self.stopped_signal()).await;
        }
    }

    fn has_room(&self) {
        let waiting = std::mem::take(&mut *lock(&self.crowd));
        for waiter in waiting {
            let _ = waiter.send(());
        }
    }

    fn run_effects(&self, kind: &Kind, state: &Held, effects: Vec<Effect>) {
        let mut effects = effects.into_iter();
        kind.run(self.env.as_ref(), &mut || {
            // Effects do not unwind; one that panics halts the rest.
            for effect in effects.by_ref() {
                if effect(state, &self.courier) == Flow::Halt {
                    return;
                }
            }
        });
    }
}

impl Local for Consumer {
    fn serves(&self, kind: &str) -> bool {
        self.kinds.contains_key(kind)
    }

    fn pushed(&self, instance: &InstanceId, version: Version) {
        self.look_at(instance, &Look::Now, Visible::From(version));
    }

    fn offer(&self, inline: Inline) -> Result<(), Inline> {
        let (Some(kind), Some(me)) = (self.kinds.get(inline.instance.kind()), self.me.upgrade())
        else {
            return Err(inline);
        };
        let instance = inline.instance.clone();
        let start = kind.slots().offer(inline)?;
        if let Some(memory) = start {
            me.work(kind, instance, memory, None);
        }
        Ok(())
    }
}

/// States in memory are forgotten by the next turn of each worker.
impl Renewals for Consumer {
    fn renewed(&self, _session: &Arc<Session>, _generation: u64) {}

    fn reopened(&self, session: &Arc<Session>) {
        {
            // In another store stamps may begin anew, and this node begins with it.
            let mut suspects = lock(&self.suspect_until);
            if suspects.incarnation != session.incarnation() {
                *suspects = Suspects {
                    until: session.opened(),
                    incarnation: session.incarnation(),
                };
            }
        }
        // The scanners begin anew, and find what is to be done without having been pushed.
        let (tell, _) = std::mem::replace(&mut *lock(&self.reopened), reopened());
        drop(tell);
        for kind in self.kinds.values() {
            let unparked = kind.slots().unpark();
            for instance in unparked {
                self.look_now(&instance);
            }
        }
    }
}

/// The hooks of a server.
impl Consumer {
    fn activated(&self, kind: &Kind, instance: &InstanceId, state: &Held, cause: Activation) {
        kind.run(self.env.as_ref(), &mut || {
            kind.behaviour.activated(instance, state, cause);
        });
    }

    fn deactivated(&self, kind: &Kind, states: Vec<(InstanceId, Cache)>, cause: Deactivation) {
        for (instance, cache) in states {
            kind.let_go(self.env.as_ref(), &instance, &cache, cause);
        }
    }

    fn dead_letter(&self, kind: &Kind, instance: &InstanceId, died: &Died) {
        let notice = DeadLetterNotice {
            instance: instance.clone(),
            name: Arc::clone(&died.message.name),
            payload: died.message.payload.clone(),
            stamp: Some(died.stamp),
            error: died.error.clone(),
            attempts: died.attempts,
            trace: died.message.trace,
        };
        tracing::warn!(
            %instance,
            stamp = %died.stamp,
            name = notice.name.as_ref(),
            attempts = notice.attempts,
            error = notice.error,
            "a message became a dead letter"
        );
        kind.run(self.env.as_ref(), &mut || {
            kind.behaviour.dead_letter(&notice);
        });
    }
}

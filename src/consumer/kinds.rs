//! A served kind: its behaviour, its options, and what this process knows of its instances.

use super::options::KindOptions;
use super::slots::Slots;
use super::turn::Cache;
use super::watch::Watch;
use crate::env::Env;
use crate::id::InstanceId;
use crate::server::{Behaviour, Deactivation};
use crate::trace::Tracer;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A served kind.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) behaviour: Arc<dyn Behaviour>,
    pub(crate) options: KindOptions,
    pub(crate) tracer: Tracer,
    /// Has an eye on what runs, where that can be done.
    pub(super) watch: Option<Arc<Watch>>,
    slots: Mutex<Slots>,
    /// How many more runs of user code are taken for slow ones.
    wary: AtomicU32,
}

/// User code that is done within this time keeps nobody waiting.
const MOMENT: Duration = Duration::from_micros(500);

/// How many fast runs it takes until a kind is trusted to be fast, in the beginning and after a slow
/// one: enough to have seen each of its messages, few enough to be over soon.
const PROBATION: u32 = 64;

impl Kind {
    pub(crate) fn new(behaviour: Arc<dyn Behaviour>, options: KindOptions) -> Self {
        let slots = Slots::new(options.concurrency, options.cached);
        Self {
            behaviour,
            options,
            tracer: Tracer::default(),
            watch: None,
            slots: Mutex::new(slots),
            wary: AtomicU32::new(PROBATION),
        }
    }

    /// Runs user code of this kind where it keeps no other task waiting, which costs a hand-over of
    /// the thread; unless the kind has shown that it is done in a moment. That it is so this time too
    /// nobody can know, so the environment lets no more such runs happen at once than it can do
    /// without the threads of.
    pub(super) fn run(&self, env: &dyn Env, work: &mut dyn FnMut()) {
        let began = env.now();
        let wary = self.wary.load(Ordering::Relaxed);
        let mut watched = || match &self.watch {
            Some(watch) => watch.over(self.behaviour.kind(), work),
            None => work(),
        };
        if wary > 0 {
            env.run_blocking(&mut watched);
        } else {
            env.run_briefly(&mut watched);
        }
        // Lost updates do no harm: the next run counts again.
        if env.now().saturating_sub(began) > MOMENT {
            self.wary.store(PROBATION, Ordering::Relaxed);
        } else if wary > 0 {
            self.wary.store(wary - 1, Ordering::Relaxed);
        }
    }

    /// Tells the server that an instance is not active any more, if it was told that it is. A state
    /// that a handler has spoilt, or a transaction that was refused, is gone from memory: for this it is
    /// built once more.
    pub(super) fn let_go(
        &self,
        env: &dyn Env,
        instance: &InstanceId,
        cache: &Cache,
        cause: Deactivation,
    ) {
        if cache.activation.is_some() {
            return;
        }
        let behaviour = &self.behaviour;
        self.run(env, &mut || match &cache.state {
            Some(state) => behaviour.deactivated(instance, state, cause),
            None => match behaviour.restore(&cache.leaves) {
                Ok(state) => behaviour.deactivated(instance, &state, cause),
                Err(error) => tracing::warn!(%instance, %error, "a state in memory cannot be read"),
            },
        });
    }

    /// The table is changed in single steps that cannot panic, so a poisoned lock is whole.
    pub(super) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

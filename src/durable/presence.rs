//! The current session of a process; a new one when it was swept.
//!
//! Invariants:
//!
//! - *One at a time.* Whoever finds the session gone asks for a new one, and all who ask about the
//!   same old session get the same new one.
//! - *Told in order.* [`Renewals`] hears of each renewal, in order, before anyone is handed the new
//!   session by the renewal that opened it.
//! - *Nothing is taken over.* After a time in which the store was locked, which is what happens
//!   while it is restored or another one takes its place, and with each new session, everybody is told
//!   that what he knows of the store is of the past.
//! - *Closed for good.* After [`Presence::close`] no session is opened any more, so nothing stays
//!   in the store that nobody would close.

use super::namespace::Namespace;
use super::session::{Session, SessionError};
use crate::env::{Env, fraction};
use crate::store::{StoreError, StoreErrorKind};
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::{Shared, select};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How often a session shows that it lives: a dozen beats fit into the time after which it is taken
/// for dead.
const BEAT_EVERY: Duration = Duration::from_secs(5);

/// The longest first wait after a failed beat or renewal. It doubles up to [`BEAT_EVERY`].
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// A process's presence in a namespace: its session now, and the next one should that be swept.
///
/// Keep it alive with [`beat_forever`](Self::beat_forever).
pub struct Presence {
    namespace: Namespace,
    kinds: Vec<String>,
    current: Mutex<Current>,
    /// Held while a session is opened or closed, so that only one is.
    changing: futures_util::lock::Mutex<()>,
    closed: Shared<oneshot::Receiver<()>>,
}

struct Current {
    session: Arc<Session>,
    generation: u64,
    /// How often the store may have become another one.
    epoch: u64,
    observers: Vec<Weak<dyn Renewals>>,
    /// Dropped by the close, which everyone who waits for it hears.
    open: Option<oneshot::Sender<()>>,
}

/// What wants to know when a process's session was replaced.
pub trait Renewals: Send + Sync {
    /// `session` is the new one, of this generation. Pending calls of earlier ones have lost their
    /// inbox. Must not wait, and must not call the presence.
    fn renewed(&self, session: &Arc<Session>, generation: u64);

    /// The store may be another one than before: a restored one, or the one that took its place.
    /// What is in memory is of the past. Told after a renewal, too. Must not wait.
    fn reopened(&self, session: &Arc<Session>) {
        let _ = session;
    }
}

impl Presence {
    /// Opens the first session. `kinds` are what the process serves, for others to see.
    ///
    /// # Errors
    ///
    /// Those of [`Session::open`].
    pub async fn open(namespace: &Namespace, kinds: Vec<String>) -> Result<Arc<Self>, StoreError> {
        let session = Session::open(namespace, kinds.clone()).await?;
        let (open, closed) = oneshot::channel();
        Ok(Arc::new(Self {
            namespace: namespace.clone(),
            kinds,
            current: Mutex::new(Current {
                session,
                generation: 0,
                epoch: 0,
                observers: Vec::new(),
                open: Some(open),
            }),
            changing: futures_util::lock::Mutex::new(()),
            closed: closed.shared(),
        }))
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The session of this moment.
    #[must_use]
    pub fn session(&self) -> Arc<Session> {
        Arc::clone(&self.lock().session)
    }

    /// How often the session was renewed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// How often what was known of the store became a thing of the past.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// The session of this moment, and how many came before it.
    #[must_use]
    pub fn current(&self) -> (Arc<Session>, u64) {
        let current = self.lock();
        (Arc::clone(&current.session), current.generation)
    }

    /// Lets `observer` hear of every later renewal, for as long as it lives.
    pub fn observe(&self, observer: Weak<dyn Renewals>) {
        self.lock().observers.push(observer);
    }

    /// Replaces the session `gone` by a new one, unless somebody already did. Returns the one to
    /// use.
    ///
    /// # Errors
    ///
    /// [`InvalidCall`](StoreErrorKind::InvalidCall) after [`close`](Self::close); else those of
    /// [`Session::open`].
    ///
    /// # Cancel safety
    ///
    /// A session that was being opened when the future was dropped is swept.
    pub async fn renew(&self, gone: &Arc<Session>) -> Result<Arc<Session>, StoreError> {
        let _changing = self.changing.lock().await;
        {
            let current = self.lock();
            if current.session.id() != gone.id() {
                return Ok(Arc::clone(&current.session));
            }
            if current.open.is_none() {
                return Err(StoreError::new(StoreErrorKind::InvalidCall)
                    .with_context("the presence of this process was closed"));
            }
        }
        let session = Session::open(&self.namespace, self.kinds.clone()).await?;
        tracing::warn!(
            gone = %gone.id(),
            session = %session.id(),
            "the session is gone: it was swept while this process was away, or the store was \
             restored; it has a new one"
        );
        metrics::counter!("abide_session_renewals_total").increment(1);
        let (generation, observers) = {
            let mut current = self.lock();
            current.session = Arc::clone(&session);
            current.generation += 1;
            current.epoch += 1;
            current
                .observers
                .retain(|observer| observer.strong_count() > 0);
            (current.generation, current.observers.clone())
        };
        // Outside the lock; in order, because the renewal is still being held.
        for observer in observers.iter().filter_map(Weak::upgrade) {
            observer.renewed(&session, generation);
            observer.reopened(&session);
        }
        Ok(session)
    }

    /// The store was locked and is not any more. The session still stands as this process left it, so
    /// it is kept, and with it the claims that would else be taken for those of a dead process.
    fn reopen(&self) {
        let (session, observers) = {
            let mut current = self.lock();
            current.epoch += 1;
            (Arc::clone(&current.session), current.observers.clone())
        };
        tracing::warn!(session = %session.id(), "the store was locked for a while");
        for observer in observers.iter().filter_map(Weak::upgrade) {
            observer.reopened(&session);
        }
    }

    /// Closes the session, and opens no other: nothing of it stays in the store.
    ///
    /// # Errors
    ///
    /// Whatever the store answers; then the session will be swept.
    pub async fn close(&self) -> Result<(), StoreError> {
        // Before the wait: whoever beats or renews in vain stops at once.
        drop(self.lock().open.take());
        let _changing = self.changing.lock().await;
        let session = self.session();
        session.close().await
    }

    /// Ends the beats, and leaves the session to be swept.
    pub fn abandon(&self) {
        drop(self.lock().open.take());
    }

    /// Completes once [`close`](Self::close) or [`abandon`](Self::abandon) was called.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.closed.clone().map(drop)
    }

    /// Shows every few seconds, by the clock of `env`, that the process lives, and renews its session when it was swept;
    /// until the presence is closed. What fails is tried again: an outage ends nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the beats, and the session is swept in a minute.
    pub async fn beat_forever(self: Arc<Self>, env: Arc<dyn Env>) {
        unless_stopped(self.beats(env), self.closed()).await;
    }

    async fn beats(&self, env: Arc<dyn Env>) {
        let mut failures = 0_u32;
        loop {
            let wait = match failures.checked_sub(1) {
                // So often on average, and out of step with other processes.
                None => BEAT_EVERY / 2 + jitter(env.as_ref(), BEAT_EVERY),
                Some(doublings) => backoff(env.as_ref(), FIRST_BACKOFF, BEAT_EVERY, doublings),
            };
            env.sleep(wait).await;
            let session = self.session();
            let beaten = match session.beat().await {
                Err(SessionError::SessionGone) => self.renew(&session).await.map(drop),
                Err(SessionError::Store(error)) => Err(error),
                Ok(()) => {
                    if self.namespace.database().was_locked() {
                        self.reopen();
                    }
                    Ok(())
                }
            };
            match beaten {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(session = %session.id(), %error, "the heartbeat failed");
                }
            }
        }
    }

    /// Changed in single steps, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.lock();
        f.debug_struct("Presence")
            .field("session", &current.session.id())
            .field("generation", &current.generation)
            .field("is_open", &current.open.is_some())
            .finish_non_exhaustive()
    }
}

/// A random part of `most`, so that processes do not fall into step.
pub(crate) fn jitter(env: &dyn Env, most: Duration) -> Duration {
    most.mul_f64(fraction(env.random()))
}

/// The wait after a failure that had `doublings` failures before it: random, at least half of
/// `first`, and never above `most`.
pub(crate) fn backoff(env: &dyn Env, first: Duration, most: Duration, doublings: u32) -> Duration {
    let longest = first
        .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
        .min(most);
    (first / 2 + jitter(env, longest)).min(most)
}

/// Runs `work` until it ends or `stop` does.
pub(crate) async fn unless_stopped(
    work: impl Future<Output = ()> + Send,
    stop: impl Future + Send,
) {
    select(pin!(work), pin!(stop)).await;
}

#[cfg(test)]
mod tests;

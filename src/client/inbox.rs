//! The replies that reach this process through the store.
//!
//! Invariants:
//!
//! - *One watch for all calls.* It is armed in the read-only transaction that found no reply, so no
//!   reply falls between the look and the watch; a slow jittered poll backs it.
//! - *Armed for the life of the session.* Once a reply may come, the inbox stays: replies to calls
//!   that nobody awaits any more are cleared too.
//! - *Outlives outages.* A look that fails is tried again, for ever. So is one that panics, which is
//!   reported: every pushed call of the process waits for this task.
//! - Clearing is idempotent and lazy: until it is done, what was handed out is remembered.

use super::calls::{Calls, End};
use crate::durable::message::CallId;
use crate::durable::presence::{backoff, jitter, unless_stopped};
use crate::durable::reply::{self, Answer};
use crate::durable::{Presence, Session};
use crate::env::{BoxFuture, Env};
use crate::planted::{Bug, planted};
use crate::reports::Reports;
use crate::store::{RetryPolicy, StoreError, StoreFuture, Transaction};
use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{Either, pending, select};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long at most a lost watch delays a reply, half of it at least.
const POLL_EVERY: Duration = Duration::from_secs(10);

/// How long answered calls gather before one transaction clears them.
const CLEAR_AFTER: Duration = Duration::from_millis(100);

/// How many replies one transaction clears.
const MAX_CLEARED: usize = 1_000;

/// About how many rows one look reads, a dozen megabytes at the very most.
const MAX_ROWS: usize = 128;

/// The longest first wait after a look that failed, and the longest of all.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The inbox of the current session, once it is armed.
#[derive(Debug)]
pub(super) struct Inbox {
    presence: Arc<Presence>,
    calls: Arc<Calls>,
    reports: Reports,
    armed: Mutex<Armed>,
}

#[derive(Debug, Default)]
struct Armed {
    /// The generation of the session that is being looked after.
    generation: Option<u64>,
    /// Dropping it ends the inbox's task.
    stop: Option<oneshot::Sender<()>>,
    is_closed: bool,
}

impl Inbox {
    pub(super) fn new(presence: Arc<Presence>, calls: Arc<Calls>, reports: Reports) -> Self {
        Self {
            presence,
            calls,
            reports,
            armed: Mutex::default(),
        }
    }

    /// Looks after the current session's replies from now on, unless it does already.
    pub(super) fn arm(&self) {
        let (session, generation) = self.presence.current();
        let mut armed = self.lock();
        if armed.is_closed || armed.generation.is_some_and(|known| known >= generation) {
            return;
        }
        let (stop, stopped) = oneshot::channel();
        *armed = Armed {
            generation: Some(generation),
            stop: Some(stop),
            is_closed: false,
        };
        drop(armed);
        let env = Arc::clone(self.presence.namespace().database().env());
        let reader = Reader {
            session,
            env: Arc::clone(&env),
            calls: Arc::clone(&self.calls),
            answered: Arc::default(),
            clearing: None,
        };
        let reports = self.reports.clone();
        env.spawn(Box::pin(async move {
            unless_stopped(reader.guarded(reports), stopped).await;
        }));
    }

    /// Ends the inbox for good.
    pub(super) fn close(&self) {
        let stop = {
            let mut armed = self.lock();
            armed.is_closed = true;
            armed.stop.take()
        };
        drop(stop);
    }

    /// Changed in single steps, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Armed> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task of one session's inbox.
struct Reader {
    session: Arc<Session>,
    env: Arc<dyn Env>,
    calls: Arc<Calls>,
    /// Handed out, and perhaps not cleared yet.
    answered: Arc<Mutex<BTreeSet<u64>>>,
    /// Under way, if there is anything to clear.
    clearing: Option<BoxFuture<'static, Vec<u64>>>,
}

/// What a look found.
enum Look {
    /// Some that are new, or that hide what stands behind them.
    Replies(reply::Inbox),
    /// None that is new; the watch tells of the next.
    Nothing(StoreFuture<()>),
}

impl Reader {
    /// Looks for ever, also after a panic: what is kept from one look to the next is changed in single
    /// steps, but for a clearing under way, which is begun anew.
    async fn guarded(mut self, reports: Reports) {
        let mut panics = 0;
        loop {
            let what = || "the reader of the replies".to_owned();
            reports.guard(what, self.look_forever()).await;
            self.clearing = None;
            let wait = backoff(self.env.as_ref(), FIRST_BACKOFF, MAX_BACKOFF, panics);
            self.env.sleep(wait).await;
            panics = panics.saturating_add(1);
        }
    }

    async fn look_forever(&mut self) {
        let mut failures = 0;
        loop {
            match self.look().await {
                Ok(Look::Replies(page)) => {
                    failures = 0;
                    self.hand_out(page.answers);
                    self.clear_foreign(&page.foreign).await;
                    if page.more {
                        // What was handed out stands before what is to be read.
                        self.clear_all().await;
                    }
                }
                Ok(Look::Nothing(watch)) => {
                    failures = 0;
                    self.wait(watch).await;
                }
                Err(error) => {
                    tracing::warn!(session = %self.session.id(), %error, "the replies cannot be read");
                    self.env
                        .sleep(backoff(
                            self.env.as_ref(),
                            FIRST_BACKOFF,
                            MAX_BACKOFF,
                            failures,
                        ))
                        .await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    /// Reads the replies at a fresh version; if there is none that is new, arms the watch in the
    /// same transaction.
    async fn look(&mut self) -> Result<Look, StoreError> {
        let keys = self.session.keys();
        let db = self.session.namespace().database();
        let looked = db
            .run(|attempt| {
                let (keys, answered) = (keys.clone(), Arc::clone(&self.answered));
                async move {
                    let tx = attempt.tx();
                    let mut page = reply::read_inbox(tx, &keys, MAX_ROWS).await?;
                    {
                        let answered = lock(&answered);
                        page.answers.retain(|(call, _)| !answered.contains(call));
                    }
                    if page.answers.is_empty() && page.foreign.is_empty() && !page.more {
                        return Ok(Look::Nothing(tx.watch(&keys.reply_wake())));
                    }
                    Ok::<_, StoreError>(Look::Replies(page))
                }
            })
            .await?;
        if planted(Bug::InboxWatchesLater) && matches!(looked.value, Look::Nothing(_)) {
            let later = db.store().begin()?;
            let watch = later.watch(&keys.reply_wake());
            later.commit().await?;
            return Ok(Look::Nothing(watch));
        }
        Ok(looked.value)
    }

    fn hand_out(&mut self, replies: Vec<(u64, Result<Answer, StoreError>)>) {
        for (call, answer) in replies {
            let id = CallId {
                session: self.session.id(),
                call,
            };
            let end = match answer {
                Ok(answer) => End::Answered(answer),
                Err(error) => {
                    tracing::error!(call, %error, "a stored reply cannot be read");
                    End::Damaged(error)
                }
            };
            if !self.calls.end(id, end) {
                tracing::debug!(call, "a reply came that nobody awaits any more");
            }
            lock(&self.answered).insert(call);
        }
    }

    /// Removes keys that are no replies, which would otherwise be found again with each look.
    async fn clear_foreign(&mut self, foreign: &[Bytes]) {
        if foreign.is_empty() {
            return;
        }
        tracing::error!(
            session = %self.session.id(),
            keys = ?foreign,
            "keys that are no replies stood among them and are removed"
        );
        let db = self.session.namespace().database();
        let cleared = db.run_with(RetryPolicy::retry_unknown(), |attempt| {
            for key in foreign {
                reply::clear_foreign(attempt.tx(), key);
            }
            async { Ok::<_, StoreError>(()) }
        });
        if let Err(error) = cleared.await {
            tracing::warn!(%error, "foreign keys cannot be removed yet");
            self.env.sleep(MAX_BACKOFF).await;
        }
    }

    /// Waits for the watch or for the poll that backs it, and clears meanwhile.
    async fn wait(&mut self, watch: StoreFuture<()>) {
        let poll = self
            .env
            .sleep(POLL_EVERY / 2 + jitter(self.env.as_ref(), POLL_EVERY / 2));
        // A watch that fails is a watch that fired: the next look finds out.
        let mut woken = select(watch, poll);
        loop {
            self.begin_clearing();
            let clearing = match self.clearing.take() {
                Some(clearing) => clearing,
                None => Box::pin(pending()),
            };
            match select(woken, clearing).await {
                Either::Left((_, clearing)) => {
                    // A placeholder that never ends must not stand for a clearing under way.
                    self.clearing = (!lock(&self.answered).is_empty()).then_some(clearing);
                    return;
                }
                Either::Right((cleared, rest)) => {
                    self.forget(&cleared);
                    woken = rest;
                }
            }
        }
    }

    /// Clears everything that was handed out.
    async fn clear_all(&mut self) {
        loop {
            self.begin_clearing();
            let Some(clearing) = self.clearing.take() else {
                return;
            };
            let cleared = clearing.await;
            self.forget(&cleared);
        }
    }

    fn forget(&self, cleared: &[u64]) {
        let mut answered = lock(&self.answered);
        for call in cleared {
            answered.remove(call);
        }
    }

    /// Begins to clear what was handed out, unless that is under way.
    fn begin_clearing(&mut self) {
        if self.clearing.is_some() || lock(&self.answered).is_empty() {
            return;
        }
        let session = Arc::clone(&self.session);
        let (env, answered) = (Arc::clone(&self.env), Arc::clone(&self.answered));
        self.clearing = Some(Box::pin(async move {
            env.sleep(CLEAR_AFTER).await;
            let calls: Vec<u64> = lock(&answered).iter().take(MAX_CLEARED).copied().collect();
            match clear(&session, &calls).await {
                Ok(()) => calls,
                Err(error) => {
                    tracing::warn!(%error, "replies cannot be cleared yet");
                    env.sleep(MAX_BACKOFF).await;
                    Vec::new()
                }
            }
        }));
    }
}

/// Removes replies. Idempotent: a call is answered once.
async fn clear(session: &Session, calls: &[u64]) -> Result<(), StoreError> {
    let db = session.namespace().database();
    let cleared = db.run_with(RetryPolicy::retry_unknown(), |attempt| {
        let tx: &Arc<dyn Transaction> = attempt.tx();
        for call in calls {
            reply::clear(tx, session.keys(), *call);
        }
        async { Ok::<_, StoreError>(()) }
    });
    cleared.await?;
    let count = u64::try_from(calls.len()).unwrap_or(u64::MAX);
    metrics::counter!("abide_replies_cleared_total").increment(count);
    Ok(())
}

/// Changed in single steps, so a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

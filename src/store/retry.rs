//! The one retry loop: it alone knows what is retryable, *maybe committed* and fatal, and how to
//! back off.

use super::{Committed, Store, StoreError, StoreErrorKind, Tx};
use crate::env::{Env, fraction};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A store and the environment to wait in: what every user of a store holds.
///
/// Clones share the store.
#[derive(Debug, Clone)]
pub struct Database {
    store: Arc<dyn Store>,
    env: Arc<dyn Env>,
    /// A transaction was refused because the store is locked.
    locked: Arc<AtomicBool>,
}

/// Whether a transaction may run again after a commit whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    /// Return [`MaybeCommitted`](StoreErrorKind::MaybeCommitted): the caller finds out what happened.
    Fail,
    /// Run it again. Only for a transaction that is idempotent, or that finds out by itself: it
    /// reads, serializably, a durable marker that each of its attempts writes, and looks at
    /// [`Attempt::after_unknown`].
    Retry,
}

/// How long and how patiently to retry.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// What an unknown outcome means.
    pub on_unknown: OnUnknown,
    /// Begin no further attempt once this much time has passed since the first.
    pub give_up_after: Duration,
    /// The longest first wait: after an outage, or a conflict that was not the first few. It doubles
    /// with each further failure.
    pub first_backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
}

impl Default for RetryPolicy {
    /// Fails on an unknown outcome. Gives up after 30 s: longer than a recovery of the store takes,
    /// short enough that a caller is told. Waits as FoundationDB's clients do, 10 ms doubling to 1 s.
    fn default() -> Self {
        Self {
            on_unknown: OnUnknown::Fail,
            give_up_after: Duration::from_secs(30),
            first_backoff: Duration::from_millis(10),
            max_backoff: Duration::from_secs(1),
        }
    }
}

impl RetryPolicy {
    /// The default, for a transaction that may be run again when a commit's outcome is unknown; see
    /// [`OnUnknown::Retry`].
    #[must_use]
    pub fn retry_unknown() -> Self {
        Self {
            on_unknown: OnUnknown::Retry,
            ..Self::default()
        }
    }
}

/// One run of a transaction by [`Database::run`].
#[derive(Debug)]
pub struct Attempt {
    tx: Tx,
    number: u32,
    after_unknown: bool,
}

impl Attempt {
    /// The transaction of this attempt.
    #[must_use]
    pub fn tx(&self) -> &Tx {
        &self.tx
    }

    /// How many attempts came before this one.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether the outcome of *any* earlier attempt is unknown.
    ///
    /// Once true it stays true: that the newest failure was a plain conflict says nothing about an
    /// attempt before it that may have been committed.
    #[must_use]
    pub fn after_unknown(&self) -> bool {
        self.after_unknown
    }
}

/// What [`Database::run`] returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed<T> {
    /// What the transaction's function returned, in the attempt that was committed.
    pub value: T,
    /// The commit, unless the transaction wrote nothing.
    pub commit: Option<Committed>,
}

/// An error that may stand for a store's: how the retry loop looks through a caller's error type.
///
/// An error that hides a [`StoreError`] from this trait is not retried.
pub trait StoreCause {
    /// The store's error that this one stands for.
    fn store_cause(&self) -> Option<&StoreError>;
}

impl StoreCause for StoreError {
    fn store_cause(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl Database {
    /// A store, used in an environment.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, env: Arc<dyn Env>) -> Self {
        Self {
            store,
            env,
            locked: Arc::default(),
        }
    }

    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The environment.
    #[must_use]
    pub fn env(&self) -> &Arc<dyn Env> {
        &self.env
    }

    /// Whether the store was locked since the last time that this was asked, as far as the transactions
    /// know that were run through this one or a clone: then it may have been restored meanwhile, or
    /// another one may have taken its place.
    #[must_use]
    pub fn was_locked(&self) -> bool {
        self.locked.swap(false, Ordering::SeqCst)
    }

    /// Runs a transaction until it is committed or fails for good, with the default policy.
    ///
    /// # Errors
    ///
    /// See [`run_with`](Self::run_with).
    ///
    /// # Examples
    ///
    /// ```
    /// # use abide::{env::TokioEnv, store::{Database, MemoryStore, StoreError, TransactionExt}};
    /// # use std::sync::Arc;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), StoreError> {
    /// let db = Database::new(Arc::new(MemoryStore::new()), Arc::new(TokioEnv::current()));
    /// let visits = db
    ///     .run(|attempt| async move {
    ///         let tx = attempt.tx();
    ///         let visits: u8 = tx.read(b"visits").await?.map_or(0, |bytes| bytes[0]) + 1;
    ///         tx.set(b"visits", &[visits]);
    ///         Ok::<_, StoreError>(visits)
    ///     })
    ///     .await?;
    /// assert_eq!(visits.value, 1);
    /// assert!(visits.commit.is_some());
    /// # Ok(()) }
    /// ```
    pub fn run<T, E, F, Fut>(
        &self,
        body: F,
    ) -> impl Future<Output = Result<Completed<T>, E>> + Send + use<T, E, F, Fut>
    where
        F: FnMut(Attempt) -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: From<StoreError> + StoreCause + Send,
    {
        self.run_with(RetryPolicy::default(), body)
    }

    /// Runs `body` in a transaction and commits it; again, in a fresh transaction, as long as that
    /// is safe and may help.
    ///
    /// `body` may run many times; what it does besides reading and writing through the transaction
    /// must bear that.
    ///
    /// # Errors
    ///
    /// - The body's own error, when it is not a store's: this attempt committed nothing. An earlier
    ///   one may have, if [`Attempt::after_unknown`] said so to the body.
    /// - [`MaybeCommitted`](StoreErrorKind::MaybeCommitted), when the outcome of an attempt is
    ///   unknown and the policy does not retry, or its time ran out after such an attempt.
    /// - A retryable kind, when the policy's time ran out: nothing was committed.
    /// - Any other kind of the store: nothing was committed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the outcome unknown if a commit was under way, or an earlier
    /// attempt's outcome was unknown; otherwise nothing was committed.
    pub fn run_with<T, E, F, Fut>(
        &self,
        policy: RetryPolicy,
        body: F,
    ) -> impl Future<Output = Result<Completed<T>, E>> + Send + use<T, E, F, Fut>
    where
        F: FnMut(Attempt) -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: From<StoreError> + StoreCause + Send,
    {
        self.run_from(None, policy, body)
    }

    /// As [`run_with`](Self::run_with); the first attempt uses `first`, a transaction that was begun
    /// before there was work for it.
    pub(crate) fn run_from<T, E, F, Fut>(
        &self,
        mut first: Option<Tx>,
        policy: RetryPolicy,
        mut body: F,
    ) -> impl Future<Output = Result<Completed<T>, E>> + Send + use<T, E, F, Fut>
    where
        F: FnMut(Attempt) -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: From<StoreError> + StoreCause + Send,
    {
        let Self { store, env, locked } = self.clone();
        async move {
            let mut retries = Retries::new(policy, env.now());
            let mut conflicts = 0_u32;
            loop {
                let begun = first.take().map_or_else(|| store.begin(), Ok);
                let error = match attempt(begun, &retries, &mut body).await {
                    Ok(completed) => return Ok(completed),
                    Err(error) => error,
                };
                let cause = error.store_cause();
                match cause.map(StoreError::kind) {
                    Some(StoreErrorKind::Locked) => locked.store(true, Ordering::SeqCst),
                    Some(StoreErrorKind::Conflict) => {
                        conflicts = conflicts.saturating_add(1);
                        // A field of those spans that have it.
                        tracing::Span::current().record("conflicts", conflicts);
                        metrics::counter!("abide_conflicts_total").increment(1);
                    }
                    _ => {}
                }
                let decision = match cause {
                    Some(cause) => retries.after(cause, env.now(), env.random()),
                    None => Decision::GiveUp,
                };
                match decision {
                    Decision::Again(wait) if wait.is_zero() => {}
                    Decision::Again(wait) => env.sleep(wait).await,
                    Decision::GiveUp => return Err(error),
                    Decision::GiveUpUnknown => {
                        return Err(unknown_outcome(error.store_cause()).into());
                    }
                }
            }
        }
    }
}

/// One attempt: begin, run the body, commit.
async fn attempt<T, E, F, Fut>(
    begun: Result<Tx, StoreError>,
    retries: &Retries,
    body: &mut F,
) -> Result<Completed<T>, E>
where
    F: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<StoreError>,
{
    let tx = begun?;
    let attempt = Attempt {
        tx: Arc::clone(&tx),
        number: retries.failures,
        after_unknown: retries.unknown,
    };
    let value = body(attempt).await?;
    let commit = tx.commit().await?;
    Ok(Completed { value, commit })
}

/// The last error was an ordinary one, but an attempt before it may have been committed: saying
/// "conflict" or "unavailable" would promise that nothing happened.
fn unknown_outcome(last: Option<&StoreError>) -> StoreError {
    let unknown = StoreError::new(StoreErrorKind::MaybeCommitted)
        .with_context("an earlier attempt may have been committed, and no later one found out");
    match last {
        Some(last) => unknown.with_source(last.clone()),
        None => unknown,
    }
}

/// What to do after a failed attempt.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Again(Duration),
    GiveUp,
    GiveUpUnknown,
}

/// The state of one retry loop, apart from its I/O so that tests see every decision.
#[derive(Debug)]
struct Retries {
    policy: RetryPolicy,
    started: Duration,
    failures: u32,
    conflicts: u32,
    outages: u32,
    unknown: bool,
}

/// Conflicts that are retried at once: the first retry nearly always succeeds, and waiting would
/// only lengthen the window for the next conflict. A transaction that still conflicts waits a
/// random moment, so that equals do not stay in step.
const CONFLICTS_AT_ONCE: u32 = 3;

impl Retries {
    fn new(policy: RetryPolicy, now: Duration) -> Self {
        Self {
            policy,
            started: now,
            failures: 0,
            conflicts: 0,
            outages: 0,
            unknown: false,
        }
    }

    fn after(&mut self, error: &StoreError, now: Duration, random: u64) -> Decision {
        self.failures = self.failures.saturating_add(1);
        let maybe_committed = error.is_maybe_committed();
        self.unknown |= maybe_committed;
        let may_retry = match maybe_committed {
            true => self.policy.on_unknown == OnUnknown::Retry,
            false => error.is_retryable(),
        };
        let wait = self.backoff(error.kind(), random);
        let next = now.saturating_sub(self.started).saturating_add(wait);
        if !may_retry || next >= self.policy.give_up_after {
            // An error of the store that ends the loop must not hide an attempt that may have
            // been committed.
            return if self.unknown && !maybe_committed {
                Decision::GiveUpUnknown
            } else {
                Decision::GiveUp
            };
        }
        Decision::Again(wait)
    }

    fn backoff(&mut self, kind: StoreErrorKind, random: u64) -> Duration {
        let doublings = if matches!(kind, StoreErrorKind::Conflict | StoreErrorKind::TooOld) {
            self.conflicts = self.conflicts.saturating_add(1);
            match self.conflicts.checked_sub(CONFLICTS_AT_ONCE + 1) {
                None => return Duration::ZERO,
                Some(doublings) => doublings,
            }
        } else {
            self.outages = self.outages.saturating_add(1);
            self.outages - 1
        };
        let longest = self
            .policy
            .first_backoff
            .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(self.policy.max_backoff);
        // Uniform below the bound: a shorter wait loses nothing, a common one keeps rivals in step.
        longest.mul_f64(fraction(random))
    }
}

#[cfg(test)]
mod tests;

//! A store in memory: FoundationDB's semantics without a disk, for tests and simulations.
//!
//! | file | what it holds |
//! |---|---|
//! | `transaction` | one transaction: its reads, its buffered writes, what it hands in at commit |
//! | `history` | the data at every readable version, and what a commit does |
//! | `tree` | the data at one version |
//! | `write_log` | which version last wrote a key, for conflicts |
//! | `watches` | who waits for which key |
//!
//! All versions younger than [`MAX_TRANSACTION_AGE`](super::MAX_TRANSACTION_AGE) can be read; older
//! ones are forgotten with the next read or commit.

mod history;
mod transaction;
mod tree;
mod watches;
mod write_log;

use super::types::{Committed, Version};
use super::{Store, StoreError, StoreErrorKind, Tx};
use crate::env::{Env, monotonic};
use futures_channel::oneshot;
use history::{Completion, History, Submission, version_at};
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use transaction::MemoryTransaction;

/// A store that lives in memory and dies with its last handle. Clones share the content.
///
/// Reads and commits take effect when they are called; their futures only hand out the result,
/// after giving other tasks one turn. With [batches](Self::with_batches) a commit takes effect with
/// its batch.
///
/// # Examples
///
/// ```
/// use abide::store::{MemoryStore, Store, StoreError, TransactionExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), StoreError> {
/// let store = MemoryStore::new();
/// let tx = store.begin()?;
/// tx.set(b"greeting", b"hello");
/// let commit = tx.commit().await?;
/// assert!(commit.is_some());
///
/// let greeting = store.begin()?.read(b"greeting").await?;
/// assert_eq!(greeting.as_deref(), Some(b"hello".as_slice()));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

impl MemoryStore {
    /// An empty store on the process's own clock.
    #[must_use]
    pub fn new() -> Self {
        Self::on_clock(Clock::Process, Batching::Off)
    }

    /// An empty store on the clock of `env`: what a simulation uses.
    #[must_use]
    pub fn with_env(env: Arc<dyn Env>) -> Self {
        Self::on_clock(Clock::Env(env), Batching::Off)
    }

    /// An empty store that commits in batches, as a FoundationDB cluster does: the commits of a
    /// batch share one version and are told apart by the order in their stamps.
    ///
    /// A batch gathers from its first commit on, for a random time of `env` up to `longest`; then
    /// its members are validated one after another and acknowledged together. So nobody learns of
    /// the version before all of it is there, and a transaction that begins at its own commit's
    /// version sees what others wrote beside it.
    #[must_use]
    pub fn with_batches(env: Arc<dyn Env>, longest: Duration) -> Self {
        let batching = Batching::UpTo {
            longest,
            env: Arc::clone(&env),
        };
        Self::on_clock(Clock::Env(env), batching)
    }

    /// How many watches are armed and not yet completed.
    #[must_use]
    pub fn armed_watches(&self) -> usize {
        self.shared.lock().watches.len()
    }

    fn on_clock(clock: Clock, batching: Batching) -> Self {
        let shared = Shared {
            created: clock.now(),
            clock,
            batching,
            gathering: Mutex::default(),
            history: Mutex::new(History::new()),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn begin(&self) -> Result<Tx, StoreError> {
        Ok(Arc::new(MemoryTransaction::new(Arc::clone(&self.shared))))
    }

    /// They cost nothing here. Said all the same, so that what is built for a cluster is tested.
    fn read_versions_cost(&self) -> bool {
        true
    }
}

#[derive(Debug)]
enum Clock {
    Process,
    Env(Arc<dyn Env>),
}

impl Clock {
    fn now(&self) -> Duration {
        match self {
            Self::Process => monotonic(),
            Self::Env(env) => env.now(),
        }
    }
}

#[derive(Debug)]
enum Batching {
    /// Every commit is a batch of its own.
    Off,
    UpTo {
        longest: Duration,
        env: Arc<dyn Env>,
    },
}

/// How many commits may share a version: well within the two bytes that a stamp has to tell them
/// apart.
const MAX_BATCH: usize = 10_000;

type CommitResult = Result<Committed, StoreError>;

/// What the handles of one store share.
///
/// Locks: a transaction's own lock may be held while `gathering` or `history` is taken, never the
/// other way round, and `gathering` and `history` are never held together. Nothing that a
/// caller provided runs under any of them, but the waker of a watch whose future is being dropped.
#[derive(Debug)]
struct Shared {
    clock: Clock,
    created: Duration,
    batching: Batching,
    /// The commits that wait for their batch, and where their results go.
    gathering: Mutex<Vec<(Submission, oneshot::Sender<CommitResult>)>>,
    history: Mutex<History>,
}

impl Shared {
    /// The content. A panic under the lock is a bug that the panicking thread reports; the others
    /// are better off with the content than with a second panic.
    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Version {
        version_at(self.clock.now().saturating_sub(self.created))
    }

    /// Hands in a commit. With batches, dropping the future does not take it back.
    fn commit(
        self: &Arc<Self>,
        submission: Submission,
    ) -> impl Future<Output = CommitResult> + use<> {
        let result = match &self.batching {
            Batching::Off => Ok(self.commit_batch(vec![submission]).pop()),
            Batching::UpTo { longest, env } => Err(self.gather(submission, *longest, env)),
        };
        async move {
            let result = match result {
                Ok(result) => {
                    give_way().await;
                    result
                }
                Err(gathered) => gathered.await.ok(),
            };
            result.unwrap_or_else(|| {
                Err(StoreError::new(StoreErrorKind::MaybeCommitted)
                    .with_context("the store's environment ended before the batch was committed"))
            })
        }
    }

    fn gather(
        self: &Arc<Self>,
        submission: Submission,
        longest: Duration,
        env: &Arc<dyn Env>,
    ) -> oneshot::Receiver<CommitResult> {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut gathering = self
                .gathering
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            gathering.push((submission, answer));
            gathering.len() == 1
        };
        if is_first {
            let mut batch = Batch {
                store: Arc::clone(self),
                is_committed: false,
            };
            let wait = env.sleep(longest.mul_f64(crate::env::fraction(env.random())));
            env.spawn(Box::pin(async move {
                wait.await;
                batch.is_committed = true;
                batch.store.commit_gathered();
            }));
        }
        answered
    }

    fn commit_gathered(&self) {
        let mut gathered = std::mem::take(
            &mut *self
                .gathering
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        while !gathered.is_empty() {
            let batch = gathered.drain(..gathered.len().min(MAX_BATCH));
            let (submissions, answers): (Vec<_>, Vec<_>) = batch.unzip();
            for (answer, result) in answers.into_iter().zip(self.commit_batch(submissions)) {
                // Nobody waits any more: the commit happened all the same.
                let _ = answer.send(result);
            }
        }
    }

    fn commit_batch(&self, batch: Vec<Submission>) -> Vec<CommitResult> {
        let now = self.now();
        let mut completions = Vec::new();
        let results = self.lock().commit(batch, now, &mut completions);
        complete(completions);
        results
    }
}

/// The task that commits a batch.
struct Batch {
    store: Arc<Shared>,
    is_committed: bool,
}

impl Drop for Batch {
    /// The environment ended before the batch was committed. Its members are told, and the next
    /// commit begins another one.
    fn drop(&mut self) {
        if !self.is_committed {
            let mut gathering = self
                .store
                .gathering
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let abandoned = std::mem::take(&mut *gathering);
            drop(gathering);
            drop(abandoned);
        }
    }
}

fn complete(completions: Vec<Completion>) {
    for (watch, result) in completions {
        watch.complete(result);
    }
}

/// Lets other tasks run before the result of an operation that did not have to wait for anything:
/// otherwise a task that only uses this store would never let go of its thread, and concurrent
/// transactions of one thread would run one after another.
async fn give_way() {
    let mut gave_way = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut gave_way, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;

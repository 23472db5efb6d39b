use super::*;
use crate::store::{Isolation, MemoryStore, TransactionExt};
use crate::testing::faults::{Faults, FaultyStore};
use std::sync::Mutex;

const MIDDLE: u64 = u64::MAX / 2;

fn retries(policy: RetryPolicy) -> Retries {
    Retries::new(policy, Duration::ZERO)
}

fn error(kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind)
}

#[test]
fn the_first_conflicts_are_retried_at_once_and_later_ones_wait() {
    let mut retries = retries(RetryPolicy::default());
    for _ in 0..CONFLICTS_AT_ONCE {
        let decision = retries.after(&error(StoreErrorKind::Conflict), Duration::ZERO, MIDDLE);
        assert_eq!(decision, Decision::Again(Duration::ZERO));
    }
    let waits: Vec<Duration> = (0..12)
        .map(
            |_| match retries.after(&error(StoreErrorKind::Conflict), Duration::ZERO, MIDDLE) {
                Decision::Again(wait) => wait,
                other => panic!("a conflict must be retried, not {other:?}"),
            },
        )
        .collect();
    assert!(
        waits[0] > Duration::ZERO && waits[0] < Duration::from_millis(10),
        "{waits:?}"
    );
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert!(waits[11] <= Duration::from_secs(1), "{waits:?}");
}

#[test]
fn an_outage_waits_from_the_first_failure_on() {
    let mut retries = retries(RetryPolicy::default());
    let decision = retries.after(&error(StoreErrorKind::Unavailable), Duration::ZERO, MIDDLE);
    assert!(
        matches!(decision, Decision::Again(wait) if !wait.is_zero()),
        "{decision:?}"
    );
}

#[test]
fn an_unknown_outcome_is_never_retried_by_default() {
    let mut retries = retries(RetryPolicy::default());
    let decision = retries.after(&error(StoreErrorKind::MaybeCommitted), Duration::ZERO, 0);
    assert_eq!(decision, Decision::GiveUp);
}

#[test]
fn a_failure_after_an_unknown_outcome_is_reported_as_unknown() {
    let mut retries = retries(RetryPolicy::retry_unknown());
    let first = retries.after(&error(StoreErrorKind::MaybeCommitted), Duration::ZERO, 0);
    assert!(matches!(first, Decision::Again(_)));
    let last = retries.after(
        &error(StoreErrorKind::TransactionTooLarge),
        Duration::ZERO,
        0,
    );
    assert_eq!(last, Decision::GiveUpUnknown);
}

#[test]
fn a_fatal_error_ends_the_loop() {
    for kind in [
        StoreErrorKind::KeyTooLarge,
        StoreErrorKind::ValueTooLarge,
        StoreErrorKind::TransactionTooLarge,
        StoreErrorKind::Unreadable,
        StoreErrorKind::InvalidCall,
        StoreErrorKind::InvalidStore,
        StoreErrorKind::Corrupt,
        StoreErrorKind::Failed,
    ] {
        let decision = retries(RetryPolicy::retry_unknown()).after(&error(kind), Duration::ZERO, 0);
        assert_eq!(decision, Decision::GiveUp, "{kind:?}");
    }
}

#[test]
fn retrying_ends_when_the_time_is_up() {
    let mut retries = retries(RetryPolicy::default());
    let late = Duration::from_secs(30);
    assert_eq!(
        retries.after(&error(StoreErrorKind::Conflict), late, 0),
        Decision::GiveUp
    );
}

/// A store whose commits fail as the script says, one entry an attempt, and then succeed.
struct Scripted {
    db: Database,
    faulty: FaultyStore,
    inner: MemoryStore,
    script: Vec<Faults>,
}

impl Scripted {
    fn new(script: Vec<Faults>) -> Self {
        let env: Arc<dyn Env> = Arc::new(crate::env::TokioEnv::current());
        let inner = MemoryStore::new();
        let faulty = FaultyStore::new(Arc::new(inner.clone()), Arc::clone(&env), 0);
        let db = Database::new(Arc::new(faulty.clone()), env);
        Self {
            db,
            faulty,
            inner,
            script,
        }
    }

    /// Adds one to the counter, under the fault that this attempt is to meet.
    async fn increment(&self, attempt: &Attempt) -> Result<u32, StoreError> {
        let fault = self
            .script
            .get(attempt.number() as usize)
            .cloned()
            .unwrap_or_default();
        self.faulty.set_faults(fault);
        attempt.tx().add_i64(b"count", 1);
        Ok(attempt.number())
    }

    async fn count(&self) -> i64 {
        let tx = self.inner.begin().unwrap();
        tx.read_i64(b"count", Isolation::Snapshot).await.unwrap()
    }
}

fn conflict() -> Faults {
    Faults {
        conflict: 1.0,
        ..Faults::none()
    }
}

fn unknown(applied: bool) -> Faults {
    let (unknown_applied, unknown_not_applied) = if applied { (1.0, 0.0) } else { (0.0, 1.0) };
    Faults {
        unknown_applied,
        unknown_not_applied,
        ..Faults::none()
    }
}

#[tokio::test]
async fn an_attempt_knows_of_every_unknown_outcome_before_it() {
    // Unknown first, then a plain conflict: the newest failure alone would say "not committed".
    let scripted = Scripted::new(vec![unknown(false), conflict()]);
    let seen = Mutex::new(Vec::new());
    scripted
        .db
        .run_with(RetryPolicy::retry_unknown(), |attempt| {
            seen.lock()
                .unwrap()
                .push((attempt.number(), attempt.after_unknown()));
            let scripted = &scripted;
            async move { scripted.increment(&attempt).await }
        })
        .await
        .unwrap();
    assert_eq!(*seen.lock().unwrap(), [(0, false), (1, true), (2, true)]);
}

#[tokio::test]
async fn an_unknown_outcome_is_returned_and_the_body_not_run_again() {
    for applied in [true, false] {
        let scripted = Scripted::new(vec![unknown(applied)]);
        let run = |attempt: Attempt| {
            let scripted = &scripted;
            async move { scripted.increment(&attempt).await }
        };
        let outcome = scripted.db.run(run).await;
        assert!(outcome.unwrap_err().is_maybe_committed());
        assert_eq!(scripted.count().await, i64::from(applied));
    }
}

#[tokio::test]
async fn conflicts_are_retried_until_the_commit_succeeds_once() {
    let scripted = Scripted::new(vec![conflict(); 5]);
    let run = |attempt: Attempt| {
        let scripted = &scripted;
        async move { scripted.increment(&attempt).await }
    };
    let completed = scripted.db.run(run).await.unwrap();
    assert_eq!(completed.value, 5);
    assert!(completed.commit.is_some());
    assert_eq!(scripted.count().await, 1);
}

#[derive(Debug, thiserror::Error)]
#[error("the caller's own error")]
struct Own;

impl From<StoreError> for Own {
    fn from(_: StoreError) -> Self {
        Self
    }
}

impl StoreCause for Own {
    fn store_cause(&self) -> Option<&StoreError> {
        None
    }
}

#[tokio::test]
async fn an_error_of_the_body_that_is_not_the_stores_ends_the_loop_and_commits_nothing() {
    let scripted = Scripted::new(Vec::new());
    let runs = Mutex::new(0);
    let outcome: Result<Completed<()>, Own> = scripted
        .db
        .run(|attempt| {
            *runs.lock().unwrap() += 1;
            async move {
                attempt.tx().add_i64(b"count", 1);
                Err(Own)
            }
        })
        .await;
    outcome.unwrap_err();
    assert_eq!(*runs.lock().unwrap(), 1);
    assert_eq!(scripted.count().await, 0);
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "spawning is what this is about")]
async fn the_futures_of_the_loop_can_be_spawned() {
    let scripted = Scripted::new(Vec::new());
    let task = tokio::spawn(scripted.db.run(|attempt| async move {
        attempt.tx().set(b"key", b"value");
        Ok::<_, StoreError>(())
    }));
    assert!(task.await.unwrap().is_ok());
}

#[test]
fn no_attempt_begins_after_the_time_that_was_given() {
    let policy = RetryPolicy {
        give_up_after: Duration::from_secs(1),
        first_backoff: Duration::from_secs(30),
        max_backoff: Duration::from_secs(30),
        ..RetryPolicy::default()
    };
    let unavailable = error(StoreErrorKind::Unavailable);
    let decision = retries(policy).after(&unavailable, Duration::ZERO, MIDDLE);
    assert_eq!(decision, Decision::GiveUp);
}

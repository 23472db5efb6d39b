//! Transactions whose outcome is never ambiguous.
//!
//! A commit can end without an answer: it may have been applied, and may even be applied later.
//! Every transaction whose outcome a process must know therefore belongs to a *lane* of the
//! process's session, and writes its attempt's number to the lane's marker. Invariants:
//!
//! - *One at most.* Every attempt has a read conflict on the marker at a read version that it
//!   obtained before its commit was issued, and every attempt writes the marker. So of all attempts
//!   of one piece of work, two cannot both land: the second would have read the marker at a version
//!   before the first changed it.
//! - *Found out.* After one unknown result, every later attempt reads the marker at a fresh version.
//!   One of the work's own numbers there means that attempt landed. Anything else means that none
//!   has, and this attempt's commit, if it succeeds, keeps it so.
//! - *Never a guess.* Markers are trusted only while the session's heartbeat stands, which is read
//!   in the same transaction.

use super::keys::SessionKeys;
use super::session::{Session, SessionError};
use super::value;
use crate::planted::{Bug, planted};
use crate::store::{
    Attempt, CommitStamp, Committed, RetryPolicy, StoreError, StoreErrorKind, TransactionExt, Tx,
    Version,
};
use futures_util::TryFutureExt;
use futures_util::future::try_join;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The right to run one piece of work at a time, exactly once each.
///
/// Dropping a lane gives it back to its session, unless the outcome of its last work is unknown:
/// then it is not used again, because a late attempt of that work would abort the next for nothing.
///
/// # Examples
///
/// ```
/// # use abide::{durable::{Namespace, Session}, env::TokioEnv};
/// # use abide::store::{Database, MemoryStore, TransactionExt};
/// # use std::sync::Arc;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let db = Database::new(Arc::new(MemoryStore::new()), Arc::new(TokioEnv::current()));
/// let namespace = Namespace::open(&db, "app").await?;
/// let session = Session::open(&namespace, Vec::new()).await?;
/// let mut lane = session.lane();
/// let landed = lane
///     .run(|tx| async move {
///         // A blind addition: nothing but the lane keeps a retry from adding twice.
///         tx.add_i64(b"total", 10);
///         Ok(())
///     })
///     .await?;
/// println!("added at {}", landed.commit.stamp);
/// session.close().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Lane {
    session: Arc<Session>,
    slot: Slot,
    in_doubt: bool,
}

/// A lane's number, how many attempts it has carried, and the version of its last commit, with the
/// time at which that was known.
#[derive(Debug)]
struct Slot {
    number: u32,
    attempts: u64,
    last: Option<(Version, Duration)>,
}

/// How long a commit's version is good to read at: less than the five seconds that a store looks back.
const VERSION_GOOD_FOR: Duration = Duration::from_secs(4);

/// The lanes of a session.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    free: Vec<Slot>,
    opened: u32,
}

/// A piece of work that landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed<T> {
    /// What the body returned in the attempt that landed.
    pub value: T,
    /// The commit of that attempt.
    pub commit: Committed,
}

/// What a run of a body comes to: see [`Lane::run_work`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work<T> {
    /// It wrote something that is to be committed.
    Write(T),
    /// It only looked. Nothing is committed, unless an earlier attempt may yet land: then the marker
    /// is, so that it cannot.
    Look(T),
}

/// What an attempt found or did.
enum Step<T> {
    /// It wrote the marker under this number; its commit decides.
    Committing(u64),
    /// An earlier attempt of the same work had landed.
    Landed(Marker),
    /// It wrote nothing, and no attempt before it can land.
    Looked(T),
}

/// The value of an outcome marker: the number of the attempt that wrote it, and its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marker {
    attempt: u64,
    commit: Committed,
}

impl Lane {
    pub(super) fn take(session: &Arc<Session>) -> Self {
        let slot = {
            let mut lanes = lock(session.lanes());
            lanes.free.pop().unwrap_or_else(|| {
                let number = lanes.opened;
                lanes.opened += 1;
                Slot {
                    number,
                    attempts: 0,
                    last: None,
                }
            })
        };
        Self {
            session: Arc::clone(session),
            slot,
            in_doubt: false,
        }
    }

    /// Whether this is a lane of that session.
    #[must_use]
    pub fn is_of(&self, session: &Arc<Session>) -> bool {
        Arc::ptr_eq(&self.session, session)
    }

    /// Runs a piece of work until exactly one attempt of it has landed, or none can; gives up after
    /// the time of the [default policy](RetryPolicy::default).
    ///
    /// # Errors
    ///
    /// As [`run_for`](Self::run_for).
    pub async fn run<T, F, Fut>(&mut self, body: F) -> Result<Landed<T>, SessionError>
    where
        F: FnMut(Tx) -> Fut + Send,
        Fut: Future<Output = Result<T, SessionError>> + Send,
        T: Send,
    {
        self.run_for(RetryPolicy::default().give_up_after, body)
            .await
    }

    /// As [`run`](Self::run), but begins no attempt once `time` has passed.
    ///
    /// `body` may run many times. It must write through the transaction that it is given and
    /// through nothing else; what it decides belongs into its value, and its errors are the
    /// store's. It writes in the future that it returns, not before: an attempt that finds the work
    /// done drops that future unpolled.
    ///
    /// # Errors
    ///
    /// - [`SessionGone`](SessionError::SessionGone): an attempt's outcome was unknown, and the
    ///   session was swept before it was found out.
    /// - [`MaybeCommitted`](StoreErrorKind::MaybeCommitted): the time ran out, or an error ended
    ///   the work, while an attempt's outcome was unknown.
    /// - Any other error of the store: nothing has landed, nor will.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the outcome unknown.
    pub async fn run_for<T, F, Fut>(
        &mut self,
        time: Duration,
        mut body: F,
    ) -> Result<Landed<T>, SessionError>
    where
        F: FnMut(Tx) -> Fut + Send,
        Fut: Future<Output = Result<T, SessionError>> + Send,
        T: Send,
    {
        let body = |tx, _| body(tx).map_ok(Work::Write);
        landed(self.run_work(time, None, body).await?)
    }

    /// As [`run_for`](Self::run_for), for a body that reads nothing. Where a read version costs
    /// something, the first attempt uses the version of this lane's last commit instead of a fresh
    /// one, if that was a moment ago: the only read that it is checked for is that of the marker,
    /// which nobody but this lane writes.
    ///
    /// # Errors
    ///
    /// As [`run_for`](Self::run_for).
    ///
    /// # Cancel safety
    ///
    /// As [`run_for`](Self::run_for).
    pub async fn run_blind<T, F, Fut>(
        &mut self,
        time: Duration,
        mut body: F,
    ) -> Result<Landed<T>, SessionError>
    where
        F: FnMut(Tx) -> Fut + Send,
        Fut: Future<Output = Result<T, SessionError>> + Send,
        T: Send,
    {
        let first = self.at_last_commit();
        let body = |tx, _| body(tx).map_ok(Work::Write);
        landed(self.run_work(time, first, body).await?)
    }

    /// A transaction that reads at the version of this lane's last commit.
    fn at_last_commit(&self) -> Option<Tx> {
        let database = self.session.namespace().database();
        let (version, since) = self.slot.last?;
        let is_good = database.env().now().saturating_sub(since) < VERSION_GOOD_FOR;
        if self.in_doubt || !is_good || !database.store().read_versions_cost() {
            return None;
        }
        let tx = database.store().begin().ok()?;
        tx.set_read_version(version);
        Some(tx)
    }

    /// As [`run_for`](Self::run_for), for a body that may find nothing to write; there is no commit
    /// then. The body also gets the number of attempts that came before. The first attempt uses the
    /// transaction `first`, if there is one: it may have a read version of long ago, and so must not
    /// end with [`Work::Look`], which would be a look at the past.
    ///
    /// # Errors
    ///
    /// As [`run_for`](Self::run_for).
    ///
    /// # Cancel safety
    ///
    /// As [`run_for`](Self::run_for).
    pub async fn run_work<T, F, Fut>(
        &mut self,
        time: Duration,
        first: Option<Tx>,
        body: F,
    ) -> Result<(T, Option<Committed>), SessionError>
    where
        F: FnMut(Tx, u32) -> Fut + Send,
        Fut: Future<Output = Result<Work<T>, SessionError>> + Send,
        T: Send,
    {
        if self.in_doubt {
            // A late attempt of the work before could still abort this one.
            *self = Self::take(&Arc::clone(&self.session));
        }
        let policy = RetryPolicy {
            give_up_after: time,
            ..RetryPolicy::retry_unknown()
        };
        // Also while the future waits: whoever drops it does not know how the work ended.
        self.in_doubt = true;
        let outcome = run_marked(&self.session, &mut self.slot, policy, first, body).await;
        if let Ok((_, Some(commit))) = &outcome {
            let now = self.session.namespace().database().env().now();
            self.slot.last = Some((commit.version, now));
        }
        self.in_doubt = match &outcome {
            Ok(_) => false,
            Err(SessionError::Store(error)) => error.is_maybe_committed(),
            Err(SessionError::SessionGone) => true,
        };
        outcome
    }
}

fn landed<T>(ended: (T, Option<Committed>)) -> Result<Landed<T>, SessionError> {
    match ended {
        (value, Some(commit)) => Ok(Landed { value, commit }),
        (_, None) => Err(StoreError::new(StoreErrorKind::Failed)
            .with_context("the store reported a commit with writes as one without")
            .into()),
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !self.in_doubt {
            let slot = Slot { ..self.slot };
            lock(self.session.lanes()).free.push(slot);
        }
    }
}

async fn run_marked<T, F, Fut>(
    session: &Session,
    slot: &mut Slot,
    policy: RetryPolicy,
    first_tx: Option<Tx>,
    mut body: F,
) -> Result<(T, Option<Committed>), SessionError>
where
    F: FnMut(Tx, u32) -> Fut + Send,
    Fut: Future<Output = Result<Work<T>, SessionError>> + Send,
    T: Send,
{
    let keys = session.keys();
    let marker_key = keys.outcome(slot.number);
    let first = slot.attempts;
    // A body runs again after a conflict and may then decide differently. What counts is what it
    // returned in the attempt that landed, which after an unknown result need not be the last.
    let values: Mutex<BTreeMap<u64, T>> = Mutex::new(BTreeMap::new());
    let completed = session
        .namespace()
        .database()
        .run_from(first_tx, policy, |attempt| {
            let number = slot.attempts;
            slot.attempts += 1;
            let work = body(Arc::clone(attempt.tx()), attempt.number());
            let (values, marker_key) = (&values, &marker_key);
            let moves = planted(Bug::WorkMovesLane) && attempt.after_unknown();
            let moved = moves.then(|| keys.outcome(u32::MAX - slot.number));
            if !attempt.after_unknown() {
                // None of the attempts so far can land, so nobody will ask for their values.
                lock(values).clear();
            }
            async move {
                let marker_key = moved.as_ref().unwrap_or(marker_key);
                if planted(Bug::UnknownAsSuccess)
                    && attempt.after_unknown()
                    && let Some((&attempt, _)) = lock(values).last_key_value()
                {
                    return Ok(Step::Landed(Marker::assumed(attempt)));
                }
                if let Some(marker) = guard(keys, marker_key, first, &attempt).await? {
                    return Ok(Step::Landed(marker));
                }
                let value = match work.await? {
                    Work::Look(value) if !attempt.after_unknown() => {
                        return Ok(Step::Looked(value));
                    }
                    Work::Write(value) | Work::Look(value) => value,
                };
                let tx = attempt.tx();
                // Obtained at the latest here. A commit that fetched its own read version late
                // would see the marker of the attempt it must not repeat as part of the past.
                if !planted(Bug::BlindUnpinned) {
                    tx.read_version().await?;
                }
                tx.set_versionstamped_value(marker_key, &Marker::template(number), Marker::OFFSET);
                lock(values).insert(number, value);
                Ok::<_, SessionError>(Step::Committing(number))
            }
        })
        .await?;
    let (number, commit) = match completed.value {
        Step::Committing(number) => (number, completed.commit),
        Step::Landed(marker) => (marker.attempt, Some(marker.commit)),
        Step::Looked(value) => return Ok((value, None)),
    };
    let value = lock(&values).remove(&number).ok_or_else(|| {
        StoreError::new(StoreErrorKind::Corrupt)
            .with_context("an outcome marker names an attempt that was never committed")
    })?;
    Ok((value, commit))
}

/// Puts the attempt under the protection of the marker; after an unknown result, looks whether an
/// earlier attempt of the work, numbered from `first` on, has landed.
async fn guard(
    keys: &SessionKeys,
    marker_key: &[u8],
    first: u64,
    attempt: &Attempt,
) -> Result<Option<Marker>, SessionError> {
    let tx = attempt.tx();
    if !attempt.after_unknown() || planted(Bug::UnknownAsFailure) {
        if !planted(Bug::NoMarkerConflict) {
            tx.add_read_conflict_key(marker_key);
        }
        return Ok(None);
    }
    let (marker, heartbeat) = try_join(tx.read(marker_key), tx.read(&keys.heartbeat())).await?;
    if heartbeat.is_none() {
        return Err(SessionError::SessionGone);
    }
    let marker = marker
        .map(|value| Marker::decode(marker_key, &value))
        .transpose()?;
    Ok(marker.filter(|marker| marker.attempt >= first))
}

impl Marker {
    /// Where the commit's stamp comes to stand.
    const OFFSET: usize = 9;
    const LEN: usize = Self::OFFSET + CommitStamp::LEN;
    const FORMAT: u8 = 1;

    /// Format, attempt, room for the stamp. Not MessagePack, because the store fills in the stamp.
    fn template(attempt: u64) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (format, rest) = bytes.split_at_mut(1);
        format.fill(Self::FORMAT);
        let (number, _) = rest.split_at_mut(8);
        number.copy_from_slice(&attempt.to_be_bytes());
        bytes
    }

    /// What nobody has read.
    fn assumed(attempt: u64) -> Self {
        let stamp = CommitStamp::from_bytes([0; CommitStamp::LEN]);
        let commit = Committed {
            version: stamp.version(),
            stamp,
        };
        Self { attempt, commit }
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let foreign = || value::corrupt(key, "the value is no outcome marker");
        let (format, rest) = value.split_first().ok_or_else(foreign)?;
        let (attempt, stamp) = rest.split_first_chunk::<8>().ok_or_else(foreign)?;
        let stamp: [u8; CommitStamp::LEN] = stamp.try_into().map_err(|_| foreign())?;
        if *format != Self::FORMAT {
            return Err(foreign());
        }
        let stamp = CommitStamp::from_bytes(stamp);
        let commit = Committed {
            version: stamp.version(),
            stamp,
        };
        Ok(Self {
            attempt: u64::from_be_bytes(*attempt),
            commit,
        })
    }
}

/// The number of a lane's last attempt, which its marker holds; so many attempts were made in it.
///
/// # Errors
///
/// [`Corrupt`](StoreErrorKind::Corrupt) for what is no marker.
pub(crate) fn attempts_in(key: &[u8], marker: &[u8]) -> Result<u64, StoreError> {
    Marker::decode(key, marker).map(|marker| marker.attempt)
}

/// The data behind these locks is changed in single steps, so a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

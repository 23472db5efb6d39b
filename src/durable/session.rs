//! A session: a process's presence in the store.
//!
//! Invariant: while the heartbeat key of a session stands, its outcome markers tell the truth. The
//! sweep that removes a dead session's markers removes the heartbeat with them, in one transaction,
//! so a process that finds its heartbeat gone knows that its markers say nothing any more.
//!
//! A session is gone, too, when the store is not the one that it was opened in: of another
//! incarnation, or one in which the heartbeat is older than the last that was acknowledged.

use super::keys::{SessionId, SessionKeys};
use super::lane::{Lane, Lanes};
use super::namespace::Namespace;
use super::value;
use crate::store::{
    CommitStamp, RetryPolicy, StoreCause, StoreError, StoreErrorKind, TransactionExt, Tx,
};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// An open session.
///
/// Show that it lives with [`beat`](Self::beat), every few seconds: other processes
/// [sweep](super::Sweeper) a session whose heartbeat stands still for a minute. Dropping a session
/// leaves it to them; [`close`](Self::close) leaves nothing.
#[derive(Debug)]
pub struct Session {
    namespace: Namespace,
    id: SessionId,
    keys: SessionKeys,
    opened: CommitStamp,
    /// The namespace's when the session was opened.
    incarnation: u32,
    lanes: Mutex<Lanes>,
    /// The newest heartbeat that was acknowledged.
    beaten: AtomicU64,
}

/// The value of a session's heartbeat key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    /// Changes with each beat. Observers compare it with what they saw before; nobody compares
    /// clocks.
    pub(crate) nonce: u64,
    /// The kinds that the process serves.
    pub(crate) kinds: Vec<String>,
    /// The process's wall clock when it opened the session, in milliseconds since 1970: for people.
    pub(crate) opened_ms: u64,
}

impl Heartbeat {
    /// The heartbeat that is stored under `key`.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](StoreErrorKind::Corrupt), naming the key.
    pub(crate) fn decode(key: &[u8], stored: &[u8]) -> Result<Self, StoreError> {
        value::decode(key, stored)
    }
}

/// Why something under a session failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The store's answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The session was swept while its process was away. What became of work with an unknown
    /// outcome cannot be found out any more; new work needs a new session.
    #[error("the session was given up for dead by another process; open a new one")]
    SessionGone,
}

impl StoreCause for SessionError {
    fn store_cause(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::SessionGone => None,
        }
    }
}

impl Session {
    /// Opens a session, under an id of 128 random bits. `kinds` are what the process serves, for
    /// others to see.
    ///
    /// # Errors
    ///
    /// Whatever the store answers; a session that was opened all the same will be swept.
    pub async fn open(namespace: &Namespace, kinds: Vec<String>) -> Result<Arc<Self>, StoreError> {
        let db = namespace.database();
        let mut id = [0; SessionId::LEN];
        let (high, low) = id.split_at_mut(SessionId::LEN / 2);
        high.copy_from_slice(&db.env().random().to_be_bytes());
        low.copy_from_slice(&db.env().random().to_be_bytes());
        let id = SessionId::from_bytes(id);
        let keys = namespace.keys().session(id);
        let opened_ms = millis(db.env().wall_clock());
        let beat = value::encode(&Heartbeat {
            nonce: 0,
            kinds,
            opened_ms,
        })?;
        let heartbeat = keys.heartbeat();
        // Idempotent: nobody else writes below the id, and no beat has begun. The key is read so
        // that of all attempts the last one that is told of is the last that lands: one that came
        // late would bring back the heartbeat of a session that was closed.
        let written = db
            .run_with(RetryPolicy::retry_unknown(), |attempt| {
                let (heartbeat, beat) = (heartbeat.clone(), beat.clone());
                async move {
                    let tx = attempt.tx();
                    let (_, found) = try_join(tx.read(&heartbeat), namespace.reread(tx)).await?;
                    tx.set(&heartbeat, &beat);
                    Ok::<_, StoreError>(found)
                }
            })
            .await?;
        namespace.learn(&written.value);
        let opened = written.commit.ok_or_else(|| {
            StoreError::new(StoreErrorKind::Failed)
                .with_context("the store reported a commit with writes as one without")
        })?;
        Ok(Arc::new(Self {
            namespace: namespace.clone(),
            id,
            keys,
            opened: opened.stamp,
            incarnation: written.value.incarnation(),
            lanes: Mutex::default(),
            beaten: AtomicU64::new(0),
        }))
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The stamp of the commit that opened the session: what was written before it is older than
    /// the session.
    #[must_use]
    pub fn opened(&self) -> CommitStamp {
        self.opened
    }

    /// The incarnation of the namespace in which the session was opened.
    pub(crate) fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// The session's keys.
    #[must_use]
    pub fn keys(&self) -> &SessionKeys {
        &self.keys
    }

    /// The namespace that the session is in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A lane that carries no work: see [`Lane`].
    #[must_use]
    pub fn lane(self: &Arc<Self>) -> Lane {
        Lane::take(self)
    }

    pub(super) fn lanes(&self) -> &Mutex<Lanes> {
        &self.lanes
    }

    /// Shows that the process lives.
    ///
    /// Reads before it writes, serializably: a beat that comes after the session was swept must not
    /// bring the heartbeat back without the markers.
    ///
    /// # Errors
    ///
    /// [`SessionGone`](SessionError::SessionGone) if the session was swept, or the store is not the one
    /// any more that it was opened in; whatever the store answers.
    ///
    /// # Cancel safety
    ///
    /// A beat may still be committed after its future was dropped, which does no harm.
    pub async fn beat(&self) -> Result<(), SessionError> {
        let key = self.keys.heartbeat();
        // One beat too many does no harm, so an unknown outcome is simply tried again.
        let beaten = self
            .namespace
            .database()
            .run_with(RetryPolicy::retry_unknown(), |attempt| {
                let key = key.clone();
                async move { self.beat_in(attempt.tx(), &key).await }
            });
        self.beaten.fetch_max(beaten.await?.value, Ordering::SeqCst);
        Ok(())
    }

    /// One beat, and its number.
    async fn beat_in(&self, tx: &Tx, key: &[u8]) -> Result<u64, SessionError> {
        let (value, is_in) =
            try_join(tx.read(key), self.namespace.is_in(tx, self.incarnation)).await?;
        let value = value.ok_or(SessionError::SessionGone)?;
        let mut heartbeat: Heartbeat = value::decode(key, &value)?;
        let is_older = heartbeat.nonce < self.beaten.load(Ordering::SeqCst);
        if !is_in || is_older {
            return Err(SessionError::SessionGone);
        }
        heartbeat.nonce = heartbeat.nonce.wrapping_add(1);
        tx.set(key, &value::encode(&heartbeat)?);
        Ok(heartbeat.nonce)
    }

    /// Closes the session: nothing of it stays in the store.
    ///
    /// Work of its lanes that may still be under way conflicts with the removal of their markers,
    /// so none of it lands afterwards.
    ///
    /// # Errors
    ///
    /// Whatever the store answers; then the session will be swept.
    pub async fn close(&self) -> Result<(), StoreError> {
        let all = self.keys.all();
        let closed = self
            .namespace
            .database()
            .run_with(RetryPolicy::retry_unknown(), |attempt| {
                attempt.tx().clear_range(&all);
                async { Ok::<_, StoreError>(()) }
            });
        closed.await.map(drop)
    }
}

/// A wall-clock time as it is stored: milliseconds since 1970. Times before that are not written.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! One transaction's view of the store, and the reads waiting for it.
//!
//! Invariant: at most one thread runs the jobs of a snapshot, the one that took it off the pool's
//! queue, and a snapshot is on that queue exactly while `busy` is set and no thread runs it (or it
//! waits there for a connection). So jobs run one after another in the order they were submitted,
//! back to back on one thread, and the connection is never used by two.

use super::super::{StoreError, Version};
use super::db::Db;
use super::error::{too_old, used};
use super::lock;
use super::pool::{Due, Lease, Pool};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

/// A read: gets the open snapshot, or why there is none.
pub(super) type Job = Box<dyn FnOnce(Result<&Lease, StoreError>) + Send>;

/// What follows the last read: gets the snapshot, if anything was read.
pub(super) type Ending = Box<dyn FnOnce(Result<Option<Kept>, StoreError>) + Send>;

/// A snapshot that has outlived its transaction. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Kept {
    pool: Arc<Pool>,
    /// None only while it is being dropped.
    lease: Option<Lease>,
    pub(super) version: Version,
}

impl Kept {
    pub(super) fn db(&self) -> Option<&Db> {
        self.lease.as_ref().map(|lease| &lease.db)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.pool.release(lease);
        }
    }
}

/// See the module's documentation.
pub(super) struct Snapshot {
    pool: Arc<Pool>,
    wanted: OnceLock<Version>,
    inner: Mutex<Inner>,
}

struct Inner {
    jobs: VecDeque<Job>,
    ending: Option<Ending>,
    busy: bool,
    /// Why the snapshot is to be given up, if that was decided while a thread had it.
    withdrawn: Option<StoreError>,
    phase: Phase,
}

enum Phase {
    /// Nothing was read yet.
    Fresh,
    /// Between reads.
    Open(Lease),
    /// A thread has it.
    Running,
    Over(StoreError),
}

impl Snapshot {
    pub(super) fn new(pool: Arc<Pool>) -> Arc<Self> {
        Arc::new(Self {
            pool,
            wanted: OnceLock::new(),
            inner: Mutex::new(Inner {
                jobs: VecDeque::new(),
                ending: None,
                busy: false,
                withdrawn: None,
                phase: Phase::Fresh,
            }),
        })
    }

    /// Reads at this version or fails. Only before the first job.
    pub(super) fn want(&self, version: Version) {
        let _ = self.wanted.set(version);
    }

    /// The version that was asked for.
    pub(super) fn wanted(&self) -> Option<Version> {
        self.wanted.get().copied()
    }

    /// The version that is read at, if that is known and nothing is under way.
    pub(super) fn version(&self) -> Option<Version> {
        match &lock(&self.inner).phase {
            Phase::Open(lease) => Some(lease.version),
            Phase::Fresh | Phase::Running | Phase::Over(_) => None,
        }
    }

    /// Runs `job` after those submitted before.
    pub(super) fn submit(self: &Arc<Self>, job: Job) {
        let mut inner = lock(&self.inner);
        inner.jobs.push_back(job);
        if !std::mem::replace(&mut inner.busy, true) {
            drop(inner);
            self.pool.enqueue(Arc::clone(self));
        }
    }

    /// Gives the snapshot to `ending` after the last job: here and now if nothing is waiting, so that
    /// a commit costs no change of thread.
    pub(super) fn finish(&self, ending: Ending) {
        let mut inner = lock(&self.inner);
        if inner.busy {
            inner.ending = Some(ending);
            return;
        }
        let phase = std::mem::replace(&mut inner.phase, Phase::Over(used()));
        drop(inner);
        ending(match phase {
            Phase::Fresh | Phase::Running => Ok(None),
            Phase::Open(lease) => self.close(lease),
            Phase::Over(error) => Err(error),
        });
    }

    fn close(&self, lease: Lease) -> Result<Option<Kept>, StoreError> {
        let overdue = lease.is_overdue();
        let kept = Kept {
            pool: Arc::clone(&self.pool),
            version: lease.version,
            lease: Some(lease),
        };
        if overdue {
            Err(too_old())
        } else {
            Ok(Some(kept))
        }
    }

    /// Runs everything that is due.
    pub(super) fn run(due: Due) {
        let phase = std::mem::replace(&mut lock(&due.snapshot.inner).phase, Phase::Running);
        let (this, mut lease) = match phase {
            Phase::Open(lease) => (due.snapshot, Ok(lease)),
            Phase::Over(error) => (due.snapshot, Err(error)),
            Phase::Fresh | Phase::Running => {
                let pool = Arc::clone(&due.snapshot.pool);
                let wanted = due.snapshot.wanted();
                match pool.lease(due, wanted) {
                    Some((due, lease)) => (due.snapshot, lease),
                    None => return,
                }
            }
        };
        loop {
            let mut inner = lock(&this.inner);
            let withdrawn = inner.withdrawn.take();
            if let Ok(open) = &lease
                && let Some(error) = withdrawn.or_else(|| open.is_overdue().then(too_old))
            {
                drop(inner);
                let given_up = std::mem::replace(&mut lease, Err(error));
                given_up
                    .into_iter()
                    .for_each(|lease| this.pool.release(lease));
                continue;
            }
            if let Some(job) = inner.jobs.pop_front() {
                drop(inner);
                job(lease.as_ref().map_err(StoreError::clone));
                continue;
            }
            inner.busy = false;
            let Some(ending) = inner.ending.take() else {
                inner.phase = lease.map_or_else(Phase::Over, Phase::Open);
                return;
            };
            inner.phase = Phase::Over(used());
            drop(inner);
            return ending(lease.and_then(|lease| this.close(lease)));
        }
    }

    /// Takes the connection away, at once or as soon as the read that uses it ends; what was not
    /// read by then fails with `error`.
    pub(super) fn withdraw(&self, error: StoreError) {
        let mut inner = lock(&self.inner);
        if inner.busy {
            inner.withdrawn = Some(error);
            return;
        }
        if matches!(inner.phase, Phase::Open(_)) {
            let phase = std::mem::replace(&mut inner.phase, Phase::Over(error));
            drop(inner);
            if let Phase::Open(lease) = phase {
                self.pool.release(lease);
            }
        }
    }

    /// Fails all waiting jobs: no connection came free in time.
    pub(super) fn fail(&self, error: StoreError) {
        let (jobs, ending) = {
            let mut inner = lock(&self.inner);
            inner.busy = false;
            inner.phase = Phase::Over(error.clone());
            (std::mem::take(&mut inner.jobs), inner.ending.take())
        };
        for job in jobs {
            job(Err(error.clone()));
        }
        if let Some(ending) = ending {
            ending(Err(error));
        }
    }
}

impl Drop for Snapshot {
    /// A transaction that is dropped without a commit ends here.
    fn drop(&mut self) {
        let inner = self
            .inner
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let phase = std::mem::replace(&mut inner.phase, Phase::Fresh);
        if let Phase::Open(lease) = phase {
            self.pool.release(lease);
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

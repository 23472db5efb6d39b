//! The one thread of a process that commits.
//!
//! Waiting commits are taken together: while one group is being synced the next one gathers, and a
//! lone commit waits for nobody. A group is one SQLite transaction, so its members become durable
//! and visible together or not at all; within it they come one after another, each checked after
//! its predecessors, each with its own version (see [`Group`]).

use super::super::buffer::Mutation;
use super::super::{Committed, StoreError, StoreErrorKind, Version};
use super::db::Db;
use super::error::meaning;
use super::file::StoreFile;
use super::group::Group;
use super::lock;
use super::log::Log;
use super::pool::Pool;
use super::reads::ReadSet;
use super::snapshot::Kept;
use super::watch::{Hub, PendingWatch};
use crate::env::monotonic;
use futures_channel::oneshot;
use rusqlite::ErrorCode;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Commits in one group at most, so that one failed sync does not fail everything, and the first
/// does not wait for ever for the last.
const MAX_GROUP: usize = 512;

/// Nor does a group take new members after this long: large ones weigh more than small ones.
const MAX_GATHERING: Duration = Duration::from_millis(50);

/// How long a group waits while other processes commit, before it fails as unavailable: longer than a busy
/// disk takes for a sync.
const WRITE_LOCK_WAIT: Duration = Duration::from_secs(10);

/// The longest wait between two attempts to get the lock. A commit takes about a millisecond.
const LOCK_POLL: Duration = Duration::from_millis(1);

pub(super) type Outcome = Result<Option<Committed>, StoreError>;

/// A transaction to be committed.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) mutations: Vec<Mutation>,
    pub(super) basis: Basis,
    pub(super) watches: Vec<PendingWatch>,
    pub(super) reply: oneshot::Sender<Outcome>,
}

impl Request {
    pub(super) fn fail(self, error: &StoreError) {
        for watch in self.watches {
            watch.fail(error.clone());
        }
        let _ = self.reply.send(Err(error.clone()));
    }
}

/// What must hold for a transaction to be committed.
#[derive(Debug)]
pub(super) enum Basis {
    /// Nothing.
    Blind,
    /// The version is still this one.
    Exactly(Version),
    /// The version is still that of the snapshot, or all these reads have the same results as on it.
    Read(Box<(Kept, ReadSet)>),
}

/// The commits that wait for the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closed: bool,
}

impl Queue {
    pub(super) fn push(&self, request: Request) {
        lock(&self.state).requests.push_back(request);
        self.wake.notify_one();
    }

    /// Lets the writer end once nothing waits.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.wake.notify_one();
    }

    /// Waits for the first commit of a group; tells whether others wait behind it.
    fn first(&self) -> Option<(Request, bool)> {
        let mut state = lock(&self.state);
        loop {
            if let Some(request) = state.requests.pop_front() {
                return Some((request, !state.requests.is_empty()));
            }
            if state.closed {
                return None;
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn next(&self) -> Option<Request> {
        lock(&self.state).requests.pop_front()
    }
}

/// The thread's own things.
#[derive(Debug)]
pub(super) struct Writer {
    file: Arc<StoreFile>,
    queue: Arc<Queue>,
    hub: Arc<Hub>,
    pool: Arc<Pool>,
    /// None after a failure that leaves a connection in doubt.
    connection: Option<(Db, Log)>,
}

impl Writer {
    pub(super) fn new(
        file: Arc<StoreFile>,
        queue: Arc<Queue>,
        hub: Arc<Hub>,
        pool: Arc<Pool>,
    ) -> Result<Self, StoreError> {
        let connection = Some(connect(&file)?);
        Ok(Self {
            file,
            queue,
            hub,
            pool,
            connection,
        })
    }

    pub(super) fn run(mut self) {
        while let Some((first, has_company)) = self.queue.first() {
            match self.begin() {
                Ok((db, log, group)) => self.commit(db, log, group, first, has_company),
                Err(error) => {
                    // All who wait have waited for the same lock: let each of them wait only once.
                    first.fail(&error);
                    while let Some(request) = self.queue.next() {
                        request.fail(&error);
                    }
                }
            }
        }
    }

    /// Takes the write lock.
    fn begin(&mut self) -> Result<(Db, Log, Group), StoreError> {
        let (db, log) = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.file)?,
        };
        // The file is looked at once for the whole group, as late as possible.
        let begun = db
            .begin_write()
            .and_then(|()| self.file.check())
            .and_then(|()| db.version());
        match begun.and_then(Group::new) {
            Ok(group) => Ok((db, log, group)),
            Err(error) => {
                if !db.in_transaction() || db.rollback().is_ok() {
                    self.connection = Some((db, log));
                }
                Err(error)
            }
        }
    }

    /// Fills the group and commits it. Leaves the connection where it is sound.
    fn commit(
        &mut self,
        mut db: Db,
        mut log: Log,
        mut group: Group,
        first: Request,
        has_company: bool,
    ) {
        let gathering_ends = monotonic() + MAX_GATHERING;
        let mut next = Some(first);
        let mut seen = 0;
        while let Some(request) = next {
            if let Err(lost) = group.add(&db, request, has_company) {
                return self.give_up(db, log, group, &lost);
            }
            seen += 1;
            let may_grow = has_company && seen < MAX_GROUP && monotonic() < gathering_ends;
            next = if may_grow { self.queue.next() } else { None };
        }
        if group.is_empty() {
            // Everyone was refused and told so.
            if db.rollback().is_ok() {
                self.connection = Some((db, log));
            }
            return;
        }
        if let Err(lost) = db.set_version(group.newest()) {
            return self.give_up(db, log, group, &lost);
        }
        match db.commit() {
            Ok(()) => {
                group.committed(&db, &self.hub);
                log.after_commit(&mut db, &self.pool);
                self.connection = Some((db, log));
            }
            Err(error) => {
                let (error, is_certain) = judge(&db, error);
                group.fail(&error);
                if is_certain {
                    self.connection = Some((db, log));
                }
            }
        }
    }

    /// Nothing of the group is applied: `COMMIT` was not even begun, so no frame of the log ends a
    /// transaction, and recovery ignores what was written.
    fn give_up(&mut self, db: Db, log: Log, group: Group, error: &StoreError) {
        group.fail(error);
        if !db.in_transaction() || db.rollback().is_ok() {
            self.connection = Some((db, log));
        }
    }
}

/// What a failed `COMMIT` means, and whether it is certain.
///
/// Only a lock that could not be had fails before anything is written: after a rollback, nothing is
/// or will be applied. Any other failure (a full disk, a failed write or sync) may come after the
/// last frame reached the log. The log's index does not know of it, so no reader sees it and the
/// next commit overwrites it; but if every process dies first, recovery reads the log itself, finds
/// the frame, and applies the transaction. So the outcome is unknown, even after a clean rollback.
fn judge(db: &Db, error: rusqlite::Error) -> (StoreError, bool) {
    let is_busy = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    );
    if is_busy && db.in_transaction() && db.rollback().is_ok() {
        return (db.translate("committing to", error), true);
    }
    let unknown = StoreError::new(StoreErrorKind::MaybeCommitted)
        .with_context(format!(
            "the commit was being written: {}",
            meaning(&error).1
        ))
        .with_source(error);
    (unknown, false)
}

fn connect(file: &Arc<StoreFile>) -> Result<(Db, Log), StoreError> {
    let mut db = file.connect()?;
    wait_for_turn(&mut db)?;
    let log = Log::attach(&mut db)?;
    Ok((db, log))
}

/// Waits for the write lock as long and as closely as commits of other processes call for.
pub(super) fn wait_for_turn(db: &mut Db) -> Result<(), StoreError> {
    let mut give_up_at = Duration::ZERO;
    db.on_busy(move |attempt| {
        let now = monotonic();
        if attempt == 0 {
            give_up_at = now + WRITE_LOCK_WAIT;
        }
        if now >= give_up_at {
            return false;
        }
        // Nobody unparks this thread: it is a sleep. Short at first, since the holder is quick.
        let growing = Duration::from_micros(100) * u32::try_from(attempt + 1).unwrap_or(1);
        std::thread::park_timeout(growing.min(LOCK_POLL));
        true
    })
}

#[cfg(test)]
mod tests;

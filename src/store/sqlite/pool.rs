//! The reader threads, and the connections that they read through.
//!
//! A connection is not a thread: a transaction holds its connection, and with it its snapshot, from
//! its first read to its end, while the few threads run whatever reads are due. A snapshot held
//! keeps the write-ahead log from being emptied, so its life is bounded here, whether the
//! transaction's handle is ever dropped or not.

use super::super::{MAX_TRANSACTION_AGE, StoreError, StoreErrorKind, Version};
use super::db::Db;
use super::error::{closed, too_old, withdrawn};
use super::file::StoreFile;
use super::lock;
use super::snapshot::Snapshot;
use crate::env::monotonic;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Reads are short and mostly served from the system's cache: a few threads keep the cores busy.
pub(super) const READER_THREADS: usize = 4;

/// Connections at most, so snapshots at one time: two file descriptors each, below the usual limit
/// of 1024 for a process. Transactions beyond it wait with their first read.
const MAX_CONNECTIONS: usize = 256;

/// Connections that are kept open although nobody uses them.
const SPARE_CONNECTIONS: usize = 8;

/// How long one beyond the spares is kept, so that bursts do not open and close all the time.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// How long a first read waits for a connection.
const CONNECTION_WAIT: Duration = MAX_TRANSACTION_AGE;

/// A connection with an open snapshot.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) db: Db,
    pub(super) version: Version,
    since: Duration,
    number: u64,
}

impl Lease {
    pub(super) fn is_overdue(&self) -> bool {
        monotonic() >= self.since + MAX_TRANSACTION_AGE
    }
}

/// A snapshot with reads to run, and since when it has waited for a connection.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) snapshot: Arc<Snapshot>,
    waiting_since: Duration,
}

/// Snapshots in the order of their age, the one that has waited longest first.
#[derive(Debug, Default)]
struct Line(VecDeque<Due>);

impl Line {
    /// Queues `due` behind those that have waited as long or longer. Its place is near the front if
    /// it was in line before, so that newcomers do not pass it.
    fn push_back(&mut self, due: Due) {
        let place = self
            .0
            .partition_point(|other| other.waiting_since <= due.waiting_since);
        self.0.insert(place, due);
    }

    fn pop_front(&mut self) -> Option<Due> {
        self.0.pop_front()
    }

    fn front(&self) -> Option<&Due> {
        self.0.front()
    }
}

#[derive(Debug, Default)]
struct State {
    due: Line,
    /// Those that found no connection.
    starved: Line,
    /// The most recently used last.
    idle: Vec<(Duration, Db)>,
    /// Connections leased, idle or being opened.
    connections: usize,
    /// All leases by number, which is by age.
    leases: BTreeMap<u64, (Duration, Weak<Snapshot>)>,
    next_lease: u64,
    closed: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pool {
    file: Arc<StoreFile>,
    state: Mutex<State>,
    work: Condvar,
}

/// What a reader thread does next.
enum Task {
    Run(Due),
    Expire(Weak<Snapshot>),
    GiveUp(Due, StoreError),
    Close(Db),
}

impl Pool {
    pub(super) fn new(file: Arc<StoreFile>) -> Self {
        Self {
            file,
            state: Mutex::default(),
            work: Condvar::new(),
        }
    }

    /// The life of a reader thread.
    pub(super) fn serve(&self) {
        while let Some(task) = self.next_task() {
            match task {
                Task::Run(due) => Snapshot::run(due),
                Task::Expire(snapshot) => {
                    if let Some(snapshot) = snapshot.upgrade() {
                        snapshot.withdraw(too_old());
                    }
                }
                Task::GiveUp(due, error) => due.snapshot.fail(error),
                Task::Close(db) => drop(db),
            }
        }
    }

    /// Lets the threads end once everything due is done.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.work.notify_all();
    }

    pub(super) fn enqueue(&self, snapshot: Arc<Snapshot>) {
        let due = Due {
            snapshot,
            waiting_since: monotonic(),
        };
        lock(&self.state).due.push_back(due);
        self.work.notify_one();
    }

    /// Opens a snapshot, at `wanted` if given. `None`: no connection is free, `due` waits for one.
    pub(super) fn lease(
        &self,
        due: Due,
        wanted: Option<Version>,
    ) -> Option<(Due, Result<Lease, StoreError>)> {
        let spare = {
            let mut state = lock(&self.state);
            match state.idle.pop() {
                Some((_, db)) => Some(db),
                None if state.connections < MAX_CONNECTIONS => {
                    state.connections += 1;
                    None
                }
                None => {
                    state.starved.push_back(due);
                    return None;
                }
            }
        };
        let db =
            match spare.map_or_else(|| self.file.connect(), |db| self.file.check().map(|()| db)) {
                Ok(db) => db,
                Err(error) => {
                    self.forget_connection();
                    return Some((due, Err(error)));
                }
            };
        let since = monotonic();
        let version = match db.begin_read().and_then(|()| db.version()) {
            Ok(version) => version,
            Err(error) => {
                drop(db);
                self.forget_connection();
                return Some((due, Err(error)));
            }
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != version) {
            self.put_back(db);
            return Some((due, Err(not_current(wanted, version))));
        }
        let number = {
            let mut state = lock(&self.state);
            let number = state.next_lease;
            state.next_lease += 1;
            let holder = Arc::downgrade(&due.snapshot);
            state.leases.insert(number, (since, holder));
            number
        };
        Some((
            due,
            Ok(Lease {
                db,
                version,
                since,
                number,
            }),
        ))
    }

    /// Ends a snapshot. Quick enough for any thread: ending a read transaction unlocks one range of
    /// a lock file and does no I/O.
    pub(super) fn release(&self, lease: Lease) {
        lock(&self.state).leases.remove(&lease.number);
        self.put_back(lease.db);
    }

    /// Ends all snapshots, for the sake of the log.
    pub(super) fn withdraw_all(&self) {
        let leases = std::mem::take(&mut lock(&self.state).leases);
        for snapshot in leases.values().filter_map(|(_, holder)| holder.upgrade()) {
            snapshot.withdraw(withdrawn());
        }
    }

    fn put_back(&self, db: Db) {
        if db.in_transaction() && db.rollback().is_err() {
            drop(db);
            return self.forget_connection();
        }
        let mut state = lock(&self.state);
        state.idle.push((monotonic(), db));
        self.feed_starved(state);
    }

    fn forget_connection(&self) {
        let mut state = lock(&self.state);
        state.connections -= 1;
        self.feed_starved(state);
    }

    fn feed_starved(&self, mut state: MutexGuard<'_, State>) {
        if let Some(due) = state.starved.pop_front() {
            state.due.push_back(due);
            drop(state);
            self.work.notify_one();
        }
    }

    fn next_task(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        loop {
            // What is overdue comes first: it frees connections for the rest.
            let now = monotonic();
            if let Some(task) = state.overdue(now) {
                return Some(task);
            }
            if let Some(due) = state.due.pop_front() {
                return Some(Task::Run(due));
            }
            if state.closed {
                return None;
            }
            state = match state.next_deadline() {
                Some(deadline) => {
                    let wait = deadline.saturating_sub(now);
                    self.work
                        .wait_timeout(state, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl State {
    fn overdue(&mut self, now: Duration) -> Option<Task> {
        if let Some(lease) = self.leases.first_entry()
            && now >= lease.get().0 + MAX_TRANSACTION_AGE
        {
            return Some(Task::Expire(lease.remove().1));
        }
        let starved_out = |due: &Due| now >= due.waiting_since + CONNECTION_WAIT;
        if self
            .starved
            .front()
            .is_some_and(|due| self.closed || starved_out(due))
        {
            let error = if self.closed {
                closed()
            } else {
                no_connection()
            };
            return self.starved.pop_front().map(|due| Task::GiveUp(due, error));
        }
        if self.idle.len() > SPARE_CONNECTIONS
            && self
                .idle
                .first()
                .is_some_and(|(since, _)| now >= *since + IDLE_TIME)
        {
            self.connections -= 1;
            return Some(Task::Close(self.idle.remove(0).1));
        }
        None
    }

    fn next_deadline(&self) -> Option<Duration> {
        let lease = self
            .leases
            .first_key_value()
            .map(|(_, (since, _))| *since + MAX_TRANSACTION_AGE);
        let starved = self
            .starved
            .front()
            .map(|due| due.waiting_since + CONNECTION_WAIT);
        let idle = (self.idle.len() > SPARE_CONNECTIONS)
            .then(|| self.idle.first().map(|(since, _)| *since + IDLE_TIME))
            .flatten();
        [lease, starved, idle].into_iter().flatten().min()
    }
}

fn not_current(wanted: Version, version: Version) -> StoreError {
    StoreError::new(StoreErrorKind::TooOld).with_context(format!(
        "the store is at version {version} and keeps no other, {wanted} was asked for"
    ))
}

fn no_connection() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable).with_context(format!(
        "{MAX_CONNECTIONS} transactions hold a snapshot already; end some of them"
    ))
}

#[cfg(test)]
mod tests;

//! Sees what other processes commit, while anyone here waits for it.

use super::super::StoreError;
use super::db::Db;
use super::file::StoreFile;
use super::watch::{Hub, Look};
use crate::env::monotonic;
use bytes::Bytes;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Between two looks at the file's change counter while somebody commits. Two processes that answer
/// each other fall into step with their looks, so that all of it is the typical delay of a watch.
const PERIOD: Duration = Duration::from_millis(1);

/// Once the log has been the same for so long, its length and time are taken for a sign that nobody
/// commits, and SQLite is asked only this often: that takes several system calls and locks, and would
/// alone be 1 % of a core.
///
/// Not sooner, because a commit shows in the log before it can be read. One that the disk takes longer
/// for, or that overwrites an old part of the log within one tick of the file system's clock, is found
/// so much later.
const QUIET: Duration = Duration::from_millis(100);

/// After so long without a commit by anyone, the looks are [`IDLE_PERIOD`] apart: each wakes a thread,
/// which costs more than the look itself.
const IDLE_AFTER: Duration = Duration::from_millis(250);

/// Between two looks at the log of a store in which nothing happens.
const IDLE_PERIOD: Duration = Duration::from_millis(20);

/// After a look at all watched keys, rest this many times as long as it took: so these looks take
/// 5 % of a core, however many watches there are and however often other processes commit.
///
/// The price is the delay. A look of up to 53 µs does not prolong the period. Beyond it the rest
/// grows in proportion to the number of watches, while other processes commit all the time: the
/// typical delay of a watch is half of it, the longest is all of it. What this process commits itself
/// fires its watches at once.
const REST_FACTOR: u32 = 19;

/// The thread that polls. It sleeps while nothing is watched.
#[derive(Debug)]
pub(super) struct Poller {
    file: Arc<StoreFile>,
    hub: Arc<Hub>,
    /// The connection, and the change counter when it last looked.
    seen: Option<(Db, i64)>,
    /// How long the last look at all watched keys took.
    last_took: Duration,
    log: PathBuf,
    log_seen: Option<LogSeen>,
}

/// What shows from outside that something is committed.
#[derive(Debug, Clone, Copy)]
struct LogSeen {
    length: u64,
    written: SystemTime,
    /// Since when it has been like that, and when SQLite was asked last.
    since: Duration,
    asked: Duration,
}

impl Poller {
    pub(super) fn new(file: Arc<StoreFile>, hub: Arc<Hub>) -> Self {
        let mut log = file.path().as_os_str().to_owned();
        log.push("-wal");
        Self {
            file,
            hub,
            seen: None,
            last_took: Duration::MAX,
            log: log.into(),
            log_seen: None,
        }
    }

    pub(super) fn run(mut self) {
        let mut rested_at = monotonic();
        while let Some(look) = self.hub.next_poll(rested_at) {
            let outcome = match look {
                Look::New(fresh) => self.look_at_new(&fresh),
                Look::Changes(fresh) => self.look_for_changes(&fresh).map(|rest| {
                    rested_at = monotonic() + rest;
                }),
            };
            if let Err(error) = outcome {
                // Who waits must look for themselves, and arm again.
                self.seen = None;
                self.hub.fail_all(&error);
            }
        }
    }

    /// Compares new watches with the data, while those before them wait for the end of the rest.
    /// What is noted about commits stays as it is, so that the next look for changes finds them.
    fn look_at_new(&mut self, fresh: &[Bytes]) -> Result<(), StoreError> {
        let (db, counter) = match self.seen.take() {
            Some(seen) => seen,
            None => return self.look_for_changes(fresh).map(drop),
        };
        db.begin_read()?;
        self.look(&db, fresh)?;
        db.rollback()?;
        self.seen = Some((db, counter));
        Ok(())
    }

    /// Looks at `fresh`, and at all watched keys if anyone else committed. Returns how long to rest.
    fn look_for_changes(&mut self, fresh: &[Bytes]) -> Result<Duration, StoreError> {
        if fresh.is_empty()
            && let Some(rest) = self.log_stands_still()
        {
            return Ok(rest);
        }
        let (db, before) = match self.seen.take() {
            Some((db, counter)) => (db, Some(counter)),
            None => (self.file.connect()?, None),
        };
        let mut rest = PERIOD;
        // Read before the data, so that a commit in between is found again by the next poll.
        let counter = db.data_version()?;
        if !fresh.is_empty() || before != Some(counter) {
            let started = monotonic();
            db.begin_read()?;
            let version = db.version()?;
            let is_behind = self.hub.is_behind(version);
            if is_behind {
                self.look(&db, &self.hub.watched())?;
                self.hub.looked_at_all(version);
            } else {
                self.look(&db, fresh)?;
            }
            db.rollback()?;
            if is_behind {
                rest = self.rest_after(monotonic() - started);
            }
        }
        self.seen = Some((db, counter));
        Ok(rest)
    }

    /// How long to rest because the log has been the same for long, and SQLite was asked not long ago.
    /// If it has not, whoever called this asks now: after the look at the log.
    fn log_stands_still(&mut self) -> Option<Duration> {
        let Some((length, written)) = self.look_at_log() else {
            self.log_seen = None;
            return None;
        };
        let now = monotonic();
        let before = self
            .log_seen
            .filter(|seen| (seen.length, seen.written) == (length, written));
        let for_long = before.map_or(Duration::ZERO, |seen| now.saturating_sub(seen.since));
        let rest = match for_long >= IDLE_AFTER {
            true => IDLE_PERIOD,
            false => PERIOD,
        };
        let was_asked = before.is_some_and(|seen| now.saturating_sub(seen.asked) < QUIET);
        if self.seen.is_some() && for_long >= QUIET && was_asked {
            return Some(rest);
        }
        self.log_seen = Some(LogSeen {
            length,
            written,
            since: before.map_or(now, |seen| seen.since),
            asked: now,
        });
        None
    }

    /// The length of the log, and when it was written. Elsewhere than on Unix both may be of the past as
    /// long as the file is open.
    fn look_at_log(&self) -> Option<(u64, SystemTime)> {
        if !cfg!(unix) {
            return None;
        }
        let log = fs::metadata(&self.log).ok()?;
        Some((log.len(), log.modified().ok()?))
    }

    /// The rest after a look at all watched keys. It goes by the shorter of the last two looks: one
    /// during which the system ran other threads took long, but used little.
    fn rest_after(&mut self, took: Duration) -> Duration {
        let usual = took.min(std::mem::replace(&mut self.last_took, took));
        PERIOD.max(usual * REST_FACTOR)
    }

    fn look(&self, db: &Db, keys: &[Bytes]) -> Result<(), StoreError> {
        for key in keys {
            self.hub.look(key, db.get(key)?.as_ref());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! Sees what other processes commit, while anyone here waits for it.

use super::super::StoreError;
use super::db::Db;
use super::file::StoreFile;
use super::watch::{Hub, Look};
use crate::env::monotonic;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at the file's change counter: half of it is the typical delay of a watch.
const PERIOD: Duration = Duration::from_micros(2500);

/// After a look at all watched keys, rest this many times as long as it took: so these looks take
/// 2 % of a core, however many watches there are and however often other processes commit.
///
/// The price is the delay. A look of up to 51 µs does not prolong the period. Beyond it the rest
/// grows in proportion to the number of watches, while other processes commit all the time: the typical delay of a watch is half of it, the longest is all of it. What this process
/// commits itself fires its watches at once.
const REST_FACTOR: u32 = 49;

/// The thread that polls. It sleeps while nothing is watched.
#[derive(Debug)]
pub(super) struct Poller {
    file: Arc<StoreFile>,
    hub: Arc<Hub>,
    /// The connection, and the change counter when it last looked.
    seen: Option<(Db, i64)>,
    /// How long the last look at all watched keys took.
    last_took: Duration,
}

impl Poller {
    pub(super) fn new(file: Arc<StoreFile>, hub: Arc<Hub>) -> Self {
        Self {
            file,
            hub,
            seen: None,
            last_took: Duration::MAX,
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

//! A connection, and every SQL statement that runs once a store is open.

use super::super::{KeyRange, KeyValue, StoreError, Version};
use super::error::translate;
use super::file::StoreFile;
use bytes::Bytes;
use rusqlite::{Connection, Params, Row};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// A connection to a store's file.
#[derive(Debug)]
pub(super) struct Db {
    connection: Connection,
    file: Arc<StoreFile>,
}

impl Db {
    pub(super) fn new(connection: Connection, file: Arc<StoreFile>) -> Self {
        Self { connection, file }
    }

    fn error(&self, doing: &str, error: rusqlite::Error) -> StoreError {
        translate(self.file.path(), doing, error)
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(params, read))
            .map_err(|error| self.error("reading", error))
    }

    /// Runs a statement that returns nothing.
    fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(sql)?
            .execute(params)
            .map(drop)
    }

    fn write(&self, sql: &str, params: impl Params) -> Result<(), StoreError> {
        self.execute(sql, params)
            .map_err(|error| self.error("writing", error))
    }

    // Reading.

    pub(super) fn identity(&self) -> Result<Vec<u8>, StoreError> {
        self.one("SELECT identity FROM meta", (), |row| row.get(0))
    }

    /// The version of the newest commit that this connection sees.
    pub(super) fn version(&self) -> Result<Version, StoreError> {
        self.one("SELECT version FROM meta", (), |row| {
            let version: i64 = row.get(0)?;
            u64::try_from(version)
                .map(Version)
                .map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, version))
        })
    }

    /// A number that changes when any other connection, of any process, commits.
    pub(super) fn data_version(&self) -> Result<i64, StoreError> {
        self.one("PRAGMA data_version", (), |row| row.get(0))
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let read = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT value FROM kv WHERE key = ?1")?;
            let mut rows = statement.query((key,))?;
            rows.next()?.map(|row| blob(row, 0)).transpose()
        };
        read().map_err(|error| self.error("reading", error))
    }

    /// Hands the pairs of a range, in order or in reverse, to `consume`, which takes as many as it
    /// wants; the rest is not read.
    pub(super) fn scan<T>(
        &self,
        range: &KeyRange,
        reverse: bool,
        consume: impl FnOnce(
            &mut dyn Iterator<Item = Result<KeyValue, StoreError>>,
        ) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let sql = if reverse {
            "SELECT key, value FROM kv WHERE key >= ?1 AND key < ?2 ORDER BY key DESC"
        } else {
            "SELECT key, value FROM kv WHERE key >= ?1 AND key < ?2 ORDER BY key"
        };
        let failed = |error| self.error("reading", error);
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let rows = statement
            .query_map((range.begin.as_ref(), range.end.as_ref()), |row| {
                Ok(KeyValue {
                    key: blob(row, 0)?,
                    value: blob(row, 1)?,
                })
            })
            .map_err(failed)?;
        consume(&mut rows.map(|row| row.map_err(failed)))
    }

    /// Begins a read transaction; the first read fixes what it sees.
    pub(super) fn begin_read(&self) -> Result<(), StoreError> {
        self.execute("BEGIN", ())
            .map_err(|error| self.error("reading", error))
    }

    // Writing.

    /// Takes the write lock, waiting for other processes as long as the busy handler does.
    pub(super) fn begin_write(&self) -> Result<(), StoreError> {
        self.write("BEGIN IMMEDIATE", ())
    }

    pub(super) fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.write("REPLACE INTO kv(key, value) VALUES(?1, ?2)", (key, value))
    }

    pub(super) fn remove(&self, range: &KeyRange) -> Result<(), StoreError> {
        self.write(
            "DELETE FROM kv WHERE key >= ?1 AND key < ?2",
            (range.begin.as_ref(), range.end.as_ref()),
        )
    }

    pub(super) fn set_version(&self, version: Version) -> Result<(), StoreError> {
        self.write("UPDATE meta SET version = ?1", (version.0.cast_signed(),))
    }

    pub(super) fn savepoint(&self) -> Result<(), StoreError> {
        self.write("SAVEPOINT one", ())
    }

    pub(super) fn release(&self) -> Result<(), StoreError> {
        self.write("RELEASE one", ())
    }

    /// Undoes what happened since the savepoint, and forgets it.
    pub(super) fn undo(&self) -> Result<(), StoreError> {
        self.write("ROLLBACK TO one", ())?;
        self.release()
    }

    /// Commits. The error is SQLite's own: what it means here, only the writer can say.
    pub(super) fn commit(&self) -> rusqlite::Result<()> {
        self.execute("COMMIT", ())
    }

    /// Ends a transaction without effect.
    pub(super) fn rollback(&self) -> Result<(), StoreError> {
        self.write("ROLLBACK", ())
    }

    /// Whether a transaction is open. SQLite itself rolls back after some errors.
    pub(super) fn in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    pub(super) fn translate(&self, doing: &str, error: rusqlite::Error) -> StoreError {
        self.error(doing, error)
    }

    // The writer's settings.

    /// Waits for locks as `handler` says: told how often it was asked about this lock, it waits a
    /// moment and returns whether to go on.
    pub(super) fn on_busy(
        &mut self,
        handler: impl FnMut(i32) -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        self.connection
            .busy_handler(Some(handler))
            .map_err(|error| translate(self.file.path(), "opening", error))
    }

    /// Waits at most this long for each lock.
    pub(super) fn wait_at_most(&self, wait: Duration) -> Result<(), StoreError> {
        self.connection
            .busy_timeout(wait)
            .map_err(|error| self.error("opening", error))
    }

    /// Leaves checkpoints to the caller, and tells it how many frames the log has.
    pub(super) fn gauge_log(&mut self, frames: Arc<AtomicI32>) -> Result<(), StoreError> {
        let hook = move |_: &mut rusqlite::hooks::Wal, count| {
            frames.store(count, Ordering::Relaxed);
            Ok(())
        };
        self.connection
            .wal_hook(Some(hook))
            .map_err(|error| translate(self.file.path(), "opening", error))
    }

    /// Moves committed pages from the log to the file, as far as no reader needs the old ones.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        self.one("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))
    }

    /// As [`checkpoint`](Self::checkpoint), but waits for readers, and empties the log. Whether
    /// that succeeded, or some reader stayed.
    pub(super) fn truncate_log(&self) -> Result<bool, StoreError> {
        self.one("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| {
            row.get(0).map(|is_busy: bool| !is_busy)
        })
    }
}

fn blob(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    row.get::<_, Vec<u8>>(column).map(Bytes::from)
}

//! Keeps the write-ahead log short, as far as this process can.
//!
//! The log is bounded only against snapshots of processes that commit: each withdraws its own, after
//! a commit that finds the log too long. Where another process only reads, with transactions that
//! overlap without a gap, the log grows for as long as it does so.

use super::super::StoreError;
use super::db::Db;
use super::pool::Pool;
use super::writer::wait_for_turn;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// Frames (pages) between two checkpoints: SQLite's own default.
const CHECKPOINT_FRAMES: i32 = 1000;

/// A log this long is not being reused, because some reader always needs its end: wait for a moment
/// without one. 64 MB.
const LONG_LOG_FRAMES: i32 = 16_000;

/// A log this long is not worth the snapshots that hold it: prefetched transactions, say, that
/// overlap so that one of them is always idle. They are withdrawn, which costs each one retry.
const LONGEST_LOG_FRAMES: i32 = 32_000;

/// How long to wait for that moment. It holds up commits, but not reads.
const READER_WAIT: Duration = Duration::from_millis(100);

/// Watches the log's length, from commit to commit.
///
/// SQLite would checkpoint inside the commit that fills the log, and again in each one after it
/// while a reader keeps the log from being reused; this does it after the commit was acknowledged,
/// and once per [`CHECKPOINT_FRAMES`].
#[derive(Debug)]
pub(super) struct Log {
    /// The log's length after the last commit. Set by SQLite, on this same thread.
    frames: Arc<AtomicI32>,
    last: i32,
    checkpoint_at: i32,
    restart_at: i32,
}

impl Log {
    pub(super) fn attach(db: &mut Db) -> Result<Self, StoreError> {
        let frames = Arc::new(AtomicI32::new(0));
        db.gauge_log(Arc::clone(&frames))?;
        Ok(Self {
            frames,
            last: 0,
            checkpoint_at: CHECKPOINT_FRAMES,
            restart_at: LONG_LOG_FRAMES,
        })
    }

    /// Checkpoints if the log has grown enough. A failure is no matter of the commits: the log is
    /// complete without, and the next try comes soon.
    pub(super) fn after_commit(&mut self, db: &mut Db, pool: &Pool) {
        let frames = self.frames.load(Ordering::Relaxed);
        if frames < self.last {
            // It was begun anew.
            self.checkpoint_at = CHECKPOINT_FRAMES;
            self.restart_at = LONG_LOG_FRAMES;
        }
        self.last = frames;
        if frames >= self.restart_at {
            self.restart_at = frames.saturating_add(LONG_LOG_FRAMES / 4);
            self.checkpoint_at = frames.saturating_add(CHECKPOINT_FRAMES);
            let emptied = empty(db, pool, frames >= LONGEST_LOG_FRAMES);
            warn_if_failed(emptied.and(wait_for_turn(db)));
        } else if frames >= self.checkpoint_at {
            self.checkpoint_at = frames.saturating_add(CHECKPOINT_FRAMES);
            warn_if_failed(db.checkpoint());
        }
    }
}

fn empty(db: &Db, pool: &Pool, at_any_price: bool) -> Result<(), StoreError> {
    db.wait_at_most(READER_WAIT)?;
    if !db.truncate_log()? && at_any_price {
        pool.withdraw_all();
        db.truncate_log()?;
    }
    Ok(())
}

fn warn_if_failed(checkpoint: Result<(), StoreError>) {
    if let Err(error) = checkpoint {
        tracing::warn!(error = %error, "the write-ahead log could not be moved into the file");
    }
}

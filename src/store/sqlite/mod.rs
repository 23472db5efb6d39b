//! The embedded backend: one SQLite file, any number of processes of one machine.
//!
//! | part | does |
//! |---|---|
//! | [`file`](mod@file) | finds, makes and recognises the file |
//! | [`db`] | a connection, with every SQL statement |
//! | [`transaction`] | a transaction: its buffered writes, its reads, its commit |
//! | [`snapshot`], [`pool`] | run the reads, on threads of their own |
//! | [`reads`] | what was read, and whether it still holds |
//! | [`writer`], [`group`], [`log`](mod@log) | commit: one thread, many transactions to an fsync |
//! | [`watch`], [`poller`] | tell who waits for a key, also of changes by other processes |

mod db;
mod error;
mod file;
mod group;
mod log;
mod poller;
mod pool;
mod reads;
mod snapshot;
mod transaction;
mod watch;
mod writer;

use super::{Store, StoreError, StoreErrorKind, Tx};
use crate::env::monotonic;
use file::StoreFile;
use futures_channel::oneshot;
use poller::Poller;
use pool::{Pool, READER_THREADS};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use transaction::SqliteTransaction;
use watch::Hub;
use writer::{Queue, Writer};

/// A store in one SQLite file, which several processes may have open at once.
///
/// Durable through any crash of the process or the machine: the write-ahead log is synced before a
/// commit is acknowledged. Readers never wait for writers. Commits of one process share a sync;
/// processes take turns, and when one cannot get its turn for five seconds, all commits that wait
/// in it by then, recent ones too, answer [`Unavailable`](StoreErrorKind::Unavailable).
///
/// The write-ahead log is kept below some 128 MB against this process's own readers: when it grows,
/// their snapshots are withdrawn, and their transactions run again. A process that reads all the
/// time and never commits can keep it from being emptied.
///
/// The file must lie on a local disk, since SQLite's locks and shared memory do not work over a
/// network; beside it SQLite keeps `PATH-wal` and `PATH-shm` while anyone has it open. Copy it with
/// SQLite's own tools or while nobody does.
///
/// Clones share the store. Its threads end, in the background, when the last clone and the last
/// transaction are dropped; what is queued by then is still
/// committed if the process lives long enough; await the commit to be sure.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

/// What the store's handles share. Dropping it ends the threads.
#[derive(Debug)]
struct Shared {
    pool: Arc<Pool>,
    queue: Arc<Queue>,
    hub: Arc<Hub>,
}

impl SqliteStore {
    /// Opens the store in the file `path`, which is made if it does not exist; its directory must.
    ///
    /// # Errors
    ///
    /// - [`InvalidStore`](StoreErrorKind::InvalidStore): the path or what lies there is unsuitable;
    ///   the message says why and what to do. Nothing is left behind, nothing was changed.
    /// - [`Unavailable`](StoreErrorKind::Unavailable): other processes kept it locked.
    /// - [`Corrupt`](StoreErrorKind::Corrupt), [`Failed`](StoreErrorKind::Failed): it is damaged, or
    ///   the system failed.
    ///
    /// # Cancel safety
    ///
    /// A store that was opened for a dropped future is closed again; a new file stays, empty.
    pub async fn open(path: &str) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let (sender, opened) = oneshot::channel();
        spawn("abide-open", move || {
            let _ = sender.send(Self::open_blocking(&path));
        })?;
        opened.await.unwrap_or_else(|_| Err(error::closed()))
    }

    fn open_blocking(path: &str) -> Result<Self, StoreError> {
        // Ages are counted from the first look at the clock; let that not be a transaction's.
        monotonic();
        let file = StoreFile::open(path)?;
        let hub = Arc::new(Hub::default());
        let queue = Arc::new(Queue::default());
        let pool = Arc::new(Pool::new(Arc::clone(&file)));
        let writer = Writer::new(
            Arc::clone(&file),
            Arc::clone(&queue),
            Arc::clone(&hub),
            Arc::clone(&pool),
        )?;
        let poller = Poller::new(file, Arc::clone(&hub));
        // From here on a failure drops this, which ends the threads that did start.
        let shared = Arc::new(Shared { pool, queue, hub });
        spawn("abide-writer", move || writer.run())?;
        spawn("abide-watch", move || poller.run())?;
        for _ in 0..READER_THREADS {
            let pool = Arc::clone(&shared.pool);
            spawn("abide-reader", move || pool.serve())?;
        }
        Ok(Self { shared })
    }
}

impl Store for SqliteStore {
    fn begin(&self) -> Result<Tx, StoreError> {
        Ok(Arc::new(SqliteTransaction::new(Arc::clone(&self.shared))))
    }
}

impl Drop for Shared {
    /// Never waits: this may run on an async thread, or on one of the threads that it ends.
    fn drop(&mut self) {
        self.pool.close();
        self.queue.close();
        self.hub.close();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(drop)
        .map_err(|error| {
            StoreError::new(StoreErrorKind::Failed)
                .with_context("no thread for the store; raise the limit of threads")
                .with_source(error)
        })
}

/// Locks, whatever happened to others who held the lock: every critical section here leaves its
/// data consistent at each step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The cluster backend: FoundationDB through its C client.
//!
//! FoundationDB's semantics are the contract of [`Store`], so this is a thin layer. It adds what
//! the client leaves to its callers: a bounded, explained failure to open; the limits checked where
//! the call is made; and the client's error codes sorted by what a caller can do.
//!
//! The facts behind the choices are FoundationDB's documentation and source, and the tests in
//! `tests/fdb_*.rs`; running it is described in `src/docs/foundationdb.md`.

mod cluster_file;
mod errors;
mod network;
mod transaction;

use super::{Store, StoreError, StoreErrorKind, Tx};
use foundationdb::options::{DatabaseOption, TransactionOption};
use futures_util::future::{Either, select};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use transaction::FdbTransaction;

/// How long an open waits for the cluster. A cluster that works answers within milliseconds, one
/// that recovers within a few seconds.
const OPEN_WAIT: Duration = Duration::from_secs(9);

/// How much longer it waits for the client itself, whose own timer should have fired.
const OPEN_GRACE: Duration = Duration::from_millis(500);

/// How many watches one store may have at once. FoundationDB's default is 10 000; it allows a
/// million. A watch costs the cluster some hundred bytes.
const MAX_WATCHES: i32 = 100_000;

/// A store in a FoundationDB cluster.
///
/// Clones share the connection. All stores of a process share one *network thread* of the client,
/// which is started with the first of them and, once a cluster has answered, stopped when the
/// process exits; it bounds the throughput of a process, not of a cluster.
///
/// - **Client library**: `libfdb_c` 7.3 or newer. The API version is 730.
/// - **Knob**: `future_version_retry_delay` is set to 1 ms, because its default of 10 ms is what a
///   fired watch waits in the worst case. Set that knob in `FDB_NETWORK_OPTION_KNOB` to choose
///   another value. Every network option can be given as `FDB_NETWORK_OPTION_<NAME>`.
/// - **Timeouts**: none on transactions. A commit that the client gave up might still be applied,
///   and the client would not even say so. Stop waiting instead, and treat the outcome as unknown.
/// - **Watches**: at most 100 000 at a time for each opened store; more fail with
///   [`Unavailable`](StoreErrorKind::Unavailable).
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), abide::store::StoreError> {
/// use abide::store::{FdbStore, Store};
///
/// let store = FdbStore::open("/etc/foundationdb/fdb.cluster").await?;
/// let tx = store.begin()?;
/// tx.set(b"greeting", b"hello");
/// let committed = tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FdbStore {
    database: Arc<foundationdb::Database>,
    name: Arc<str>,
}

impl FdbStore {
    /// Opens the cluster that a cluster file names.
    ///
    /// An empty path finds the file as FoundationDB's own tools do: the environment variable
    /// `FDB_CLUSTER_FILE` (if that is set and wrong, nothing else is tried), `./fdb.cluster`, then
    /// the system's default, `/etc/foundationdb/fdb.cluster` on Linux.
    ///
    /// The client keeps the file up to date when the cluster's coordinators change, for which it
    /// needs write access to the file and its directory.
    ///
    /// # Errors
    ///
    /// - [`InvalidStore`](StoreErrorKind::InvalidStore) when the cluster file is missing, unreadable
    ///   or malformed, or the client library or a network option does not fit. No file is created.
    /// - [`InvalidCall`](StoreErrorKind::InvalidCall) when the program has started the client's
    ///   network by itself: see [`from_database`](Self::from_database).
    /// - [`Unavailable`](StoreErrorKind::Unavailable) when the cluster does not answer within ten
    ///   seconds.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind but the started network thread. If no cluster has
    /// answered, a process that exits within 200 ms of that start waits for the rest of them.
    pub async fn open(path: &str) -> Result<Self, StoreError> {
        let path = cluster_file::find(path)?;
        network::start()?;
        let database = foundationdb::Database::from_path(&path)
            .map_err(|error| errors::opening(error, &path))?;
        let store = Self::new(Arc::new(database), path.as_str().into())?;
        store.probe().await?;
        network::stop_at_exit();
        Ok(store)
    }

    /// A store on a database that the program opened by itself.
    ///
    /// For programs that also use FoundationDB directly: a process can start the client's network
    /// only once, so a program that does must do so itself, before it opens a store, and stop it at
    /// its end. The knob that [`FdbStore`] describes is then the program's to set. Does no I/O.
    ///
    /// # Errors
    ///
    /// [`InvalidStore`](StoreErrorKind::InvalidStore) when the client refuses the watch limit.
    pub fn from_database(database: Arc<foundationdb::Database>) -> Result<Self, StoreError> {
        Self::new(database, "a database of the program".into())
    }

    fn new(database: Arc<foundationdb::Database>, name: Arc<str>) -> Result<Self, StoreError> {
        database
            .set_option(DatabaseOption::MaxWatches(MAX_WATCHES))
            .map_err(|error| errors::opening(error, &name))?;
        Ok(Self { database, name })
    }

    /// Reads one key, so that a cluster that cannot be reached is an error and not a hang.
    async fn probe(&self) -> Result<(), StoreError> {
        let answered = pin!(self.read_once());
        let too_late = pin!(elapsed(OPEN_WAIT + OPEN_GRACE));
        match select(answered, too_late).await {
            Either::Left((Ok(()), _)) => Ok(()),
            Either::Left((Err(error), _)) => Err(errors::opening(error, &self.name)),
            Either::Right(((), _)) => Err(unreachable_cluster(&self.name)),
        }
    }

    /// The client's own timeout is used here and nowhere else: this transaction writes nothing.
    async fn read_once(&self) -> Result<(), foundationdb::FdbError> {
        let mut transaction = self.database.create_trx()?;
        let milliseconds = i32::try_from(OPEN_WAIT.as_millis()).unwrap_or(i32::MAX);
        transaction.set_option(TransactionOption::Timeout(milliseconds))?;
        loop {
            // A locked cluster can be opened: its transactions will say `Locked` until it is not.
            transaction.set_option(TransactionOption::ReadLockAware)?;
            match transaction.get(b"", true).await {
                Ok(_) => return Ok(()),
                // Fails on what is not retryable, and on the timeout, which spans the retries.
                Err(error) => transaction = transaction.on_error(error).await?,
            }
        }
    }
}

impl fmt::Debug for FdbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FdbStore")
            .field("cluster", &self.name)
            .finish_non_exhaustive()
    }
}

impl Store for FdbStore {
    fn begin(&self) -> Result<Tx, StoreError> {
        let transaction = self.database.create_trx().map_err(errors::reading)?;
        Ok(Arc::new(FdbTransaction::new(
            transaction,
            Arc::clone(&self.database),
        )))
    }

    fn read_versions_cost(&self) -> bool {
        true
    }
}

fn unreachable_cluster(name: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable).with_context(format!(
        "`{name}`: the cluster did not answer within {} s; check that its servers run, that the \
         addresses in the cluster file are theirs and can be reached from here, and that the \
         database was configured (`fdbcli --exec status`)",
        OPEN_WAIT.as_secs()
    ))
}

/// Completes after `wait`. A thread of its own, because it bounds a client that hangs, in a place
/// that knows no runtime; it ends when the future is dropped.
fn elapsed(wait: Duration) -> impl Future<Output = ()> {
    let (keep, dropped) = channel::<()>();
    let (done, waiting) = futures_channel::oneshot::channel();
    let timer = std::thread::Builder::new().name("abide-fdb-open".into());
    let spawned = timer.spawn(move || {
        if dropped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            let _ = done.send(());
        }
    });
    async move {
        // Without a thread for it there is no outer bound; the client's own timeout remains.
        if spawned.is_err() || waiting.await.is_err() {
            std::future::pending::<()>().await;
        }
        drop(keep);
    }
}

//! The store: a strictly serializable, ordered key-value store with versionstamps and watches.
//!
//! Everything abide promises rests on these two traits. [`Store`] begins transactions,
//! [`Transaction`] reads and writes; both are dyn-compatible and say per method what a correct
//! backend does. The semantics are FoundationDB's, on every backend, limits included: what passes
//! on SQLite passes on FoundationDB. The conformance suite (`abide::testing::conformance`, feature
//! `testing`) checks all of it.
//!
//! | backend | URL | for |
//! |---|---|---|
//! | `memory` | `memory:` | tests; every fault can be injected |
//! | `sqlite` | `sqlite:PATH` | one machine, any number of processes |
//! | `fdb` | `fdb:` or `fdb:PATH` | a cluster |
//!
//! Users of a store want [`Database`], which adds the one retry loop, and [`TransactionExt`].

mod buffer;
mod error;
mod ext;
#[cfg(feature = "fdb")]
mod fdb;
mod limits;
pub mod memory;
mod open;
mod retry;
#[cfg(feature = "sqlite")]
mod sqlite;
mod types;

pub use error::{StoreError, StoreErrorKind};
pub use ext::TransactionExt;
#[cfg(feature = "fdb")]
pub use fdb::FdbStore;
pub use limits::{MAX_KEY_BYTES, MAX_TRANSACTION_AGE, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES};
pub use memory::MemoryStore;
pub use open::open;
pub use retry::{Attempt, Completed, Database, OnUnknown, RetryPolicy, StoreCause};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
pub use types::{
    CommitStamp, Committed, Isolation, KeyRange, KeyValue, RangeRead, Stamp, USER_SPACE_END,
    Version, after,
};

use crate::env::BoxFuture;
use bytes::Bytes;
use std::fmt::Debug;
use std::sync::Arc;

/// What the asynchronous methods of a store return: a future that borrows nothing, so that several
/// reads of one transaction can be under way at once and outlive the call that asked.
pub type StoreFuture<T> = BoxFuture<'static, Result<T, StoreError>>;

/// A handle of a transaction. Clones share the one transaction.
pub type Tx = Arc<dyn Transaction>;

/// A strictly serializable, ordered key-value store.
///
/// A correct store:
/// - gives every transaction a consistent view of the data at one version, its *read version*;
/// - orders all commits that write, such that each committed transaction's serializable reads are
///   what they would be if it had run alone at its place in that order;
/// - never gives a read version older than a commit that was acknowledged, to anyone, before the
///   read version was asked for (strictness);
/// - keeps what it acknowledged through any crash that its documentation covers.
pub trait Store: Debug + Send + Sync + 'static {
    /// Begins a transaction.
    ///
    /// Does no I/O: the read version is obtained with the first read, with
    /// [`Transaction::read_version`], or at commit.
    ///
    /// # Errors
    ///
    /// When the store was closed or has failed for good.
    fn begin(&self) -> Result<Tx, StoreError>;

    /// Whether obtaining a read version costs a round trip, so that a transaction that goes on from
    /// the version of the last commit ([`Transaction::set_read_version`]) is faster than a fresh one.
    ///
    /// A hint: nothing is wrong with either answer.
    fn read_versions_cost(&self) -> bool {
        false
    }
}

/// A transaction: reads at one version, buffered writes, and a commit that takes all or nothing.
///
/// All methods take `&self`, so reads may run side by side. A transaction is used up by its commit;
/// dropping the last handle of one that was not committed forgets its writes.
///
/// Keys are the byte strings below `0xff`, the empty key included, compared bytewise.
/// A write that breaks a rule (a limit, the key space) fails the transaction: the error is returned
/// by the commit at the latest, and nothing is committed.
///
/// # Cancel safety
///
/// Dropping the future of a read cancels nothing that others see; the read may still count as a
/// conflict. Dropping the future of a commit leaves the outcome unknown.
pub trait Transaction: Debug + Send + Sync + 'static {
    /// Reads one key.
    ///
    /// A correct store:
    /// - returns the value as of the read version with this transaction's earlier writes applied,
    ///   under either isolation;
    /// - makes a serializable read of anything but this transaction's own plain writes a read
    ///   conflict on the key;
    /// - returns [`Unreadable`](StoreErrorKind::Unreadable) where the value depends on this
    ///   transaction's stamp, and fails the transaction with it.
    fn get(&self, key: &[u8], isolation: Isolation) -> StoreFuture<Option<Bytes>>;

    /// Reads the pairs of a range, in byte order or its reverse, up to the limit.
    ///
    /// A correct store, besides what it does for [`get`](Self::get):
    /// - conflicts, when the read came back full (as many pairs as its limit), from the side it
    ///   began at up to the last key it returned, that key included;
    /// - conflicts, when it came back short, on the whole range: a phantom fails the commit;
    /// - returns nothing and adds no conflict for an empty range or a limit of zero;
    /// - refuses a range whose begin is above its end
    ///   ([`InvalidCall`](StoreErrorKind::InvalidCall)).
    ///
    /// The answer is collected in memory: pass a limit wherever the range can be large, or use
    /// [`TransactionExt::for_each_page`].
    fn get_range(&self, read: RangeRead) -> StoreFuture<Vec<KeyValue>>;

    /// Sets a key to a value. Blind: adds no read conflict.
    fn set(&self, key: &[u8], value: &[u8]);

    /// Removes a key, if it is there. Blind.
    fn clear(&self, key: &[u8]);

    /// Removes all keys of a range. Blind. An inverted range fails the transaction.
    fn clear_range(&self, range: &KeyRange);

    /// Adds a little-endian integer to the one stored at `key`. Blind: never conflicts with other
    /// such additions.
    ///
    /// A correct store gives the result the length of `operand`; it takes a missing value as zero,
    /// extends a shorter one with zeros, cuts a longer one off, and wraps on overflow.
    fn add(&self, key: &[u8], operand: &[u8]);

    /// Removes `key` if its value at the commit equals `expected`. Blind.
    fn compare_and_clear(&self, key: &[u8], expected: &[u8]);

    /// Sets `template`, with the ten bytes at `offset` replaced by the commit's stamp, to `value`.
    ///
    /// A correct store conflicts with readers of the final key only, never with other writers, and
    /// makes a read of this transaction that covers where the key may come to lie
    /// [`Unreadable`](StoreErrorKind::Unreadable). An offset that leaves no room for the stamp fails
    /// the transaction. The two bytes behind the stamp are the caller's: the *user version* that
    /// keeps several such keys of one transaction apart.
    fn set_versionstamped_key(&self, template: &[u8], offset: usize, value: &[u8]);

    /// Sets `key` to `template` with the ten bytes at `offset` replaced by the commit's stamp.
    ///
    /// Reading the key afterwards in this transaction is
    /// [`Unreadable`](StoreErrorKind::Unreadable). Atomic operations on the same key that came
    /// before in this transaction apply before.
    fn set_versionstamped_value(&self, key: &[u8], template: &[u8], offset: usize);

    /// Makes the commit fail if another transaction changes a key of `range` after the read version.
    ///
    /// Keys that this transaction has already set or cleared are left out, silently: add the
    /// conflict first and write second. (FoundationDB does so; every backend follows, so that the
    /// mistake shows everywhere.)
    fn add_read_conflict(&self, range: &KeyRange);

    /// The version at which this transaction reads; obtains it if there is none yet.
    ///
    /// A correct store returns the same version each time, and one that includes every commit
    /// acknowledged before it was obtained.
    fn read_version(&self) -> StoreFuture<Version>;

    /// Reads at `version` instead of obtaining a read version.
    ///
    /// Only before the first read; later it fails the transaction
    /// ([`InvalidCall`](StoreErrorKind::InvalidCall)). A correct store shows exactly the commits up to `version`, or
    /// fails reads and the commit with [`TooOld`](StoreErrorKind::TooOld) where it cannot. A store
    /// for which read versions cost nothing may do so for every version but the newest.
    fn set_read_version(&self, version: Version);

    /// Watches a key: the future completes when the key's value differs from what this transaction
    /// sees, its own writes included.
    ///
    /// A correct store:
    /// - arms the watch when the transaction commits (a read-only commit counts) and fails it when
    ///   the transaction fails or is dropped;
    /// - may complete it although nothing changed, or although the value changed back, but never
    ///   misses a change that lasts;
    /// - counts the watch as a serializable read of the key, so arm watches in transactions that
    ///   write nothing;
    /// - frees everything when the future is dropped.
    ///
    /// When the last handle of the store itself is dropped, its watches may end with an error.
    ///
    /// Back every watch with a slow poll all the same: a watch can be lost with its connection.
    fn watch(&self, key: &[u8]) -> StoreFuture<()>;

    /// Commits: checks the read conflicts and applies the writes, all or nothing.
    ///
    /// A correct store returns `None` for a transaction that wrote nothing, and does not check its
    /// reads. Otherwise it returns the version and stamp of the commit once it is durable, and:
    /// - [`Conflict`](StoreErrorKind::Conflict) when another transaction changed what this one read;
    /// - [`MaybeCommitted`](StoreErrorKind::MaybeCommitted), and nothing else, when the writes may
    ///   have been or may yet be applied;
    /// - any other error only when the writes are not and will not be applied.
    ///
    /// The transaction cannot be used afterwards ([`InvalidCall`](StoreErrorKind::InvalidCall)).
    fn commit(&self) -> StoreFuture<Option<Committed>>;
}

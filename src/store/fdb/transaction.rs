//! A transaction of the client behind the store's [`Transaction`].

use super::errors;
use crate::store::limits::{
    check_key, check_range, check_stamped_key, check_stamped_value, check_value,
};
use crate::store::types::after;
use crate::store::{
    CommitStamp, Committed, Isolation, KeyRange, KeyValue, RangeRead, StoreError, StoreErrorKind,
    StoreFuture, Transaction, Version,
};
use bytes::Bytes;
use foundationdb::future::FdbValues;
use foundationdb::options::{ConflictRangeType, MutationType, StreamingMode};
use foundationdb::{FdbResult, KeySelector, RangeOption};
use std::fmt;
use std::future::{Future, ready};
use std::sync::{Arc, Mutex, PoisonError};

/// One transaction.
///
/// Each method makes its call to the client before it returns: so reads are under way at once, and
/// the order of calls is the order in which the client sees them.
pub(super) struct FdbTransaction {
    shared: Arc<Shared>,
}

/// What the transaction's handle and its unfinished reads own together: a read stays valid when
/// the handle is dropped. A watch does not own it, as it has to fail in that case.
struct Shared {
    state: Mutex<State>,
    /// Outlives the transaction, so that the last watch or read does not close the connection
    /// that it waits for.
    database: Arc<foundationdb::Database>,
}

struct State {
    /// Taken by the commit, since the client's commit consumes it.
    client: Option<foundationdb::Transaction>,
    /// The first write that broke a rule. The commit will return it.
    broken: Option<StoreError>,
    /// Whether there may be something to commit.
    wrote: bool,
}

impl FdbTransaction {
    pub(super) fn new(
        client: foundationdb::Transaction,
        database: Arc<foundationdb::Database>,
    ) -> Self {
        let state = State {
            client: Some(client),
            broken: None,
            wrote: false,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                database,
            }),
        }
    }

    /// A write that was checked: applied, or remembered as the reason why the commit fails.
    fn write(
        &self,
        checked: Result<(), StoreError>,
        apply: impl FnOnce(&foundationdb::Transaction),
    ) {
        self.shared.with(|state| match (checked, &state.client) {
            (Ok(()), Some(client)) => {
                apply(client);
                state.wrote = true;
            }
            (Err(error), _) => {
                state.broken.get_or_insert(error);
            }
            // Used after its commit: the next thing with a result says so.
            (Ok(()), None) => {}
        });
    }

    /// Boxes a read that was begun, or the reason why it was not.
    fn reading<T, F, U>(
        &self,
        begun: Result<F, StoreError>,
        convert: impl FnOnce(T) -> U + Send + 'static,
    ) -> StoreFuture<U>
    where
        F: Future<Output = FdbResult<T>> + Send + 'static,
        T: 'static,
        U: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let answer = begun?.await.map_err(errors::reading)?;
            drop(shared);
            Ok(convert(answer))
        })
    }
}

impl Shared {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        // Nothing that runs under the lock leaves the state half changed, so a panic in it would
        // be no reason to fail here too.
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls the client, unless the commit has taken the transaction.
    fn call<T>(&self, f: impl FnOnce(&foundationdb::Transaction) -> T) -> Result<T, StoreError> {
        self.with(|state| state.client.as_ref().map(f).ok_or_else(used_up))
    }
}

fn used_up() -> StoreError {
    StoreError::new(StoreErrorKind::InvalidCall)
        .with_context("the transaction was committed before; begin another one")
}

impl fmt::Debug for FdbTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.with(|state| {
            f.debug_struct("FdbTransaction")
                .field("committed", &state.client.is_none())
                .field("wrote", &state.wrote)
                .field("broken", &state.broken)
                .finish()
        })
    }
}

impl Transaction for FdbTransaction {
    fn get(&self, key: &[u8], isolation: Isolation) -> StoreFuture<Option<Bytes>> {
        let begun = check_key(key).and_then(|()| {
            self.shared
                .call(|client| client.get(key, is_snapshot(isolation)))
        });
        self.reading(begun, |value| {
            value.map(|value| Bytes::copy_from_slice(&value))
        })
    }

    fn get_range(&self, read: RangeRead) -> StoreFuture<Vec<KeyValue>> {
        if let Err(error) = check_range(&read.range) {
            return Box::pin(ready(Err(error)));
        }
        if read.range.is_empty() || read.limit == 0 {
            return Box::pin(ready(Ok(Vec::new())));
        }
        let shared = Arc::clone(&self.shared);
        let first = request(&shared, &read);
        Box::pin(async move { collect(&shared, read, first).await })
    }

    fn set(&self, key: &[u8], value: &[u8]) {
        self.write(check_key(key).and_then(|()| check_value(value)), |client| {
            client.set(key, value);
        });
    }

    fn clear(&self, key: &[u8]) {
        self.write(check_key(key), |client| client.clear(key));
    }

    fn clear_range(&self, range: &KeyRange) {
        self.write(check_range(range), |client| {
            client.clear_range(&range.begin, &range.end);
        });
    }

    fn add(&self, key: &[u8], operand: &[u8]) {
        self.write(
            check_key(key).and_then(|()| check_value(operand)),
            |client| {
                client.atomic_op(key, operand, MutationType::Add);
            },
        );
    }

    fn compare_and_clear(&self, key: &[u8], expected: &[u8]) {
        self.write(
            check_key(key).and_then(|()| check_value(expected)),
            |client| {
                client.atomic_op(key, expected, MutationType::CompareAndClear);
            },
        );
    }

    fn set_versionstamped_key(&self, template: &[u8], offset: usize, value: &[u8]) {
        let checked = check_stamped_key(template, offset).and_then(|()| check_value(value));
        self.write(checked, |client| {
            let template = with_offset(template, offset);
            client.atomic_op(&template, value, MutationType::SetVersionstampedKey);
        });
    }

    fn set_versionstamped_value(&self, key: &[u8], template: &[u8], offset: usize) {
        let checked = check_key(key).and_then(|()| check_stamped_value(template, offset));
        self.write(checked, |client| {
            let template = with_offset(template, offset);
            client.atomic_op(key, &template, MutationType::SetVersionstampedValue);
        });
    }

    fn add_read_conflict(&self, range: &KeyRange) {
        let added = check_range(range).and_then(|()| {
            let kind = ConflictRangeType::Read;
            self.shared
                .call(|client| client.add_conflict_range(&range.begin, &range.end, kind))?
                .map_err(errors::reading)
        });
        if let Err(error) = added {
            self.shared.with(|state| {
                state.broken.get_or_insert(error);
            });
        }
    }

    fn read_version(&self) -> StoreFuture<Version> {
        let begun = self
            .shared
            .call(foundationdb::Transaction::get_read_version);
        // The client's versions are never negative.
        self.reading(begun, |version| Version(version.unsigned_abs()))
    }

    fn set_read_version(&self, version: Version) {
        // A version beyond the client's range is one that the cluster has not reached, like its
        // greatest: reads will fail with `TooOld`. A used-up transaction needs no version.
        let version = i64::try_from(version.0).unwrap_or(i64::MAX);
        let _ = self.shared.call(|client| client.set_read_version(version));
    }

    fn watch(&self, key: &[u8]) -> StoreFuture<()> {
        let armed = check_key(key).and_then(|()| self.shared.call(|client| client.watch(key)));
        let database = Arc::clone(&self.shared.database);
        Box::pin(async move {
            let fired = armed?.await;
            drop(database);
            fired.map_err(errors::watching)
        })
    }

    fn commit(&self) -> StoreFuture<Option<Committed>> {
        let (client, broken, wrote) = self
            .shared
            .with(|state| (state.client.take(), state.broken.take(), state.wrote));
        match (client, broken) {
            (None, _) => Box::pin(ready(Err(used_up()))),
            // Dropping the client's transaction forgets its writes and fails its watches.
            (Some(_), Some(error)) => Box::pin(ready(Err(error))),
            (Some(client), None) => {
                // The client hands out the stamp's future only before the commit.
                let stamp = wrote.then(|| client.get_versionstamp());
                let commit = client.commit();
                let database = Arc::clone(&self.shared.database);
                Box::pin(async move {
                    let done = commit
                        .await
                        .map_err(|error| errors::committing(*error, wrote))?;
                    // From here on the writes are durable, so that every error means "unknown".
                    let version = done.committed_version().map_err(errors::unknown_outcome)?;
                    let (Some(stamp), Ok(version)) = (stamp, u64::try_from(version)) else {
                        // Nothing was written: the version of a read-only commit is -1.
                        return Ok(None);
                    };
                    let stamp = stamp.await.map_err(errors::unknown_outcome)?;
                    drop(database);
                    Ok(Some(Committed {
                        version: Version(version),
                        stamp: commit_stamp(&stamp)?,
                    }))
                })
            }
        }
    }
}

fn is_snapshot(isolation: Isolation) -> bool {
    isolation == Isolation::Snapshot
}

/// The client's form of a versionstamped key or value: the template, then the offset of the stamp.
fn with_offset(template: &[u8], offset: usize) -> Vec<u8> {
    // The limits of keys and values, which were checked, are far below.
    let offset = u32::try_from(offset).unwrap_or(u32::MAX);
    [template, &offset.to_le_bytes()].concat()
}

fn commit_stamp(bytes: &[u8]) -> Result<CommitStamp, StoreError> {
    let bytes = bytes.try_into().map_err(|_| {
        StoreError::new(StoreErrorKind::MaybeCommitted).with_context(format!(
            "it committed with a stamp of {} bytes",
            bytes.len()
        ))
    })?;
    Ok(CommitStamp::from_bytes(bytes))
}

/// Asks for the rest of a range.
///
/// With a limit all of it comes in one answer; without one the client sends as much as is
/// efficient, and more on request.
fn request(
    shared: &Shared,
    read: &RangeRead,
) -> Result<impl Future<Output = FdbResult<FdbValues>> + Send + use<>, StoreError> {
    let limited = i32::try_from(read.limit).is_ok();
    let options = RangeOption {
        begin: KeySelector::first_greater_or_equal(read.range.begin.as_ref()),
        end: KeySelector::first_greater_or_equal(read.range.end.as_ref()),
        limit: limited.then_some(read.limit),
        mode: if limited {
            StreamingMode::Exact
        } else {
            StreamingMode::WantAll
        },
        reverse: read.reverse,
        ..RangeOption::default()
    };
    shared.call(|client| client.get_range(&options, 1, is_snapshot(read.isolation)))
}

/// Collects the answers to one read. Each adds its own conflict, up to its last key or, the last
/// one, to the end of the range: together they are what the contract asks for.
async fn collect(
    shared: &Shared,
    mut read: RangeRead,
    first: Result<impl Future<Output = FdbResult<FdbValues>> + Send, StoreError>,
) -> Result<Vec<KeyValue>, StoreError> {
    let mut rows = Vec::new();
    let mut answer = first?.await.map_err(errors::reading)?;
    loop {
        rows.extend(answer.iter().map(|row| KeyValue {
            key: Bytes::copy_from_slice(row.key()),
            value: Bytes::copy_from_slice(row.value()),
        }));
        read.limit = read.limit.saturating_sub(answer.len());
        let last = match rows.last() {
            Some(last) if answer.more() && read.limit > 0 => &last.key,
            _ => return Ok(rows),
        };
        if read.reverse {
            read.range.end = last.clone();
        } else {
            read.range.begin = after(last);
        }
        answer = request(shared, &read)?.await.map_err(errors::reading)?;
    }
}

//! A transaction: buffered writes over a snapshot, and the commit that hands them to the writer.

use super::super::buffer::{Lookup, WriteBuffer};
use super::super::limits::{check_key, check_range};
use super::super::{
    Committed, Isolation, KeyRange, KeyValue, RangeRead, StoreError, StoreErrorKind, StoreFuture,
    Transaction, Version,
};
use super::error::{closed, used};
use super::pool::Lease;
use super::reads::ReadSet;
use super::snapshot::{Kept, Snapshot};
use super::watch::PendingWatch;
use super::writer::{Basis, Outcome, Request};
use super::{Shared, lock};
use bytes::Bytes;
use futures_channel::oneshot;
use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard};

pub(super) struct SqliteTransaction {
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    /// Filled by the reads as they run, off this thread.
    reads: Arc<Mutex<ReadSet>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Copied on write, since a range read that has not run yet sees the writes before it only.
    buffer: Arc<WriteBuffer>,
    /// Whether a read was submitted, so that there is or will be a snapshot.
    begun: bool,
    /// Explicit conflicts. Without a snapshot they mean nothing: a read version that is obtained at
    /// the commit leaves no time for a conflict.
    conflicts: Vec<KeyRange>,
    used: bool,
}

impl SqliteTransaction {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            snapshot: Snapshot::new(Arc::clone(&shared.pool)),
            shared,
            reads: Arc::default(),
            state: Mutex::default(),
        }
    }

    fn usable(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = lock(&self.state);
        if state.used { Err(used()) } else { Ok(state) }
    }

    /// Changes the buffered writes. After the commit there is nobody to tell but the next commit,
    /// which fails anyway.
    fn write(&self, change: impl FnOnce(&mut WriteBuffer)) {
        if let Ok(mut state) = self.usable() {
            change(Arc::make_mut(&mut state.buffer));
        }
    }

    fn submit(
        &self,
        state: &mut State,
        job: impl FnOnce(Result<&Lease, StoreError>) + Send + 'static,
    ) {
        self.snapshot.submit(Box::new(job));
        state.begun = true;
    }

    /// Reads on the snapshot, off the caller's thread.
    fn read<T: Send + 'static>(
        &self,
        state: &mut State,
        read: impl FnOnce(&Lease) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<T> {
        let (sender, answer) = oneshot::channel();
        self.submit(state, move |lease| {
            // Who dropped the future does not want to know; the conflict counts all the same.
            let _ = sender.send(lease.and_then(read));
        });
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn try_get(
        &self,
        key: &[u8],
        isolation: Isolation,
    ) -> Result<StoreFuture<Option<Bytes>>, StoreError> {
        let mut state = self.usable()?;
        check_key(key)?;
        let pending = match state.buffer.lookup(key)? {
            Lookup::Known(value) => return Ok(Box::pin(ready(Ok(value)))),
            Lookup::Stored(pending) => pending,
        };
        let key = Bytes::copy_from_slice(key);
        let reads = (isolation == Isolation::Serializable).then(|| Arc::clone(&self.reads));
        Ok(self.read(&mut state, move |lease| {
            let stored = lease.db.get(&key)?;
            if let Some(reads) = reads {
                lock(&reads).add_point(key, stored.clone());
            }
            Ok(pending.finish(stored))
        }))
    }

    fn try_get_range(&self, read: RangeRead) -> Result<StoreFuture<Vec<KeyValue>>, StoreError> {
        let mut state = self.usable()?;
        check_range(&read.range)?;
        if read.range.is_empty() || read.limit == 0 {
            return Ok(Box::pin(ready(Ok(Vec::new()))));
        }
        let writes = Arc::clone(&state.buffer);
        let reads = (read.isolation == Isolation::Serializable).then(|| Arc::clone(&self.reads));
        Ok(self.read(&mut state, move |lease| {
            let mut seen = Vec::new();
            let merged = lease.db.scan(&read.range, read.reverse, |rows| {
                let rows = rows.inspect(|row| {
                    if let (Some(_), Ok(row)) = (&reads, row) {
                        seen.push(row.clone());
                    }
                });
                writes.merge(&read, rows)
            })?;
            if let Some(reads) = reads {
                let parts = writes.unwritten(&merged.covered);
                lock(&reads).add_parts(parts, &seen, read.reverse);
            }
            Ok(merged.rows)
        }))
    }

    fn try_watch(&self, key: &[u8]) -> Result<StoreFuture<()>, StoreError> {
        let mut state = self.usable()?;
        check_key(key)?;
        let key = Bytes::copy_from_slice(key);
        let (mut watch, fired) = self.shared.hub.watch(key.clone());
        let reads = Arc::clone(&self.reads);
        // The commit of a transaction that writes looks at the value once more; see `Group`.
        if let Ok(Lookup::Known(_)) | Err(_) = state.buffer.lookup(&key) {
            lock(&reads).watches.push(watch);
            return Ok(fired);
        }
        self.submit(&mut state, move |lease| {
            match lease.and_then(|lease| lease.db.get(&key)) {
                Ok(value) => {
                    watch.armed = value.clone();
                    let mut reads = lock(&reads);
                    reads.add_point(key, value);
                    reads.watches.push(watch);
                }
                Err(error) => {
                    lock(&reads).failed = Some(error.clone());
                    watch.fail(error);
                }
            }
        });
        Ok(fired)
    }

    fn try_commit(&self) -> Result<StoreFuture<Option<Committed>>, StoreError> {
        let State {
            buffer,
            begun,
            conflicts,
            ..
        } = {
            let mut state = self.usable()?;
            let spent = State {
                used: true,
                ..State::default()
            };
            std::mem::replace(&mut *state, spent)
        };
        let exact = match self.snapshot.wanted() {
            Some(version) if !begun && !conflicts.is_empty() => Some(version),
            _ => None,
        };
        let (reply, outcome) = oneshot::channel();
        let ending = Ending {
            shared: Arc::clone(&self.shared),
            reads: Arc::clone(&self.reads),
            buffer,
            conflicts: if begun { conflicts } else { Vec::new() },
            exact,
        };
        self.snapshot
            .finish(Box::new(move |snapshot| ending.run(snapshot, reply)));
        Ok(Box::pin(async move {
            // The writer answers everything it took, unless its thread died in the middle.
            outcome
                .await
                .unwrap_or_else(|_| Err(StoreErrorKind::MaybeCommitted.into()))
        }))
    }
}

/// A commit, once all reads of its transaction have run.
struct Ending {
    shared: Arc<Shared>,
    reads: Arc<Mutex<ReadSet>>,
    buffer: Arc<WriteBuffer>,
    /// Explicit ones, to be read on the snapshot.
    conflicts: Vec<KeyRange>,
    /// The version that was set but never read at.
    exact: Option<Version>,
}

impl Ending {
    fn run(self, snapshot: Result<Option<Kept>, StoreError>, reply: oneshot::Sender<Outcome>) {
        let mut reads = std::mem::take(&mut *lock(&self.reads));
        reads.add_unread(self.conflicts);
        let watches = std::mem::take(&mut reads.watches);
        let mut buffer = Arc::unwrap_or_clone(self.buffer);
        if buffer.is_empty() {
            let outcome = buffer.take().map(|_| None);
            match &outcome {
                Ok(_) => self.shared.hub.arm(watches),
                Err(error) => fail_all(watches, error),
            }
            let _ = reply.send(outcome);
            return;
        }
        for range in reads.conflict_ranges() {
            buffer.count_conflict(&range);
        }
        // A broken rule is told before bad luck: running the transaction again would not help.
        let request = buffer.take().and_then(|mutations| {
            let snapshot = snapshot?;
            match reads.failed.take() {
                Some(error) => Err(error),
                None => Ok((mutations, snapshot)),
            }
        });
        match request {
            Ok((mutations, snapshot)) => self.shared.queue.push(Request {
                mutations,
                basis: match (snapshot, self.exact) {
                    (Some(snapshot), _) if !reads.is_empty() => {
                        Basis::Read(Box::new((snapshot, reads)))
                    }
                    (None, Some(version)) => Basis::Exactly(version),
                    _ => Basis::Blind,
                },
                watches,
                reply,
            }),
            Err(error) => {
                fail_all(watches, &error);
                let _ = reply.send(Err(error));
            }
        }
    }
}

fn fail_all(watches: Vec<PendingWatch>, error: &StoreError) {
    for watch in watches {
        watch.fail(error.clone());
    }
}

/// The future that was made, or the error at once.
fn or_failed<T: Send + 'static>(future: Result<StoreFuture<T>, StoreError>) -> StoreFuture<T> {
    future.unwrap_or_else(|error| Box::pin(ready(Err(error))))
}

impl Transaction for SqliteTransaction {
    fn get(&self, key: &[u8], isolation: Isolation) -> StoreFuture<Option<Bytes>> {
        or_failed(self.try_get(key, isolation))
    }

    fn get_range(&self, read: RangeRead) -> StoreFuture<Vec<KeyValue>> {
        or_failed(self.try_get_range(read))
    }

    fn set(&self, key: &[u8], value: &[u8]) {
        self.write(|buffer| buffer.set(key, value));
    }

    fn clear(&self, key: &[u8]) {
        // The range of a key that is too long is named in its own terms.
        self.write(|buffer| match check_key(key) {
            Ok(()) => buffer.clear_range(&KeyRange::single(key)),
            Err(error) => buffer.fail(error),
        });
    }

    fn clear_range(&self, range: &KeyRange) {
        self.write(|buffer| buffer.clear_range(range));
    }

    fn add(&self, key: &[u8], operand: &[u8]) {
        self.write(|buffer| buffer.add(key, operand));
    }

    fn compare_and_clear(&self, key: &[u8], expected: &[u8]) {
        self.write(|buffer| buffer.compare_and_clear(key, expected));
    }

    fn set_versionstamped_key(&self, template: &[u8], offset: usize, value: &[u8]) {
        self.write(|buffer| buffer.set_versionstamped_key(template, offset, value));
    }

    fn set_versionstamped_value(&self, key: &[u8], template: &[u8], offset: usize) {
        self.write(|buffer| buffer.set_versionstamped_value(key, template, offset));
    }

    fn add_read_conflict(&self, range: &KeyRange) {
        let Ok(mut state) = self.usable() else { return };
        if let Err(error) = check_range(range) {
            return Arc::make_mut(&mut state.buffer).fail(error);
        }
        let parts = state.buffer.unwritten(range);
        state.conflicts.extend(parts);
    }

    fn read_version(&self) -> StoreFuture<Version> {
        or_failed(
            self.usable()
                .map(|mut state| match self.snapshot.version() {
                    // Known: no need to change threads for it.
                    Some(version) => Box::pin(ready(Ok(version))),
                    None => self.read(&mut state, |lease| Ok(lease.version)),
                }),
        )
    }

    fn set_read_version(&self, version: Version) {
        let Ok(mut state) = self.usable() else { return };
        if state.begun || self.snapshot.wanted().is_some() {
            let error = StoreError::new(StoreErrorKind::InvalidCall)
                .with_context("the read version is already fixed; set it before the first read");
            return Arc::make_mut(&mut state.buffer).fail(error);
        }
        self.snapshot.want(version);
    }

    fn watch(&self, key: &[u8]) -> StoreFuture<()> {
        or_failed(self.try_watch(key))
    }

    fn commit(&self) -> StoreFuture<Option<Committed>> {
        or_failed(self.try_commit())
    }
}

impl fmt::Debug for SqliteTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteTransaction").finish_non_exhaustive()
    }
}

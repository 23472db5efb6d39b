//! One transaction of a [`MemoryStore`](super::MemoryStore).

use super::history::{Completion, Submission};
use super::tree::Tree;
use super::watches::Watch;
use super::{Shared, complete, give_way};
use crate::store::buffer::{Lookup, RangeSet, WriteBuffer};
use crate::store::limits::{check_key, check_range};
use crate::store::types::{Committed, Isolation, KeyRange, KeyValue, RangeRead, Version};
use crate::store::{StoreError, StoreErrorKind, StoreFuture, Transaction};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A transaction.
#[derive(Debug)]
pub(super) struct MemoryTransaction {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    buffer: WriteBuffer,
    /// What later commits must not have written.
    reads: RangeSet,
    read_version: Option<Version>,
    watches: Vec<Watch>,
    used_up: bool,
}

impl MemoryTransaction {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch_now(&self, key: &[u8]) -> Result<super::watches::Watching, StoreError> {
        let mut state = self.lock();
        let seen = state.get(&self.shared, key, Isolation::Serializable)?;
        let id = self.shared.lock().watches.next_id();
        let (watch, watching) = Watch::new(
            id,
            Bytes::copy_from_slice(key),
            seen,
            Arc::downgrade(&self.shared),
        );
        state.watches.push(watch);
        Ok(watching)
    }

    /// Ends the transaction: what to hand in, or nothing if it wrote nothing.
    fn finish(&self) -> Result<Option<Submission>, StoreError> {
        let mut completions = Vec::new();
        let finished = {
            let mut state = self.lock();
            state.check_usable()?;
            state.used_up = true;
            state.submission(&self.shared, &mut completions)
        };
        complete(completions);
        finished
    }
}

impl State {
    fn check_usable(&self) -> Result<(), StoreError> {
        if self.used_up {
            return Err(StoreError::new(StoreErrorKind::InvalidCall)
                .with_context("the transaction was used after its commit: begin a new one"));
        }
        Ok(())
    }

    fn version(&mut self, shared: &Shared) -> Version {
        *self.read_version.get_or_insert_with(|| {
            let now = shared.now();
            shared.lock().read_version(now)
        })
    }

    fn data(&mut self, shared: &Shared) -> Result<Tree, StoreError> {
        let version = self.version(shared);
        let now = shared.now();
        shared.lock().snapshot(version, now)
    }

    fn get(
        &mut self,
        shared: &Shared,
        key: &[u8],
        isolation: Isolation,
    ) -> Result<Option<Bytes>, StoreError> {
        self.check_usable()?;
        check_key(key)?;
        match self.buffer.lookup(key)? {
            Lookup::Known(value) => Ok(value),
            Lookup::Stored(pending) => {
                let stored = self.data(shared)?.get(key).cloned();
                if isolation == Isolation::Serializable {
                    self.conflict(&KeyRange::single(key));
                }
                Ok(pending.finish(stored))
            }
        }
    }

    fn get_range(
        &mut self,
        shared: &Shared,
        read: &RangeRead,
    ) -> Result<Vec<KeyValue>, StoreError> {
        self.check_usable()?;
        check_range(&read.range)?;
        if read.range.is_empty() || read.limit == 0 {
            return Ok(Vec::new());
        }
        let data = self.data(shared)?;
        let stored = data.rows(&read.range, read.reverse).map(Ok);
        let merged = self.buffer.merge(read, stored)?;
        if read.isolation == Isolation::Serializable {
            self.conflict(&merged.covered);
        }
        Ok(merged.rows)
    }

    /// Adds a read conflict, save for what this transaction has written itself.
    fn conflict(&mut self, range: &KeyRange) {
        for part in self.buffer.unwritten(range) {
            for new in self.reads.gaps(&part) {
                self.buffer.count_conflict(&new);
            }
            self.reads.insert(part);
        }
    }

    fn submission(
        &mut self,
        shared: &Shared,
        completions: &mut Vec<Completion>,
    ) -> Result<Option<Submission>, StoreError> {
        let watches = std::mem::take(&mut self.watches);
        if self.buffer.is_empty() {
            shared.lock().arm(watches, completions);
            return Ok(None);
        }
        let mutations = match self.buffer.take() {
            Ok(mutations) => mutations,
            Err(error) => {
                let failed = watches.into_iter().map(|watch| (watch, Err(error.clone())));
                completions.extend(failed);
                return Err(error);
            }
        };
        Ok(Some(Submission {
            read_version: self.version(shared),
            reads: std::mem::take(&mut self.reads),
            mutations,
            watches,
        }))
    }
}

/// Hands out what is known already.
fn answer<T: Send + 'static>(result: Result<T, StoreError>) -> StoreFuture<T> {
    Box::pin(async move {
        give_way().await;
        result
    })
}

impl Transaction for MemoryTransaction {
    fn get(&self, key: &[u8], isolation: Isolation) -> StoreFuture<Option<Bytes>> {
        answer(self.lock().get(&self.shared, key, isolation))
    }

    fn get_range(&self, read: RangeRead) -> StoreFuture<Vec<KeyValue>> {
        answer(self.lock().get_range(&self.shared, &read))
    }

    fn set(&self, key: &[u8], value: &[u8]) {
        self.lock().buffer.set(key, value);
    }

    fn clear(&self, key: &[u8]) {
        let mut state = self.lock();
        match check_key(key) {
            Ok(()) => state.buffer.clear_range(&KeyRange::single(key)),
            Err(error) => state.buffer.fail(error),
        }
    }

    fn clear_range(&self, range: &KeyRange) {
        self.lock().buffer.clear_range(range);
    }

    fn add(&self, key: &[u8], operand: &[u8]) {
        self.lock().buffer.add(key, operand);
    }

    fn compare_and_clear(&self, key: &[u8], expected: &[u8]) {
        self.lock().buffer.compare_and_clear(key, expected);
    }

    fn set_versionstamped_key(&self, template: &[u8], offset: usize, value: &[u8]) {
        self.lock()
            .buffer
            .set_versionstamped_key(template, offset, value);
    }

    fn set_versionstamped_value(&self, key: &[u8], template: &[u8], offset: usize) {
        self.lock()
            .buffer
            .set_versionstamped_value(key, template, offset);
    }

    fn add_read_conflict(&self, range: &KeyRange) {
        let mut state = self.lock();
        match check_range(range) {
            Ok(()) => state.conflict(range),
            Err(error) => state.buffer.fail(error),
        }
    }

    fn read_version(&self) -> StoreFuture<Version> {
        let mut state = self.lock();
        answer(state.check_usable().map(|()| state.version(&self.shared)))
    }

    fn set_read_version(&self, version: Version) {
        let mut state = self.lock();
        if state.read_version.is_some() {
            state
                .buffer
                .fail(StoreError::new(StoreErrorKind::InvalidCall).with_context(
                    "the read version was set after the transaction had obtained one: \
                     set it before the first read",
                ));
        } else {
            state.read_version = Some(version);
        }
    }

    fn watch(&self, key: &[u8]) -> StoreFuture<()> {
        match self.watch_now(key) {
            Ok(watching) => Box::pin(watching),
            Err(error) => answer(Err(error)),
        }
    }

    fn commit(&self) -> StoreFuture<Option<Committed>> {
        match self.finish() {
            Ok(Some(submission)) => {
                let committed = self.shared.commit(submission);
                Box::pin(async move { committed.await.map(Some) })
            }
            Ok(None) => answer(Ok(None)),
            Err(error) => answer(Err(error)),
        }
    }
}

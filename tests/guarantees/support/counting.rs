//! A store that counts what is committed through it.

use abide::store::{
    Committed, Isolation, KeyRange, KeyValue, RangeRead, Store, StoreError, StoreFuture,
    Transaction, Tx, Version,
};
use bytes::Bytes;
use std::sync::{Arc, Mutex};

/// Remembers the keys of each commit that wrote something.
#[derive(Debug, Clone)]
pub(crate) struct CountingStore {
    inner: Arc<dyn Store>,
    commits: Arc<Mutex<Vec<Vec<Bytes>>>>,
    begun: Arc<Mutex<u64>>,
}

impl CountingStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            commits: Arc::default(),
            begun: Arc::default(),
        }
    }

    /// The keys of each commit since the last call.
    pub(crate) fn take(&self) -> Vec<Vec<Bytes>> {
        std::mem::take(&mut self.commits.lock().unwrap())
    }

    /// How many transactions were begun since the last call.
    pub(crate) fn take_begun(&self) -> u64 {
        std::mem::take(&mut self.begun.lock().unwrap())
    }
}

impl Store for CountingStore {
    fn begin(&self) -> Result<Tx, StoreError> {
        *self.begun.lock().unwrap() += 1;
        Ok(Arc::new(Counting {
            inner: self.inner.begin()?,
            commits: Arc::clone(&self.commits),
            written: Mutex::default(),
        }))
    }
}

#[derive(Debug)]
struct Counting {
    inner: Tx,
    commits: Arc<Mutex<Vec<Vec<Bytes>>>>,
    written: Mutex<Vec<Bytes>>,
}

impl Counting {
    fn wrote(&self, key: &[u8]) {
        let mut written = self.written.lock().unwrap();
        written.push(Bytes::copy_from_slice(key));
    }
}

impl Transaction for Counting {
    fn get(&self, key: &[u8], isolation: Isolation) -> StoreFuture<Option<Bytes>> {
        self.inner.get(key, isolation)
    }

    fn get_range(&self, read: RangeRead) -> StoreFuture<Vec<KeyValue>> {
        self.inner.get_range(read)
    }

    fn set(&self, key: &[u8], value: &[u8]) {
        self.wrote(key);
        self.inner.set(key, value);
    }

    fn clear(&self, key: &[u8]) {
        self.wrote(key);
        self.inner.clear(key);
    }

    fn clear_range(&self, range: &KeyRange) {
        self.wrote(&range.begin);
        self.inner.clear_range(range);
    }

    fn add(&self, key: &[u8], operand: &[u8]) {
        self.wrote(key);
        self.inner.add(key, operand);
    }

    fn compare_and_clear(&self, key: &[u8], expected: &[u8]) {
        self.wrote(key);
        self.inner.compare_and_clear(key, expected);
    }

    fn set_versionstamped_key(&self, template: &[u8], offset: usize, value: &[u8]) {
        self.wrote(template);
        self.inner.set_versionstamped_key(template, offset, value);
    }

    fn set_versionstamped_value(&self, key: &[u8], template: &[u8], offset: usize) {
        self.wrote(key);
        self.inner.set_versionstamped_value(key, template, offset);
    }

    fn add_read_conflict(&self, range: &KeyRange) {
        self.inner.add_read_conflict(range);
    }

    fn read_version(&self) -> StoreFuture<Version> {
        self.inner.read_version()
    }

    fn set_read_version(&self, version: Version) {
        self.inner.set_read_version(version);
    }

    fn watch(&self, key: &[u8]) -> StoreFuture<()> {
        self.inner.watch(key)
    }

    fn commit(&self) -> StoreFuture<Option<Committed>> {
        let (commit, commits) = (self.inner.commit(), Arc::clone(&self.commits));
        let written = std::mem::take(&mut *self.written.lock().unwrap());
        Box::pin(async move {
            let committed = commit.await?;
            if committed.is_some() {
                commits.lock().unwrap().push(written);
            }
            Ok(committed)
        })
    }
}

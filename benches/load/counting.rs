//! A store that counts what passes through it.

use abide::store::{
    Committed, Isolation, KeyRange, KeyValue, RangeRead, Store, StoreError, StoreFuture,
    Transaction, Tx, Version,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of a process.
#[derive(Debug, Default)]
pub struct Counts {
    commits: AtomicU64,
    conflicts: AtomicU64,
    keys: AtomicU64,
    bytes: AtomicU64,
    reads: AtomicU64,
}

/// What the counters showed.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Tally {
    pub commits: u64,
    pub conflicts: u64,
    pub keys: u64,
    pub bytes: u64,
    pub reads: u64,
}

impl Counts {
    pub fn tally(&self) -> Tally {
        Tally {
            commits: self.commits.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
            keys: self.keys.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            reads: self.reads.load(Relaxed),
        }
    }
}

impl Tally {
    fn with(self, other: Self, both: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            commits: both(self.commits, other.commits),
            conflicts: both(self.conflicts, other.conflicts),
            keys: both(self.keys, other.keys),
            bytes: both(self.bytes, other.bytes),
            reads: both(self.reads, other.reads),
        }
    }
}

impl Add for Tally {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }
}

impl Sub for Tally {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| a - b)
    }
}

#[derive(Debug)]
pub struct Counting {
    store: Arc<dyn Store>,
    counts: Arc<Counts>,
}

impl Counting {
    pub fn new(store: Arc<dyn Store>, counts: Arc<Counts>) -> Self {
        Self { store, counts }
    }
}

impl Store for Counting {
    fn begin(&self) -> Result<Tx, StoreError> {
        Ok(Arc::new(CountingTransaction {
            tx: self.store.begin()?,
            counts: Arc::clone(&self.counts),
            keys: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }))
    }
}

#[derive(Debug)]
struct CountingTransaction {
    tx: Tx,
    counts: Arc<Counts>,
    keys: AtomicU64,
    bytes: AtomicU64,
}

impl CountingTransaction {
    fn wrote(&self, bytes: usize) {
        self.keys.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

impl Transaction for CountingTransaction {
    fn get(&self, key: &[u8], isolation: Isolation) -> StoreFuture<Option<Bytes>> {
        self.counts.reads.fetch_add(1, Relaxed);
        self.tx.get(key, isolation)
    }

    fn get_range(&self, read: RangeRead) -> StoreFuture<Vec<KeyValue>> {
        self.counts.reads.fetch_add(1, Relaxed);
        self.tx.get_range(read)
    }

    fn set(&self, key: &[u8], value: &[u8]) {
        self.wrote(key.len() + value.len());
        self.tx.set(key, value);
    }

    fn clear(&self, key: &[u8]) {
        self.wrote(key.len());
        self.tx.clear(key);
    }

    fn clear_range(&self, range: &KeyRange) {
        self.wrote(range.begin.len() + range.end.len());
        self.tx.clear_range(range);
    }

    fn add(&self, key: &[u8], operand: &[u8]) {
        self.wrote(key.len() + operand.len());
        self.tx.add(key, operand);
    }

    fn compare_and_clear(&self, key: &[u8], expected: &[u8]) {
        self.wrote(key.len() + expected.len());
        self.tx.compare_and_clear(key, expected);
    }

    fn set_versionstamped_key(&self, template: &[u8], offset: usize, value: &[u8]) {
        self.wrote(template.len() + value.len());
        self.tx.set_versionstamped_key(template, offset, value);
    }

    fn set_versionstamped_value(&self, key: &[u8], template: &[u8], offset: usize) {
        self.wrote(key.len() + template.len());
        self.tx.set_versionstamped_value(key, template, offset);
    }

    fn add_read_conflict(&self, range: &KeyRange) {
        self.tx.add_read_conflict(range);
    }

    fn read_version(&self) -> StoreFuture<Version> {
        self.tx.read_version()
    }

    fn set_read_version(&self, version: Version) {
        self.tx.set_read_version(version);
    }

    fn watch(&self, key: &[u8]) -> StoreFuture<()> {
        self.tx.watch(key)
    }

    fn commit(&self) -> StoreFuture<Option<Committed>> {
        let commit = self.tx.commit();
        let counts = Arc::clone(&self.counts);
        let (keys, bytes) = (self.keys.load(Relaxed), self.bytes.load(Relaxed));
        Box::pin(async move {
            let committed = commit.await;
            match &committed {
                Ok(Some(_)) => {
                    counts.commits.fetch_add(1, Relaxed);
                    counts.keys.fetch_add(keys, Relaxed);
                    counts.bytes.fetch_add(bytes, Relaxed);
                }
                Ok(None) => {}
                Err(_) => {
                    counts.conflicts.fetch_add(1, Relaxed);
                }
            }
            committed
        })
    }
}

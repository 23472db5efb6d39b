//! A store that counts what is read of states, and written to them.

use abide::store::{
    Committed, Isolation, KeyRange, KeyValue, RangeRead, Store, StoreError, StoreFuture,
    Transaction, Tx, Version,
};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

#[derive(Debug, Default)]
struct Counts {
    rows: AtomicUsize,
    ranges: AtomicUsize,
    writes: AtomicUsize,
}

/// What was counted since the last look: rows and ranges read of states, writes to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) rows: usize,
    pub(crate) ranges: usize,
    pub(crate) writes: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct CountedStore {
    inner: Arc<dyn Store>,
    counts: Arc<Counts>,
}

impl CountedStore {
    pub(crate) fn new(inner: &Arc<dyn Store>) -> Self {
        Self {
            inner: Arc::clone(inner),
            counts: Arc::default(),
        }
    }

    pub(crate) fn take(&self) -> Tally {
        Tally {
            rows: self.counts.rows.swap(0, SeqCst),
            ranges: self.counts.ranges.swap(0, SeqCst),
            writes: self.counts.writes.swap(0, SeqCst),
        }
    }
}

/// Whether a key is one of the shelf's texts: the field's name stands in its path.
pub(crate) fn is_text(key: &[u8]) -> bool {
    key.windows(6).any(|window| window == b"texts\0")
}

impl Store for CountedStore {
    fn begin(&self) -> Result<Tx, StoreError> {
        Ok(Arc::new(Counted {
            inner: self.inner.begin()?,
            counts: Arc::clone(&self.counts),
        }))
    }
}

#[derive(Debug)]
struct Counted {
    inner: Tx,
    counts: Arc<Counts>,
}

impl Counted {
    fn wrote(&self, key: &[u8]) {
        self.counts
            .writes
            .fetch_add(usize::from(is_text(key)), SeqCst);
    }
}

impl Transaction for Counted {
    fn get(&self, key: &[u8], isolation: Isolation) -> StoreFuture<Option<Bytes>> {
        self.inner.get(key, isolation)
    }

    fn get_range(&self, read: RangeRead) -> StoreFuture<Vec<KeyValue>> {
        let rows = self.inner.get_range(read);
        let counts = Arc::clone(&self.counts);
        Box::pin(async move {
            let rows = rows.await?;
            let texts = rows.iter().filter(|row| is_text(&row.key)).count();
            counts.rows.fetch_add(texts, SeqCst);
            counts.ranges.fetch_add(usize::from(texts > 0), SeqCst);
            Ok(rows)
        })
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
        self.inner.add(key, operand);
    }

    fn compare_and_clear(&self, key: &[u8], expected: &[u8]) {
        self.inner.compare_and_clear(key, expected);
    }

    fn set_versionstamped_key(&self, template: &[u8], offset: usize, value: &[u8]) {
        self.inner.set_versionstamped_key(template, offset, value);
    }

    fn set_versionstamped_value(&self, key: &[u8], template: &[u8], offset: usize) {
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
        self.inner.commit()
    }
}

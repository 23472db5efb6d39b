//! A store that panics on demand, in the midst of abide's own code.

use abide::store::{
    Committed, Isolation, KeyRange, KeyValue, RangeRead, Store, StoreError, StoreFuture,
    Transaction, Tx, Version,
};
use bytes::Bytes;
use std::fmt;
use std::sync::{Arc, Mutex};

/// What is about to be done: which keys are read as a range, or written with a stamp in them.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    Range(&'a KeyRange),
    Stamped,
}

type Trigger = Box<dyn Fn(&Step<'_>) -> bool + Send>;

/// Panics once at the first step that a trigger tells.
#[derive(Clone)]
pub(crate) struct PanickingStore {
    inner: Arc<dyn Store>,
    trigger: Arc<Mutex<Option<Trigger>>>,
}

impl PanickingStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            trigger: Arc::default(),
        }
    }

    pub(crate) fn panic_once(&self, at: impl Fn(&Step<'_>) -> bool + Send + 'static) {
        *self.trigger.lock().unwrap() = Some(Box::new(at));
    }

    /// Whether it has panicked, or was never to.
    pub(crate) fn has_panicked(&self) -> bool {
        self.trigger.lock().unwrap().is_none()
    }
}

impl fmt::Debug for PanickingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PanickingStore").finish_non_exhaustive()
    }
}

impl Store for PanickingStore {
    fn begin(&self) -> Result<Tx, StoreError> {
        Ok(Arc::new(Panicking {
            inner: self.inner.begin()?,
            store: self.clone(),
        }))
    }
}

#[derive(Debug)]
struct Panicking {
    inner: Tx,
    store: PanickingStore,
}

impl Panicking {
    fn step(&self, step: &Step<'_>) {
        let hit = {
            let mut trigger = self.store.trigger.lock().unwrap();
            match trigger.as_ref().is_some_and(|trigger| trigger(step)) {
                true => trigger.take(),
                false => None,
            }
        };
        assert!(hit.is_none(), "as planned, at {step:?}");
    }
}

impl Transaction for Panicking {
    fn get(&self, key: &[u8], isolation: Isolation) -> StoreFuture<Option<Bytes>> {
        self.inner.get(key, isolation)
    }

    fn get_range(&self, read: RangeRead) -> StoreFuture<Vec<KeyValue>> {
        self.step(&Step::Range(&read.range));
        self.inner.get_range(read)
    }

    fn set(&self, key: &[u8], value: &[u8]) {
        self.inner.set(key, value);
    }

    fn clear(&self, key: &[u8]) {
        self.inner.clear(key);
    }

    fn clear_range(&self, range: &KeyRange) {
        self.inner.clear_range(range);
    }

    fn add(&self, key: &[u8], operand: &[u8]) {
        self.inner.add(key, operand);
    }

    fn compare_and_clear(&self, key: &[u8], expected: &[u8]) {
        self.inner.compare_and_clear(key, expected);
    }

    fn set_versionstamped_key(&self, template: &[u8], offset: usize, value: &[u8]) {
        self.step(&Step::Stamped);
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

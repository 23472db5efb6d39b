//! The writes of a transaction that have not been committed, and what reads see of them.
//!
//! The backends that keep their own data (memory, SQLite) share this; FoundationDB's client has its
//! own. Invariant: a read through the buffer returns what the same read would return after the
//! mutations were applied, in order, to the data at the read version.

mod mutation;
mod range_set;

pub(crate) use mutation::{Effect, Mutation};
pub(crate) use range_set::RangeSet;

use super::limits::{check_key, check_range, check_stamped_key, check_stamped_value, check_value};
use super::types::{CommitStamp, KeyRange, KeyValue, RangeRead, after};
use super::{MAX_TRANSACTION_BYTES, StoreError, StoreErrorKind};
use bytes::Bytes;
use mutation::{RANGE_OVERHEAD, apply_atomic, filled};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

/// What the buffered writes say about one key.
#[derive(Debug, Clone)]
enum Overlay {
    /// Set or cleared: the stored value does not matter.
    Known(Option<Bytes>),
    /// Atomic operations over the stored value, in order.
    Atomic(Vec<Mutation>),
    /// Holds, or may hold, this transaction's stamp.
    Unreadable,
}

/// The answer of [`WriteBuffer::lookup`].
#[derive(Debug)]
pub(crate) enum Lookup {
    /// The value, whatever is stored: no read of the store and no read conflict.
    Known(Option<Bytes>),
    /// Depends on the stored value: pass that to [`finish`](Pending::finish).
    Stored(Pending),
}

/// Atomic operations waiting for the stored value.
#[derive(Debug)]
pub(crate) struct Pending(Vec<Mutation>);

impl Pending {
    pub(crate) fn finish(&self, stored: Option<Bytes>) -> Option<Bytes> {
        self.0.iter().fold(stored, apply_atomic)
    }
}

/// The answer of [`WriteBuffer::merge`].
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) rows: Vec<KeyValue>,
    /// The part of the range that the answer depends on.
    pub(crate) covered: KeyRange,
}

/// The uncommitted writes of one transaction.
#[derive(Debug, Default, Clone)]
pub(crate) struct WriteBuffer {
    mutations: Vec<Mutation>,
    points: BTreeMap<Bytes, Overlay>,
    cleared: RangeSet,
    /// Where keys that hold the stamp may come to lie.
    stamped: Vec<KeyRange>,
    size: usize,
    /// Why nothing of this can be committed. Set once, also by reads that run later than they were
    /// asked for, on a copy of the buffer as it was then: so the copies share it.
    failed: Arc<OnceLock<StoreError>>,
}

impl WriteBuffer {
    pub(crate) fn set(&mut self, key: &[u8], value: &[u8]) {
        if self.admit(check_key(key).and_then(|()| check_value(value))) {
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            self.overlay(&key, Overlay::Known(Some(value.clone())));
            self.push(Mutation::Set { key, value });
        }
    }

    pub(crate) fn clear_range(&mut self, range: &KeyRange) {
        if self.admit(check_range(range)) && !range.is_empty() {
            let bounds = (
                Bound::Included(range.begin.clone()),
                Bound::Excluded(range.end.clone()),
            );
            let covered: Vec<Bytes> = self
                .points
                .range::<Bytes, _>(bounds)
                .filter(|(_, overlay)| !matches!(overlay, Overlay::Unreadable))
                .map(|(key, _)| key.clone())
                .collect();
            for key in covered {
                self.points.remove(&key);
            }
            self.cleared.insert(range.clone());
            self.push(Mutation::ClearRange(range.clone()));
        }
    }

    pub(crate) fn add(&mut self, key: &[u8], operand: &[u8]) {
        if self.admit(check_key(key).and_then(|()| check_value(operand))) {
            let key = Bytes::copy_from_slice(key);
            let operand = Bytes::copy_from_slice(operand);
            self.atomic(
                Mutation::Add {
                    key: key.clone(),
                    operand,
                },
                &key,
            );
        }
    }

    pub(crate) fn compare_and_clear(&mut self, key: &[u8], expected: &[u8]) {
        if self.admit(check_key(key).and_then(|()| check_value(expected))) {
            let key = Bytes::copy_from_slice(key);
            let expected = Bytes::copy_from_slice(expected);
            self.atomic(
                Mutation::CompareAndClear {
                    key: key.clone(),
                    expected,
                },
                &key,
            );
        }
    }

    pub(crate) fn set_versionstamped_key(&mut self, template: &[u8], offset: usize, value: &[u8]) {
        let checked = check_stamped_key(template, offset).and_then(|()| check_value(value));
        if self.admit(checked) {
            let first = filled(template, offset, &[0; CommitStamp::LEN]);
            let last = filled(template, offset, &[0xff; CommitStamp::LEN]);
            self.stamped.push(KeyRange::new(first, after(&last)));
            self.push(Mutation::StampedKey {
                template: Bytes::copy_from_slice(template),
                offset,
                value: Bytes::copy_from_slice(value),
            });
        }
    }

    pub(crate) fn set_versionstamped_value(&mut self, key: &[u8], template: &[u8], offset: usize) {
        let checked = check_key(key).and_then(|()| check_stamped_value(template, offset));
        if self.admit(checked) {
            let key = Bytes::copy_from_slice(key);
            self.overlay(&key, Overlay::Unreadable);
            self.push(Mutation::StampedValue {
                key,
                template: Bytes::copy_from_slice(template),
                offset,
            });
        }
    }

    /// Counts a read conflict towards the size limit.
    pub(crate) fn count_conflict(&mut self, range: &KeyRange) {
        self.size += range.begin.len() + range.end.len() + RANGE_OVERHEAD;
    }

    /// Whether nothing was written, nor failed to be.
    pub(crate) fn is_empty(&self) -> bool {
        self.mutations.is_empty() && self.failed.get().is_none()
    }

    /// Records that the caller broke a rule; the commit will return the first such error.
    pub(crate) fn fail(&self, error: StoreError) {
        self.failed.get_or_init(|| error);
    }

    /// The mutations, in order, if nothing broke a rule. A transaction that wrote nothing may have
    /// read as much as it likes: its conflicts go nowhere.
    pub(crate) fn take(&mut self) -> Result<Vec<Mutation>, StoreError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        if self.size > MAX_TRANSACTION_BYTES && !self.mutations.is_empty() {
            return Err(self.too_large());
        }
        Ok(std::mem::take(&mut self.mutations))
    }

    fn too_large(&self) -> StoreError {
        StoreError::new(StoreErrorKind::TransactionTooLarge).with_context(format!(
            "it affects {} bytes, at most {MAX_TRANSACTION_BYTES} are allowed",
            self.size
        ))
    }

    /// What a read of `key` sees of the buffered writes.
    pub(crate) fn lookup(&self, key: &[u8]) -> Result<Lookup, StoreError> {
        if self.stamped.iter().any(|range| range.contains(key)) {
            return Err(self.unreadable());
        }
        Ok(match self.points.get(key) {
            Some(Overlay::Known(value)) => Lookup::Known(value.clone()),
            Some(Overlay::Atomic(atomics)) => Lookup::Stored(Pending(atomics.clone())),
            Some(Overlay::Unreadable) => return Err(self.unreadable()),
            None if self.cleared.contains(key) => Lookup::Known(None),
            None => Lookup::Stored(Pending(Vec::new())),
        })
    }

    /// Lays the buffered writes over `stored`, the stored pairs of the range in the order of the
    /// read, and stops pulling pairs from it once the limit is reached.
    pub(crate) fn merge(
        &self,
        read: &RangeRead,
        stored: impl Iterator<Item = Result<KeyValue, StoreError>>,
    ) -> Result<Merged, StoreError> {
        if read.limit == 0 || read.range.is_empty() {
            let begin = read.range.begin.clone();
            return Ok(Merged {
                rows: Vec::new(),
                covered: KeyRange::new(begin.clone(), begin),
            });
        }
        let bounds = (
            Bound::Included(read.range.begin.clone()),
            Bound::Excluded(read.range.end.clone()),
        );
        let points = self.points.range::<Bytes, _>(bounds);
        let rows = if read.reverse {
            self.merge_ordered(read.limit, points.rev(), stored, |a, b| b < a)?
        } else {
            self.merge_ordered(read.limit, points, stored, |a, b| a < b)?
        };
        let covered = match rows.last() {
            Some(last) if rows.len() >= read.limit => {
                if read.reverse {
                    KeyRange::new(last.key.clone(), read.range.end.clone())
                } else {
                    KeyRange::new(read.range.begin.clone(), after(&last.key))
                }
            }
            _ => read.range.clone(),
        };
        if self.stamped.iter().any(|range| range.intersects(&covered)) {
            return Err(self.unreadable());
        }
        Ok(Merged { rows, covered })
    }

    fn merge_ordered<'a>(
        &self,
        limit: usize,
        points: impl Iterator<Item = (&'a Bytes, &'a Overlay)>,
        stored: impl Iterator<Item = Result<KeyValue, StoreError>>,
        before: impl Fn(&Bytes, &Bytes) -> bool,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let (mut points, mut stored) = (points.peekable(), stored.peekable());
        let mut rows = Vec::new();
        while rows.len() < limit {
            if let Some(Err(error)) = stored.next_if(Result::is_err) {
                return Err(error);
            }
            let stored_key = stored
                .peek()
                .and_then(|row| row.as_ref().ok())
                .map(|row| &row.key);
            let point_key = points.peek().map(|(key, _)| *key);
            let (use_point, use_stored) = match (point_key, stored_key) {
                (None, None) => break,
                (Some(_), None) => (true, false),
                (None, Some(_)) => (false, true),
                (Some(point), Some(stored)) => (!before(stored, point), !before(point, stored)),
            };
            let point = if use_point { points.next() } else { None };
            let row = if use_stored {
                stored.next().transpose()?
            } else {
                None
            };
            let merged = match (point, row) {
                (Some((key, overlay)), row) => {
                    let value = match overlay {
                        Overlay::Known(value) => value.clone(),
                        Overlay::Atomic(atomics) => {
                            let base = row.map(|row| row.value);
                            atomics.iter().fold(base, apply_atomic)
                        }
                        Overlay::Unreadable => return Err(self.unreadable()),
                    };
                    value.map(|value| KeyValue {
                        key: key.clone(),
                        value,
                    })
                }
                (None, row) => row.filter(|row| !self.cleared.contains(&row.key)),
            };
            rows.extend(merged);
        }
        Ok(rows)
    }

    /// The parts of `range` whose stored content matters to this transaction: all but the keys that
    /// it has set or cleared itself.
    pub(crate) fn unwritten(&self, range: &KeyRange) -> Vec<KeyRange> {
        let mut written = RangeSet::default();
        for cleared in self.cleared.intersecting(range) {
            written.insert(cleared);
        }
        let bounds = (
            Bound::Included(range.begin.clone()),
            Bound::Excluded(range.end.clone()),
        );
        if !range.is_empty() {
            for (key, overlay) in self.points.range::<Bytes, _>(bounds) {
                if !matches!(overlay, Overlay::Atomic(_)) {
                    written.insert(KeyRange::single(key));
                }
            }
        }
        written.gaps(range)
    }

    /// A read touched what only the commit will know. As in FoundationDB, whose client remembers it
    /// until the commit, this fails the transaction: what a caller overlooks here must not first
    /// show there.
    fn unreadable(&self) -> StoreError {
        self.failed
            .get_or_init(|| StoreErrorKind::Unreadable.into())
            .clone()
    }

    /// Whether a write is to be buffered. What is beyond the limit is not: it will never be committed.
    fn admit(&mut self, checked: Result<(), StoreError>) -> bool {
        let fits = match self.size > MAX_TRANSACTION_BYTES {
            true => Err(self.too_large()),
            false => Ok(()),
        };
        checked.and(fits).map_err(|error| self.fail(error)).is_ok()
    }

    fn push(&mut self, mutation: Mutation) {
        self.size += mutation.size();
        // Beyond the limit nothing can be committed any more: stop collecting.
        if self.size <= MAX_TRANSACTION_BYTES {
            self.mutations.push(mutation);
        } else {
            self.fail(self.too_large());
        }
    }

    /// A value that holds the stamp stays unreadable, whatever is written over it: simpler than
    /// FoundationDB, and stricter.
    fn overlay(&mut self, key: &Bytes, overlay: Overlay) {
        match self.points.get(key) {
            Some(Overlay::Unreadable) => {}
            _ => {
                self.points.insert(key.clone(), overlay);
            }
        }
    }

    fn atomic(&mut self, mutation: Mutation, key: &Bytes) {
        let is_cleared = self.cleared.contains(key);
        match self.points.get_mut(key) {
            Some(Overlay::Known(value)) => *value = apply_atomic(value.take(), &mutation),
            Some(Overlay::Atomic(atomics)) => atomics.push(mutation.clone()),
            Some(Overlay::Unreadable) => {}
            None if is_cleared => {
                let known = Overlay::Known(apply_atomic(None, &mutation));
                self.points.insert(key.clone(), known);
            }
            None => {
                self.points
                    .insert(key.clone(), Overlay::Atomic(vec![mutation.clone()]));
            }
        }
        self.push(mutation);
    }
}

#[cfg(test)]
mod tests;

//! Sets of keys.

use crate::store::types::KeyRange;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A set of keys as disjoint, non-adjacent ranges.
#[derive(Debug, Default, Clone)]
pub(crate) struct RangeSet(BTreeMap<Bytes, Bytes>);

impl RangeSet {
    pub(crate) fn insert(&mut self, range: KeyRange) {
        if range.is_empty() {
            return;
        }
        let KeyRange { mut begin, mut end } = range;
        // Every range that touches the new one begins no later than its end.
        while let Some((other_begin, other_end)) = self
            .0
            .range::<Bytes, _>(..=&end)
            .next_back()
            .map(|(b, e)| (b.clone(), e.clone()))
        {
            if other_end < begin {
                break;
            }
            self.0.remove(&other_begin);
            begin = begin.min(other_begin);
            end = end.max(other_end);
        }
        self.0.insert(begin, end);
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.0
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .is_some_and(|(_, end)| key < end.as_ref())
    }

    /// The parts of this set that lie in `range`, in order.
    pub(crate) fn intersecting(&self, range: &KeyRange) -> Vec<KeyRange> {
        if range.is_empty() {
            return Vec::new();
        }
        let first = self
            .0
            .range::<Bytes, _>(..=&range.begin)
            .next_back()
            .map(|(begin, _)| begin);
        let from = first.unwrap_or(&range.begin).clone();
        self.0
            .range::<Bytes, _>(from..range.end.clone())
            .map(|(begin, end)| {
                KeyRange::new(begin.max(&range.begin).clone(), end.min(&range.end).clone())
            })
            .filter(|part| !part.is_empty())
            .collect()
    }

    /// The parts of `range` that are not in this set, in order.
    pub(crate) fn gaps(&self, range: &KeyRange) -> Vec<KeyRange> {
        let mut gaps = Vec::new();
        let mut from = range.begin.clone();
        for part in self.intersecting(range) {
            gaps.push(KeyRange::new(from, part.begin));
            from = part.end;
        }
        gaps.push(KeyRange::new(from, range.end.clone()));
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }
}

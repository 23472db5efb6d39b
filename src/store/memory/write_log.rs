//! Which version last wrote each key, as far back as a transaction may reach: what read conflicts
//! are checked against.

use crate::store::Version;
use crate::store::types::KeyRange;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// No commit has this version.
const FORGOTTEN: Version = Version(0);

/// A step function from keys to the version of their newest write.
///
/// Two invariants keep it from leaking. Every boundary has an entry in `expiry` whose version is
/// not below the boundary's. Two neighbouring regions are never both forgotten: whichever is
/// forgotten last removes the boundary between them. So when all of `expiry` is worked off, no
/// boundary is left.
#[derive(Debug, Default)]
pub(super) struct WriteLog {
    /// A region's first key and its version; the region ends where the next one begins. What lies
    /// before the first region is forgotten.
    regions: BTreeMap<Bytes, Version>,
    /// Boundaries to look at again once the version is out of reach, in order of versions.
    expiry: VecDeque<(Version, Bytes)>,
}

impl WriteLog {
    /// Records a write of `range` at `version`, which is not below any recorded before.
    pub(super) fn insert(&mut self, range: &KeyRange, version: Version) {
        if range.is_empty() {
            return;
        }
        let behind = self.version_at(&range.end);
        if !self.regions.contains_key(&range.end) {
            self.regions.insert(range.end.clone(), behind);
            self.expiry.push_back((version, range.end.clone()));
        }
        let replaced: Vec<Bytes> = self
            .regions
            .range::<Bytes, _>(&range.begin..&range.end)
            .map(|(begin, _)| begin.clone())
            .collect();
        for begin in replaced {
            self.regions.remove(&begin);
        }
        self.regions.insert(range.begin.clone(), version);
        self.expiry.push_back((version, range.begin.clone()));
    }

    /// The version of the newest write of a key of `range`.
    pub(super) fn newest(&self, range: &KeyRange) -> Version {
        if range.is_empty() {
            return FORGOTTEN;
        }
        let inside = (Bound::Excluded(&range.begin), Bound::Excluded(&range.end));
        self.regions
            .range::<Bytes, _>(inside)
            .map(|(_, version)| *version)
            .fold(self.version_at(&range.begin), Version::max)
    }

    /// Forgets the writes at `horizon` and before.
    pub(super) fn prune(&mut self, horizon: Version) {
        while self
            .expiry
            .front()
            .is_some_and(|(version, _)| *version <= horizon)
        {
            let Some((_, begin)) = self.expiry.pop_front() else {
                return;
            };
            match self.regions.get_mut(&begin) {
                // A later write began at the same key, and has its own entry in `expiry`.
                Some(version) if *version > horizon => continue,
                Some(version) => *version = FORGOTTEN,
                None => continue,
            }
            let behind = (Bound::Excluded(&begin), Bound::Unbounded);
            if let Some((next, &FORGOTTEN)) = self.regions.range::<Bytes, _>(behind).next() {
                let next = next.clone();
                self.regions.remove(&next);
            }
            let before = self.regions.range::<Bytes, _>(..&begin).next_back();
            if before.is_none_or(|(_, version)| *version == FORGOTTEN) {
                self.regions.remove(&begin);
            }
        }
    }

    /// How many regions and expiries are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.regions.len() + self.expiry.len()
    }

    fn version_at(&self, key: &Bytes) -> Version {
        self.regions
            .range::<Bytes, _>(..=key)
            .next_back()
            .map_or(FORGOTTEN, |(_, version)| *version)
    }
}

//! What a dry run of a purge has shown, so that nothing else is done afterwards.

use crate::durable::keys::Lane;
use crate::store::KeyRange;
use bytes::Bytes;
use std::collections::BTreeSet;

/// How many things a plan names one by one: about a megabyte of keys. What is beyond is bound by the
/// place where the plan ended.
pub(in crate::admin) const MAX_PLANNED: usize = 10_000;

/// What a dry run has chosen.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// The parts of the mailboxes that it went through.
    pub(super) extents: Vec<(Lane, KeyRange)>,
    /// The first keys of what it has chosen.
    chosen: BTreeSet<Bytes>,
    /// Whether it has chosen more than is named.
    more: bool,
}

impl Plan {
    /// Notes something that was chosen.
    pub(super) fn note(&mut self, key: Bytes) {
        match self.chosen.len() < MAX_PLANNED {
            true => drop(self.chosen.insert(key)),
            false => self.more = true,
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.extents.extend(other.extents);
        self.more |= other.more;
        other.chosen.into_iter().for_each(|key| self.note(key));
    }

    /// Whether what begins with this key, within the extents, was chosen.
    pub(super) fn admits(&self, key: &[u8]) -> bool {
        self.more || self.chosen.contains(key)
    }
}

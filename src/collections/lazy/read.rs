//! What is read of a lazy map. What is not known is asked for.

use super::{Entry, LazyMap, NotLoaded, at, encoded};
use crate::codec::collection::{self, Stretch, Want, behind};
use crate::collections::element::AsElement;
use std::borrow::Borrow;
use std::ops::{Bound, RangeBounds};

impl<K: AsElement, V> LazyMap<K, V> {
    /// The value under a key.
    ///
    /// # Errors
    ///
    /// [`NotLoaded`], to be passed on.
    pub fn get<Q: ?Sized + AsElement>(&self, key: &Q) -> Result<Option<&V>, NotLoaded>
    where
        K: Borrow<Q>,
    {
        match self.tree.get(at(key)) {
            Some(entry) => Ok(entry.value.as_ref()),
            None if self.knows(key) => Ok(None),
            None => Err(self.not_loaded(key)),
        }
    }

    /// Whether there is an entry under a key.
    ///
    /// # Errors
    ///
    /// [`NotLoaded`], to be passed on.
    pub fn contains_key<Q: ?Sized + AsElement>(&self, key: &Q) -> Result<bool, NotLoaded>
    where
        K: Borrow<Q>,
    {
        self.get(key).map(|value| value.is_some())
    }

    /// Asks for several keys in one round. Once it succeeds, the entries under them are in memory.
    ///
    /// # Errors
    ///
    /// [`NotLoaded`], to be passed on.
    pub fn load<'q, Q>(&self, keys: impl IntoIterator<Item = &'q Q>) -> Result<(), NotLoaded>
    where
        Q: ?Sized + AsElement + 'q,
        K: Borrow<Q>,
    {
        let mut result = Ok(());
        for key in keys {
            result = result.and(self.get(key).map(drop));
        }
        result
    }

    /// The first entries of a range of keys, in their order: as many as there are, and at most
    /// `limit`. The next page begins behind the last key of this one.
    ///
    /// # Errors
    ///
    /// [`NotLoaded`], to be passed on.
    pub fn range<Q, R>(&self, range: R, limit: usize) -> Result<Vec<(&K, &V)>, NotLoaded>
    where
        Q: ?Sized + AsElement,
        K: Borrow<Q>,
        R: RangeBounds<Q>,
    {
        let mut from = match range.start_bound() {
            Bound::Included(key) => encoded(key),
            Bound::Excluded(key) => behind(&encoded(key)),
            Bound::Unbounded => Vec::new(),
        };
        let to = match range.end_bound() {
            Bound::Included(key) => Some(behind(&encoded(key))),
            Bound::Excluded(key) => Some(encoded(key)),
            Bound::Unbounded => None,
        };
        let mut found = Vec::new();
        loop {
            if found.len() >= limit || to.as_ref().is_some_and(|to| *to <= from) {
                return Ok(found);
            }
            let known = match &self.origin {
                Some(_) => self.spans.end_of(&from),
                None => Some(None),
            };
            let Some(end) = known else {
                // The rest in one go, whatever is known of it here and there: as many entries, and as
                // many rounds, as of a map of which nothing is known.
                let removed = self.removed(&from, to.as_deref());
                let enough = (limit - found.len()).saturating_add(removed);
                return Err(self.ask(Stretch { from, to }, enough));
            };
            let end = nearer(to.as_deref(), end);
            self.collect(&from, end.as_deref(), limit, &mut found);
            match end {
                Some(end) => from = end,
                None => return Ok(found),
            }
        }
    }

    /// The entries that are in memory, in the order of their keys: for tests, effects and hooks. Which
    /// are is nothing that a handler may depend on.
    pub fn in_memory(&self) -> impl Iterator<Item = (&K, &V)> {
        let entries = self.tree.iter();
        entries.filter_map(|entry| Some((&entry.key, entry.value.as_ref()?)))
    }

    /// Adds the entries of a stretch that is known, up to `limit` in all.
    fn collect<'m>(
        &'m self,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
        found: &mut Vec<(&'m K, &'m V)>,
    ) {
        for entry in self.inside(from, to) {
            if found.len() >= limit {
                return;
            }
            if let Some(value) = entry.value.as_ref() {
                found.push((&entry.key, value));
            }
        }
    }

    /// How many entries of a stretch were removed unread: they may be stored, and would be found.
    fn removed(&self, from: &[u8], to: Option<&[u8]>) -> usize {
        let entries = self.inside(from, to);
        entries.filter(|entry| entry.value.is_none()).count()
    }

    /// What is known of single keys in a stretch.
    fn inside<'m>(
        &'m self,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> impl Iterator<Item = &'m Entry<K, V>> {
        let first = self
            .tree
            .rank(|entry| encoded(&entry.key).as_slice().cmp(from));
        let entries = (first..).map_while(|position| self.tree.nth(position));
        entries.take_while(move |entry| match to {
            Some(to) => encoded(&entry.key).as_slice() < to,
            None => true,
        })
    }

    /// Whether there is known to be no entry under a key that is not in the tree.
    pub(super) fn knows<Q: ?Sized + AsElement>(&self, key: &Q) -> bool {
        self.origin.is_none() || self.spans.end_of(&encoded(key)).is_some()
    }

    fn not_loaded<Q: ?Sized + AsElement>(&self, key: &Q) -> NotLoaded {
        let key = encoded(key);
        let to = Some(behind(&key));
        self.ask(Stretch { from: key, to }, 1)
    }

    /// Has the turn read what is missing.
    fn ask(&self, stretch: Stretch, limit: usize) -> NotLoaded {
        if let Some(origin) = &self.origin {
            collection::ask(Want {
                collection: origin.path.clone(),
                stretch,
                limit,
            });
        }
        NotLoaded(())
    }
}

/// The nearer of two ends.
fn nearer(one: Option<&[u8]>, other: Option<&[u8]>) -> Option<Vec<u8>> {
    let ends = [one, other].into_iter().flatten();
    ends.min().map(<[u8]>::to_vec)
}

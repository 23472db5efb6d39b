//! What changes a lazy map. Only what returns something has to know what there was.

use super::{Entry, LazyMap, NotLoaded, at};
use crate::collections::element::AsElement;
use crate::collections::priority;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

impl<K, V> LazyMap<K, V> {
    /// Removes all entries, also those that are not in memory. It reads nothing.
    pub fn clear(&mut self) {
        *self = Self {
            buffers: Arc::clone(&self.buffers),
            ..Self::new()
        };
    }
}

impl<K: AsElement, V> LazyMap<K, V> {
    /// Puts a value under a key, whatever there was. It reads nothing.
    pub fn insert(&mut self, key: K, value: V) {
        self.tree.insert(Entry::new(key, Some(value)));
    }
}

impl<K: AsElement + Clone, V: Clone> LazyMap<K, V> {
    /// The value under a key, to change it. It counts as touched, changed or not, and is encoded with
    /// the next commit.
    ///
    /// # Errors
    ///
    /// [`NotLoaded`], to be passed on.
    pub fn get_mut<Q: ?Sized + AsElement>(&mut self, key: &Q) -> Result<Option<&mut V>, NotLoaded>
    where
        K: Borrow<Q>,
    {
        if self.get(key)?.is_none() {
            return Ok(None);
        }
        let entry = self.tree.get_mut(at(key));
        Ok(entry.and_then(|entry| Arc::make_mut(entry).value.as_mut()))
    }

    /// The value under a key, to change it; that of `missing` if there is none yet.
    ///
    /// # Errors
    ///
    /// [`NotLoaded`], to be passed on.
    pub fn entry(&mut self, key: K, missing: impl FnOnce() -> V) -> Result<&mut V, NotLoaded> {
        self.get(&key)?;
        let (place, priority) = (key.clone(), priority(&key.as_element()));
        let entry = self.tree.entry(
            |other| other.key.as_element().cmp(&place.as_element()),
            priority,
            || Entry::new(key, None),
        );
        let entry = Arc::make_mut(entry);
        Ok(entry.value.get_or_insert_with(missing))
    }

    /// Removes an entry, if there is one. It reads nothing.
    pub fn remove<Q>(&mut self, key: &Q)
    where
        Q: ?Sized + AsElement + ToOwned<Owned = K>,
        K: Borrow<Q>,
    {
        if self.knows(key) {
            self.tree.remove(at(key));
        } else {
            self.tree.insert(Entry::new(key.to_owned(), None));
        }
    }

    /// Removes an entry; returns its value.
    ///
    /// # Errors
    ///
    /// [`NotLoaded`], to be passed on.
    pub fn take<Q>(&mut self, key: &Q) -> Result<Option<V>, NotLoaded>
    where
        Q: ?Sized + AsElement + ToOwned<Owned = K>,
        K: Borrow<Q>,
    {
        let value = self.get(key)?.cloned();
        if value.is_some() {
            self.remove(key);
        }
        Ok(value)
    }
}

impl<K: AsElement, V> FromIterator<(K, V)> for LazyMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<K: AsElement, V> Extend<(K, V)> for LazyMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: AsElement, V> From<BTreeMap<K, V>> for LazyMap<K, V> {
    fn from(entries: BTreeMap<K, V>) -> Self {
        entries.into_iter().collect()
    }
}

//! The keyed map.

use super::element::AsElement;
use super::tree::{self, Placed, Tree};
use crate::codec::collection::{self, Collection, Part, Slot, Stored, Visit};
use crate::codec::leaf::Kind;
use crate::codec::{self, CodecError, Encoded, Ignored, Leaves};
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

/// What a key of a [`Map`] can be: anything that is a string or an integer to serde, and says so by
/// [`AsElement`].
pub trait Key: AsElement + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<K: AsElement + Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Key for K {}

/// A durable map, ordered by its keys: integers by value, strings by their bytes.
///
/// It is stored as a `BTreeMap` of the same entries is, and to serde it is one. A clone costs
/// nothing: it shares the entries until one of the two changes them.
///
/// ```
/// use abide::collections::Map;
///
/// let mut stock: Map<String, u32> = Map::new();
/// stock.insert("tea".to_owned(), 3);
/// *stock.entry("milk".to_owned(), || 0) += 2;
/// let before = stock.clone();
/// assert_eq!(stock.remove("tea"), Some(3));
/// assert_eq!(stock.iter().collect::<Vec<_>>(), [(&"milk".to_owned(), &2)]);
/// assert_eq!(before.len(), 2);
/// ```
pub struct Map<K, V> {
    tree: Tree<Entry<K, V>>,
    /// Whether each value that is written has to be read back; found out once.
    buffers: Arc<OnceLock<bool>>,
}

#[derive(Debug, Clone)]
struct Entry<K, V> {
    key: K,
    value: V,
}

impl<K: AsElement, V> Placed for Entry<K, V> {
    fn order(&self, other: &Self) -> Ordering {
        self.key.as_element().cmp(&other.key.as_element())
    }

    fn priority(&self) -> u64 {
        super::priority(&self.key.as_element())
    }
}

impl<K, V> Map<K, V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tree: Tree::default(),
            buffers: Arc::default(),
        }
    }
}

impl<K: AsElement, V> Map<K, V> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value under a key.
    #[must_use]
    pub fn get<Q: ?Sized + AsElement>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.tree.get(at(key)).map(|entry| &entry.value)
    }

    /// Whether there is an entry under a key.
    #[must_use]
    pub fn contains_key<Q: ?Sized + AsElement>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries, in the order of their keys.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter(self.tree.iter())
    }

    /// The keys, in their order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The entry with the smallest key.
    #[must_use]
    pub fn first(&self) -> Option<(&K, &V)> {
        self.nth(0)
    }

    /// The entry with the largest key.
    #[must_use]
    pub fn last(&self) -> Option<(&K, &V)> {
        self.nth(self.len().checked_sub(1)?)
    }

    /// The entry with so many before it.
    #[must_use]
    pub fn nth(&self, position: usize) -> Option<(&K, &V)> {
        self.tree
            .nth(position)
            .map(|entry| (&entry.key, &entry.value))
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.tree = Tree::default();
    }

    /// Puts a value under a key. Whether there was none before.
    pub fn insert(&mut self, key: K, value: V) -> bool {
        self.tree.insert(Entry { key, value }).is_none()
    }
}

impl<K: AsElement + Clone, V: Clone> Map<K, V> {
    /// The value under a key, to change it. It counts as touched, changed or not, and is encoded
    /// with the next commit.
    pub fn get_mut<Q: ?Sized + AsElement>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let entry = self.tree.get_mut(at(key))?;
        Some(&mut Arc::make_mut(entry).value)
    }

    /// The value under a key, to change it; that of `missing` if there is none yet.
    pub fn entry(&mut self, key: K, missing: impl FnOnce() -> V) -> &mut V {
        let (place, priority) = (key.clone(), super::priority(&key.as_element()));
        let entry = self.tree.entry(
            |other| other.key.as_element().cmp(&place.as_element()),
            priority,
            || Entry {
                key,
                value: missing(),
            },
        );
        &mut Arc::make_mut(entry).value
    }

    /// Removes an entry; returns its value.
    pub fn remove<Q: ?Sized + AsElement>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let entry = self.tree.remove(at(key))?;
        Some(Arc::unwrap_or_clone(entry).value)
    }

    /// Removes the entries for which `keep` says no. It looks at all of them.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let gone: Vec<K> = self
            .iter()
            .filter(|(key, value)| !keep(key, value))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.tree
                .remove(|other| other.key.as_element().cmp(&key.as_element()));
        }
    }
}

/// The order of an entry and a key.
fn at<K: Borrow<Q>, V, Q: ?Sized + AsElement>(key: &Q) -> impl Fn(&Entry<K, V>) -> Ordering {
    let element = key.as_element();
    move |entry| entry.key.borrow().as_element().cmp(&element)
}

/// The entries of a [`Map`], in the order of their keys.
#[derive(Debug)]
pub struct Iter<'a, K, V>(tree::Iter<'a, Entry<K, V>>);

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|entry| (&entry.key, &entry.value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}

impl<'a, K: AsElement, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: AsElement, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<K: AsElement, V> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: AsElement, V> From<BTreeMap<K, V>> for Map<K, V> {
    fn from(entries: BTreeMap<K, V>) -> Self {
        entries.into_iter().collect()
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self {
            tree: self.tree.clone(),
            buffers: Arc::clone(&self.buffers),
        }
    }
}

impl<K: AsElement + fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<K: AsElement + PartialEq, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<K: AsElement + Eq, V: Eq> Eq for Map<K, V> {}

/// What the codec keeps of a map.
struct Kept<K, V>(Map<K, V>);

impl<K, V> fmt::Debug for Kept<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").finish_non_exhaustive()
    }
}

impl<K: Key, V: Serialize + DeserializeOwned + Send + Sync + 'static> Collection for Kept<K, V> {
    fn kind(&self) -> Kind {
        Kind::Map
    }

    fn touched(
        &self,
        before: Option<&dyn Collection>,
        visit: &mut Visit<'_>,
    ) -> Result<(), CodecError> {
        let nothing = Tree::default();
        let before = match before.and_then(|before| before.as_any().downcast_ref::<Self>()) {
            Some(before) => &before.0.tree,
            None => &nothing,
        };
        self.0
            .tree
            .differences(before, &mut |old, new| match (old, new) {
                (_, Some(new)) => {
                    let element = new.key.as_element();
                    codec::assert_element(&new.key, &element)?;
                    let part = Value {
                        value: &new.value,
                        buffers: &self.0.buffers,
                    };
                    visit(element, Stored::Known, Some(&part))
                }
                (Some(old), None) => visit(old.key.as_element(), Stored::Known, None),
                (None, None) => Ok(()),
            })
    }

    fn is_like(&self, other: &dyn Collection) -> bool {
        other.as_any().is::<Self>()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

pub(super) struct Value<'v, V> {
    pub(super) value: &'v V,
    pub(super) buffers: &'v OnceLock<bool>,
}

impl<V: Serialize + DeserializeOwned> Part for Value<'_, V> {
    fn encode(
        &self,
        base: &Leaves,
        ignored: &Ignored,
        depth: usize,
    ) -> Result<Encoded, CodecError> {
        let buffers = *self.buffers.get_or_init(codec::may_buffer::<V>);
        codec::encode_entry(self.value, base, ignored, depth, buffers)
    }

    fn index(&self) -> &[u8] {
        &[]
    }
}

impl<K: Key, V: Serialize + DeserializeOwned + Send + Sync + 'static> Serialize for Map<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(collection::NAME, &Inside(self))
    }
}

/// The content of the newtype that a map is to serde.
struct Inside<'m, K, V>(&'m Map<K, V>);

impl<K: Key, V: Serialize + DeserializeOwned + Send + Sync + 'static> Serialize
    for Inside<'_, K, V>
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Slot::Wanted(_) = collection::take() {
            collection::put(Slot::Given(Arc::new(Kept(self.0.clone()))));
            return serializer.serialize_unit();
        }
        serializer.collect_map(self.0)
    }
}

impl<'de, K: Key, V: Serialize + DeserializeOwned + Send + Sync + 'static> Deserialize<'de>
    for Map<K, V>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(collection::NAME, Reader(PhantomData))
    }
}

/// Reads a map, or takes the one that the codec has in memory.
struct Reader<K, V>(PhantomData<fn() -> (K, V)>);

impl<'de, K: Key, V: Serialize + DeserializeOwned + Send + Sync + 'static> Visitor<'de>
    for Reader<K, V>
{
    type Value = Map<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inside: D) -> Result<Map<K, V>, D::Error> {
        let wanted = collection::take();
        let map = inside.deserialize_map(self)?;
        if let Slot::Wanted(_) = wanted {
            collection::put(Slot::Given(Arc::new(Kept(map.clone()))));
        }
        Ok(map)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Map<K, V>, E> {
        match collection::take() {
            Slot::Given(kept) => match kept.as_any().downcast_ref::<Kept<K, V>>() {
                Some(kept) => Ok(kept.0.clone()),
                None => Err(E::custom("another collection is in memory here")),
            },
            Slot::Wanted(_) | Slot::WantedIfPartial | Slot::Empty => {
                Err(E::invalid_type(serde::de::Unexpected::Unit, &self))
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Map<K, V>, A::Error> {
        let mut map = Map::new();
        while let Some((key, value)) = entries.next_entry::<K, V>()? {
            map.insert(key, value);
        }
        Ok(map)
    }
}

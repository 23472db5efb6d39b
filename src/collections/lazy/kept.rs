//! A lazy map to the codec, and to serde.
//!
//! Invariant: *a map that is not in memory as a whole is never taken for one that is.* It is written
//! as a collection, in the place that it was read from, or not at all.

use super::{Entry, LazyMap, Origin, at, path};
use crate::codec::collection::{
    self, Collection, Entry as Row, LazyCollection, Learned, Slot, Stored, Stretch, Unread, Visit,
    behind,
};
use crate::codec::lazy::read_key;
use crate::codec::leaf::Kind;
use crate::codec::{self, CodecError, CodecErrorKind, Path};
use crate::collections::map::{Key, Value};
use crate::collections::tree::Tree;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// What the codec keeps of a lazy map.
struct Kept<K, V>(LazyMap<K, V>);

impl<K, V> fmt::Debug for Kept<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyMap").finish_non_exhaustive()
    }
}

impl<K, V> LazyMap<K, V> {
    /// Whether the two are copies of one that was loaded.
    fn has_origin_of(&self, other: &Self) -> bool {
        match (&self.origin, &other.origin) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
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
        let before = before.and_then(|before| before.as_any().downcast_ref::<Self>());
        let (now, before) = (&self.0, before.map(|before| &before.0));
        if now.is_partial() && !before.is_some_and(|before| before.has_origin_of(now)) {
            return Err(refused(
                "a lazy map of which not everything is in memory cannot be moved to another place",
            ));
        }
        let nothing = Tree::default();
        let stored = before.map_or(&nothing, |before| &before.tree);
        now.tree.differences(stored, &mut |old, new| {
            let Some(key) = new.or(old).map(|entry| &entry.key) else {
                return Ok(());
            };
            let element = key.as_element();
            let known = match (old, before) {
                (None, Some(before)) if !before.knows(key) => Stored::Unread,
                _ => Stored::Known,
            };
            if new.is_some() {
                // Of one that is there no more it was seen to be right when it was read or written.
                codec::assert_element(key, &element)?;
            }
            match new {
                Some(Entry {
                    value: Some(value), ..
                }) => {
                    let buffers = &now.buffers;
                    visit(element, known, Some(&Value { value, buffers }))
                }
                Some(_) => visit(element, known, None),
                None if now.knows(key) => visit(element, known, None),
                None => Err(refused("this lazy map is a copy of an earlier state's")),
            }
        })
    }

    fn is_like(&self, other: &dyn Collection) -> bool {
        let other = other.as_any().downcast_ref::<Self>();
        other.is_some_and(|other| {
            let both_whole = !self.0.is_partial() && !other.0.is_partial();
            both_whole || self.0.has_origin_of(&other.0)
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_lazy(&self) -> Option<&dyn LazyCollection> {
        Some(self)
    }
}

fn refused(why: &str) -> CodecError {
    CodecError::new(CodecErrorKind::Refused, why)
}

/// The only key of a stretch that was asked for by its key.
fn single_key(stretch: &Stretch) -> Option<Path> {
    let key = Path::from_tuple(&stretch.from).ok()?;
    let is_single = key.elements().count() == 1 && stretch.to == Some(behind(key.as_tuple()));
    is_single.then_some(key)
}

impl<K: Key, V: Serialize + DeserializeOwned + Send + Sync + 'static> LazyCollection
    for Kept<K, V>
{
    fn is_partial(&self) -> bool {
        self.0.is_partial()
    }

    fn learn(&self, stretch: &Stretch, found: &[Row]) -> Result<Learned, CodecError> {
        let mut map = self.0.clone();
        let mut ignored = Vec::new();
        for entry in found {
            let key: K = read_key(&entry.key)?;
            if path(&key) != entry.key {
                return Err(refused("this key reads as another one").at_path(&entry.key));
            }
            if map.tree.get(at(&key)).is_some() {
                continue;
            }
            let decoded = codec::decode::<V>(&entry.leaves);
            let decoded = decoded.map_err(|error| error.at_path(&entry.key))?;
            ignored.push((entry.key.clone(), decoded.ignored));
            map.tree.insert(Entry::new(key, Some(decoded.value)));
        }
        match single_key(stretch).map(|key| read_key::<K>(&key)) {
            // Of a key that is there the tree knows by now all there is to know.
            Some(_) if !found.is_empty() => {}
            Some(Ok(key)) if map.tree.get(at(&key)).is_none() => {
                map.tree.insert(Entry::new(key, None));
            }
            Some(Ok(_)) => {}
            _ => map.spans.add(&stretch.from, stretch.to.as_deref()),
        }
        let collection = Arc::new(Self(map));
        Ok(Learned {
            collection,
            ignored,
        })
    }
}

impl<K: Key, V: Serialize + DeserializeOwned + Send + Sync + 'static> Serialize for LazyMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(collection::LAZY, &Inside(self))
    }
}

/// The content of the newtype that a map is to serde.
struct Inside<'m, K, V>(&'m LazyMap<K, V>);

impl<K: Key, V: Serialize + DeserializeOwned + Send + Sync + 'static> Serialize
    for Inside<'_, K, V>
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let map = self.0;
        let given = match collection::take() {
            Slot::Wanted(_) => true,
            Slot::WantedIfPartial => map.is_partial(),
            Slot::Given(_) | Slot::Empty => false,
        };
        if given {
            collection::put(Slot::Given(Arc::new(Kept(map.clone()))));
            return serializer.serialize_unit();
        }
        let all = map.range::<K, _>(.., usize::MAX);
        serializer.collect_map(all.map_err(S::Error::custom)?)
    }
}

impl<'de, K: Key, V: Serialize + DeserializeOwned + Send + Sync + 'static> Deserialize<'de>
    for LazyMap<K, V>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(collection::LAZY, Reader(PhantomData))
    }
}

/// Reads a map, or takes the one that the codec has in memory, or one of which nothing was read.
struct Reader<K, V>(PhantomData<fn() -> (K, V)>);

impl<'de, K: Key, V: Serialize + DeserializeOwned + Send + Sync + 'static> Visitor<'de>
    for Reader<K, V>
{
    type Value = LazyMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        inside: D,
    ) -> Result<LazyMap<K, V>, D::Error> {
        let wanted = collection::take();
        let map = inside.deserialize_map(self)?;
        if let Slot::Wanted(_) = wanted {
            collection::put(Slot::Given(Arc::new(Kept(map.clone()))));
        }
        Ok(map)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<LazyMap<K, V>, E> {
        let Slot::Given(given) = collection::take() else {
            return Err(E::invalid_type(serde::de::Unexpected::Unit, &self));
        };
        let given = given.as_any();
        let map = match given.downcast_ref::<Kept<K, V>>() {
            Some(kept) => kept.0.clone(),
            None => match given.downcast_ref::<Unread>() {
                Some(unread) => LazyMap {
                    origin: Some(Arc::new(Origin {
                        path: unread.path.clone(),
                    })),
                    ..LazyMap::new()
                },
                None => return Err(E::custom("another collection is in memory here")),
            },
        };
        collection::put(Slot::Given(Arc::new(Kept(map.clone()))));
        Ok(map)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<LazyMap<K, V>, A::Error> {
        let mut map = LazyMap::new();
        while let Some((key, value)) = entries.next_entry::<K, V>()? {
            map.insert(key, value);
        }
        Ok(map)
    }
}

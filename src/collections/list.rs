//! The ordered list of items with ids.

use super::tree::{self, Placed, Tree};
use crate::codec::collection::{self, Collection, Part, Slot, Stored, Visit};
use crate::codec::leaf::Kind;
use crate::codec::{self, CodecError, CodecErrorKind, Encoded, Ignored, Leaves, Path, PathElement};
use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

/// What a [`List`] can hold: a struct with a string field `id` of its own, which this returns.
///
/// The id is what an item is stored under. An item that serializes with another one, or is no struct,
/// is refused when the state is stored.
pub trait Item {
    /// The value of the field `id`.
    fn id(&self) -> &str;
}

/// Two items of a list have the same id; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an item with the id {0:?} is in the list already")]
pub struct DuplicateId(pub String);

/// A durable list of items with distinct ids.
///
/// It is stored as a `Vec` of the same items is, and to serde it is one. An insert, a removal, a move
/// and a change each write one item, wherever in the list. A clone costs nothing.
///
/// ```
/// use abide::collections::{DuplicateId, Item, List};
///
/// #[derive(Clone)]
/// struct Step {
///     id: String,
///     done: bool,
/// }
///
/// impl Item for Step {
///     fn id(&self) -> &str {
///         &self.id
///     }
/// }
///
/// let step = |id: &str| Step { id: id.to_owned(), done: false };
/// let mut steps: List<Step> = List::new();
/// steps.push(step("knead"))?;
/// steps.push(step("bake"))?;
/// steps.insert(1, step("wait"))?;
/// steps.update_id("wait", |wait| wait.done = true)?;
/// let ids: Vec<&str> = steps.iter().map(|step| step.id()).collect();
/// assert_eq!(ids, ["knead", "wait", "bake"]);
/// assert!(steps.push(step("bake")).is_err());
/// # Ok::<(), DuplicateId>(())
/// ```
pub struct List<T> {
    order: Tree<Placing<T>>,
    ids: Tree<Named>,
    /// Whether each item that is written has to be read back; found out once.
    buffers: Arc<OnceLock<bool>>,
}

/// An item and the index that says where it stands.
#[derive(Debug)]
struct Placing<T> {
    index: Vec<u8>,
    item: Arc<T>,
}

impl<T> Clone for Placing<T> {
    fn clone(&self) -> Self {
        Self {
            index: self.index.clone(),
            item: Arc::clone(&self.item),
        }
    }
}

impl<T> Placed for Placing<T> {
    fn order(&self, other: &Self) -> Ordering {
        self.index.cmp(&other.index)
    }

    fn priority(&self) -> u64 {
        super::hash(&self.index)
    }
}

/// Which index the item with an id has.
#[derive(Debug)]
struct Named {
    id: Box<str>,
    index: Vec<u8>,
}

impl Placed for Named {
    fn order(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }

    fn priority(&self) -> u64 {
        super::hash(&self.id)
    }
}

impl<T> List<T> {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self {
            order: Tree::default(),
            ids: Tree::default(),
            buffers: Arc::default(),
        }
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at a position.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&T> {
        self.order.nth(position).map(|placing| &*placing.item)
    }

    /// The item with an id.
    #[must_use]
    pub fn get_id(&self, id: &str) -> Option<&T> {
        self.placing(id).map(|placing| &*placing.item)
    }

    /// Where the item with an id stands.
    #[must_use]
    pub fn position(&self, id: &str) -> Option<usize> {
        let index = self.index(id)?;
        Some(
            self.order
                .rank(|placing| placing.index.as_slice().cmp(index)),
        )
    }

    /// The items, in their order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self.order.iter())
    }

    /// Removes all items.
    pub fn clear(&mut self) {
        self.order = Tree::default();
        self.ids = Tree::default();
    }

    fn index(&self, id: &str) -> Option<&[u8]> {
        let named = self.ids.get(|named| (*named.id).cmp(id))?;
        Some(&named.index)
    }

    fn placing(&self, id: &str) -> Option<&Placing<T>> {
        let index = self.index(id)?;
        self.order
            .get(|placing| placing.index.as_slice().cmp(index))
    }
}

impl<T: Item> List<T> {
    /// Puts an item at the end.
    ///
    /// # Errors
    ///
    /// [`DuplicateId`], and the list is as it was.
    pub fn push(&mut self, item: T) -> Result<(), DuplicateId> {
        self.insert(self.len(), item)
    }

    /// Puts an item before the one at a position; at the end if there is none.
    ///
    /// # Errors
    ///
    /// [`DuplicateId`], and the list is as it was.
    pub fn insert(&mut self, position: usize, item: T) -> Result<(), DuplicateId> {
        self.assert_new(item.id())?;
        self.place(position, Arc::new(item));
        Ok(())
    }

    /// Moves the item at a position so that it stands at another one afterwards; at the end if there
    /// is none. Whether there is such an item.
    pub fn move_to(&mut self, from: usize, to: usize) -> bool {
        let Some(item) = self.take(from) else {
            return false;
        };
        self.place(to, item);
        true
    }

    /// Removes the item at a position.
    pub fn remove(&mut self, position: usize) -> Option<T>
    where
        T: Clone,
    {
        self.take(position).map(Arc::unwrap_or_clone)
    }

    /// Removes the item with an id.
    pub fn remove_id(&mut self, id: &str) -> Option<T>
    where
        T: Clone,
    {
        self.remove(self.position(id)?)
    }

    /// Changes the item at a position; none if there is no such item.
    ///
    /// # Errors
    ///
    /// [`DuplicateId`] if it got the id of another item; it is as it was then.
    pub fn update<R>(
        &mut self,
        position: usize,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<Option<R>, DuplicateId>
    where
        T: Clone,
    {
        let Some(placing) = self.order.nth(position) else {
            return Ok(None);
        };
        let index = placing.index.clone();
        let mut item = (*placing.item).clone();
        let old = item.id().to_owned();
        let result = change(&mut item);
        if item.id() != old {
            self.assert_new(item.id())?;
            self.ids.remove(|named| (*named.id).cmp(&old));
            self.name(item.id().into(), index.clone());
        }
        let item = Arc::new(item);
        self.order.insert(Placing { index, item });
        Ok(Some(result))
    }

    /// Changes the item with an id; none if there is no such item.
    ///
    /// # Errors
    ///
    /// [`DuplicateId`] if it got the id of another item; it is as it was then.
    pub fn update_id<R>(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<Option<R>, DuplicateId>
    where
        T: Clone,
    {
        match self.position(id) {
            Some(position) => self.update(position, change),
            None => Ok(None),
        }
    }

    fn assert_new(&self, id: &str) -> Result<(), DuplicateId> {
        match self.index(id) {
            Some(_) => Err(DuplicateId(id.to_owned())),
            None => Ok(()),
        }
    }

    fn name(&mut self, id: Box<str>, index: Vec<u8>) {
        self.ids.insert(Named { id, index });
    }

    fn take(&mut self, position: usize) -> Option<Arc<T>> {
        let index = self.order.nth(position)?.index.clone();
        let placing = self.order.remove(|placing| placing.index.cmp(&index))?;
        let item = Arc::clone(&placing.item);
        self.ids.remove(|named| (*named.id).cmp(item.id()));
        Some(item)
    }

    fn place(&mut self, position: usize, item: Arc<T>) {
        let left = position.min(self.len()).checked_sub(1);
        let left = left.and_then(|left| self.order.nth(left));
        let left = left.map(|placing| placing.index.as_slice());
        let right = self.order.nth(position);
        let right = right.map(|placing| placing.index.as_slice());
        match codec::index::between_two(left, right) {
            Some(index) => self.put(index, item),
            None => {
                // No room is left between the two: the list is numbered afresh.
                let mut items: Vec<Arc<T>> =
                    self.order.iter().map(|p| Arc::clone(&p.item)).collect();
                items.insert(position.min(items.len()), item);
                let indices = codec::index::fresh(items.len());
                self.clear();
                for (index, item) in indices.into_iter().zip(items) {
                    self.put(index, item);
                }
            }
        }
    }

    fn put(&mut self, index: Vec<u8>, item: Arc<T>) {
        self.name(item.id().into(), index.clone());
        self.order.insert(Placing { index, item });
    }
}

/// The items of a [`List`], in their order.
#[derive(Debug)]
pub struct Iter<'a, T>(tree::Iter<'a, Placing<T>>);

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        self.0.next().map(|placing| &*placing.item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}

impl<'a, T> IntoIterator for &'a List<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T: Item> TryFrom<Vec<T>> for List<T> {
    type Error = DuplicateId;

    fn try_from(items: Vec<T>) -> Result<Self, DuplicateId> {
        let mut list = Self::new();
        for item in items {
            list.push(item)?;
        }
        Ok(list)
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        Self {
            order: self.order.clone(),
            ids: self.ids.clone(),
            buffers: Arc::clone(&self.buffers),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<T: PartialEq> PartialEq for List<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<T: Eq> Eq for List<T> {}

/// What the codec keeps of a list.
struct Kept<T>(List<T>);

impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").finish_non_exhaustive()
    }
}

impl<T: Item + Serialize + DeserializeOwned + Send + Sync + 'static> Collection for Kept<T> {
    fn kind(&self) -> Kind {
        Kind::List
    }

    fn touched(
        &self,
        before: Option<&dyn Collection>,
        visit: &mut Visit<'_>,
    ) -> Result<(), CodecError> {
        let nothing = Tree::default();
        let before = match before.and_then(|before| before.as_any().downcast_ref::<Self>()) {
            Some(before) => &before.0.order,
            None => &nothing,
        };
        // An item that was moved shows at two places.
        let mut touched: BTreeSet<String> = BTreeSet::new();
        self.0.order.differences(before, &mut |old, new| {
            let placings = [old, new].into_iter().flatten();
            touched.extend(placings.map(|placing| placing.item.id().to_owned()));
            Ok::<_, CodecError>(())
        })?;
        for id in &touched {
            let part = self.0.placing(id).map(|placing| ListItem {
                placing,
                buffers: &self.0.buffers,
            });
            let part = part.as_ref().map(|part| part as &dyn Part);
            visit(PathElement::from(id.as_str()), Stored::Known, part)?;
        }
        Ok(())
    }

    fn is_like(&self, other: &dyn Collection) -> bool {
        other.as_any().is::<Self>()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct ListItem<'i, T> {
    placing: &'i Placing<T>,
    buffers: &'i OnceLock<bool>,
}

impl<T: Item + Serialize + DeserializeOwned> Part for ListItem<'_, T> {
    fn encode(
        &self,
        base: &Leaves,
        ignored: &Ignored,
        depth: usize,
    ) -> Result<Encoded, CodecError> {
        let item = &*self.placing.item;
        let buffers = *self.buffers.get_or_init(codec::may_buffer::<T>);
        let encoded = codec::encode_entry(item, base, ignored, depth, buffers)?;
        let id = Path::root().child("id");
        let written = encoded.leaves.get(&id);
        if written == Some(&codec::to_payload(item.id())?) {
            return Ok(encoded);
        }
        Err(CodecError::new(
            CodecErrorKind::Refused,
            "an item of a list is a struct with a string field `id`, which its `Item::id` returns",
        ))
    }

    fn index(&self) -> &[u8] {
        &self.placing.index
    }
}

impl<T: Item + Serialize + DeserializeOwned + Send + Sync + 'static> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(collection::NAME, &Inside(self))
    }
}

/// The content of the newtype that a list is to serde.
struct Inside<'l, T>(&'l List<T>);

impl<T: Item + Serialize + DeserializeOwned + Send + Sync + 'static> Serialize for Inside<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Slot::Wanted(_) = collection::take() {
            collection::put(Slot::Given(Arc::new(Kept(self.0.clone()))));
            return serializer.serialize_unit();
        }
        serializer.collect_seq(self.0)
    }
}

impl<'de, T: Item + Serialize + DeserializeOwned + Send + Sync + 'static> Deserialize<'de>
    for List<T>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(collection::NAME, Reader(None, PhantomData))
    }
}

/// Reads a list, or takes the one that the codec has in memory. With the indices that the items have
/// in the store.
struct Reader<T>(Option<Vec<Vec<u8>>>, PhantomData<fn() -> T>);

impl<'de, T: Item + Serialize + DeserializeOwned + Send + Sync + 'static> Visitor<'de>
    for Reader<T>
{
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of items with distinct ids")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inside: D) -> Result<List<T>, D::Error> {
        let (wanted, indices) = match collection::take() {
            Slot::Wanted(indices) => (true, indices),
            Slot::Given(_) | Slot::WantedIfPartial | Slot::Empty => (false, None),
        };
        let list = inside.deserialize_seq(Self(indices, PhantomData))?;
        if wanted {
            collection::put(Slot::Given(Arc::new(Kept(list.clone()))));
        }
        Ok(list)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<List<T>, E> {
        match collection::take() {
            Slot::Given(kept) => match kept.as_any().downcast_ref::<Kept<T>>() {
                Some(kept) => Ok(kept.0.clone()),
                None => Err(E::custom("another collection is in memory here")),
            },
            Slot::Wanted(_) | Slot::WantedIfPartial | Slot::Empty => {
                Err(E::invalid_type(serde::de::Unexpected::Unit, &self))
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List<T>, A::Error> {
        let mut read: Vec<Arc<T>> = Vec::new();
        while let Some(item) = items.next_element::<T>()? {
            read.push(Arc::new(item));
        }
        let indices = self.0.filter(|indices| indices.len() == read.len());
        let indices = indices.unwrap_or_else(|| codec::index::fresh(read.len()));
        let mut list = List::new();
        for (index, item) in indices.into_iter().zip(read) {
            list.assert_new(item.id()).map_err(A::Error::custom)?;
            list.put(index, item);
        }
        Ok(list)
    }
}

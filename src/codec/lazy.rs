//! States of which not all leaves are in memory.
//!
//! A lazy collection keeps what it knows of its entries; the leaves beside it are the base that the
//! next diff needs. Invariants:
//!
//! - *What is known of an entry is what is stored.* Of a key that the kept collection has an entry
//!   for, the leaves hold all that the store holds at and below its place. Of a key that it knows to
//!   have none, the store holds nothing there. Of all other keys the leaves hold nothing.
//! - *Nothing is taken for absent because it was not read.* A partial collection is a value of its own
//!   kind; only its own type can read it, and it answers nothing that it does not know.
//!
//! An entry that was written unread is written over whatever is stored: its place is cleared first.

use super::collection::{Collection, Collections, Entry, LazyCollection, Stretch, Unread};
use super::decode::read;
use super::diff::Change;
use super::encode::{Collect, serialize_as};
use super::error::{CodecError, CodecErrorKind};
use super::foreign::Ignored;
use super::leaf::{Kind, Value};
use super::leaves::{Leaves, index_of, kind_of};
use super::path::{Path, PathElement, Step};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What was read of a lazy collection.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The collection.
    pub(crate) collection: Path,
    /// All of it was read.
    pub(crate) stretch: Stretch,
    /// What is stored there, by its path in the state.
    pub(crate) leaves: BTreeMap<Path, Bytes>,
}

/// What an entry costs in memory beside its bytes, about.
const ENTRY_OVERHEAD: usize = 100;

fn partial(collection: &Arc<dyn Collection>) -> Option<&dyn LazyCollection> {
    collection.as_lazy().filter(|lazy| lazy.is_partial())
}

impl Leaves {
    /// Says that nothing below `path` was read. Whether that is possible: what is stored there must
    /// be a map in a place where a state of structs has one, or nothing.
    pub(crate) fn defer(&mut self, path: &Path) -> bool {
        let Some(leaf) = self.get(path) else {
            return true;
        };
        if kind_of(leaf) != Some(Kind::Map) || !index_of(leaf).is_empty() {
            return false;
        }
        let mut above = Path::root();
        for element in path.elements() {
            let leaf = self.get(&above);
            if leaf.and_then(|leaf| kind_of(leaf)) != Some(Kind::Struct) {
                return false;
            }
            above = above.child(element);
        }
        let unread = Unread { path: path.clone() };
        self.collections_mut()
            .insert(path.clone(), Arc::new(unread));
        true
    }

    /// Whether the store may hold leaves that are not here.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial().next().is_some()
    }

    /// The collections of which not everything is here.
    pub(super) fn partial(&self) -> impl Iterator<Item = &Path> {
        let collections = self.collections().iter();
        collections
            .filter(|(_, collection)| partial(collection).is_some())
            .map(|(path, _)| path)
    }

    /// About how many bytes are in memory of what lazy collections were asked for and given; never
    /// too few.
    pub(crate) fn loaded(&self) -> usize {
        self.loaded
    }

    /// The same without what lies below these places, as if nothing of it had been read. Where that is
    /// not [possible](Self::defer) all was read, and stays.
    pub(crate) fn without(&self, lazy: &[Path]) -> Self {
        let is_below = |path: &Path| {
            let mut lazy = lazy.iter();
            lazy.any(|place| place != path && place.contains(path))
        };
        let rest = self.iter().filter(|(path, _)| !is_below(path));
        let rest = rest.map(|(path, leaf)| (path.clone(), leaf.clone()));
        let mut rest: Self = rest.collect();
        for place in lazy {
            if !rest.defer(place) {
                for (path, leaf) in self.tree(place) {
                    rest.insert(path.clone(), leaf.clone());
                }
            }
        }
        rest
    }

    /// Counts what was written to lazy collections, and what of them was cleared: that too is known.
    pub(super) fn count_written(&mut self, changes: &[Change]) {
        let all = self.collections().iter();
        let lazy = all.filter(|(_, collection)| collection.as_lazy().is_some());
        let lazy: Vec<&Path> = lazy.map(|(path, _)| path).collect();
        if lazy.is_empty() {
            return;
        }
        let inside = changes.iter().filter(|change| {
            let mut lazy = lazy.iter();
            lazy.any(|lazy| lazy.contains(change.path()))
        });
        let weights = inside.map(|change| match change {
            Change::Set(path, leaf) => weight(path, leaf),
            Change::Clear(path) | Change::ClearTree(path) => weight(path, &[]),
        });
        let written: usize = weights.sum();
        self.loaded += written;
    }
}

fn weight(path: &Path, leaf: &[u8]) -> usize {
    // Both are here as leaves and, decoded, in the collection.
    ENTRY_OVERHEAD + 2 * (path.as_tuple().len() + leaf.len())
}

/// What it costs to know that a stretch was read, whatever there was: its ends, or the key.
fn weight_of(stretch: &Stretch) -> usize {
    ENTRY_OVERHEAD + stretch.from.len() + stretch.to.as_ref().map_or(0, Vec::len)
}

/// The collections that must be kept in mind, whatever became of the leaves.
pub(super) fn only_partial(collections: &mut Collections) {
    collections.retain(|_, collection| partial(collection).is_some());
}

/// Refuses a value that does not write each collection that was left unread where it was read: its
/// entries would not move along.
pub(super) fn assert_in_place<T: Serialize>(
    value: &T,
    leaves: &Leaves,
    found: &Collections,
) -> Result<(), CodecError> {
    if !leaves.is_partial() {
        return Ok(());
    }
    let written = serialize_as(value, 0, Collect::Partial)?.node;
    let written = Leaves::from_node(written, &Leaves::new());
    for path in leaves.partial() {
        if !found.contains_key(path) || !written.collections().contains_key(path) {
            let message = "the type does not keep a lazy map where it is stored";
            return Err(CodecError::new(CodecErrorKind::Mismatch, message).at_path(path));
        }
    }
    Ok(())
}

/// Adds to a partial state what was read of it.
///
/// # Errors
///
/// As those of [`decode`](super::decode), for entries that are not of their type; nothing was added
/// then.
pub(crate) fn learn(
    leaves: &mut Leaves,
    ignored: &mut Ignored,
    found: Found,
) -> Result<(), CodecError> {
    let at = found.collection;
    let Some(collection) = leaves.collections().get(&at).cloned() else {
        return Ok(());
    };
    let Some(lazy) = collection.as_lazy() else {
        return Ok(());
    };
    let mut entries: Vec<Entry> = Vec::new();
    for (path, leaf) in &found.leaves {
        let Some(below) = at.strip(path) else {
            continue;
        };
        let Some(element) = below.elements().next() else {
            continue;
        };
        let key = Path::root().child(element);
        if entries.last().is_none_or(|entry| entry.key != key) {
            let leaves = Leaves::new();
            entries.push(Entry { key, leaves });
        }
        if let Some(entry) = entries.last_mut()
            && let Some(inside) = entry.key.strip(&below)
        {
            entry.leaves.insert(inside, leaf.clone());
        }
    }
    let learned = lazy.learn(&found.stretch, &entries);
    let learned = learned.map_err(|error| error.at_path(&at))?;
    for (key, of_entry) in learned.ignored {
        if !of_entry.is_empty() {
            let steps = at.join(&key).steps();
            ignored.seen.replace(&steps, Some(of_entry.seen));
        }
    }
    // Of a range some may have been here before.
    let read = found.leaves.iter();
    let new = read.filter(|(path, _)| leaves.get(path).is_none());
    let new: usize = new.map(|(path, leaf)| weight(path, leaf)).sum();
    leaves.loaded += new + weight_of(&found.stretch);
    leaves.extend_unchanged(found.leaves);
    leaves.collections_mut().insert(at, learned.collection);
    Ok(())
}

/// The key that an element of a path stands for.
///
/// # Errors
///
/// As those of [`decode`](super::decode).
pub(crate) fn read_key<K: DeserializeOwned>(key: &Path) -> Result<K, CodecError> {
    let value = match key.elements().next() {
        Some(PathElement::Str(text)) => Value::Str(text.into_owned().into()),
        Some(PathElement::Int(number)) => Value::Int(number.get()),
        None => Value::Nil,
    };
    let read = read::<K>(&value).map(|(key, _)| key);
    read.map_err(|error| match key.elements().next() {
        Some(element) => error.at(Step::from(element)),
        None => error,
    })
}

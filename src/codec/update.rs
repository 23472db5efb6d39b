//! A state with durable collections, from what is stored and back, at the cost of what changed.
//!
//! What is outside the collections is encoded and compared as a whole, as any state is. Of each
//! collection the entries are encoded that differ from the copy kept with the base, each as a small
//! state of its own: with its own leaves for a base, and its own foreign fields. An entry of a lazy
//! collection that was never read has no base: it is cleared, whatever it is, and written afresh.

use super::collection::{Collection, Collections, Part, Stored};
use super::decode::read_collecting;
use super::diff::{Change, diff, diff_of};
use super::encode::{self, Collect};
use super::error::{CodecError, CodecErrorKind};
use super::foreign::{self, Ignored};
use super::lazy;
use super::leaves::{Leaves, index_of, with_index};
use super::path::{Path, PathElement, Step};
use super::{Encoded, finish, probe};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is to be written, and what is known of the stored state once that is done.
#[derive(Debug)]
pub(crate) struct Update {
    /// In the order of their paths.
    pub(crate) changes: Vec<Change>,
    /// As in [`Encoded`].
    pub(crate) ignored: Ignored,
    collections: Collections,
}

impl Update {
    /// Brings the base of the update to what is stored after it.
    pub(crate) fn land(self, base: &mut Leaves) {
        base.apply(&self.changes);
        base.set_collections(self.collections);
        base.count_written(&self.changes);
    }
}

/// The state that leaves hold; they keep its collections in mind.
///
/// # Errors
///
/// As those of [`decode`](super::decode), also when the state can only be read as a whole and some of
/// it was [deferred](Leaves::defer).
pub(crate) fn load<T: Serialize + DeserializeOwned>(
    leaves: &mut Leaves,
) -> Result<(T, Ignored), CodecError> {
    lazy::only_partial(leaves.collections_mut());
    let stored = leaves.to_value()?;
    let (value, seen, collections) = read_collecting::<T>(&stored)?;
    let ignored = foreign::find(&stored, &value, seen, Collect::Partial)?;
    lazy::assert_in_place(&value, leaves, &collections)?;
    leaves.set_collections(collections);
    Ok((value, ignored))
}

/// The state that leaves hold, its collections taken from memory where they are there.
///
/// # Errors
///
/// As those of [`decode`](super::decode).
pub(crate) fn restore<T: Serialize + DeserializeOwned>(leaves: &Leaves) -> Result<T, CodecError> {
    let restored = leaves
        .to_value()
        .and_then(|stored| Ok(read_collecting::<T>(&stored)?.0));
    match restored {
        // A type that reads itself differently each time may find no place for a collection.
        Err(_) if leaves.has_collections() => {
            let mut plain = leaves.clone();
            lazy::only_partial(plain.collections_mut());
            Ok(read_collecting::<T>(&plain.to_value()?)?.0)
        }
        restored => restored,
    }
}

/// What must be written so that the store holds this state and not the base.
///
/// # Errors
///
/// As those of [`encode`](super::encode).
pub(crate) fn update<T: Serialize + DeserializeOwned>(
    value: &T,
    base: &Leaves,
    ignored: &Ignored,
) -> Result<Update, CodecError> {
    let serialized = encode::serialize_as(value, 0, Collect::All)?;
    let buffers = ignored.buffers;
    let buffers = buffers.unwrap_or_else(probe::may_buffer_outside::<T>);
    let outside = Ignored {
        seen: ignored.outside(base.collections()),
        buffers: Some(buffers),
    };
    let encoded = finish(value, serialized, base, &outside, buffers)?;
    let known: Vec<&Path> = encoded
        .leaves
        .collections()
        .iter()
        .filter(|(path, now)| {
            let before = base.collections().get(path);
            before.is_some_and(|before| now.is_like(&**before))
        })
        .map(|(path, _)| path)
        .collect();
    let differ = |known| -> Result<_, CodecError> {
        let mut differ = Differ {
            base,
            ignored,
            known,
            changes: Vec::new(),
            ignored_now: encoded.ignored.clone(),
        };
        let cleared = differ.run(&encoded)?;
        Ok((cleared, differ.changes, differ.ignored_now))
    };
    let (cleared, mut changes, mut ignored) = differ(known.clone())?;
    if !cleared.is_empty() {
        // A container around a collection is written afresh, and the collection with it.
        let mut others = known;
        others.retain(|path| !cleared.contains(path));
        (_, changes, ignored) = differ(others)?;
    }
    ignored.buffers = Some(buffers);
    changes.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(Update {
        changes,
        ignored,
        collections: encoded.leaves.collections().clone(),
    })
}

impl Ignored {
    /// What was ignored outside these collections.
    fn outside(&self, collections: &Collections) -> foreign::Seen {
        let paths: Vec<Vec<Step>> = collections.keys().map(Path::steps).collect();
        let paths: Vec<&[Step]> = paths.iter().map(Vec::as_slice).collect();
        let mut seen = self.seen.without(&paths);
        seen.prune();
        seen
    }
}

/// The differences between a base and an encoded state.
struct Differ<'d> {
    base: &'d Leaves,
    ignored: &'d Ignored,
    /// The collections of which only what was touched is looked at.
    known: Vec<&'d Path>,
    changes: Vec<Change>,
    ignored_now: Ignored,
}

impl<'d> Differ<'d> {
    /// Finds the changes. Which of the known collections they clear by accident.
    fn run(&mut self, encoded: &Encoded) -> Result<Vec<&'d Path>, CodecError> {
        let mut afresh: BTreeMap<Path, Bytes> = BTreeMap::new();
        for (path, collection) in encoded.leaves.collections() {
            let is_known = self.known.contains(&path);
            let before = self.base.collections().get(path).filter(|_| is_known);
            self.collection(path, &**collection, before, &mut afresh)?;
        }
        let old = self.base.outside(&self.known);
        let changes = if afresh.is_empty() {
            let changes = diff_of(old, encoded.leaves.iter());
            self.clear_unread(changes, &encoded.leaves)
        } else {
            let new = encoded.leaves.clone().into_iter().chain(afresh);
            let new: Leaves = new.collect();
            self.clear_unread(diff_of(old, new.iter()), &new)
        };
        let is_cleared = |path: &&Path| {
            let mut trees = changes.iter();
            trees.any(|change| matches!(change, Change::ClearTree(tree) if tree.contains(path)))
        };
        let mut cleared = self.known.clone();
        cleared.retain(is_cleared);
        self.changes.extend(changes);
        Ok(cleared)
    }

    /// Adds what clears the collections that are not what they were any more, for what of them is not
    /// in memory: a diff of leaves does not see it.
    fn clear_unread(&self, mut changes: Vec<Change>, new: &Leaves) -> Vec<Change> {
        let unread = self.base.partial();
        for path in unread.filter(|path| !self.known.contains(path)) {
            let goes =
                |change: &Change| matches!(change, Change::ClearTree(tree) if tree.contains(path));
            if changes.iter().any(goes) {
                continue;
            }
            changes.retain(|change| !path.contains(change.path()));
            changes.push(Change::ClearTree(path.clone()));
            let tree = new.tree(path);
            changes.extend(tree.map(|(path, leaf)| Change::Set(path.clone(), leaf.clone())));
        }
        changes
    }

    /// Encodes the entries of a collection that differ from `before`, or all of them.
    fn collection(
        &mut self,
        path: &Path,
        collection: &dyn Collection,
        before: Option<&Arc<dyn Collection>>,
        afresh: &mut BTreeMap<Path, Bytes>,
    ) -> Result<(), CodecError> {
        let steps = path.steps();
        let depth = steps.len() + 1;
        // Nothing is ignored where nothing was stored.
        let seen = self.ignored.seen.at(&steps);
        if let (Some(_), Some(seen)) = (before, seen) {
            self.ignored_now.seen.replace(&steps, Some(seen.clone()));
        }
        let before = before.map(|before| &**before);
        collection.touched(before, &mut |element, known, part| {
            let step = Step::from(element.clone());
            let place = path.child(element.clone());
            let stored = match known {
                Stored::Known => subtree(self.base, &place),
                Stored::Unread => {
                    self.changes.push(Change::ClearTree(place.clone()));
                    Leaves::new()
                }
            };
            let entry_seen = seen.and_then(|seen| seen.child(&step));
            let ignored = Ignored {
                seen: entry_seen.cloned().unwrap_or_default(),
                buffers: None,
            };
            let (leaves, ignored) = match part {
                Some(part) => encode_part(part, &stored, &ignored, depth, &place)?,
                None => (Leaves::new(), Ignored::none()),
            };
            if before.is_some() {
                let changes = diff(&stored, &leaves);
                self.changes
                    .extend(changes.into_iter().map(|change| below(&place, change)));
            } else {
                afresh.extend(
                    leaves
                        .into_iter()
                        .map(|(path, leaf)| (place.join(&path), leaf)),
                );
            }
            if entry_seen.is_some() || !ignored.is_empty() {
                let mut steps = steps.clone();
                steps.push(step);
                let seen = Some(ignored.seen).filter(|seen| !seen.is_empty());
                self.ignored_now.seen.replace(&steps, seen);
            }
            Ok(())
        })
    }
}

/// The leaves of an entry, with its index, and what was ignored in it.
fn encode_part(
    part: &dyn Part,
    stored: &Leaves,
    ignored: &Ignored,
    depth: usize,
    place: &Path,
) -> Result<(Leaves, Ignored), CodecError> {
    let root = Path::root();
    let mut base = stored.clone();
    if let Some(leaf) = stored.get(&root).filter(|leaf| !index_of(leaf).is_empty()) {
        base.insert(root.clone(), with_index(leaf, &[]));
    }
    let encoded = part.encode(&base, ignored, depth);
    let encoded = encoded.map_err(|error| error.at_path(place))?;
    let mut leaves = encoded.leaves;
    if !part.index().is_empty()
        && let Some(leaf) = leaves.get(&root).cloned()
    {
        leaves.insert(root, with_index(&leaf, part.index()));
    }
    Ok((leaves, encoded.ignored))
}

/// The leaves at and below a place, as seen from there.
fn subtree(leaves: &Leaves, place: &Path) -> Leaves {
    let tree = leaves.tree(place);
    tree.filter_map(|(path, leaf)| Some((place.strip(path)?, leaf.clone())))
        .collect()
}

/// A change as seen from the state.
fn below(place: &Path, change: Change) -> Change {
    match change {
        Change::Set(path, leaf) => Change::Set(place.join(&path), leaf),
        Change::Clear(path) => Change::Clear(place.join(&path)),
        Change::ClearTree(path) => Change::ClearTree(place.join(&path)),
    }
}

/// Refuses a key or an id that is not what it says in the path.
pub(crate) fn assert_element<K: ?Sized + Serialize>(
    key: &K,
    element: &PathElement<'_>,
) -> Result<(), CodecError> {
    let written = encode::serialize(key)?.node.into_key();
    if written == Step::from(element.clone()) {
        return Ok(());
    }
    Err(CodecError::new(
        CodecErrorKind::Refused,
        "this key serializes as another one than its `AsElement` says",
    )
    .at(Step::from(element.clone())))
}

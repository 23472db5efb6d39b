//! The leaves of a state: how containers become markers and sub-paths, and back.

use super::MAX_DEPTH;
use super::collection::{Collection, Collections};
use super::diff::Change;
use super::error::{CodecError, CodecErrorKind};
use super::index;
use super::lazy;
use super::leaf::{self, Kind, Value};
use super::node::Node;
use super::path::{Path, PathBuf, PathElement, Step};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet, btree_map};
use std::ops::Bound;
use std::sync::Arc;

/// The first byte of a marker: the one that begins no MessagePack value.
const MARKER: u8 = 0xc1;

/// The leaves of a state, in the order of their paths.
///
/// Collect what a store holds into it, or [encode](super::encode) a state.
#[derive(Debug, Clone, Default)]
pub struct Leaves {
    leaves: BTreeMap<Path, Bytes>,
    /// The durable collections among them, as they are in memory. What such a collection has is
    /// stored under its path, whether the leaves are here or not.
    collections: Collections,
    /// See [`loaded`](Self::loaded).
    pub(super) loaded: usize,
}

/// The same leaves; what they are in memory is no difference.
impl PartialEq for Leaves {
    fn eq(&self, other: &Self) -> bool {
        self.leaves == other.leaves
    }
}

impl Eq for Leaves {}

impl Leaves {
    /// No leaves: the base of a state that was never written.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a leaf, or replaces its bytes.
    pub fn insert(&mut self, path: Path, bytes: Bytes) {
        lazy::only_partial(&mut self.collections);
        self.leaves.insert(path, bytes);
    }

    /// The bytes of a leaf.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<&Bytes> {
        self.leaves.get(path)
    }

    /// All leaves, in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Bytes)> {
        self.leaves.iter()
    }

    /// How many leaves there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there is no leaf, and so no state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Applies changes in their order, as a store would.
    pub fn apply(&mut self, changes: &[Change]) {
        lazy::only_partial(&mut self.collections);
        for change in changes {
            match change {
                Change::Set(path, bytes) => {
                    self.leaves.insert(path.clone(), bytes.clone());
                }
                Change::Clear(path) => {
                    self.leaves.remove(path);
                }
                Change::ClearTree(root) => self.remove_tree(root),
            }
        }
    }

    /// Removes the leaves at and below a path.
    pub(super) fn remove_tree(&mut self, root: &Path) {
        let tree = self.tree(root).map(|(path, _)| path);
        let tree: Vec<Path> = tree.cloned().collect();
        for path in &tree {
            self.leaves.remove(path);
        }
    }

    /// Adds leaves of which the collections know.
    pub(super) fn extend_unchanged(&mut self, leaves: impl IntoIterator<Item = (Path, Bytes)>) {
        self.leaves.extend(leaves);
    }

    /// The leaves at and below a path.
    pub(super) fn tree(&self, root: &Path) -> impl Iterator<Item = (&Path, &Bytes)> {
        let from = (Bound::Included(root), Bound::Unbounded);
        let tree = self.leaves.range::<Path, _>(from);
        tree.take_while(|(path, _)| root.contains(path))
    }

    /// The leaves without those below some containers, whose own they are with.
    pub(super) fn outside<'l, 's>(&'l self, skip: &'s [&'s Path]) -> Outside<'l, 's> {
        Outside {
            all: &self.leaves,
            rest: self.leaves.range::<Path, _>(..),
            skip,
        }
    }

    pub(super) fn has_collections(&self) -> bool {
        !self.collections.is_empty()
    }

    pub(super) fn collections(&self) -> &Collections {
        &self.collections
    }

    pub(super) fn collections_mut(&mut self) -> &mut Collections {
        &mut self.collections
    }

    /// Says which durable collections the leaves are those of.
    pub(super) fn set_collections(&mut self, collections: Collections) {
        self.collections = collections;
    }

    /// The leaves of a value. Lists keep the order that `base` has stored as far as they can.
    pub(super) fn from_node(node: Node, base: &Self) -> Self {
        let mut walk = Walk {
            base,
            path: PathBuf::default(),
            leaves: Vec::new(),
            collections: Collections::new(),
        };
        walk.place(node, &[]);
        Self {
            leaves: walk.leaves.into_iter().collect(),
            collections: walk.collections,
            loaded: 0,
        }
    }

    /// The value that the leaves hold, with its collections as they are in memory.
    pub(super) fn to_value(&self) -> Result<Value<'_>, CodecError> {
        self.value(&self.collections)
    }

    /// The value that the leaves hold, all of it from them.
    pub(super) fn to_whole_value(&self) -> Result<Value<'_>, CodecError> {
        if let Some(path) = self.partial().next() {
            let message = "not all that is stored here is in memory";
            return Err(CodecError::new(CodecErrorKind::Missing, message).at_path(path));
        }
        self.value(NO_COLLECTIONS)
    }

    fn value<'l>(&'l self, collections: &'l Collections) -> Result<Value<'l>, CodecError> {
        let skip: Vec<&Path> = collections.keys().collect();
        let leaves: Vec<Leaf<'_>> = self.outside(&skip).collect();
        let Some((first, below)) = leaves.split_first() else {
            return Err(CodecError::new(
                CodecErrorKind::Missing,
                "no leaf is stored",
            ));
        };
        if *first.0 != Path::root() {
            return Err(corrupt("there is no leaf at the root", first.0));
        }
        match value_of(*first, below, MAX_DEPTH, collections)? {
            (value, []) => Ok(value),
            _ => Err(corrupt("an item's index outside a list", first.0)),
        }
    }

    /// The value that the leaves at and below `root` hold.
    pub(super) fn to_value_at(&self, root: &Path) -> Result<Value<'_>, CodecError> {
        let leaves: Vec<Leaf<'_>> = self.tree(root).collect();
        match leaves.split_first() {
            Some((first, below)) if first.0 == root => {
                value_of(*first, below, MAX_DEPTH, NO_COLLECTIONS).map(|(value, _)| value)
            }
            _ => Err(
                CodecError::new(CodecErrorKind::Missing, "no leaf is stored here").at_path(root),
            ),
        }
    }
}

impl FromIterator<(Path, Bytes)> for Leaves {
    fn from_iter<I: IntoIterator<Item = (Path, Bytes)>>(leaves: I) -> Self {
        Self {
            leaves: leaves.into_iter().collect(),
            ..Self::default()
        }
    }
}

impl IntoIterator for Leaves {
    type Item = (Path, Bytes);
    type IntoIter = btree_map::IntoIter<Path, Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        self.leaves.into_iter()
    }
}

/// Leaves without those below some containers.
pub(super) struct Outside<'l, 's> {
    all: &'l BTreeMap<Path, Bytes>,
    rest: btree_map::Range<'l, Path, Bytes>,
    /// The containers, in order.
    skip: &'s [&'s Path],
}

impl<'l> Iterator for Outside<'l, '_> {
    type Item = (&'l Path, &'l Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        let leaf = self.rest.next()?;
        while let Some((first, others)) = self.skip.split_first()
            && *first <= leaf.0
        {
            self.skip = others;
            if *first == leaf.0 {
                self.rest = self.all.range(leaf.0.end()..);
            }
        }
        Some(leaf)
    }
}

static NO_COLLECTIONS: &Collections = &Collections::new();

/// The index in an item's marker.
pub(super) fn index_of(leaf: &[u8]) -> &[u8] {
    match read_marker(leaf) {
        Some(Ok((_, index))) => index,
        _ => &[],
    }
}

/// The marker of an item with another index, or with none; what is no marker stays.
pub(super) fn with_index(leaf: &Bytes, index: &[u8]) -> Bytes {
    match kind_of(leaf) {
        Some(kind) => marker(kind, index),
        None => leaf.clone(),
    }
}

/// What kind of container the leaf is a marker of; `None` for a value.
pub(crate) fn kind_of(leaf: &[u8]) -> Option<Kind> {
    read_marker(leaf)?.ok().map(|(kind, _)| kind)
}

fn marker(kind: Kind, index: &[u8]) -> Bytes {
    let code = match kind {
        Kind::Struct => b's',
        Kind::Map => b'm',
        Kind::List => b'l',
    };
    let mut bytes = Vec::with_capacity(2 + index.len());
    bytes.extend_from_slice(&[MARKER, code]);
    bytes.extend_from_slice(index);
    bytes.into()
}

/// The kind and the index of a marker; an error for a marker of no known kind.
fn read_marker(leaf: &[u8]) -> Option<Result<(Kind, &[u8]), u8>> {
    let (code, index) = leaf
        .strip_prefix(&[MARKER])?
        .split_first()
        .unwrap_or((&0, &[]));
    Some(match code {
        b's' => Ok((Kind::Struct, index)),
        b'm' => Ok((Kind::Map, index)),
        b'l' => Ok((Kind::List, index)),
        other => Err(*other),
    })
}

/// From nodes to leaves.
struct Walk<'b> {
    base: &'b Leaves,
    path: PathBuf,
    leaves: Vec<(Path, Bytes)>,
    collections: Collections,
}

impl Walk<'_> {
    /// Adds the leaves of a value; `index` is where it stands in its list, if it is an item.
    fn place(&mut self, node: Node, index: &[u8]) {
        let has_paths = node.has_paths();
        match node {
            Node::Struct(fields) => {
                self.mark(Kind::Struct, index);
                for (name, value) in fields {
                    self.below(&PathElement::Str(name), value, &[]);
                }
            }
            Node::Map { entries, .. } if has_paths => {
                self.mark(Kind::Map, index);
                for (key, value) in entries {
                    match key {
                        Step::Str(name) => {
                            self.below(&PathElement::Str(name.into_string().into()), value, &[]);
                        }
                        Step::Int(number) => self.below(&PathElement::Int(number), value, &[]),
                        Step::Other(_) | Step::Index(_) => {}
                    }
                }
            }
            Node::List(items) => match ids(&items) {
                Some(ids) => {
                    self.mark(Kind::List, index);
                    let indices = self.indices(&ids);
                    for ((item, id), index) in items.into_iter().zip(ids).zip(indices) {
                        self.below(&PathElement::Str(id.into()), item, &index);
                    }
                }
                None => self.leaf(Node::List(items)),
            },
            Node::Collection(collection) => self.collection(collection, index),
            opaque => self.leaf(opaque),
        }
    }

    /// The marker alone. What the collection has is encoded entry by entry.
    fn collection(&mut self, collection: Arc<dyn Collection>, index: &[u8]) {
        self.mark(collection.kind(), index);
        self.collections.insert(self.path.to_path(), collection);
    }

    fn below(&mut self, element: &PathElement<'_>, node: Node, index: &[u8]) {
        let length = self.path.len();
        self.path.push(element);
        self.place(node, index);
        self.path.truncate(length);
    }

    fn mark(&mut self, kind: Kind, index: &[u8]) {
        self.leaves.push((self.path.to_path(), marker(kind, index)));
    }

    fn leaf(&mut self, node: Node) {
        let bytes = node.into_packed().into_boxed_slice();
        self.leaves.push((self.path.to_path(), bytes.into()));
    }

    /// The indices of the items of the list at the current path.
    fn indices(&mut self, ids: &[String]) -> Vec<Vec<u8>> {
        let length = self.path.len();
        let mut old = Vec::with_capacity(ids.len());
        for id in ids {
            self.path.push_str(id);
            let stored = self.base.get(&self.path.to_path());
            self.path.truncate(length);
            old.push(match stored.and_then(|leaf| read_marker(leaf)) {
                Some(Ok((_, index))) => Some(index),
                _ => None,
            });
        }
        index::assign(&old)
    }
}

/// The ids of a list's items, if each has one and no two have the same.
fn ids(items: &[Node]) -> Option<Vec<String>> {
    let ids: Vec<String> = items
        .iter()
        .map(|item| item.id().map(Cow::into_owned))
        .collect::<Option<_>>()?;
    let mut seen = HashSet::with_capacity(ids.len());
    let distinct = ids.iter().all(|id| seen.insert(id.as_str()));
    distinct.then_some(ids)
}

type Leaf<'a> = (&'a Path, &'a Bytes);

fn corrupt(message: impl Into<String>, path: &Path) -> CodecError {
    CodecError::new(CodecErrorKind::Corrupt, message).at_path(path)
}

/// The value of a leaf and the leaves `below` it, with its index if it is an item.
fn value_of<'a>(
    (path, bytes): Leaf<'a>,
    below: &[Leaf<'a>],
    depth: usize,
    collections: &'a Collections,
) -> Result<(Value<'a>, &'a [u8]), CodecError> {
    if let Some(collection) = collections.get(path) {
        return Ok((Value::Collection(collection), &[]));
    }
    let Some(marker) = read_marker(bytes) else {
        if let Some((orphan, _)) = below.first() {
            return Err(corrupt("a leaf lies below a value", orphan));
        }
        let value = leaf::parse(bytes, depth).map_err(|error| error.at_path(path))?;
        return Ok((value, &[]));
    };
    let (kind, index) =
        marker.map_err(|code| corrupt(format!("no container has the kind {code:#04x}"), path))?;
    let depth = depth
        .checked_sub(1)
        .ok_or_else(|| corrupt(format!("nested deeper than {MAX_DEPTH} levels"), path))?;
    let mut entries = Vec::new();
    let mut rest = below;
    while let Some((first, others)) = rest.split_first() {
        let (child, _) = *first;
        // The leaves are sorted, so a container's marker comes right before what it contains. What
        // has no marker is not the next element of its container.
        let element = path
            .element_of(child)
            .ok_or_else(|| corrupt("the container of this leaf has no marker", child))?;
        let end = others.partition_point(|(path, _)| child.contains(path));
        let (inside, next) = others.split_at_checked(end).unwrap_or((others, &[]));
        let (value, index) = value_of(*first, inside, depth, collections)?;
        entries.push((element, child, value, index));
        rest = next;
    }
    let value = match kind {
        Kind::List => items(entries)?,
        kind => fields(kind, entries)?,
    };
    Ok((value, index))
}

type Child<'a> = (PathElement<'a>, &'a Path, Value<'a>, &'a [u8]);

fn fields<'a>(kind: Kind, children: Vec<Child<'a>>) -> Result<Value<'a>, CodecError> {
    let mut entries = Vec::with_capacity(children.len());
    for (element, path, value, index) in children {
        if !index.is_empty() {
            return Err(corrupt("an item's index outside a list", path));
        }
        let key = match element {
            PathElement::Str(name) => Value::Str(name),
            PathElement::Int(_) if kind == Kind::Struct => {
                return Err(corrupt("a field's name is a number", path));
            }
            PathElement::Int(number) => Value::Int(number.get()),
        };
        entries.push((key, value));
    }
    Ok(Value::Fields(kind, entries))
}

fn items<'a>(mut children: Vec<Child<'a>>) -> Result<Value<'a>, CodecError> {
    children.sort_by_key(|(.., index)| *index);
    let mut items: Vec<(Cow<'a, str>, Value<'a>)> = Vec::with_capacity(children.len());
    let mut indices: Vec<&'a [u8]> = Vec::with_capacity(children.len());
    let mut last: &[u8] = &[];
    for (element, path, value, index) in children {
        if !index::is_valid(index) {
            return Err(corrupt("an item of a list has no index", path));
        }
        if index == last {
            return Err(corrupt("two items of a list have the same index", path));
        }
        last = index;
        match element {
            PathElement::Str(id) => {
                items.push((id, value));
                indices.push(index);
            }
            PathElement::Int(_) => return Err(corrupt("an item's id is a number", path)),
        }
    }
    Ok(Value::Items(items, indices))
}

//! What the type does not know, kept: the fields that a newer version of it wrote.
//!
//! A field is foreign if the type *ignored* it when it was read. It is stored again with every later
//! version of the value, as long as what encloses it stays the same thing: the map's entry, the
//! list's item, the `Some`, the variant.

use super::decode::read;
use super::encode::serialize;
use super::error::CodecError;
use super::leaf::{self, Value};
use super::node::Node;
use super::path::Step;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How often a value is read again to tell foreign fields from those that the type reads under other
/// names. Each of the latter costs two tries or more, each try time in proportion to the value: this
/// bounds what a decode costs.
const MAX_TRIES: usize = 128;

/// What a decode found that the type does not know.
///
/// Hand it to the next [`encode`](super::encode) together with the leaves that were decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignored(pub(super) Seen);

impl Ignored {
    /// Nothing: the type knows all that is stored.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether the type knew all that was stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.children.is_empty()
    }

    /// Where the unknown fields are, for people: `state.orders[7].discount`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.0.render("state", &mut paths);
        paths
    }
}

/// A tree of steps: what was seen at a place and below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    children: BTreeMap<Step, Seen>,
    /// The type ignored this value.
    foreign: bool,
    /// serde read this container into a buffer.
    buffered: bool,
    /// This is a struct with flattened fields.
    flattened: bool,
    /// The field of this container that tells which variant it is.
    tag: Option<Step>,
}

/// Something seen at a place.
#[derive(Debug)]
pub(super) enum Mark {
    Foreign,
    Buffered,
    Flattened,
    Tag(Step),
}

impl Seen {
    pub(super) fn note(&mut self, steps: &[Step], mark: Mark) {
        let mut seen = self;
        for step in steps {
            seen = seen.children.entry(step.clone()).or_default();
        }
        match mark {
            Mark::Foreign => seen.foreign = true,
            Mark::Buffered => seen.buffered = true,
            Mark::Flattened => seen.flattened = true,
            Mark::Tag(step) => seen.tag = Some(step),
        }
    }

    /// Whether serde read anything on the type's behalf.
    fn any_buffer(&self) -> bool {
        self.buffered || self.flattened || self.children.values().any(Self::any_buffer)
    }

    /// Forgets all places without a foreign value in them.
    fn prune(&mut self) {
        self.children.retain(|_, child| {
            child.prune();
            child.foreign || !child.children.is_empty()
        });
    }

    fn merge(&mut self, other: Self) {
        self.foreign |= other.foreign;
        for (step, child) in other.children {
            self.children.entry(step).or_default().merge(child);
        }
    }

    fn render(&self, path: &str, out: &mut Vec<String>) {
        if self.foreign {
            out.push(path.to_owned());
        }
        for (step, child) in &self.children {
            let mut path = path.to_owned();
            step.render(&mut path);
            child.render(&path, out);
        }
    }

    fn foreign() -> Self {
        Self {
            foreign: true,
            ..Self::default()
        }
    }

    fn names(&self, out: &mut BTreeSet<Step>) {
        for (step, child) in &self.children {
            if child.foreign {
                out.insert(step.clone());
            }
            child.names(out);
        }
    }

    /// The part of this whose foreign values have one of these names.
    fn only(&self, names: &BTreeSet<&Step>) -> Self {
        let mut part = Self::default();
        for (step, child) in &self.children {
            let mut inner = child.only(names);
            inner.foreign = child.foreign && names.contains(step);
            if inner.foreign || !inner.children.is_empty() {
                part.children.insert(step.clone(), inner);
            }
        }
        part
    }
}

/// The foreign values among what was `seen` when `value` was read from `stored`.
pub(super) fn find<T: Serialize + DeserializeOwned>(
    stored: &Value<'_>,
    value: &T,
    mut seen: Seen,
) -> Result<Ignored, CodecError> {
    let buffers = seen.any_buffer();
    if !buffers {
        seen.prune();
        if seen.children.is_empty() {
            return Ok(Ignored::none());
        }
    }
    let written = serialize(value)?.node;
    if buffers {
        let mut missing = Seen::default();
        unwritten(stored, &written, Some(&seen), false, &mut missing);
        if !missing.children.is_empty() {
            let mut names = BTreeSet::new();
            missing.names(&mut names);
            let names: Vec<Step> = names.into_iter().collect();
            let print = fingerprint(&written);
            keep_unread::<T>(stored, &print, &missing, &names, &mut seen);
        }
    }
    forget_written(stored, &written, &mut seen);
    seen.prune();
    if seen.children.is_empty() {
        return Ok(Ignored::none());
    }
    Ok(Ignored(seen))
}

/// What was written for the item or entry that is stored at `position` under `step`.
fn written_at<'n>(written: &'n Node, step: &Step, position: usize) -> Option<&'n Node> {
    match written {
        Node::List(_) | Node::Tuple(_) => written.get(&Step::Index(position)),
        _ => written.get(step),
    }
}

/// Forgets what the type ignores and yet writes itself, as a struct does with a tag of its own.
fn forget_written(stored: &Value<'_>, written: &Node, seen: &mut Seen) {
    for (position, (step, value)) in children(stored).into_iter().enumerate() {
        if let Some(seen) = seen.children.get_mut(&step)
            && let Some(written) = written_at(written, &step, position)
        {
            seen.foreign = false;
            forget_written(value, written, seen);
        }
    }
}

/// Collects what is stored in a buffered place and was not written again: fields that the type does
/// not know, but also those that it knows by another name, or skips.
fn unwritten(
    stored: &Value<'_>,
    written: &Node,
    seen: Option<&Seen>,
    buffered: bool,
    missing: &mut Seen,
) {
    let buffered = buffered || seen.is_some_and(|seen| seen.buffered);
    let flattened = seen.is_some_and(|seen| seen.flattened);
    if !buffered && seen.is_none_or(|seen| !seen.any_buffer()) {
        return;
    }
    for (position, (step, value)) in children(stored).into_iter().enumerate() {
        let seen = seen.and_then(|seen| seen.children.get(&step));
        match written_at(written, &step, position) {
            Some(written) => {
                let mut inner = Seen::default();
                unwritten(value, written, seen, buffered, &mut inner);
                if !inner.children.is_empty() {
                    missing.children.insert(step, inner);
                }
            }
            None if (buffered || flattened)
                && matches!(written, Node::Struct(_) | Node::Map { .. }) =>
            {
                missing.children.insert(step, Seen::foreign());
            }
            None => {}
        }
    }
}

/// Notes as foreign those of the missing values without which the stored value reads the same.
///
/// What the type read under another name goes by this test, because without it the value differs or
/// does not read at all. The names are tried together, and by halves where that fails, the largest
/// groups first. What is undecided after [`MAX_TRIES`] is not foreign.
fn keep_unread<T: Serialize + DeserializeOwned>(
    stored: &Value<'_>,
    print: &[u8],
    missing: &Seen,
    names: &[Step],
    seen: &mut Seen,
) {
    let mut groups = VecDeque::from([names]);
    for _ in 0..MAX_TRIES {
        let Some(group) = groups.pop_front() else {
            return;
        };
        let part = missing.only(&group.iter().collect());
        let unread = read::<T>(&without(stored, &part))
            .and_then(|(value, _)| serialize(&value))
            .is_ok_and(|written| fingerprint(&written.node) == print);
        if unread && stays_readable::<T>(stored, print, &part) {
            seen.merge(part);
        } else if group.len() > 1 {
            let (left, right) = group.split_at(group.len() / 2);
            groups.extend([left, right]);
        }
    }
}

/// Whether the value that will be written, with these values kept in it, reads as the same again.
/// (A second name of a field that has the default's value passes the other test, not this one.)
fn stays_readable<T: Serialize + DeserializeOwned>(
    stored: &Value<'_>,
    print: &[u8],
    part: &Seen,
) -> bool {
    let again = || -> Result<bool, CodecError> {
        let (value, _) = read::<T>(stored)?;
        let mut node = serialize(&value)?.node;
        let before = node.clone();
        keep(&mut node, Some(&before), stored, part, false);
        let leaves = super::Leaves::from_node(node, &super::Leaves::new());
        let (value, _) = read::<T>(&leaves.to_value()?)?;
        Ok(fingerprint(&serialize(&value)?.node) == print)
    };
    again().unwrap_or(false)
}

/// The bytes of a value, without the order of its lists: that of a hash set is a new one each time.
fn fingerprint(node: &Node) -> Vec<u8> {
    fn sorted(node: &Node) -> Node {
        match node {
            Node::Struct(fields) => Node::Struct(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), sorted(value)))
                    .collect(),
            ),
            Node::Map { entries, char_keys } => Node::Map {
                entries: entries
                    .iter()
                    .map(|(key, value)| (key.clone(), sorted(value)))
                    .collect(),
                char_keys: *char_keys,
            },
            Node::Tuple(items) => Node::Tuple(items.iter().map(sorted).collect()),
            Node::List(items) => {
                let mut packed: Vec<Vec<u8>> = items.iter().map(fingerprint).collect();
                packed.sort();
                Node::List(packed.into_iter().map(Node::Packed).collect())
            }
            Node::Variant(name, data) => Node::Variant(name, Box::new(sorted(data))),
            Node::Packed(_) | Node::Char(_) => node.clone(),
        }
    }
    sorted(node).into_packed()
}

/// Adds to a new value the foreign ones of the stored value, where what encloses them is still the
/// same thing. `before` is what the type writes for the stored value.
pub(super) fn keep(
    node: &mut Node,
    before: Option<&Node>,
    stored: &Value<'_>,
    seen: &Seen,
    buffered: bool,
) {
    let buffered = buffered || seen.buffered;
    let stored_children: BTreeMap<Step, (usize, &Value<'_>)> = children(stored)
        .into_iter()
        .enumerate()
        .map(|(position, (step, value))| (step, (position, value)))
        .collect();
    if is_other_variant(node, before, &stored_children, seen, buffered) {
        return;
    }
    let places = match node {
        Node::List(items) => Some(same_items(items, stored, seen)),
        _ => None,
    };
    for (step, below) in &seen.children {
        let Some((position, value)) = stored_children.get(step) else {
            continue;
        };
        if below.foreign {
            node.adopt(step, value);
            continue;
        }
        let inner = match &places {
            Some(places) => places
                .get(step)
                .and_then(|place| node.get_mut(&Step::Index(*place))),
            None => node.get_mut(step),
        };
        if let Some(inner) = inner {
            let before = before.and_then(|before| written_at(before, step, *position));
            keep(inner, before, value, below, buffered);
        }
    }
}

/// Whether the value was another variant of an enum that is stored like a struct.
///
/// The tag decides. Where none was seen (untagged enums, and all that lies below a buffer) another
/// kind of container counts as another variant, and so does a struct with other fields. Both are
/// compared as the type writes them: what is stored may lack a field that it fills in, or be a map
/// because a newer version flattens it.
fn is_other_variant(
    node: &Node,
    before: Option<&Node>,
    children: &BTreeMap<Step, (usize, &Value<'_>)>,
    seen: &Seen,
    buffered: bool,
) -> bool {
    if let Some(tag) = &seen.tag {
        let before = children.get(tag).map(|(_, value)| leaf::pack(value));
        return before != node.get(tag).map(Node::to_packed);
    }
    if !buffered {
        return false;
    }
    match (node, before) {
        (Node::Struct(now), Some(Node::Struct(before))) => {
            let names = |fields: &[(Cow<'static, str>, Node)]| -> Vec<Cow<'static, str>> {
                fields.iter().map(|(name, _)| name.clone()).collect()
            };
            names(now) != names(before)
        }
        (now, Some(before)) => std::mem::discriminant(now) != std::mem::discriminant(before),
        (_, None) => true,
    }
}

/// For each stored item, the position of the same item in the new list.
///
/// Ids tell, where items have them. Else an item is the same if what the type knows of it is, seen
/// from either end of the list; the changed stretch in between is taken as new items.
fn same_items(items: &[Node], stored: &Value<'_>, seen: &Seen) -> BTreeMap<Step, usize> {
    let old = children(stored);
    let ids: Vec<_> = items.iter().map(Node::id).collect();
    if matches!(stored, Value::Items(_)) && ids.iter().any(Option::is_some) {
        let by_id = ids.into_iter().enumerate();
        return by_id
            .filter_map(|(position, id)| Some((Step::from(id?.as_ref()), position)))
            .collect();
    }
    let old_prints: Vec<Vec<u8>> = old
        .iter()
        .map(|(step, value)| match seen.children.get(step) {
            Some(seen) => leaf::pack(&without(value, seen)),
            None => leaf::pack(value),
        })
        .collect();
    let new_prints: Vec<Vec<u8>> = items.iter().map(Node::to_packed).collect();
    let pairs = old_prints.iter().zip(&new_prints);
    let front = pairs.take_while(|(old, new)| old == new).count();
    let most = old.len().min(items.len()) - front;
    let pairs = old_prints.iter().rev().zip(new_prints.iter().rev());
    let back = pairs.take(most).take_while(|(old, new)| old == new).count();
    let new_back = items.len() - back..items.len();
    let fronts = old.iter().take(front).zip(0..front);
    let backs = old.iter().skip(old.len() - back).zip(new_back);
    fronts
        .chain(backs)
        .map(|((step, _), position)| (step.clone(), position))
        .collect()
}

/// The steps from a stored container to what it contains.
fn children<'v, 'a>(value: &'v Value<'a>) -> Vec<(Step, &'v Value<'a>)> {
    match value {
        Value::Map(entries) | Value::Fields(_, entries) => entries
            .iter()
            .map(|(key, value)| (key.to_step(), value))
            .collect(),
        Value::Items(items) => items
            .iter()
            .map(|(id, item)| (Step::from(id.as_ref()), item))
            .collect(),
        Value::Seq(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| (Step::Index(index), item))
            .collect(),
        _ => Vec::new(),
    }
}

/// The stored value without its foreign entries.
fn without<'a>(value: &Value<'a>, seen: &Seen) -> Value<'a> {
    let entries = |entries: &[(Value<'a>, Value<'a>)]| {
        let kept =
            entries
                .iter()
                .filter_map(|(key, value)| match seen.children.get(&key.to_step()) {
                    Some(child) if child.foreign => None,
                    Some(child) => Some((key.clone(), without(value, child))),
                    None => Some((key.clone(), value.clone())),
                });
        kept.collect()
    };
    let item = |step: Step, item: &Value<'a>| match seen.children.get(&step) {
        Some(child) => without(item, child),
        None => item.clone(),
    };
    match value {
        Value::Map(stored) => Value::Map(entries(stored)),
        Value::Fields(kind, stored) => Value::Fields(*kind, entries(stored)),
        Value::Seq(items) => {
            let items = items.iter().enumerate();
            Value::Seq(
                items
                    .map(|(at, value)| item(Step::Index(at), value))
                    .collect(),
            )
        }
        Value::Items(items) => Value::Items(
            items
                .iter()
                .map(|(id, value)| (id.clone(), item(Step::from(id.as_ref()), value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

//! What the type does not know, kept: the fields that a newer version of it wrote.
//!
//! A field is foreign if the type *ignored* it when it was read. It is stored again with every later
//! version of the value, as long as what encloses it stays the same thing: the map's entry, the
//! list's item, the `Some`, the variant.

mod keep;

pub(super) use self::keep::carry_over;

use self::keep::Keeper;
use super::decode::{is_exact, read};
use super::encode::{Collect, serialize_as};
use super::error::{CodecError, CodecErrorKind};
use super::leaf::{self, Value};
use super::node::Node;
use super::path::Step;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How often a value is read again to tell foreign fields from those that the type reads under other
/// names. Each of the latter costs two tries or more, each try time in proportion to the value: this
/// bounds what a decode costs.
const MAX_TRIES: usize = 128;

/// What a decode found that the type does not know.
///
/// Hand it to the next [`encode`](super::encode) together with the leaves that were decoded.
#[derive(Debug, Clone, Default)]
pub struct Ignored {
    pub(super) seen: Seen,
    /// Whether serde may read for the type, into a buffer; `None` before anybody asked.
    pub(super) buffers: Option<bool>,
}

/// The same fields; what is known of the type besides is no difference.
impl PartialEq for Ignored {
    fn eq(&self, other: &Self) -> bool {
        self.seen == other.seen
    }
}

impl Eq for Ignored {}

impl Ignored {
    /// Nothing: the type knows all that is stored.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether the type knew all that was stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.children.is_empty()
    }

    /// Where the unknown fields are, for people: `state.orders[7].discount`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.seen.render("state", &mut paths);
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

    pub(super) fn child(&self, step: &Step) -> Option<&Self> {
        self.children.get(step)
    }

    pub(super) fn is_foreign(&self, step: &Step) -> bool {
        self.child(step).is_some_and(|child| child.foreign)
    }

    /// Whether serde read anything on the type's behalf.
    fn any_buffer(&self) -> bool {
        self.buffered || self.flattened || self.children.values().any(Self::any_buffer)
    }

    /// Forgets all places without a foreign value in them.
    pub(super) fn prune(&mut self) {
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

    /// This without what was seen at some paths and below them.
    pub(super) fn without(&self, paths: &[&[Step]]) -> Self {
        let children = self.children.iter().filter_map(|(step, child)| {
            let below: Vec<&[Step]> = paths
                .iter()
                .filter_map(|path| path.split_first())
                .filter_map(|(first, rest)| (first == step).then_some(rest))
                .collect();
            let child = match below.iter().any(|rest| rest.is_empty()) {
                true => return None,
                false if below.is_empty() => child.clone(),
                false => child.without(&below),
            };
            Some((step.clone(), child))
        });
        Self {
            children: children.collect(),
            foreign: self.foreign,
            buffered: self.buffered,
            flattened: self.flattened,
            tag: self.tag.clone(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// What was seen at a path.
    pub(super) fn at(&self, steps: &[Step]) -> Option<&Self> {
        steps.iter().try_fold(self, |seen, step| seen.child(step))
    }

    /// Puts something else in the place of what was seen at a path. What was seen of the containers
    /// above goes with the last foreign value in them.
    pub(super) fn replace(&mut self, steps: &[Step], with: Option<Self>) {
        let Some((first, rest)) = steps.split_first() else {
            *self = with.unwrap_or_default();
            return;
        };
        if with.is_none() && !self.children.contains_key(first) {
            return;
        }
        let child = self.children.entry(first.clone()).or_default();
        child.replace(rest, with);
        if !child.foreign && child.children.is_empty() {
            self.children.remove(first);
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
    collect: Collect,
) -> Result<Ignored, CodecError> {
    let buffers = seen.any_buffer();
    // That this value has no buffers says nothing about the next one.
    let ignored = |seen| Ignored {
        seen,
        buffers: buffers.then_some(true),
    };
    if !buffers {
        seen.prune();
        if seen.children.is_empty() {
            return Ok(ignored(Seen::default()));
        }
    }
    let written = serialize_as(value, 0, collect)?.node;
    if buffers {
        assert_exact(stored, &written)?;
        let mut missing = Seen::default();
        unwritten(stored, &written, Some(&seen), false, &mut missing);
        if !missing.children.is_empty() {
            let mut names = BTreeSet::new();
            missing.names(&mut names);
            let names: Vec<Step> = names.into_iter().collect();
            let print = fingerprint(&written);
            let known = Known {
                stored,
                print,
                collect,
            };
            keep_unread::<T>(&known, &missing, &names, &mut seen);
        }
    }
    forget_written(stored, &written, &mut seen);
    seen.prune();
    if seen.children.is_empty() {
        return Ok(ignored(Seen::default()));
    }
    Ok(ignored(seen))
}

/// Refuses a number that serde read from its buffer into a float that cannot hold it. Elsewhere the
/// deserializer does.
fn assert_exact(stored: &Value<'_>, written: &Node) -> Result<(), CodecError> {
    if let Node::Packed(packed) = written {
        let is_exact = match leaf::parse(packed, 0) {
            Ok(Value::F32(_)) => is_exact(stored, true),
            Ok(Value::F64(_)) => is_exact(stored, false),
            _ => true,
        };
        if !is_exact {
            let message = "the number does not fit the type's float exactly";
            return Err(CodecError::new(CodecErrorKind::Mismatch, message));
        }
    }
    for (position, (step, value)) in children(stored).into_iter().enumerate() {
        if let Some(written) = written_at(written, &step, position) {
            assert_exact(value, written).map_err(|error| error.at(step))?;
        }
    }
    Ok(())
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

/// A stored value that is being looked into.
struct Known<'k> {
    stored: &'k Value<'k>,
    /// That of what the type writes for it.
    print: Vec<u8>,
    /// Which collections are found as such.
    collect: Collect,
}

/// Notes as foreign those of the missing values without which the stored value reads the same.
///
/// What the type read under another name goes by this test, because without it the value differs or
/// does not read at all. The names are tried together, and by halves where that fails, the largest
/// groups first. What is undecided after [`MAX_TRIES`] is not foreign.
fn keep_unread<T: Serialize + DeserializeOwned>(
    known: &Known<'_>,
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
        let unread = read::<T>(&without(known.stored, &part))
            .and_then(|(value, _)| serialize_as(&value, 0, known.collect))
            .is_ok_and(|written| fingerprint(&written.node) == known.print);
        if unread && stays_readable::<T>(known, &part) {
            seen.merge(part);
        } else if group.len() > 1 {
            let (left, right) = group.split_at(group.len() / 2);
            groups.extend([left, right]);
        }
    }
}

/// Whether the value that will be written, with these values kept in it, reads as the same again.
/// (A second name of a field that has the default's value passes the other test, not this one.)
fn stays_readable<T: Serialize + DeserializeOwned>(known: &Known<'_>, part: &Seen) -> bool {
    let Known {
        stored,
        print,
        collect,
    } = known;
    let again = || -> Result<bool, CodecError> {
        let (value, _) = read::<T>(stored)?;
        let mut node = serialize_as(&value, 0, *collect)?.node;
        let before = node.clone();
        Keeper::of_the_same(&|_| true).keep(&mut node, Some(&before), stored, part, false);
        let leaves = super::Leaves::from_node(node, &super::Leaves::new());
        let (value, _) = read::<T>(&leaves.to_value()?)?;
        Ok(fingerprint(&serialize_as(&value, 0, *collect)?.node) == *print)
    };
    again().unwrap_or(false)
}

/// The bytes of a value, without the order of its lists: that of a hash set is a new one each time.
pub(super) fn fingerprint(node: &Node) -> Vec<u8> {
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
            Node::Typed(name, data) => Node::Typed(name, Box::new(sorted(data))),
            Node::Entry(entry) => Node::Entry(Box::new((entry.0.clone(), sorted(&entry.1)))),
            Node::Packed(_) | Node::Char(_) | Node::Collection(_) => node.clone(),
        }
    }
    sorted(node).into_packed()
}

/// The steps from a stored container to what it contains.
fn children<'v, 'a>(value: &'v Value<'a>) -> Vec<(Step, &'v Value<'a>)> {
    match value {
        Value::Map(entries) | Value::Fields(_, entries) => entries
            .iter()
            .map(|(key, value)| (key.to_step(), value))
            .collect(),
        Value::Items(items, _) => items
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
        Value::Items(items, indices) => Value::Items(
            items
                .iter()
                .map(|(id, value)| (id.clone(), item(Step::from(id.as_ref()), value)))
                .collect(),
            indices.clone(),
        ),
        other => other.clone(),
    }
}

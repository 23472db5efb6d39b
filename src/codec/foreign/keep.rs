//! Carrying over to a new value what the stored one holds and the type does not know.

use super::{Ignored, MAX_TRIES, Mark, Seen, children, fingerprint, without, written_at};
use crate::codec::decode::read;
use crate::codec::encode::{Collect, serialize_as};
use crate::codec::error::CodecError;
use crate::codec::faithful;
use crate::codec::leaf::{self, Value};
use crate::codec::leaves::Leaves;
use crate::codec::node::Node;
use crate::codec::path::Step;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// The leaves of a value, with what was ignored in `base`. `check` says whether the value may be read
/// as another one and is to be read back.
pub(in crate::codec) fn carry_over<T: Serialize + DeserializeOwned>(
    value: &T,
    node: Node,
    base: &Leaves,
    ignored: &Ignored,
    check: bool,
) -> Result<Leaves, CodecError> {
    let stored = base.to_value()?;
    let before = serialize_as(&read::<T>(&stored)?.0, 0, Collect::as_in(base))?.node;
    let tries = Cell::new(0);
    let reads_without = |part: &Seen| {
        tries.set(tries.get() + 1);
        tries.get() > MAX_TRIES || read::<T>(&without(&stored, part)).is_ok()
    };
    let leaves = |mut node: Node, keeper: &mut Keeper<'_>| {
        keeper.keep(&mut node, Some(&before), &stored, &ignored.seen, false);
        Leaves::from_node(node, base)
    };
    let mut keeper = Keeper::of_the_same(&reads_without);
    if !check {
        return Ok(leaves(node, &mut keeper));
    }
    let kept = leaves(node.clone(), &mut keeper);
    if faithful::check(value, &kept).is_ok() {
        return Ok(kept);
    }
    // A field of another variant makes an untagged enum read as that variant. It goes.
    let kept = leaves(node, &mut Keeper::of_the_same(&|_| false));
    faithful::check(value, &kept).map(|()| kept)
}

/// One walk over a new value and the stored one.
pub(super) struct Keeper<'k> {
    /// Whether the stored value can be read without these fields, which the type knows.
    reads_without: &'k dyn Fn(&Seen) -> bool,
    /// Where the walk is.
    steps: Vec<Step>,
}

impl<'k> Keeper<'k> {
    pub(super) fn of_the_same(reads_without: &'k dyn Fn(&Seen) -> bool) -> Self {
        Self {
            reads_without,
            steps: Vec::new(),
        }
    }

    /// Adds to a new value the foreign ones of the stored value, where what encloses them is still
    /// the same thing. `before` is what the type writes for the stored value.
    pub(super) fn keep(
        &mut self,
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
        if self.is_other_variant(node, before, &stored_children, seen, buffered) {
            return;
        }
        // A hash set is written in another order than it is stored in.
        let before = before.filter(|before| is_aligned(stored, before));
        let places = match node {
            Node::List(items) => Some(same_items(items, before, stored, seen)),
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
                self.steps.push(step.clone());
                self.keep(inner, before, value, below, buffered);
                self.steps.pop();
            }
        }
    }

    /// Whether the value was another variant of an enum that is stored like a struct.
    ///
    /// The tag decides. Where none was seen (untagged enums, and all that lies below a buffer)
    /// another kind of container counts as another variant, and so does a struct with other fields,
    /// unless the type can do without those that went: fields are skipped at times. Both are compared
    /// as the type writes them: what is stored may lack a field that it fills in, or be a map because
    /// a newer version flattens it.
    fn is_other_variant(
        &self,
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
                let now: BTreeSet<&str> = now.iter().map(|(name, _)| name.as_ref()).collect();
                let before: BTreeSet<&str> = before.iter().map(|(name, _)| name.as_ref()).collect();
                now != before && !self.can_do_without(&before, &now)
            }
            (now, Some(before)) => std::mem::discriminant(now) != std::mem::discriminant(before),
            (_, None) => true,
        }
    }

    fn can_do_without(&self, before: &BTreeSet<&str>, now: &BTreeSet<&str>) -> bool {
        let mut gone = Seen::default();
        let mut steps = self.steps.clone();
        for name in before.difference(now) {
            steps.push((*name).into());
            gone.note(&steps, Mark::Foreign);
            steps.pop();
        }
        (self.reads_without)(&gone)
    }
}

/// Whether what the type writes for a stored list has its items where they are stored, as far as can
/// be told without their foreign fields. Other values have no positions.
fn is_aligned(stored: &Value<'_>, written: &Node) -> bool {
    match written {
        Node::List(items) => {
            let stored = children(stored);
            let mut pairs = stored.iter().zip(items);
            stored.len() == items.len() && pairs.all(|((_, stored), item)| may_be(stored, item))
        }
        _ => true,
    }
}

/// Whether this may be what the type writes for the stored value: no part of it says otherwise.
fn may_be(stored: &Value<'_>, written: &Node) -> bool {
    match written {
        Node::Struct(_) | Node::Map { .. } | Node::Variant(..) => {
            let mut parts = children(stored).into_iter();
            parts.all(|(step, stored)| {
                let written = written.get(&step);
                written.is_none_or(|written| may_be(stored, written))
            })
        }
        Node::Tuple(items) => {
            let stored = children(stored);
            let mut pairs = stored.iter().zip(items);
            stored.len() == items.len() && pairs.all(|((_, stored), item)| may_be(stored, item))
        }
        // Its order may be another one.
        Node::List(items) => children(stored).len() == items.len(),
        scalar => leaf::pack(stored) == scalar.to_packed(),
    }
}

/// For each stored item, the position of the same item in the new list.
///
/// Ids tell, where items have them. Else an item is the same if what the type knows of it is: seen
/// from either end of the list, and then wherever it went. The rest is taken as new items.
fn same_items(
    items: &[Node],
    before: Option<&Node>,
    stored: &Value<'_>,
    seen: &Seen,
) -> BTreeMap<Step, usize> {
    let old = children(stored);
    let ids: Vec<_> = items.iter().map(Node::id).collect();
    if matches!(stored, Value::Items(..)) && ids.iter().any(Option::is_some) {
        let by_id = ids.into_iter().enumerate();
        return by_id
            .filter_map(|(position, id)| Some((Step::from(id?.as_ref()), position)))
            .collect();
    }
    // What the type writes for an item is what it knows of it, defaults and all. Of an item without
    // a position in what it writes, the stored bytes must do.
    let old_prints: Vec<Vec<u8>> = match before {
        Some(Node::List(before)) => before.iter().map(fingerprint).collect(),
        _ => old
            .iter()
            .map(|(step, value)| match seen.children.get(step) {
                Some(seen) => leaf::pack(&without(value, seen)),
                None => leaf::pack(value),
            })
            .collect(),
    };
    let new_prints: Vec<Vec<u8>> = items.iter().map(fingerprint).collect();
    let pairs = old_prints.iter().zip(&new_prints);
    let front = pairs.take_while(|(old, new)| old == new).count();
    let most = old_prints.len().min(items.len()) - front;
    let pairs = old_prints.iter().rev().zip(new_prints.iter().rev());
    let back = pairs.take(most).take_while(|(old, new)| old == new).count();
    let (old_end, new_end) = (old_prints.len() - back, items.len() - back);
    let mut moved: HashMap<&[u8], VecDeque<usize>> = HashMap::new();
    for (position, print) in new_prints.iter().enumerate().take(new_end).skip(front) {
        moved.entry(print).or_default().push_back(position);
    }
    let place_of = |(position, print): (usize, &Vec<u8>)| match position {
        _ if position < front => Some(position),
        _ if position >= old_end => Some(position - old_end + new_end),
        _ => moved.get_mut(print.as_slice())?.pop_front(),
    };
    let places = old_prints.iter().enumerate().map(place_of);
    let steps = old.into_iter().map(|(step, _)| step);
    steps
        .zip(places)
        .filter_map(|(step, place)| Some((step, place?)))
        .collect()
}

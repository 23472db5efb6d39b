//! Whether an encoded value reads as itself.
//!
//! serde reads untagged enums and flattened options as the first thing that fits, which need not be
//! what was written. The bytes are the same then, so bytes cannot tell: what the type asks of the
//! serializer is compared instead, down to the width of each integer and the name of each struct.

use super::decode::read;
use super::encode::{Collect, serialize_typed};
use super::error::{CodecError, CodecErrorKind};
use super::foreign::{Seen, fingerprint};
use super::leaves::Leaves;
use super::node::Node;
use super::path::Step;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Refuses a value that its leaves do not give back.
pub(super) fn check<T: Serialize + DeserializeOwned>(
    value: &T,
    leaves: &Leaves,
) -> Result<(), CodecError> {
    let stored = leaves.to_value()?;
    let (again, seen) =
        read::<T>(&stored).map_err(|error| error.with_kind(CodecErrorKind::Refused))?;
    let collect = Collect::as_in(leaves);
    let written = serialize_typed(value, collect)?;
    let Some(steps) = difference(&written, &serialize_typed(&again, collect)?, Some(&seen)) else {
        return Ok(());
    };
    // A type that writes itself differently each time (the time left, say) is none the wiser.
    if difference(&written, &serialize_typed(value, collect)?, None).is_some() {
        return Ok(());
    }
    let error = CodecError::new(
        CodecErrorKind::Refused,
        "this would come back as another value: serde takes the first variant of an untagged enum, \
         and a flattened `Some`, that reads what was written; use a tagged enum, or types that differ",
    );
    Err(steps.into_iter().fold(error, CodecError::at))
}

/// Where the two differ first, from the place up to the root. What the type ignores is no
/// difference: it writes some fields and does not want them back (`skip_deserializing`).
fn difference(a: &Node, b: &Node, seen: Option<&Seen>) -> Option<Vec<Step>> {
    let below = |step: Step, a: &Node, b: &Node| {
        let seen = seen.and_then(|seen| seen.child(&step));
        difference(a, b, seen).map(|mut steps| {
            steps.push(step);
            steps
        })
    };
    let differs = |differs: bool| differs.then(Vec::new);
    match (a, b) {
        (Node::Packed(a), Node::Packed(b)) => differs(a != b),
        (Node::Char(a), Node::Char(b)) => differs(a != b),
        // Its entries are looked at one by one, when they are encoded.
        (Node::Collection(_), Node::Collection(_)) => None,
        (Node::Typed(name, a), Node::Typed(other, b)) if name == other => difference(a, b, seen),
        (Node::Entry(a), Node::Entry(b)) if fingerprint(&a.0) == fingerprint(&b.0) => {
            difference(&a.1, &b.1, seen)
        }
        (Node::Variant(name, a), Node::Variant(other, b)) if name == other => {
            below((*name).into(), a, b)
        }
        (Node::Struct(_), Node::Struct(_)) | (Node::Map { .. }, Node::Map { .. }) => {
            let ours = a.entries().into_iter().map(|(step, a)| {
                let b = b.get(&step);
                (step, Some(a), b)
            });
            let theirs = b.entries().into_iter().map(|(step, b)| {
                let a = a.get(&step);
                (step, a, Some(b))
            });
            ours.chain(theirs).find_map(|(step, a, b)| match (a, b) {
                _ if seen.is_some_and(|seen| seen.is_foreign(&step)) => None,
                (Some(a), Some(b)) => below(step, a, b),
                _ => Some(vec![step]),
            })
        }
        (Node::List(x), Node::List(y)) | (Node::Tuple(x), Node::Tuple(y)) if x.len() == y.len() => {
            let mut pairs = x.iter().zip(y).enumerate();
            let first = pairs.find_map(|(at, (x, y))| below(Step::Index(at), x, y));
            // The order of a hash set is a new one each time.
            first.filter(|_| fingerprint(a) != fingerprint(b))
        }
        _ => Some(Vec::new()),
    }
}

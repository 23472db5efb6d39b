//! The parts of a state as its leaves are stored.

use crate::admin::error::AdminError;
use crate::codec::{self, Ignored, Leaves, Path, PathElement, Value};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The container of what lies at a path, and its name there; none for the state itself.
pub(super) fn parent(path: &Path) -> Option<(Path, PathElement<'_>)> {
    let mut elements: Vec<PathElement<'_>> = path.elements().collect();
    let last = elements.pop()?;
    let container = elements.into_iter();
    Some((
        container.fold(Path::root(), |of, element| of.child(element)),
        last,
    ))
}

/// What a container has, in the order of the paths.
pub(super) fn children(leaves: &Leaves, path: &Path) -> impl Iterator<Item = Path> {
    let depth = path.elements().count() + 1;
    let below = leaves.iter().map(|(of, _)| of);
    below
        .filter(move |of| path.contains(of) && of.elements().count() == depth)
        .cloned()
}

/// The leaf that holds a value, where the codec would not cut it into several.
pub(super) fn packed(path: &Path, value: &Value) -> Result<Bytes, AdminError> {
    let empty = |encoded: codec::Encoded| {
        let marker = encoded.leaves.get(&Path::root()).cloned();
        marker.ok_or_else(|| AdminError::refused("an empty container has no encoding"))
    };
    match value {
        Value::Array(items) if items.is_empty() => empty(codec::encode(
            &Vec::<u8>::new(),
            &Leaves::new(),
            &Ignored::none(),
        )?),
        Value::Map(entries) if entries.is_empty() => empty(codec::encode(
            &BTreeMap::<String, u8>::new(),
            &Leaves::new(),
            &Ignored::none(),
        )?),
        Value::Array(items) if items.iter().all(|item| item.get("id").is_some()) => {
            Err(AdminError::refused(format!(
                "{path} would become a list whose items are stored one by one"
            )))
        }
        value => Ok(value.to_payload()?),
    }
}

/// Whether a path is the `id` of an item of a list that is stored item by item.
pub(super) fn is_item_id(leaves: &Leaves, path: &Path) -> bool {
    let elements: Vec<PathElement<'_>> = path.elements().collect();
    let Some((PathElement::Str(last), of)) = elements.split_last() else {
        return false;
    };
    let Some((_, list)) = of.split_last() else {
        return false;
    };
    let list = list
        .iter()
        .fold(Path::root(), |list, element| list.child(element.clone()));
    last == "id" && matches!(Value::from_leaves_at(leaves, &list), Ok(Value::Array(_)))
}

/// What a value is, in a word for people; two of one class can stand for each other.
pub(super) fn class(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Int(_) | Value::Huge(_) => "an integer",
        Value::F32(_) => "a float of single precision",
        Value::F64(_) => "a float",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
        Value::Array(_) => "a list",
        Value::Map(_) => "a map",
        Value::Ext(..) => "an extension value",
    }
}

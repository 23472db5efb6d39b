//! Edits of a state: which changes of its leaves they come to, or why they are refused. Pure.
//!
//! Invariant: what is written is what the server would have written. So a value keeps its type unless
//! the operator says otherwise, a new entry of a map takes the shape of the entries beside it, and
//! every edit is read back, as a whole, before it is made.

mod entry;
mod parts;

use super::error::AdminError;
use crate::codec::leaf::Kind;
use crate::codec::{Change, Leaves, Path, Value, kind_of};
use bytes::Bytes;
use entry::new_entry;
use parts::{children, class, is_item_id, packed, parent};

/// What to do to what lies at a path of a state.
#[derive(Debug, Clone)]
pub enum Edit {
    /// Sets a value: one that is there, or a new entry of a map.
    ///
    /// What is there must be a single leaf: a scalar, or a list, tuple, enum or map that is stored as
    /// one value. A new entry must have keys and fields like those of the map's other entries; an
    /// entry of a map that has none yet is taken with [`change_type`](super::SetOptions::change_type)
    /// only, because nothing shows what its entries are.
    Set(Value),
    /// Appends to a list that is stored as one value: items of the type of those that it has.
    Append(Value),
    /// Removes an entry of a map, or an item of a list whose items are stored one by one.
    Remove,
}

/// What an edit has done, or would do.
#[derive(Debug, Clone)]
pub struct Edited {
    /// What lay at the path; none if nothing did.
    pub before: Option<Value>,
    /// What lies there now; none if nothing does.
    pub after: Option<Value>,
}

/// The changes that an edit comes to.
pub(super) fn plan(
    leaves: &Leaves,
    path: &Path,
    edit: &Edit,
    change_type: bool,
) -> Result<(Edited, Vec<Change>), AdminError> {
    let stored = leaves.get(path).is_some();
    let before = match stored {
        true => Some(Value::from_leaves_at(leaves, path)?),
        false => None,
    };
    let (after, changes) = match (edit, &before) {
        (Edit::Set(value), Some(before)) => {
            let bytes = replacement(leaves, path, before, value, change_type)?;
            (Some(value.clone()), vec![Change::Set(path.clone(), bytes)])
        }
        (Edit::Set(value), None) => {
            let entry = new_entry(leaves, path, value, change_type)?;
            let entry = entry.into_iter();
            let changes = entry.map(|(path, bytes)| Change::Set(path, bytes));
            (Some(value.clone()), changes.collect())
        }
        (Edit::Append(item), Some(before)) => {
            let value = appended(path, before, item, change_type)?;
            let bytes = replacement(leaves, path, before, &value, change_type)?;
            (Some(value), vec![Change::Set(path.clone(), bytes)])
        }
        (Edit::Remove, Some(_)) => {
            is_removable(leaves, path)?;
            (None, vec![Change::ClearTree(path.clone())])
        }
        (Edit::Append(_) | Edit::Remove, None) => return Err(nothing_at(path)),
    };
    let mut edited = leaves.clone();
    edited.apply(&changes);
    read_back(&edited, path, after.as_ref())?;
    Ok((Edited { before, after }, changes))
}

fn nothing_at(path: &Path) -> AdminError {
    AdminError::not_found(format!("nothing is stored at {path}"))
}

/// Looks whether the edited state can be read, and says what it is to say.
fn read_back(edited: &Leaves, path: &Path, after: Option<&Value>) -> Result<(), AdminError> {
    let damaged = |error| AdminError::refused("the state would be damaged").with_source(error);
    Value::from_leaves(edited).map_err(damaged)?;
    let found = match edited.get(path) {
        Some(_) => Some(Value::from_leaves_at(edited, path).map_err(damaged)?),
        None => None,
    };
    match found.as_ref().map(sorted) == after.map(sorted) {
        true => Ok(()),
        false => Err(AdminError::refused(format!(
            "{path} would be read as another value"
        ))),
    }
}

/// The value with the entries of its maps in one order: a map's entries have none of their own.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Map(entries) => {
            let entries = entries.iter();
            let mut entries: Vec<(Value, Value)> = entries
                .map(|(key, value)| (key.clone(), sorted(value)))
                .collect();
            entries.sort_by_cached_key(|(key, _)| format!("{key:?}"));
            Value::Map(entries)
        }
        value => value.clone(),
    }
}

/// The bytes of the leaf that is to stand where one stands.
fn replacement(
    leaves: &Leaves,
    path: &Path,
    before: &Value,
    value: &Value,
    change_type: bool,
) -> Result<Bytes, AdminError> {
    if children(leaves, path).next().is_some() {
        return Err(AdminError::refused(format!(
            "{path} has parts of its own: set those"
        )));
    }
    // A marker of a container, which is no value of its own.
    let is_marker = leaves.get(path).is_some_and(|leaf| kind_of(leaf).is_some());
    if is_marker && !matches!((before, value), (Value::Array(_), Value::Array(_))) {
        return Err(AdminError::refused(format!(
            "{path} is an empty container: set an entry of it"
        )));
    }
    if is_item_id(leaves, path) {
        return Err(AdminError::refused(format!(
            "{path} is what its item is stored under"
        )));
    }
    same_class(path, before, value, change_type)?;
    packed(path, value)
}

fn same_class(
    path: &Path,
    before: &Value,
    value: &Value,
    change_type: bool,
) -> Result<(), AdminError> {
    match change_type || class(before) == class(value) {
        true => Ok(()),
        false => Err(AdminError::refused(format!(
            "{path} holds {}, and this is {}",
            class(before),
            class(value)
        ))),
    }
}

/// The list with one more item.
fn appended(
    path: &Path,
    before: &Value,
    item: &Value,
    change_type: bool,
) -> Result<Value, AdminError> {
    let Value::Array(items) = before else {
        let text = format!("{path} holds {}, and no list", class(before));
        return Err(AdminError::refused(text));
    };
    match items.as_slice() {
        [] if !change_type => {
            let text = format!("{path} is empty, and nothing shows what its items are");
            return Err(AdminError::refused(text));
        }
        items => {
            // Items of several types are a tuple's, or an enum's, which have a length.
            for other in items {
                same_class(path, other, item, change_type)?;
            }
        }
    }
    let items = items.iter().chain([item]);
    Ok(Value::Array(items.cloned().collect()))
}

/// Whether what lies at a path can go without its container missing it.
fn is_removable(leaves: &Leaves, path: &Path) -> Result<(), AdminError> {
    let container = parent(path).and_then(|(parent, _)| kind_of(leaves.get(&parent)?));
    match container {
        Some(Kind::Map | Kind::List) => Ok(()),
        Some(Kind::Struct) => Err(AdminError::refused(format!(
            "{path} is a field, which its server expects to be there"
        ))),
        None => Err(AdminError::refused(format!(
            "{path} is no entry of a map, nor an item that is stored on its own"
        ))),
    }
}

//! New entries of maps: in the shape of those that stand beside them.

use super::parts::{children, packed, parent};
use super::{nothing_at, same_class};
use crate::admin::error::AdminError;
use crate::codec::leaf::Kind;
use crate::codec::{Leaves, Path, PathElement, Value, kind_of};
use bytes::Bytes;

/// The leaves of a new entry of a map.
pub(super) fn new_entry(
    leaves: &Leaves,
    path: &Path,
    value: &Value,
    change_type: bool,
) -> Result<Vec<(Path, Bytes)>, AdminError> {
    let (map, name) = parent(path).ok_or_else(|| nothing_at(path))?;
    match leaves.get(&map).map(|leaf| kind_of(leaf)) {
        Some(Some(Kind::Map)) => {}
        Some(Some(Kind::Struct)) => {
            let text = format!("nothing is stored at {path}, and {map} has fixed fields");
            return Err(AdminError::not_found(text));
        }
        Some(Some(Kind::List)) => {
            return Err(AdminError::refused(format!(
                "the items of {map} are stored one by one, in an order that only its server knows"
            )));
        }
        _ => return Err(nothing_at(path)),
    }
    let mut entry = Vec::new();
    match children(leaves, &map).next() {
        Some(other) => {
            let other_name = parent(&other).map(|(_, name)| name);
            let is_text = |name: &PathElement<'_>| matches!(name, PathElement::Str(_));
            if other_name.is_some_and(|other| is_text(&other) != is_text(&name)) {
                let keys = if is_text(&name) { "numbers" } else { "texts" };
                return Err(AdminError::refused(format!("the keys of {map} are {keys}")));
            }
            shaped(leaves, &other, path, value, change_type, &mut entry)?;
        }
        None if change_type => entry.push((path.clone(), packed(path, value)?)),
        None => {
            let text = format!("{map} is empty, and nothing shows what its entries are");
            return Err(AdminError::refused(text));
        }
    }
    Ok(entry)
}

/// The leaves of a value that has the shape of another one.
fn shaped(
    leaves: &Leaves,
    like: &Path,
    path: &Path,
    value: &Value,
    change_type: bool,
    entry: &mut Vec<(Path, Bytes)>,
) -> Result<(), AdminError> {
    let other = || format!("{path} has another shape than {like}");
    let leaf = leaves.get(like).ok_or_else(|| nothing_at(like))?;
    let Some(kind) = kind_of(leaf) else {
        let stored = Value::from_leaves_at(leaves, like)?;
        same_class(like, &stored, value, change_type)?;
        entry.push((path.clone(), packed(path, value)?));
        return Ok(());
    };
    entry.push((path.clone(), leaf.clone()));
    match (kind, value) {
        (Kind::List, Value::Array(items)) if items.is_empty() => Ok(()),
        (Kind::List, _) => Err(AdminError::refused(format!(
            "the items of {like} are stored one by one, in an order that only its server knows"
        ))),
        (Kind::Struct, Value::Map(fields)) => {
            let expected: Vec<Path> = children(leaves, like).collect();
            if expected.len() != fields.len() {
                return Err(AdminError::refused(other()));
            }
            for child in &expected {
                let (_, name) = parent(child).ok_or_else(|| nothing_at(child))?;
                let field = fields.iter().find(|(key, _)| is_named(key, &name));
                let (_, field) = field.ok_or_else(|| AdminError::refused(other()))?;
                shaped(leaves, child, &path.child(name), field, change_type, entry)?;
            }
            Ok(())
        }
        (Kind::Map, Value::Map(entries)) => {
            let Some(first) = children(leaves, like).next() else {
                return match entries.is_empty() {
                    true => Ok(()),
                    false => Err(AdminError::refused(format!(
                        "{like} is empty, and nothing shows what its entries are"
                    ))),
                };
            };
            let numbers = matches!(parent(&first), Some((_, PathElement::Int(_))));
            for (key, value) in entries {
                let child =
                    named(path, key, numbers).ok_or_else(|| AdminError::refused(other()))?;
                shaped(leaves, &first, &child, value, change_type, entry)?;
            }
            Ok(())
        }
        _ => Err(AdminError::refused(other())),
    }
}

fn is_named(key: &Value, name: &PathElement<'_>) -> bool {
    match (key, name) {
        (Value::Text(key), PathElement::Str(name)) => key == name,
        _ => false,
    }
}

/// The path of an entry, of a map whose keys are numbers or texts.
fn named(map: &Path, key: &Value, numbers: bool) -> Option<Path> {
    match (key, numbers) {
        (Value::Text(key), false) => Some(map.child(key.as_str())),
        (Value::Int(number), true) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => Some(map.child(number)),
            (_, Ok(number)) => Some(map.child(number)),
            _ => None,
        },
        _ => None,
    }
}

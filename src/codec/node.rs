//! A value on its way to its leaves: what the serializer builds, before it is known which containers
//! are sub-paths and which are one leaf.

use super::collection::Collection;
use super::leaf::{self, Kind, NIL, Value, Writer};
use super::path::Step;
use std::borrow::Cow;
use std::sync::Arc;

/// A serialized value. Fields and entries are sorted, without duplicates.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A finished MessagePack value.
    Packed(Vec<u8>),
    /// Kept apart from strings because it is none as a map's key.
    Char(char),
    Struct(Vec<(Cow<'static, str>, Node)>),
    Map {
        entries: Vec<(Step, Node)>,
        /// Whether a key was a `char`. It is stored as a string, but such a map is one leaf.
        char_keys: bool,
    },
    List(Vec<Node>),
    Tuple(Vec<Node>),
    /// An enum's variant with data.
    Variant(&'static str, Box<Node>),
    /// What says its type, to be compared and never stored.
    Typed(&'static str, Box<Node>),
    /// A map's value together with its key, which says its type: to be compared and never stored.
    Entry(Box<(Node, Node)>),
    /// A durable collection. Only where it has a path of its own.
    Collection(Arc<dyn Collection>),
}

impl Node {
    pub(super) fn is_nil(&self) -> bool {
        matches!(self, Self::Packed(bytes) if bytes.as_slice() == [NIL])
    }

    /// The step that leads to the entry of a map with this key.
    pub(super) fn into_key(self) -> Step {
        let packed = self.into_packed();
        match leaf::parse(&packed, 0) {
            Ok(key) => key.to_step(),
            Err(_) => Step::Other(packed.into()),
        }
    }

    /// The value of the string field `id`, if this is something whose fields are sub-paths.
    pub(super) fn id(&self) -> Option<Cow<'_, str>> {
        if !self.has_paths() {
            return None;
        }
        match self.get(&Step::from("id"))? {
            Self::Packed(bytes) => leaf::as_str(bytes),
            _ => None,
        }
    }

    /// Whether the fields or entries of this are sub-paths.
    pub(super) fn has_paths(&self) -> bool {
        match self {
            Self::Struct(_) => true,
            Self::Map { entries, char_keys } => {
                let mut keys = entries.iter().map(|(key, _)| key);
                !char_keys && keys.all(|key| matches!(key, Step::Str(_) | Step::Int(_)))
            }
            _ => false,
        }
    }

    /// The fields of a struct or the entries of a map.
    pub(super) fn entries(&self) -> Vec<(Step, &Self)> {
        match self {
            Self::Struct(fields) => fields
                .iter()
                .map(|(name, value)| (name.as_ref().into(), value))
                .collect(),
            Self::Map { entries, .. } => entries
                .iter()
                .map(|(key, value)| (key.clone(), value))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// What one step from here leads to. Items of lists are found by position.
    pub(super) fn get(&self, step: &Step) -> Option<&Self> {
        match (self, step) {
            (Self::Struct(fields), Step::Str(name)) => {
                let at = find_field(fields, name).ok()?;
                fields.get(at).map(|(_, value)| value)
            }
            (Self::Map { entries, .. }, _) => {
                let at = find_entry(entries, step).ok()?;
                entries.get(at).map(|(_, value)| value)
            }
            (Self::List(items) | Self::Tuple(items), Step::Index(index)) => items.get(*index),
            (Self::Variant(name, data), Step::Str(step)) if **name == **step => Some(data),
            _ => None,
        }
    }

    /// As [`get`](Self::get), to change it.
    pub(super) fn get_mut(&mut self, step: &Step) -> Option<&mut Self> {
        match (self, step) {
            (Self::Struct(fields), Step::Str(name)) => {
                let at = find_field(fields, name).ok()?;
                fields.get_mut(at).map(|(_, value)| value)
            }
            (Self::Map { entries, .. }, _) => {
                let at = find_entry(entries, step).ok()?;
                entries.get_mut(at).map(|(_, value)| value)
            }
            (Self::List(items) | Self::Tuple(items), Step::Index(index)) => items.get_mut(*index),
            (Self::Variant(name, data), Step::Str(step)) if **name == **step => Some(data),
            _ => None,
        }
    }

    /// Adds a field or an entry that the type does not know, as it was stored; never over one that
    /// the type wrote itself.
    pub(super) fn adopt(&mut self, step: &Step, stored: &Value<'_>) {
        match (self, step) {
            (Self::Struct(fields), Step::Str(name)) => {
                if let Err(at) = find_field(fields, name) {
                    let field = (name.to_string().into(), Self::from_stored(stored));
                    fields.insert(at, field);
                }
            }
            (Self::Map { entries, .. }, Step::Str(_) | Step::Int(_) | Step::Other(_)) => {
                if let Err(at) = find_entry(entries, step) {
                    entries.insert(at, (step.clone(), Self::from_stored(stored)));
                }
            }
            _ => {}
        }
    }

    /// What was stored, to be stored again in the same shape: what was one leaf stays one.
    fn from_stored(value: &Value<'_>) -> Self {
        match value {
            Value::Fields(Kind::Struct, fields) => {
                let field = |(key, value): &(Value<'_>, Value<'_>)| match key {
                    Value::Str(name) => Some((name.to_string().into(), Self::from_stored(value))),
                    _ => None,
                };
                Self::Struct(fields.iter().filter_map(field).collect())
            }
            Value::Fields(_, entries) => {
                let entry = |(key, value): &(Value<'_>, Value<'_>)| {
                    (key.to_step(), Self::from_stored(value))
                };
                Self::Map {
                    entries: entries.iter().map(entry).collect(),
                    char_keys: false,
                }
            }
            Value::Items(items, _) => Self::List(
                items
                    .iter()
                    .map(|(_, item)| Self::from_stored(item))
                    .collect(),
            ),
            opaque => Self::Packed(leaf::pack(opaque)),
        }
    }

    pub(super) fn into_packed(self) -> Vec<u8> {
        match self {
            Self::Packed(bytes) => bytes,
            other => other.to_packed(),
        }
    }

    pub(super) fn to_packed(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.write(&mut out);
        out.into_vec()
    }

    fn write(&self, out: &mut Writer) {
        match self {
            Self::Packed(bytes) => out.raw(bytes),
            Self::Char(value) => out.str(value.encode_utf8(&mut [0; 4])),
            Self::Struct(fields) => {
                out.map(fields.len());
                for (name, value) in fields {
                    out.str(name);
                    value.write(out);
                }
            }
            Self::Map { entries, .. } => {
                out.map(entries.len());
                for (key, value) in entries {
                    out.key(key);
                    value.write(out);
                }
            }
            Self::List(items) | Self::Tuple(items) => {
                out.array(items.len());
                items.iter().for_each(|item| item.write(out));
            }
            Self::Variant(name, data) | Self::Typed(name, data) => {
                out.map(1);
                out.str(name);
                data.write(out);
            }
            Self::Entry(entry) => {
                out.array(2);
                entry.0.write(out);
                entry.1.write(out);
            }
            // It has a path, and is never part of a leaf.
            Self::Collection(..) => out.nil(),
        }
    }
}

fn find_field(fields: &[(Cow<'static, str>, Node)], name: &str) -> Result<usize, usize> {
    fields.binary_search_by(|(field, _)| field.as_ref().cmp(name))
}

fn find_entry(entries: &[(Step, Node)], key: &Step) -> Result<usize, usize> {
    entries.binary_search_by(|(entry, _)| entry.cmp(key))
}

//! From a stored value to a value of the type: the serde deserializer, and what it saw.
//!
//! Besides the value it answers what the type did not read. serde says so where the type itself
//! reads its fields; where serde reads on the type's behalf (flattened fields, tagged and untagged
//! enums: it collects everything into a buffer and drops what nobody wants) it does not, and the
//! deserializer notes the places where that happened.

mod access;

use self::access::{MapAccess, SeqAccess, Variant};
use super::MAX_DEPTH;
use super::collection::{self, Collection, Collections, Slot};
use super::error::{CodecError, CodecErrorKind};
use super::foreign::{Mark, Seen};
use super::leaf::{Kind, Value};
use super::path::{PathBuf, Step};
use serde::de::{self, DeserializeOwned, Error as _, Unexpected, Visitor};
use std::cell::RefCell;
use std::sync::Arc;

/// How deep the deserializer recurses. What is stored is bounded by [`MAX_DEPTH`], and a level of it
/// takes up to two calls. The rest is for wrappers that only the reading side has: a type may recurse
/// through them without an end.
const MAX_CALLS: usize = 3 * MAX_DEPTH + 1;

/// Reads a value, and notes what was ignored and what was buffered.
pub(super) fn read<T: DeserializeOwned>(value: &Value<'_>) -> Result<(T, Seen), CodecError> {
    let (value, seen, _) = read_collecting(value)?;
    Ok((value, seen))
}

/// Reads a value, and gives also its collections as they are stored.
pub(super) fn read_collecting<T: DeserializeOwned>(
    value: &Value<'_>,
) -> Result<(T, Seen, Collections), CodecError> {
    let seen = RefCell::new(Seen::default());
    let found = RefCell::default();
    let decoded = T::deserialize(Decoder {
        value,
        frame: Frame {
            parent: None,
            place: Place::Root,
            depth: 0,
            buffered: false,
            in_key: false,
            may_be_tagged: None,
            may_collect: true,
        },
        seen: &seen,
        found: &found,
    })?;
    Ok((decoded, seen.into_inner(), found.into_inner()))
}

/// One level of the walk. Frames live on the stack and know their parents, so a path costs nothing
/// until it is needed.
#[derive(Clone, Copy)]
struct Frame<'f> {
    parent: Option<&'f Frame<'f>>,
    place: Place<'f>,
    depth: usize,
    /// Whether this value, or a container of it, is being read into a buffer.
    buffered: bool,
    /// Whether this is part of a map's key.
    in_key: bool,
    /// The names of the struct of two fields that this value is being read as, and of its first
    /// field: an adjacently tagged enum looks like one.
    may_be_tagged: Option<(&'static str, &'static str)>,
    /// Whether this is the state, or a field of structs.
    may_collect: bool,
}

#[derive(Clone, Copy)]
enum Place<'f> {
    Root,
    Key(&'f Value<'f>),
    Name(&'f str),
    Index(usize),
    /// Not a step: the key of the parent's entry.
    KeyItself {
        first_of_map: bool,
    },
}

impl Place<'_> {
    fn to_step(self) -> Option<Step> {
        match self {
            Self::Key(key) => Some(key.to_step()),
            Self::Name(name) => Some(name.into()),
            Self::Index(index) => Some(Step::Index(index)),
            Self::Root | Self::KeyItself { .. } => None,
        }
    }
}

impl<'f> Frame<'f> {
    fn child(&'f self, place: Place<'f>) -> Self {
        Self {
            parent: Some(self),
            place,
            depth: self.depth + 1,
            buffered: self.buffered,
            in_key: self.in_key || matches!(place, Place::KeyItself { .. }),
            may_be_tagged: None,
            may_collect: false,
        }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut frame = Some(self);
        while let Some(current) = frame {
            steps.extend(current.place.to_step());
            frame = current.parent;
        }
        steps.reverse();
        steps
    }
}

#[derive(Clone, Copy)]
struct Decoder<'f> {
    value: &'f Value<'f>,
    frame: Frame<'f>,
    seen: &'f RefCell<Seen>,
    found: &'f RefCell<Collections>,
}

impl<'f> Decoder<'f> {
    fn note(&self, frame: &Frame<'_>, mark: Mark) {
        self.seen.borrow_mut().note(&frame.steps(), mark);
    }

    /// Counts a level that is none of the stored value.
    fn deeper(mut self) -> Result<Self, CodecError> {
        self.frame.depth += 1;
        self.bounded()
    }

    fn bounded(self) -> Result<Self, CodecError> {
        if self.frame.depth > MAX_CALLS {
            return Err(CodecError::new(
                CodecErrorKind::TooDeep,
                format!("the type recurses more than {MAX_CALLS} levels"),
            ));
        }
        Ok(self)
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match self.value {
            Value::Nil => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Int(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => Unexpected::Unsigned(value),
                (_, Ok(value)) => Unexpected::Signed(value),
                _ => Unexpected::Other("a 128-bit integer"),
            },
            Value::Huge(_) => Unexpected::Other("a 128-bit integer"),
            Value::F32(value) => Unexpected::Float((*value).into()),
            Value::F64(value) => Unexpected::Float(*value),
            Value::Str(value) => Unexpected::Str(value),
            Value::Bin(value) => Unexpected::Bytes(value),
            Value::Ext(..) => Unexpected::Other("an extension value"),
            Value::Seq(_) | Value::Items(..) => Unexpected::Seq,
            Value::Map(_) | Value::Fields(..) => Unexpected::Map,
            Value::Collection(_) => Unexpected::Other("a durable collection"),
        }
    }

    /// What every method does that knows nothing better: the value decides.
    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.value {
            Value::Nil => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(*value),
            },
            Value::Huge(value) => visitor.visit_u128(*value),
            Value::F32(value) => visitor.visit_f32(*value),
            Value::F64(value) => visitor.visit_f64(*value),
            Value::Str(value) => visitor.visit_str(value),
            Value::Bin(value) => visitor.visit_bytes(value),
            Value::Ext(..) | Value::Collection(_) => {
                Err(CodecError::invalid_type(self.unexpected(), &visitor))
            }
            Value::Seq(_) | Value::Items(..) => self.visit_items(visitor),
            Value::Map(_) | Value::Fields(..) => self.visit_entries(visitor, false, None),
        }
    }

    /// A durable collection, from memory or from what is stored.
    fn collection<'de, V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, CodecError> {
        let indices = match self.value {
            Value::Collection(collection) => {
                collection::put(Slot::Given(Arc::clone(collection)));
                let value = visitor.visit_unit();
                // One of which nothing was read tells what it is now that its type is known.
                if let Slot::Given(collection) = collection::take() {
                    self.found(collection);
                }
                return value;
            }
            Value::Fields(Kind::Map, _) => None,
            Value::Items(_, indices) => Some(indices.iter().map(|index| index.to_vec()).collect()),
            _ => {
                self.frame.may_collect = false;
                None
            }
        };
        collection::put(match self.frame.may_collect {
            true => Slot::Wanted(indices),
            false => Slot::Empty,
        });
        self.frame.may_collect = false;
        let value = visitor.visit_newtype_struct(self)?;
        if let Slot::Given(collection) = collection::take() {
            self.found(collection);
        }
        Ok(value)
    }

    fn found(&self, collection: Arc<dyn Collection>) {
        let mut path = PathBuf::default();
        for step in self.frame.steps() {
            path.push_step(&step);
        }
        self.found.borrow_mut().insert(path.to_path(), collection);
    }

    fn visit_items<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let mut access = SeqAccess {
            decoder: self.bounded()?,
            next: 0,
        };
        let value = visitor.visit_seq(&mut access)?;
        match access.left() {
            0 => Ok(value),
            left => Err(CodecError::custom(format!(
                "{} items are stored and {left} of them were not read",
                access.next + left
            ))),
        }
    }

    /// `first` is the entry to begin with, where the order matters to serde.
    fn visit_entries<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        as_map: bool,
        first: Option<&str>,
    ) -> Result<V::Value, CodecError> {
        let (Value::Map(entries) | Value::Fields(_, entries)) = self.value else {
            return self.visit(visitor);
        };
        let is_first = |(key, _): &(Value<'_>, Value<'_>)| matches!((key, first), (Value::Str(key), Some(first)) if key == first);
        let mut access = MapAccess {
            decoder: self.bounded()?,
            entries,
            first: first.and_then(|_| entries.iter().position(is_first)),
            read: 0,
            as_map,
            value: None,
        };
        let value = visitor.visit_map(&mut access)?;
        match entries.len() - access.read {
            0 => Ok(value),
            left => Err(CodecError::custom(format!(
                "{} entries are stored and {left} of them were not read",
                entries.len()
            ))),
        }
    }
}

/// Whether a number survives the way into a float and back.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "the loss is what is looked for"
)]
pub(super) fn is_exact(value: &Value<'_>, narrow: bool) -> bool {
    match value {
        Value::F64(value) if narrow => f64::from(*value as f32) == *value || value.is_nan(),
        Value::Int(value) if narrow => (*value as f32) as i128 == *value,
        Value::Int(value) => (*value as f64) as i128 == *value,
        _ => true,
    }
}

macro_rules! visit {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            self.visit(visitor)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Decoder<'_> {
    type Error = CodecError;

    visit! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_unit deserialize_seq
    }

    /// Who asks for anything buffers it, and will not say what became of it.
    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, CodecError> {
        let container = matches!(
            self.value,
            Value::Seq(_) | Value::Items(..) | Value::Map(_) | Value::Fields(..)
        );
        if container && !self.frame.buffered && !self.frame.in_key {
            self.note(&self.frame, Mark::Buffered);
            self.frame.buffered = true;
        }
        self.visit(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        if self.frame.in_key {
            return Err(CodecError::custom(
                "a map's key holds a field that this version of the type does not know",
            ));
        }
        self.note(&self.frame, Mark::Foreign);
        visitor.visit_unit()
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        if is_exact(self.value, true) {
            return self.visit(visitor);
        }
        Err(CodecError::custom("the number does not fit an f32 exactly"))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        if is_exact(self.value, false) {
            return self.visit(visitor);
        }
        Err(CodecError::custom("the number does not fit an f64 exactly"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.value {
            Value::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self.deeper()?),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.visit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        if collection::is_collection(name) {
            return self.collection(visitor);
        }
        visitor.visit_newtype_struct(self.deeper()?)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.visit(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.visit(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.visit_entries(visitor, true, None)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        if let [tag, _content] = fields {
            self.frame.may_be_tagged = Some((name, tag));
        }
        // An adjacently tagged enum reads its content straight into the type if the tag, which is
        // its first field, comes first; else it would buffer it.
        self.visit_entries(visitor, false, fields.first().copied())
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        if let Some(parent) = self.frame.parent
            && let Some((container, tag)) = parent.may_be_tagged
            && container == name
            && matches!(self.value, Value::Str(_))
            && let Some(step) = self.frame.place.to_step()
            && step == Step::from(tag)
        {
            // The tag of an adjacently tagged enum carries the name of its container.
            self.note(parent, Mark::Tag(step));
        }
        match self.value {
            Value::Str(variant) => visitor.visit_enum(Variant {
                name: variant,
                data: None,
                decoder: self.deeper()?,
            }),
            Value::Map(entries) | Value::Fields(_, entries) => match entries.as_slice() {
                [(Value::Str(variant), data)] => visitor.visit_enum(Variant {
                    name: variant,
                    data: Some(data),
                    decoder: self.deeper()?,
                }),
                _ => Err(CodecError::invalid_type(
                    self.unexpected(),
                    &"a variant's name and its data",
                )),
            },
            _ => Err(CodecError::invalid_type(
                self.unexpected(),
                &"an enum's variant",
            )),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match (self.frame.place, self.frame.parent) {
            // Only a struct that has flattened fields reads itself as a map and its keys as names.
            (Place::KeyItself { first_of_map: true }, Some(parent)) if !parent.in_key => {
                self.note(parent, Mark::Flattened);
            }
            // Only the tag of an internally tagged enum is read as a name.
            (Place::Key(key), Some(parent)) if parent.buffered => {
                self.note(parent, Mark::Tag(key.to_step()));
            }
            _ => {}
        }
        self.visit(visitor)
    }
}

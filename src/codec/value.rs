//! Values that describe themselves: what a state, a message or a reply holds, without its type.
//!
//! Tools and other languages read and write through [`Value`]. It holds whatever MessagePack holds
//! here, and its JSON form says all of it: nothing is rounded, renamed or dropped on the way.

mod base64;
mod json;
mod text;

use self::json::Json;
use super::error::{CodecError, CodecErrorKind};
use super::leaf::{self, Value as Stored};
use super::leaves::Leaves;
use super::path::{Path, Step};
use super::{MAX_DEPTH, from_payload, to_payload};
use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A value of any type, as MessagePack holds it.
///
/// Two values are equal if they are the same to the bit: a NaN equals itself, `-0.0` is not `0.0`,
/// an `f32` is no `f64`, and the entries of maps have an order. An integer equals the same integer
/// in another variant.
///
/// # JSON
///
/// [`to_json`](Self::to_json) and [`from_json`](Self::from_json) are inverse to each other. JSON
/// says plainly what it can: null, booleans, integers of `i64` and `u64`, finite `f64` (always with
/// a fraction or an exponent, which is what tells them from integers), text, arrays, and maps whose
/// keys are text. An object with one key that begins with `$` is a value that JSON has no word for:
///
/// | object | value |
/// |---|---|
/// | `{"$bytes":"3q2+7w=="}` | bytes, in base64 |
/// | `{"$int":"340282366920938463463374607431768211455"}` | an integer of 128 bits |
/// | `{"$float":"NaN"}`, `"Infinity"`, `"-Infinity"`, `"0x7ff8000000000001"` | an `f64` that JSON has no number for; in hexadecimal the bits of any other NaN |
/// | `{"$f32":1.5}`, `{"$f32":"NaN"}`, … | an `f32` |
/// | `{"$map":[[1,"one"],["$x",2]]}` | a map with other keys, or with a key that begins with `$` |
/// | `{"$ext":[7,"AQI="]}` | an extension value: its type and its bytes |
///
/// Any other object with such a key is refused. `Serialize` and `Deserialize` are the same form in
/// any format of serde, as far as that format keeps integers, floats and the order of entries:
/// `serde_json` reads integers above `u64` as floats, and floats exactly only with its feature
/// `float_roundtrip`, so use `from_json` on text.
///
/// ```
/// use abide::codec::{Value, to_payload};
/// use std::collections::BTreeMap;
///
/// let payload = to_payload(&BTreeMap::from([(1_u8, Some(2.0_f64)), (2, None)]))?;
/// let value = Value::from_payload(&payload)?;
/// assert_eq!(value.to_json()?, r#"{"$map":[[1,2.0],[2,null]]}"#);
/// assert_eq!(Value::from_json(&value.to_json()?)?, value);
/// assert_eq!(value.to_payload()?, payload);
/// # Ok::<(), abide::codec::CodecError>(())
/// ```
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing: `None`, a unit.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer of up to 128 bits.
    Int(i128),
    /// An integer above the largest `i128`.
    Huge(u128),
    /// A float of single precision.
    F32(f32),
    /// A float of double precision.
    F64(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list or a tuple.
    Array(Vec<Value>),
    /// A map or a struct. No two entries have the same key.
    Map(Vec<(Value, Value)>),
    /// An extension value of MessagePack: its type and its bytes. Types 1 and 2 with 16 bytes are
    /// the integers that do not fit 64 bits.
    Ext(i8, Vec<u8>),
}

impl Value {
    /// The value that a message's or a reply's payload holds, or any one MessagePack value.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](CodecErrorKind::Corrupt) if the bytes are not one MessagePack value, nested at
    /// most [`MAX_DEPTH`] levels deep, whose strings are UTF-8 and whose maps have distinct keys.
    pub fn from_payload(payload: &[u8]) -> Result<Self, CodecError> {
        leaf::parse(payload, MAX_DEPTH).map(Self::from)
    }

    /// The payload that holds this value.
    ///
    /// # Errors
    ///
    /// [`TooDeep`](CodecErrorKind::TooDeep) above [`MAX_DEPTH`] levels,
    /// [`DuplicateKey`](CodecErrorKind::DuplicateKey) if two entries of a map have the same key.
    pub fn to_payload(&self) -> Result<Bytes, CodecError> {
        Ok(leaf::pack(&self.to_stored(MAX_DEPTH)?).into())
    }

    /// The state that these leaves hold.
    ///
    /// # Errors
    ///
    /// [`Missing`](CodecErrorKind::Missing) if there are none, [`Corrupt`](CodecErrorKind::Corrupt)
    /// if they are nothing the codec writes.
    pub fn from_leaves(leaves: &Leaves) -> Result<Self, CodecError> {
        leaves.to_whole_value().map(Self::from)
    }

    /// The part of a state that lies at `path`. Only the leaves at and below it are looked at.
    ///
    /// # Errors
    ///
    /// As those of [`from_leaves`](Self::from_leaves): `Missing` if no leaf lies at `path`, also
    /// if that is a place inside of a leaf.
    pub fn from_leaves_at(leaves: &Leaves, path: &Path) -> Result<Self, CodecError> {
        leaves.to_value_at(path).map(Self::from)
    }

    /// What a value of any type holds.
    ///
    /// # Errors
    ///
    /// As those of [`to_payload`](super::to_payload()).
    pub fn from_typed<T: ?Sized + Serialize>(value: &T) -> Result<Self, CodecError> {
        Self::from_payload(&to_payload(value)?)
    }

    /// This value as one of the type `T`.
    ///
    /// # Errors
    ///
    /// As those of [`to_payload`](Self::to_payload) and [`from_payload`](super::from_payload()).
    pub fn to_typed<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        from_payload(&self.to_payload()?)
    }

    /// The JSON text of this value, on one line.
    ///
    /// # Errors
    ///
    /// As those of [`to_payload`](Self::to_payload): what would not be read back is not written.
    pub fn to_json(&self) -> Result<String, CodecError> {
        self.to_stored(MAX_DEPTH)?;
        Ok(text::write(&Json::from_value(self)))
    }

    /// The value that a JSON text says.
    ///
    /// # Errors
    ///
    /// [`Json`](CodecErrorKind::Json) if the text is not JSON, holds a number that no type here
    /// holds, or uses a `$` key in another way than [said above](Self#json);
    /// [`TooDeep`](CodecErrorKind::TooDeep) and [`DuplicateKey`](CodecErrorKind::DuplicateKey) as
    /// in [`to_payload`](Self::to_payload).
    pub fn from_json(json: &str) -> Result<Self, CodecError> {
        text::read(json)?.into_value()
    }

    /// The value of the map's entry under this text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(entries) = self else {
            return None;
        };
        let named = |(key, _): &&(Self, Self)| matches!(key, Self::Text(text) if text == name);
        entries.iter().find(named).map(|(_, value)| value)
    }

    /// The integer, as its sign and its magnitude.
    fn integer(&self) -> Option<(bool, u128)> {
        match *self {
            Self::Int(value) => Some((value < 0, value.unsigned_abs())),
            Self::Huge(value) => Some((false, value)),
            Self::Ext(code, ref bytes) => match leaf::integer_of(code, bytes)? {
                Stored::Int(value) => Some((value < 0, value.unsigned_abs())),
                Stored::Huge(value) => Some((false, value)),
                _ => None,
            },
            _ => None,
        }
    }

    /// This value as it is written, once it is known that it would be read back.
    fn to_stored(&self, depth: usize) -> Result<Stored<'_>, CodecError> {
        let deeper = || {
            depth.checked_sub(1).ok_or_else(|| {
                CodecError::new(
                    CodecErrorKind::TooDeep,
                    format!("more than {MAX_DEPTH} levels"),
                )
            })
        };
        Ok(match self {
            Self::Nil => Stored::Nil,
            Self::Bool(value) => Stored::Bool(*value),
            Self::Int(value) => Stored::Int(*value),
            Self::Huge(value) => leaf::uint(*value),
            Self::F32(value) => Stored::F32(*value),
            Self::F64(value) => Stored::F64(*value),
            Self::Text(value) => Stored::Str(Cow::Borrowed(value)),
            Self::Bytes(value) => Stored::Bin(value),
            Self::Ext(code, value) => {
                leaf::integer_of(*code, value).unwrap_or(Stored::Ext(*code, value))
            }
            Self::Array(items) => {
                let depth = deeper()?;
                let mut stored = Vec::with_capacity(items.len());
                for (position, item) in items.iter().enumerate() {
                    let item = item.to_stored(depth);
                    stored.push(item.map_err(|error| error.at(Step::Index(position)))?);
                }
                Stored::Seq(stored)
            }
            Self::Map(entries) => {
                let depth = deeper()?;
                let mut stored = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let key = key.to_stored(depth)?;
                    let value = value.to_stored(depth);
                    let value = value.map_err(|error| error.at(key.to_step()))?;
                    stored.push((key, value));
                }
                if let Some(step) = leaf::duplicate_key(&stored) {
                    return Err(CodecError::new(
                        CodecErrorKind::DuplicateKey,
                        "two entries have this key",
                    )
                    .at(step));
                }
                Stored::Map(stored)
            }
        })
    }
}

impl From<Stored<'_>> for Value {
    fn from(stored: Stored<'_>) -> Self {
        match stored {
            Stored::Nil => Self::Nil,
            Stored::Bool(value) => Self::Bool(value),
            Stored::Int(value) => Self::Int(value),
            Stored::Huge(value) => Self::Huge(value),
            Stored::F32(value) => Self::F32(value),
            Stored::F64(value) => Self::F64(value),
            Stored::Str(value) => Self::Text(value.into_owned()),
            Stored::Bin(value) => Self::Bytes(value.to_vec()),
            Stored::Ext(code, value) => Self::Ext(code, value.to_vec()),
            Stored::Seq(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            // A whole value has none.
            Stored::Collection(_) => Self::Nil,
            Stored::Items(items, _) => {
                Self::Array(items.into_iter().map(|(_, item)| item.into()).collect())
            }
            Stored::Map(entries) | Stored::Fields(_, entries) => Self::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (key.into(), value.into()))
                    .collect(),
            ),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nil, Self::Nil) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::F32(a), Self::F32(b)) => a.to_bits() == b.to_bits(),
            (Self::F64(a), Self::F64(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            (Self::Ext(code, a), Self::Ext(other, b)) if code == other && a == b => true,
            _ => self.integer().is_some() && self.integer() == other.integer(),
        }
    }
}

impl Eq for Value {}

/// The JSON text; of what has none, the reason.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_json() {
            Ok(json) => f.write_str(&json),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_stored(MAX_DEPTH).map_err(S::Error::custom)?;
        Json::from_value(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        json.into_value().map_err(D::Error::custom)
    }
}

macro_rules! from {
    ($($type:ty => |$value:ident| $made:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $made
            }
        }
    )*};
}

from! {
    bool => |value| Self::Bool(value);
    i64 => |value| Self::Int(value.into());
    u64 => |value| Self::Int(value.into());
    i128 => |value| Self::Int(value);
    u128 => |value| i128::try_from(value).map_or(Self::Huge(value), Self::Int);
    f32 => |value| Self::F32(value);
    f64 => |value| Self::F64(value);
    &str => |value| Self::Text(value.to_owned());
    String => |value| Self::Text(value);
    Vec<Value> => |value| Self::Array(value);
}

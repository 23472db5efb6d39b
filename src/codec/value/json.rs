//! The JSON form of a value: plain where JSON has a word for it, an object with a `$` key elsewhere.

use super::Value;
use super::base64;
use crate::codec::MAX_DEPTH;
use crate::codec::error::{CodecError, CodecErrorKind};
use crate::codec::path::Step;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// How deep JSON nests for a value: a map with other keys takes three levels (the object, the
/// entries, the entry), and a scalar in its innermost place two more.
pub(super) const MAX_JSON_DEPTH: usize = 3 * MAX_DEPTH + 2;

/// What is reserved as the first character of a key.
const RESERVED: char = '$';

/// JSON that knows integers from floats and keeps the order of its objects.
#[derive(Debug)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i128),
    Huge(u128),
    /// Finite.
    Float(f64),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub(super) fn from_value(value: &Value) -> Self {
        if let Some((negative, magnitude)) = value.integer() {
            return integer(negative, magnitude);
        }
        match value {
            Value::Nil | Value::Int(_) | Value::Huge(_) => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::F64(value) if value.is_finite() => Self::Float(*value),
            Value::F64(value) => {
                let bits = (value.to_bits() != F64_NAN).then(|| format!("{:#x}", value.to_bits()));
                tagged("$float", Self::Text(unwritable(*value, bits)))
            }
            Value::F32(value) if value.is_finite() => tagged("$f32", Self::Float(widened(*value))),
            Value::F32(value) => {
                let bits = (value.to_bits() != F32_NAN).then(|| format!("{:#x}", value.to_bits()));
                tagged("$f32", Self::Text(unwritable((*value).into(), bits)))
            }
            Value::Text(value) => Self::Text(value.clone()),
            Value::Bytes(value) => tagged("$bytes", Self::Text(base64::encode(value))),
            Value::Ext(code, value) => {
                let bytes = Self::Text(base64::encode(value));
                tagged("$ext", Self::Array(vec![Self::Int((*code).into()), bytes]))
            }
            Value::Array(items) => Self::Array(items.iter().map(Self::from_value).collect()),
            Value::Map(entries) => Self::from_entries(entries),
        }
    }

    fn from_entries(entries: &[(Value, Value)]) -> Self {
        let plain = |(key, value): &(Value, Value)| match key {
            Value::Text(key) if !key.starts_with(RESERVED) => {
                Some((key.clone(), Self::from_value(value)))
            }
            _ => None,
        };
        if let Some(fields) = entries.iter().map(plain).collect() {
            return Self::Object(fields);
        }
        let pair = |(key, value): &(Value, Value)| {
            Self::Array(vec![Self::from_value(key), Self::from_value(value)])
        };
        tagged("$map", Self::Array(entries.iter().map(pair).collect()))
    }

    /// The value that this is the form of.
    pub(super) fn into_value(self) -> Result<Value, CodecError> {
        let value = self.untagged()?;
        // Depth and keys: what is accepted here can be written again.
        value.to_stored(MAX_DEPTH)?;
        Ok(value)
    }

    fn untagged(self) -> Result<Value, CodecError> {
        Ok(match self {
            Self::Null => Value::Nil,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Huge(value) => Value::from(value),
            Self::Float(value) => Value::F64(value),
            Self::Text(value) => Value::Text(value),
            Self::Array(items) => {
                let items = items.into_iter().enumerate().map(|(position, item)| {
                    let item = item.untagged();
                    item.map_err(|error| error.at(Step::Index(position)))
                });
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Self::Object(fields) => {
                let reserved = fields.iter().any(|(name, _)| name.starts_with(RESERVED));
                if reserved {
                    return special(fields);
                }
                let entries = fields.into_iter().map(|(name, value)| {
                    let value = value.untagged();
                    let value = value.map_err(|error| error.at(name.as_str().into()))?;
                    Ok((Value::Text(name), value))
                });
                Value::Map(entries.collect::<Result<_, CodecError>>()?)
            }
        })
    }
}

/// The bits of the NaN that goes by its name.
const F64_NAN: u64 = 0x7ff8_0000_0000_0000;
const F32_NAN: u32 = 0x7fc0_0000;

/// The word for a float that JSON has no number for; `bits` for a NaN that is not the usual one.
fn unwritable(value: f64, bits: Option<String>) -> String {
    match bits {
        Some(bits) if value.is_nan() => bits,
        _ if value.is_nan() => "NaN".to_owned(),
        _ if value < 0.0 => "-Infinity".to_owned(),
        _ => "Infinity".to_owned(),
    }
}

/// The double with the fewest digits that is read back as this float.
fn widened(value: f32) -> f64 {
    let short = format!("{value:?}").parse::<f64>();
    match short {
        Ok(short) if narrowed(short).to_bits() == value.to_bits() => short,
        _ => value.into(),
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the nearest float is what is asked for"
)]
fn narrowed(value: f64) -> f32 {
    value as f32
}

fn integer(negative: bool, magnitude: u128) -> Json {
    let value = match (negative, i128::try_from(magnitude)) {
        (false, Ok(value)) => value,
        (true, Ok(value)) => -value,
        (false, Err(_)) => return tagged("$int", Json::Text(magnitude.to_string())),
        (true, Err(_)) => i128::MIN,
    };
    if (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value) {
        return Json::Int(value);
    }
    tagged("$int", Json::Text(value.to_string()))
}

fn tagged(tag: &str, json: Json) -> Json {
    Json::Object(vec![(tag.to_owned(), json)])
}

fn refused(message: impl Into<String>) -> CodecError {
    CodecError::new(CodecErrorKind::Json, message)
}

/// The value of an object with a reserved key.
fn special(fields: Vec<(String, Json)>) -> Result<Value, CodecError> {
    let Ok([(tag, json)]) = <[_; 1]>::try_from(fields) else {
        return Err(refused(
            "an object with a key that begins with `$` has no other key; \
             write it as {\"$map\":[[key,value],…]}",
        ));
    };
    let unfit = |what: &str| refused(format!("`{tag}` takes {what}"));
    match (tag.as_str(), json) {
        ("$bytes", Json::Text(text)) => base64::decode(&text)
            .map(Value::Bytes)
            .ok_or_else(|| unfit("base64 with padding")),
        ("$int", Json::Text(text)) => {
            let value = text.parse().map(Value::Int);
            let value = value.or_else(|_| text.parse::<u128>().map(Value::from));
            value.map_err(|_| unfit("the digits of an integer of up to 128 bits"))
        }
        ("$float", Json::Text(text)) => f64_of(&text)
            .map(Value::F64)
            .ok_or_else(|| unfit("\"NaN\", \"Infinity\", \"-Infinity\" or 0x and the bits")),
        ("$float", Json::Float(value)) => Ok(Value::F64(value)),
        ("$f32", Json::Text(text)) => f32_of(&text)
            .map(Value::F32)
            .ok_or_else(|| unfit("\"NaN\", \"Infinity\", \"-Infinity\" or 0x and the bits")),
        ("$f32", Json::Float(value)) if narrowed(value).is_finite() => {
            Ok(Value::F32(narrowed(value)))
        }
        ("$map", Json::Array(pairs)) => {
            let entries = pairs.into_iter().map(|pair| match pair {
                Json::Array(pair) => match <[_; 2]>::try_from(pair) {
                    Ok([key, value]) => Ok((key.untagged()?, value.untagged()?)),
                    Err(_) => Err(unfit("pairs of a key and a value")),
                },
                _ => Err(unfit("pairs of a key and a value")),
            });
            Ok(Value::Map(entries.collect::<Result<_, _>>()?))
        }
        ("$ext", Json::Array(parts)) => {
            let parts = match parts.as_slice() {
                [Json::Int(code), Json::Text(text)] => {
                    i8::try_from(*code).ok().zip(base64::decode(text))
                }
                _ => None,
            };
            let ext = parts.map(|(code, bytes)| Value::Ext(code, bytes));
            ext.ok_or_else(|| unfit("a type from -128 to 127 and base64 with padding"))
        }
        ("$bytes" | "$int" | "$float" | "$f32" | "$map" | "$ext", _) => {
            Err(unfit("another kind of value"))
        }
        _ => Err(refused(format!("no value goes by the key `{tag}`"))),
    }
}

fn f64_of(word: &str) -> Option<f64> {
    match word {
        "NaN" => Some(f64::from_bits(F64_NAN)),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        bits => hexadecimal(bits).map(f64::from_bits),
    }
}

fn f32_of(word: &str) -> Option<f32> {
    match word {
        "NaN" => Some(f32::from_bits(F32_NAN)),
        "Infinity" => Some(f32::INFINITY),
        "-Infinity" => Some(f32::NEG_INFINITY),
        bits => u32::try_from(hexadecimal(bits)?).ok().map(f32::from_bits),
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| plain)
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => serializer.serialize_u64(value),
                (_, Ok(value)) => serializer.serialize_i64(value),
                _ => serializer.serialize_i128(*value),
            },
            Self::Huge(value) => serializer.serialize_u128(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Level(MAX_JSON_DEPTH).deserialize(deserializer)
    }
}

/// How many levels more may come.
#[derive(Clone, Copy)]
struct Level(usize);

impl Level {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        let left = self.0.checked_sub(1);
        left.map(Self)
            .ok_or_else(|| E::custom(format!("more than {MAX_JSON_DEPTH} levels of JSON")))
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the JSON form of a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Json, D::Error> {
        self.deeper()?.deserialize(inner)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Int(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Json, E> {
        Ok(Json::Int(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Json, E> {
        Ok(Json::Huge(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        if value.is_finite() {
            return Ok(Json::Float(value));
        }
        Err(E::custom(
            "a float that JSON has no number for is written as {\"$float\":…}",
        ))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let level = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(level)? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let level = self.deeper()?;
        let mut object = Vec::new();
        while let Some(name) = entries.next_key::<String>()? {
            object.push((name, entries.next_value_seed(level)?));
        }
        Ok(Json::Object(object))
    }
}

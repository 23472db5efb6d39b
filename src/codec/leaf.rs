//! MessagePack, both ways: writing scalars and headers, and reading bytes that may be hostile.
//!
//! Integers take their shortest form; maps and structs are written sorted by key. So equal values
//! have equal bytes, which is what the diff compares.

use super::MAX_DEPTH;
use super::collection::Collection;
use super::error::{CodecError, CodecErrorKind};
use super::path::{PathInt, Step};
use rmp::Marker;
use rmp::encode::{self, ByteBuf};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Extension types for what MessagePack's integers do not hold, 16 bytes big-endian.
const EXT_I128: i8 = 1;
const EXT_U128: i8 = 2;
pub(super) const NIL: u8 = 0xc0;

/// What kind of container a marker stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Struct,
    Map,
    List,
}

/// A stored value, borrowed from its leaves.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Int(i128),
    /// A number above the largest `i128`.
    Huge(u128),
    F32(f32),
    F64(f64),
    Str(Cow<'a, str>),
    Bin(&'a [u8]),
    Ext(i8, &'a [u8]),
    /// An array within one leaf.
    Seq(Vec<Value<'a>>),
    /// A map within one leaf.
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// A struct or a map whose entries are leaves of their own.
    Fields(Kind, Vec<(Value<'a>, Value<'a>)>),
    /// A list whose items are leaves of their own, with their ids, in the list's order.
    /// Beside them where they stand.
    Items(Vec<(Cow<'a, str>, Value<'a>)>, Vec<&'a [u8]>),
    /// A durable collection as it is in memory, in place of what is stored.
    Collection(&'a Arc<dyn Collection>),
}

impl Value<'_> {
    /// The step from the container to the entry with this key.
    pub(super) fn to_step(&self) -> Step {
        match self {
            Self::Str(text) => Step::from(text.as_ref()),
            Self::Int(number) => match PathInt::new(*number) {
                Some(number) => Step::Int(number),
                None => Step::Other(pack(self).into()),
            },
            _ => Step::Other(pack(self).into()),
        }
    }
}

/// The leaf of a scalar or an opaque value.
pub(super) fn pack(value: &Value<'_>) -> Vec<u8> {
    let mut out = Writer::default();
    out.value(value);
    out.into_vec()
}

/// Writes MessagePack. rmp's buffer cannot fail, which its error type says.
#[derive(Debug, Default)]
pub(super) struct Writer(ByteBuf);

impl Writer {
    pub(super) fn into_vec(self) -> Vec<u8> {
        self.0.into_vec()
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.as_mut_vec().extend_from_slice(bytes);
    }

    pub(super) fn nil(&mut self) {
        let Ok(()) = encode::write_nil(&mut self.0);
    }

    pub(super) fn bool(&mut self, value: bool) {
        let Ok(()) = encode::write_bool(&mut self.0, value);
    }

    pub(super) fn int(&mut self, value: i128) {
        if let Ok(value) = u64::try_from(value) {
            let Ok(_) = encode::write_uint(&mut self.0, value);
        } else if let Ok(value) = i64::try_from(value) {
            let Ok(_) = encode::write_sint(&mut self.0, value);
        } else {
            self.ext(EXT_I128, &value.to_be_bytes());
        }
    }

    pub(super) fn uint(&mut self, value: u128) {
        match i128::try_from(value) {
            Ok(value) => self.int(value),
            Err(_) => self.ext(EXT_U128, &value.to_be_bytes()),
        }
    }

    pub(super) fn f32(&mut self, value: f32) {
        let Ok(()) = encode::write_f32(&mut self.0, value);
    }

    pub(super) fn f64(&mut self, value: f64) {
        let Ok(()) = encode::write_f64(&mut self.0, value);
    }

    pub(super) fn str(&mut self, value: &str) {
        let Ok(()) = encode::write_str(&mut self.0, value);
    }

    pub(super) fn bin(&mut self, value: &[u8]) {
        let Ok(()) = encode::write_bin(&mut self.0, value);
    }

    fn ext(&mut self, code: i8, value: &[u8]) {
        let Ok(_) = encode::write_ext_meta(&mut self.0, length(value.len()), code);
        self.raw(value);
    }

    pub(super) fn array(&mut self, items: usize) {
        let Ok(_) = encode::write_array_len(&mut self.0, length(items));
    }

    pub(super) fn map(&mut self, entries: usize) {
        let Ok(_) = encode::write_map_len(&mut self.0, length(entries));
    }

    fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Nil => self.nil(),
            Value::Bool(value) => self.bool(*value),
            Value::Int(value) => self.int(*value),
            Value::Huge(value) => self.uint(*value),
            Value::F32(value) => self.f32(*value),
            Value::F64(value) => self.f64(*value),
            Value::Str(value) => self.str(value),
            Value::Bin(value) => self.bin(value),
            Value::Ext(code, value) => self.ext(*code, value),
            Value::Seq(items) => {
                self.array(items.len());
                items.iter().for_each(|item| self.value(item));
            }
            // It has a path, and is never part of a leaf.
            Value::Collection(_) => self.nil(),
            Value::Items(items, _) => {
                self.array(items.len());
                items.iter().for_each(|(_, item)| self.value(item));
            }
            Value::Map(entries) | Value::Fields(_, entries) => {
                self.map(entries.len());
                for (key, value) in entries {
                    self.value(key);
                    self.value(value);
                }
            }
        }
    }

    /// A map's key, which is never a position.
    pub(super) fn key(&mut self, key: &Step) {
        match key {
            Step::Str(text) => self.str(text),
            Step::Int(number) => self.int(number.get()),
            Step::Other(packed) => self.raw(packed),
            Step::Index(index) => self.int(*index as i128),
        }
    }
}

/// A length as MessagePack writes it. Four gigabytes do not come this far: the store's limits are
/// lower by orders of magnitude.
fn length(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

/// The text, if the leaf is a string.
pub(super) fn as_str(packed: &[u8]) -> Option<Cow<'_, str>> {
    match parse(packed, 1) {
        Ok(Value::Str(text)) => Some(text),
        _ => None,
    }
}

/// Reads one value that takes all of `bytes` and is nested at most `depth` levels deep.
pub(super) fn parse(bytes: &[u8], depth: usize) -> Result<Value<'_>, CodecError> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(depth.min(MAX_DEPTH))?;
    if reader.rest.is_empty() {
        return Ok(value);
    }
    Err(corrupt(format!(
        "{} bytes follow the value",
        reader.rest.len()
    )))
}

/// The integer that an extension value of this type and these bytes is, if it is one.
pub(super) fn integer_of(code: i8, bytes: &[u8]) -> Option<Value<'static>> {
    let bytes = <[u8; 16]>::try_from(bytes).ok()?;
    match code {
        EXT_I128 => Some(Value::Int(i128::from_be_bytes(bytes))),
        EXT_U128 => Some(uint(u128::from_be_bytes(bytes))),
        _ => None,
    }
}

/// An integer has one form, whatever it was written as.
pub(super) fn uint(value: u128) -> Value<'static> {
    i128::try_from(value).map_or(Value::Huge(value), Value::Int)
}

fn corrupt(message: impl Into<String>) -> CodecError {
    CodecError::new(CodecErrorKind::Corrupt, message)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, CodecError> {
        let [byte] = self.array::<1>()?;
        Ok(match Marker::from_u8(byte) {
            Marker::Null => Value::Nil,
            Marker::Reserved => return Err(corrupt("the byte c1 begins no value")),
            Marker::False => Value::Bool(false),
            Marker::True => Value::Bool(true),
            Marker::FixPos(value) => Value::Int(value.into()),
            Marker::FixNeg(value) => Value::Int(value.into()),
            Marker::U8 => Value::Int(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => Value::Int(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Value::Int(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Value::Int(u64::from_be_bytes(self.array()?).into()),
            Marker::I8 => Value::Int(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => Value::Int(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => Value::Int(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => Value::Int(i64::from_be_bytes(self.array()?).into()),
            Marker::F32 => Value::F32(f32::from_be_bytes(self.array()?)),
            Marker::F64 => Value::F64(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(length) => self.str(length.into())?,
            Marker::Str8 => self.length8().and_then(|length| self.str(length))?,
            Marker::Str16 => self.length16().and_then(|length| self.str(length))?,
            Marker::Str32 => self.length32().and_then(|length| self.str(length))?,
            Marker::Bin8 => Value::Bin(self.length8().and_then(|length| self.take(length))?),
            Marker::Bin16 => Value::Bin(self.length16().and_then(|length| self.take(length))?),
            Marker::Bin32 => Value::Bin(self.length32().and_then(|length| self.take(length))?),
            Marker::FixExt1 => self.ext(1)?,
            Marker::FixExt2 => self.ext(2)?,
            Marker::FixExt4 => self.ext(4)?,
            Marker::FixExt8 => self.ext(8)?,
            Marker::FixExt16 => self.ext(16)?,
            Marker::Ext8 => self.length8().and_then(|length| self.ext(length))?,
            Marker::Ext16 => self.length16().and_then(|length| self.ext(length))?,
            Marker::Ext32 => self.length32().and_then(|length| self.ext(length))?,
            Marker::FixArray(length) => self.seq(length.into(), depth)?,
            Marker::Array16 => self.length16().and_then(|length| self.seq(length, depth))?,
            Marker::Array32 => self.length32().and_then(|length| self.seq(length, depth))?,
            Marker::FixMap(length) => self.map(length.into(), depth)?,
            Marker::Map16 => self.length16().and_then(|length| self.map(length, depth))?,
            Marker::Map32 => self.length32().and_then(|length| self.map(length, depth))?,
        })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| {
            corrupt(format!(
                "a value of {length} bytes ends after {}",
                self.rest.len()
            ))
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        self.take(N)?
            .try_into()
            .map_err(|_| corrupt("a number is cut off"))
    }

    fn length8(&mut self) -> Result<usize, CodecError> {
        Ok(u8::from_be_bytes(self.array()?).into())
    }

    fn length16(&mut self) -> Result<usize, CodecError> {
        Ok(u16::from_be_bytes(self.array()?).into())
    }

    fn length32(&mut self) -> Result<usize, CodecError> {
        Ok(u32::from_be_bytes(self.array()?) as usize)
    }

    fn str(&mut self, length: usize) -> Result<Value<'a>, CodecError> {
        std::str::from_utf8(self.take(length)?)
            .map(|text| Value::Str(text.into()))
            .map_err(|error| corrupt(format!("a string is not UTF-8: {error}")))
    }

    fn ext(&mut self, length: usize) -> Result<Value<'a>, CodecError> {
        let code = i8::from_be_bytes(self.array()?);
        let bytes = self.take(length)?;
        Ok(integer_of(code, bytes).unwrap_or(Value::Ext(code, bytes)))
    }

    /// Every element takes a byte or more, so what is left bounds what a header can make us reserve.
    fn capacity(&self, length: usize) -> usize {
        length.min(self.rest.len()).min(4096)
    }

    fn deeper(depth: usize) -> Result<usize, CodecError> {
        depth
            .checked_sub(1)
            .ok_or_else(|| corrupt(format!("nested deeper than {MAX_DEPTH} levels")))
    }

    fn seq(&mut self, length: usize, depth: usize) -> Result<Value<'a>, CodecError> {
        let depth = Self::deeper(depth)?;
        let mut items = Vec::with_capacity(self.capacity(length));
        for _ in 0..length {
            items.push(self.value(depth)?);
        }
        Ok(Value::Seq(items))
    }

    fn map(&mut self, length: usize, depth: usize) -> Result<Value<'a>, CodecError> {
        let depth = Self::deeper(depth)?;
        let mut entries = Vec::with_capacity(self.capacity(length));
        for _ in 0..length {
            entries.push((self.value(depth)?, self.value(depth)?));
        }
        if let Some(step) = duplicate_key(&entries) {
            return Err(corrupt("a map holds two entries under this key").at(step));
        }
        Ok(Value::Map(entries))
    }
}

/// A key that two entries have. The codec writes keys in their order, so that one look at each tells
/// that there is none; only what it did not write needs a set.
pub(super) fn duplicate_key(entries: &[(Value<'_>, Value<'_>)]) -> Option<Step> {
    let ordered = entries.is_sorted_by(|(a, _), (b, _)| match (a, b) {
        (Value::Str(a), Value::Str(b)) => a < b,
        (Value::Int(a), Value::Int(b)) => a < b,
        (Value::Str(_), Value::Int(_)) => true,
        _ => false,
    });
    if ordered {
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut keys = entries.iter().map(|(key, _)| key.to_step());
    keys.find(|key| !seen.insert(key.clone()))
}

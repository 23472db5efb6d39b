//! The containers as serde walks them. Each step down gets a frame, each error on its way up a step.

use super::{Decoder, Place};
use crate::codec::error::CodecError;
use crate::codec::leaf::Value;
use serde::de::{self, DeserializeSeed, Error as _, Visitor};

/// The items of a list or a tuple.
pub(super) struct SeqAccess<'f> {
    pub(super) decoder: Decoder<'f>,
    pub(super) next: usize,
}

impl SeqAccess<'_> {
    pub(super) fn left(&self) -> usize {
        let length = match self.decoder.value {
            Value::Seq(items) => items.len(),
            Value::Items(items, _) => items.len(),
            _ => 0,
        };
        length - self.next
    }
}

impl<'de> de::SeqAccess<'de> for SeqAccess<'_> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CodecError> {
        let item = match self.decoder.value {
            Value::Seq(items) => items
                .get(self.next)
                .map(|item| (Place::Index(self.next), item)),
            Value::Items(items, _) => items
                .get(self.next)
                .map(|(id, item)| (Place::Name(id), item)),
            _ => None,
        };
        let Some((place, value)) = item else {
            return Ok(None);
        };
        self.next += 1;
        let item = seed.deserialize(Decoder {
            value,
            frame: self.decoder.frame.child(place),
            seen: self.decoder.seen,
            found: self.decoder.found,
        });
        item.map(Some).map_err(|error| match place.to_step() {
            Some(step) => error.at(step),
            None => error,
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left())
    }
}

/// The entries of a map or a struct.
pub(super) struct MapAccess<'f> {
    pub(super) decoder: Decoder<'f>,
    pub(super) entries: &'f [(Value<'f>, Value<'f>)],
    /// The entry that is read before all others.
    pub(super) first: Option<usize>,
    /// How many entries were read.
    pub(super) read: usize,
    /// Whether the type asked for a map.
    pub(super) as_map: bool,
    /// The entry whose key was read and whose value was not.
    pub(super) value: Option<&'f (Value<'f>, Value<'f>)>,
}

impl<'f> MapAccess<'f> {
    fn entry(&self) -> Option<&'f (Value<'f>, Value<'f>)> {
        let at = match (self.first, self.read) {
            (Some(first), 0) => first,
            (Some(first), read) if read <= first => read - 1,
            (_, read) => read,
        };
        self.entries.get(at)
    }
}

impl<'de> de::MapAccess<'de> for MapAccess<'_> {
    type Error = CodecError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, CodecError> {
        let Some(entry) = self.entry() else {
            return Ok(None);
        };
        self.value = Some(entry);
        let first_of_map = self.as_map && self.read == 0;
        let key = seed.deserialize(Decoder {
            value: &entry.0,
            frame: self.decoder.frame.child(Place::KeyItself { first_of_map }),
            seen: self.decoder.seen,
            found: self.decoder.found,
        });
        self.read += 1;
        key.map(Some).map_err(|error| error.at(entry.0.to_step()))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<T::Value, CodecError> {
        let (key, value) = self
            .value
            .take()
            .ok_or_else(|| CodecError::custom("a map's value was read before its key"))?;
        let mut frame = self.decoder.frame.child(Place::Key(key));
        frame.may_collect = self.decoder.frame.may_collect && !self.as_map;
        let value = seed.deserialize(Decoder {
            value,
            frame,
            seen: self.decoder.seen,
            found: self.decoder.found,
        });
        value.map_err(|error| error.at(key.to_step()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len() - self.read)
    }
}

/// A variant of an enum: its name, and its data if there are any.
pub(super) struct Variant<'f> {
    pub(super) name: &'f str,
    pub(super) data: Option<&'f Value<'f>>,
    pub(super) decoder: Decoder<'f>,
}

impl Variant<'_> {
    fn read<T>(
        self,
        read: impl FnOnce(Decoder<'_>) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        let value = self.data.unwrap_or(&Value::Nil);
        read(Decoder {
            value,
            frame: self.decoder.frame.child(Place::Name(self.name)),
            seen: self.decoder.seen,
            found: self.decoder.found,
        })
        .map_err(|error| error.at(self.name.into()))
    }
}

impl<'de> de::EnumAccess<'de> for Variant<'_> {
    type Error = CodecError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), CodecError> {
        let name = de::value::StrDeserializer::<CodecError>::new(self.name);
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        match self.data {
            None => Ok(()),
            Some(_) => self.read(|data| {
                Err(CodecError::invalid_type(
                    data.unexpected(),
                    &"a variant without data",
                ))
            }),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, CodecError> {
        self.read(|data| seed.deserialize(data))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.read(|data| de::Deserializer::deserialize_tuple(data, length, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.read(|data| de::Deserializer::deserialize_struct(data, "", fields, visitor))
    }
}

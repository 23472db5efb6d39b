//! Whether serde reads for a type, into a buffer, found out from the type alone.
//!
//! A type says what it is by what it asks of a deserializer. The probe asks it once for each field
//! and variant, and looks for the questions that only buffers ask. It makes values up only to get
//! past them, to what follows in a tuple or below a map's key; else the type's own code would see
//! values that it never wrote. What the probe cannot tell counts as a buffer: that costs a look at
//! each encoded value, never a wrong one.

use super::error::CodecError;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, Visitor,
};
use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// How many places a type may have. Generous: each field and variant is one, each type counts once.
const MAX_ROUTES: usize = 10_000;
const MAX_CALLS: usize = 256;

/// Whether values of this type, or parts of them, may be read from a buffer: below flattened fields
/// and in internally tagged, adjacently tagged or untagged enums.
pub(super) fn may_buffer<T: DeserializeOwned>() -> bool {
    survey::<T>(false)
}

/// The same of all but the entries of durable collections that are found as such.
pub(super) fn may_buffer_outside<T: DeserializeOwned>() -> bool {
    survey::<T>(true)
}

fn survey<T: DeserializeOwned>(collect: bool) -> bool {
    let survey = Survey::default();
    for _ in 0..MAX_ROUTES {
        survey.at.set(0);
        // There never is a value; only the questions count.
        let _ = T::deserialize(Probe {
            survey: &survey,
            depth: 0,
            passing: false,
            collect,
        });
        if survey.found.get() {
            return true;
        }
        if !survey.advance() {
            return false;
        }
    }
    true
}

/// A walk through all places of a type, one for each call of `deserialize`.
#[derive(Default)]
struct Survey {
    /// The choices on the way to the current place, each with how many there are.
    route: RefCell<Vec<(usize, usize)>>,
    /// How many of them were taken in this call.
    at: Cell<usize>,
    /// Where each type was met first. It is looked at there only.
    met: RefCell<HashMap<(&'static str, bool), Vec<usize>>>,
    found: Cell<bool>,
}

impl Survey {
    fn choose(&self, of: usize) -> usize {
        let mut route = self.route.borrow_mut();
        let at = self.at.get();
        self.at.set(at + 1);
        match route.get(at) {
            Some((choice, _)) => *choice,
            None => {
                route.push((0, of));
                0
            }
        }
    }

    /// Goes on to the next place; `false` after the last one.
    fn advance(&self) -> bool {
        let mut route = self.route.borrow_mut();
        route.truncate(self.at.get());
        while let Some((choice, of)) = route.pop() {
            if choice + 1 < of {
                route.push((choice + 1, of));
                return true;
            }
        }
        false
    }

    /// Whether the type with this visitor is to be looked at here.
    fn enter(&self, visitor: (&'static str, bool)) -> bool {
        let here: Vec<usize> = {
            let route = self.route.borrow();
            route
                .iter()
                .take(self.at.get())
                .map(|(at, _)| *at)
                .collect()
        };
        let mut met = self.met.borrow_mut();
        let first = *met.entry(visitor).or_insert_with(|| here.clone()) == here;
        // So that the same type further down is at another place.
        self.choose(1);
        first
    }
}

#[derive(Clone, Copy)]
struct Probe<'s> {
    survey: &'s Survey,
    depth: usize,
    /// Only a value is wanted, of as few parts as will do, to get past it.
    passing: bool,
    /// Whether a durable collection here is found as such.
    collect: bool,
}

fn seen_enough() -> CodecError {
    CodecError::custom("the probe has seen enough")
}

impl Probe<'_> {
    fn deeper(self) -> Result<Self, CodecError> {
        if self.depth >= MAX_CALLS {
            return Err(self.unclear());
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn inner(self) -> Self {
        Self {
            collect: false,
            ..self
        }
    }

    fn to_pass(self) -> Self {
        Self {
            passing: true,
            ..self
        }
    }

    /// What cannot be told counts as a buffer.
    fn unclear(self) -> CodecError {
        self.survey.found.set(true);
        seen_enough()
    }

    fn enter<V>(self) -> Result<Self, CodecError> {
        if !self.passing && !self.survey.enter((type_name::<V>(), self.collect)) {
            return Err(seen_enough());
        }
        self.deeper()
    }

    fn tuple<'de, V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let last = match (self.passing, length) {
            (true, _) | (_, 0) => length,
            (false, length) => self.survey.choose(length),
        };
        visitor.visit_seq(Items {
            probe: self,
            next: 0,
            length,
            last,
        })
    }

    fn fields<'de, V: Visitor<'de>>(
        self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let names = match (self.passing, names.len()) {
            (true, _) | (_, 0) => names,
            (false, count) => {
                let chosen = self.survey.choose(count);
                names.get(chosen..=chosen).unwrap_or_default()
            }
        };
        visitor.visit_map(Fields { probe: self, names })
    }
}

macro_rules! leaves {
    ($($method:ident => $visit:ident($value:expr);)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            if !self.passing {
                return Err(seen_enough());
            }
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = CodecError;

    // To get past them: one and not zero, which some types do not take.
    leaves! {
        deserialize_bool => visit_bool(false);
        deserialize_i8 => visit_u64(1);
        deserialize_i16 => visit_u64(1);
        deserialize_i32 => visit_u64(1);
        deserialize_i64 => visit_u64(1);
        deserialize_i128 => visit_u64(1);
        deserialize_u8 => visit_u64(1);
        deserialize_u16 => visit_u64(1);
        deserialize_u32 => visit_u64(1);
        deserialize_u64 => visit_u64(1);
        deserialize_u128 => visit_u64(1);
        deserialize_f32 => visit_f64(1.0);
        deserialize_f64 => visit_f64(1.0);
        deserialize_char => visit_char('1');
        deserialize_str => visit_str("1");
        deserialize_string => visit_str("1");
        deserialize_bytes => visit_bytes(b"1");
        deserialize_byte_buf => visit_bytes(b"1");
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        if !self.passing {
            return Err(seen_enough());
        }
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, CodecError> {
        Err(self.unclear())
    }

    /// Only a struct with flattened fields reads itself as a map and the keys as names.
    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, CodecError> {
        Err(self.unclear())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        if self.passing {
            return visitor.visit_none();
        }
        visitor.visit_some(self.deeper()?)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        // The entries of a durable collection are states of their own.
        if super::collection::is_collection(name) && self.collect && !self.passing {
            return Err(seen_enough());
        }
        visitor.visit_newtype_struct(self.enter::<V>()?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_seq(Items {
            probe: self.inner().deeper()?,
            next: 0,
            length: usize::from(!self.passing),
            last: 0,
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.inner().deeper()?.tuple(length, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.inner().enter::<V>()?.tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let probe = self.inner().deeper()?;
        let mut entry = Entry {
            probe,
            into_key: !self.passing && self.survey.choose(2) == 0,
            left: usize::from(!self.passing),
            value_is_due: false,
        };
        let value = visitor.visit_map(&mut entry);
        if entry.value_is_due {
            return Err(probe.unclear());
        }
        value
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.enter::<V>()?.fields(fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let probe = self.inner().enter::<V>()?;
        let chosen = match (self.passing, variants.len()) {
            (true, _) | (_, 0) => 0,
            (false, count) => self.survey.choose(count),
        };
        let name = variants.get(chosen).ok_or_else(seen_enough)?;
        visitor.visit_enum(Variant { probe, name })
    }
}

/// The items up to the `last`, which is the one to look into.
struct Items<'s> {
    probe: Probe<'s>,
    next: usize,
    length: usize,
    last: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = CodecError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CodecError> {
        if self.next >= self.length || self.next > self.last {
            return Ok(None);
        }
        let at = self.next;
        self.next += 1;
        if at == self.last {
            return seed.deserialize(self.probe).map(Some);
        }
        let passed = seed.deserialize(self.probe.to_pass());
        passed.map(Some).map_err(|_| self.probe.unclear())
    }
}

struct Fields<'s> {
    probe: Probe<'s>,
    names: &'static [&'static str],
}

impl<'de> de::MapAccess<'de> for Fields<'_> {
    type Error = CodecError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CodecError> {
        let Some(name) = self.names.first().copied() else {
            return Ok(None);
        };
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, CodecError> {
        self.names = self.names.get(1..).unwrap_or_default();
        seed.deserialize(self.probe)
    }
}

/// A map's one entry: its key or its value is looked into.
struct Entry<'s> {
    probe: Probe<'s>,
    into_key: bool,
    left: usize,
    value_is_due: bool,
}

impl<'de> de::MapAccess<'de> for Entry<'_> {
    type Error = CodecError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CodecError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        if self.into_key {
            let _ = seed.deserialize(self.probe)?;
            return Err(seen_enough());
        }
        let key = seed.deserialize(self.probe.to_pass());
        self.value_is_due = true;
        key.map(Some).map_err(|_| self.probe.unclear())
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, CodecError> {
        self.value_is_due = false;
        seed.deserialize(self.probe)
    }
}

struct Variant<'s> {
    probe: Probe<'s>,
    name: &'static str,
}

impl<'de> de::EnumAccess<'de> for Variant<'_> {
    type Error = CodecError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self), CodecError> {
        let name = de::value::StrDeserializer::<CodecError>::new(self.name);
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        if !self.probe.passing {
            return Err(seen_enough());
        }
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, CodecError> {
        seed.deserialize(self.probe)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.probe.tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.probe.fields(fields, visitor)
    }
}

#[cfg(test)]
mod tests;

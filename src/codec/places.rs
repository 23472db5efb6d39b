//! Where a type has its lazy collections, found out from the type alone: what lies there need not be
//! read to read the rest.
//!
//! A type says what it is by what it asks of a deserializer. The finder follows the fields of
//! structs, through options and newtypes, one path for each call, and never gives a value. What it
//! does not find, below a flattened field say, is read as a whole like everything else; so a place
//! too few costs time, and nothing else. Those nearest to the root are found first.

use super::collection::LAZY;
use super::error::CodecError;
use super::path::{Path, PathBuf};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, Visitor,
};
use std::cell::RefCell;
use std::collections::VecDeque;

/// How many structs lie above a place at most. Types recurse.
const MAX_LEVELS: usize = 8;
/// How many options and newtypes stand in a row at most.
const MAX_WRAPPERS: usize = 64;
/// How many fields are looked into at most.
const MAX_FIELDS: usize = 1_000;
/// How many places there are at most: between any two of them a state is read separately.
const MAX_PLACES: usize = 16;

/// The places of lazy collections, in the order of their paths. None lies below another.
pub(crate) fn lazy_places<T: DeserializeOwned>() -> Vec<Path> {
    let mut places = Vec::new();
    let mut routes = VecDeque::from([Vec::new()]);
    let mut fields = 0;
    while let Some(route) = routes.pop_front()
        && places.len() < MAX_PLACES
    {
        let walk = RefCell::new(Walk::default());
        // There never is a value; only the questions count.
        let _ = T::deserialize(Finder {
            route: &route,
            walk: &walk,
            wrappers: 0,
        });
        match walk.into_inner() {
            Walk {
                lazy: true, path, ..
            } => places.push(path.to_path()),
            Walk { branches, .. } => {
                fields += branches;
                // Those that are known already are looked into all the same.
                if fields <= MAX_FIELDS {
                    routes.extend((0..branches).map(|field| [&*route, &[field]].concat()));
                }
            }
        }
    }
    places.sort();
    places.dedup();
    places
}

/// What one call has found.
#[derive(Default)]
struct Walk {
    path: PathBuf,
    levels: usize,
    /// How many fields there are at the end of the route.
    branches: usize,
    /// Whether a lazy collection is at the end of the route.
    lazy: bool,
}

#[derive(Clone, Copy)]
struct Finder<'w> {
    /// Which field to take, of each struct that is still to come.
    route: &'w [usize],
    walk: &'w RefCell<Walk>,
    wrappers: usize,
}

fn seen_enough() -> CodecError {
    CodecError::custom("the finder has seen enough")
}

impl Finder<'_> {
    fn deeper(self) -> Result<Self, CodecError> {
        if self.wrappers >= MAX_WRAPPERS {
            return Err(seen_enough());
        }
        Ok(Self {
            wrappers: self.wrappers + 1,
            ..self
        })
    }
}

macro_rules! ends {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, CodecError> {
            Err(seen_enough())
        }
    )*};
}

impl<'de> Deserializer<'de> for Finder<'_> {
    type Error = CodecError;

    ends! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_unit deserialize_seq deserialize_map deserialize_identifier
        deserialize_ignored_any
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_some(self.deeper()?)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _visitor: V,
    ) -> Result<V::Value, CodecError> {
        Err(seen_enough())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        if name == LAZY {
            self.walk.borrow_mut().lazy = self.route.is_empty();
            return Err(seen_enough());
        }
        visitor.visit_newtype_struct(self.deeper()?)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        _visitor: V,
    ) -> Result<V::Value, CodecError> {
        Err(seen_enough())
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        _visitor: V,
    ) -> Result<V::Value, CodecError> {
        Err(seen_enough())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let Some((field, route)) = self.route.split_first() else {
            let mut walk = self.walk.borrow_mut();
            walk.branches = fields.len();
            return Err(seen_enough());
        };
        let name = fields.get(*field).copied().ok_or_else(seen_enough)?;
        let levels = {
            let mut walk = self.walk.borrow_mut();
            walk.path.push_str(name);
            walk.levels += 1;
            walk.levels
        };
        if levels > MAX_LEVELS {
            return Err(seen_enough());
        }
        visitor.visit_map(Field {
            finder: Finder {
                route,
                wrappers: 0,
                ..self
            },
            name: Some(name),
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, CodecError> {
        Err(seen_enough())
    }
}

/// The one field of a struct that is on the route.
struct Field<'w> {
    finder: Finder<'w>,
    name: Option<&'static str>,
}

impl<'de> de::MapAccess<'de> for Field<'_> {
    type Error = CodecError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CodecError> {
        match self.name.take() {
            Some(name) => seed.deserialize(name.into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, CodecError> {
        seed.deserialize(self.finder)
    }
}

//! From a value to [`Node`]s: the serde serializer.

use super::MAX_DEPTH;
use super::collection::{self, Slot};
use super::error::{CodecError, CodecErrorKind};
use super::leaf::Writer;
use super::node::Node;
use super::path::Step;
use serde::ser::{self, Serialize};
use std::borrow::Cow;
use std::cell::Cell;

/// A serialized value and what is to be known of it.
#[derive(Debug)]
pub(super) struct Serialized {
    pub(super) node: Node,
    /// Whether it holds an `i128` or a `u128`. serde's buffers, behind flattened fields and tagged
    /// enums, write these and then refuse to read them.
    pub(super) wide: bool,
}

/// Serializes a value.
pub(super) fn serialize<T: ?Sized + Serialize>(value: &T) -> Result<Serialized, CodecError> {
    serialize_as(value, 0, Collect::Nothing)
}

/// Which collections are found as such, and not as the maps and lists that they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collect {
    Nothing,
    /// Those that are not in memory as a whole.
    Partial,
    All,
}

impl Collect {
    /// All of a state whose base has some, else nothing.
    pub(super) fn as_in(base: &super::Leaves) -> Self {
        match base.has_collections() {
            true => Self::All,
            false => Self::Nothing,
        }
    }
}

/// Serializes a value that stands `depth` levels below the state.
pub(super) fn serialize_as<T: ?Sized + Serialize>(
    value: &T,
    depth: usize,
    collect: Collect,
) -> Result<Serialized, CodecError> {
    let wide = Cell::new(false);
    let node = value.serialize(Encoder {
        depth,
        wide: &wide,
        typed: false,
        collect,
    })?;
    Ok(Serialized {
        node,
        wide: wide.get(),
    })
}

/// What a value asks of a serializer, to be compared and never stored: each value says its type.
pub(super) fn serialize_typed<T: ?Sized + Serialize>(
    value: &T,
    collect: Collect,
) -> Result<Node, CodecError> {
    value.serialize(Encoder {
        depth: 0,
        wide: &Cell::new(false),
        typed: true,
        collect,
    })
}

#[derive(Clone, Copy)]
struct Encoder<'c> {
    depth: usize,
    wide: &'c Cell<bool>,
    /// Whether each node is to say its type.
    typed: bool,
    /// Which collections here are to be found as such.
    collect: Collect,
}

impl Encoder<'_> {
    /// Of what has no path of its own for sure.
    fn inner(self) -> Self {
        Self {
            collect: Collect::Nothing,
            ..self
        }
    }

    /// Wrappers that leave no trace in the encoding count too: a type can recurse through them.
    fn deeper(self) -> Result<Self, CodecError> {
        if self.depth >= MAX_DEPTH {
            return Err(CodecError::new(
                CodecErrorKind::TooDeep,
                format!("more than {MAX_DEPTH} levels; keep nested data flat, by ids"),
            ));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    #[allow(
        clippy::unnecessary_wraps,
        reason = "what the serializer's methods return"
    )]
    fn scalar(self, code: u8, write: impl FnOnce(&mut Writer)) -> Result<Node, CodecError> {
        let mut out = Writer::default();
        if self.typed {
            out.raw(&[code]);
        }
        write(&mut out);
        Ok(Node::Packed(out.into_vec()))
    }

    /// A durable collection, or the map or list that it is.
    fn collection<T: ?Sized + Serialize>(self, value: &T) -> Result<Node, CodecError> {
        collection::put(match self.collect {
            Collect::All => Slot::Wanted(None),
            Collect::Partial => Slot::WantedIfPartial,
            Collect::Nothing => Slot::Empty,
        });
        let node = value.serialize(self.inner());
        match collection::take() {
            Slot::Given(collection) => Ok(Node::Collection(collection)),
            Slot::Wanted(_) | Slot::WantedIfPartial | Slot::Empty => node,
        }
    }

    fn named(self, name: &'static str, node: Node) -> Node {
        if self.typed {
            return Node::Typed(name, Box::new(node));
        }
        node
    }

    /// A variant with more than one datum is stored as two levels: its name and its data.
    fn inside(self, variant: Option<&'static str>) -> Result<Self, CodecError> {
        match variant {
            Some(_) => self.inner().deeper()?.deeper(),
            None => self.deeper(),
        }
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty => $code:literal),*) => {$(
        fn $method(self, value: $type) -> Result<Node, CodecError> {
            self.scalar($code, |out| out.int(value.into()))
        }
    )*};
}

impl<'c> ser::Serializer for Encoder<'c> {
    type Ok = Node;
    type Error = CodecError;
    type SerializeSeq = Items<'c>;
    type SerializeTuple = Items<'c>;
    type SerializeTupleStruct = Items<'c>;
    type SerializeTupleVariant = Items<'c>;
    type SerializeMap = Entries<'c>;
    type SerializeStruct = Fields<'c>;
    type SerializeStructVariant = Fields<'c>;

    integers!(
        serialize_i8: i8 => b'a', serialize_i16: i16 => b'b', serialize_i32: i32 => b'c',
        serialize_i64: i64 => b'd', serialize_u8: u8 => b'e', serialize_u16: u16 => b'f',
        serialize_u32: u32 => b'g', serialize_u64: u64 => b'h'
    );

    fn serialize_i128(self, value: i128) -> Result<Node, CodecError> {
        self.wide.set(true);
        self.scalar(b'i', |out| out.int(value))
    }

    fn serialize_u128(self, value: u128) -> Result<Node, CodecError> {
        self.wide.set(true);
        self.scalar(b'j', |out| out.uint(value))
    }

    fn serialize_bool(self, value: bool) -> Result<Node, CodecError> {
        self.scalar(b'k', |out| out.bool(value))
    }

    fn serialize_f32(self, value: f32) -> Result<Node, CodecError> {
        self.scalar(b'l', |out| out.f32(value))
    }

    fn serialize_f64(self, value: f64) -> Result<Node, CodecError> {
        self.scalar(b'm', |out| out.f64(value))
    }

    fn serialize_char(self, value: char) -> Result<Node, CodecError> {
        Ok(Node::Char(value))
    }

    fn serialize_str(self, value: &str) -> Result<Node, CodecError> {
        self.scalar(b'n', |out| out.str(value))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Node, CodecError> {
        self.scalar(b'o', |out| out.bin(value))
    }

    fn serialize_none(self) -> Result<Node, CodecError> {
        self.scalar(b'p', Writer::nil)
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<Node, CodecError> {
        let node = value.serialize(self.deeper()?)?;
        if node.is_nil() {
            return Err(CodecError::new(
                CodecErrorKind::Refused,
                "this `Some` would come back as `None`, because what it holds is stored as nothing \
                 (a nested `None`, a unit); use an enum that names the cases",
            ));
        }
        Ok(self.named("Some", node))
    }

    fn serialize_unit(self) -> Result<Node, CodecError> {
        self.scalar(b'q', Writer::nil)
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<Node, CodecError> {
        Ok(self.named(name, self.serialize_unit()?))
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Node, CodecError> {
        Ok(self.named(name, self.serialize_str(variant)?))
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Node, CodecError> {
        if collection::is_collection(name) {
            return self.collection(value);
        }
        Ok(self.named(name, value.serialize(self.deeper()?)?))
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Node, CodecError> {
        let data = value
            .serialize(self.inner().deeper()?)
            .map_err(|error| error.at(variant.into()))?;
        Ok(self.named(name, Node::Variant(variant, Box::new(data))))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Items<'c>, CodecError> {
        Items::new(self, "[]", None, Node::List, length.unwrap_or(0))
    }

    fn serialize_tuple(self, length: usize) -> Result<Items<'c>, CodecError> {
        Items::new(self, "()", None, Node::Tuple, length)
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Items<'c>, CodecError> {
        Items::new(self, name, None, Node::Tuple, length)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Items<'c>, CodecError> {
        Items::new(self, name, Some(variant), Node::Tuple, length)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Entries<'c>, CodecError> {
        Ok(Entries {
            encoder: self.inner().deeper()?,
            entries: Vec::with_capacity(capacity(length.unwrap_or(0))),
            key: None,
            typed_key: None,
            char_keys: false,
        })
    }

    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Fields<'c>, CodecError> {
        Fields::new(self, name, None, length)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Fields<'c>, CodecError> {
        Fields::new(self, name, Some(variant), length)
    }
}

/// The length that a `Serialize` announces is a hint and may be anything.
fn capacity(length: usize) -> usize {
    length.min(4096)
}

fn wrap(variant: Option<&'static str>, data: Node) -> Node {
    match variant {
        Some(variant) => Node::Variant(variant, Box::new(data)),
        None => data,
    }
}

fn duplicate(step: Step) -> CodecError {
    CodecError::new(
        CodecErrorKind::DuplicateKey,
        "two entries are written under this name, and one of them would be lost",
    )
    .at(step)
}

/// The items of a list or a tuple.
pub(super) struct Items<'c> {
    encoder: Encoder<'c>,
    name: &'static str,
    variant: Option<&'static str>,
    shape: fn(Vec<Node>) -> Node,
    items: Vec<Node>,
}

impl<'c> Items<'c> {
    fn new(
        encoder: Encoder<'c>,
        name: &'static str,
        variant: Option<&'static str>,
        shape: fn(Vec<Node>) -> Node,
        length: usize,
    ) -> Result<Self, CodecError> {
        Ok(Self {
            encoder: encoder.inner().inside(variant)?,
            name,
            variant,
            shape,
            items: Vec::with_capacity(capacity(length)),
        })
    }

    fn push<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), CodecError> {
        let item = value.serialize(self.encoder).map_err(|error| {
            let error = error.at(Step::Index(self.items.len()));
            match self.variant {
                Some(variant) => error.at(variant.into()),
                None => error,
            }
        })?;
        self.items.push(item);
        Ok(())
    }

    #[allow(
        clippy::unnecessary_wraps,
        reason = "what the serializer's methods return"
    )]
    fn finish(self) -> Result<Node, CodecError> {
        let node = wrap(self.variant, (self.shape)(self.items));
        Ok(self.encoder.named(self.name, node))
    }
}

macro_rules! items {
    ($($trait:ident::$method:ident),*) => {$(
        impl ser::$trait for Items<'_> {
            type Ok = Node;
            type Error = CodecError;

            fn $method<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), CodecError> {
                self.push(value)
            }

            fn end(self) -> Result<Node, CodecError> {
                self.finish()
            }
        }
    )*};
}

items!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

/// The fields of a struct.
pub(super) struct Fields<'c> {
    encoder: Encoder<'c>,
    name: &'static str,
    variant: Option<&'static str>,
    fields: Vec<(Cow<'static, str>, Node)>,
}

impl<'c> Fields<'c> {
    fn new(
        encoder: Encoder<'c>,
        name: &'static str,
        variant: Option<&'static str>,
        length: usize,
    ) -> Result<Self, CodecError> {
        Ok(Self {
            encoder: encoder.inside(variant)?,
            name,
            variant,
            fields: Vec::with_capacity(capacity(length)),
        })
    }

    fn place(&self, error: CodecError) -> CodecError {
        match self.variant {
            Some(variant) => error.at(variant.into()),
            None => error,
        }
    }

    fn push<T: ?Sized + Serialize>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        let node = value
            .serialize(self.encoder)
            .map_err(|error| self.place(error.at(name.into())))?;
        self.fields.push((name.into(), node));
        Ok(())
    }

    fn finish(mut self) -> Result<Node, CodecError> {
        self.fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        for pair in self.fields.windows(2) {
            if let [(a, _), (b, _)] = pair
                && a == b
            {
                return Err(self.place(duplicate(a.as_ref().into())));
            }
        }
        let node = wrap(self.variant, Node::Struct(self.fields));
        Ok(self.encoder.named(self.name, node))
    }
}

macro_rules! fields {
    ($($trait:ident),*) => {$(
        impl ser::$trait for Fields<'_> {
            type Ok = Node;
            type Error = CodecError;

            fn serialize_field<T: ?Sized + Serialize>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), CodecError> {
                self.push(name, value)
            }

            fn end(self) -> Result<Node, CodecError> {
                self.finish()
            }
        }
    )*};
}

fields!(SerializeStruct, SerializeStructVariant);

/// The entries of a map, or of a struct with flattened fields.
pub(super) struct Entries<'c> {
    encoder: Encoder<'c>,
    entries: Vec<(Step, Node)>,
    key: Option<Step>,
    typed_key: Option<Node>,
    char_keys: bool,
}

impl ser::SerializeMap for Entries<'_> {
    type Ok = Node;
    type Error = CodecError;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), CodecError> {
        if self.encoder.typed {
            self.typed_key = Some(key.serialize(self.encoder)?);
        }
        let key = key.serialize(Encoder {
            typed: false,
            ..self.encoder
        })?;
        self.char_keys |= matches!(key, Node::Char(_));
        self.key = Some(key.into_key());
        Ok(())
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), CodecError> {
        let key = self
            .key
            .take()
            .ok_or_else(|| ser::Error::custom("a map's value was written before its key"))?;
        match value.serialize(self.encoder) {
            Ok(value) => {
                let value = match self.typed_key.take() {
                    Some(key) => Node::Entry(Box::new((key, value))),
                    None => value,
                };
                self.entries.push((key, value));
                Ok(())
            }
            Err(error) => Err(error.at(key)),
        }
    }

    fn end(mut self) -> Result<Node, CodecError> {
        self.entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        for pair in self.entries.windows(2) {
            if let [(a, _), (b, _)] = pair
                && a == b
            {
                return Err(duplicate(a.clone()));
            }
        }
        Ok(Node::Map {
            entries: self.entries,
            char_keys: self.char_keys,
        })
    }
}

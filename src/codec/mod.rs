//! The state codec: a state as leaves, so that a change writes what changed and nothing else.
//!
//! [`encode`] walks a value with serde and yields leaves, a [`Path`] and bytes each; [`diff`] tells
//! which of them to write; [`decode`] rebuilds the value. Pure functions: no store, no clock.
//!
//! ```
//! use abide::codec::{Change, Ignored, Leaves, Path, decode, diff, encode};
//! use serde::{Deserialize, Serialize};
//! use std::collections::BTreeMap;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Cart {
//!     owner: String,
//!     amounts: BTreeMap<String, u32>,
//! }
//!
//! let mut cart = Cart { owner: "ada".into(), amounts: BTreeMap::from([("tea".into(), 1)]) };
//! let stored = encode(&cart, &Leaves::new(), &Ignored::none())?.leaves;
//!
//! cart.amounts.insert("milk".into(), 2);
//! let next = encode(&cart, &stored, &Ignored::none())?;
//! let milk = Path::root().child("amounts").child("milk");
//! assert_eq!(diff(&stored, &next.leaves), [Change::Set(milk, vec![2].into())]);
//!
//! let again = decode::<Cart>(&next.leaves)?;
//! assert_eq!(again.value.amounts["milk"], 2);
//! # Ok::<(), abide::codec::CodecError>(())
//! ```
//!
//! # Shapes
//!
//! The shape of a value decides, never its size:
//!
//! | value | leaves |
//! |---|---|
//! | struct | a marker, and each field below it |
//! | map with string or integer keys | a marker, and each entry below it |
//! | list of structs or maps that have distinct strings as field `id` | a marker, and each item below it, under its id |
//! | empty list or map | a marker |
//! | all else: scalars, options' `None`, enums, tuples, other lists and maps | one MessagePack value |
//!
//! `Some`, newtypes and boxes are what they hold. An item's marker also holds its fractional index,
//! so that an insert or a move writes one marker. Marker bytes begin with `0xc1`, which begins no
//! MessagePack value. Struct fields go by their names, unit variants are strings, other variants are
//! maps of one entry; 128-bit integers that do not fit 64 bits are extension values 1 (signed) and 2
//! (unsigned), 16 bytes big-endian. Types that write themselves differently for people and machines
//! (IP addresses, UUIDs, times) use the form for people, everywhere.
//!
//! Maps have no order: that of an index map is not kept. A hash set inside is a list in an order
//! that changes with each reload, which costs a needless write of its leaf then; a `BTreeSet` does
//! not.
//!
//! # Refused, never changed
//!
//! Apart from the [limits](#limits) below, a value whose encoding would be read as another one is an
//! error that names the place: `Some` of
//! something stored as nothing (`None`, a unit), two entries under one key, more than [`MAX_DEPTH`]
//! levels, a 128-bit integer where serde itself does not read it back (inside flattened structs and
//! internally tagged or untagged enums), a variant of an untagged enum that is read as an earlier one
//! (of `A(u8)` and `B(u64)`, `B(1)`), a flattened `None` that is read as `Some` of a struct without
//! values, and whatever else of a type that serde reads from a buffer differs once it was read. So is
//! reading a number into a float that cannot hold it.
//!
//! [`encode`] finds these out by reading back and comparing what the type asks of serde, to the width
//! of each integer and the name of each struct. Only types that serde may read from a buffer pay for
//! it, with some three times the time of an encode; a look at the type, once for each [`Ignored`] that
//! does not know yet, tells which: those with flattened fields and internally tagged, adjacently
//! tagged or untagged enums, and those it cannot look into, which are map values and later items of
//! tuples behind keys or items that parse text (an IP address, a UUID).
//!
//! # Fields of a newer version
//!
//! A field that the type does not know is kept when the state is written again: [`decode`] returns
//! what was [ignored](Ignored), and [`encode`] carries it over, inside single leaves too. Foreign is
//! what the type *ignored*; what it read through an alias is not, and is cleared once the field has
//! its new name. It goes with what encloses it: the entry, the item, the `Some`, the variant, the
//! container if its kind changes.
//!
//! serde does not say what it ignores where it reads for the type, into a buffer: below flattened
//! fields and in internally tagged or untagged enums. There a stored field is foreign if the value
//! does not write it and reads the same without it; finding that out costs a few more passes, for
//! such types only, and what is undecided after 128 tries is dropped (a flattened map whose keys the
//! type renames while it reads).
//!
//! Foreign fields are lost, or kept too long, in these cases:
//!
//! - Inside serde's buffers a struct that writes other fields than before is taken for another variant
//!   of an untagged enum, if the type does not read without those that went. If it does, it is taken
//!   for the same struct with a field skipped, and keeps its foreign fields, even if it is another
//!   variant; unless they make it read as the earlier one.
//! - In a list without ids an item is the same if the type writes the same for it. An item whose known
//!   fields changed is new. Give items that grow an `id`.
//! - In a hash set an item with a default that was not stored, or with a hash set inside, is new if the
//!   set was read in another order than it is stored in.
//! - An internally tagged enum inside another buffer keeps foreign fields when its variant changes, if
//!   the two variants have the same fields.
//! - A struct of two fields that reads like an adjacently tagged enum (its first field is a unit enum of
//!   the struct's own name) loses its foreign fields when that enum changes.
//!
//! And a type that says `deny_unknown_fields` refuses a newer state instead.
//!
//! # Limits
//!
//! - The codec bounds depth, not length. A path is as long as its map keys, ids and field names
//!   together, so the store's limit on keys is what bounds them; a key of 20 000 characters encodes
//!   here and is refused there.
//! - Reading takes memory in proportion to the number of values, some 32 bytes for a value of one byte.
//!   Whoever takes payloads from strangers bounds their length.
//! - A flattened `None` of a map, or of a struct whose fields are all skipped, is read as `Some` of an
//!   empty one: serde writes nothing in both cases, and does not say which. Flatten the map itself.

pub(crate) mod collection;
mod decode;
mod diff;
mod encode;
mod error;
mod faithful;
mod foreign;
pub(crate) mod index;
pub(crate) mod lazy;
pub(crate) mod leaf;
mod leaves;
mod node;
mod path;
mod places;
mod probe;
mod update;
mod value;

pub use diff::{Change, diff};
pub use error::{CodecError, CodecErrorKind};
pub use foreign::Ignored;
pub use leaves::Leaves;
pub(crate) use leaves::kind_of;
pub use path::{Path, PathElement, PathInt};
pub(crate) use places::lazy_places;
pub(crate) use update::{Update, assert_element, load, restore, update};
pub use value::Value;

use self::encode::Collect;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How many levels a value may be nested: structs, lists and maps, and also options, newtypes and
/// variants, through which types can recurse. Bounds the stack, whatever is stored.
pub const MAX_DEPTH: usize = 128;

/// An encoded state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// All leaves that the store is to hold.
    pub leaves: Leaves,
    /// Which of them the type does not know. Together with the leaves the base of the next encode.
    pub ignored: Ignored,
}

/// A decoded state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<T> {
    /// The state.
    pub value: T,
    /// What is stored and the type does not know.
    pub ignored: Ignored,
}

/// The leaves of a state.
///
/// `base` are the leaves actually stored (none for a new state): lists keep their order's indices,
/// and what the type ignored when `base` was [decoded](decode) is carried over.
///
/// # Errors
///
/// [`Refused`](CodecErrorKind::Refused), [`TooDeep`](CodecErrorKind::TooDeep) and
/// [`DuplicateKey`](CodecErrorKind::DuplicateKey) for values that would not come back as they are,
/// [`Serialize`](CodecErrorKind::Serialize) if the type's own code fails, and
/// [`Corrupt`](CodecErrorKind::Corrupt) or [`Mismatch`](CodecErrorKind::Mismatch) if `base` holds
/// foreign values and is corrupt or does not fit the type.
pub fn encode<T: Serialize + DeserializeOwned>(
    value: &T,
    base: &Leaves,
    ignored: &Ignored,
) -> Result<Encoded, CodecError> {
    let buffers = ignored.buffers;
    let buffers = buffers.unwrap_or_else(probe::may_buffer::<T>);
    finish(value, encode::serialize(value)?, base, ignored, buffers)
}

/// An entry of a durable collection, as a state that stands `depth` levels below the whole one.
pub(crate) fn encode_entry<T: Serialize + DeserializeOwned>(
    entry: &T,
    base: &Leaves,
    ignored: &Ignored,
    depth: usize,
    buffers: bool,
) -> Result<Encoded, CodecError> {
    let serialized = encode::serialize_as(entry, depth, Collect::Nothing)?;
    finish(entry, serialized, base, ignored, buffers)
}

/// Whether values of this type are read through a buffer of serde's, so that each that is written
/// has to be looked at.
pub(crate) fn may_buffer<T: DeserializeOwned>() -> bool {
    probe::may_buffer::<T>()
}

/// The leaves of a serialized value.
fn finish<T: Serialize + DeserializeOwned>(
    value: &T,
    serialized: encode::Serialized,
    base: &Leaves,
    ignored: &Ignored,
    buffers: bool,
) -> Result<Encoded, CodecError> {
    let encode::Serialized { node, wide } = serialized;
    if ignored.is_empty() {
        let leaves = Leaves::from_node(node, base);
        // Behind one of serde's buffers a value may be read as another one, and a 128-bit integer
        // is not read at all. Reading back tells; other states do not pay for it.
        if buffers || wide {
            faithful::check(value, &leaves)?;
        }
        let ignored = Ignored {
            buffers: Some(buffers),
            ..Ignored::none()
        };
        return Ok(Encoded { leaves, ignored });
    }
    let leaves = foreign::carry_over(value, node, base, ignored, buffers || wide)?;
    // What was carried over may lie at other places now.
    let mut ignored =
        ignored_in::<T>(&leaves).map_err(|error| error.with_kind(CodecErrorKind::Refused))?;
    ignored.buffers = Some(buffers);
    Ok(Encoded { leaves, ignored })
}

/// What of the leaves the type does not know, outside durable collections in memory.
fn ignored_in<T: Serialize + DeserializeOwned>(leaves: &Leaves) -> Result<Ignored, CodecError> {
    let stored = leaves.to_value()?;
    let (value, seen) = decode::read::<T>(&stored)?;
    foreign::find(&stored, &value, seen, Collect::as_in(leaves))
}

/// The state that leaves hold.
///
/// # Errors
///
/// [`Missing`](CodecErrorKind::Missing) if there are none, [`Corrupt`](CodecErrorKind::Corrupt) if
/// they are nothing the codec writes, [`Mismatch`](CodecErrorKind::Mismatch) or
/// [`TooDeep`](CodecErrorKind::TooDeep) if they do not fit the type. Never panics, whatever the
/// bytes, as long as the type's own code does not.
pub fn decode<T: Serialize + DeserializeOwned>(leaves: &Leaves) -> Result<Decoded<T>, CodecError> {
    let stored = leaves.to_whole_value()?;
    let (value, seen) = decode::read::<T>(&stored)?;
    let ignored = foreign::find(&stored, &value, seen, Collect::Nothing)?;
    Ok(Decoded { value, ignored })
}

/// A message or a reply as one MessagePack value, by the same rules as a state's leaf.
///
/// # Errors
///
/// As those of [`encode`]; but nothing is read back here. A 128-bit integer that serde does not read
/// shows only in [`from_payload`], and a variant of an untagged enum that reads as an earlier one does
/// not show.
pub fn to_payload<T: ?Sized + Serialize>(value: &T) -> Result<Bytes, CodecError> {
    Ok(encode::serialize(value)?.node.into_packed().into())
}

/// The message or reply that a payload holds. Unknown fields are passed over.
///
/// # Errors
///
/// [`Corrupt`](CodecErrorKind::Corrupt) if the bytes are not one MessagePack value,
/// [`Mismatch`](CodecErrorKind::Mismatch) or [`TooDeep`](CodecErrorKind::TooDeep) if it does not fit
/// the type.
pub fn from_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    let value = leaf::parse(payload, MAX_DEPTH)?;
    decode::read(&value).map(|(value, _)| value)
}

//! Collections that know what of them changed, as the codec sees them.
//!
//! A collection tells by [`Collection::touched`] how it differs from an earlier copy of itself, at a
//! cost in proportion to the difference. So the codec keeps, beside the leaves that are stored, a
//! copy of each collection as it was when they were written, and encodes what differs from it.
//!
//! serde carries no types across its traits, so a collection and the codec hand each other what they
//! have to through a slot of the thread. A collection writes itself as a newtype of a reserved
//! [`NAME`]. The codec knows the name, puts an offer into the slot and calls the newtype's content,
//! which takes the offer first thing: nothing runs in between, so no other serializer can come
//! across it. To all others the newtype is what newtypes are, the map or list inside.
//!
//! Offers are made for the state itself and fields of structs, through options and newtypes: there a
//! collection has a path of its own, whatever else is in the state. Elsewhere, in lists, other maps,
//! enums and buffers, it is an ordinary map or list.

use super::error::CodecError;
use super::foreign::Ignored;
use super::leaf::Kind;
use super::leaves::Leaves;
use super::path::{Path, PathElement};
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

/// The name of the newtype that a collection is to serde.
pub(crate) const NAME: &str = "abide::collections";

/// The collections of a state as they are stored.
pub(super) type Collections = BTreeMap<Path, Arc<dyn Collection>>;

/// A durable collection. A clone of it costs nothing, and does not see later changes.
pub(crate) trait Collection: Any + Debug + Send + Sync {
    /// Which container it is in the store.
    fn kind(&self) -> Kind;

    /// Shows each entry that `before` does not have as this has it, or that only `before` has, in
    /// any order; all of them if `before` is none, or no collection of this type.
    ///
    /// # Errors
    ///
    /// Those of `visit`, and a key or an id that is not what it serializes as.
    fn touched(
        &self,
        before: Option<&dyn Collection>,
        visit: &mut Visit<'_>,
    ) -> Result<(), CodecError>;

    /// Whether this is a collection of the same type.
    fn is_like(&self, other: &dyn Collection) -> bool;

    fn as_any(&self) -> &dyn Any;
}

/// What is shown an entry's place in its collection, and the entry as it is now.
pub(crate) type Visit<'v> =
    dyn FnMut(PathElement<'_>, Option<&dyn Part>) -> Result<(), CodecError> + 'v;

/// An entry of a collection. It is encoded as a state of its own.
pub(crate) trait Part {
    /// The leaves of the entry, relative to its place; `base` are those stored.
    fn encode(
        &self,
        base: &Leaves,
        ignored: &Ignored,
        depth: usize,
    ) -> Result<super::Encoded, CodecError>;

    /// Where it stands in its list; nothing in a map.
    fn index(&self) -> &[u8];
}

/// What passes between the codec and a collection.
#[derive(Debug, Default)]
pub(crate) enum Slot {
    /// Nothing: the collection is to be what it is to everybody else.
    #[default]
    Empty,
    /// The codec asks for the collection itself: what is being written, or what came of reading.
    /// A list that is read gets the indices of its items.
    Wanted(Option<Vec<Vec<u8>>>),
    /// The collection.
    Given(Arc<dyn Collection>),
}

thread_local! {
    static SLOT: RefCell<Slot> = RefCell::default();
}

pub(crate) fn put(slot: Slot) {
    SLOT.with(|place| *place.borrow_mut() = slot);
}

pub(crate) fn take() -> Slot {
    SLOT.with(RefCell::take)
}

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
//!
//! A [lazy](LazyCollection) collection has a name of its own, [`LAZY`], by which a type that was never
//! read tells where it has one. Its entries need not be in memory. See [`lazy`](super::lazy).

use super::error::{CodecError, CodecErrorKind};
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

/// The same of a collection whose entries need not be in memory.
pub(crate) const LAZY: &str = "abide::collections::lazy";

/// Whether a newtype of this name is a collection.
pub(super) fn is_collection(name: &str) -> bool {
    name == NAME || name == LAZY
}

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

    /// This, if its entries need not all be in memory.
    fn as_lazy(&self) -> Option<&dyn LazyCollection> {
        None
    }
}

/// What is shown an entry's place in its collection, what is known of the stored one, and the entry
/// as it is now.
pub(crate) type Visit<'v> =
    dyn FnMut(PathElement<'_>, Stored, Option<&dyn Part>) -> Result<(), CodecError> + 'v;

/// What is known of an entry as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Its leaves, or that there are none, are with those of the base.
    Known,
    /// Nothing: it may have leaves that were never read.
    Unread,
}

/// A collection whose entries need not all be in memory.
pub(crate) trait LazyCollection {
    /// Whether there may be entries in the store that are not in memory.
    fn is_partial(&self) -> bool;

    /// The same with what a stretch of it was found to hold. What it knew already it keeps.
    ///
    /// # Errors
    ///
    /// As those of [`decode`](super::decode): an entry that is not of its type.
    fn learn(&self, stretch: &Stretch, found: &[Entry]) -> Result<Learned, CodecError>;
}

/// A stretch of keys: from a point on, up to a point and without what is behind it.
///
/// A point is the tuple encoding of a key, which is before that key, or the same followed by `0xff`,
/// which is behind it and all that is stored below it. No bytes are before all keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stretch {
    pub(crate) from: Vec<u8>,
    /// None: up to the end.
    pub(crate) to: Option<Vec<u8>>,
}

/// Behind the key with this encoding, and what is stored below it.
pub(crate) fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[BEHIND]].concat()
}

/// What the tuple layer begins no element with.
pub(crate) const BEHIND: u8 = 0xff;

/// An entry that was read.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where it lies in its collection: a path of one element.
    pub(crate) key: Path,
    /// Its leaves as seen from there.
    pub(crate) leaves: Leaves,
}

/// What a collection is after it has learnt.
pub(crate) struct Learned {
    pub(crate) collection: Arc<dyn Collection>,
    /// What of the new entries their type ignored.
    pub(crate) ignored: Vec<(Path, Ignored)>,
}

/// Something that a collection was asked for and does not have in memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Want {
    /// The collection.
    pub(crate) collection: Path,
    pub(crate) stretch: Stretch,
    /// How many entries of the stretch are enough.
    pub(crate) limit: usize,
}

/// A collection of which nothing was read but that it is there. What stands in for it until its type
/// is known.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) path: Path,
}

impl Collection for Unread {
    fn kind(&self) -> Kind {
        Kind::Map
    }

    fn touched(&self, _: Option<&dyn Collection>, _: &mut Visit<'_>) -> Result<(), CodecError> {
        Ok(())
    }

    fn is_like(&self, _: &dyn Collection) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_lazy(&self) -> Option<&dyn LazyCollection> {
        Some(self)
    }
}

impl LazyCollection for Unread {
    fn is_partial(&self) -> bool {
        true
    }

    fn learn(&self, _: &Stretch, _: &[Entry]) -> Result<Learned, CodecError> {
        Err(CodecError::new(
            CodecErrorKind::Mismatch,
            "the type does not read what is stored as a lazy map",
        )
        .at_path(&self.path))
    }
}

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
    /// As `Wanted`, but only of a collection that is not in memory as a whole.
    WantedIfPartial,
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

thread_local! {
    static DESK: RefCell<Option<Vec<Want>>> = const { RefCell::new(None) };
}

/// How many wants are noted of one run. What is not noted is asked for again by the next one.
pub(crate) const MAX_WANTS: usize = 4_096;

/// Runs a handler, and gives what it asked for and did not find in memory.
pub(crate) fn asking<R>(run: impl FnOnce() -> R) -> (R, Vec<Want>) {
    /// Puts back what was there before, also when the run unwinds.
    struct Before(Option<Vec<Want>>);

    impl Drop for Before {
        fn drop(&mut self) {
            DESK.set(self.0.take());
        }
    }

    let before = Before(DESK.replace(Some(Vec::new())));
    let result = run();
    let wants = DESK.take();
    drop(before);
    (result, wants.unwrap_or_default())
}

/// Notes what is not in memory, if this runs in a handler.
pub(crate) fn ask(want: Want) {
    DESK.with_borrow_mut(|desk| {
        if let Some(wants) = desk
            && wants.len() < MAX_WANTS
        {
            wants.push(want);
        }
    });
}

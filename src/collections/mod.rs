//! Durable collections: large maps and lists of which only what changed is encoded and written.
//!
//! A plain state is encoded as a whole after each batch, to see what of it changed. That is the right
//! thing for what has some hundred leaves. For more, use a [`Map`] where a `BTreeMap` was, and a
//! [`List`] where a `Vec` of structs with ids was. A turn then costs what was touched in it, however
//! many entries there are. A [`LazyMap`] does not even load them: see [`lazy`] for when to use which.
//!
//! ```
//! use abide::collections::Map;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Bank {
//!     name: String,
//!     balances: Map<String, i64>,
//! }
//!
//! let mut bank = Bank::default();
//! bank.balances.insert("ada".to_owned(), 10);
//! if let Some(balance) = bank.balances.get_mut("ada") {
//!     *balance += 5;
//! }
//! assert_eq!(bank.balances.get("ada"), Some(&15));
//! ```
//!
//! # How they work
//!
//! A collection is a tree whose copies share what they have in common. With the leaves of a state a
//! copy of each collection is kept, as it is stored. What was touched since is what the two do not
//! share; so nothing is marked, and nothing has to be unmarked when a commit fails. An undone message
//! gets the kept copies back: with them the state is built again at the cost of the rest of it.
//!
//! # The same as plain ones
//!
//! In the store they have the shape of the plain ones, and either reads what the other wrote. To all
//! other formats they are maps and lists. Fields of a newer version are kept in entries as elsewhere.
//!
//! # Where
//!
//! As the state itself, or in fields of structs, inside of options and newtypes too. Inside of
//! lists, other maps, collections, enums, and below flattened fields they work as well, but are
//! encoded as a whole, as plain ones are.
//!
//! # Limits
//!
//! - Touched is what was handed out to be changed. A value that changes behind a shared reference, in
//!   a mutex say, is not seen to have changed, and is not undone.
//! - An entry is brought to a new shape of its type, a field with a default say, when it is touched.
//! - Loading an instance decodes all entries, but for those of a [`LazyMap`].
//! - While entries hold fields that this version does not know, a turn costs some time for each such
//!   entry.
//! - Exchanging two collections, or putting a new one in the place of an old one, compares all of
//!   what the two do not share.

mod element;
pub mod lazy;
pub mod list;
pub mod map;
mod tree;

pub use element::AsElement;
pub use lazy::{LazyMap, NotLoaded};
pub use list::{DuplicateId, Item, List};
pub use map::{Key, Map};

use crate::codec::PathElement;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::OnceLock;

/// The priority of what stands under this element.
fn priority(element: &PathElement<'_>) -> u64 {
    hash(element)
}

/// The same for equal places in one process, and in each process another: keys come from whoever
/// sends messages, and with a hash that he can compute he could choose them so that the trees
/// become as deep as they are large. Nothing that is stored or sent depends on it.
fn hash(place: &(impl Hash + ?Sized)) -> u64 {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    HASHER.get_or_init(RandomState::new).hash_one(place)
}

#[cfg(test)]
mod tests;

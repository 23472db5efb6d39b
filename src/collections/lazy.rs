//! The keyed map of which only what is asked for is in memory.
//!
//! # When to use which
//!
//! A [`Map`](super::Map) loads all its entries with the state, answers everything, and costs memory
//! for all of them on each node that works on the instance. A [`LazyMap`] costs what was asked for:
//! its first message on a node reads the rest of the state and the entries that the handler wants.
//! Use it for what grows without a bound and is asked for by key: accounts, sessions, seen ids. Use a
//! `Map` for some thousand entries, or if most messages look at many of them; a `BTreeMap` below some
//! hundred. All three are stored alike, so the choice can change with any version of the server.
//!
//! # How a handler asks
//!
//! What is not in memory is a [`NotLoaded`], which a handler passes on with `?`. The turn then reads
//! what was asked for, in its own transaction, and runs the handler again, on the state as it was. So
//! it goes round by round until nothing is missing. A handler is a pure function: the runs that lack
//! something do not count, also if the handler did not pass the error on.
//!
//! ```
//! use abide::collections::LazyMap;
//! use abide::server::{Context, Failure, Handle, Message, Outcome, Protocol, ReadContext};
//! use abide::server::{Routes, Server};
//! use abide::testing::harness::Harness;
//! use serde::{Deserialize, Serialize};
//!
//! struct Banking;
//!
//! impl Protocol for Banking {
//!     const KIND: &'static str = "bank";
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Transfer {
//!     from: String,
//!     to: String,
//!     amount: u64,
//! }
//!
//! impl Message<Banking> for Transfer {
//!     const NAME: &'static str = "transfer";
//!     type Reply = u64;
//! }
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Accounts {
//!     balances: LazyMap<String, u64>,
//!     transfers: u64,
//! }
//!
//! struct Bank;
//!
//! impl Server for Bank {
//!     type Protocol = Banking;
//!     type State = Accounts;
//!
//!     fn init(&self, _: &ReadContext<'_>) -> Result<Accounts, Failure> {
//!         Ok(Accounts::default())
//!     }
//!
//!     fn routes(routes: Routes<Self>) -> Routes<Self> {
//!         routes.handle::<Transfer>()
//!     }
//! }
//!
//! impl Handle<Transfer> for Bank {
//!     fn handle(
//!         &self,
//!         state: &mut Accounts,
//!         Transfer { from, to, amount }: Transfer,
//!         _: &mut Context<'_, Self>,
//!     ) -> Result<Outcome<u64>, Failure> {
//!         // Both in one round; without this line it were two.
//!         state.balances.load([&from, &to])?;
//!         let balance = state.balances.entry(from, || 100)?;
//!         *balance = balance
//!             .checked_sub(amount)
//!             .ok_or_else(|| Failure::reject("the balance is too low"))?;
//!         let left = *balance;
//!         *state.balances.entry(to, || 100)? += amount;
//!         state.transfers += 1;
//!         Ok(Outcome::Reply(left))
//!     }
//! }
//!
//! let mut bank = Harness::new(Bank)?;
//! let transfer = |amount| Transfer { from: "ada".into(), to: "bob".into(), amount };
//! assert_eq!(bank.call(transfer(30)).outcome, Ok(Outcome::Reply(70)));
//! assert_eq!(bank.call(transfer(80)).outcome, Err(Failure::reject("the balance is too low")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where entries are loaded
//!
//! | in | an entry that is not in memory |
//! |---|---|
//! | handlers, `close`, queries | is loaded |
//! | [`Locked::prepare`](crate::server::Locked::prepare) | is loaded, for the copy that `run` gets |
//! | [`Locked::run`](crate::server::Locked::run) | is an error: it has what `prepare` asked for and nothing else |
//! | effects | is an error: what the message's own handler asked for or wrote is there |
//! | hooks | is an error |
//! | the harness of the feature `testing` | does not occur: all are in memory |
//!
//! The errors fail whatever passes them on. A thread that a handler starts is no handler.
//!
//! # Limits
//!
//! - One message may load some [thousand entries](crate::collections::lazy::MAX_ENTRIES) and
//!   [rounds](crate::collections::lazy::MAX_ROUNDS); beyond that it has failed. Work on more in
//!   several messages, each with a page of [`range`](LazyMap::range).
//! - How many entries there are is nowhere stored, and counting them would load them. Count in a field
//!   beside the map.
//! - [`insert`](LazyMap::insert) and [`remove`](LazyMap::remove) read nothing. On an entry that is not
//!   in memory they clear what is there, fields of newer versions included, and write it afresh.
//! - A key that is longer than a key of the store, about
//!   [10 000 bytes](crate::store::MAX_KEY_BYTES) with what precedes it, has no entry: it is asked for
//!   and removed as any other. A message that inserts an entry there fails.
//! - Of a state the first 16 lazy maps are found, below up to 8 structs each and among its first thousand
//!   fields, those nearest to the root first. The others are loaded as a whole.
//! - What an entry is shows when it is read. If a version of the server changes the type of the values
//!   so that it cannot read those that are stored, the instance is parked at the first message that asks
//!   for one; messages before it are handled. A key of another type is another key: after a change
//!   from numbers to strings the old entries are found under none of the new keys, and a range that
//!   meets one parks the instance. Give a map of new keys a new field, and move the entries in pages.
//! - [`Admin::state`](crate::admin::Admin::state), [`set`](crate::admin::Admin::set) and
//!   [`edit`](crate::admin::Admin::edit), and so `abide show` of all of it and `abide set`, read the state
//!   as a whole, in one transaction: not if that takes longer than
//!   [one may live](crate::store::MAX_TRANSACTION_AGE). A path alone is what
//!   [`state_at`](crate::admin::Admin::state_at) reads, and `abide show` of one. An
//!   [export](crate::admin::Admin::export) reads in pages: pause the instance for it.
//! - Elsewhere than as the state itself and in fields of structs, below flattened fields or in lists
//!   say, and where [`serde(alias)`] finds it under an old name, the map is loaded as a whole. A map
//!   that is not in memory as a whole cannot be moved to such a place, or exchanged with another: the
//!   message fails.
//! - To serde, a map is a map once all of its entries are in memory; before that, it refuses.
//! - Entries stay in memory until those of an instance hold some megabytes. Then the node forgets them
//!   after the message, and reads anew what it is asked for.
//!
//! There is no lazy list: where an item stands is written with the item, so that whoever asks for one
//! by its position has to have read them all.
//!
//! [`serde(alias)`]: https://serde.rs/field-attrs.html#alias

mod change;
mod kept;
mod read;
mod spans;
#[cfg(test)]
mod tests;

use self::spans::Spans;
use super::element::AsElement;
use super::tree::{Placed, Tree};
use crate::codec::{Path, PathElement};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// How many entries one message may load.
pub const MAX_ENTRIES: usize = 10_000;

/// How many bytes of entries one message may load, about.
pub const MAX_BYTES: usize = 16_000_000;

/// How often one message may be run again because it asked for more.
pub const MAX_ROUNDS: usize = 100;

/// Something of a [`LazyMap`] was asked for that is not in memory. A handler passes this on with `?`,
/// and is run again with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry of a lazy map is not in memory; handlers get it if they pass this error on")]
pub struct NotLoaded(());

/// A durable map of which only what is asked for is in memory. See the [module](self).
///
/// Ordered by its keys: integers by value, strings by their bytes. A new one has no entries and knows
/// it; so does one after [`clear`](Self::clear).
///
/// ```
/// use abide::collections::LazyMap;
///
/// let mut stock: LazyMap<String, u32> = LazyMap::new();
/// stock.insert("tea".to_owned(), 3);
/// *stock.entry("milk".to_owned(), || 0)? += 2;
/// assert_eq!(stock.get("tea")?, Some(&3));
/// stock.remove("tea");
/// assert_eq!(stock.range::<str, _>(.., 10)?, [(&"milk".to_owned(), &2)]);
/// # Ok::<(), abide::collections::NotLoaded>(())
/// ```
pub struct LazyMap<K, V> {
    /// What is known of single keys: entries, and that there is none.
    tree: Tree<Entry<K, V>>,
    /// Where keys that are not in the tree are known to have no entry.
    spans: Spans,
    /// Where the rest is; none if there is no rest.
    origin: Option<Arc<Origin>>,
    /// Whether each value that is written has to be read back; found out once.
    buffers: Arc<OnceLock<bool>>,
}

/// The state that a map was loaded from. Copies of the map share it.
#[derive(Debug)]
struct Origin {
    path: Path,
}

#[derive(Debug, Clone)]
struct Entry<K, V> {
    key: K,
    /// None: there is no entry. One may be stored that was removed unread.
    value: Option<V>,
}

impl<K, V> Entry<K, V> {
    fn new(key: K, value: Option<V>) -> Self {
        Self { key, value }
    }
}

impl<K: AsElement, V> Placed for Entry<K, V> {
    fn order(&self, other: &Self) -> Ordering {
        self.key.as_element().cmp(&other.key.as_element())
    }

    fn priority(&self) -> u64 {
        super::priority(&self.key.as_element())
    }
}

impl<K, V> LazyMap<K, V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tree: Tree::default(),
            spans: Spans::default(),
            origin: None,
            buffers: Arc::default(),
        }
    }

    /// Whether there may be entries that are not in memory.
    fn is_partial(&self) -> bool {
        self.origin.is_some() && !self.spans.is_all()
    }
}

/// The order of an entry and a key.
fn at<K: Borrow<Q>, V, Q: ?Sized + AsElement>(key: &Q) -> impl Fn(&Entry<K, V>) -> Ordering {
    let element = key.as_element();
    move |entry| entry.key.borrow().as_element().cmp(&element)
}

fn path<Q: ?Sized + AsElement>(key: &Q) -> Path {
    let element: PathElement<'_> = key.as_element();
    Path::root().child(element)
}

/// The point where a key begins.
fn encoded<Q: ?Sized + AsElement>(key: &Q) -> Vec<u8> {
    path(key).as_tuple().to_vec()
}

impl<K, V> Default for LazyMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Clone for LazyMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            tree: self.tree.clone(),
            spans: self.spans.clone(),
            origin: self.origin.clone(),
            buffers: Arc::clone(&self.buffers),
        }
    }
}

/// Shows what is in memory.
impl<K: AsElement + fmt::Debug, V: fmt::Debug> fmt::Debug for LazyMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        map.entries(self.in_memory());
        match self.is_partial() {
            true => map.finish_non_exhaustive(),
            false => map.finish(),
        }
    }
}

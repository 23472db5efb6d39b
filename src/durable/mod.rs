//! What a namespace holds, and the algorithms over it that know nothing of a user's types.
//!
//! - [`keys`] draws the key schema.
//! - A [`Namespace`] isolates one application.
//! - Mailboxes ([`queue`]), with the marks that say who has messages ([`ready`]), the [`attempts`] at
//!   their heads, the [`dead`] letters, and the [`pause`] of an instance; large values are cut
//!   ([`chunk`]).
//! - A [`Session`] is a process's entry in the store, and a [`Presence`] its current one; [`Lane`]s run its work exactly once, whatever the
//!   outcomes of commits; a [`Sweeper`] removes the sessions of processes that died.
//! - Of an instance: `state` keeps the leaves and their version, `lock` the lock, `directory` lists
//!   the instances; `reply` keeps the answers to calls under the caller's session.

pub(crate) mod attempts;
pub(crate) mod chunk;
pub(crate) mod dead;
pub(crate) mod directory;
pub mod keys;
pub(crate) mod kill;
pub(crate) mod lane;
pub(crate) mod lock;
pub(crate) mod message;
mod namespace;
pub(crate) mod overview;
pub(crate) mod pause;
pub(crate) mod presence;
pub(crate) mod queue;
pub(crate) mod ready;
pub(crate) mod reply;
pub(crate) mod session;
pub(crate) mod state;
mod sweeper;
pub(crate) mod value;

pub(crate) use message::{CallId, Message};
pub(crate) use reply::Answer;

pub use lane::{Landed, Lane, Work};
pub use namespace::{DEFAULT_SHARDS, LAYOUT, Namespace};
pub use presence::{Presence, Renewals};
pub use session::{Session, SessionError};
pub use sweeper::{DEAD_AFTER, MAX_GAP, Sweeper};

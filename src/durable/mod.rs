//! What a namespace holds, and the algorithms over it that know nothing of a user's types.
//!
//! - [`keys`] draws the key schema.
//! - A [`Namespace`] isolates one application.
//! - A [`Session`] is a process's presence; [`Lane`]s run its work exactly once, whatever the
//!   outcomes of commits; a [`Sweeper`] removes the sessions of processes that died.

pub mod keys;
mod lane;
mod namespace;
mod session;
mod sweeper;
mod value;

pub use lane::{Landed, Lane};
pub use namespace::{DEFAULT_SHARDS, LAYOUT, Namespace};
pub use session::{Session, SessionError};
pub use sweeper::{DEAD_AFTER, MAX_GAP, Sweeper};

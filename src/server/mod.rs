//! What users implement, and how they reach what they implemented.
//!
//! - A [`Protocol`] and its [`Message`]s are what both sides share; a producer needs nothing else.
//! - A [`Server`] has a state and says in [`routes`](Server::routes) which messages it handles: with
//!   [`Handle`] inside a transaction, with [`Query`] without changing anything, with [`Locked`] with
//!   work outside the transaction.
//! - A handler answers an [`Outcome`] or a [`Failure`], and asks its [`Context`] for what else is to
//!   happen: casts, answers to earlier calls, effects after the commit. All of it is plain data, or
//!   nothing at all if the transaction does not commit.
//! - A [`Ref`] reaches a server from outside, through a [`Courier`], which a node provides.
//!
//! ```
//! use abide::server::{Context, Failure, Handle, Message, Outcome, Protocol, ReadContext};
//! use abide::server::{Routes, Server};
//! use serde::{Deserialize, Serialize};
//!
//! struct Counting;
//!
//! impl Protocol for Counting {
//!     const KIND: &'static str = "counter";
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Add(u64);
//!
//! impl Message<Counting> for Add {
//!     const NAME: &'static str = "add";
//!     type Reply = u64;
//! }
//!
//! struct Counter;
//!
//! impl Server for Counter {
//!     type Protocol = Counting;
//!     type State = u64;
//!
//!     fn init(&self, _cx: &ReadContext<'_>) -> Result<u64, Failure> {
//!         Ok(0)
//!     }
//!
//!     fn routes(routes: Routes<Self>) -> Routes<Self> {
//!         routes.handle::<Add>()
//!     }
//! }
//!
//! impl Handle<Add> for Counter {
//!     fn handle(
//!         &self,
//!         count: &mut u64,
//!         Add(more): Add,
//!         _cx: &mut Context<'_, Self>,
//!     ) -> Result<Outcome<u64>, Failure> {
//!         *count = count.checked_add(more).ok_or_else(|| Failure::reject("too many"))?;
//!         Ok(Outcome::Reply(*count))
//!     }
//! }
//! ```

mod any_reference;
mod batch;
mod behaviour;
mod blocking;
mod context;
mod courier;
mod effect;
mod hooks;
mod later;
mod outcome;
mod reference;
mod routes;
mod served;
mod traits;

pub(crate) use behaviour::{Applied, Behaviour, Decided, Effect, Facts, Held, Route};
pub(crate) use served::erase;

pub use any_reference::AnyRef;
pub use batch::Batch;
pub use blocking::{BlockingRef, block_on};
pub use context::{Context, LockContext, ReadContext};
pub use courier::{CallError, CallErrorKind, Courier, Outgoing};
pub use effect::{After, Flow};
pub use hooks::{Activation, Deactivation, DeadLetterNotice};
pub use later::Later;
pub use outcome::{Failure, FailureKind, MAX_FAILURE_BYTES, Outcome};
pub use reference::{DEFAULT_TIMEOUT, Ref};
pub use routes::{InvalidServer, Routes};
pub use traits::{Handle, Locked, Message, Protocol, Query, Server};

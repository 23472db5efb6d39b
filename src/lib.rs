//! Durable GenServers: state and mailbox in a strictly serializable store.
//!
//! ```
//! use abide::Node;
//! use abide::server::{Context, Failure, Handle, Message, Outcome, Protocol, ReadContext};
//! use abide::server::{Routes, Server};
//! use serde::{Deserialize, Serialize};
//!
//! struct Counting; // what callers need to know
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
//! struct Counter; // the server
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
//!         *count += more;
//!         Ok(Outcome::Reply(*count))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Or "sqlite:counter.db", which remembers, or "fdb:", which is a cluster.
//! let node = Node::builder("memory:").serve(Counter).start().await?;
//! let visits = node.server::<Counting>("visits");
//! assert_eq!(visits.call(Add(2)).await?, 2);
//! visits.cast(Add(3)).await?;
//! assert_eq!(visits.call(Add(1)).await?, 6);
//! # Ok(()) }
//! ```
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | what you implement | [`Server`](server::Server), [`Handle`](server::Handle), [`Query`](server::Query), [`Locked`](server::Locked) |
//! | what a handler may know and wish | [`Context`](server::Context), [`Outcome`](server::Outcome), [`Failure`](server::Failure) |
//! | starting and stopping a process's part | [`Node`], [`NodeBuilder`], [`KindOptions`] |
//! | sending | [`Ref`](server::Ref), [`Batch`](server::Batch), [`CallErrorKind`](server::CallErrorKind) |
//! | how a state is stored | [`codec`] |
//! | large states, of which little changes at a time | [`collections`] |
//! | transactions of your own, other backends | [`store`] |
//! | joining the messages with your traces | [`trace`] |
//! | looking into a namespace, mending what is stuck | [`admin`] |
//! | what is promised, operated and measured | [guarantees](docs::guarantees), [operations](docs::operations), [observability](docs::observability) |
//!
//! # The path of a message
//!
//! ```text
//! push → pop → load → apply → diff → stage replies → COMMIT → answer callers, run effects
//! ```
//!
//! 1. A [reference](server::Ref) pushes the message into the mailbox of its instance, exactly once,
//!    through an outcome [lane](durable::Lane) of the process's [session](durable::Session). A call
//!    from a process that serves the kind may skip the mailbox.
//! 2. A node that serves the kind finds the instance by its ready mark, and runs a *turn*: one
//!    transaction. It pops a batch of messages, and takes the state from memory if that is the
//!    version that the store has, or loads it through the [codec].
//! 3. It runs the [handlers](server::Handle), writes what they changed of the state, stages the
//!    replies and the messages to other instances, and commits all of it or nothing.
//! 4. Only then are callers answered, and [effects](server::Context::after_commit) run.
//!
//! [Architecture](docs::architecture) tells it in full.

pub mod admin;
mod client;
pub mod codec;
pub mod collections;
mod consumer;
pub mod docs;
pub mod durable;
pub mod env;
mod gather;
mod id;
mod node;
mod planted;
mod reports;
pub mod server;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trace;
mod wake;

pub use consumer::{KindOptions, Parked, Poison};
pub use id::{InstanceId, InvalidInstanceId, MAX_ID_BYTES, MAX_KIND_BYTES};
pub use node::{DEFAULT_NAMESPACE, Node, NodeBuilder, StartError};
pub use server::block_on;

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

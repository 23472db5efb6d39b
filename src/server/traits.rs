//! What users implement: a protocol that both sides share, and a server that handles it.

use super::context::{Context, LockContext, ReadContext};
use super::hooks::{Activation, Deactivation, DeadLetterNotice};
use super::outcome::{Failure, Outcome};
use super::routes::Routes;
use crate::id::InstanceId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;

/// A kind of servers, as those see it who send to it: a name, and the [messages](Message) that
/// belong to it.
///
/// Put it with its messages into a crate that both sides use; a producer needs nothing else.
pub trait Protocol: 'static {
    /// The kind: the first half of the name of each instance. It is part of every key, so keep it
    /// short, and never change it.
    const KIND: &'static str;
}

/// A message of a protocol: a type with a name that travels, and the type of its reply.
///
/// A message can be sent to the servers of its protocol only:
///
/// ```compile_fail,E0277
/// # use abide::server::*;
/// # use serde::{Deserialize, Serialize};
/// # struct Counting;
/// # impl Protocol for Counting { const KIND: &'static str = "counter"; }
/// # #[derive(Serialize, Deserialize)] struct Add(u64);
/// # impl Message<Counting> for Add { const NAME: &'static str = "add"; type Reply = u64; }
/// # struct Banking;
/// # impl Protocol for Banking { const KIND: &'static str = "bank"; }
/// async fn wrong(account: &Ref<Banking>) {
///     account.cast(Add(1)).await;
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message of the protocol `{P}`",
    label = "not a message of `{P}`",
    note = "implement `Message<{P}>` for `{Self}`: it has a `NAME` and a `Reply`"
)]
pub trait Message<P: Protocol>: Serialize + DeserializeOwned + Send + 'static {
    /// The name by which the server finds the handler. It stands in mailboxes: never give it to
    /// another type as long as messages of this one may be there.
    const NAME: &'static str;

    /// What the server replies.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

/// A durable server: a state, and handlers for the messages of a protocol.
///
/// `self` is what is not durable, and shared by all instances that the process serves: clients of
/// other systems, configuration.
///
/// What is no server has no routes:
///
/// ```compile_fail,E0277
/// # use abide::server::Routes;
/// fn routes(_: Routes<u32>) {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a server",
    label = "not a `Server`",
    note = "implement `Server` for `{Self}`: a `Protocol`, a `State`, `init` and `routes`"
)]
pub trait Server: Send + Sync + Sized + 'static {
    /// What can be sent to it.
    type Protocol: Protocol;

    /// What outlives the process. See [`codec`](crate::codec) for how it is stored.
    type State: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The version of `State`'s shape. Raise it when an older version of the program must not touch
    /// what this one writes: such a node parks the instance. Added fields need no new number; they
    /// are kept by programs that do not know them.
    const SCHEMA: u32 = 1;

    /// The state of an instance that has none yet, made when its first message is handled.
    ///
    /// # Errors
    ///
    /// A failure is a failure of that first message.
    fn init(&self, cx: &ReadContext<'_>) -> Result<Self::State, Failure>;

    /// Which messages it handles, and how.
    fn routes(routes: Routes<Self>) -> Routes<Self>;

    /// An instance became active: its state is in this process's memory, and no transaction is
    /// under way.
    fn activated(&self, instance: &InstanceId, state: &Self::State, cause: Activation) {
        let _ = (instance, state, cause);
    }

    /// An instance is not active here any more. This is what `terminate` is elsewhere, except that
    /// nothing is lost without it: a process that dies does not call it.
    fn deactivated(&self, instance: &InstanceId, state: &Self::State, cause: Deactivation) {
        let _ = (instance, state, cause);
    }

    /// A message was put aside because it failed too often. Called after the commit, at most once.
    fn dead_letter(&self, notice: &DeadLetterNotice) {
        let _ = notice;
    }
}

/// Handles a message inside a transaction. Route it with [`Routes::handle`].
///
/// The compiler refuses to route what is not implemented:
///
/// ```compile_fail,E0277
/// # use abide::server::*;
/// # use serde::{Deserialize, Serialize};
/// # struct Counting;
/// # impl Protocol for Counting { const KIND: &'static str = "counter"; }
/// # #[derive(Serialize, Deserialize)] struct Add(u64);
/// # impl Message<Counting> for Add { const NAME: &'static str = "add"; type Reply = u64; }
/// # struct Counter;
/// # impl Server for Counter {
/// #     type Protocol = Counting;
/// #     type State = u64;
/// #     fn init(&self, _: &ReadContext<'_>) -> Result<u64, Failure> { Ok(0) }
///     fn routes(routes: Routes<Self>) -> Routes<Self> {
///         routes.handle::<Add>()
///     }
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle `{M}`",
    label = "`{Self}` does not implement `Handle<{M}>`",
    note = "implement `Handle<{M}>` for `{Self}`, or `Query<{M}>` and route it with `query`"
)]
pub trait Handle<M>: Server
where
    M: Message<<Self as Server>::Protocol>,
{
    /// Changes the state and says what to reply.
    ///
    /// It may run several times for one message and only one run counts, so that it must depend on
    /// nothing but its arguments: no clocks, no random numbers, no other systems. What has to be done
    /// outside goes into [effects](Context::after_commit) or under a [lock](Locked).
    ///
    /// # Errors
    ///
    /// With a failure nothing changes: see [`FailureKind`](super::FailureKind). A panic is a failure
    /// too.
    fn handle(
        &self,
        state: &mut Self::State,
        message: M,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<M::Reply>, Failure>;
}

/// Answers a question about the state. Route it with [`Routes::query`].
///
/// As a query it commits nothing. Called or cast as an ordinary message it takes its turn in the
/// mailbox, and changes nothing either.
///
/// The compiler refuses to route what is not implemented:
///
/// ```compile_fail,E0277
/// # use abide::server::*;
/// # use serde::{Deserialize, Serialize};
/// # struct Counting;
/// # impl Protocol for Counting { const KIND: &'static str = "counter"; }
/// # #[derive(Serialize, Deserialize)] struct Add(u64);
/// # impl Message<Counting> for Add { const NAME: &'static str = "add"; type Reply = u64; }
/// # struct Counter;
/// # impl Server for Counter {
/// #     type Protocol = Counting;
/// #     type State = u64;
/// #     fn init(&self, _: &ReadContext<'_>) -> Result<u64, Failure> { Ok(0) }
///     fn routes(routes: Routes<Self>) -> Routes<Self> {
///         routes.query::<Add>()
///     }
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not answer the query `{M}`",
    label = "`{Self}` does not implement `Query<{M}>`",
    note = "implement `Query<{M}>` for `{Self}`, or `Handle<{M}>` and route it with `handle`"
)]
pub trait Query<M>: Server
where
    M: Message<<Self as Server>::Protocol>,
{
    /// The answer.
    ///
    /// # Errors
    ///
    /// A failure of either kind is told to the caller; a query is never tried again unless it stood
    /// in the mailbox.
    fn query(
        &self,
        state: &Self::State,
        message: M,
        cx: &ReadContext<'_>,
    ) -> Result<M::Reply, Failure>;
}

/// Handles a message with work outside the transaction, under the instance's lock. Route it with
/// [`Routes::locked`].
///
/// [`Handle::handle`] decides: with [`Outcome::Lock`] the message goes on here, with another outcome it
/// is done. While the lock is held, ordinary messages wait and priority messages run.
///
/// A card is charged by a system outside, which may take a while, and may be asked twice:
///
/// ```
/// # use abide::Node;
/// # use abide::server::*;
/// # use serde::{Deserialize, Serialize};
/// # use std::time::Duration;
/// # struct Payments;
/// # impl Protocol for Payments { const KIND: &'static str = "payment"; }
/// # #[derive(Serialize, Deserialize)] struct Charge { amount: u64 }
/// # impl Message<Payments> for Charge { const NAME: &'static str = "charge"; type Reply = String; }
/// # struct Bank;
/// # impl Bank {
/// #     async fn charge(&self, key: String, _: u64) -> Result<String, std::io::Error> { Ok(key) }
/// # }
/// struct Cards {
///     bank: Bank,
/// }
///
/// # impl Server for Cards {
/// #     type Protocol = Payments;
/// #     type State = Option<String>;
/// #     fn init(&self, _: &ReadContext<'_>) -> Result<Option<String>, Failure> { Ok(None) }
/// #     fn routes(routes: Routes<Self>) -> Routes<Self> { routes.locked::<Charge>() }
/// # }
/// impl Handle<Charge> for Cards {
///     fn handle(
///         &self,
///         receipt: &mut Option<String>,
///         _: Charge,
///         _cx: &mut Context<'_, Self>,
///     ) -> Result<Outcome<String>, Failure> {
///         // Charged before: nothing to be done outside.
///         Ok(receipt.clone().map_or(Outcome::Lock, Outcome::Reply))
///     }
/// }
///
/// impl Locked<Charge> for Cards {
///     type Output = String;
///
///     async fn run(
///         &self,
///         _: Option<String>,
///         charge: Charge,
///         cx: LockContext,
///     ) -> Result<String, Failure> {
///         // The same key in each attempt, so that the bank charges once.
///         let key = cx.instance().id().to_owned();
///         let charged = self.bank.charge(key, charge.amount).await;
///         charged.map_err(|error| Failure::fail(error.to_string()))
///     }
///
///     fn close(
///         &self,
///         receipt: &mut Option<String>,
///         _: Charge,
///         charged: String,
///         _cx: &mut Context<'_, Self>,
///     ) -> Result<Outcome<String>, Failure> {
///         *receipt = Some(charged.clone());
///         Ok(Outcome::Reply(charged))
///     }
/// }
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder("memory:").serve(Cards { bank: Bank }).start().await?;
/// let payment = node.server::<Payments>("order-17");
/// assert_eq!(payment.call(Charge { amount: 30 }).await?, "order-17");
/// node.shutdown(Duration::from_secs(5)).await;
/// # Ok(()) }
/// ```
///
/// The compiler refuses to route what is not implemented:
///
/// ```compile_fail,E0277
/// # use abide::server::*;
/// # use serde::{Deserialize, Serialize};
/// # struct Counting;
/// # impl Protocol for Counting { const KIND: &'static str = "counter"; }
/// # #[derive(Serialize, Deserialize)] struct Add(u64);
/// # impl Message<Counting> for Add { const NAME: &'static str = "add"; type Reply = u64; }
/// # struct Counter;
/// # impl Server for Counter {
/// #     type Protocol = Counting;
/// #     type State = u64;
/// #     fn init(&self, _: &ReadContext<'_>) -> Result<u64, Failure> { Ok(0) }
///     fn routes(routes: Routes<Self>) -> Routes<Self> {
///         routes.locked::<Add>()
///     }
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle `{M}` under a lock",
    label = "`{Self}` does not implement `Locked<{M}>`",
    note = "implement `Locked<{M}>` for `{Self}`, beside `Handle<{M}>`, which decides to lock"
)]
pub trait Locked<M>: Handle<M>
where
    M: Message<<Self as Server>::Protocol>,
{
    /// What `run` hands to `close`. It is written down as MessagePack in between, in memory only.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Asks the [lazy maps](crate::collections::lazy) of the state for what `run` needs of them: no
    /// other entries are in its copy of the state. Runs before each `run`, in a transaction that reads
    /// only, by the same rules as [`Query::query`].
    ///
    /// # Errors
    ///
    /// As those of `run`.
    fn prepare(&self, state: &Self::State, message: &M) -> Result<(), Failure> {
        let _ = (state, message);
        Ok(())
    }

    /// The work outside the transaction, with a copy of the state. It runs at least once: again, on
    /// another node maybe, if this one dies or it fails.
    ///
    /// # Errors
    ///
    /// A rejection closes the lock and is told to the caller. Other failures are tried again, and in
    /// the end make the message a dead letter.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the lock is lost: to a kill, an operator, or another node that saw
    /// this one stand still.
    fn run(
        &self,
        state: Self::State,
        message: M,
        cx: LockContext,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send;

    /// Brings the result into the state as it is now: priority messages may have changed it. Runs in
    /// a transaction, by the same rules as [`Handle::handle`].
    ///
    /// # Errors
    ///
    /// As those of `run`. [`Outcome::Lock`] is an error here.
    fn close(
        &self,
        state: &mut Self::State,
        message: M,
        output: Self::Output,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<M::Reply>, Failure>;
}

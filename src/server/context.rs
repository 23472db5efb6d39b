//! What a handler may know and may ask for. Nothing is ambient.

#![allow(
    clippy::needless_pass_by_value,
    reason = "who has sent a message or given an answer has it no more"
)]

use super::behaviour::{Effect, Facts};
use super::courier::{Courier, Outgoing, traced};
use super::effect::{After, Flow, erase};
use super::later::Later;
use super::outcome::{Failure, Outcome};
use super::reference::Ref;
use super::traits::{Message, Protocol, Server};
use crate::codec;
use crate::durable::keys::Lane;
use crate::durable::message::CallId;
use crate::id::InstanceId;
use crate::store::Stamp;
use crate::trace::TraceParent;
use bytes::Bytes;
use serde::Serialize;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::SystemTime;

/// What a handler knows beside its message and the state, and what it wants done if the transaction
/// commits.
///
/// An order that is answered when its payment has come: the handlers cast to another instance, keep a
/// token for the reply, and have something printed after the commit.
///
/// ```
/// # use abide::server::*;
/// # use serde::{Deserialize, Serialize};
/// # struct Shop;
/// # impl Protocol for Shop { const KIND: &'static str = "order"; }
/// #[derive(Serialize, Deserialize)]
/// struct Place { amount: u64 }
/// # impl Message<Shop> for Place { const NAME: &'static str = "place"; type Reply = String; }
///
/// #[derive(Serialize, Deserialize)]
/// struct Paid;
/// # impl Message<Shop> for Paid { const NAME: &'static str = "paid"; type Reply = (); }
///
/// # struct Till;
/// # impl Protocol for Till { const KIND: &'static str = "till"; }
/// // A message of another protocol.
/// #[derive(Serialize, Deserialize)]
/// struct Charge { order: String, amount: u64 }
/// # impl Message<Till> for Charge { const NAME: &'static str = "charge"; type Reply = (); }
///
/// #[derive(Serialize, Deserialize, Default)]
/// struct Order { waiting: Option<Later<String>> }
///
/// # struct Orders;
/// # impl Server for Orders {
/// #     type Protocol = Shop;
/// #     type State = Order;
/// #     fn init(&self, _: &ReadContext<'_>) -> Result<Order, Failure> { Ok(Order::default()) }
/// #     fn routes(routes: Routes<Self>) -> Routes<Self> { routes.handle::<Place>().handle::<Paid>() }
/// # }
/// impl Handle<Place> for Orders {
///     fn handle(
///         &self,
///         order: &mut Order,
///         place: Place,
///         cx: &mut Context<'_, Self>,
///     ) -> Result<Outcome<String>, Failure> {
///         let id = cx.instance().id().to_owned();
///         cx.cast::<Till>("till-1", Charge { order: id, amount: place.amount })?;
///         let (token, outcome) = cx.later();
///         order.waiting = Some(token);
///         Ok(outcome)
///     }
/// }
///
/// impl Handle<Paid> for Orders {
///     fn handle(
///         &self,
///         order: &mut Order,
///         _: Paid,
///         cx: &mut Context<'_, Self>,
///     ) -> Result<Outcome<()>, Failure> {
///         if let Some(token) = order.waiting.take() {
///             cx.answer(token, "paid".to_owned())?;
///         }
///         cx.after_commit(|after| println!("{} is paid", after.instance()));
///         Ok(Outcome::Reply(()))
///     }
/// }
///
/// # use abide::testing::harness::Harness;
/// let mut orders = Harness::new(Orders)?;
/// let placed = orders.call(Place { amount: 7 });
/// assert_eq!(placed.outcome, Ok(Outcome::Later));
/// assert_eq!(placed.sends.len(), 1);
///
/// let paid = orders.cast(Paid);
/// assert_eq!(paid.answers.len(), 1);
/// assert_eq!(paid.effects.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Context<'a, S: Server> {
    facts: &'a Facts,
    wishes: Wishes,
    server: PhantomData<fn() -> S>,
}

/// What is to happen if, and only if, the transaction commits.
#[derive(Default)]
pub(super) struct Wishes {
    pub(super) sends: Vec<Outgoing>,
    pub(super) answers: Vec<(CallId, Bytes)>,
    pub(super) effects: Vec<Effect>,
}

impl<'a, S: Server> Context<'a, S> {
    pub(super) fn new(facts: &'a Facts) -> Self {
        Self {
            facts,
            wishes: Wishes::default(),
            server: PhantomData,
        }
    }

    pub(super) fn into_wishes(self) -> Wishes {
        self.wishes
    }

    /// The instance that handles the message.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.facts.instance
    }

    /// The message's place in the order of all messages, the same in each attempt. None for a
    /// message that never stood in a mailbox: a call from a node that serves the kind may take a
    /// shorter way.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        self.facts.stamp
    }

    /// The time of this turn, by the wall clock of the node that runs it. Another node's clock may
    /// differ: it can go back from one message to the next.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.facts.now
    }

    /// Which attempt at the message this is; the first is 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.facts.attempt
    }

    /// Whether someone awaits the reply: whether the message was called and not cast.
    #[must_use]
    pub fn is_call(&self) -> bool {
        self.facts.call.is_some()
    }

    /// The work that sent the message, the same in each attempt; none if it is not traced. What the
    /// handler sends, and its effects, go on with it: see [`trace`](crate::trace).
    #[must_use]
    pub fn trace(&self) -> Option<TraceParent> {
        self.facts.trace
    }

    /// Sends a message to an instance of the protocol `P`, this one included. It is sent if this
    /// message's changes are committed, in the same transaction, and not otherwise.
    ///
    /// # Errors
    ///
    /// When the id has a wrong length or the message has no encoding.
    pub fn cast<P: Protocol>(
        &mut self,
        id: impl Into<Arc<str>>,
        message: impl Message<P>,
    ) -> Result<(), Failure> {
        self.send(id.into(), Lane::Ordinary, &message)
    }

    /// As [`cast`](Self::cast), into the mailbox of priority messages: they go first, also while a
    /// lock is held.
    ///
    /// # Errors
    ///
    /// As those of [`cast`](Self::cast).
    pub fn cast_priority<P: Protocol>(
        &mut self,
        id: impl Into<Arc<str>>,
        message: impl Message<P>,
    ) -> Result<(), Failure> {
        self.send(id.into(), Lane::Priority, &message)
    }

    fn send<P: Protocol, M: Message<P>>(
        &mut self,
        id: Arc<str>,
        lane: Lane,
        message: &M,
    ) -> Result<(), Failure> {
        let instance = InstanceId::new(P::KIND, id)?;
        let outgoing = Outgoing::new(instance, lane, message)?;
        self.wishes.sends.push(Outgoing {
            trace: self.facts.here,
            ..outgoing
        });
        Ok(())
    }

    /// A token to answer this message with later, from another message's handler, and the outcome to
    /// return now. Keep the token in the state.
    #[must_use = "return the outcome and keep the token"]
    pub fn later<R>(&self) -> (Later<R>, Outcome<R>) {
        (Later::new(self.facts.call), Outcome::Later)
    }

    /// Answers an earlier message, if and when this one's changes are committed. Does nothing if the
    /// earlier message was a cast, or its caller is not waiting any more.
    ///
    /// # Errors
    ///
    /// When the reply has no encoding.
    pub fn answer<R: Serialize>(&mut self, token: Later<R>, reply: R) -> Result<(), Failure> {
        if let Some(call) = token.call() {
            let reply = codec::to_payload(&reply)?;
            self.wishes.answers.push((call, reply));
        }
        Ok(())
    }

    /// Has `effect` run after the commit, with the state that was committed. Effects run in the order
    /// in which they were asked for, those of a batch of messages one after the other, and can
    /// [halt](Flow::Halt) the rest. Return nothing to go on.
    ///
    /// An effect runs at most once: not at all if the process dies in between. What must not be lost
    /// belongs under a [lock](super::Locked). A panic in an effect is logged, and halts the rest.
    pub fn after_commit<F, T>(&mut self, effect: F)
    where
        F: FnOnce(After<'_, S>) -> T + Send + 'static,
        T: Into<Flow>,
    {
        let instance = self.facts.instance.clone();
        let effect = erase::<S, F, T>(instance, self.facts.here, effect);
        self.wishes.effects.push(effect);
    }
}

impl<S: Server> fmt::Debug for Context<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("facts", self.facts)
            .field("sends", &self.wishes.sends)
            .field("answers", &self.wishes.answers.len())
            .field("effects", &self.wishes.effects.len())
            .finish()
    }
}

/// What a query and the making of a first state may know.
#[derive(Debug)]
pub struct ReadContext<'a> {
    facts: &'a Facts,
}

impl<'a> ReadContext<'a> {
    pub(super) fn new(facts: &'a Facts) -> Self {
        Self { facts }
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &'a InstanceId {
        &self.facts.instance
    }

    /// The time of the turn or the query, by the wall clock of the node that runs it.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.facts.now
    }

    /// The work that sent the message; none if it is not traced.
    #[must_use]
    pub fn trace(&self) -> Option<TraceParent> {
        self.facts.trace
    }
}

/// What the holder of a lock knows, and its way to other servers. [`Locked`](super::Locked) has an
/// example.
#[derive(Debug, Clone)]
pub struct LockContext {
    facts: Facts,
    courier: Arc<dyn Courier>,
}

impl LockContext {
    pub(super) fn new(facts: Facts, courier: Arc<dyn Courier>) -> Self {
        let courier = traced(courier, facts.here);
        Self { facts, courier }
    }

    /// The locked instance.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.facts.instance
    }

    /// The message's place in the order of all messages, the same in each attempt, if it stood in a
    /// mailbox: a key by which another system can recognize a repeated request.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        self.facts.stamp
    }

    /// The time at which this attempt began, by the wall clock of the node that runs it.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.facts.now
    }

    /// Which attempt this is; the first is 1. In a later one the work may have been done already.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.facts.attempt
    }

    /// A *fencing token*: a number for other systems to check, so that a holder which has lost the
    /// lock without knowing it changes nothing there either.
    ///
    /// It grows strictly with each taking of this instance's lock, by this message or another one, on
    /// whichever node, and also when the namespace was moved to another store in between. It is the
    /// same as long as the lock is held, for the attempts that one node makes one after the other. It
    /// is the stamp of the commit that took the lock, below the namespace's incarnation; as sixteen
    /// big-endian bytes it has the same order.
    ///
    /// Send it with each request. The other system keeps the largest that it has seen for the
    /// instance, in one step with what the request changes, and refuses any that is smaller.
    #[must_use]
    pub fn fencing_token(&self) -> u128 {
        self.facts.fence
    }

    /// Whether someone awaits the reply.
    #[must_use]
    pub fn is_call(&self) -> bool {
        self.facts.call.is_some()
    }

    /// The work that sent the message; none if it is not traced. What is sent through this context
    /// goes on with it.
    #[must_use]
    pub fn trace(&self) -> Option<TraceParent> {
        self.facts.trace
    }

    /// A reference to an instance of the protocol `P`. A call of the locked instance itself waits for
    /// the lock, and so for ever, unless it is a [priority](Ref::priority) call.
    #[must_use]
    pub fn server<P: Protocol>(&self, id: impl Into<Arc<str>>) -> Ref<P> {
        Ref::new(Arc::clone(&self.courier), id)
    }
}

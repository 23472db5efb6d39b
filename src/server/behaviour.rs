//! A served kind with its types erased: what the consumer drives.

use super::courier::{Courier, Outgoing};
use super::effect::Flow;
use super::hooks::{Activation, Deactivation, DeadLetterNotice};
use super::outcome::Failure;
use crate::codec::lazy::Found;
use crate::codec::{CodecError, Ignored, Leaves, Path, Update};
use crate::durable::message::CallId;
use crate::env::BoxFuture;
use crate::id::InstanceId;
use crate::store::Stamp;
use crate::trace::TraceParent;
use bytes::Bytes;
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// A server's state, its type erased.
pub(crate) type Held = Box<dyn Any + Send + Sync>;

/// What runs after the commit, with the committed state. It does not unwind.
pub(crate) type Effect = Box<dyn FnOnce(&Held, &Arc<dyn Courier>) -> Flow + Send>;

/// What is known of a message beside the message.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// Who handles it.
    pub(crate) instance: InstanceId,
    /// Its place in the mailbox; none for an inline message.
    pub(crate) stamp: Option<Stamp>,
    /// The time of the turn.
    pub(crate) now: SystemTime,
    /// Which attempt it is; the first is 1.
    pub(crate) attempt: u32,
    /// Where the reply goes; none for a cast.
    pub(crate) call: Option<CallId>,
    /// The work that sent it.
    pub(crate) trace: Option<TraceParent>,
    /// The work that handles it: where what it sends comes from.
    pub(crate) here: Option<TraceParent>,
    /// Under a lock, a number that grows with each taking; else zero.
    pub(crate) fence: u128,
}

/// How a message is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// In a turn.
    Handle,
    /// In a turn or without one; it changes nothing.
    Query,
    /// In a turn that may take the lock.
    Locked,
}

/// What a handler decided, its reply encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decided {
    /// Handled.
    Reply(Bytes),
    /// Handled; the reply comes with an answer to the call id.
    Later,
    /// The message goes on under the lock.
    Lock,
    /// Handled; the instance leaves the cache.
    Stop(Bytes),
}

/// All that came of applying one message. With a failure there is nothing else.
pub(crate) struct Applied {
    /// The decision. After a failure the state is to be discarded.
    pub(crate) outcome: Result<Decided, Failure>,
    /// Casts to commit with the state.
    pub(crate) sends: Vec<Outgoing>,
    /// Answers to earlier calls, to stage with the replies.
    pub(crate) answers: Vec<(CallId, Bytes)>,
    /// What to run after the commit.
    pub(crate) effects: Vec<Effect>,
}

impl From<Failure> for Applied {
    fn from(failure: Failure) -> Self {
        Self {
            outcome: Err(failure),
            sends: Vec::new(),
            answers: Vec::new(),
            effects: Vec::new(),
        }
    }
}

impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applied")
            .field("outcome", &self.outcome)
            .field("sends", &self.sends)
            .field("answers", &self.answers)
            .field("effects", &self.effects.len())
            .finish()
    }
}

/// One served kind, types erased. No code of the user's unwinds through it: a panic is a failure of
/// the message.
///
/// A payload that does not decode is the sender's fault. A caller is told at once, by a rejection;
/// nobody would hear of a rejected cast, so that one fails and becomes a dead letter, for people to
/// see.
pub(crate) trait Behaviour: fmt::Debug + Send + Sync + 'static {
    /// The protocol's name.
    fn kind(&self) -> &'static str;

    /// The version of the state's shape.
    fn schema(&self) -> u32;

    /// A first state.
    fn init(&self, facts: &Facts) -> Result<Held, Failure>;

    /// The state that leaves hold. They keep its durable collections in mind.
    fn decode(&self, leaves: &mut Leaves) -> Result<(Held, Ignored), CodecError>;

    /// Where the state has lazy collections, whose entries need not be read to decode it.
    fn lazy(&self) -> &[Path];

    /// Adds to the leaves of a state what was read of its lazy collections.
    fn learn(
        &self,
        leaves: &mut Leaves,
        ignored: &mut Ignored,
        found: Found,
    ) -> Result<(), CodecError>;

    /// The same state once more. Costs nothing for durable collections that the leaves know.
    fn restore(&self, leaves: &Leaves) -> Result<Held, CodecError>;

    /// What is to be written to store a state.
    fn encode(&self, state: &Held, base: &Leaves, ignored: &Ignored) -> Result<Update, CodecError>;

    /// How the message is handled; none if its name is unknown.
    fn route(&self, name: &str) -> Option<Route>;

    /// Applies a message. A query replies and leaves the state alone.
    fn handle(&self, state: &mut Held, name: &str, payload: &[u8], facts: &Facts) -> Applied;

    /// Answers a query.
    fn query(
        &self,
        state: &Held,
        name: &str,
        payload: &[u8],
        facts: &Facts,
    ) -> Result<Bytes, Failure>;

    /// Asks for what the work under the lock needs of lazy collections.
    fn prepare(
        &self,
        state: &Held,
        name: &str,
        payload: &[u8],
        facts: &Facts,
    ) -> Result<(), Failure>;

    /// Runs the work under the lock; gives its output, encoded.
    fn run(
        self: Arc<Self>,
        state: Held,
        name: Arc<str>,
        payload: Bytes,
        facts: Facts,
        courier: Arc<dyn Courier>,
    ) -> BoxFuture<'static, Result<Bytes, Failure>>;

    /// Applies the output of `run`.
    fn close(
        &self,
        state: &mut Held,
        name: &str,
        payload: &[u8],
        output: &[u8],
        facts: &Facts,
    ) -> Applied;

    /// The hook.
    fn activated(&self, instance: &InstanceId, state: &Held, cause: Activation);

    /// The hook.
    fn deactivated(&self, instance: &InstanceId, state: &Held, cause: Deactivation);

    /// The hook.
    fn dead_letter(&self, notice: &DeadLetterNotice);
}

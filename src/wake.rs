//! What the producer and the consumer of one process tell each other in memory.
//!
//! Invariant: nothing here is needed for correctness. Whatever is lost on this way, the store has
//! it, or nobody was told that it happened; losing it costs only time.

use crate::durable::keys::{Lane, SessionId};
use crate::durable::message::{CallId, Message};
use crate::durable::reply::Answer;
use crate::id::InstanceId;
use crate::store::Version;
use std::fmt::Debug;
use std::sync::Arc;

/// The part of the process that serves kinds, as its producer sees it.
pub(crate) trait Local: Debug + Send + Sync {
    /// Whether this process serves the kind.
    fn serves(&self, kind: &str) -> bool;

    /// A push to the instance was acknowledged at this version: a turn that reads at it, or later,
    /// sees the message.
    fn pushed(&self, instance: &InstanceId, version: Version);

    /// Offers a call that may skip the mailbox. Refuses, handing it back, when the kind is not
    /// served, the process is shutting down, or too many wait: then it is pushed.
    ///
    /// Whoever takes it answers through [`Callers`], or pushes the message himself and says so with
    /// [`Callers::await_stored_reply`].
    #[allow(
        clippy::result_large_err,
        reason = "a refused call is moved to the pusher, not copied through many hands"
    )]
    fn offer(&self, inline: Inline) -> Result<(), Inline>;
}

/// A call on its way past the mailbox.
#[derive(Debug)]
pub(crate) struct Inline {
    /// Whom it is for.
    pub(crate) instance: InstanceId,
    /// The mailbox that it would stand in.
    pub(crate) lane: Lane,
    /// The message; it names its call. Shared, because a turn may be tried several times.
    pub(crate) message: Arc<Message>,
}

/// The part of the process that waits for answers, as its consumer sees it.
pub(crate) trait Callers: Debug + Send + Sync {
    /// Hands out an answer, after the commit that decided it. False if it is not a pending call of
    /// this process's current session: one that timed out, say.
    fn answer(&self, call: CallId, answer: Answer) -> bool;

    /// Whether this is the current session of this process, so that an answer to it need not be
    /// stored.
    fn is_mine(&self, session: SessionId) -> bool;

    /// An inline call went into the mailbox: its answer may come through the store.
    fn await_stored_reply(&self);

    /// Sends a call that was taken, and that no turn has begun with, the long way: into the mailbox.
    fn turned_away(&self, inline: Inline);

    /// What became of the call cannot be found out any more, for the reason given.
    fn lost(&self, call: CallId, why: &str);
}

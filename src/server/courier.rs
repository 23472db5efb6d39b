//! How references reach the store, and what they answer instead of a reply.

use super::traits::{Message, Protocol};
use crate::codec::{self, CodecError};
use crate::durable::keys::Lane;
use crate::env::BoxFuture;
use crate::id::{InstanceId, InvalidInstanceId};
use crate::store::{StoreError, StoreErrorKind};
use crate::trace::TraceParent;
use bytes::Bytes;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A message on its way to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The receiver.
    pub instance: InstanceId,
    /// The name of the message's type.
    pub name: Arc<str>,
    /// The message, as MessagePack.
    pub payload: Bytes,
    /// Which mailbox it goes into.
    pub lane: Lane,
    /// Whether it is a query, which changes nothing.
    pub query: bool,
    /// The work that it belongs to, if whoever sends it is not within a span of its own.
    pub trace: Option<TraceParent>,
}

impl Outgoing {
    /// The message as an ordinary cast or call of the instance.
    ///
    /// # Errors
    ///
    /// When the message has no encoding.
    pub fn new<P: Protocol, M: Message<P>>(
        instance: InstanceId,
        lane: Lane,
        message: &M,
    ) -> Result<Self, CodecError> {
        Ok(Self {
            instance,
            name: M::NAME.into(),
            payload: codec::to_payload(message)?,
            lane,
            query: false,
            trace: None,
        })
    }
}

/// What carries messages: a node's client, or a stand-in for it in tests.
///
/// A correct courier answers `Ok` only once the change is durable, and answers an error of which the
/// outcome is not known with [`OutcomeUnknown`](CallErrorKind::OutcomeUnknown) or
/// [`TimedOut`](CallErrorKind::TimedOut), never with another kind. Dropping one of the futures
/// cancels the waiting and nothing else.
pub trait Courier: fmt::Debug + Send + Sync + 'static {
    /// Puts all messages into their mailboxes, or none.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`], for this and the other methods.
    fn cast(&self, batch: Vec<Outgoing>) -> BoxFuture<'static, Result<(), CallError>>;

    /// Sends a message and waits for its reply, at most this long.
    fn call(
        &self,
        message: Outgoing,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>>;

    /// Removes the instance: its messages, whose callers are told, its lock and its state.
    fn kill(&self, instance: InstanceId) -> BoxFuture<'static, Result<(), CallError>>;

    /// Removes the instance's state; the next message initializes it anew. Its messages stay.
    fn reset(&self, instance: InstanceId) -> BoxFuture<'static, Result<(), CallError>>;
}

/// A courier for what is done on behalf of a message: what is sent through it belongs to the
/// message's trace.
#[derive(Debug)]
struct Traced {
    courier: Arc<dyn Courier>,
    trace: TraceParent,
}

/// The courier itself, if there is no trace.
pub(super) fn traced(courier: Arc<dyn Courier>, trace: Option<TraceParent>) -> Arc<dyn Courier> {
    match trace {
        Some(trace) => Arc::new(Traced { courier, trace }),
        None => courier,
    }
}

impl Courier for Traced {
    fn cast(&self, mut batch: Vec<Outgoing>) -> BoxFuture<'static, Result<(), CallError>> {
        for outgoing in &mut batch {
            outgoing.trace.get_or_insert(self.trace);
        }
        self.courier.cast(batch)
    }

    fn call(
        &self,
        mut message: Outgoing,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        message.trace.get_or_insert(self.trace);
        self.courier.call(message, timeout)
    }

    fn kill(&self, instance: InstanceId) -> BoxFuture<'static, Result<(), CallError>> {
        self.courier.kill(instance)
    }

    fn reset(&self, instance: InstanceId) -> BoxFuture<'static, Result<(), CallError>> {
        self.courier.reset(instance)
    }
}

/// What went wrong with a call, a cast or another use of a reference, as far as the caller's next
/// step depends on it.
///
/// ```
/// use abide::server::{CallError, CallErrorKind};
///
/// /// Whether the same call may simply be made again.
/// fn is_safe_to_repeat(error: &CallError) -> bool {
///     match error.kind() {
///         // Nothing was sent, or nothing has changed.
///         CallErrorKind::Unavailable | CallErrorKind::Killed => true,
///         // It may have been handled, or may yet be.
///         CallErrorKind::TimedOut | CallErrorKind::OutcomeUnknown => false,
///         // A repetition has the same end.
///         _ => false,
///     }
/// }
/// # assert!(is_safe_to_repeat(&CallErrorKind::Unavailable.into()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// No reply came in time. The message stands in the mailbox or was handled, and may still
    /// change the state: call again only if doing it twice is right.
    TimedOut,
    /// The handler refused the message, for the reason that [`CallError::message`] is. Nothing
    /// changed.
    Rejected,
    /// The message failed too often and was put aside, with the handler's last error as
    /// [`CallError::message`]. Nothing changed; an operator can see it and have it handled again.
    DeadLetter,
    /// The instance was killed, or the message removed by an operator, before it was handled.
    Killed,
    /// The message is larger than a message may be. Nothing was sent.
    TooLarge,
    /// The reply cannot be read as the message's reply type. The message *was* handled: the server
    /// is of another version than the caller.
    Decode,
    /// The store or the node cannot be reached now. Nothing was sent; try again later.
    Unavailable,
    /// What became of the message cannot be found out. Look at the state before sending it again.
    OutcomeUnknown,
    /// The call itself is wrong: an id of a wrong length, a message that has no encoding. Nothing was
    /// sent; mend the caller.
    Invalid,
    /// The store failed in a way that a retry does not mend.
    Failed,
}

impl fmt::Display for CallErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "no reply came in time; the message may still be handled",
            Self::Rejected => "the server rejected the message",
            Self::DeadLetter => "the message failed too often and is a dead letter now",
            Self::Killed => "the message was removed before it was handled",
            Self::TooLarge => "the message is too large",
            Self::Decode => "the message was handled, but its reply cannot be read",
            Self::Unavailable => "the server cannot be reached now",
            Self::OutcomeUnknown => "it cannot be known what became of the message",
            Self::Invalid => "the message cannot be sent",
            Self::Failed => "the store failed",
        })
    }
}

/// An error of a reference: a [kind](CallErrorKind) to act on, a sentence for people, and the error
/// behind it as the [source](StdError::source).
///
/// Cloning is cheap; the source is shared.
#[derive(Debug, Clone)]
pub struct CallError {
    kind: CallErrorKind,
    message: Option<Arc<str>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl CallError {
    /// An error of this kind, with nothing more to say.
    #[must_use]
    pub fn new(kind: CallErrorKind) -> Self {
        Self {
            kind,
            message: None,
            source: None,
        }
    }

    /// Adds a sentence that says why.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Arc<str>>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What the caller can act on.
    #[must_use]
    pub fn kind(&self) -> CallErrorKind {
        self.kind
    }

    /// Why: the handler's text for a rejection or a dead letter. Empty if there is nothing to add to
    /// the kind.
    #[must_use]
    pub fn message(&self) -> &str {
        self.message.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.kind),
            None => self.kind.fmt(f),
        }
    }
}

impl StdError for CallError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<CallErrorKind> for CallError {
    fn from(kind: CallErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<StoreError> for CallError {
    /// What a store's error means for whoever sends: a commit that is known to have failed sent
    /// nothing.
    fn from(error: StoreError) -> Self {
        let kind = match error.kind() {
            StoreErrorKind::MaybeCommitted => CallErrorKind::OutcomeUnknown,
            StoreErrorKind::KeyTooLarge
            | StoreErrorKind::ValueTooLarge
            | StoreErrorKind::TransactionTooLarge => CallErrorKind::TooLarge,
            StoreErrorKind::Conflict
            | StoreErrorKind::TooOld
            | StoreErrorKind::Unavailable
            | StoreErrorKind::Locked => CallErrorKind::Unavailable,
            _ => CallErrorKind::Failed,
        };
        Self::new(kind).with_source(error)
    }
}

impl From<InvalidInstanceId> for CallError {
    fn from(error: InvalidInstanceId) -> Self {
        Self::new(CallErrorKind::Invalid).with_source(error)
    }
}

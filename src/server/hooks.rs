//! What a server is told beside its messages.

use crate::id::InstanceId;
use crate::store::Stamp;
use crate::trace::TraceParent;
use bytes::Bytes;
use std::sync::Arc;

/// Why an instance became active on this node: why its state is in this process's memory now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// It did not exist: its state is the one that [`Server::init`](super::Server::init) made and
    /// its first message changed.
    Created,
    /// Its state was read from the store: it was idle, or on another node, or this node was
    /// restarted.
    Loaded,
    /// It was active here already, and its state was read again because another node changed it.
    Reloaded,
}

/// Why an instance is not active on this node any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Deactivation {
    /// A handler answered [`Outcome::Stop`](super::Outcome::Stop).
    Stopped,
    /// It was idle, and the room was needed for others.
    Evicted,
    /// Another node changed its state: the copy here is of no use any more.
    Superseded,
    /// It was killed or reset.
    Removed,
    /// The node shuts down.
    Shutdown,
}

/// A message that failed too often and was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterNotice {
    /// Whose message it was.
    pub instance: InstanceId,
    /// The name of the message's type.
    pub name: Arc<str>,
    /// The message, as MessagePack.
    pub payload: Bytes,
    /// Its place in the mailbox, by which operators find it among the dead letters.
    pub stamp: Option<Stamp>,
    /// The error of the last attempt.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The work that sent it; none if it is not traced.
    pub trace: Option<TraceParent>,
}

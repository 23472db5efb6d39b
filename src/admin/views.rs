//! Records as operators see them.

use crate::codec::{CodecError, Value};
use crate::durable::Message;
use crate::durable::keys::SessionId;
use bytes::Bytes;

/// Who awaits the reply to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The caller's session.
    pub session: SessionId,
    /// The number of the call within it.
    pub call: u64,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageView {
    /// The name of its type in the protocol.
    pub name: String,
    /// The message itself, as MessagePack.
    pub payload: Bytes,
    /// Who awaits the reply; none for a cast.
    pub call: Option<Caller>,
    /// Whether it only asks.
    pub query: bool,
    /// The session of the process that sent it.
    pub sender: Option<SessionId>,
    /// When it was sent by the sender's clock, in milliseconds since 1970.
    pub sent_ms: u64,
    /// The W3C `traceparent` of the work that sent it.
    pub trace: Option<String>,
}

impl MessageView {
    /// What the payload says.
    ///
    /// # Errors
    ///
    /// When it is not MessagePack.
    pub fn value(&self) -> Result<Value, CodecError> {
        Value::from_payload(&self.payload)
    }
}

impl From<&Message> for MessageView {
    fn from(message: &Message) -> Self {
        Self {
            name: message.name.as_ref().to_owned(),
            payload: message.payload.clone(),
            call: message.call.map(|call| Caller {
                session: call.session,
                call: call.call,
            }),
            query: message.query,
            sender: message.sender,
            sent_ms: message.sent_ms,
            trace: message.trace.map(|trace| trace.to_string()),
        }
    }
}

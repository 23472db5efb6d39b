//! A message as it stands in a mailbox.

use super::keys::{Lane, SessionId};
use crate::store::Stamp;
use crate::trace::TraceParent;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where the reply to a call goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct CallId {
    /// The caller's session.
    pub(crate) session: SessionId,
    /// The call's number within it.
    pub(crate) call: u64,
}

/// A message: the value of a mailbox entry.
///
/// Fields that are absent are not written, and unknown ones are passed over, so that versions of
/// abide can run beside each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// The name of its type in the protocol.
    #[serde(with = "text")]
    pub(crate) name: Arc<str>,
    /// The message itself, as MessagePack.
    #[serde(with = "blob")]
    pub(crate) payload: Bytes,
    /// Who awaits the reply; none for a cast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<CallId>,
    /// Whether it only asks.
    #[serde(default)]
    pub(crate) query: bool,
    /// The session of the process that sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sender: Option<SessionId>,
    /// The sender's wall clock, in milliseconds since 1970: for people.
    pub(crate) sent_ms: u64,
    /// The W3C `traceparent` of the work that sent it.
    #[serde(default, with = "trace", skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<TraceParent>,
    /// Its failures before it came into the mailbox: it was run past it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<Failed>,
    /// Reserved: until when it is worth processing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_ms: Option<u64>,
    /// Reserved: what makes a second push of the same message none.
    #[serde(
        default,
        with = "optional_blob",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) idempotency_key: Option<Bytes>,
}

/// The failures of a message that has not stood in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// How many.
    pub(crate) attempts: u32,
    /// What the last one said.
    pub(crate) error: String,
}

/// The two mailboxes, as records name them.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Lane", rename_all = "lowercase")]
pub(crate) enum LaneName {
    Ordinary,
    Priority,
}

/// A shared text.
mod text {
    use super::{Arc, Deserialize};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Into::into)
    }
}

/// A trace as its text. One that cannot be read is left out: the message is as good without it.
mod trace {
    use super::{Deserialize, Serialize, TraceParent};
    use serde::{Deserializer, Serializer};

    #[allow(clippy::ref_option, reason = "what serde asks for")]
    pub(super) fn serialize<S: Serializer>(
        trace: &Option<TraceParent>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        trace.map(|trace| trace.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<TraceParent>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        Ok(text.and_then(|text| text.parse().ok()))
    }
}

/// Bytes, which serde would otherwise write as a list of numbers.
mod blob {
    use super::{Bytes, Deserialize};
    use serde::{Deserializer, Serializer};
    use serde_bytes::ByteBuf;

    pub(super) fn serialize<S: Serializer>(blob: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(blob)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        ByteBuf::deserialize(from).map(|bytes| bytes.into_vec().into())
    }
}

mod optional_blob {
    use super::{Bytes, Deserialize, Serialize};
    use serde::{Deserializer, Serializer};
    use serde_bytes::{ByteBuf, Bytes as Slice};

    pub(super) fn serialize<S: Serializer>(blob: &Option<Bytes>, to: S) -> Result<S::Ok, S::Error> {
        blob.as_deref().map(Slice::new).serialize(to)
    }

    pub(super) fn deserialize<'de, D>(from: D) -> Result<Option<Bytes>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let bytes = Option::<ByteBuf>::deserialize(from)?;
        Ok(bytes.map(|bytes| bytes.into_vec().into()))
    }
}

/// A stamp within a record.
pub(crate) mod stamp {
    use super::Stamp;
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(stamp: &Stamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(stamp.as_bytes())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Stamp, D::Error> {
        serde_bytes::deserialize(from).map(Stamp::from_bytes)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::durable::value;
    use crate::store::StoreErrorKind;

    /// A cast of `size` bytes under a name.
    pub(in crate::durable) fn cast(name: &str, size: usize) -> Message {
        Message {
            name: name.into(),
            payload: vec![7; size].into(),
            call: None,
            query: false,
            sender: None,
            sent_ms: 1_700_000_000_000,
            trace: None,
            failed: None,
            deadline_ms: None,
            idempotency_key: None,
        }
    }

    fn full() -> Message {
        let session = SessionId::from_bytes([3; SessionId::LEN]);
        Message {
            call: Some(CallId { session, call: 9 }),
            query: true,
            sender: Some(session),
            trace: TraceParent::new([3; 16], [4; 8], 1),
            deadline_ms: Some(5),
            idempotency_key: Some(Bytes::from_static(b"once")),
            ..cast("name", 300)
        }
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        for message in [cast("bare", 0), full()] {
            let bytes = value::encode(&message).unwrap();
            assert_eq!(value::decode::<Message>(b"key", &bytes).unwrap(), message);
        }
    }

    #[test]
    fn a_trace_that_cannot_be_read_is_left_out() {
        #[derive(Serialize)]
        struct Foreign {
            name: &'static str,
            #[serde(with = "serde_bytes")]
            payload: &'static [u8],
            sent_ms: u64,
            trace: String,
        }
        for trace in [
            String::new(),
            "00-0af7-b7ad-01".into(),
            "\u{1f}".repeat(9_000),
        ] {
            let foreign = Foreign {
                name: "name",
                payload: b"1",
                sent_ms: 3,
                trace,
            };
            let bytes = value::encode(&foreign).unwrap();
            let message: Message = value::decode(b"key", &bytes).unwrap();
            assert_eq!((message.trace, &message.payload[..]), (None, &b"1"[..]));
        }
    }

    #[test]
    fn a_payload_is_stored_as_bytes_and_costs_no_more() {
        let bytes = value::encode(&cast("name", 10_000)).unwrap();
        assert!(bytes.len() < 10_100, "{} bytes", bytes.len());
    }

    #[test]
    fn a_message_of_a_newer_version_is_read_and_of_another_shape_refused() {
        #[derive(Serialize)]
        struct Newer<'a> {
            name: &'a str,
            #[serde(with = "serde_bytes")]
            payload: &'a [u8],
            sent_ms: u64,
            colour: &'a str,
        }
        let newer = Newer {
            name: "name",
            payload: b"1",
            sent_ms: 3,
            colour: "red",
        };
        let bytes = value::encode(&newer).unwrap();
        let message: Message = value::decode(b"key", &bytes).unwrap();
        assert_eq!(
            (&*message.name, &message.payload[..], message.sent_ms),
            ("name", &b"1"[..], 3)
        );
        let other = value::encode(&vec![1_u8, 2]).unwrap();
        let error = value::decode::<Message>(b"key", &other).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    }
}

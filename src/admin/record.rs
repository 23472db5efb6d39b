//! The records of an export.
//!
//! An export is a stream of records, one line of JSON each, in the lossless form of
//! [`Value`]:
//!
//! | record | what |
//! |---|---|
//! | `{"header":{"format":"abide-export","version":1,"id":…,"namespace":…,"exported_ms":…}}` | the first one; `id` names this export. Of a kind or an instance it also has `only_kind` and `only_id` |
//! | `{"kind_paused":{"kind":…,"pause":…}}` | a kind that is paused |
//! | `{"instance":{"kind":…,"id":…,"created_ms":…,"schema":…}}` | begins an instance; `schema` is null if it has no state |
//! | `{"paused":{"pause":…}}` | its pause |
//! | `{"leaf":{"path":…,"bytes":…}}` | a leaf of its state: the path as the tuple layer writes it, the bytes as they are stored |
//! | `{"message":{"lane":…,"message":…}}` | a message, in its order within its mailbox |
//! | `{"dead":{…}}` | a dead letter, in its order |
//! | `"instance_end"` | ends the instance |
//! | `{"end":{"records":…}}` | the last one; so many came before it |
//!
//! The message under a lock stands before all others of its mailbox, and is handled again. Who
//! awaits a reply is left out: callers are sessions, which stay where they are.

use super::error::AdminError;
use crate::codec::Value;
use crate::durable::Message;
use crate::durable::dead::DeadLetter;
use crate::durable::keys::Lane;
use crate::durable::message::LaneName;
use crate::durable::pause::Paused;
use crate::id::InstanceId;
use serde::{Deserialize, Serialize};

/// The longest line that [`Record::from_line`] reads: above what the largest record takes.
pub const MAX_LINE_BYTES: usize = 32_000_000;

/// What the first record says of the stream.
pub(super) const FORMAT: &str = "abide-export";

/// The newest version of the stream that is understood.
pub(super) const VERSION: u32 = 1;

/// One record of an export; opaque, but for its line.
#[derive(Debug, Clone, PartialEq)]
pub struct Record(pub(super) Body);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body {
    Header {
        format: String,
        version: u32,
        id: String,
        namespace: String,
        exported_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only_kind: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only_id: Option<String>,
    },
    KindPaused {
        kind: String,
        pause: Paused,
    },
    Instance {
        kind: String,
        id: String,
        created_ms: Option<u64>,
        schema: Option<u32>,
    },
    Paused {
        pause: Paused,
    },
    Leaf {
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    Message {
        #[serde(with = "LaneName")]
        lane: Lane,
        message: Message,
    },
    Dead(DeadLetter),
    InstanceEnd,
    End {
        records: u64,
    },
}

impl Record {
    /// The record as one line, without its end.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded.
    pub fn to_line(&self) -> Result<String, AdminError> {
        Ok(Value::from_typed(&self.0)?.to_json()?)
    }

    /// The record that a line is.
    ///
    /// # Errors
    ///
    /// [`Invalid`](super::AdminErrorKind::Invalid) for a line that is none, or longer than
    /// [`MAX_LINE_BYTES`].
    pub fn from_line(line: &str) -> Result<Self, AdminError> {
        if line.len() > MAX_LINE_BYTES {
            return Err(AdminError::invalid(format!(
                "a line of {} bytes, at most {MAX_LINE_BYTES} are allowed",
                line.len()
            )));
        }
        let value = Value::from_json(line.trim())?;
        Ok(Self(value.to_typed()?))
    }

    /// The instance that begins with this record.
    #[must_use]
    pub fn begins(&self) -> Option<InstanceId> {
        match &self.0 {
            Body::Instance { kind, id, .. } => InstanceId::new(kind.as_str(), id.as_str()).ok(),
            _ => None,
        }
    }

    /// About how many bytes of a transaction it takes.
    pub(super) fn size(&self) -> usize {
        const OVERHEAD: usize = 600;
        let message = |message: &Message| message.name.len() + message.payload.len();
        OVERHEAD
            + match &self.0 {
                Body::Leaf { path, bytes } => path.len() + bytes.len(),
                Body::Message { message: of, .. } => message(of),
                Body::Dead(letter) => message(&letter.message) + letter.error.len(),
                _ => 0,
            }
    }
}

//! What each record of a stream asks for.

use super::Import;
use super::write::Op;
use crate::admin::error::AdminError;
use crate::admin::record::{Body, Record};
use crate::codec::Path;
use crate::durable::pause::Paused;
use crate::id::InstanceId;

/// The instance whose records are coming.
#[derive(Debug)]
pub(super) struct Current {
    instance: InstanceId,
    schema: Option<u32>,
    pause: Option<Paused>,
    has_messages: bool,
}

impl Current {
    /// Its kind and its id.
    pub(super) fn name(&self) -> (String, String) {
        let instance = &self.instance;
        (instance.kind().to_owned(), instance.id().to_owned())
    }
}

impl Import<'_> {
    /// What a record asks for. Nothing if it is only to be remembered.
    pub(super) fn step(&mut self, record: Record) -> Result<Option<Op>, AdminError> {
        let outside = || AdminError::invalid("a record stands outside of an instance");
        Ok(match record.0 {
            Body::Header { .. } => return Err(AdminError::invalid("a second header")),
            Body::KindPaused { kind, pause } => {
                InstanceId::new(kind.as_str(), "any")?;
                Some(Op::KindPaused(kind, pause))
            }
            Body::Instance {
                kind,
                id,
                created_ms,
                schema,
            } => {
                if self.current.is_some() {
                    return Err(AdminError::invalid("an instance begins within another one"));
                }
                let instance = InstanceId::new(kind, id)?;
                self.current = Some(Current {
                    instance: instance.clone(),
                    schema,
                    pause: None,
                    has_messages: false,
                });
                Some(Op::Begin(instance, created_ms, schema))
            }
            Body::Paused { pause } => {
                self.current.as_mut().ok_or_else(outside)?.pause = Some(pause);
                None
            }
            Body::Leaf { path, bytes } => {
                let current = self.current.as_ref().ok_or_else(outside)?;
                let schema = current.schema.ok_or_else(|| {
                    AdminError::invalid("a leaf of an instance that has no state")
                })?;
                let path = Path::from_tuple(&path)?;
                Some(Op::Leaf(
                    current.instance.clone(),
                    schema,
                    path,
                    bytes.into(),
                ))
            }
            body @ (Body::Message { .. } | Body::Dead(_)) => {
                let current = self.current.as_mut().ok_or_else(outside)?;
                current.has_messages |= matches!(body, Body::Message { .. });
                Some(Op::Message(current.instance.clone(), body))
            }
            Body::InstanceEnd => {
                let current = self.current.take().ok_or_else(outside)?;
                Some(Op::End(
                    current.instance,
                    current.pause,
                    current.has_messages,
                ))
            }
            Body::End { records } => {
                if self.current.is_some() || records != self.seen {
                    return Err(AdminError::invalid(
                        "records are missing before the last one",
                    ));
                }
                self.ended = true;
                None
            }
        })
    }
}

//! Values in chunks, put together.

use super::Check;
use crate::admin::doctor::{Finding, FindingCode};
use crate::admin::page::what_is_wrong;
use crate::codec::{Path, Value};
use crate::durable::dead::DeadLetter;
use crate::durable::{Answer, Message, value};
use crate::id::InstanceId;
use crate::store::{KeyRange, KeyValue};
use bytes::Bytes;

/// The number of chunks at the beginning of the first one.
const COUNT_BYTES: usize = 2;

/// A value in chunks, under way.
pub(super) struct Open {
    pub(super) first: Bytes,
    /// What its keys begin with.
    pub(super) span: KeyRange,
    what: What,
    instance: Option<InstanceId>,
    expected: usize,
    parts: Vec<Bytes>,
}

/// What chunks are put together to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Message,
    LockedMessage,
    DeadLetter,
    Leaf,
    Reply,
}

impl Check<'_> {
    /// A leaf lies under its path; its further chunks under the path, a nil and a number.
    pub(super) fn leaf(&mut self, instance: &InstanceId, path: &[u8], row: KeyValue) {
        if Path::from_tuple(path).is_ok() {
            self.close();
            let span = KeyRange::new(row.key.clone(), [&row.key[..], &[1]].concat());
            self.chunk(What::Leaf, Some(instance), span, 0, row);
            return;
        }
        match &self.open {
            Some(open) if open.what == What::Leaf && open.span.contains(&row.key) => {
                let (span, chunk) = (open.span.clone(), open.parts.len());
                let chunk = u32::try_from(chunk).unwrap_or(u32::MAX);
                self.chunk(What::Leaf, Some(instance), span, chunk, row);
            }
            _ => self.findings.push(
                Finding::new(
                    FindingCode::OrphanedChunks,
                    row.key,
                    "the key is no path of a state, nor the chunk of a leaf that stands before it",
                )
                .of(instance),
            ),
        }
    }

    pub(super) fn chunk(
        &mut self,
        what: What,
        instance: Option<&InstanceId>,
        span: KeyRange,
        chunk: u32,
        row: KeyValue,
    ) {
        if let Some(open) = &mut self.open {
            let next = u32::try_from(open.parts.len()).unwrap_or(u32::MAX);
            if chunk == next && open.parts.len() < open.expected {
                open.parts.push(row.value);
            } else if what != What::Reply || open.parts.len() != open.expected {
                // Counted as damage when the value ends. Behind a whole reply those of an earlier
                // and longer one may stand.
                open.expected = usize::MAX;
            }
            return;
        }
        let count = row.value.split_first_chunk::<COUNT_BYTES>();
        match count {
            Some((count, _)) if chunk == 0 => {
                self.open = Some(Open {
                    first: row.key,
                    span,
                    what,
                    instance: instance.cloned(),
                    expected: usize::from(u16::from_be_bytes(*count)),
                    parts: vec![row.value.slice(COUNT_BYTES..)],
                });
            }
            _ => {
                let text = format!("chunk {chunk} stands without those before it");
                self.found(FindingCode::OrphanedChunks, row.key, instance, text);
            }
        }
    }

    /// The value that was under way has come to its end.
    pub(super) fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        let instance = open.instance.as_ref();
        if open.parts.len() != open.expected {
            let what = match open.expected {
                usize::MAX => "chunks of the value are missing or too many".to_owned(),
                expected => format!("{} of {expected} chunks", open.parts.len()),
            };
            let code = FindingCode::IncompleteChunks;
            self.found(code, open.first.clone(), instance, what);
            return;
        }
        let whole = open.parts.concat();
        let key = &open.first;
        let decoded = match open.what {
            What::Message | What::LockedMessage => value::decode::<Message>(key, &whole).map(drop),
            What::Reply => value::decode::<Answer>(key, &whole).map(drop),
            What::DeadLetter => value::decode::<DeadLetter>(key, &whole).map(drop),
            // A container's marker begins with the byte that begins no MessagePack.
            What::Leaf if whole.first() == Some(&0xc1) => Ok(()),
            What::Leaf => Value::from_payload(&whole)
                .map(drop)
                .map_err(|error| value::corrupt(key, "the leaf is damaged").with_source(error)),
        };
        if let Err(error) = decoded {
            let code = FindingCode::UndecodableValue;
            let text = what_is_wrong(key, &error);
            self.found(code, open.first.clone(), instance, text);
        }
    }
}

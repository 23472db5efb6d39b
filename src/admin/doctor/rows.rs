//! Every key and value for itself.

use super::super::page::Place;
use super::{Finding, FindingCode};
use crate::codec::{Path, Value};
use crate::durable::attempts::Attempts;
use crate::durable::dead::DeadLetter;
use crate::durable::keys::{Key, Part, SessionPart};
use crate::durable::pause::Paused;
use crate::durable::session::Heartbeat;
use crate::durable::{Message, Namespace, value};
use crate::id::InstanceId;
use crate::store::{KeyRange, KeyValue, StoreError, TransactionExt, Tx, after};
use bytes::Bytes;
use serde::de::DeserializeOwned;

/// How many rows one transaction checks: more than any value has chunks, so that a value that is cut
/// off by the end of a page is read again from its first chunk, and the check gets ahead.
const PAGE: usize = 150;

/// The number of chunks at the beginning of the first one.
const COUNT_BYTES: usize = 2;

/// What is wrong with a page of rows, and the key that the next one begins with.
pub(super) async fn check(
    tx: &Tx,
    namespace: &Namespace,
    begin: &Place,
) -> Result<(Vec<Finding>, Option<Bytes>), StoreError> {
    let range = begin.rest_of(namespace.keys().all());
    let rows = tx.get_range(range.read().limit(PAGE).snapshot()).await?;
    let full = rows.len() >= PAGE;
    let mut check = Check {
        namespace,
        findings: Vec::new(),
        open: None,
    };
    let mut last = None;
    for row in rows {
        last = Some(row.key.clone());
        check.row(tx, row).await?;
    }
    let next = match (full, &check.open, last) {
        (false, ..) | (_, _, None) => None,
        // Only if it did not take the whole page: a value that never ends must not stop the check.
        (true, Some(open), Some(_)) if open.first != range.begin => Some(open.first.clone()),
        (true, _, Some(last)) => Some(after(&last)),
    };
    if next.is_none()
        || check
            .open
            .as_ref()
            .is_some_and(|open| Some(&open.first) != next.as_ref())
    {
        check.close();
    }
    Ok((check.findings, next))
}

/// A value in chunks, under way.
struct Open {
    first: Bytes,
    /// What its keys begin with.
    span: KeyRange,
    what: What,
    instance: Option<InstanceId>,
    expected: usize,
    parts: Vec<Bytes>,
}

/// What chunks are put together to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Message,
    LockedMessage,
    DeadLetter,
    Leaf,
}

struct Check<'a> {
    namespace: &'a Namespace,
    findings: Vec<Finding>,
    open: Option<Open>,
}

impl Check<'_> {
    async fn row(&mut self, tx: &Tx, row: KeyValue) -> Result<(), StoreError> {
        if let Some(open) = &self.open
            && !open.span.contains(&row.key)
        {
            self.close();
        }
        let keys = self.namespace.keys();
        let decoded = keys.decode(&row.key);
        let foreign = |why: &str| Finding::new(FindingCode::ForeignKey, row.key.clone(), why);
        let Ok(key) = decoded else {
            self.findings
                .push(foreign("the key is not one that abide writes"));
            return Ok(());
        };
        match key {
            Key::Instance {
                shard, instance, ..
            }
            | Key::Ready { shard, instance }
                if shard != keys.shard(&instance) =>
            {
                let finding = foreign("the key is under the number of another shard");
                self.findings.push(finding.of(&instance));
            }
            Key::Instance { instance, part, .. } => self.part(&instance, part, row),
            Key::Directory(instance) => self.record::<Value>(&row, Some(&instance)),
            Key::KindPaused { .. } => self.record::<Paused>(&row, None),
            Key::Session { session, part } => match part {
                SessionPart::Heartbeat => {
                    if let Err(error) = Heartbeat::decode(&row.key, &row.value) {
                        self.undecodable(&row.key, None, &error);
                    }
                }
                SessionPart::Reply { .. } => {
                    let heartbeat = keys.session(session).heartbeat();
                    let is_first = self.findings.last().is_none_or(|last| {
                        !keys.session(session).all().contains(&last.key)
                            || last.code != FindingCode::RepliesOfAbsentSession
                    });
                    if is_first && tx.peek(&heartbeat).await?.is_none() {
                        self.findings.push(Finding::new(
                            FindingCode::RepliesOfAbsentSession,
                            row.key,
                            "replies came for a session that is gone; nodes sweep them after a \
                             minute",
                        ));
                    }
                }
                _ => {}
            },
            Key::Import => self.findings.push(Finding::new(
                FindingCode::UnfinishedImport,
                row.key,
                "an import has not come to its end; go on with it",
            )),
            _ => {}
        }
        Ok(())
    }

    fn part(&mut self, instance: &InstanceId, part: Part, row: KeyValue) {
        let keys = self.namespace.keys().instance(instance);
        match part {
            Part::Message {
                lane,
                incarnation,
                stamp,
                chunk,
            } => {
                let span = keys.message_chunks(lane, incarnation, stamp);
                self.chunk(What::Message, instance, span, chunk, row);
            }
            Part::DeadLetter { stamp, chunk } => {
                let end = after(&keys.dead_letter(stamp, u32::MAX));
                let span = KeyRange::new(keys.dead_letter(stamp, 0), end);
                self.chunk(What::DeadLetter, instance, span, chunk, row);
            }
            Part::Lock => {
                if row.value.len() < 12 {
                    let error = value::corrupt(&row.key, "the header is too short for a lock's");
                    self.undecodable(&row.key, Some(instance), &error);
                }
            }
            Part::LockMessage { chunk } => {
                self.chunk(
                    What::LockedMessage,
                    instance,
                    keys.lock_message(),
                    chunk,
                    row,
                );
            }
            Part::Attempts { .. } => self.record::<Attempts>(&row, Some(instance)),
            Part::Paused => self.record::<Paused>(&row, Some(instance)),
            Part::State { path } => self.leaf(instance, &path, row),
            Part::Length | Part::Version => {
                let right = if part == Part::Length { 8 } else { 15 };
                if row.value.len() != right {
                    let what = format!("the value is {} bytes long, not {right}", row.value.len());
                    let error = value::corrupt(&row.key, &what);
                    self.undecodable(&row.key, Some(instance), &error);
                }
            }
        }
    }

    /// A leaf lies under its path; its further chunks under the path, a nil and a number.
    fn leaf(&mut self, instance: &InstanceId, path: &[u8], row: KeyValue) {
        if Path::from_tuple(path).is_ok() {
            self.close();
            let span = KeyRange::new(row.key.clone(), [&row.key[..], &[1]].concat());
            self.chunk(What::Leaf, instance, span, 0, row);
            return;
        }
        match &self.open {
            Some(open) if open.what == What::Leaf && open.span.contains(&row.key) => {
                let (span, chunk) = (open.span.clone(), open.parts.len());
                let chunk = u32::try_from(chunk).unwrap_or(u32::MAX);
                self.chunk(What::Leaf, instance, span, chunk, row);
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

    fn chunk(
        &mut self,
        what: What,
        instance: &InstanceId,
        span: KeyRange,
        chunk: u32,
        row: KeyValue,
    ) {
        if let Some(open) = &mut self.open {
            let next = u32::try_from(open.parts.len()).unwrap_or(u32::MAX);
            if chunk == next && open.parts.len() < open.expected {
                open.parts.push(row.value);
            } else {
                // Counted as damage when the value ends.
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
                    instance: Some(instance.clone()),
                    expected: usize::from(u16::from_be_bytes(*count)),
                    parts: vec![row.value.slice(COUNT_BYTES..)],
                });
            }
            _ => self.findings.push(
                Finding::new(
                    FindingCode::OrphanedChunks,
                    row.key,
                    format!("chunk {chunk} stands without those before it"),
                )
                .of(instance),
            ),
        }
    }

    /// The value that was under way has come to its end.
    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        let Some(instance) = &open.instance else {
            return;
        };
        if open.parts.len() != open.expected {
            let what = match open.expected {
                usize::MAX => "chunks of the value are missing or too many".to_owned(),
                expected => format!("{} of {expected} chunks", open.parts.len()),
            };
            let finding = Finding::new(FindingCode::IncompleteChunks, open.first, what);
            self.findings.push(finding.of(instance));
            return;
        }
        let whole = open.parts.concat();
        let key = &open.first;
        let decoded = match open.what {
            What::Message | What::LockedMessage => value::decode::<Message>(key, &whole).map(drop),
            What::DeadLetter => value::decode::<DeadLetter>(key, &whole).map(drop),
            // A container's marker begins with the byte that begins no MessagePack.
            What::Leaf if whole.first() == Some(&0xc1) => Ok(()),
            What::Leaf => Value::from_payload(&whole)
                .map(drop)
                .map_err(|error| value::corrupt(key, "the leaf is damaged").with_source(error)),
        };
        if let Err(error) = decoded {
            self.undecodable(&open.first.clone(), Some(&instance.clone()), &error);
        }
    }

    fn record<T: DeserializeOwned>(&mut self, row: &KeyValue, instance: Option<&InstanceId>) {
        if let Err(error) = value::decode::<T>(&row.key, &row.value) {
            self.undecodable(&row.key, instance, &error);
        }
    }

    fn undecodable(&mut self, key: &Bytes, instance: Option<&InstanceId>, error: &StoreError) {
        let finding = Finding::new(
            FindingCode::UndecodableValue,
            key.clone(),
            error.to_string(),
        );
        self.findings.push(match instance {
            Some(instance) => finding.of(instance),
            None => finding,
        });
    }
}

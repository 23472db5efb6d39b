//! Every key and value for itself.

mod chunks;

use super::{Finding, FindingCode};
use crate::admin::import::Progress;
use crate::admin::page::{Place, what_is_wrong};
use crate::durable::attempts::Attempts;
use crate::durable::keys::{Key, Part, SessionId, SessionKeys, SessionPart};
use crate::durable::pause::Paused;
use crate::durable::session::Heartbeat;
use crate::durable::{Namespace, directory, lane, ready, state, value};
use crate::id::InstanceId;
use crate::store::{KeyRange, KeyValue, StoreError, TransactionExt, Tx, after};
use bytes::Bytes;
use chunks::{Open, What};
use serde::de::DeserializeOwned;

/// How many rows one transaction checks: more than any value has chunks, so that a value that is cut
/// off by the end of a page is read again from its first chunk, and the check gets ahead.
const PAGE: usize = 150;

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
        absent: None,
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

struct Check<'a> {
    namespace: &'a Namespace,
    findings: Vec<Finding>,
    open: Option<Open>,
    /// The session whose rows were met last, and whether it has no heartbeat.
    absent: Option<(SessionId, bool)>,
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
            Key::Directory(ref instance) => self.renewable(&key, &row, Some(instance)),
            Key::Ready { ref instance, .. } => self.renewable(&key, &row, Some(instance)),
            Key::Wake { .. } => self.renewable(&key, &row, None),
            Key::KindPaused { .. } => self.record::<Paused>(&row, None),
            Key::Session { session, part } => self.session(tx, session, part, row).await?,
            Key::Import => {
                self.record::<Progress>(&row, None);
                self.findings.push(Finding::new(
                    FindingCode::UnfinishedImport,
                    row.key,
                    "an import has not come to its end: go on with it, or abandon it \
                     (`import --abandon`)",
                ));
            }
            // Without it the namespace cannot be opened.
            Key::Meta => {}
        }
        Ok(())
    }

    async fn session(
        &mut self,
        tx: &Tx,
        session: SessionId,
        part: SessionPart,
        row: KeyValue,
    ) -> Result<(), StoreError> {
        let keys = self.namespace.keys().session(session);
        let absent = match self.absent {
            Some((of, absent)) if of == session => absent,
            _ => {
                let absent = tx.peek(&keys.heartbeat()).await?.is_none();
                self.absent = Some((session, absent));
                absent
            }
        };
        match part {
            SessionPart::Heartbeat => {
                if let Err(error) = Heartbeat::decode(&row.key, &row.value) {
                    self.undecodable(&row.key, None, &error);
                }
            }
            SessionPart::Reply { call, chunk } => {
                if absent {
                    self.leftover(FindingCode::RepliesOfAbsentSession, &keys, row.key);
                    return Ok(());
                }
                let span = keys.reply_chunks(call);
                self.chunk(What::Reply, None, span, chunk, row);
            }
            SessionPart::Outcome { .. } | SessionPart::ReplyWake if absent => {
                self.leftover(FindingCode::RemainsOfAbsentSession, &keys, row.key);
            }
            SessionPart::Outcome { .. } => {
                if let Err(error) = lane::attempts_in(&row.key, &row.value) {
                    // It alone knows what it has tried, and will find out.
                    self.undecodable(&row.key, None, &error);
                }
            }
            SessionPart::ReplyWake => {
                let key = Key::Session { session, part };
                self.renewable(&key, &row, None);
            }
        }
        Ok(())
    }

    /// Something of a session that is gone: one finding stands for all of its kind, readable or not.
    fn leftover(&mut self, code: FindingCode, keys: &SessionKeys, key: Bytes) {
        let all = keys.all();
        let is_same = |of: &Finding| of.code == code && all.contains(&of.key);
        if self.findings.iter().any(is_same) {
            return;
        }
        let text = match code {
            FindingCode::RepliesOfAbsentSession => {
                "replies came for a session that is gone; nodes sweep them after a minute"
            }
            _ => "something is left of a session that is gone; nodes sweep it after a minute",
        };
        self.found(code, key, None, text);
    }

    /// A record that `--fix` writes anew.
    fn renewable(&mut self, key: &Key, row: &KeyValue, instance: Option<&InstanceId>) {
        let Err(error) = read_record(key, &row.key, &row.value) else {
            return;
        };
        let code = FindingCode::UndecodableRecord;
        let text = what_is_wrong(&row.key, &error);
        self.found(code, row.key.clone(), instance, text);
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
                self.chunk(What::Message, Some(instance), span, chunk, row);
            }
            Part::DeadLetter { stamp, chunk } => {
                let end = after(&keys.dead_letter(stamp, u32::MAX));
                let span = KeyRange::new(keys.dead_letter(stamp, 0), end);
                self.chunk(What::DeadLetter, Some(instance), span, chunk, row);
            }
            // Compared with the rest of the instance, later.
            Part::Lock | Part::Length => {}
            Part::LockMessage { chunk } => {
                let span = keys.lock_message();
                self.chunk(What::LockedMessage, Some(instance), span, chunk, row);
            }
            Part::Attempts { .. } => {
                let key = Key::Instance {
                    shard: keys.shard(),
                    instance: instance.clone(),
                    part,
                };
                self.renewable(&key, &row, Some(instance));
            }
            Part::Paused => self.record::<Paused>(&row, Some(instance)),
            Part::State { path } => self.leaf(instance, &path, row),
            Part::Version => {
                if let Err(error) = state::decode_version(&row.key, &row.value) {
                    self.undecodable(&row.key, Some(instance), &error);
                }
            }
        }
    }

    fn found(
        &mut self,
        code: FindingCode,
        key: Bytes,
        instance: Option<&InstanceId>,
        text: impl Into<String>,
    ) {
        let finding = Finding::new(code, key, text);
        self.findings.push(match instance {
            Some(instance) => finding.of(instance),
            None => finding,
        });
    }

    fn record<T: DeserializeOwned>(&mut self, row: &KeyValue, instance: Option<&InstanceId>) {
        if let Err(error) = value::decode::<T>(&row.key, &row.value) {
            self.undecodable(&row.key, instance, &error);
        }
    }

    fn undecodable(&mut self, key: &Bytes, instance: Option<&InstanceId>, error: &StoreError) {
        let code = FindingCode::UndecodableValue;
        self.found(code, key.clone(), instance, what_is_wrong(key, error));
    }
}

/// Whether it is a record that can be written anew, and has to be.
pub(super) fn is_bad(decoded: &Key, key: &Bytes, stored: &[u8]) -> bool {
    read_record(decoded, key, stored).is_err()
}

/// Reads a record that can be written anew; everything else is none of its business.
fn read_record(decoded: &Key, key: &Bytes, stored: &[u8]) -> Result<(), StoreError> {
    const COUNTER: usize = 8;
    match decoded {
        Key::Instance {
            part: Part::Attempts { .. },
            ..
        } => value::decode::<Attempts>(key, stored).map(drop),
        Key::Directory(_) => directory::decode(key, stored).map(drop),
        Key::Ready { .. } => match ready::stamp_of(stored) {
            Some(_) => Ok(()),
            None => Err(value::corrupt(key, "the value is no ready mark")),
        },
        Key::Wake { .. }
        | Key::Session {
            part: SessionPart::ReplyWake,
            ..
        } if stored.len() != COUNTER => {
            let what = format!("the counter is {} bytes long, not {COUNTER}", stored.len());
            Err(value::corrupt(key, &what))
        }
        _ => Ok(()),
    }
}

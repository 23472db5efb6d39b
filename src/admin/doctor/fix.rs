//! Mending what can be mended without losing anything.

use super::instance::{count, is_about};
use super::rows::is_bad;
use super::{Finding, FindingCode};
use crate::admin::purge::{is_idle, tell};
use crate::admin::{Admin, AdminError};
use crate::durable::dead::{self, DeadLetter};
use crate::durable::keys::{InstanceKeys, Key, Lane};
use crate::durable::{Answer, Work, attempts, directory, lock, ready, state};
use crate::id::InstanceId;
use crate::store::{Isolation, TransactionExt, Tx};

impl Admin {
    /// Mends what a finding has found, in one transaction that looks again, serializably. Whether
    /// there was still something to mend.
    ///
    /// # Errors
    ///
    /// [`Refused`](crate::admin::AdminErrorKind::Refused) for a finding that is not
    /// [fixable](Finding::is_fixable); whatever the store answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the outcome unknown.
    pub async fn fix(&self, finding: &Finding) -> Result<bool, AdminError> {
        if !finding.is_fixable() {
            return Err(AdminError::refused(format!(
                "`{}` cannot be mended without losing something",
                finding.code.name()
            )));
        }
        self.change(|tx| async move {
            let fixed = match (finding.code, &finding.instance) {
                (FindingCode::RepliesOfAbsentSession | FindingCode::RemainsOfAbsentSession, _) => {
                    self.sweep(&tx, finding).await?
                }
                (FindingCode::UndecodableRecord, _) => self.renew(&tx, finding).await?,
                (code, Some(instance)) => self.mend(&tx, code, instance).await?,
                _ => false,
            };
            Ok(if fixed {
                Work::Write(true)
            } else {
                Work::Look(false)
            })
        })
        .await
    }

    async fn mend(
        &self,
        tx: &Tx,
        code: FindingCode,
        instance: &InstanceId,
    ) -> Result<bool, AdminError> {
        let namespace = &self.namespace;
        let keys = namespace.keys().instance(instance);
        let entry = namespace.keys().directory(instance);
        match code {
            FindingCode::MarkOverNothing => {
                let due = is_idle(tx, &keys).await? && tx.read(keys.ready()).await?.is_some();
                if due {
                    tx.clear(keys.ready());
                }
                Ok(due)
            }
            FindingCode::MissingMark => {
                let due = !is_idle(tx, &keys).await? && tx.read(keys.ready()).await?.is_none();
                if due {
                    ready::set_mark(tx, &keys);
                    ready::wake(tx, namespace, keys.shard());
                }
                Ok(due)
            }
            FindingCode::WrongLength => self.recount(tx, &keys).await,
            FindingCode::MessageWithoutLock => self.bury_unlocked(tx, &keys).await,
            FindingCode::StaleAttempts => {
                let mut due = false;
                for lane in [Lane::Ordinary, Lane::Priority] {
                    let record = attempts::read(tx, &keys, lane).await?;
                    // The first row, serializably: what changes the head meanwhile fails the commit.
                    let first = keys.mailbox(lane).read().limit(1);
                    let first = tx.get_range(first).await?;
                    let first = first.first().and_then(|row| stamp_of(namespace, &row.key));
                    if record.is_some_and(|record| !is_about(&record, first)) {
                        attempts::clear(tx, &keys, lane);
                        due = true;
                    }
                }
                Ok(due)
            }
            FindingCode::StateWithoutEntry => {
                let has_state = state::read_version(tx, &keys).await?.is_some();
                let due = has_state && tx.read(&entry).await?.is_none();
                if due {
                    directory::add(tx, namespace.keys(), instance, self.now_ms())?;
                }
                Ok(due)
            }
            FindingCode::EntryWithoutState => {
                let has_state = state::read_version(tx, &keys).await?.is_some();
                let due = !has_state && tx.read(&entry).await?.is_some();
                if due {
                    directory::remove(tx, namespace.keys(), instance);
                }
                Ok(due)
            }
            _ => Ok(false),
        }
    }

    /// Makes a dead letter of a message that stands under no lock: whether it was handled nobody knows,
    /// so it is not run again before somebody has decided so.
    async fn bury_unlocked(&self, tx: &Tx, keys: &InstanceKeys) -> Result<bool, AdminError> {
        let alone = tx.read(&keys.lock()).await?.is_none();
        let nothing = tx.is_empty(&keys.lock_message(), Isolation::Serializable);
        if !alone || nothing.await? {
            return Ok(false);
        }
        let now = self.now_ms();
        let letter = DeadLetter {
            message: lock::read_message(tx, keys).await?,
            // That stood in the lock.
            lane: Lane::Ordinary,
            incarnation: self.namespace.incarnation(),
            error: "it was under a lock that was not there any more".to_owned(),
            attempts: 0,
            first_failed_ms: now,
            dead_ms: now,
        };
        dead::write_new(tx, keys, 0, &letter)?;
        let answer = Answer::DeadLetter(letter.error);
        tell(tx, &self.namespace, &letter.message, &answer)?;
        lock::clear(tx, keys);
        Ok(true)
    }

    /// Counts the messages, serializably, and writes how many there are.
    async fn recount(&self, tx: &Tx, keys: &InstanceKeys) -> Result<bool, AdminError> {
        let mut messages = 0_i64;
        for lane in [Lane::Ordinary, Lane::Priority] {
            let counted = count(tx, &self.namespace, keys, lane, Isolation::Serializable).await?;
            messages += counted
                .messages
                .ok_or_else(|| AdminError::refused("the mailbox is too long to be counted"))?;
        }
        let stored = tx.read(&keys.length()).await?;
        let right = (messages != 0).then(|| messages.to_le_bytes());
        if stored.as_deref() == right.as_ref().map(|bytes| &bytes[..]) {
            return Ok(false);
        }
        match right {
            Some(bytes) => tx.set(&keys.length(), &bytes),
            None => tx.clear(&keys.length()),
        }
        Ok(true)
    }

    /// Writes a record anew that cannot be read.
    async fn renew(&self, tx: &Tx, finding: &Finding) -> Result<bool, AdminError> {
        let namespace = &self.namespace;
        let (all, key) = (namespace.keys(), &finding.key);
        let Some(stored) = tx.read(key).await? else {
            return Ok(false);
        };
        let Some(decoded) = all.decode(key).ok().filter(|of| is_bad(of, key, &stored)) else {
            return Ok(false);
        };
        match decoded {
            // The attempts at the head begin anew; who holds a claim commits or not as ever.
            Key::Instance { .. } => tx.clear(key),
            Key::Directory(instance) => {
                let of = all.instance(&instance);
                match tx.peek(&of.version()).await? {
                    Some(_) => directory::add(tx, all, &instance, self.now_ms())?,
                    None => directory::remove(tx, all, &instance),
                }
                // A first turn or a reset meanwhile decides.
                tx.add_read_conflict_key(&of.version());
            }
            Key::Ready { instance, .. } => {
                let of = all.instance(&instance);
                match is_idle(tx, &of).await? {
                    true => tx.clear(key),
                    false => {
                        ready::set_mark(tx, &of);
                        ready::wake(tx, namespace, of.shard());
                    }
                }
            }
            // A value that it never had, so that everyone who compares it wakes up.
            _ => {
                let fresh = namespace.database().env().random() >> 1;
                tx.set(key, &fresh.to_le_bytes());
            }
        }
        Ok(true)
    }

    /// Removes what came for a session that is gone.
    async fn sweep(&self, tx: &Tx, finding: &Finding) -> Result<bool, AdminError> {
        let Ok(Key::Session { session, .. }) = self.namespace.keys().decode(&finding.key) else {
            return Ok(false);
        };
        let keys = self.namespace.keys().session(session);
        let due = tx.read(&keys.heartbeat()).await?.is_none()
            && !tx.is_empty(&keys.all(), Isolation::Serializable).await?;
        if due {
            tx.clear_range(&keys.all());
        }
        Ok(due)
    }
}

fn stamp_of(namespace: &crate::durable::Namespace, key: &[u8]) -> Option<crate::store::Stamp> {
    match namespace.keys().decode(key) {
        Ok(Key::Instance {
            part: crate::durable::keys::Part::Message { stamp, .. },
            ..
        }) => Some(stamp),
        _ => None,
    }
}

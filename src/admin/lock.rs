//! Locks: who holds one, since when, for what; and breaking it.

use super::Admin;
use super::error::AdminError;
use super::page::Damage;
use super::purge::tell;
use super::views::MessageView;
use crate::durable::attempts::{self, Attempts};
use crate::durable::dead::{self, DeadLetter};
use crate::durable::keys::{InstanceKeys, Lane, SessionId};
use crate::durable::lock::{self, Lock};
use crate::durable::queue::{self, Pushes};
use crate::durable::{Answer, Message, Work, ready};
use crate::id::InstanceId;
use crate::store::{CommitStamp, Stamp, StoreErrorKind, TransactionExt, Tx};
use bytes::Bytes;
use futures_util::future::try_join;

/// What a caller is told whose message's lock was broken.
const BROKEN: &str = "an operator has broken the lock and put the message aside";

/// A lock that is held.
#[derive(Debug, Clone)]
pub struct LockView {
    /// Names this taking of the lock.
    pub token: CommitStamp,
    /// The holder's session; none if the holder has given it up.
    pub session: Option<SessionId>,
    /// Grows with each renewal: a holder whose nonce stands still for a lease is dead.
    pub nonce: u64,
    /// How many runs of the message have failed.
    pub attempts: u32,
    /// When the message is run again, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// When the lock was taken, in milliseconds since 1970.
    pub taken_ms: u64,
    /// The message's stamp; none if it never stood in a mailbox.
    pub stamp: Option<Stamp>,
    /// The mailbox that the message was for.
    pub lane: Lane,
    /// Why the last run failed; empty before the first.
    pub error: String,
    /// What it runs, or why that cannot be read; none where it was not asked for.
    pub message: Option<Result<MessageView, Damage>>,
}

impl LockView {
    pub(super) fn new(lock: &Lock) -> Self {
        Self {
            token: lock.token,
            session: (!lock.is_given_up()).then_some(lock.session),
            nonce: lock.nonce,
            attempts: lock.attempts,
            not_before_ms: lock.not_before_ms,
            taken_ms: lock.taken_ms,
            stamp: lock.stamp,
            lane: lock.lane,
            error: lock.error.clone(),
            message: None,
        }
    }
}

/// What becomes of the message of a lock that is [broken](Admin::break_lock).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It goes back into its mailbox, to its place before all that was pushed after it, with no
    /// attempts counted; its caller goes on waiting.
    Retry,
    /// It becomes a dead letter, and its caller is told.
    DeadLetter,
    /// It is deleted, and its caller is told. The only way if it cannot be read.
    Discard,
}

/// A lock that was broken, or would be.
#[derive(Debug, Clone)]
pub struct Broken {
    /// The lock as it was; none if its header could not be read.
    pub lock: Option<LockView>,
    /// Its header as it is stored, if that could not be read.
    damaged: Option<Bytes>,
}

impl Broken {
    /// Whether it is the same taking of the same lock.
    fn is_of(&self, other: &Self) -> bool {
        let token = |of: &Self| of.lock.as_ref().map(|lock| lock.token);
        token(self) == token(other) && self.damaged == other.damaged
    }
}

impl Admin {
    /// The lock of an instance with the message that it is held for; none if there is no lock.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](super::AdminErrorKind::Corrupt) if its header is damaged; whatever the store
    /// answers.
    pub async fn lock(&self, instance: &InstanceId) -> Result<Option<LockView>, AdminError> {
        let keys = self.namespace.keys().instance(instance);
        let read = self.look(|tx| {
            let keys = keys.clone();
            async move {
                let message = async { Ok(lock::read_message(&tx, &keys).await) };
                try_join(lock::read_lock(&tx, &keys), message).await
            }
        });
        let (held, message) = read.await?;
        let Some(held) = held else {
            return Ok(None);
        };
        let message = match message {
            Ok(message) => Ok((&message).into()),
            Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                Err(Damage::new(keys.lock_message_chunk(0), &error))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some(LockView {
            message: Some(message),
            ..LockView::new(&held)
        }))
    }

    /// Ends the lock of an instance. Its holder is fenced: what it does from now on changes nothing.
    ///
    /// # Errors
    ///
    /// - [`NotFound`](super::AdminErrorKind::NotFound) if there is no lock.
    /// - [`Refused`](super::AdminErrorKind::Refused) if its message cannot be read and is not to be
    ///   discarded.
    /// - Whatever the store answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the outcome unknown.
    pub async fn break_lock(
        &self,
        instance: &InstanceId,
        then: Then,
        dry_run: bool,
    ) -> Result<Broken, AdminError> {
        self.break_if(instance, then, dry_run, None).await
    }

    /// As [`break_lock`](Self::break_lock), but only the lock that a dry run has shown: not that of
    /// another holder, or of another message, who has come to it since.
    ///
    /// # Errors
    ///
    /// [`Refused`](super::AdminErrorKind::Refused) if it is another lock; else as
    /// [`break_lock`](Self::break_lock).
    ///
    /// # Cancel safety
    ///
    /// As [`break_lock`](Self::break_lock).
    pub async fn break_lock_planned(
        &self,
        instance: &InstanceId,
        then: Then,
        planned: &Broken,
    ) -> Result<Broken, AdminError> {
        self.break_if(instance, then, false, Some(planned)).await
    }

    async fn break_if(
        &self,
        instance: &InstanceId,
        then: Then,
        dry_run: bool,
        planned: Option<&Broken>,
    ) -> Result<Broken, AdminError> {
        let keys = self.namespace.keys().instance(instance);
        let broken = self.change_or_plan(dry_run, |tx| {
            let keys = keys.clone();
            async move {
                self.break_in(&tx, &keys, instance, (then, dry_run), planned)
                    .await
            }
        });
        let broken = broken.await?;
        if !dry_run && then != Then::Retry {
            self.settle(&keys).await?;
        }
        Ok(broken)
    }

    async fn break_in(
        &self,
        tx: &Tx,
        keys: &InstanceKeys,
        instance: &InstanceId,
        (then, dry_run): (Then, bool),
        planned: Option<&Broken>,
    ) -> Result<Work<Broken>, AdminError> {
        let namespace = &self.namespace;
        let (held, damage, damaged) = match lock::read_lock(tx, keys).await {
            Ok(Some(held)) => (Some(held), None, None),
            Ok(None) => {
                return Err(AdminError::not_found(format!("{instance} is not locked")));
            }
            Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                // A commit that changes it meanwhile fails this one.
                let header = tx.read(&keys.lock()).await?;
                (None, Some(error), header)
            }
            Err(error) => return Err(error.into()),
        };
        let (message, unread) = match lock::read_message(tx, keys).await {
            Ok(message) => (Some(message), None),
            Err(error) if error.kind() == StoreErrorKind::Corrupt => (None, Some(error)),
            Err(error) => return Err(error.into()),
        };
        let view = held.as_ref().map(|held| LockView {
            message: message.as_ref().map(|message| Ok(message.into())),
            ..LockView::new(held)
        });
        let readable = held.as_ref().zip(message.as_ref());
        if readable.is_none() && then != Then::Discard {
            let refused = AdminError::refused(format!(
                "the message under the lock of {instance} cannot be read: it can be discarded"
            ));
            return Err(match damage.or(unread) {
                Some(error) => refused.with_source(error),
                None => refused,
            });
        }
        let broken = Broken {
            lock: view,
            damaged,
        };
        if planned.is_some_and(|planned| !planned.is_of(&broken)) {
            return Err(AdminError::refused(format!(
                "the lock of {instance} is another one than was shown"
            )));
        }
        if dry_run {
            return Ok(Work::Look(broken));
        }
        match (then, readable, &message) {
            (Then::Retry, Some((held, message)), _) => {
                self.hand_back(tx, keys, instance, held, message).await?;
            }
            (Then::DeadLetter, Some((held, message)), _) => self.bury(tx, keys, held, message)?,
            (_, _, Some(message)) => tell(tx, namespace, message, &Answer::Killed)?,
            _ => {}
        }
        lock::clear(tx, keys);
        // Whoever has parked the instance because of the lock looks again.
        ready::set_mark(tx, keys);
        ready::wake(tx, namespace, keys.shard());
        Ok(Work::Write(broken))
    }

    /// Puts the message back to where it stood: all that was pushed after it stands behind it.
    async fn hand_back(
        &self,
        tx: &Tx,
        keys: &InstanceKeys,
        instance: &InstanceId,
        held: &Lock,
        message: &Message,
    ) -> Result<(), AdminError> {
        let namespace = &self.namespace;
        let stamp = name_of(held);
        let record = match attempts::read(tx, keys, held.lane).await {
            // Whoever handles the message meets it anyway; here it is in nobody's way.
            Err(error) if error.kind() == StoreErrorKind::Corrupt => None,
            record => record?,
        };
        let back = queue::put_back(tx, namespace, keys, held.lane, stamp, message).await?;
        if !back {
            Pushes::new(namespace, tx).push(instance, held.lane, message)?;
            return Ok(());
        }
        // A record is about the head, which this message is from now on. What counts against several
        // goes on counting against them, as it did before this one took the lock; what is known of one
        // alone would go with the message before it.
        match record.filter(|record| record.stamp > stamp) {
            Some(record) if record.shared > 0 => {
                let record = Attempts { stamp, ..record };
                attempts::write(tx, keys, held.lane, &record)?;
            }
            Some(_) => attempts::clear(tx, keys, held.lane),
            None => {}
        }
        Ok(())
    }

    fn bury(
        &self,
        tx: &Tx,
        keys: &InstanceKeys,
        held: &Lock,
        message: &Message,
    ) -> Result<(), AdminError> {
        let now = self.now_ms();
        let error = match held.error.is_empty() {
            true => BROKEN.to_owned(),
            false => held.error.clone(),
        };
        let letter = DeadLetter {
            message: message.clone(),
            lane: held.lane,
            incarnation: self.namespace.incarnation(),
            error,
            attempts: held.attempts,
            first_failed_ms: held.taken_ms,
            dead_ms: now,
        };
        dead::write(tx, keys, name_of(held), &letter)?;
        let answer = Answer::DeadLetter(letter.error);
        Ok(tell(tx, &self.namespace, message, &answer)?)
    }
}

/// The place of the message under a lock: its own stamp, or for one that never stood in the mailbox
/// that of the taking, which came after all that was handled before and before all that was pushed
/// later. No push has this user version.
pub(super) fn name_of(held: &Lock) -> Stamp {
    held.stamp.unwrap_or_else(|| held.token.with_user(u16::MAX))
}

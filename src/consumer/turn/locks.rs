//! Turns about a lock: taking one over, counting the failure of a run.
//!
//! Invariant: whoever changes anything under a lock has read, serializably in the same transaction,
//! that the lock still has the token it knows. A holder whose lock was taken over, broken or killed
//! finds another token, or none, and changes nothing.

use super::{Mark, Next, Scene, Turn, UnderLock, millis};
use crate::consumer::view::View;
use crate::durable::lock::{self, Lock, NewLock};
use crate::durable::{Answer, Message, SessionError, Work, ready};
use crate::server::{Failure, FailureKind};
use crate::store::{Stamp, StoreError, Tx};
use std::sync::Arc;
use std::time::Duration;

impl Scene<'_> {
    /// Takes over the lock of a holder that is dead, and runs its message again; or gives the
    /// message up, if it has been tried as often as it may.
    pub(super) async fn take_over(
        &self,
        tx: &Tx,
        view: &View,
        held: &Lock,
    ) -> Result<Work<Turn>, SessionError> {
        let message = Arc::new(lock::read_message(tx, self.keys).await?);
        // That a node was stopped is no fault of the message's, however often it happens, so it is
        // counted apart.
        let given_up = held.is_given_up();
        let after = Lock {
            attempts: held.attempts.saturating_add(u32::from(!given_up)),
            stops: held.stops.saturating_add(u32::from(given_up)),
            ..held.clone()
        };
        let error = match (held.error.as_str(), given_up) {
            ("", false) => "the process that ran it died",
            (error, _) => error,
        };
        if !given_up && self.kind.options.is_final(after.attempts) {
            return self.bury_locked(tx, view, held, &message, after.attempts, error);
        }
        let wait = match given_up {
            true => Duration::ZERO,
            false => self
                .kind
                .options
                .jittered_after(after.attempts, self.env.random()),
        };
        let new = NewLock {
            session: self.session,
            attempts: after.attempts,
            stops: after.stops,
            not_before_ms: self.wall_ms().saturating_add(millis(wait)),
            taken_ms: self.wall_ms(),
            stamp: held.stamp,
            lane: held.lane,
            error: error.to_owned(),
        };
        lock::take(tx, self.keys, &new, None)?;
        ready::set_mark(tx, self.keys);
        Ok(Work::Write(Turn {
            under_lock: Some(UnderLock {
                token: None,
                message,
                stamp: held.stamp,
                attempt: after.next_attempt(),
                after: wait,
            }),
            mark: Mark::Own,
            ..self.handed_back(Next::Again)
        }))
    }

    /// The run of a message under the lock ended with a failure.
    pub(super) fn run_failed(
        &self,
        tx: &Tx,
        view: &View,
        failure: &Failure,
    ) -> Result<Work<Turn>, SessionError> {
        if failure.kind() == FailureKind::Fail {
            return self.count_lock(tx, view, failure.message());
        }
        let Some(closing) = self.closing else {
            return Ok(Work::Look(self.handed_back(Next::Again)));
        };
        let mut turn = self.unlocked(tx, view);
        if let Some(call) = closing.message.call {
            let rejected = Answer::Rejected(failure.message().to_owned());
            self.answer(tx, &mut turn, call, rejected)?;
        }
        turn.handled = 1;
        Ok(Work::Write(turn))
    }

    /// Counts a failure under the lock. The lock stays, until the message may be tried no more.
    pub(super) fn count_lock(
        &self,
        tx: &Tx,
        view: &View,
        error: &str,
    ) -> Result<Work<Turn>, SessionError> {
        let (Some(held), Some(closing)) = (&view.lock, self.closing) else {
            return Ok(Work::Look(self.handed_back(Next::Again)));
        };
        let failures = held.attempts.saturating_add(1);
        if self.kind.options.is_final(failures) {
            return self.bury_locked(tx, view, held, &closing.message, failures, error);
        }
        let wait = self
            .kind
            .options
            .jittered_after(failures, self.env.random());
        let next = Lock {
            nonce: held.nonce.wrapping_add(1),
            attempts: failures,
            not_before_ms: self.wall_ms().saturating_add(millis(wait)),
            error: error.to_owned(),
            ..held.clone()
        };
        lock::write_renewed(tx, self.keys, &next)?;
        Ok(Work::Write(Turn {
            failed: 1,
            closed: true,
            under_lock: Some(UnderLock {
                token: Some(held.token),
                message: Arc::clone(&closing.message),
                stamp: closing.stamp,
                attempt: next.next_attempt(),
                after: wait,
            }),
            mark: Mark::Seen(view.mark.clone()),
            ..self.handed_back(Next::Again)
        }))
    }

    /// Renews the lock of a run that has ended, and that renews no more, while its end cannot be
    /// brought into the state: nobody is to take its holder for dead. Whether there is one.
    pub(super) fn keep_lock(&self, tx: &Tx, view: &View) -> Result<bool, StoreError> {
        let held = view.lock.as_ref().zip(self.closing);
        let held = held.filter(|(held, closing)| held.is_held_by(closing.token));
        let Some((held, _)) = held else {
            return Ok(false);
        };
        lock::write_renewed(tx, self.keys, &held.renewed())?;
        Ok(true)
    }

    /// Makes a dead letter of the message under the lock.
    fn bury_locked(
        &self,
        tx: &Tx,
        view: &View,
        held: &Lock,
        message: &Arc<Message>,
        failures: u32,
        error: &str,
    ) -> Result<Work<Turn>, SessionError> {
        let mut turn = self.unlocked(tx, view);
        turn.failed = 1;
        self.bury(
            tx,
            &mut turn,
            message,
            (held.lane, stamp_of(held)),
            (failures, held.taken_ms),
            error,
        )?;
        Ok(Work::Write(turn))
    }

    /// Removes the lock, and wakes who waits for it.
    fn unlocked(&self, tx: &Tx, view: &View) -> Turn {
        lock::clear(tx, self.keys);
        ready::wake(tx, self.namespace, self.keys.shard());
        let empty = [&view.priority, &view.ordinary]
            .into_iter()
            .all(|line| line.head.messages.is_empty());
        match empty {
            true => self.settle_mark(tx, view, true),
            // Changed, so that whoever parked the instance because of the lock looks again.
            false => ready::set_mark(tx, self.keys),
        }
        Turn {
            closed: true,
            ..self.handed_back(Next::Again)
        }
    }
}

/// The name of the message under a lock among the dead letters: its own stamp, or for one that never
/// stood in the mailbox the stamp of the taking, with a user version that no push of that commit has.
fn stamp_of(held: &Lock) -> Stamp {
    held.stamp.unwrap_or_else(|| held.token.with_user(u16::MAX))
}

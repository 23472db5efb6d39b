//! The turn: the one transaction that pops a batch, applies the handlers, writes what they changed
//! and stages the replies.
//!
//! Invariants:
//!
//! - *Read, then write.* Everything is read before anything is written: a range that holds a
//!   versionstamped write of its own transaction cannot be read any more, and a conflict on a key
//!   that was already cleared would be dropped.
//! - *Every message handed to a turn is accounted for.* It is applied, pushed into the mailbox, or
//!   handed back, by the same commit that does the rest.
//! - *Nothing leaves before the commit.* Replies, effects and the new state in memory are part of
//!   the turn's value; the worker acts on them once it has landed.

mod locks;
mod rounds;
mod stage;
mod work;

use super::ahead::{self, Reads};
use super::claims::{Claimers, Claims, Reservation};
use super::kinds::Kind;
use super::options::HANDLER_TIME;
use super::plan::{self, Known, LockSeen, Parked, Plan, Unfit, Unfits, Which, covers};
use super::view::{Line, View};
use crate::codec::Ignored;
use crate::codec::{Leaves, Update};
use crate::durable::attempts::{self, Attempts};
use crate::durable::dead::{self, DeadLetter};
use crate::durable::keys::{InstanceKeys, Lane, SessionId};
use crate::durable::message::Failed;
use crate::durable::overview::Window;
use crate::durable::queue::{self, Pushes};
use crate::durable::session;
use crate::durable::state::StateVersion;
use crate::durable::{Answer, CallId, Message, Namespace, SessionError, Work, ready, reply};
use crate::env::Env;
use crate::id::InstanceId;
use crate::planted::{Bug, planted};
use crate::server::{Activation, Failure};
use crate::server::{Effect, Held};
use crate::store::{CommitStamp, Stamp, StoreError, StoreErrorKind, TransactionExt, Tx};
use crate::wake::{Callers, Inline};
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A state in memory, good for as long as the store holds this version of it.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) version: StateVersion,
    pub(super) leaves: Arc<Leaves>,
    pub(super) ignored: Ignored,
    /// Gone while a turn works on it; what is left is enough to build it again.
    pub(super) state: Option<Held>,
    /// Why it is in memory, as long as no turn has landed since.
    pub(super) activation: Option<Activation>,
}

/// The end of a lock's `run`, to be brought into the state.
#[derive(Debug, Clone)]
pub(super) struct Closing {
    pub(super) token: CommitStamp,
    pub(super) message: Arc<Message>,
    pub(super) stamp: Option<Stamp>,
    pub(super) attempt: u32,
    pub(super) result: Result<Bytes, Failure>,
}

/// What a turn is about. The same for all attempts to commit it.
pub(super) struct Scene<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) env: &'a dyn Env,
    pub(super) callers: &'a dyn Callers,
    pub(super) kind: &'a Kind,
    pub(super) instance: &'a InstanceId,
    pub(super) keys: &'a InstanceKeys,
    pub(super) session: SessionId,
    pub(super) cache: &'a Mutex<Option<Cache>>,
    pub(super) inline: &'a [Inline],
    /// The inline messages have waited long enough: what this turn does not handle goes into the
    /// mailbox, so that a busy mailbox does not starve them.
    pub(super) impatient: bool,
    pub(super) closing: Option<&'a Closing>,
    pub(super) holding: Option<CommitStamp>,
    pub(super) lock_seen: &'a Mutex<Option<LockSeen>>,
    pub(super) claimers: &'a Mutex<Claimers>,
    pub(super) waited: Option<(Stamp, u32, Duration)>,
    pub(super) unfit: &'a Unfits,
    pub(super) suspect_until: CommitStamp,
    pub(super) claims: &'a Arc<Claims>,
    /// The worker's right to a claim.
    pub(super) reservation: &'a Mutex<Option<Reservation>>,
    /// One message only: the batch before could not be committed.
    pub(super) single: bool,
    /// A failure that is still to be counted: no transaction with the message's results could be
    /// committed.
    pub(super) blame: Option<&'a Blame>,
    /// The first message that the last attempt was about.
    pub(super) first: Mutex<Option<Blamed>>,
    pub(super) window: Window,
    /// Reads that were begun before, for the first attempt.
    pub(super) ahead: Mutex<Option<Reads>>,
    /// Whether there were any.
    pub(super) chained: bool,
    /// How long the last attempt was in handlers.
    pub(super) in_handlers: Mutex<Duration>,
}

/// What the worker does next.
#[derive(Debug, Default)]
pub(super) enum Next {
    /// Another turn at once: there is more to do.
    Again,
    /// Nothing: no message, no lock.
    #[default]
    Idle,
    /// Nothing until something changes, or the time has passed.
    Park(Parked, Option<Duration>),
    /// The turn once more, with one message only.
    Single,
    /// The turn once more, to count a failure: the message's results cannot be committed.
    Blame(Blame),
}

/// A failure that its own turn could not count. A transaction that has hardly begun does, without
/// running the message again.
#[derive(Debug, Clone)]
pub(super) struct Blame {
    pub(super) whom: Blamed,
    pub(super) error: String,
}

/// A message as a later turn finds it again. Until then others may have come before it, and another
/// process may have handled it.
#[derive(Debug, Clone)]
pub(super) enum Blamed {
    Queued(Lane, Stamp),
    Inline(Arc<Message>),
    Closing(CommitStamp),
}

/// A message to be run under a lock that this process holds now.
#[derive(Debug)]
pub(super) struct UnderLock {
    /// None: the stamp of this turn's commit.
    pub(super) token: Option<CommitStamp>,
    pub(super) message: Arc<Message>,
    pub(super) stamp: Option<Stamp>,
    pub(super) attempt: u32,
    pub(super) after: Duration,
}

/// A message that has just become a dead letter.
#[derive(Debug)]
pub(super) struct Died {
    pub(super) message: Arc<Message>,
    pub(super) stamp: Stamp,
    pub(super) error: String,
    pub(super) attempts: u32,
}

/// What the worker is to do once the turn has landed.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) next: Next,
    pub(super) cache: Option<Cached>,
    pub(super) answers: Vec<(CallId, Answer)>,
    pub(super) effects: Vec<Effect>,
    pub(super) under_lock: Option<UnderLock>,
    pub(super) pushed_to: Vec<InstanceId>,
    pub(super) died: Vec<Died>,
    /// Of the inline messages, which are still to be handled.
    pub(super) left: Vec<usize>,
    /// Some inline messages went into the mailbox.
    pub(super) pushed_inline: bool,
    /// Some calls wait beyond this turn.
    pub(super) answered_later: bool,
    /// The closing was dealt with, or its lock was lost.
    pub(super) closed: bool,
    /// Whether this process has a claim on a head after this turn; if the turn did not find out, it is
    /// as before.
    pub(super) claimed: Option<bool>,
    /// Claims that were given back because this process can do nothing with them.
    pub(super) unfit: Vec<(Lane, Unfit)>,
    /// The failure that was to be counted is counted.
    pub(super) counted: bool,
    /// It is still to be: this turn was about what comes before it.
    pub(super) blame_waits: bool,
    pub(super) stopped: bool,
    /// The state came into this process's memory.
    pub(super) activation: Option<Activation>,
    pub(super) handled: usize,
    pub(super) failed: usize,
    pub(super) waiting_for: Option<(Stamp, u32)>,
    /// The instance's mark after this turn, as far as it knows.
    pub(super) mark: Mark,
    /// Bytes per row of the mailbox, for the next window.
    pub(super) row_bytes: Option<usize>,
}

/// An instance's ready mark after a turn.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// What the turn read.
    Seen(Option<Bytes>),
    /// The stamp of the turn's own commit.
    #[default]
    Own,
}

/// A state after a turn.
#[derive(Debug)]
pub(super) struct Cached {
    /// None: the stamp of this turn's commit.
    pub(super) version: Option<StateVersion>,
    /// Those that were stored before the turn.
    pub(super) leaves: Arc<Leaves>,
    /// What the turn makes of them.
    pub(super) update: Option<Update>,
    pub(super) ignored: Ignored,
    pub(super) state: Held,
}

/// Why an attempt at a mailbox's head is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The process that held the claim died. Whatever it had claimed may have killed it.
    Death,
    /// The message failed by itself; nothing else is to blame.
    Failure,
}

/// A turn that conflicted this often pushes its inline messages instead: another node is at work on
/// the instance, and messages in the mailbox are handled by whichever of the two wins.
const CONFLICTS_BEFORE_PUSH: u32 = 2;

/// Runs one attempt of a turn: everything but the commit.
pub(super) async fn turn(
    scene: &Scene<'_>,
    tx: Tx,
    attempt: u32,
) -> Result<Work<Turn>, SessionError> {
    scene.was_in_handlers(Duration::ZERO);
    scene.is_about(None);
    let ahead = scene
        .ahead
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(ahead) = ahead else {
        let conflicts = attempt.saturating_sub(u32::from(scene.chained));
        if conflicts >= CONFLICTS_BEFORE_PUSH && !scene.inline.is_empty() {
            return scene.push_all_inline(&tx);
        }
        let view = View::read(&tx, scene.keys, scene.window).await?;
        return scene.act(&tx, view).await;
    };
    let view = ahead::finish(ahead).await.ok_or_else(stale)??;
    if !scene.inline.is_empty() && !planted(Bug::ChainedWithoutMailboxConflict) {
        // They arrived after this version, so nothing may have been pushed before them unseen.
        queue::conflict_with_pushes(&tx, scene.keys);
    }
    match scene.act(&tx, view).await? {
        Work::Write(turn) => Ok(Work::Write(turn)),
        Work::Look(turn) if planted(Bug::QueryFromPrefetch) => Ok(Work::Look(turn)),
        // Handlers that take as long as no transaction lives would do so again. Whoever counts that
        // looks, at a fresh version, whether the message is still there.
        Work::Look(turn) if matches!(turn.next, Next::Blame(_)) && scene.has_taken_too_long() => {
            Ok(Work::Look(turn))
        }
        // Nothing would be checked: look again, at a fresh version.
        Work::Look(_) => Err(stale().into()),
    }
}

/// The reads of a turn are of the past. Run again, it reads anew.
fn stale() -> StoreError {
    StoreError::new(StoreErrorKind::TooOld).with_context("a look ahead has to be repeated")
}

impl Scene<'_> {
    /// Decides what the turn is to do, and does it.
    async fn act(&self, tx: &Tx, view: View) -> Result<Work<Turn>, SessionError> {
        if planted(Bug::TurnWatches) {
            drop(tx.watch(&self.namespace.keys().wake(self.keys.shard())));
        }
        let alive = self.living_claimers(tx, &view).await?;
        let holds = self.holds_claim(&view);
        let may_claim = |sole| self.may_claim(sole, holds);
        let known = self.known(&view, &alive, &may_claim);
        let is_owed = self
            .blame
            .is_some_and(|blame| self.is_there(&view, &blame.whom));
        let mut decided = match plan::decide(&view, &known, &self.kind.options) {
            Plan::TakeOver(lock) => self.take_over(tx, &view, &lock).await?,
            Plan::Claim { line, until } => self.claim(tx, view.line(line), until)?,
            Plan::Blame(line) => self.blame_claimed(tx, &view, line)?,
            Plan::Bury(line) => self.bury_head(tx, &view, view.line(line))?,
            Plan::Work {
                close,
                priority,
                ordinary,
            } => {
                let todo = work::Todo {
                    close,
                    priority,
                    ordinary,
                };
                self.work(tx, &view, todo).await?
            }
        };
        let (Work::Write(turn) | Work::Look(turn)) = &mut decided;
        turn.blame_waits = is_owed && !turn.counted;
        Ok(decided)
    }

    /// Whether a message is still to be handled, as far as this turn can see.
    fn is_there(&self, view: &View, whom: &Blamed) -> bool {
        match whom {
            Blamed::Queued(lane, stamp) => {
                let lines = [&view.priority, &view.ordinary];
                let line = lines.into_iter().find(|line| line.lane == *lane);
                line.is_some_and(|line| {
                    let mut messages = line.head.messages.iter();
                    messages.any(|queued| queued.stamp == *stamp)
                })
            }
            Blamed::Inline(message) => {
                let mut inline = self.inline.iter();
                inline.any(|inline| Arc::ptr_eq(&inline.message, message))
            }
            Blamed::Closing(token) => self.closing.is_some_and(|closing| closing.token == *token),
        }
    }
}

impl View {
    fn line(&self, which: Which) -> &Line {
        match which {
            Which::Priority => &self.priority,
            Which::Ordinary => &self.ordinary,
        }
    }
}

impl Scene<'_> {
    fn known<'k>(
        &'k self,
        view: &View,
        alive: &'k [SessionId],
        may_claim: &'k (dyn Fn(bool) -> bool + Sync),
    ) -> Known<'k> {
        let mut seen = self
            .lock_seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *seen = view.lock.as_ref().map(|lock| {
            let lease = self.kind.options.lease;
            LockSeen::next(seen.as_ref(), lock, self.env.now(), lease)
        });
        Known {
            session: self.session,
            incarnation: self.namespace.incarnation(),
            suspect_until: self.suspect_until,
            may_claim,
            holding: self.holding,
            closing: self.closing.map(|closing| closing.token),
            lock_seen: seen.clone(),
            waited: self.waited,
            unfit: self.unfit,
            now: self.env.now(),
            alive,
            wall_ms: self.wall_ms(),
            single: self.single,
        }
    }

    /// Whether this process has a claim on one of the heads.
    fn holds_claim(&self, view: &View) -> bool {
        let lines = [&view.priority, &view.ordinary];
        lines
            .into_iter()
            .any(|line| line.is_claimed_by(self.session))
    }

    /// Whether there is a right to a claim; gets one if there is none. While it `holds` another claim,
    /// that is done with first: without the right to it nobody would end it with the process, whose
    /// stop would look like a death.
    fn may_claim(&self, sole: bool, holds: bool) -> bool {
        let mut reservation = self
            .reservation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match reservation.as_ref() {
            Some(held) if held.is_good_for(sole) => return true,
            Some(_) if holds => return false,
            _ => {}
        }
        *reservation = None;
        *reservation = self.claims.reserve(sole);
        reservation.is_some()
    }

    fn was_in_handlers(&self, time: Duration) {
        *self
            .in_handlers
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// Whether the handlers of this attempt alone took longer than one of them may.
    fn has_taken_too_long(&self) -> bool {
        let time = self.in_handlers.lock();
        *time.unwrap_or_else(PoisonError::into_inner) > HANDLER_TIME
    }

    /// Remembers the message that a turn is about first, for a commit that will be refused.
    fn is_about(&self, first: Option<Blamed>) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = first;
    }

    fn wall_ms(&self) -> u64 {
        session::millis(self.env.wall_clock())
    }

    /// Which of the processes that hold a claim on a head are there. Serializable: a claim must not
    /// be counted as a death beside the claimer's own commit.
    async fn living_claimers(&self, tx: &Tx, view: &View) -> Result<Vec<SessionId>, StoreError> {
        let mut alive = Vec::new();
        for line in [&view.priority, &view.ordinary] {
            let claimer = line.attempts.as_ref().and_then(|attempts| attempts.claim);
            if let Some(claimer) = claimer.filter(|claimer| *claimer != self.session) {
                let heartbeat = self.namespace.keys().session(claimer).heartbeat();
                if let Some(heartbeat) = tx.read(&heartbeat).await? {
                    let mut claimers = self.claimers.lock().unwrap_or_else(PoisonError::into_inner);
                    if claimers.is_alive(claimer, heartbeat, self.env.now()) {
                        alive.push(claimer);
                    }
                }
            }
        }
        Ok(alive)
    }

    fn every_inline(&self) -> Vec<usize> {
        (0..self.inline.len()).collect()
    }

    /// Moves all inline messages into the mailbox. Under the lane of the turn that had them, so that
    /// no attempt of it can land beside this one.
    fn push_all_inline(&self, tx: &Tx) -> Result<Work<Turn>, SessionError> {
        self.push_where(tx, |_| true)?;
        Ok(Work::Write(Turn {
            next: Next::Again,
            pushed_inline: true,
            ..Turn::default()
        }))
    }

    /// Moves the inline messages for some of the mailboxes into them. How many there were.
    fn push_where(&self, tx: &Tx, lane: impl Fn(Lane) -> bool) -> Result<usize, StoreError> {
        let inline = self.inline.iter().enumerate();
        let chosen = inline.filter(|(_, inline)| lane(inline.lane));
        let chosen: Vec<usize> = chosen.map(|(index, _)| index).collect();
        self.push_some(tx, &chosen)?;
        Ok(chosen.len())
    }

    fn push_some(&self, tx: &Tx, chosen: &[usize]) -> Result<(), StoreError> {
        let mut pushes = Pushes::new(self.namespace, tx);
        for inline in chosen.iter().filter_map(|index| self.inline.get(*index)) {
            pushes.push(self.instance, inline.lane, &inline.message)?;
        }
        Ok(())
    }

    /// Pushes a message from memory that has failed.
    fn push_failed(
        &self,
        pushes: &mut Pushes<'_>,
        inline: &Inline,
        error: &str,
    ) -> Result<(), StoreError> {
        let mut error = error.to_owned();
        attempts::shorten(&mut error);
        let message = Message {
            failed: Some(Failed { attempts: 1, error }),
            ..Message::clone(&inline.message)
        };
        pushes.push(self.instance, inline.lane, &message)
    }

    /// Claims the head of a mailbox before it is run.
    fn claim(&self, tx: &Tx, line: &Line, until: Stamp) -> Result<Work<Turn>, StoreError> {
        let Some(first) = line.head.messages.first() else {
            return Ok(Work::Look(self.handed_back(Next::Again)));
        };
        let before = line.attempts.as_ref().filter(|known| covers(known, first));
        let record = match before {
            Some(before) => Attempts {
                stamp: first.stamp,
                until: if before.shared > 0 {
                    before.until
                } else {
                    until
                },
                claim: Some(self.session),
                ..before.clone()
            },
            None => Attempts {
                until,
                claim: Some(self.session),
                ..Attempts::fresh(first.stamp)
            },
        };
        // Against a purge or another node's turn that removes the head meanwhile.
        tx.add_read_conflict(&first.span);
        attempts::write(tx, self.keys, line.lane, &record)?;
        Ok(Work::Write(Turn {
            claimed: Some(true),
            ..self.handed_back(Next::Again)
        }))
    }

    /// Gives back the claims of this process on messages that it does not get to run now: whoever
    /// does next must not take the end of this process for a death. Whether there were any.
    fn release_claims(&self, tx: &Tx, view: &View) -> Result<bool, StoreError> {
        let mut released = false;
        if planted(Bug::ClaimNotReleased) {
            return Ok(released);
        }
        for line in [&view.priority, &view.ordinary] {
            if let Some(known) = &line.attempts
                && line.is_claimed_by(self.session)
            {
                attempts::release(tx, self.keys, line.lane, known)?;
                released = true;
            }
        }
        if released {
            ready::set_mark(tx, self.keys);
            ready::wake(tx, self.namespace, self.keys.shard());
        }
        Ok(released)
    }

    /// Ends a worker's claims, for one that does not go on.
    pub(super) async fn let_go(&self, tx: Tx) -> Result<Work<()>, SessionError> {
        let view = View::read(&tx, self.keys, self.window).await?;
        Ok(match self.release_claims(&tx, &view)? {
            true => Work::Write(()),
            false => Work::Look(()),
        })
    }

    /// Counts the death of the process that held the claim.
    fn blame_claimed(
        &self,
        tx: &Tx,
        view: &View,
        which: Which,
    ) -> Result<Work<Turn>, SessionError> {
        let line = view.line(which);
        self.count(tx, view, line, Cause::Death, "the process that ran it died")
    }

    /// The inline messages stay where they are.
    pub(super) fn handed_back(&self, next: Next) -> Turn {
        Turn {
            next,
            left: self.every_inline(),
            ..Turn::default()
        }
    }

    /// Counts a failure of the message at the head of a mailbox, and makes a dead letter of it if
    /// it was the last one allowed.
    fn count(
        &self,
        tx: &Tx,
        view: &View,
        line: &Line,
        cause: Cause,
        error: &str,
    ) -> Result<Work<Turn>, SessionError> {
        let Some(first) = line.head.messages.first() else {
            return Ok(Work::Look(self.handed_back(Next::Again)));
        };
        let options = &self.kind.options;
        let before = line.attempts.as_ref().filter(|known| covers(known, first));
        let failures = plan::failures(before, first).saturating_add(1);
        let mut turn = Turn {
            failed: 1,
            ..self.handed_back(Next::Again)
        };
        if options.is_final(failures) {
            return self.give_up_head(tx, view, line, failures, error);
        }
        let wait = options.jittered_after(failures, self.env.random());
        let record = match before {
            // A claim on several: any of them may be the cause, so it counts against each.
            Some(before) if cause == Cause::Death && before.attempts == 0 => Attempts {
                stamp: first.stamp,
                shared: u32::from(before.until != first.stamp),
                ..before.clone()
            },
            // What counts against several already goes on counting against them.
            Some(before) if before.shared > 0 => Attempts {
                stamp: first.stamp,
                ..before.clone()
            },
            // Its own failure: those behind it have nothing to do with it, claimed or not.
            Some(before) => Attempts {
                stamp: first.stamp,
                until: first.stamp,
                ..before.clone()
            },
            None => Attempts::fresh(first.stamp),
        };
        let record = Attempts {
            attempts: failures,
            claim: None,
            error: error.to_owned(),
            not_before_ms: self.wall_ms().saturating_add(millis(wait)),
            first_ms: match record.first_ms {
                0 => self.wall_ms(),
                first => first,
            },
            ..record
        };
        tx.add_read_conflict(&first.span);
        attempts::write(tx, self.keys, line.lane, &record)?;
        turn.waiting_for = Some((record.stamp, failures));
        Ok(Work::Write(turn))
    }

    /// Gives up a message that failed as often as it may before it came into the mailbox.
    fn bury_head(&self, tx: &Tx, view: &View, line: &Line) -> Result<Work<Turn>, SessionError> {
        let message = line.head.messages.first().map(|first| &first.message);
        let failed = match message {
            Some(Ok(message)) => message.failed.clone(),
            _ => None,
        };
        let (failures, error) =
            failed.map_or((0, String::new()), |failed| (failed.attempts, failed.error));
        self.give_up_head(tx, view, line, failures, &error)
    }

    /// Makes a dead letter of the message at the head of a mailbox.
    fn give_up_head(
        &self,
        tx: &Tx,
        view: &View,
        line: &Line,
        failures: u32,
        error: &str,
    ) -> Result<Work<Turn>, SessionError> {
        let Some(first) = line.head.messages.first() else {
            return Ok(Work::Look(self.handed_back(Next::Again)));
        };
        let message = match &first.message {
            Ok(message) => Arc::new(message.clone()),
            // A message that cannot be read is never run, so it cannot fail either.
            Err(error) => return Err(error.clone().into()),
        };
        let mut turn = Turn {
            failed: 1,
            ..self.handed_back(Next::Again)
        };
        let first_failed = line.attempts.as_ref().map_or(0, |known| known.first_ms);
        self.bury(
            tx,
            &mut turn,
            &message,
            (line.lane, first.stamp),
            (failures, first_failed),
            error,
        )?;
        self.remove(tx, line, 1)?;
        self.settle_mark(tx, view, self.rest_is_empty(view, line.lane, 1));
        Ok(Work::Write(turn))
    }

    /// Writes a dead letter and tells its caller.
    fn bury(
        &self,
        tx: &Tx,
        turn: &mut Turn,
        message: &Arc<Message>,
        (lane, stamp): (Lane, Stamp),
        (attempts, first_failed_ms): (u32, u64),
        error: &str,
    ) -> Result<(), StoreError> {
        let letter = DeadLetter {
            message: Message::clone(message),
            lane,
            incarnation: self.namespace.incarnation(),
            error: error.to_owned(),
            attempts,
            first_failed_ms: match first_failed_ms {
                0 => self.wall_ms(),
                known => known,
            },
            dead_ms: self.wall_ms(),
        };
        dead::write(tx, self.keys, stamp, &letter)?;
        if let Some(call) = message.call {
            self.answer(tx, turn, call, Answer::DeadLetter(letter.error.clone()))?;
        }
        turn.died.push(Died {
            message: Arc::clone(message),
            stamp,
            error: letter.error,
            attempts,
        });
        Ok(())
    }

    /// Removes the first messages of a mailbox, and what was known of them.
    fn remove(&self, tx: &Tx, line: &Line, count: usize) -> Result<(), StoreError> {
        let (popped, rest) = line
            .head
            .messages
            .split_at(count.min(line.head.messages.len()));
        let Some(last) = popped.last() else {
            return Ok(());
        };
        queue::pop(tx, self.keys, popped);
        let Some(attempts) = &line.attempts else {
            return Ok(());
        };
        // What counts against several messages goes on counting against those that are left.
        if attempts.shared > 0 && last.stamp < attempts.until {
            let record = Attempts {
                stamp: rest.first().map_or(last.stamp, |next| next.stamp),
                until: attempts.until,
                attempts: attempts.shared,
                shared: attempts.shared,
                ..Attempts::fresh(last.stamp)
            };
            attempts::write(tx, self.keys, line.lane, &record)?;
        } else if !planted(Bug::AttemptsLeftBehind) {
            attempts::clear(tx, self.keys, line.lane);
        }
        Ok(())
    }

    /// Whether nothing stands in the mailboxes once `count` messages of one of them are gone.
    fn rest_is_empty(&self, view: &View, lane: Lane, count: usize) -> bool {
        [&view.priority, &view.ordinary].into_iter().all(|line| {
            let gone = if line.lane == lane { count } else { 0 };
            !line.head.more && line.head.messages.len() <= gone
        }) && (view.lock.is_none() || planted(Bug::MarkClearedWhileLocked))
    }

    /// Takes the mark away if the turn leaves nothing behind. It compares: a push that came after
    /// this turn's reads has changed the mark, and keeps it.
    fn settle_mark(&self, tx: &Tx, view: &View, empty: bool) {
        match (&view.mark, empty) {
            (Some(mark), true) => ready::clear_mark(tx, self.keys, mark),
            (None, false) => ready::set_mark(tx, self.keys),
            _ => {}
        }
    }

    /// An answer for a caller: in memory if it is in this process, else in its inbox.
    fn answer(
        &self,
        tx: &Tx,
        turn: &mut Turn,
        call: CallId,
        answer: Answer,
    ) -> Result<(), StoreError> {
        if self.callers.is_mine(call.session) {
            turn.answers.push((call, answer));
            Ok(())
        } else if planted(Bug::ReplyStagedApart) {
            let apart = self.namespace.database().store().begin()?;
            reply::stage(&apart, self.namespace.keys(), call, &answer)?;
            self.env
                .spawn(Box::pin(async move { drop(apart.commit().await) }));
            Ok(())
        } else {
            reply::stage(tx, self.namespace.keys(), call, &answer)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

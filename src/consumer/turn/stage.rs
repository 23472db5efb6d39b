//! What a batch came to, written into the transaction.

use super::work::{Jobs, Source, Todo};
use super::{Cached, Mark, Next, Scene, Turn, UnderLock};
use crate::codec::Update;
use crate::consumer::apply::{Base, Batch, Done, Ended};
use crate::consumer::plan::{Gate, Parked};
use crate::consumer::view::{Line, View};
use crate::durable::keys::Lane;
use crate::durable::lock::{self, NewLock};
use crate::durable::queue::Pushes;
use crate::durable::{Answer, Message, SessionError, Work, directory, ready, state};
use crate::planted::{Bug, planted};
use crate::server::Activation;
use crate::store::{StoreError, Tx};
use std::sync::Arc;
use std::time::Duration;

/// The last part of a turn.
pub(super) struct Stage<'a> {
    pub(super) scene: &'a Scene<'a>,
    pub(super) tx: &'a Tx,
    pub(super) view: &'a View,
    pub(super) todo: &'a Todo,
    pub(super) jobs: &'a Jobs,
    pub(super) base: &'a Base,
}

impl Stage<'_> {
    pub(super) fn finish(
        self,
        batch: Batch,
        stored: Option<Update>,
    ) -> Result<Work<Turn>, SessionError> {
        let count = batch.done.len();
        let behind = self.jobs.sources.get(count).copied();
        if let (0, Ended::Unknown, Some(Source::Queue(_)), Some(job)) =
            (count, &batch.ended, behind, self.jobs.jobs.first())
        {
            let reason = Parked::UnknownMessage(job.message.name.to_string());
            return self.scene.unfit(self.tx, self.view, reason);
        }
        if let (0, Ended::Failed(error), Some(source)) = (count, &batch.ended, behind) {
            return self.scene.first_failed(self.tx, self.view, source, error);
        }
        if let (true, Ended::Failed(error), Some(first)) = (
            planted(Bug::WrongMessageBlamed),
            &batch.ended,
            self.jobs.sources.first(),
        ) {
            return self.scene.first_failed(self.tx, self.view, *first, error);
        }
        let mut turn = Turn {
            handled: count,
            closed: self.scene.closing.is_some(),
            stopped: matches!(batch.ended, Ended::Stopped),
            activation: self.base.activation,
            ..Turn::default()
        };
        let closing = self.todo.close && count > 0;
        let mut wrote = self.pop(count)?;
        if closing {
            lock::clear(self.tx, self.scene.keys);
            ready::wake(self.tx, self.scene.namespace, self.scene.keys.shard());
            wrote = true;
        }
        wrote |= self.write_state(&mut turn, batch.state, stored)?;
        if let Ended::Locked = batch.ended {
            self.take_lock(&mut turn, count)?;
            wrote = true;
        }
        let mut pushes = Pushes::new(self.scene.namespace, self.tx);
        for (done, job) in batch.done.into_iter().zip(&self.jobs.jobs) {
            wrote |= self.deliver(&mut turn, &mut pushes, &job.message, done)?;
        }
        let blocked = match &batch.ended {
            Ended::Failed(_) | Ended::Unknown | Ended::LockTaken => behind,
            _ => None,
        };
        let failed = match &batch.ended {
            Ended::Failed(error) => Some(error.as_str()),
            _ => None,
        };
        wrote |= self.settle_inline(&mut turn, &mut pushes, count, (blocked, failed))?;
        let own_push = turn.pushed_inline || turn.pushed_to.contains(self.scene.instance);
        turn.claimed = Some(self.still_claimed(count));
        let remains = self.settle(&mut turn, &batch.ended, count, own_push, wrote);
        turn.row_bytes = self.row_bytes();
        if own_push || turn.under_lock.is_some() {
            // The push or the taking has set the mark.
        } else if closing && remains {
            // Changed, so that whoever parked the instance because of the lock looks again.
            ready::set_mark(self.tx, self.scene.keys);
            turn.mark = Mark::Own;
        } else if wrote {
            self.scene.settle_mark(self.tx, self.view, !remains);
        }
        Ok(if wrote {
            Work::Write(turn)
        } else {
            Work::Look(turn)
        })
    }

    /// How many of the first `count` jobs come from a mailbox.
    fn taken(&self, lane: Lane, count: usize) -> usize {
        let sources = self.jobs.sources.iter().take(count);
        sources
            .filter(|source| **source == Source::Queue(lane))
            .count()
    }

    fn lines(&self) -> [&Line; 2] {
        [&self.view.priority, &self.view.ordinary]
    }

    /// Whether a claim of this process stays behind, because the turn was about something else.
    fn still_claimed(&self, count: usize) -> bool {
        self.lines()
            .iter()
            .any(|line| line.is_claimed_by(self.scene.session) && self.taken(line.lane, count) == 0)
    }

    /// Removes the messages that were handled from their mailboxes.
    fn pop(&self, count: usize) -> Result<bool, StoreError> {
        let mut popped = false;
        for line in self.lines() {
            let taken = self.taken(line.lane, count);
            if taken > 0 {
                self.scene.remove(self.tx, line, taken)?;
                popped = true;
            }
        }
        Ok(popped)
    }

    /// Writes what changed, and keeps the state for the cache. Whether anything was written.
    fn write_state(
        &self,
        turn: &mut Turn,
        state: Option<crate::server::Held>,
        stored: Option<Update>,
    ) -> Result<bool, StoreError> {
        let Some(state) = state else {
            return Ok(false);
        };
        let Some(stored) = stored else {
            // Looked at only. A state that init made for a query is not kept.
            if let Some(version) = self.view.version {
                turn.cache = Some(Cached {
                    version: Some(version),
                    leaves: Arc::clone(&self.base.leaves),
                    update: None,
                    ignored: self.base.ignored.clone(),
                    state,
                });
            }
            return Ok(false);
        };
        let (tx, keys) = (self.tx, self.scene.keys);
        let schema = self.scene.kind.behaviour.schema();
        let mut version = self.view.version;
        if !self.base.exists {
            directory::add(
                tx,
                self.scene.namespace.keys(),
                self.scene.instance,
                self.scene.wall_ms(),
            )?;
            turn.activation = Some(Activation::Created);
        }
        if !stored.changes.is_empty() || !self.base.exists {
            state::write(tx, keys, &stored.changes, &self.base.leaves, schema)?;
            version = None;
        }
        turn.cache = Some(Cached {
            version,
            leaves: Arc::clone(&self.base.leaves),
            ignored: stored.ignored.clone(),
            update: Some(stored),
            state,
        });
        Ok(version.is_none())
    }

    /// The last message handled goes under the lock.
    fn take_lock(&self, turn: &mut Turn, count: usize) -> Result<(), StoreError> {
        let Some(job) = count
            .checked_sub(1)
            .and_then(|last| self.jobs.jobs.get(last))
        else {
            return Ok(());
        };
        let new = NewLock {
            session: self.scene.session,
            attempts: 0,
            stops: 0,
            not_before_ms: 0,
            taken_ms: self.scene.wall_ms(),
            stamp: job.stamp,
            lane: self.lane_of(count - 1),
            error: String::new(),
        };
        lock::take(self.tx, self.scene.keys, &new, Some(&job.message))?;
        ready::set_mark(self.tx, self.scene.keys);
        turn.under_lock = Some(UnderLock {
            token: None,
            message: Arc::clone(&job.message),
            stamp: job.stamp,
            attempt: 1,
            after: Duration::ZERO,
        });
        Ok(())
    }

    /// The mailbox that a job came from, or would have gone into.
    fn lane_of(&self, index: usize) -> Lane {
        match self.jobs.sources.get(index) {
            Some(Source::Queue(lane)) => *lane,
            Some(Source::Inline(inline)) => match self.scene.inline.get(*inline) {
                Some(inline) => inline.lane,
                None => Lane::Ordinary,
            },
            _ => Lane::Ordinary,
        }
    }

    /// Stages the answers and the sends of one message. Whether anything was written.
    fn deliver(
        &self,
        turn: &mut Turn,
        pushes: &mut Pushes<'_>,
        message: &Message,
        done: Done,
    ) -> Result<bool, StoreError> {
        let before = pushes.len();
        let mut wrote = false;
        for send in done.sends {
            pushes.push(
                &send.instance,
                send.lane,
                &Message {
                    name: send.name,
                    payload: send.payload,
                    call: None,
                    query: false,
                    sender: Some(self.scene.session),
                    sent_ms: self.scene.wall_ms(),
                    trace: send.trace,
                    failed: None,
                    deadline_ms: None,
                    idempotency_key: None,
                },
            )?;
            if !turn.pushed_to.contains(&send.instance) {
                turn.pushed_to.push(send.instance);
            }
        }
        // Answered by another message, or under the lock: by whichever process handles that.
        let waits = done.answer.is_none() && message.call.is_some();
        turn.answered_later |= waits;
        let own = done.answer.and_then(|answer| Some((message.call?, answer)));
        let others = done
            .answers
            .into_iter()
            .map(|(call, reply)| (call, Answer::Reply(reply)));
        for (call, answer) in own.into_iter().chain(others) {
            let local = turn.answers.len();
            self.scene.answer(self.tx, turn, call, answer)?;
            wrote |= turn.answers.len() == local;
        }
        turn.effects.extend(done.effects);
        Ok(wrote || pushes.len() > before)
    }

    /// Sees to the inline messages that were not handled: those that are blocked go into the
    /// mailbox, the others wait for the next turn.
    fn settle_inline(
        &self,
        turn: &mut Turn,
        pushes: &mut Pushes<'_>,
        count: usize,
        (blocked, failed): (Option<Source>, Option<&str>),
    ) -> Result<bool, StoreError> {
        let before = pushes.len();
        for (index, inline) in self.scene.inline.iter().enumerate() {
            let source = Source::Inline(index);
            if self
                .jobs
                .sources
                .iter()
                .take(count)
                .any(|done| *done == source)
            {
                continue;
            }
            let is_blocked = self.todo.is_shut(inline.lane) || blocked == Some(source);
            if is_blocked || self.scene.impatient || turn.under_lock.is_some() {
                match failed.filter(|_| blocked == Some(source)) {
                    Some(error) => self.scene.push_failed(pushes, inline, error)?,
                    None => pushes.push(self.scene.instance, inline.lane, &inline.message)?,
                }
                turn.pushed_inline = true;
            } else {
                turn.left.push(index);
            }
        }
        Ok(pushes.len() > before)
    }

    /// What comes next. Whether messages or a lock are left in the store.
    fn settle(
        &self,
        turn: &mut Turn,
        ended: &Ended,
        count: usize,
        own_push: bool,
        wrote: bool,
    ) -> bool {
        let left = |line: &&Line| {
            line.head.more || line.head.messages.len() > self.taken(line.lane, count)
        };
        let workable = self
            .lines()
            .iter()
            .any(|line| left(line) && !self.todo.is_shut(line.lane));
        let held = self.view.lock.is_some() && !planted(Bug::MarkClearedWhileLocked);
        let locked = turn.under_lock.is_some() || (held && !self.todo.close);
        let remains = self.lines().iter().any(left) || locked;
        turn.mark = match own_push || turn.under_lock.is_some() || self.view.mark.is_none() && wrote
        {
            true => Mark::Own,
            false => Mark::Seen(self.view.mark.clone()),
        };
        turn.waiting_for = self.scene.waiting_for(self.view);
        turn.next = match ended {
            Ended::Locked if !own_push && !self.lines().iter().any(left) => {
                Next::Park(Parked::Locked, None)
            }
            Ended::Locked => Next::Again,
            Ended::LockTaken => Next::Park(Parked::Locked, self.parked_again()),
            _ if workable || own_push || !turn.left.is_empty() => Next::Again,
            // Under the lock that was just closed nothing is known of the ordinary mailbox.
            _ if self.todo.close => Next::Again,
            _ => match self.todo.parked() {
                Some((reason, again)) => Next::Park(reason, again),
                None => Next::Idle,
            },
        };
        remains
    }

    fn parked_again(&self) -> Option<Duration> {
        match &self.todo.ordinary {
            Gate::Shut { again, .. } => *again,
            Gate::Open { .. } => None,
        }
    }

    /// How large the rows of the longer mailbox are, for the next turn's window.
    fn row_bytes(&self) -> Option<usize> {
        let messages = self
            .lines()
            .into_iter()
            .flat_map(|line| &line.head.messages);
        let (rows, bytes) = messages.fold((0_usize, 0_usize), |(rows, bytes), queued| {
            (rows + 1, bytes + queued.bytes)
        });
        bytes.checked_div(rows)
    }
}

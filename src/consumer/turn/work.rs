//! The ordinary turn: load, apply, diff, stage.

use super::rounds::Ran;
use super::{Blame, Blamed, Cache, Cause, Next, Scene, Turn};
use crate::codec::Leaves;
use crate::consumer::apply::{Base, Ended, Job, Task};
use crate::consumer::lazy;
use crate::consumer::plan::{Gate, Parked, UNFIT_RECHECK, Unfit, Which};
use crate::consumer::view::{Line, View};
use crate::durable::keys::Lane;
use crate::durable::queue::{self, Pushes};
use crate::durable::{SessionError, Work, ready, state};
use crate::planted::{Bug, planted};
use crate::server::Held;
use crate::server::{Activation, Deactivation};
use crate::store::{StoreError, Tx};
use crate::wake::Inline;
use std::sync::{Arc, PoisonError};

/// What a turn works on.
pub(super) struct Todo {
    pub(super) close: bool,
    pub(super) priority: Gate,
    pub(super) ordinary: Gate,
}

impl Todo {
    pub(super) fn gate(&self, lane: Lane) -> &Gate {
        match lane {
            Lane::Priority => &self.priority,
            Lane::Ordinary => &self.ordinary,
        }
    }

    pub(super) fn is_shut(&self, lane: Lane) -> bool {
        matches!(self.gate(lane), Gate::Shut { .. })
    }

    /// Why nothing can be done, and when to look again.
    pub(super) fn parked(&self) -> Option<(Parked, Option<std::time::Duration>)> {
        match (&self.priority, &self.ordinary) {
            (
                Gate::Shut { again: first, .. },
                Gate::Shut {
                    reason,
                    again: second,
                },
            ) => {
                let again = [*first, *second].into_iter().flatten().min();
                Some((reason.clone(), again))
            }
            (Gate::Shut { reason, again }, _) | (_, Gate::Shut { reason, again }) => {
                Some((reason.clone(), *again))
            }
            _ => None,
        }
    }
}

/// Where a job comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Closing,
    Queue(Lane),
    Inline(usize),
}

/// The messages of a turn, in order, and where each comes from.
#[derive(Default)]
pub(super) struct Jobs {
    pub(super) jobs: Vec<Job>,
    pub(super) sources: Vec<Source>,
}

impl Jobs {
    fn push(&mut self, source: Source, job: Job) {
        self.sources.push(source);
        self.jobs.push(job);
    }

    fn truncate(&mut self, count: usize) {
        self.sources.truncate(count);
        self.jobs.truncate(count);
    }
}

/// What a turn found of the state.
enum Loaded {
    State(Base, Option<Held>),
    Unfit(Parked),
}

impl Scene<'_> {
    /// Load, apply, diff, stage: everything of an ordinary turn but its commit.
    pub(super) async fn work(
        &self,
        tx: &Tx,
        view: &View,
        todo: Todo,
    ) -> Result<Work<Turn>, SessionError> {
        let mut jobs = self.jobs(view, &todo);
        let blamed = self.blame.and_then(|blame| {
            let place = self.place_of(&jobs, &blame.whom)?;
            Some((place, &blame.error))
        });
        if let Some((place, _)) = blamed.filter(|(place, _)| *place > 0) {
            // What stands before it goes first.
            jobs.truncate(place);
        }
        self.is_about(self.named(&jobs, 0));
        let Some(first) = jobs.sources.first() else {
            return self.nothing(tx, view, &todo);
        };
        if let Some((0, error)) = blamed {
            let mut counted = self.first_failed(tx, view, *first, error)?;
            let (Work::Write(turn) | Work::Look(turn)) = &mut counted;
            turn.counted = true;
            return Ok(counted);
        }
        if let (Source::Closing, Some(Err(failure))) = (first, self.closing.map(|c| &c.result)) {
            return self.run_failed(tx, view, failure);
        }
        let (mut base, state) = match self.load(tx, view).await? {
            Loaded::State(base, state) => (base, state),
            Loaded::Unfit(reason) => return self.unfit(tx, view, reason),
        };
        let applied = match self
            .applied(tx, view, &todo, &jobs.jobs, &mut base, state)
            .await?
        {
            Ran::Applied(applied) => applied,
            Ran::Back(next) => return Ok(Work::Look(self.handed_back(next))),
            Ran::Unfit(reason) => return self.unfit(tx, view, reason),
        };
        match applied {
            Ok((batch, Ok(stored))) => {
                if let Ended::OverTime(error) = batch.ended {
                    return Ok(self.to_be_counted(&jobs, batch.done.len(), error));
                }
                let stage = super::stage::Stage {
                    scene: self,
                    tx,
                    view,
                    todo: &todo,
                    jobs: &jobs,
                    base: &base,
                };
                stage.finish(batch, stored)
            }
            // Which of several messages made the state unfit to be stored is found out one by one.
            Ok((_, Err(_))) if jobs.jobs.len() > 1 => {
                Ok(Work::Look(self.handed_back(Next::Single)))
            }
            Ok((_, Err(error))) => Ok(self.to_be_counted(&jobs, 0, error.to_string())),
            Err(error) => self.unfit(tx, view, Parked::UnreadableState(error.to_string())),
        }
    }

    /// Nothing of the batch can be committed because of one of its messages, whose failure is counted
    /// by a transaction of its own.
    fn to_be_counted(&self, jobs: &Jobs, place: usize, error: String) -> Work<Turn> {
        let next = match self.named(jobs, place) {
            Some(whom) => Next::Blame(Blame { whom, error }),
            None => Next::Single,
        };
        Work::Look(self.handed_back(next))
    }

    /// A message of the batch, as a later turn finds it again.
    fn named(&self, jobs: &Jobs, place: usize) -> Option<Blamed> {
        let job = jobs.jobs.get(place)?;
        Some(match jobs.sources.get(place)? {
            Source::Queue(lane) => Blamed::Queued(*lane, job.stamp?),
            Source::Inline(_) => Blamed::Inline(Arc::clone(&job.message)),
            Source::Closing => Blamed::Closing(self.closing?.token),
        })
    }

    /// Where a message stands in the batch that this turn would be.
    fn place_of(&self, jobs: &Jobs, whom: &Blamed) -> Option<usize> {
        let mut both = jobs.sources.iter().zip(&jobs.jobs);
        both.position(|(source, job)| match (source, whom) {
            (Source::Queue(lane), Blamed::Queued(known, stamp)) => {
                lane == known && job.stamp == Some(*stamp)
            }
            (Source::Inline(_), Blamed::Inline(message)) => Arc::ptr_eq(&job.message, message),
            (Source::Closing, Blamed::Closing(token)) => {
                self.closing.is_some_and(|closing| closing.token == *token)
            }
            _ => false,
        })
    }

    /// Priority messages first, those in the mailbox before those in memory, whole mailboxes before
    /// any that are in memory.
    fn jobs(&self, view: &View, todo: &Todo) -> Jobs {
        let mut jobs = Jobs::default();
        if let Some(closing) = self.closing.filter(|_| todo.close) {
            jobs.push(
                Source::Closing,
                Job {
                    message: Arc::clone(&closing.message),
                    stamp: closing.stamp,
                    attempt: closing.attempt,
                    task: match &closing.result {
                        Ok(output) => Task::Close(output.clone()),
                        Err(_) => Task::Handle,
                    },
                },
            );
        }
        for line in [&view.priority, &view.ordinary] {
            if !self.line_jobs(line, todo.gate(line.lane), &mut jobs) {
                break;
            }
        }
        if self.single {
            jobs.truncate(1);
        }
        jobs
    }

    /// Adds the messages of a mailbox. Whether what comes behind it may be added too.
    fn line_jobs(&self, line: &Line, gate: &Gate, jobs: &mut Jobs) -> bool {
        let Gate::Open {
            take,
            attempt,
            careful,
        } = *gate
        else {
            // A query needs no turn of its mailbox: it is answered from what is committed.
            self.inline_jobs(line.lane, |inline| inline.message.query, jobs);
            return true;
        };
        if careful && !jobs.jobs.is_empty() {
            return false;
        }
        if planted(Bug::InlineBeforeMailbox) {
            self.inline_jobs(line.lane, |_| true, jobs);
        }
        for (index, queued) in line.head.messages.iter().take(take).enumerate() {
            let Ok(message) = &queued.message else {
                return false;
            };
            jobs.push(
                Source::Queue(line.lane),
                Job {
                    message: Arc::new(message.clone()),
                    stamp: Some(queued.stamp),
                    attempt: if index == 0 { attempt } else { 1 },
                    task: Task::Handle,
                },
            );
        }
        if careful || line.head.more || take < line.head.messages.len() {
            return false;
        }
        if !planted(Bug::InlineBeforeMailbox) {
            self.inline_jobs(line.lane, |_| true, jobs);
        }
        true
    }

    /// Adds the messages in memory that are for a mailbox.
    fn inline_jobs(&self, lane: Lane, chosen: impl Fn(&Inline) -> bool, jobs: &mut Jobs) {
        for (index, inline) in self.inline.iter().enumerate() {
            if inline.lane == lane && chosen(inline) {
                jobs.push(
                    Source::Inline(index),
                    Job {
                        message: Arc::clone(&inline.message),
                        stamp: None,
                        attempt: 1,
                        task: Task::Handle,
                    },
                );
            }
        }
    }

    /// The state: from memory if that is what the store holds, else from the store.
    async fn load(&self, tx: &Tx, view: &View) -> Result<Loaded, StoreError> {
        let Some(version) = view.version else {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            self.superseded(cache.take(), Deactivation::Removed);
            let base = Base {
                leaves: Arc::new(Leaves::new()),
                ignored: crate::codec::Ignored::none(),
                exists: false,
                activation: None,
            };
            return Ok(Loaded::State(base, None));
        };
        if version.schema > self.kind.behaviour.schema() {
            return Ok(Loaded::Unfit(Parked::NewerSchema(version.schema)));
        }
        if let Some(loaded) = self.cached_state(version) {
            return Ok(loaded);
        }
        let loaded = match lazy::load(tx, self.keys, self.kind, self.env).await? {
            Ok(loaded) => loaded,
            Err(reason) => return Ok(Loaded::Unfit(reason)),
        };
        let lazy::Loaded {
            leaves,
            ignored,
            state: held,
        } = loaded;
        let leaves = Arc::new(leaves);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let activation = match cache.as_ref() {
            // Only some of it was dropped: nobody but the codec can tell.
            Some(cache) if cache.version == version => cache.activation,
            Some(known) => {
                // One that nobody was told of has not been active yet.
                let untold = known.activation;
                self.superseded(cache.take(), Deactivation::Superseded);
                untold.or(Some(Activation::Reloaded))
            }
            None => Some(Activation::Loaded),
        };
        *cache = Some(Cache {
            version,
            leaves: Arc::clone(&leaves),
            ignored: ignored.clone(),
            state: None,
            activation,
        });
        let base = Base {
            leaves,
            ignored,
            exists: true,
            activation,
        };
        Ok(Loaded::State(base, Some(held)))
    }

    /// A state in memory is not the instance's any more.
    fn superseded(&self, cache: Option<Cache>, cause: Deactivation) {
        if let Some(cache) = cache {
            self.kind.let_go(self.env, self.instance, &cache, cause);
        }
    }

    fn cached_state(&self, version: state::StateVersion) -> Option<Loaded> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cache
            .as_mut()
            .filter(|cache| cache.version == version || planted(Bug::StaleCacheAccepted))?;
        if lazy::is_too_large(&known.leaves) {
            return None;
        }
        let base = Base {
            leaves: Arc::clone(&known.leaves),
            ignored: known.ignored.clone(),
            exists: true,
            activation: known.activation,
        };
        Some(Loaded::State(base, known.state.take()))
    }

    /// Nothing can be worked on.
    fn nothing(&self, tx: &Tx, view: &View, todo: &Todo) -> Result<Work<Turn>, SessionError> {
        if let Some((reason, again)) = todo.parked() {
            let mut turn = Turn {
                next: Next::Park(reason, again),
                closed: self.closing.is_some() && !todo.close,
                claimed: Some(false),
                mark: super::Mark::Seen(view.mark.clone()),
                ..Turn::default()
            };
            turn.waiting_for = self.waiting_for(view);
            let released = self.release_claims(tx, view)?;
            turn.pushed_inline = self.push_where(tx, |lane| todo.is_shut(lane))? > 0;
            if turn.pushed_inline {
                turn.mark = super::Mark::Own;
            }
            return Ok(match released || turn.pushed_inline {
                true => Work::Write(turn),
                false => Work::Look(turn),
            });
        }
        let turn = Turn {
            next: Next::Idle,
            left: self.every_inline(),
            closed: self.closing.is_some() && !todo.close,
            claimed: Some(false),
            ..Turn::default()
        };
        match &view.mark {
            // A mark over nothing, after a purge say. The mailbox was read under snapshot isolation;
            // this makes it a serializable look, the lock's read is one already.
            Some(mark) => {
                queue::conflict_with_pushes(tx, self.keys);
                ready::clear_mark(tx, self.keys, mark);
                Ok(Work::Write(turn))
            }
            None => Ok(Work::Look(turn)),
        }
    }

    /// The back-off that an instance waits for.
    pub(super) fn waiting_for(&self, view: &View) -> Option<(crate::store::Stamp, u32)> {
        [&view.priority, &view.ordinary]
            .into_iter()
            .filter_map(|line| line.attempts.as_ref())
            .find(|attempts| attempts.attempts > 0)
            .map(|attempts| (attempts.stamp, attempts.attempts))
    }

    /// The state cannot be worked on here. Inline messages go into the mailbox, where another node
    /// may find them. The end of a run under the lock waits, and the lock with it.
    pub(super) fn unfit(
        &self,
        tx: &Tx,
        view: &View,
        reason: Parked,
    ) -> Result<Work<Turn>, SessionError> {
        if planted(Bug::UnfitCounts) {
            return self.first_failed(tx, view, Source::Queue(Lane::Ordinary), "unfit");
        }
        let unfit = self.unfit_heads(view, &reason);
        let released = self.release_claims(tx, view)?;
        let renewed = self.keep_lock(tx, view)?;
        let again = match renewed {
            true => UNFIT_RECHECK.min(self.kind.options.lease / 3),
            false => UNFIT_RECHECK,
        };
        let turn = Turn {
            next: Next::Park(reason, Some(again)),
            pushed_inline: self.push_where(tx, |_| true)? > 0,
            claimed: Some(false),
            mark: super::Mark::Seen(view.mark.clone()),
            unfit,
            ..Turn::default()
        };
        Ok(match released || renewed || turn.pushed_inline {
            true => Work::Write(turn),
            false => Work::Look(turn),
        })
    }

    /// The heads that this process has claimed in vain.
    fn unfit_heads(&self, view: &View, reason: &Parked) -> Vec<(Lane, Unfit)> {
        let lines = [&view.priority, &view.ordinary].into_iter();
        lines
            .filter(|line| line.is_claimed_by(self.session))
            .filter_map(|line| {
                let unfit = Unfit {
                    head: line.head.messages.first()?.stamp,
                    version: view.version,
                    reason: reason.clone(),
                    since: self.env.now(),
                };
                Some((line.lane, unfit))
            })
            .collect()
    }

    /// The very first message of a turn failed: its attempt is counted.
    pub(super) fn first_failed(
        &self,
        tx: &Tx,
        view: &View,
        source: Source,
        error: &str,
    ) -> Result<Work<Turn>, SessionError> {
        match source {
            Source::Queue(lane) => {
                let which = match lane {
                    Lane::Priority => Which::Priority,
                    Lane::Ordinary => Which::Ordinary,
                };
                self.count(tx, view, view.line(which), Cause::Failure, error)
            }
            // Attempts are counted in the mailbox, so that is where it goes.
            Source::Inline(failed) => {
                let mut turn = self.handed_back(Next::Again);
                turn.left.retain(|index| *index != failed);
                if let Some(inline) = self.inline.get(failed) {
                    self.push_failed(&mut Pushes::new(self.namespace, tx), inline, error)?;
                }
                turn.pushed_inline = true;
                Ok(Work::Write(turn))
            }
            Source::Closing => self.count_lock(tx, view, error),
        }
    }
}

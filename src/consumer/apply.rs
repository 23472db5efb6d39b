//! Messages applied to a state, in memory: no store, no transaction.
//!
//! Invariants:
//!
//! - *All or nothing, per message.* A message that fails or is rejected leaves nothing behind: what
//!   its handler did to the state is thrown away with the state, which is built again from the
//!   committed leaves by running the messages before it once more.
//! - *The order is the order of the jobs.* A batch is always a prefix of them.
//! - *No result rests on what was not in memory.* A message that asked for entries of lazy collections
//!   that are not there has not run, whatever it answered.

use super::lazy::TOO_MUCH;
use super::watch;
use crate::codec::collection::{MAX_WANTS, Want, asking};
use crate::codec::{self, Ignored, Leaves, Update};
use crate::durable::{Answer, CallId, Message};
use crate::env::Env;
use crate::id::InstanceId;
use crate::planted::{Bug, planted};
use crate::server::{Activation, Failure, FailureKind, Outgoing};
use crate::server::{Applied, Behaviour, Decided, Effect, Facts, Held, Route};
use crate::store::Stamp;
use crate::trace::Tracer;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What is committed, and what it is in memory.
#[derive(Debug)]
pub(super) struct Base {
    /// The leaves that the store holds; none of a new instance.
    pub(super) leaves: Arc<Leaves>,
    /// What of them the state's type does not know.
    pub(super) ignored: Ignored,
    /// Whether the instance has a state at all. A new one is made by `init`.
    pub(super) exists: bool,
    /// Why it is in memory, if it was not before.
    pub(super) activation: Option<Activation>,
}

/// What is to be done for one message.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) message: Arc<Message>,
    /// None for a message that never stood in the mailbox.
    pub(super) stamp: Option<Stamp>,
    /// Counted from one.
    pub(super) attempt: u32,
    pub(super) task: Task,
}

/// Which of a message's functions is to run.
#[derive(Debug, Clone)]
pub(super) enum Task {
    /// Its handler, or its query.
    Handle,
    /// What follows a lock's `run`, with its output.
    Close(Bytes),
}

/// The limits of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How many messages.
    pub(super) messages: usize,
    /// How many bytes of replies and sends.
    pub(super) bytes: usize,
    /// After how much time in handlers no further message is begun.
    pub(super) time: Duration,
    /// The longest that one handler may take; one that took longer has failed.
    pub(super) handler: Duration,
}

/// What a message that was applied asks for.
#[derive(Default)]
pub(super) struct Done {
    pub(super) answer: Option<Answer>,
    pub(super) sends: Vec<Outgoing>,
    pub(super) answers: Vec<(CallId, Bytes)>,
    pub(super) effects: Vec<Effect>,
    /// A business answer: nothing was changed.
    pub(super) rejected: bool,
    /// A query: nothing was to be changed.
    pub(super) asked: bool,
}

/// Why a batch ended where it did.
#[derive(Debug)]
pub(super) enum Ended {
    /// Every message was applied.
    All,
    /// A limit was reached; the rest is for the next turn.
    Limit,
    /// The message behind the last one applied failed, and is to be counted.
    Failed(String),
    /// The message behind the last one applied took longer than a handler may. It has failed too, but
    /// there is little left of the transaction's life: nothing of this batch is to be committed.
    OverTime(String),
    /// The last message applied wants a lock.
    Locked,
    /// The message behind the last one applied wants a lock, which another message has.
    LockTaken,
    /// The last message applied wants the instance deactivated.
    Stopped,
    /// This node does not know the message behind the last one applied.
    Unknown,
}

/// What came of a batch.
pub(super) struct Batch {
    /// Of the first jobs, in order.
    pub(super) done: Vec<Done>,
    pub(super) ended: Ended,
    /// The state after them, unless there is none yet.
    pub(super) state: Option<Held>,
    /// What is to be read before anything else can be done; then there is nothing else in here.
    pub(super) wanted: Vec<Want>,
}

/// One run over a batch.
pub(super) struct Run<'a> {
    pub(super) behaviour: &'a dyn Behaviour,
    pub(super) tracer: &'a Tracer,
    pub(super) env: &'a dyn Env,
    pub(super) instance: &'a InstanceId,
    pub(super) base: &'a Base,
    pub(super) limits: Limits,
    pub(super) now: SystemTime,
    /// Whether a message may take the lock.
    pub(super) lock_is_free: bool,
    /// What becomes of a message that asks for what is not in memory.
    pub(super) asking: Asking,
}

/// What becomes of a message that asks for entries of lazy collections that are not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// They are read, and the batch is run again.
    Reads,
    /// No more may be read for this batch: it ends before the message.
    Ends,
    /// No more may be read for this message: it has failed.
    Fails,
}

/// How one message went.
enum Went {
    Done(Done, Option<Ended>),
    Failed(String),
    OverTime(String),
    LockTaken,
    Unknown,
    Wanting(Vec<Want>),
}

impl Run<'_> {
    /// Applies a prefix of `jobs`.
    ///
    /// `state` is the committed state if it is in memory; otherwise it is built from the leaves.
    ///
    /// # Errors
    ///
    /// When the leaves are no state of this kind: nobody's fault, and nothing was applied.
    pub(super) fn apply(
        &self,
        state: Option<Held>,
        jobs: &[Job],
    ) -> Result<Batch, codec::CodecError> {
        let mut state = match state {
            Some(state) => Some(state),
            None if self.base.exists => Some(self.load()?),
            None => None,
        };
        let mut done: Vec<Done> = Vec::with_capacity(jobs.len());
        let mut bytes = 0;
        let began = self.env.now();
        let ended = loop {
            let Some(job) = jobs.get(done.len()) else {
                break Ended::All;
            };
            let spent = self.env.now().saturating_sub(began);
            let first = done.is_empty();
            let full = done.len() >= self.limits.messages || bytes >= self.limits.bytes;
            if !first && (full || spent >= self.limits.time) {
                break Ended::Limit;
            }
            match self.one(&mut state, job) {
                Went::Done(result, ended) => {
                    bytes += result.bytes();
                    let undo = result.rejected && !planted(Bug::RejectedStateKept);
                    done.push(result);
                    if undo {
                        state = self.again(jobs, &mut done)?;
                    }
                    if let Some(ended) = ended {
                        break ended;
                    }
                }
                Went::Failed(error) if planted(Bug::PartialStateKept) => {
                    break Ended::Failed(error);
                }
                Went::Failed(error) => {
                    state = self.again(jobs, &mut done)?;
                    break Ended::Failed(error);
                }
                Went::OverTime(error) => {
                    // Made of what will be thrown away, so that nothing is built again.
                    state = None;
                    break Ended::OverTime(error);
                }
                Went::LockTaken => {
                    state = self.again(jobs, &mut done)?;
                    break Ended::LockTaken;
                }
                Went::Unknown => break Ended::Unknown,
                Went::Wanting(_) if self.asking == Asking::Ends && !first => {
                    state = self.again(jobs, &mut done)?;
                    break Ended::Limit;
                }
                Went::Wanting(wanted) => {
                    let behind = match self.asking {
                        Asking::Reads => jobs.get(done.len() + 1..).unwrap_or_default(),
                        Asking::Ends | Asking::Fails => &[],
                    };
                    return self.wanting(wanted, behind, began);
                }
            }
        };
        Ok(Batch {
            done,
            ended,
            state,
            wanted: Vec::new(),
        })
    }

    /// What a message wants, and what those behind it want, so that all of it is read in one round.
    /// Those are run for that alone, on the committed state; nothing else of what they do counts. What
    /// they ask for on another state than that one is asked for again.
    fn wanting(
        &self,
        mut wanted: Vec<Want>,
        behind: &[Job],
        began: Duration,
    ) -> Result<Batch, codec::CodecError> {
        let mut state = None;
        for job in behind.iter().take(self.limits.messages) {
            let spent = self.env.now().saturating_sub(began);
            if spent >= self.limits.time || wanted.len() >= MAX_WANTS {
                break;
            }
            if state.is_none() && self.base.exists {
                state = Some(self.load()?);
            }
            match self.one(&mut state, job) {
                Went::Done(done, _) if !done.rejected => {}
                Went::Wanting(more) => {
                    wanted.extend(more);
                    state = None;
                }
                _ => state = None,
            }
        }
        Ok(Batch {
            done: Vec::new(),
            ended: Ended::Limit,
            state: None,
            wanted,
        })
    }

    /// What is to be written to store the state.
    ///
    /// # Errors
    ///
    /// A state that the codec refuses.
    pub(super) fn encode(&self, state: &Held) -> Result<Update, codec::CodecError> {
        self.behaviour
            .encode(state, &self.base.leaves, &self.base.ignored)
    }

    fn load(&self) -> Result<Held, codec::CodecError> {
        self.behaviour.restore(&self.base.leaves)
    }

    /// The state after the messages of `done`, from the committed leaves.
    ///
    /// A handler is a pure function, so each gives what it gave before. One that does not is cut
    /// off, with all that come after it: they are for a later turn.
    fn again(&self, jobs: &[Job], done: &mut Vec<Done>) -> Result<Option<Held>, codec::CodecError> {
        'rebuild: loop {
            let mut state = match self.base.exists {
                true => Some(self.load()?),
                false => None,
            };
            for (index, job) in jobs.iter().enumerate().take(done.len()) {
                if done.get(index).is_some_and(|done| done.rejected) {
                    continue;
                }
                match self.one(&mut state, job) {
                    Went::Done(result, _) if !result.rejected => {
                        if let Some(slot) = done.get_mut(index) {
                            *slot = result;
                        }
                    }
                    _ => {
                        done.truncate(index);
                        continue 'rebuild;
                    }
                }
            }
            return Ok(state);
        }
    }

    fn one(&self, state: &mut Option<Held>, job: &Job) -> Went {
        if self.behaviour.lazy().is_empty() {
            return self.run(state, job);
        }
        let (went, wanted) = asking(|| self.run(state, job));
        // What took too long has failed, whatever it still asks for: asking again takes as long.
        if wanted.is_empty() || matches!(went, Went::OverTime(_)) {
            return went;
        }
        if self.asking != Asking::Fails {
            return Went::Wanting(wanted);
        }
        match went {
            Went::Done(done, _) if done.asked => Went::asked(Err(Failure::fail(TOO_MUCH))),
            _ => Went::Failed(TOO_MUCH.to_owned()),
        }
    }

    fn run(&self, state: &mut Option<Held>, job: &Job) -> Went {
        let name = job.message.name.as_ref();
        let trace = job.message.trace;
        let span = tracing::debug_span!(
            "abide.message",
            message = name,
            attempt = job.attempt,
            trace = trace.map(tracing::field::display),
        );
        self.tracer.attach(&span, trace);
        let facts = Facts {
            instance: self.instance.clone(),
            stamp: job.stamp,
            now: self.now,
            attempt: job.attempt,
            call: job.message.call,
            trace,
            here: self.tracer.within(&span, trace),
            fence: 0,
        };
        let _entered = span.enter();
        let Some(route) = self.behaviour.route(name) else {
            return Went::Unknown;
        };
        let began = self.env.now();
        watch::begins(self.instance, &job.message, began);
        let fresh = state.is_none();
        if fresh {
            match self.behaviour.init(&facts) {
                Ok(made) => *state = Some(made),
                Err(failure) => return Went::failed(&failure),
            }
        }
        let Some(held) = state.as_mut() else {
            return Went::Unknown;
        };
        let payload = &job.message.payload;
        let went = match (&job.task, route) {
            (Task::Close(output), _) => {
                judge(self.behaviour.close(held, name, payload, output, &facts))
            }
            (Task::Handle, Route::Query) => {
                return Went::asked(self.behaviour.query(held, name, payload, &facts));
            }
            (Task::Handle, _) if job.message.query => {
                let refusal = format!("{name:?} is a message that may change the state, no query");
                return Went::asked(Err(Failure::reject(refusal)));
            }
            (Task::Handle, Route::Handle | Route::Locked) => {
                judge(self.behaviour.handle(held, name, payload, &facts))
            }
        };
        let took = self.env.now().saturating_sub(began);
        if took > self.limits.handler {
            return Went::OverTime(format!(
                "the handler took {} ms; {} ms are allowed",
                took.as_millis(),
                self.limits.handler.as_millis()
            ));
        }
        match went {
            Went::Done(_, Some(Ended::Locked)) if !self.lock_is_free => Went::LockTaken,
            went => went,
        }
    }
}

fn judge(applied: Applied) -> Went {
    let (answer, ended) = match applied.outcome {
        Ok(Decided::Reply(reply)) => (Some(Answer::Reply(reply)), None),
        Ok(Decided::Later) => (None, None),
        Ok(Decided::Lock) => (None, Some(Ended::Locked)),
        Ok(Decided::Stop(reply)) => (Some(Answer::Reply(reply)), Some(Ended::Stopped)),
        Err(failure) => return Went::failed(&failure),
    };
    let done = Done {
        answer,
        sends: applied.sends,
        answers: applied.answers,
        effects: applied.effects,
        ..Done::default()
    };
    Went::Done(done, ended)
}

impl Went {
    /// A query's end. It changed nothing, so there is nothing to undo and nothing to try again.
    fn asked(result: Result<Bytes, Failure>) -> Self {
        let answer = match result {
            Ok(reply) => Answer::Reply(reply),
            Err(failure) => match failure.kind() {
                FailureKind::Reject => Answer::Rejected(failure.message().to_owned()),
                FailureKind::Fail => Answer::Failed(failure.message().to_owned()),
            },
        };
        let done = Done {
            asked: true,
            ..Done::answered(answer)
        };
        Self::Done(done, None)
    }

    fn failed(failure: &Failure) -> Self {
        match failure.kind() {
            FailureKind::Reject => Self::Done(
                Done {
                    rejected: true,
                    ..Done::answered(Answer::Rejected(failure.message().to_owned()))
                },
                None,
            ),
            FailureKind::Fail => Self::Failed(failure.message().to_owned()),
        }
    }
}

impl Done {
    fn answered(answer: Answer) -> Self {
        Self {
            answer: Some(answer),
            ..Self::default()
        }
    }

    /// About what it adds to the transaction.
    fn bytes(&self) -> usize {
        let answer = match &self.answer {
            Some(Answer::Reply(reply)) => reply.len(),
            _ => 0,
        };
        let sends: usize = self.sends.iter().map(|send| send.payload.len()).sum();
        let answers: usize = self.answers.iter().map(|(_, reply)| reply.len()).sum();
        answer + sends + answers
    }
}

//! Handlers at work: in one round, or in as many as it takes to read the entries of lazy collections
//! that they ask for.
//!
//! Invariant: *the time in handlers is bounded, over all rounds.* A batch that has used up its time asks
//! for no more, and ends before the message that would; a message alone may take as long as a handler
//! may, all its rounds together.

use super::work::Todo;
use super::{Next, Scene};
use crate::codec::{CodecError, Update};
use crate::consumer::apply::{Asking, Base, Batch, Job, Limits, Run};
use crate::consumer::lazy::{Budget, Fetched};
use crate::consumer::options::HANDLER_TIME;
use crate::consumer::plan::Parked;
use crate::consumer::view::View;
use crate::server::Held;
use crate::store::{StoreError, Tx};
use std::time::Duration;

/// What came of the run of a batch.
pub(super) enum Ran {
    Applied(Applied),
    /// Nothing; the turn is run again.
    Back(Next),
    /// The state cannot be worked on here.
    Unfit(Parked),
}

/// A batch, and what is to be written of its state.
pub(super) type Applied = Result<(Batch, Result<Option<Update>, CodecError>), CodecError>;

impl Scene<'_> {
    /// Runs a batch, and again with the entries of lazy collections that it asks for.
    pub(super) async fn applied(
        &self,
        tx: &Tx,
        view: &View,
        todo: &Todo,
        jobs: &[Job],
        base: &mut Base,
        mut state: Option<Held>,
    ) -> Result<Ran, StoreError> {
        let (mut budget, mut asking) = (Budget::full(), Asking::Reads);
        let mut in_handlers = Duration::ZERO;
        loop {
            let run = self.run(view, todo, base, asking);
            let mut applied = None;
            self.kind.run(self.env, &mut || {
                let began = self.env.now();
                applied = Some(apply(&run, state.take(), jobs));
                in_handlers += self.env.now().saturating_sub(began);
            });
            self.was_in_handlers(in_handlers);
            let wanted = match applied {
                Some(Ok((batch, _))) if !batch.wanted.is_empty() => batch.wanted,
                Some(applied) => return Ok(Ran::Applied(applied)),
                None => return Ok(Ran::Back(Next::Again)),
            };
            asking = match asking {
                Asking::Reads => match self.fetch(tx, base, wanted, &mut budget).await? {
                    Fetched::More => self.after_a_round(in_handlers, jobs.len()),
                    Fetched::Spent if jobs.len() > 1 => Asking::Ends,
                    Fetched::Spent => Asking::Fails,
                    Fetched::Away => return Ok(Ran::Back(Next::Again)),
                    // Some message asks for what cannot be read. Those before it need not wait.
                    Fetched::Unfit(_) if jobs.len() > 1 => Asking::Ends,
                    Fetched::Unfit(reason) => return Ok(Ran::Unfit(reason)),
                },
                // The very first one wants what was not read for all of them. Alone it may have as much.
                _ => return Ok(Ran::Back(Next::Single)),
            };
        }
    }

    /// Whether a batch that has been in handlers for so long may ask for more. What it asked for it has,
    /// so it is not run in vain; the rest of it is for the next turn.
    fn after_a_round(&self, in_handlers: Duration, jobs: usize) -> Asking {
        if jobs > 1 && in_handlers >= self.kind.options.batch_time {
            Asking::Ends
        } else if in_handlers > HANDLER_TIME {
            Asking::Fails
        } else {
            Asking::Reads
        }
    }

    fn run<'r>(&'r self, view: &View, todo: &Todo, base: &'r Base, asking: Asking) -> Run<'r> {
        let options = &self.kind.options;
        Run {
            behaviour: self.kind.behaviour.as_ref(),
            tracer: &self.kind.tracer,
            env: self.env,
            instance: self.instance,
            base,
            limits: Limits {
                messages: options.batch_messages,
                bytes: options.batch_bytes,
                time: options.batch_time,
                handler: HANDLER_TIME,
            },
            now: self.env.wall_clock(),
            lock_is_free: view.lock.is_none() || todo.close,
            asking,
        }
    }
}

/// Applies a batch, and encodes the state if it may have changed.
fn apply(run: &Run<'_>, state: Option<Held>, jobs: &[Job]) -> Applied {
    let batch = run.apply(state, jobs)?;
    let changed = batch.done.iter().any(|done| !done.asked && !done.rejected);
    let stored = match &batch.state {
        Some(state) if changed => run.encode(state).map(Some),
        _ => Ok(None),
    };
    Ok((batch, stored))
}

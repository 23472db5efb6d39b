//! A handler without any store: what it answers, changes, sends and wants done, as values to compare.
//!
//! ```
//! # use abide::server::{Context, Failure, Handle, Message, Outcome, Protocol, ReadContext};
//! # use abide::server::{Routes, Server};
//! # use serde::{Deserialize, Serialize};
//! # struct Counting;
//! # impl Protocol for Counting { const KIND: &'static str = "counter"; }
//! # #[derive(Serialize, Deserialize)] struct Add(u64);
//! # impl Message<Counting> for Add { const NAME: &'static str = "add"; type Reply = u64; }
//! # struct Counter;
//! # impl Server for Counter {
//! #     type Protocol = Counting;
//! #     type State = u64;
//! #     fn init(&self, _: &ReadContext<'_>) -> Result<u64, Failure> { Ok(0) }
//! #     fn routes(routes: Routes<Self>) -> Routes<Self> { routes.handle::<Add>() }
//! # }
//! # impl Handle<Add> for Counter {
//! #     fn handle(&self, count: &mut u64, Add(more): Add, _: &mut Context<'_, Self>)
//! #         -> Result<Outcome<u64>, Failure> {
//! #         *count = count.checked_add(more).ok_or_else(|| Failure::reject("too many"))?;
//! #         Ok(Outcome::Reply(*count))
//! #     }
//! # }
//! use abide::testing::harness::Harness;
//!
//! let mut counter = Harness::new(Counter)?;
//! assert_eq!(counter.call(Add(2)).outcome, Ok(Outcome::Reply(2)));
//!
//! let refused = counter.call(Add(u64::MAX));
//! assert_eq!(refused.outcome, Err(Failure::reject("too many")));
//! assert!(refused.changes.is_empty());
//! assert_eq!(counter.state()?, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![allow(
    clippy::needless_pass_by_value,
    reason = "who has sent a message has it no more"
)]

use crate::codec::{self, Change, CodecError, Ignored, Leaves};
use crate::durable::keys::SessionId;
use crate::durable::message::CallId;
use crate::env::BoxFuture;
use crate::id::{InstanceId, InvalidInstanceId};
use crate::server::{
    self, Applied, Behaviour, CallError, CallErrorKind, Courier, Decided, Effect, Facts, Failure,
    Flow, Held, InvalidServer, Locked, Message, Outcome, Outgoing, Protocol, Query, Server,
};
use crate::store::Stamp;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// One instance of a server, without a store.
///
/// Between two messages its state is leaves, as in a store: what does not survive that shows here.
/// The first message makes the state with [`Server::init`] unless one was [given](Self::with_state).
#[derive(Debug)]
pub struct Harness<S: Server> {
    behaviour: Arc<dyn Behaviour>,
    facts: Facts,
    leaves: Leaves,
    ignored: Ignored,
    calls: u64,
    carried: Arc<Recorder>,
    courier: Arc<dyn Courier>,
    server: PhantomData<fn() -> S>,
}

impl<S: Server> Harness<S> {
    /// The instance `test` of the server, at the beginning of 1970, at the first attempt.
    ///
    /// # Errors
    ///
    /// As a node's start: a route that is there twice, a kind that is none.
    pub fn new(server: S) -> Result<Self, InvalidServer> {
        let kind = S::Protocol::KIND;
        let instance =
            InstanceId::new(kind, "test").map_err(|source| InvalidServer::Kind { kind, source })?;
        let carried = Arc::new(Recorder::default());
        Ok(Self {
            behaviour: server::erase(server)?,
            facts: Facts {
                instance,
                stamp: None,
                now: SystemTime::UNIX_EPOCH,
                attempt: 1,
                call: None,
                trace: None,
                here: None,
                fence: 1,
            },
            leaves: Leaves::new(),
            ignored: Ignored::none(),
            calls: 0,
            courier: Arc::clone(&carried) as Arc<dyn Courier>,
            carried,
            server: PhantomData,
        })
    }

    /// The same with another id.
    ///
    /// # Errors
    ///
    /// When the id has a wrong length.
    pub fn with_id(mut self, id: &str) -> Result<Self, InvalidInstanceId> {
        self.facts.instance = InstanceId::new(S::Protocol::KIND, id)?;
        Ok(self)
    }

    /// The same with this state.
    ///
    /// # Errors
    ///
    /// When the codec refuses the state.
    pub fn with_state(mut self, state: &S::State) -> Result<Self, CodecError> {
        self.leaves = codec::encode(state, &Leaves::new(), &Ignored::none())?.leaves;
        self.ignored = Ignored::none();
        Ok(self)
    }

    /// The same with references, in effects and in [`Locked::run`], that send through this courier.
    /// Otherwise their casts succeed and are [recorded](Self::carried), and their calls find nobody.
    #[must_use]
    pub fn with_courier(mut self, courier: Arc<dyn Courier>) -> Self {
        self.courier = courier;
        self
    }

    /// Sets the time of the turns that follow.
    pub fn set_now(&mut self, now: SystemTime) {
        self.facts.now = now;
    }

    /// Sets which attempt at their messages the turns that follow are.
    pub fn set_attempt(&mut self, attempt: u32) {
        self.facts.attempt = attempt;
    }

    /// Sets the stamp of the messages that follow; none, as at first, for calls that never stood in a
    /// mailbox.
    pub fn set_stamp(&mut self, stamp: Option<Stamp>) {
        self.facts.stamp = stamp;
    }

    /// Sets the [fencing token](crate::server::LockContext::fencing_token) of the runs that follow, 1
    /// at first.
    pub fn set_fencing_token(&mut self, token: u128) {
        self.facts.fence = token;
    }

    /// The state as it is stored now.
    ///
    /// # Errors
    ///
    /// When there is none yet, or it cannot be read back.
    pub fn state(&self) -> Result<S::State, CodecError> {
        codec::decode(&self.leaves).map(|decoded| decoded.value)
    }

    /// Handles a message that somebody called. The calls of a harness are numbered from 1.
    pub fn call<M: Message<S::Protocol>>(&mut self, message: M) -> Ran<M::Reply> {
        self.calls += 1;
        let facts = self.facts(Some(self.calls));
        self.handle(message, &facts)
    }

    /// Handles a message that was cast.
    pub fn cast<M: Message<S::Protocol>>(&mut self, message: M) -> Ran<M::Reply> {
        let facts = self.facts(None);
        self.handle(message, &facts)
    }

    /// Answers a query.
    ///
    /// # Errors
    ///
    /// The query's failure, or that the message is not routed as a query.
    pub fn query<M: Message<S::Protocol>>(&self, message: M) -> Result<M::Reply, Failure>
    where
        S: Query<M>,
    {
        let payload = encode(&message)?;
        let facts = self.facts(Some(0));
        let held = self.held()?;
        decode(&self.behaviour.query(&held, M::NAME, &payload, &facts)?)
    }

    /// Prepares and runs the work of a message under the lock, with a copy of the state.
    ///
    /// # Errors
    ///
    /// The work's failure, or that of its preparation.
    pub async fn run<M: Message<S::Protocol>>(
        &self,
        message: M,
    ) -> Result<<S as Locked<M>>::Output, Failure>
    where
        S: Locked<M>,
    {
        let payload = encode(&message)?;
        let (held, facts) = (self.held()?, self.facts(Some(self.calls)));
        self.behaviour.prepare(&held, M::NAME, &payload, &facts)?;
        let work = Arc::clone(&self.behaviour).run(
            held,
            M::NAME.into(),
            payload,
            facts,
            Arc::clone(&self.courier),
        );
        decode(&work.await?)
    }

    /// Applies the output of a message's work to the state as it is now, for the latest call.
    pub fn close<M: Message<S::Protocol>>(
        &mut self,
        message: M,
        output: <S as Locked<M>>::Output,
    ) -> Ran<M::Reply>
    where
        S: Locked<M>,
    {
        let facts = self.facts(Some(self.calls));
        self.turn(&facts, |behaviour, held, facts| {
            let (payload, output) = (encode(&message)?, encode(&output)?);
            Ok(behaviour.close(held, M::NAME, &payload, &output, facts))
        })
    }

    /// Runs effects with the state as it is now, until one of them halts the rest. Returns how many
    /// ran.
    ///
    /// # Errors
    ///
    /// When the state cannot be read back.
    pub fn run_effects(&self, effects: Effects) -> Result<usize, Failure> {
        let held = self.held()?;
        let mut ran = 0;
        for effect in effects.0 {
            ran += 1;
            if effect(&held, &self.courier) == Flow::Halt {
                break;
            }
        }
        Ok(ran)
    }

    /// What references in effects and in [`Locked::run`] sent so far, calls included.
    #[must_use]
    pub fn carried(&self) -> Vec<Outgoing> {
        self.carried.lock().clone()
    }

    fn facts(&self, call: Option<u64>) -> Facts {
        let session = SessionId::from_bytes([0; SessionId::LEN]);
        Facts {
            call: call.map(|call| CallId { session, call }),
            ..self.facts.clone()
        }
    }

    fn held(&self) -> Result<Held, Failure> {
        if self.leaves.is_empty() {
            return self.behaviour.init(&self.facts);
        }
        Ok(self.behaviour.decode(&mut self.leaves.clone())?.0)
    }

    fn handle<M: Message<S::Protocol>>(&mut self, message: M, facts: &Facts) -> Ran<M::Reply> {
        self.turn(facts, |behaviour, held, facts| {
            let payload = encode(&message)?;
            Ok(behaviour.handle(held, M::NAME, &payload, facts))
        })
    }

    /// A turn of one message: load, apply, diff, and commit unless it failed.
    fn turn<R: DeserializeOwned>(
        &mut self,
        facts: &Facts,
        apply: impl FnOnce(&dyn Behaviour, &mut Held, &Facts) -> Result<Applied, Failure>,
    ) -> Ran<R> {
        let run = || {
            let mut held = self.held()?;
            let applied = apply(&*self.behaviour, &mut held, facts)?;
            let outcome = outcome(applied.outcome?)?;
            let update = self.behaviour.encode(&held, &self.leaves, &self.ignored)?;
            let ran = Ran {
                outcome: Ok(outcome),
                changes: update.changes.clone(),
                sends: applied.sends,
                answers: applied
                    .answers
                    .into_iter()
                    .map(|(call, payload)| Answer {
                        call: call.call,
                        payload,
                    })
                    .collect(),
                effects: Effects(applied.effects),
            };
            Ok((ran, update))
        };
        match run() {
            Ok((ran, update)) => {
                self.ignored = update.ignored.clone();
                update.land(&mut self.leaves);
                ran
            }
            Err(failure) => Ran {
                outcome: Err(failure),
                changes: Vec::new(),
                sends: Vec::new(),
                answers: Vec::new(),
                effects: Effects(Vec::new()),
            },
        }
    }
}

/// What came of one message. After a failure there is nothing else, as in a store.
#[derive(Debug)]
pub struct Ran<R> {
    /// What the handler answered, the reply as its caller reads it.
    pub outcome: Result<Outcome<R>, Failure>,
    /// What would be written of the state.
    pub changes: Vec<Change>,
    /// The messages that the handler cast. Compare them with [`Outgoing::new`].
    pub sends: Vec<Outgoing>,
    /// The answers to earlier calls.
    pub answers: Vec<Answer>,
    /// What would run after the commit; see [`Harness::run_effects`].
    pub effects: Effects,
}

/// An answer to an earlier call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which call of the harness it answers; the first is 1.
    pub call: u64,
    /// The reply, as MessagePack.
    pub payload: Bytes,
}

impl Answer {
    /// The reply, as its caller reads it.
    ///
    /// # Errors
    ///
    /// When it is of another type.
    pub fn reply<R: DeserializeOwned>(&self) -> Result<R, CodecError> {
        codec::from_payload(&self.payload)
    }
}

/// The effects that a handler asked for.
#[derive(Default)]
pub struct Effects(Vec<Effect>);

impl Effects {
    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Effects").field(&self.len()).finish()
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Bytes, Failure> {
    Ok(codec::to_payload(value)?)
}

fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Failure> {
    Ok(codec::from_payload(payload)?)
}

fn outcome<R: DeserializeOwned>(decided: Decided) -> Result<Outcome<R>, Failure> {
    Ok(match decided {
        Decided::Reply(reply) => Outcome::Reply(decode(&reply)?),
        Decided::Later => Outcome::Later,
        Decided::Lock => Outcome::Lock,
        Decided::Stop(reply) => Outcome::Stop(decode(&reply)?),
    })
}

/// A courier that writes down what it is given.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Outgoing>>);

impl Recorder {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Outgoing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Courier for Recorder {
    fn cast(&self, batch: Vec<Outgoing>) -> BoxFuture<'static, Result<(), CallError>> {
        self.lock().extend(batch);
        Box::pin(std::future::ready(Ok(())))
    }

    fn call(
        &self,
        message: Outgoing,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        self.lock().push(message);
        Box::pin(std::future::ready(Err(nobody())))
    }

    fn kill(&self, _instance: InstanceId) -> BoxFuture<'static, Result<(), CallError>> {
        Box::pin(std::future::ready(Err(nobody())))
    }

    fn reset(&self, _instance: InstanceId) -> BoxFuture<'static, Result<(), CallError>> {
        Box::pin(std::future::ready(Err(nobody())))
    }
}

fn nobody() -> CallError {
    CallError::new(CallErrorKind::Unavailable)
        .with_message("the harness has no other servers; give it a courier of your own")
}

#[cfg(test)]
mod tests;

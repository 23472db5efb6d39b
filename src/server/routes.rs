//! Which message is handled how: names, and functions whose types are erased.

use super::behaviour::{Decided, Facts, Route};
use super::context::{Context, LockContext, ReadContext};
use super::courier::Courier;
use super::outcome::{Failure, Outcome};
use super::traits::{Handle, Locked, Message, Protocol, Query, Server};
use crate::codec::{self, CodecError};
use crate::env::BoxFuture;
use crate::id::InvalidInstanceId;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The messages that a server handles, collected by [`Server::routes`].
///
/// A name that is used twice is an error when the node starts.
#[must_use = "return the routes"]
pub struct Routes<S: Server> {
    entries: BTreeMap<&'static str, Entry<S>>,
    duplicates: Vec<&'static str>,
}

impl<S: Server> Routes<S> {
    fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            duplicates: Vec::new(),
        }
    }

    /// Handles `M` inside a transaction.
    pub fn handle<M>(self) -> Self
    where
        M: Message<S::Protocol>,
        S: Handle<M>,
    {
        self.add::<M>(Action::Handle(apply::<S, M>))
    }

    /// Answers `M` without changing anything.
    pub fn query<M>(self) -> Self
    where
        M: Message<S::Protocol>,
        S: Query<M>,
    {
        self.add::<M>(Action::Query(query::<S, M>))
    }

    /// Handles `M` inside a transaction, and under a lock if the handler answers [`Outcome::Lock`].
    pub fn locked<M>(self) -> Self
    where
        M: Message<S::Protocol>,
        S: Locked<M>,
    {
        self.add::<M>(Action::Locked(LockedAction {
            handle: apply::<S, M>,
            prepare: prepare::<S, M>,
            run: run::<S, M>,
            close: close::<S, M>,
        }))
    }

    fn add<M: Message<S::Protocol>>(mut self, action: Action<S>) -> Self {
        let entry = Entry { action };
        if self.entries.insert(M::NAME, entry).is_some() {
            self.duplicates.push(M::NAME);
        }
        self
    }

    /// The routes of a server.
    pub(super) fn of() -> Result<BTreeMap<&'static str, Entry<S>>, InvalidServer> {
        let routes = S::routes(Self::new());
        match routes.duplicates.first() {
            Some(message) => Err(InvalidServer::DuplicateRoute {
                kind: S::Protocol::KIND,
                message,
            }),
            None => Ok(routes.entries),
        }
    }
}

impl<S: Server> fmt::Debug for Routes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("names", &self.entries.keys())
            .field("duplicates", &self.duplicates)
            .finish()
    }
}

/// A server that cannot be served as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidServer {
    /// Two messages have the same name, or one is routed twice.
    #[error("the message `{message}` of kind `{kind}` is routed twice")]
    DuplicateRoute {
        /// The kind.
        kind: &'static str,
        /// The name that is used twice.
        message: &'static str,
    },
    /// The protocol's `KIND` cannot be part of an instance's name.
    #[error("the kind `{kind}` cannot be used")]
    Kind {
        /// The kind.
        kind: &'static str,
        /// What is wrong with it.
        source: InvalidInstanceId,
    },
}

/// How one message is handled.
pub(super) struct Entry<S: Server> {
    pub(super) action: Action<S>,
}

impl<S: Server> Entry<S> {
    pub(super) fn route(&self) -> Route {
        match self.action {
            Action::Handle(_) => Route::Handle,
            Action::Query(_) => Route::Query,
            Action::Locked(_) => Route::Locked,
        }
    }
}

pub(super) type HandleFn<S> =
    fn(&S, &mut <S as Server>::State, &[u8], &mut Context<'_, S>) -> Result<Decided, Unhandled>;

pub(super) type QueryFn<S> =
    fn(&S, &<S as Server>::State, &[u8], &Facts) -> Result<Bytes, Unhandled>;

pub(super) enum Action<S: Server> {
    Handle(HandleFn<S>),
    Query(QueryFn<S>),
    Locked(LockedAction<S>),
}

pub(super) struct LockedAction<S: Server> {
    pub(super) handle: HandleFn<S>,
    pub(super) prepare: PrepareFn<S>,
    pub(super) run: RunFn<S>,
    pub(super) close: CloseFn<S>,
}

pub(super) type PrepareFn<S> = fn(&S, &<S as Server>::State, &[u8]) -> Result<(), Unhandled>;

pub(super) type RunFn<S> = fn(
    Arc<S>,
    <S as Server>::State,
    Bytes,
    Facts,
    Arc<dyn Courier>,
) -> BoxFuture<'static, Result<Bytes, Unhandled>>;

pub(super) type CloseFn<S> = fn(
    &S,
    &mut <S as Server>::State,
    &[u8],
    &[u8],
    &mut Context<'_, S>,
) -> Result<Decided, Unhandled>;

/// Why there is no outcome: whose fault it is decides what becomes of the message.
pub(super) enum Unhandled {
    /// The handler's.
    Failed(Failure),
    /// The sender's: the payload is not what the name says.
    Undecodable(CodecError),
}

impl From<Failure> for Unhandled {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn decode<M: DeserializeOwned>(payload: &[u8]) -> Result<M, Unhandled> {
    codec::from_payload(payload).map_err(Unhandled::Undecodable)
}

fn encode<R: Serialize>(value: &R) -> Result<Bytes, Failure> {
    Ok(codec::to_payload(value)?)
}

fn decided<R: Serialize>(outcome: &Outcome<R>) -> Result<Decided, Unhandled> {
    Ok(match outcome {
        Outcome::Reply(reply) => Decided::Reply(encode(reply)?),
        Outcome::Later => Decided::Later,
        Outcome::Lock => Decided::Lock,
        Outcome::Stop(reply) => Decided::Stop(encode(reply)?),
    })
}

fn apply<S, M>(
    server: &S,
    state: &mut S::State,
    payload: &[u8],
    cx: &mut Context<'_, S>,
) -> Result<Decided, Unhandled>
where
    M: Message<S::Protocol>,
    S: Handle<M>,
{
    let message = decode::<M>(payload)?;
    decided(&server.handle(state, message, cx)?)
}

fn query<S, M>(
    server: &S,
    state: &S::State,
    payload: &[u8],
    facts: &Facts,
) -> Result<Bytes, Unhandled>
where
    M: Message<S::Protocol>,
    S: Query<M>,
{
    let message = decode::<M>(payload)?;
    Ok(encode(&server.query(
        state,
        message,
        &ReadContext::new(facts),
    )?)?)
}

fn prepare<S, M>(server: &S, state: &S::State, payload: &[u8]) -> Result<(), Unhandled>
where
    M: Message<S::Protocol>,
    S: Locked<M>,
{
    Ok(server.prepare(state, &decode::<M>(payload)?)?)
}

fn run<S, M>(
    server: Arc<S>,
    state: S::State,
    payload: Bytes,
    facts: Facts,
    courier: Arc<dyn Courier>,
) -> BoxFuture<'static, Result<Bytes, Unhandled>>
where
    M: Message<S::Protocol>,
    S: Locked<M>,
{
    Box::pin(async move {
        let message = decode::<M>(&payload)?;
        let cx = LockContext::new(facts, courier);
        let output = server.run(state, message, cx).await?;
        Ok(encode(&output)?)
    })
}

fn close<S, M>(
    server: &S,
    state: &mut S::State,
    payload: &[u8],
    output: &[u8],
    cx: &mut Context<'_, S>,
) -> Result<Decided, Unhandled>
where
    M: Message<S::Protocol>,
    S: Locked<M>,
{
    let message = decode::<M>(payload)?;
    let output = codec::from_payload::<<S as Locked<M>>::Output>(output).map_err(Failure::from)?;
    decided(&server.close(state, message, output, cx)?)
}

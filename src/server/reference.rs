//! References: how anything outside a handler's transaction reaches a server.

#![allow(
    clippy::needless_pass_by_value,
    reason = "who has sent a message or given an answer has it no more"
)]

use super::blocking::BlockingRef;
use super::courier::{CallError, CallErrorKind, Courier, Outgoing};
use super::traits::{Message, Protocol};
use crate::codec;
use crate::durable::keys::Lane;
use crate::id::{InstanceId, InvalidInstanceId};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// How long a call waits for its reply unless [told otherwise](Ref::timeout): what `GenServer` users
/// are used to, and several times what it takes until another node goes on with the fresh messages of
/// a node that died. (What that one had claimed of a backlog waits for 20 s.)
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A reference to one instance of the protocol `P`: the way to send it messages.
///
/// Cheap to clone, and independent of whether the instance exists yet, or anybody serves it now. An
/// id of a wrong length shows as [`Invalid`](CallErrorKind::Invalid) with the first use.
///
/// ```
/// use abide::server::{CallError, CallErrorKind, Message, Protocol, Ref};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// struct Counting;
///
/// impl Protocol for Counting {
///     const KIND: &'static str = "counter";
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct Add(u64);
///
/// impl Message<Counting> for Add {
///     const NAME: &'static str = "add";
///     type Reply = u64;
/// }
///
/// async fn add_twice(counter: &Ref<Counting>) -> Result<u64, CallError> {
///     counter.cast(Add(1)).await?;
///     match counter.clone().timeout(Duration::from_secs(1)).call(Add(1)).await {
///         Err(error) if error.kind() == CallErrorKind::Rejected => Ok(0),
///         replied => replied,
///     }
/// }
/// ```
pub struct Ref<P: Protocol> {
    courier: Arc<dyn Courier>,
    target: Result<InstanceId, InvalidInstanceId>,
    lane: Lane,
    timeout: Duration,
    protocol: PhantomData<fn() -> P>,
}

impl<P: Protocol> Ref<P> {
    /// A reference to the instance `id` that sends through `courier`.
    #[must_use]
    pub fn new(courier: Arc<dyn Courier>, id: impl Into<Arc<str>>) -> Self {
        Self {
            courier,
            target: InstanceId::new(P::KIND, id),
            lane: Lane::Ordinary,
            timeout: DEFAULT_TIMEOUT,
            protocol: PhantomData,
        }
    }

    /// The same reference, but what is sent through it goes before ordinary messages, also while the
    /// instance is locked or paused. Priority messages keep the order among themselves.
    #[must_use]
    pub fn priority(mut self) -> Self {
        self.lane = Lane::Priority;
        self
    }

    /// The same reference, with calls and queries that wait this long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends a message and waits for its reply, which comes once the change is durable.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`]. After [`TimedOut`](CallErrorKind::TimedOut) the message may still
    /// apply.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the waiting. The message is sent once the future was polled.
    pub fn call<M: Message<P>>(
        &self,
        message: M,
    ) -> impl Future<Output = Result<M::Reply, CallError>> + Send + use<P, M> {
        self.exchange(&message, false)
    }

    /// Asks about the state as it is now, without changing or storing anything.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`]. [`Rejected`](CallErrorKind::Rejected) also if the server does not route
    /// the message as a query.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the query.
    pub fn query<M: Message<P>>(
        &self,
        message: M,
    ) -> impl Future<Output = Result<M::Reply, CallError>> + Send + use<P, M> {
        self.exchange(&message, true)
    }

    fn exchange<M: Message<P>>(
        &self,
        message: &M,
        query: bool,
    ) -> impl Future<Output = Result<M::Reply, CallError>> + Send + use<P, M> {
        let outgoing = self
            .outgoing(message)
            .map(|outgoing| Outgoing { query, ..outgoing });
        let (courier, timeout) = (Arc::clone(&self.courier), self.timeout);
        async move {
            let reply = courier.call(outgoing?, timeout).await?;
            codec::from_payload(&reply)
                .map_err(|error| CallError::new(CallErrorKind::Decode).with_source(error))
        }
    }

    /// Sends a message and waits until it is durable in the mailbox. Nobody sees the reply.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the waiting. The message is sent once the future was polled.
    pub fn cast<M: Message<P>>(
        &self,
        message: M,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<P, M> {
        self.cast_all([message])
    }

    /// Sends several messages, in this order and all or none of them.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`]; [`TooLarge`](CallErrorKind::TooLarge) if they do not fit one
    /// transaction.
    ///
    /// # Cancel safety
    ///
    /// As that of [`cast`](Self::cast).
    pub fn cast_all<M: Message<P>, I: IntoIterator<Item = M>>(
        &self,
        messages: I,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<P, M, I> {
        let batch: Result<Vec<Outgoing>, CallError> = messages
            .into_iter()
            .map(|message| self.outgoing(&message))
            .collect();
        let courier = Arc::clone(&self.courier);
        async move { courier.cast(batch?).await }
    }

    /// Removes the instance: the messages in its mailboxes, whose callers are told, its lock, and its
    /// state. The next message makes a new one.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the waiting. The instance may be removed all the same.
    pub fn kill(&self) -> impl Future<Output = Result<(), CallError>> + Send + use<P> {
        let (courier, target) = (Arc::clone(&self.courier), self.target.clone());
        async move { courier.kill(target?).await }
    }

    /// Removes the instance's state, which the next message initializes anew. Its messages stay.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the waiting. The state may be removed all the same.
    pub fn reset(&self) -> impl Future<Output = Result<(), CallError>> + Send + use<P> {
        let (courier, target) = (Arc::clone(&self.courier), self.target.clone());
        async move { courier.reset(target?).await }
    }

    /// The same reference for callers that are not asynchronous.
    #[must_use]
    pub fn blocking(&self) -> BlockingRef<P> {
        BlockingRef::new(self.clone())
    }

    pub(super) fn courier(&self) -> &Arc<dyn Courier> {
        &self.courier
    }

    pub(super) fn outgoing<M: Message<P>>(&self, message: &M) -> Result<Outgoing, CallError> {
        Outgoing::new(self.target.clone()?, self.lane, message)
            .map_err(|error| CallError::new(CallErrorKind::Invalid).with_source(error))
    }
}

impl<P: Protocol> Clone for Ref<P> {
    fn clone(&self) -> Self {
        Self {
            courier: Arc::clone(&self.courier),
            target: self.target.clone(),
            lane: self.lane,
            timeout: self.timeout,
            protocol: PhantomData,
        }
    }
}

impl<P: Protocol> fmt::Debug for Ref<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ref")
            .field("target", &self.target)
            .field("lane", &self.lane)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

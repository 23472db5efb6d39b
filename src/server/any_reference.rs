//! References without types, for tools and other languages.

use super::courier::{CallError, CallErrorKind, Courier, Outgoing};
use super::reference::DEFAULT_TIMEOUT;
use crate::codec::Value;
use crate::durable::keys::Lane;
use crate::id::InstanceId;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A reference to an instance of which only the names are known: messages and replies are
/// [`Value`]s, which have a JSON form that loses nothing.
///
/// ```
/// use abide::codec::Value;
/// use abide::server::{AnyRef, CallError};
///
/// async fn call(server: &AnyRef, name: &str, message: &Value) -> Result<Value, CallError> {
///     server.clone().priority().call(name, message).await
/// }
/// ```
#[derive(Debug, Clone)]
pub struct AnyRef {
    courier: Arc<dyn Courier>,
    instance: InstanceId,
    lane: Lane,
    timeout: Duration,
}

impl AnyRef {
    /// A reference to the instance that sends through `courier`.
    #[must_use]
    pub fn new(courier: Arc<dyn Courier>, instance: InstanceId) -> Self {
        Self {
            courier,
            instance,
            lane: Lane::Ordinary,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// See [`Ref::priority`](super::Ref::priority).
    #[must_use]
    pub fn priority(mut self) -> Self {
        self.lane = Lane::Priority;
        self
    }

    /// See [`Ref::timeout`](super::Ref::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the message `name` and waits for its reply. See [`Ref::call`](super::Ref::call), also
    /// about cancelling.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    pub fn call(
        &self,
        name: &str,
        message: &Value,
    ) -> impl Future<Output = Result<Value, CallError>> + Send + use<> {
        self.exchange(name, message, false)
    }

    /// Asks the query `name`. See [`Ref::query`](super::Ref::query), also about cancelling.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    pub fn query(
        &self,
        name: &str,
        message: &Value,
    ) -> impl Future<Output = Result<Value, CallError>> + Send + use<> {
        self.exchange(name, message, true)
    }

    fn exchange(
        &self,
        name: &str,
        message: &Value,
        query: bool,
    ) -> impl Future<Output = Result<Value, CallError>> + Send + use<> {
        let outgoing = self
            .outgoing(name, message)
            .map(|outgoing| Outgoing { query, ..outgoing });
        let (courier, timeout) = (Arc::clone(&self.courier), self.timeout);
        async move {
            let reply = courier.call(outgoing?, timeout).await?;
            Value::from_payload(&reply)
                .map_err(|error| CallError::new(CallErrorKind::Decode).with_source(error))
        }
    }

    /// Sends the message `name` and waits until it is durable in the mailbox. See
    /// [`Ref::cast`](super::Ref::cast), also about cancelling.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    pub fn cast(
        &self,
        name: &str,
        message: &Value,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<> {
        let (outgoing, courier) = (self.outgoing(name, message), Arc::clone(&self.courier));
        async move { courier.cast(vec![outgoing?]).await }
    }

    /// Sends several messages, each a name and a value, in this order and all or none of them. See
    /// [`Ref::cast_all`](super::Ref::cast_all), also about cancelling.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    pub fn cast_all<'a, I: IntoIterator<Item = (&'a str, &'a Value)>>(
        &self,
        messages: I,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<'a, I> {
        let batch: Result<Vec<Outgoing>, CallError> = messages
            .into_iter()
            .map(|(name, message)| self.outgoing(name, message))
            .collect();
        let courier = Arc::clone(&self.courier);
        async move { courier.cast(batch?).await }
    }

    /// See [`Ref::kill`](super::Ref::kill), also about cancelling.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    pub fn kill(&self) -> impl Future<Output = Result<(), CallError>> + Send + use<> {
        self.courier.kill(self.instance.clone())
    }

    /// See [`Ref::reset`](super::Ref::reset), also about cancelling.
    ///
    /// # Errors
    ///
    /// See [`CallErrorKind`].
    pub fn reset(&self) -> impl Future<Output = Result<(), CallError>> + Send + use<> {
        self.courier.reset(self.instance.clone())
    }

    pub(super) fn courier(&self) -> &Arc<dyn Courier> {
        &self.courier
    }

    pub(super) fn outgoing(&self, name: &str, message: &Value) -> Result<Outgoing, CallError> {
        Ok(Outgoing {
            instance: self.instance.clone(),
            name: name.into(),
            payload: message
                .to_payload()
                .map_err(|error| CallError::new(CallErrorKind::Invalid).with_source(error))?,
            lane: self.lane,
            query: false,
            trace: None,
        })
    }
}

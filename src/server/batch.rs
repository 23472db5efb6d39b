//! Several messages to several servers, all or none.

#![allow(
    clippy::needless_pass_by_value,
    reason = "who has sent a message or given an answer has it no more"
)]

use super::any_reference::AnyRef;
use super::courier::{CallError, CallErrorKind, Courier, Outgoing};
use super::reference::Ref;
use super::traits::{Message, Protocol};
use crate::codec::Value;
use std::sync::Arc;

/// Messages that are sent together, in one transaction: all of them or none.
///
/// ```
/// use abide::server::{Batch, CallError, Message, Protocol, Ref};
///
/// async fn both<A: Protocol, B: Protocol>(
///     (a, to_a): (&Ref<A>, impl Message<A>),
///     (b, to_b): (&Ref<B>, impl Message<B>),
/// ) -> Result<(), CallError> {
///     Batch::new().cast(a, to_a).cast(b, to_b).send().await
/// }
/// ```
#[derive(Debug, Default)]
#[must_use = "a batch that is not sent does nothing"]
pub struct Batch {
    courier: Option<Arc<dyn Courier>>,
    messages: Vec<Outgoing>,
    /// The first thing that was wrong.
    error: Option<CallError>,
}

impl Batch {
    /// A batch without messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message, by the reference's lane. What is wrong with it shows when the batch is sent.
    pub fn cast<P: Protocol, M: Message<P>>(self, to: &Ref<P>, message: M) -> Self {
        self.add(to.courier(), || to.outgoing(&message))
    }

    /// Adds a message of which only the name is known.
    pub fn cast_any(self, to: &AnyRef, name: &str, message: &Value) -> Self {
        self.add(to.courier(), || to.outgoing(name, message))
    }

    fn add(
        mut self,
        through: &Arc<dyn Courier>,
        outgoing: impl FnOnce() -> Result<Outgoing, CallError>,
    ) -> Self {
        let courier = self.courier.get_or_insert_with(|| Arc::clone(through));
        let added = if Arc::ptr_eq(courier, through) {
            outgoing()
        } else {
            Err(CallError::new(CallErrorKind::Invalid)
                .with_message("the references of a batch come from different nodes"))
        };
        match added {
            Ok(outgoing) => self.messages.push(outgoing),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    /// Sends the messages, in the order in which they were added. Nobody sees the replies.
    ///
    /// # Errors
    ///
    /// As those of [`Ref::cast_all`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the waiting. The messages are sent once the future was polled.
    pub async fn send(self) -> Result<(), CallError> {
        match (self.error, self.courier) {
            (Some(error), _) => Err(error),
            (None, Some(courier)) => courier.cast(self.messages).await,
            (None, None) => Ok(()),
        }
    }
}

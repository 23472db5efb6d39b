//! The durable token of an answer that is still owed.

use crate::durable::message::CallId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// The durable right to answer a call later: see
/// [`Context::later`](super::Context::later). Keep it in the state.
///
/// If the caller is gone when the answer comes, the answer is dropped. A token that is dropped
/// leaves its caller to the time-out.
pub struct Later<R> {
    /// None for a cast, which nobody waits for.
    call: Option<CallId>,
    reply: PhantomData<fn() -> R>,
}

impl<R> Later<R> {
    pub(super) fn new(call: Option<CallId>) -> Self {
        Self {
            call,
            reply: PhantomData,
        }
    }

    pub(super) fn call(&self) -> Option<CallId> {
        self.call
    }

    /// Whether someone called, and so may still wait.
    #[must_use]
    pub fn is_call(&self) -> bool {
        self.call.is_some()
    }
}

impl<R> Clone for Later<R> {
    fn clone(&self) -> Self {
        Self::new(self.call)
    }
}

impl<R> PartialEq for Later<R> {
    fn eq(&self, other: &Self) -> bool {
        self.call == other.call
    }
}

impl<R> Eq for Later<R> {}

impl<R> fmt::Debug for Later<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Later").field(&self.call).finish()
    }
}

// A tuple is one leaf of the state and never the same as nothing, so that `Option<Later<R>>` works.
impl<R> Serialize for Later<R> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        (self.call,).serialize(serializer)
    }
}

impl<'de, R> Deserialize<'de> for Later<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (call,) = Deserialize::deserialize(deserializer)?;
        Ok(Self::new(call))
    }
}

//! After-commit effects: what runs once a transaction is durable, at most once.

use super::behaviour::{Effect, Held};
use super::courier::{Courier, traced};
use super::outcome::panic_text;
use super::reference::Ref;
use super::traits::{Protocol, Server};
use crate::id::InstanceId;
use crate::trace::TraceParent;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Whether the effects that follow still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flow {
    /// They do.
    Continue,
    /// They are dropped, those of later messages of the same batch too.
    Halt,
}

impl From<()> for Flow {
    fn from((): ()) -> Self {
        Self::Continue
    }
}

/// What an effect sees: the committed state, and the way to other servers.
pub struct After<'a, S: Server> {
    state: &'a S::State,
    instance: &'a InstanceId,
    courier: &'a Arc<dyn Courier>,
}

impl<'a, S: Server> After<'a, S> {
    /// The state as it was committed: after the last message of the batch.
    #[must_use]
    pub fn state(&self) -> &'a S::State {
        self.state
    }

    /// The instance whose state it is.
    #[must_use]
    pub fn instance(&self) -> &'a InstanceId {
        self.instance
    }

    /// A reference to an instance of the protocol `P`. It outlives the effect; use it in a task of
    /// your own, because an effect that waits keeps its instance waiting.
    #[must_use]
    pub fn server<P: Protocol>(&self, id: impl Into<Arc<str>>) -> Ref<P> {
        Ref::new(Arc::clone(self.courier), id)
    }
}

impl<S: Server> fmt::Debug for After<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("After")
            .field("instance", self.instance)
            .finish_non_exhaustive()
    }
}

/// Erases the type of the state that an effect gets, and catches its panics. What it sends goes on
/// with `trace`.
pub(super) fn erase<S, F, T>(instance: InstanceId, trace: Option<TraceParent>, effect: F) -> Effect
where
    S: Server,
    F: FnOnce(After<'_, S>) -> T + Send + 'static,
    T: Into<Flow>,
{
    Box::new(move |held: &Held, courier| {
        let Some(state) = (**held).downcast_ref::<S::State>() else {
            return Flow::Halt;
        };
        let courier = traced(Arc::clone(courier), trace);
        let after = After {
            state,
            instance: &instance,
            courier: &courier,
        };
        let ran = catch_unwind(AssertUnwindSafe(|| effect(after).into()));
        ran.unwrap_or_else(|panic| {
            let panic = panic_text(&*panic);
            tracing::error!(%instance, panic, "an effect panicked");
            Flow::Halt
        })
    })
}

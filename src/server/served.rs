//! The behaviour of a user's server.
//!
//! Invariant: no code of the user's unwinds through here. A panic is a failure of the message whose
//! handler panicked, whatever the handler had changed before; the caller discards the state then.

use super::behaviour::{Applied, Behaviour, Decided, Facts, Held, Route};
use super::context::{Context, ReadContext, Wishes};
use super::courier::Courier;
use super::hooks::{Activation, Deactivation, DeadLetterNotice};
use super::outcome::{Failure, panic_text};
use super::routes::{Action, Entry, InvalidServer, LockedAction, Routes, Unhandled};
use super::traits::{Protocol, Server};
use crate::codec::lazy::Found;
use crate::codec::{self, CodecError, Ignored, Leaves, Path, Update};
use crate::env::BoxFuture;
use crate::id::InstanceId;
use bytes::Bytes;
use futures_util::FutureExt;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Erases the types of a server.
///
/// # Errors
///
/// When its kind is no kind, or two of its routes have the same name.
pub(crate) fn erase<S: Server>(server: S) -> Result<Arc<dyn Behaviour>, InvalidServer> {
    let kind = S::Protocol::KIND;
    if let Err(source) = InstanceId::new(kind, "any") {
        return Err(InvalidServer::Kind { kind, source });
    }
    Ok(Arc::new(Served {
        server: Arc::new(server),
        entries: Routes::of()?,
        // A type whose own code panics is read as a whole, and tells then.
        lazy: catch_unwind(codec::lazy_places::<S::State>).unwrap_or_default(),
    }))
}

struct Served<S: Server> {
    server: Arc<S>,
    entries: BTreeMap<&'static str, Entry<S>>,
    /// Where the state has lazy collections.
    lazy: Vec<Path>,
}

impl<S: Server> Served<S> {
    fn entry(&self, name: &str) -> Result<&Entry<S>, Failure> {
        self.entries.get(name).ok_or_else(|| {
            let kind = S::Protocol::KIND;
            Failure::fail(format!("no server of kind `{kind}` here knows `{name}`"))
        })
    }

    /// Runs a handler with a context, and keeps what it wished for if it succeeds.
    fn apply(
        &self,
        state: &mut Held,
        name: &str,
        facts: &Facts,
        handler: impl FnOnce(&S, &mut S::State, &mut Context<'_, S>) -> Result<Decided, Unhandled>,
    ) -> Applied {
        let mut cx = Context::new(facts);
        let outcome = match state_mut::<S>(state) {
            Ok(state) => guard(|| handler(&self.server, state, &mut cx)),
            Err(failure) => Err(failure.into()),
        };
        match outcome {
            Ok(decided) => {
                let Wishes {
                    sends,
                    answers,
                    effects,
                } = cx.into_wishes();
                Applied {
                    outcome: Ok(decided),
                    sends,
                    answers,
                    effects,
                }
            }
            Err(unhandled) => unhandled.blame(name, facts).into(),
        }
    }

    /// Runs a hook, whose panic is nobody's failure.
    fn hook(&self, instance: &InstanceId, which: &'static str, hook: impl FnOnce(&S)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| hook(&self.server))) {
            let panic = panic_text(&*panic);
            tracing::error!(%instance, hook = which, panic, "a hook panicked");
        }
    }
}

impl<S: Server> Behaviour for Served<S> {
    fn kind(&self) -> &'static str {
        S::Protocol::KIND
    }

    fn schema(&self) -> u32 {
        S::SCHEMA
    }

    fn init(&self, facts: &Facts) -> Result<Held, Failure> {
        guard(|| Ok(self.server.init(&ReadContext::new(facts))?))
            .map(|state| Box::new(state) as Held)
            .map_err(|unhandled| unhandled.blame("init", facts))
    }

    fn decode(&self, leaves: &mut Leaves) -> Result<(Held, Ignored), CodecError> {
        let (state, ignored) = codec_guard(|| codec::load::<S::State>(leaves))?;
        Ok((Box::new(state), ignored))
    }

    fn lazy(&self) -> &[Path] {
        &self.lazy
    }

    fn learn(
        &self,
        leaves: &mut Leaves,
        ignored: &mut Ignored,
        found: Found,
    ) -> Result<(), CodecError> {
        codec_guard(|| codec::lazy::learn(leaves, ignored, found))
    }

    fn restore(&self, leaves: &Leaves) -> Result<Held, CodecError> {
        let state = codec_guard(|| codec::restore::<S::State>(leaves))?;
        Ok(Box::new(state))
    }

    fn encode(&self, state: &Held, base: &Leaves, ignored: &Ignored) -> Result<Update, CodecError> {
        let state = state_ref::<S>(state).map_err(|failure| custom(failure.message()))?;
        codec_guard(|| codec::update(state, base, ignored))
    }

    fn route(&self, name: &str) -> Option<Route> {
        self.entries.get(name).map(Entry::route)
    }

    fn handle(&self, state: &mut Held, name: &str, payload: &[u8], facts: &Facts) -> Applied {
        let entry = match self.entry(name) {
            Ok(entry) => entry,
            Err(failure) => return failure.into(),
        };
        self.apply(state, name, facts, |server, state, cx| {
            match &entry.action {
                Action::Handle(handle) => unlocked(handle(server, state, payload, cx)?, name),
                Action::Query(query) => query(server, state, payload, facts).map(Decided::Reply),
                Action::Locked(locked) => (locked.handle)(server, state, payload, cx),
            }
        })
    }

    fn query(
        &self,
        state: &Held,
        name: &str,
        payload: &[u8],
        facts: &Facts,
    ) -> Result<Bytes, Failure> {
        let Action::Query(query) = &self.entry(name)?.action else {
            return Err(Failure::reject(format!(
                "`{name}` may change the state: call it, it is no query"
            )));
        };
        let state = state_ref::<S>(state)?;
        guard(|| query(&self.server, state, payload, facts)).map_err(|unhandled| match unhandled {
            // Somebody waits for the answer to a query, whichever way it came.
            Unhandled::Undecodable(error) => undecodable(name, &error, Failure::reject),
            Unhandled::Failed(failure) => failure,
        })
    }

    fn prepare(
        &self,
        state: &Held,
        name: &str,
        payload: &[u8],
        facts: &Facts,
    ) -> Result<(), Failure> {
        let Action::Locked(LockedAction { prepare, .. }) = &self.entry(name)?.action else {
            return Err(not_locked(name));
        };
        let state = state_ref::<S>(state)?;
        guard(|| prepare(&self.server, state, payload))
            .map_err(|unhandled| unhandled.blame(name, facts))
    }

    fn run(
        self: Arc<Self>,
        state: Held,
        name: Arc<str>,
        payload: Bytes,
        facts: Facts,
        courier: Arc<dyn Courier>,
    ) -> BoxFuture<'static, Result<Bytes, Failure>> {
        Box::pin(async move {
            let Action::Locked(LockedAction { run, .. }) = &self.entry(&name)?.action else {
                return Err(not_locked(&name));
            };
            let state = state.downcast::<S::State>().map_err(|_| foreign_state())?;
            let blamed = facts.clone();
            // Making the future is the user's code as well.
            let work =
                async { run(Arc::clone(&self.server), *state, payload, facts, courier).await };
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(ran) => ran.map_err(|unhandled| unhandled.blame(&name, &blamed)),
                Err(panic) => Err(Failure::panicked(&*panic)),
            }
        })
    }

    fn close(
        &self,
        state: &mut Held,
        name: &str,
        payload: &[u8],
        output: &[u8],
        facts: &Facts,
    ) -> Applied {
        let close = match self.entry(name) {
            Ok(Entry {
                action: Action::Locked(LockedAction { close, .. }),
                ..
            }) => close,
            Ok(_) => return not_locked(name).into(),
            Err(failure) => return failure.into(),
        };
        self.apply(state, name, facts, |server, state, cx| {
            match close(server, state, payload, output, cx)? {
                Decided::Lock => Err(Failure::fail(format!(
                    "`close` of `{name}` answered `Lock`, but the lock is what it closes"
                ))
                .into()),
                decided => Ok(decided),
            }
        })
    }

    fn activated(&self, instance: &InstanceId, state: &Held, cause: Activation) {
        if let Ok(state) = state_ref::<S>(state) {
            self.hook(instance, "activated", |server| {
                server.activated(instance, state, cause);
            });
        }
    }

    fn deactivated(&self, instance: &InstanceId, state: &Held, cause: Deactivation) {
        if let Ok(state) = state_ref::<S>(state) {
            self.hook(instance, "deactivated", |server| {
                server.deactivated(instance, state, cause);
            });
        }
    }

    fn dead_letter(&self, notice: &DeadLetterNotice) {
        self.hook(&notice.instance, "dead_letter", |server| {
            server.dead_letter(notice);
        });
    }
}

impl<S: Server> fmt::Debug for Served<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("kind", &S::Protocol::KIND)
            .field("schema", &S::SCHEMA)
            .field("routes", &self.entries.keys())
            .finish_non_exhaustive()
    }
}

impl Unhandled {
    /// The failure of the message that this is.
    fn blame(self, name: &str, facts: &Facts) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Undecodable(error) if facts.call.is_some() => {
                undecodable(name, &error, Failure::reject)
            }
            Self::Undecodable(error) => undecodable(name, &error, Failure::fail),
        }
    }
}

fn undecodable(name: &str, error: &CodecError, failure: fn(String) -> Failure) -> Failure {
    failure(format!("the message cannot be read as `{name}`: {error}"))
}

/// Runs the user's code.
fn guard<T>(run: impl FnOnce() -> Result<T, Unhandled>) -> Result<T, Unhandled> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(Failure::panicked(&*panic).into()))
}

/// Runs the user's `Serialize` or `Deserialize`.
fn codec_guard<T>(run: impl FnOnce() -> Result<T, CodecError>) -> Result<T, CodecError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        Err(custom(&format!("the type's own code panicked: {text}")))
    })
}

fn custom(text: &str) -> CodecError {
    <CodecError as serde::ser::Error>::custom(text)
}

fn unlocked(decided: Decided, name: &str) -> Result<Decided, Unhandled> {
    match decided {
        Decided::Lock => Err(not_locked(name).into()),
        decided => Ok(decided),
    }
}

fn not_locked(name: &str) -> Failure {
    Failure::fail(format!(
        "`{name}` was to run under the lock, but is not routed with `locked`"
    ))
}

fn state_ref<S: Server>(state: &Held) -> Result<&S::State, Failure> {
    (**state).downcast_ref().ok_or_else(foreign_state)
}

fn state_mut<S: Server>(state: &mut Held) -> Result<&mut S::State, Failure> {
    (**state).downcast_mut().ok_or_else(foreign_state)
}

/// A mistake of this crate's, told like any other failure.
fn foreign_state() -> Failure {
    Failure::fail("the state is another kind's")
}

#[cfg(test)]
mod tests;

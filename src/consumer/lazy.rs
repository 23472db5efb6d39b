//! Reading what handlers ask for of lazy collections.
//!
//! Invariants:
//!
//! - *A run that lacked something does not count.* Whatever it returned: it is thrown away with all
//!   that it did, and run again on the state as it was, with what it asked for.
//! - *What is read belongs to the version that the turn has read.* It is read in the same transaction,
//!   and goes into memory beside the leaves of that version.
//! - *It ends.* What one turn may load is bounded, and so is its time in handlers. A batch that asks for more ends before the message
//!   that does; a message that does alone has failed.
//! - *What is in memory is bounded.* What was loaded over time is dropped when it has become too much:
//!   all at once, as soon as the turn has landed, by decoding the rest of the state anew. So there is one
//!   way into memory, and none out of it that could leave something half known.

use super::apply::Base;
use super::kinds::Kind;
use super::options::HANDLER_TIME;
use super::plan::Parked;
use super::turn::{Cache, Scene};
use crate::codec::collection::{Want, asking};
use crate::codec::lazy::Found;
use crate::codec::{self, CodecError, Ignored, Leaves};
use crate::collections::lazy::{MAX_BYTES, MAX_ENTRIES, MAX_ROUNDS};
use crate::durable::keys::InstanceKeys;
use crate::durable::state;
use crate::env::Env;
use crate::server::{Facts, Failure, Held};
use crate::store::{StoreError, StoreErrorKind, Tx};
use futures_util::future::try_join_all;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How many bytes of loaded entries an instance keeps in memory from turn to turn, about. Room for what
/// its messages ask for again and again; a thousand of such instances still fit a process.
const LOADED_BYTES: usize = 4_000_000;

/// How many wants are read at once.
const AT_ONCE: usize = 64;

/// What the failure of a message says that asks for too much.
pub(super) const TOO_MUCH: &str =
    "it asks for more entries of lazy maps than one message may load, or takes too long over them";

/// What the failure of a message says whose `prepare` takes too long, over all its rounds.
const TOO_SLOW: &str = "to prepare it takes longer than a handler may";

/// What may still be read for a turn.
#[derive(Debug)]
pub(super) struct Budget {
    rounds: usize,
    entries: usize,
    bytes: usize,
}

impl Budget {
    pub(super) fn full() -> Self {
        Self {
            rounds: MAX_ROUNDS,
            entries: MAX_ENTRIES,
            bytes: MAX_BYTES,
        }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.rounds == 0 || self.entries == 0 || self.bytes == 0
    }
}

/// Reads what was asked for, as far as the budget goes. Pages that are read at once
/// share what is left of it.
async fn read(
    tx: &Tx,
    keys: &InstanceKeys,
    mut wanted: Vec<Want>,
    budget: &mut Budget,
) -> Result<Vec<Found>, StoreError> {
    // In the order in which they were asked for: the first message's come first.
    let mut asked = BTreeSet::new();
    wanted.retain(|want| asked.insert(want.clone()));
    budget.rounds = budget.rounds.saturating_sub(1);
    let mut found = Vec::with_capacity(wanted.len());
    for some in wanted.chunks(AT_ONCE) {
        if budget.is_spent() {
            break;
        }
        let single = some.iter().filter(|want| want.limit == 1).count();
        let shares = (some.len() - single).max(1);
        let entries = (budget.entries.saturating_sub(single) / shares).max(1);
        let bytes = budget.bytes / shares;
        let parts = some.iter().map(|want| {
            let want = Want {
                limit: want.limit.min(entries),
                ..want.clone()
            };
            state::load_part(tx, keys, want, bytes)
        });
        for part in try_join_all(parts).await? {
            // To find out that there is none costs as much as to find one.
            budget.entries = budget.entries.saturating_sub(part.entries.max(1));
            budget.bytes = budget.bytes.saturating_sub(part.bytes);
            found.push(part.found);
        }
    }
    Ok(found)
}

/// A state that was read, all but its lazy collections.
pub(super) struct Loaded {
    pub(super) leaves: Leaves,
    pub(super) ignored: Ignored,
    pub(super) state: Held,
}

/// Reads the leaves of a state and decodes them. What is of no state of this kind is a reason to park.
pub(super) async fn load(
    tx: &Tx,
    keys: &InstanceKeys,
    kind: &Kind,
    env: &dyn Env,
) -> Result<Result<Loaded, Parked>, StoreError> {
    let lazy = kind.behaviour.lazy();
    match load_all_but(tx, keys, kind, env, lazy).await? {
        // A type that can only be read as a whole: it makes of its maps something else, say.
        Err(Parked::UnreadableState(_)) if !lazy.is_empty() => {
            load_all_but(tx, keys, kind, env, &[]).await
        }
        loaded => Ok(loaded),
    }
}

async fn load_all_but(
    tx: &Tx,
    keys: &InstanceKeys,
    kind: &Kind,
    env: &dyn Env,
    lazy: &[codec::Path],
) -> Result<Result<Loaded, Parked>, StoreError> {
    let mut leaves = match state::load_lazily(tx, keys, lazy).await {
        Ok(leaves) => leaves,
        Err(error) if error.kind() == StoreErrorKind::Corrupt => {
            return Ok(Err(Parked::UnreadableState(error.to_string())));
        }
        Err(error) => return Err(error),
    };
    let mut decoded = None;
    kind.run(env, &mut || {
        decoded = Some(kind.behaviour.decode(&mut leaves));
    });
    Ok(match decoded {
        Some(Ok((state, ignored))) => Ok(Loaded {
            leaves,
            ignored,
            state,
        }),
        Some(Err(error)) => Err(Parked::UnreadableState(error.to_string())),
        None => Err(Parked::StoreAway),
    })
}

/// What came of a round.
pub(super) enum Fetched {
    /// The base knows more now.
    More,
    /// No more may be read.
    Spent,
    /// The process stops.
    Away,
    /// What is stored is no entry of this kind.
    Unfit(Parked),
}

impl Scene<'_> {
    /// Reads what handlers asked for and adds it to the base, and to what is in memory for later turns.
    pub(super) async fn fetch(
        &self,
        tx: &Tx,
        base: &mut Base,
        wanted: Vec<Want>,
        budget: &mut Budget,
    ) -> Result<Fetched, StoreError> {
        if budget.is_spent() {
            return Ok(Fetched::Spent);
        }
        let found = match read(tx, self.keys, wanted, budget).await {
            Ok(found) => found,
            Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                return Ok(Fetched::Unfit(Parked::UnreadableState(error.to_string())));
            }
            Err(error) => return Err(error),
        };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = cache.as_mut() {
            // Its hold on the leaves must go before they are changed, or else they would be copied.
            cache.leaves = Arc::default();
        }
        let leaves = Arc::make_mut(&mut base.leaves);
        let mut learned = None;
        self.kind.run(self.env, &mut || {
            learned = Some(learn(self.kind, leaves, &mut base.ignored, &found));
        });
        if let Some(cache) = cache.as_mut() {
            cache.leaves = Arc::clone(&base.leaves);
            cache.ignored = base.ignored.clone();
        }
        Ok(match learned {
            Some(Ok(())) => Fetched::More,
            Some(Err(error)) => Fetched::Unfit(Parked::UnreadableState(error.to_string())),
            None => Fetched::Away,
        })
    }
}

fn learn(
    kind: &Kind,
    leaves: &mut Leaves,
    ignored: &mut Ignored,
    found: &[Found],
) -> Result<(), CodecError> {
    let mut found = found.iter().cloned();
    found.try_for_each(|found| kind.behaviour.learn(leaves, ignored, found))
}

/// Whether a state in memory is to be read anew, for the entries that were loaded over time.
pub(super) fn is_too_large(leaves: &Leaves) -> bool {
    leaves.loaded() > LOADED_BYTES
}

/// Drops the entries that were loaded over time, if they are too many. The next message may be long in
/// coming, so it does not wait for that.
pub(super) fn forget(kind: &Kind, env: &dyn Env, cache: &mut Option<Cache>) {
    let Some(known) = cache.as_mut().filter(|known| is_too_large(&known.leaves)) else {
        return;
    };
    let mut leaves = known.leaves.without(kind.behaviour.lazy());
    let mut decoded = None;
    kind.run(env, &mut || {
        decoded = Some(kind.behaviour.decode(&mut leaves));
    });
    // A type that can only be read as a whole keeps what it has.
    if let Some(Ok((state, ignored))) = decoded {
        known.state = Some(state);
        known.ignored = ignored;
        known.leaves = Arc::new(leaves);
    }
}

/// Why a run under a lock cannot begin.
#[derive(Debug)]
pub(super) enum Unprepared {
    /// The message has failed.
    Failed(Failure),
    /// Nobody's fault: what is stored is no state of this kind, or of a newer version of it, or this
    /// version does not know the message. It never counts.
    Unfit(Parked),
}

impl Unprepared {
    fn stopped() -> Self {
        Self::Unfit(Parked::StoreAway)
    }

    fn unreadable(error: &impl Display) -> Self {
        Self::Unfit(Parked::UnreadableState(error.to_string()))
    }
}

/// The state as it is committed, with the entries of lazy collections that the work under the lock
/// asks for before it begins. What cannot be read is [unfit](Unprepared::Unfit), as it is in a turn.
pub(super) async fn prepared(
    tx: &Tx,
    keys: &InstanceKeys,
    kind: &Kind,
    env: &dyn Env,
    asks: (&str, &[u8], &Facts),
) -> Result<Result<Held, Unprepared>, StoreError> {
    match prepare(tx, keys, kind, env, asks).await {
        Err(error) if error.kind() == StoreErrorKind::Corrupt => {
            Ok(Err(Unprepared::unreadable(&error)))
        }
        prepared => prepared,
    }
}

async fn prepare(
    tx: &Tx,
    keys: &InstanceKeys,
    kind: &Kind,
    env: &dyn Env,
    (name, payload, facts): (&str, &[u8], &Facts),
) -> Result<Result<Held, Unprepared>, StoreError> {
    if kind.behaviour.route(name).is_none() {
        return Ok(Err(Unprepared::Unfit(Parked::UnknownMessage(name.into()))));
    }
    let Loaded {
        mut leaves,
        mut ignored,
        mut state,
    } = match committed(tx, keys, kind, env, facts).await? {
        Ok(loaded) => loaded,
        Err(unprepared) => return Ok(Err(unprepared)),
    };
    if kind.behaviour.lazy().is_empty() {
        return Ok(Ok(state));
    }
    let (mut budget, mut in_handlers) = (Budget::full(), Duration::ZERO);
    loop {
        let mut asked = None;
        kind.run(env, &mut || {
            let began = env.now();
            asked = Some(asking(|| {
                kind.behaviour.prepare(&state, name, payload, facts)
            }));
            in_handlers += env.now().saturating_sub(began);
        });
        let Some((result, wanted)) = asked else {
            return Ok(Err(Unprepared::stopped()));
        };
        if wanted.is_empty() {
            return Ok(result.map(|()| state).map_err(Unprepared::Failed));
        }
        if budget.is_spent() {
            return Ok(Err(Unprepared::Failed(Failure::fail(TOO_MUCH))));
        }
        if in_handlers > HANDLER_TIME {
            return Ok(Err(Unprepared::Failed(Failure::fail(TOO_SLOW))));
        }
        let found = read(tx, keys, wanted, &mut budget).await?;
        let mut again = None;
        kind.run(env, &mut || {
            let learned = learn(kind, &mut leaves, &mut ignored, &found);
            again = Some(learned.and_then(|()| kind.behaviour.restore(&leaves)));
        });
        state = match again {
            Some(Ok(again)) => again,
            Some(Err(error)) => return Ok(Err(Unprepared::unreadable(&error))),
            None => return Ok(Err(Unprepared::stopped())),
        };
    }
}

/// The state as it is committed, all but its lazy collections; a new one if it was reset meanwhile.
async fn committed(
    tx: &Tx,
    keys: &InstanceKeys,
    kind: &Kind,
    env: &dyn Env,
    facts: &Facts,
) -> Result<Result<Loaded, Unprepared>, StoreError> {
    match state::read_version(tx, keys).await? {
        Some(version) if version.schema > kind.behaviour.schema() => {
            let newer = Parked::NewerSchema(version.schema);
            Ok(Err(Unprepared::Unfit(newer)))
        }
        Some(_) => {
            let loaded = load(tx, keys, kind, env).await?;
            Ok(loaded.map_err(Unprepared::Unfit))
        }
        None => {
            let mut made = None;
            kind.run(env, &mut || made = Some(kind.behaviour.init(facts)));
            let made = made.map(|made| made.map_err(Unprepared::Failed));
            Ok(made
                .unwrap_or_else(|| Err(Unprepared::stopped()))
                .map(|state| Loaded {
                    leaves: Leaves::new(),
                    ignored: Ignored::none(),
                    state,
                }))
        }
    }
}

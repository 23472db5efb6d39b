//! Clearing up after processes that died.
//!
//! Invariants:
//!
//! - *A living session is not swept.* A session is judged dead by its heartbeat alone, which must
//!   have stood still for [`DEAD_AFTER`] on the observer's monotonic clock, over observations that
//!   all succeeded and came close together. What the observer did not see counts for nothing: not an
//!   outage of the store, during which nobody could beat, nor a pause of the observer itself. An
//!   answer tells of some moment since it was asked for; so a heartbeat is known to have stood still
//!   only from the end of one look to the beginning of a later one, and a look that took long is a gap.
//! - *A beat in time saves it.* The sweep reads the heartbeat serializably in the transaction that
//!   removes the session, and removes it only if it is what was observed.
//! - *Nothing is left.* Sessions are found by whatever keys they have, so replies to a session that
//!   was swept before they came are swept too.

use super::keys::{Key, SessionId};
use super::namespace::Namespace;
use super::value;
use crate::planted::{Bug, planted};
use crate::store::{Isolation, KeyRange, RetryPolicy, StoreError, TransactionExt, Tx};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a heartbeat must stand still: many beats, so that a busy machine is not taken for a
/// dead one.
pub const DEAD_AFTER: Duration = Duration::from_secs(60);

/// The longest time between two observations that still counts as having watched.
pub const MAX_GAP: Duration = Duration::from_secs(15);

/// How many sessions one transaction looks at: few enough to stay far below its five seconds.
const PAGE: usize = 200;

/// Watches the sessions of a namespace and removes those that have died.
///
/// Any number of processes may do so at once.
#[derive(Debug)]
pub struct Sweeper {
    namespace: Namespace,
    seen: BTreeMap<SessionId, Sighting>,
}

/// What is known of a session that has not moved since.
#[derive(Debug)]
struct Sighting {
    /// The heartbeat; none for a session of which only other keys are left.
    heartbeat: Option<Bytes>,
    /// When it was first seen like this: the end of that look.
    since: Duration,
    /// When it was last seen: the beginning of that look.
    last: Duration,
}

impl Sweeper {
    /// A sweeper that has seen nothing yet.
    #[must_use]
    pub fn new(namespace: &Namespace) -> Self {
        Self {
            namespace: namespace.clone(),
            seen: BTreeMap::new(),
        }
    }

    /// Looks at every session once, and removes those that are dead. Returns which.
    ///
    /// To be called every few seconds: calls that are more than [`MAX_GAP`] apart begin anew.
    ///
    /// # Errors
    ///
    /// Whatever the store answers. What was seen before stays known.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was seen stays known, and a removal under way ends either way.
    pub async fn observe(&mut self) -> Result<Vec<SessionId>, StoreError> {
        let mut rest = self.namespace.keys().sessions();
        let mut round = BTreeMap::new();
        loop {
            let before = self.namespace.database().env().now();
            let (sessions, behind) = self.look(rest).await?;
            let after = self.namespace.database().env().now();
            for (session, heartbeat) in sessions {
                let sighting = match self.seen.remove(&session) {
                    Some(known) if known.is_continued_by(&heartbeat, after) => Sighting {
                        last: before,
                        ..known
                    },
                    _ => Sighting {
                        heartbeat,
                        since: after,
                        last: before,
                    },
                };
                round.insert(session, sighting);
            }
            match behind {
                Some(behind) => rest = behind,
                None => break,
            }
        }
        // Those that were not seen in this round are gone.
        self.seen = round;
        self.sweep().await
    }

    /// One page of sessions with their heartbeats, and the range behind it if there may be more.
    async fn look(
        &self,
        range: KeyRange,
    ) -> Result<(Vec<(SessionId, Option<Bytes>)>, Option<KeyRange>), StoreError> {
        let namespace = self.namespace.clone();
        let looked = self.namespace.database().run(move |attempt| {
            let (namespace, range) = (namespace.clone(), range.clone());
            async move { page(attempt.tx(), &namespace, range).await }
        });
        Ok(looked.await?.value)
    }

    async fn sweep(&mut self) -> Result<Vec<SessionId>, StoreError> {
        let dead: Vec<(SessionId, Option<Bytes>)> = self
            .seen
            .iter()
            .filter(|(_, sighting)| sighting.last.saturating_sub(sighting.since) >= DEAD_AFTER)
            .map(|(session, sighting)| (*session, sighting.heartbeat.clone()))
            .collect();
        let mut swept = Vec::new();
        for (session, heartbeat) in dead {
            if self.remove(session, heartbeat).await? {
                swept.push(session);
            }
            self.seen.remove(&session);
        }
        Ok(swept)
    }

    /// Removes a session whose heartbeat is still what was observed.
    async fn remove(
        &self,
        session: SessionId,
        observed: Option<Bytes>,
    ) -> Result<bool, StoreError> {
        let keys = self.namespace.keys().session(session);
        // Idempotent: the second run finds no heartbeat, or another one, and writes nothing.
        let removed = self
            .namespace
            .database()
            .run_with(RetryPolicy::retry_unknown(), |attempt| {
                let (keys, observed) = (keys.clone(), observed.clone());
                async move {
                    let tx = attempt.tx();
                    let unchanged = tx.read(&keys.heartbeat()).await? == observed;
                    if unchanged {
                        tx.clear_range(&keys.all());
                    }
                    Ok::<_, StoreError>(unchanged || attempt.after_unknown())
                }
            });
        Ok(removed.await?.value)
    }
}

impl Sighting {
    /// Whether a look that ended at `after` and found `heartbeat` shows that nothing has moved.
    fn is_continued_by(&self, heartbeat: &Option<Bytes>, after: Duration) -> bool {
        let is_close = after.saturating_sub(self.last) <= MAX_GAP;
        self.heartbeat == *heartbeat && (is_close || planted(Bug::SweepAfterOutage))
    }
}

/// Finds sessions by their first keys, of which a heartbeat comes before all others.
async fn page(
    tx: &Tx,
    namespace: &Namespace,
    mut range: KeyRange,
) -> Result<(Vec<(SessionId, Option<Bytes>)>, Option<KeyRange>), StoreError> {
    let mut sessions = Vec::new();
    while sessions.len() < PAGE {
        let mut read = range.read().limit(1);
        read.isolation = Isolation::Snapshot;
        let Some(first) = tx.get_range(read).await?.pop() else {
            return Ok((sessions, None));
        };
        let session = match namespace.keys().decode(&first.key) {
            Ok(Key::Session { session, .. }) => session,
            Ok(_) => return Err(value::corrupt(&first.key, "the key is no session's")),
            Err(foreign) => {
                return Err(value::corrupt(&first.key, "the key is foreign").with_source(foreign));
            }
        };
        let keys = namespace.keys().session(session);
        let heartbeat = (first.key == keys.heartbeat()).then_some(first.value);
        sessions.push((session, heartbeat));
        range.begin = keys.all().end;
    }
    Ok((sessions, Some(range)))
}

#[cfg(test)]
mod tests;

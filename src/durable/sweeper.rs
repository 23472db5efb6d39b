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
//! - *A foreign key hides nothing but itself.* It is passed over, and told of once.

use super::keys::{Key, SessionId};
use super::namespace::Namespace;
use super::value;
use crate::planted::{Bug, planted};
use crate::store::{Isolation, KeyRange, RetryPolicy, StoreError, TransactionExt, Tx, after};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a heartbeat must stand still: many beats, so that a busy machine is not taken for a
/// dead one.
pub const DEAD_AFTER: Duration = Duration::from_secs(60);

/// The longest time between two observations that still counts as having watched.
pub const MAX_GAP: Duration = Duration::from_secs(15);

/// How many keys one transaction looks at, mostly as many sessions: few enough to stay far below its
/// five seconds.
const PAGE: usize = 200;

/// How many foreign keys are told of. Who has more knows that there is something to mend; the doctor
/// names them all.
const MAX_FOREIGN: usize = 100;

/// Watches the sessions of a namespace and removes those that have died.
///
/// Any number of processes may do so at once.
#[derive(Debug)]
pub struct Sweeper {
    namespace: Namespace,
    seen: BTreeMap<SessionId, Sighting>,
    /// The foreign keys that were told of.
    foreign: BTreeSet<Bytes>,
}

/// What one transaction sees of the sessions.
#[derive(Debug, Default)]
struct Page {
    /// With their heartbeats.
    sessions: Vec<(SessionId, Option<Bytes>)>,
    /// Keys that are no session's, and why not.
    foreign: Vec<StoreError>,
    /// Where it goes on, if there may be more.
    behind: Option<KeyRange>,
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
            foreign: BTreeSet::new(),
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
            let page = self.look(rest).await?;
            let after = self.namespace.database().env().now();
            self.tell(page.foreign);
            for (session, heartbeat) in page.sessions {
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
            match page.behind {
                Some(behind) => rest = behind,
                None => break,
            }
        }
        // Those that were not seen in this round are gone.
        self.seen = round;
        self.sweep().await
    }

    async fn look(&self, range: KeyRange) -> Result<Page, StoreError> {
        let namespace = self.namespace.clone();
        let looked = self.namespace.database().run(move |attempt| {
            let (namespace, range) = (namespace.clone(), range.clone());
            async move { page(attempt.tx(), &namespace, range).await }
        });
        Ok(looked.await?.value)
    }

    /// Tells of keys that are no session's, of each once.
    fn tell(&mut self, foreign: Vec<StoreError>) {
        for error in foreign {
            if self.foreign.len() < MAX_FOREIGN
                && let Some(key) = error.key()
                && self.foreign.insert(key.clone())
            {
                tracing::warn!(%error, "a key among the sessions is foreign; it is left alone");
            }
        }
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
async fn page(tx: &Tx, namespace: &Namespace, mut range: KeyRange) -> Result<Page, StoreError> {
    let mut page = Page::default();
    for _ in 0..PAGE {
        let mut read = range.read().limit(1);
        read.isolation = Isolation::Snapshot;
        let Some(first) = tx.get_range(read).await?.pop() else {
            return Ok(page);
        };
        let foreign = match namespace.keys().decode(&first.key) {
            Ok(Key::Session { session, .. }) => {
                let keys = namespace.keys().session(session);
                let heartbeat = (first.key == keys.heartbeat()).then_some(first.value);
                page.sessions.push((session, heartbeat));
                range.begin = keys.all().end;
                continue;
            }
            Ok(_) => value::corrupt(&first.key, "the key is no session's"),
            Err(foreign) => value::corrupt(&first.key, "the key is foreign").with_source(foreign),
        };
        page.foreign.push(foreign);
        range.begin = after(&first.key);
    }
    page.behind = Some(range);
    Ok(page)
}

#[cfg(test)]
mod tests;

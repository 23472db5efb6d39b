//! How many claims this process holds.
//!
//! A claim makes the death of this process count against the messages that it is on. So there are
//! few at a time, and a message that may well be a killer, because it was claimed by a process that
//! died or has failed before, is claimed alone: its company would take the blame with it.

use crate::durable::keys::SessionId;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most at a time: enough to get a backlog done, few enough that a crash leaves few suspects.
const MOST: usize = 16;

/// How long a claimer's heartbeat may stand still, in close observations of this process, before its
/// claims count for nothing: several beats. Its session is swept only after a minute, and messages
/// must not wait for that, nor for a process that lives a minute to see it.
///
/// A process that only stood still for so long takes the blame for one attempt; its turn is refused,
/// because the claim it has read is another one by then.
const STILL: Duration = Duration::from_secs(20);

/// The longest time between two looks that still counts as having watched.
const GAP: Duration = Duration::from_secs(5);

/// How long the claimers of an instance's heads have stood still.
#[derive(Debug, Default)]
pub(super) struct Claimers(BTreeMap<SessionId, Seen>);

#[derive(Debug)]
struct Seen {
    heartbeat: Bytes,
    since: Duration,
    last: Duration,
}

impl Claimers {
    /// Whether a claimer is alive that has this heartbeat at `now`.
    pub(super) fn is_alive(&mut self, claimer: SessionId, heartbeat: Bytes, now: Duration) -> bool {
        let seen = self.0.remove(&claimer);
        let since = seen
            .filter(|seen| seen.heartbeat == heartbeat && now.saturating_sub(seen.last) <= GAP)
            .map_or(now, |seen| seen.since);
        // A head has one claimer, and there are two heads.
        while self.0.len() > 1 {
            self.0.pop_first();
        }
        let seen = Seen {
            heartbeat,
            since,
            last: now,
        };
        self.0.insert(claimer, seen);
        now.saturating_sub(since) < STILL
    }
}

/// The claims of a process.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    count: usize,
    sole: bool,
}

/// The right to one claim. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Reservation {
    claims: Arc<Claims>,
    sole: bool,
}

impl Claims {
    /// The right to one more claim; if `sole`, to the only one.
    pub(super) fn reserve(self: &Arc<Self>, sole: bool) -> Option<Reservation> {
        let mut held = self.lock();
        if held.sole || held.count >= MOST || (sole && held.count > 0) {
            return None;
        }
        held.count += 1;
        held.sole = sole;
        Some(Reservation {
            claims: Arc::clone(self),
            sole,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Whether it is good for a claim, a sole one if that is asked for.
    pub(super) fn is_good_for(&self, sole: bool) -> bool {
        self.sole || !sole
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut held = self.claims.lock();
        held.count -= 1;
        held.sole = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_bounded_and_come_back_when_dropped() {
        let claims = Arc::new(Claims::default());
        let mut held: Vec<_> = (0..MOST).map(|_| claims.reserve(false).unwrap()).collect();
        assert!(claims.reserve(false).is_none());
        held.pop();
        assert!(claims.reserve(false).is_some());
    }

    #[test]
    fn a_claimer_is_dead_once_its_heartbeat_stood_still_under_close_watch() {
        let (one, beat) = (SessionId::from_bytes([1; 16]), Bytes::from_static(b"1"));
        let mut claimers = Claimers::default();
        let at = Duration::from_secs;
        for second in (0..20).step_by(2) {
            assert!(claimers.is_alive(one, beat.clone(), at(second)));
        }
        assert!(!claimers.is_alive(one, beat, at(20)));
        // Another beat, or a gap in the watch, begins anew.
        assert!(claimers.is_alive(one, Bytes::from_static(b"2"), at(22)));
        assert!(claimers.is_alive(one, Bytes::from_static(b"2"), at(60)));
        assert!(claimers.is_alive(one, Bytes::from_static(b"2"), at(64)));
    }

    #[test]
    fn a_sole_claim_has_no_company() {
        let claims = Arc::new(Claims::default());
        let one = claims.reserve(false).unwrap();
        assert!(claims.reserve(true).is_none() && !one.is_good_for(true));
        drop(one);
        let sole = claims.reserve(true).unwrap();
        assert!(claims.reserve(false).is_none() && sole.is_good_for(false));
        drop(sole);
        assert!(claims.reserve(false).is_some());
    }
}

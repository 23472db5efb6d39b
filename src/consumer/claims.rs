//! How many claims this process holds.
//!
//! A claim makes the death of this process count against the messages that it is on. So there are
//! few at a time, and a message that may well be a killer, because it was claimed by a process that
//! died or has failed before, is claimed alone: its company would take the blame with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most at a time: enough to get a backlog done, few enough that a crash leaves few suspects.
const MOST: usize = 16;

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

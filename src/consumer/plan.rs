//! What a turn is to do, decided from what it read and from what this process knows. Pure.

use super::options::KindOptions;
use super::view::{Line, View};
use crate::durable::attempts::Attempts;
use crate::durable::keys::{Lane, SessionId};
use crate::durable::lock::Lock;
use crate::durable::queue::Queued;
use crate::durable::state::StateVersion;
use crate::planted::{Bug, planted};
use crate::store::{CommitStamp, Stamp};
use std::fmt;
use std::time::Duration;

/// What this process knows that the store does not say.
pub(super) struct Known<'a> {
    pub(super) session: SessionId,
    pub(super) incarnation: u32,
    /// Messages at or before this stamp were there when a process died, or before this one began:
    /// one of them may be what kills.
    pub(super) suspect_until: CommitStamp,
    /// Whether this process may claim one more message, alone if that is asked for. Reserves it.
    pub(super) may_claim: &'a (dyn Fn(bool) -> bool + Sync),
    /// The token of the lock that this process runs a message under.
    pub(super) holding: Option<CommitStamp>,
    /// The token of the lock whose run has ended here.
    pub(super) closing: Option<CommitStamp>,
    /// The lock as this process saw it before.
    pub(super) lock_seen: Option<LockSeen>,
    /// The failure that this process has waited for already, and for how long.
    pub(super) waited: Option<(Stamp, u32, Duration)>,
    /// The claims that were of no use to this process.
    pub(super) unfit: &'a Unfits,
    /// On this process's clock.
    pub(super) now: Duration,
    /// The claimers of the heads that are alive.
    pub(super) alive: &'a [SessionId],
    pub(super) wall_ms: u64,
    /// Only one message, because a batch of several could not be committed.
    pub(super) single: bool,
}

/// A claim that this process made and gave back, because it cannot work on the message: it does not
/// know its name, or what to make of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) head: Stamp,
    pub(super) version: Option<StateVersion>,
    pub(super) reason: Parked,
    pub(super) since: Duration,
}

/// The last such claim on each mailbox.
///
/// Who gives a claim back wakes those who wait for it. Were the head claimed anew on every look, two
/// processes that both cannot work on it would wake each other without a pause.
#[derive(Debug, Default)]
pub(super) struct Unfits {
    priority: Option<Unfit>,
    ordinary: Option<Unfit>,
}

impl Unfits {
    pub(super) fn remember(&mut self, lane: Lane, unfit: Unfit) {
        match lane {
            Lane::Priority => self.priority = Some(unfit),
            Lane::Ordinary => self.ordinary = Some(unfit),
        }
    }

    /// Why the head of a mailbox need not be claimed again yet, and for how long: it and the state
    /// are what they were.
    fn of(
        &self,
        lane: Lane,
        head: Stamp,
        version: Option<StateVersion>,
        now: Duration,
    ) -> Option<(Parked, Duration)> {
        let unfit = match lane {
            Lane::Priority => self.priority.as_ref(),
            Lane::Ordinary => self.ordinary.as_ref(),
        };
        let unfit = unfit.filter(|unfit| unfit.head == head && unfit.version == version)?;
        let rest = UNFIT_RECHECK.checked_sub(now.saturating_sub(unfit.since))?;
        (!rest.is_zero()).then(|| (unfit.reason.clone(), rest))
    }
}

/// How long a foreign lock has stood still, in close observations of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LockSeen {
    pub(super) token: CommitStamp,
    pub(super) nonce: u64,
    pub(super) since: Duration,
    pub(super) last: Duration,
}

impl LockSeen {
    /// What is known after one more look at `now`. A gap of a third of the lease breaks the
    /// observation: what happened meanwhile, an outage of the store say, was not seen.
    pub(super) fn next(before: Option<&Self>, lock: &Lock, now: Duration, lease: Duration) -> Self {
        let since = before
            .filter(|seen| seen.token == lock.token && seen.nonce == lock.nonce)
            .filter(|seen| {
                now.saturating_sub(seen.last) <= lease / 3 || planted(Bug::LeaseByFewObservations)
            })
            .map_or(now, |seen| seen.since);
        Self {
            token: lock.token,
            nonce: lock.nonce,
            since,
            last: now,
        }
    }

    fn is_dead(&self, lease: Duration) -> bool {
        self.last.saturating_sub(self.since) >= lease
    }
}

/// Why an instance, or one of its mailboxes, cannot be worked on by this process now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parked {
    /// A message holds the lock.
    Locked,
    /// An operator paused it.
    Paused,
    /// The message at the head failed, and waits for its next attempt.
    BackingOff,
    /// Another process holds a claim on the message at the head.
    Claimed,
    /// This process holds as many claims as it may.
    ClaimsFull,
    /// The message at the head has a name that this version of the server does not know.
    UnknownMessage(String),
    /// The message at the head cannot be read.
    UnreadableMessage(String),
    /// The state was written by a newer version of the server.
    NewerSchema(u32),
    /// The state cannot be read.
    UnreadableState(String),
    /// The store does not answer.
    StoreAway,
}

impl fmt::Display for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("locked"),
            Self::Paused => f.write_str("paused"),
            Self::BackingOff => f.write_str("waiting to try the message at the head again"),
            Self::Claimed => f.write_str("the message at the head is claimed by another process"),
            Self::ClaimsFull => f.write_str("this process holds as many claims as it may"),
            Self::UnknownMessage(name) => {
                write!(f, "this version does not know the message {name:?}")
            }
            Self::UnreadableMessage(error) => {
                write!(f, "the message at the head is damaged: {error}")
            }
            Self::NewerSchema(schema) => write!(f, "the state has the newer schema {schema}"),
            Self::UnreadableState(error) => write!(f, "the state cannot be read: {error}"),
            Self::StoreAway => f.write_str("the store does not answer"),
        }
    }
}

/// Whether the messages of a mailbox can be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gate {
    /// The first `take` of those that were read, the first of them at its `attempt`. If `careful`,
    /// they must be alone in their turn.
    Open {
        take: usize,
        attempt: u32,
        careful: bool,
    },
    /// Not before something changes, or the time has passed.
    Shut {
        reason: Parked,
        again: Option<Duration>,
    },
}

/// The one thing that a turn does.
#[derive(Debug)]
pub(super) enum Plan {
    /// Take over a lock whose holder is dead.
    TakeOver(Lock),
    /// Claim a mailbox's head, up to and including this message.
    Claim { line: Which, until: Stamp },
    /// Count an attempt at the head, because the process that claimed it died.
    Blame(Which),
    /// Give the head up: it has failed as often as it may before it came into the mailbox.
    Bury(Which),
    /// Work on messages.
    Work {
        close: bool,
        priority: Gate,
        ordinary: Gate,
    },
}

/// One of the two mailboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Priority,
    Ordinary,
}

/// How a mailbox's head stands, before the two are put together.
enum Stand {
    Gate(Gate),
    Claim(Stamp),
    Blame,
    Bury,
}

pub(super) fn decide(view: &View, known: &Known<'_>, options: &KindOptions) -> Plan {
    let mut close = false;
    let mut locked = None;
    if let Some(lock) = &view.lock {
        close = known.closing.is_some_and(|token| lock.is_held_by(token));
        if !close {
            if may_take_over(lock, known, options) {
                return Plan::TakeOver(lock.clone());
            }
            locked = Some(Gate::Shut {
                reason: Parked::Locked,
                again: (known.holding != Some(lock.token)).then_some(options.lease / 6),
            });
        }
    }
    let paused = view.paused.then_some(Gate::Shut {
        reason: Parked::Paused,
        again: Some(PAUSED_RECHECK),
    });
    let priority = match stand(&view.priority, view.version, known, options) {
        Stand::Claim(until) => {
            return Plan::Claim {
                line: Which::Priority,
                until,
            };
        }
        Stand::Blame => return Plan::Blame(Which::Priority),
        Stand::Bury => return Plan::Bury(Which::Priority),
        Stand::Gate(gate) => gate,
    };
    let ordinary = match locked.or(paused) {
        Some(gate) => gate,
        None => match stand(&view.ordinary, view.version, known, options) {
            Stand::Claim(until) => {
                return Plan::Claim {
                    line: Which::Ordinary,
                    until,
                };
            }
            Stand::Blame => return Plan::Blame(Which::Ordinary),
            Stand::Bury => return Plan::Bury(Which::Ordinary),
            Stand::Gate(gate) => gate,
        },
    };
    Plan::Work {
        close,
        priority,
        ordinary,
    }
}

/// A lock is this process's to take if its holder gave it up, or stood still for a lease, or if the
/// store says that the holder is this very process, which knows nothing of it: then the taking had
/// an outcome that was found out late.
fn may_take_over(lock: &Lock, known: &Known<'_>, options: &KindOptions) -> bool {
    if known.holding == Some(lock.token) {
        return false;
    }
    let lease_ms = u64::try_from(options.lease.as_millis()).unwrap_or(u64::MAX);
    let is_old = known.wall_ms > lock.taken_ms.saturating_add(lease_ms);
    lock.is_given_up()
        || (planted(Bug::LeaseByWallClock) && is_old)
        || lock.session == known.session
        || known.lock_seen.as_ref().is_some_and(|seen| {
            seen.token == lock.token && seen.nonce == lock.nonce && seen.is_dead(options.lease)
        })
}

fn stand(
    line: &Line,
    version: Option<StateVersion>,
    known: &Known<'_>,
    options: &KindOptions,
) -> Stand {
    let shut = |reason, again| Stand::Gate(Gate::Shut { reason, again });
    let Some(first) = line.head.messages.first() else {
        return Stand::Gate(Gate::Open {
            take: 0,
            attempt: 1,
            careful: false,
        });
    };
    let attempts = line.attempts.as_ref().filter(|known| covers(known, first));
    let failures = failures(attempts, first);
    if let Err(error) = &first.message {
        return shut(Parked::UnreadableMessage(error.to_string()), None);
    }
    let mut mine = None;
    if let Some(claimer) = attempts.and_then(|attempts| attempts.claim) {
        if claimer == known.session {
            mine = attempts.map(|attempts| attempts.until);
        } else if known.alive.contains(&claimer) {
            return shut(Parked::Claimed, Some(CLAIM_RECHECK));
        } else {
            return Stand::Blame;
        }
    }
    if let Some(attempts) = attempts
        && let Some(wait) = still_to_wait(attempts, known, options)
    {
        return shut(Parked::BackingOff, Some(wait));
    }
    let is_suspect = |queued: &Queued| {
        queued.incarnation < known.incarnation
            || queued.stamp <= known.suspect_until.with_user(u16::MAX)
    };
    if options.is_final(failures) {
        return Stand::Bury;
    }
    let alone = known.single || failures > 0;
    let readable = line
        .head
        .messages
        .iter()
        .take_while(|queued| queued.message.is_ok());
    if mine.is_none() && is_suspect(first) {
        if let Some((reason, rest)) = known.unfit.of(line.lane, first.stamp, version, known.now) {
            return shut(reason, Some(rest));
        }
        if !(known.may_claim)(failures > 0) {
            return shut(Parked::ClaimsFull, Some(CLAIM_RECHECK));
        }
        let most = if alone { 1 } else { usize::MAX };
        let last = readable
            .take_while(|queued| is_suspect(queued))
            .take(most)
            .last();
        return Stand::Claim(last.map_or(first.stamp, |last| last.stamp));
    }
    // A claim is run within its bounds, and a message that failed is run alone: then a crash or a
    // failure has one cause.
    let take = match (alone, mine) {
        (true, _) => 1,
        (false, Some(until)) => readable.take_while(|queued| queued.stamp <= until).count(),
        (false, None) => readable.count(),
    };
    Stand::Gate(Gate::Open {
        take,
        attempt: failures.saturating_add(1),
        careful: mine.is_some() || failures > 0,
    })
}

/// How often a pause is looked at again. Its end wakes whoever waits for it, unless it ended with the
/// instance: a kill leaves no mark to be found.
const PAUSED_RECHECK: Duration = Duration::from_secs(60);

/// How long an instance waits that this node cannot work on, for whatever an operator may mend
/// without a word.
pub(super) const UNFIT_RECHECK: Duration = Duration::from_secs(10);

/// How often a claim of another process is looked at again.
const CLAIM_RECHECK: Duration = Duration::from_secs(2);

/// How often the message at a head has failed: as its record says, or, before there is one, as it
/// says itself.
pub(super) fn failures(attempts: Option<&Attempts>, queued: &Queued) -> u32 {
    let before = queued
        .message
        .as_ref()
        .ok()
        .and_then(|message| message.failed.as_ref());
    let before = before.map_or(0, |failed| failed.attempts);
    attempts.map_or(0, |attempts| attempts.attempts).max(before)
}

/// Whether a record of attempts is about this message. A record of another one was left by whoever
/// removed that, and means nothing.
pub(super) fn covers(attempts: &Attempts, queued: &Queued) -> bool {
    (attempts.stamp..=attempts.until).contains(&queued.stamp)
}

/// The rest of a back-off. What the clock says can only shorten it: the wait is never longer than
/// the back-off itself, and this process knows how long it has waited.
fn still_to_wait(
    attempts: &Attempts,
    known: &Known<'_>,
    options: &KindOptions,
) -> Option<Duration> {
    if attempts.attempts == 0 || attempts.claim.is_some() {
        return None;
    }
    let longest = options.backoff_after(attempts.attempts);
    let waited = known
        .waited
        .filter(|(stamp, failures, _)| (*stamp, *failures) == (attempts.stamp, attempts.attempts))
        .map_or(Duration::ZERO, |(_, _, waited)| waited);
    let by_clock = Duration::from_millis(attempts.not_before_ms.saturating_sub(known.wall_ms));
    let rest = by_clock.min(longest.saturating_sub(waited));
    (!rest.is_zero()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
    const NOW_MS: u64 = 1_800_000_000_000;

    fn stamp(number: u64) -> Stamp {
        CommitStamp::new(crate::store::Version(number), 0).with_user(0)
    }

    fn options() -> KindOptions {
        KindOptions::default().backoff(Duration::from_secs(1), Duration::from_secs(8))
    }

    /// How long a process waits for the third attempt at a message, which is not to be tried again
    /// before a time; the process's clock shows another one, and it has waited for so long already.
    fn wait(not_before_ms: u64, wall_ms: u64, waited: Option<Duration>) -> Option<Duration> {
        let unfit = Unfits::default();
        let known = Known {
            session: SessionId::from_bytes([1; SessionId::LEN]),
            incarnation: 0,
            suspect_until: CommitStamp::new(crate::store::Version(0), 0),
            may_claim: &|_| true,
            holding: None,
            closing: None,
            lock_seen: None,
            waited: waited.map(|waited| (stamp(5), 2, waited)),
            unfit: &unfit,
            now: Duration::from_secs(100),
            alive: &[],
            wall_ms,
            single: false,
        };
        let attempts = Attempts {
            attempts: 2,
            not_before_ms,
            ..Attempts::fresh(stamp(5))
        };
        still_to_wait(&attempts, &known, &options())
    }

    #[test]
    fn waits_are_capped_by_the_back_off_whatever_the_clock_says() {
        let longest = options().backoff_after(2);
        assert_eq!(longest, Duration::from_secs(2));
        let year_ms = u64::try_from(YEAR.as_millis()).unwrap();
        // Whoever wrote it had a clock that was a year ahead, or this process's is a year behind.
        for (not_before_ms, wall_ms) in [
            (NOW_MS + year_ms, NOW_MS),
            (NOW_MS, NOW_MS - year_ms),
            (u64::MAX, 0),
        ] {
            assert_eq!(wait(not_before_ms, wall_ms, None), Some(longest));
            // The cap is on the whole of the wait, by the clock that does not jump.
            let most = longest - Duration::from_millis(1);
            let rest = Duration::from_millis(1);
            assert_eq!(wait(not_before_ms, wall_ms, Some(most)), Some(rest));
            assert_eq!(wait(not_before_ms, wall_ms, Some(longest)), None);
        }
        // A clock can shorten it: one that is ahead ends it at once.
        assert_eq!(wait(NOW_MS, NOW_MS + year_ms, None), None);
        let soon = Duration::from_millis(300);
        assert_eq!(wait(NOW_MS + 300, NOW_MS, None), Some(soon));
    }
}

//! What may be set per kind, and why the defaults are what they are.

use crate::env::fraction;
use std::time::Duration;

/// How a node works on the instances of a kind.
///
/// # Examples
///
/// ```
/// use abide::KindOptions;
/// use std::time::Duration;
///
/// let patient = KindOptions::default().attempts(20).lease(Duration::from_secs(120));
/// # let _ = patient;
/// ```
#[derive(Debug, Clone)]
pub struct KindOptions {
    pub(crate) batch_messages: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) batch_time: Duration,
    pub(crate) attempts: u32,
    pub(crate) first_backoff: Duration,
    pub(crate) longest_backoff: Duration,
    pub(crate) poison: Poison,
    pub(crate) lease: Duration,
    pub(crate) cached: usize,
    pub(crate) concurrency: usize,
}

/// What becomes of a message that failed as often as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    /// It becomes a dead letter, its caller is told, and the mailbox goes on.
    DeadLetter,
    /// It is tried again for ever, with back-off, until it succeeds or an operator purges it. For
    /// kinds whose messages must not be passed over, because the ones behind build on them.
    Block,
}

/// The longest that a handler may take; one that took longer has failed. A second less than the
/// life of a transaction, which also has to read and to commit.
pub(crate) const HANDLER_TIME: Duration = Duration::from_secs(4);

impl Default for KindOptions {
    fn default() -> Self {
        Self {
            batch_messages: 1_000,
            batch_bytes: 1_000_000,
            batch_time: Duration::from_millis(250),
            attempts: 5,
            first_backoff: Duration::from_millis(100),
            longest_backoff: Duration::from_secs(30),
            poison: Poison::DeadLetter,
            lease: Duration::from_secs(30),
            cached: 10_000,
            concurrency: 256,
        }
    }
}

impl KindOptions {
    /// How many messages one commit takes at most. Default 1 000: by then the messages cost more than
    /// the commit, in a cluster too, and a conflict throws no more away. At least one, and no more
    /// than 1 000 count.
    #[must_use]
    pub fn batch_messages(mut self, messages: usize) -> Self {
        self.batch_messages = messages.max(1);
        self
    }

    /// After how many bytes of messages, or of replies and sends, no further message joins a
    /// commit. Default 1 000 000: FoundationDB's advice for a transaction.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes.max(1);
        self
    }

    /// After how much time in handlers no further message joins a commit. Default 250 ms: another
    /// node that works on the same instance gets its turn, and reads stay far from too old.
    #[must_use]
    pub fn batch_time(mut self, time: Duration) -> Self {
        self.batch_time = time;
        self
    }

    /// How often a message is tried. Default 5: with the default back-off what fails for a moment, a
    /// rolling deployment say, has a second and a half to pass, and what always fails holds up its mailbox
    /// no longer than that. At least one.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The wait after the first failure, and the longest. It doubles with each failure, and a random
    /// part of up to a half is taken off. Default 100 ms and 30 s: with five attempts a message that
    /// fails at once is a dead letter after about a second and a half.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first_backoff = first;
        self.longest_backoff = longest.max(first);
        self
    }

    /// What becomes of a message that failed as often as it may. Default
    /// [`DeadLetter`](Poison::DeadLetter).
    #[must_use]
    pub fn poison(mut self, poison: Poison) -> Self {
        self.poison = poison;
        self
    }

    /// How long a lock's holder may be silent before another node takes over. Default 30 s: longer
    /// than a store's recovery, short enough to wait for. At least 100 ms.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(100));
        self
    }

    /// How many idle instances keep their state in memory; the least recently used leave first.
    /// Default 10 000: with states of a few kilobytes some tens of megabytes, and an instance that left
    /// costs one range read when its next message comes.
    #[must_use]
    pub fn cached(mut self, instances: usize) -> Self {
        self.cached = instances;
        self
    }

    /// How many instances are worked on at once. Default 256: enough transactions in flight to fill
    /// a store, few enough to bound memory. At least one.
    #[must_use]
    pub fn concurrency(mut self, instances: usize) -> Self {
        self.concurrency = instances.max(1);
        self
    }

    /// The longest wait after this many failures.
    pub(crate) fn backoff_after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first_backoff
            .saturating_mul(1_u32 << doublings)
            .min(self.longest_backoff)
    }

    /// The wait after this many failures, with its random part.
    pub(crate) fn jittered_after(&self, failures: u32, random: u64) -> Duration {
        self.backoff_after(failures)
            .mul_f64(1.0 - fraction(random) / 2.0)
    }

    /// Whether a message that failed this often becomes a dead letter.
    pub(crate) fn is_final(&self, failures: u32) -> bool {
        self.poison == Poison::DeadLetter && failures >= self.attempts
    }
}

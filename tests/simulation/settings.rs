//! What a seed makes of a run: how many processes, what goes wrong, what is asked for.

use abide::KindOptions;
use abide::testing::faults::Faults;
use std::time::Duration;

/// A generator of its own, so that the settings of a seed stay what they are when the run changes.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x5EED_5EED_5EED_5EED)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high - low + 1)
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.roll().is_multiple_of(times)
    }
}

/// A way to disturb a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Havoc {
    /// A process ends like in a power failure, and another one takes its place.
    Crash,
    /// A process is shut down, and another one takes its place.
    Restart,
    /// A process stands still, shorter than a lease.
    Pause,
    /// A process stands still for longer than a lease, perhaps for so long that it is taken for dead.
    LongPause,
    /// A process is slow.
    Slow,
    /// The store is away for some or all processes.
    Outage,
    /// A wall clock jumps.
    Clock,
    /// An operator kills or resets an instance.
    Purge,
    /// An operator breaks a lock, if there is one.
    Break,
}

impl Havoc {
    const ALL: [Self; 9] = [
        Self::Crash,
        Self::Restart,
        Self::Pause,
        Self::LongPause,
        Self::Slow,
        Self::Outage,
        Self::Clock,
        Self::Purge,
        Self::Break,
    ];
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Processes that serve.
    pub(crate) servers: usize,
    /// Processes that only send.
    pub(crate) senders: usize,
    /// Clients in each process.
    pub(crate) clients: usize,
    pub(crate) instances: usize,
    /// Instances that operators kill and reset.
    pub(crate) mortals: usize,
    pub(crate) shards: u32,
    pub(crate) batches: Option<Duration>,
    pub(crate) faults: Faults,
    pub(crate) havoc: Vec<Havoc>,
    /// Whether no message fails or locks, and no process dies. Then nothing ever blocks a mailbox, so
    /// that no query passes what stands in it.
    pub(crate) is_calm: bool,
    /// Whether nothing goes wrong that could hold an operation up. Then each of them ends soon, so
    /// that a lost wake-up is found although a poll would make up for it.
    pub(crate) is_brisk: bool,
    /// Whether locks are what the run is about: many of them, priority messages meanwhile, and
    /// holders that die with nobody beside them.
    pub(crate) is_locky: bool,
    /// How long clients work.
    pub(crate) active: Duration,
    /// A client's longest pause between two operations.
    pub(crate) think: Duration,
    /// The longest pause between two disturbances.
    pub(crate) gap: Duration,
    pub(crate) options: KindOptions,
}

/// The lease of locks.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// About how many operations a run has.
const OPERATIONS: u32 = 150;

impl Settings {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let dice = &mut dice;
        // The first seeds are simple, so that a simple mistake is found in a simple run.
        let is_simple = seed < 5;
        let servers = if seed < 3 {
            1
        } else {
            dice.between(1, 4) as usize
        };
        let senders = if seed < 3 {
            0
        } else {
            dice.between(0, 2) as usize
        };
        let clients = dice.between(1, 3) as usize;
        let active = Duration::from_secs(match dice.between(0, 2) {
            0 => dice.between(1, 10),
            1 => dice.between(10, 60),
            _ => dice.between(60, 400),
        });
        let everybody = u32::try_from((servers + senders) * clients).unwrap();
        let mut options = KindOptions::default().lease(LEASE);
        if dice.one_in(3) {
            options = options.batch_messages(dice.between(1, 4) as usize);
        }
        if dice.one_in(3) {
            options = options.cached(dice.between(0, 2) as usize);
        }
        if dice.one_in(3) {
            options = options.concurrency(dice.between(1, 3) as usize);
        }
        let mut faults = match dice.between(0, 3) {
            _ if is_simple => Faults::none(),
            0 => Faults::none(),
            1 => Faults {
                delay: 0.8,
                ..Faults::none()
            },
            _ => Faults::bad_day(),
        };
        let mut havoc = Vec::new();
        if !is_simple {
            for kind in Havoc::ALL {
                if dice.one_in(3) {
                    havoc.push(kind);
                }
            }
        }
        let is_calm = dice.one_in(4) && servers == 1;
        if is_calm {
            let calm = [Havoc::Pause, Havoc::Slow, Havoc::Clock];
            havoc.retain(|kind| calm.contains(kind));
        }
        let is_brisk = !is_simple && !is_calm && dice.one_in(4);
        if is_brisk {
            faults = Faults {
                delay: 0.8,
                delay_by: Duration::from_millis(dice.between(1, 10)),
                ..Faults::none()
            };
            havoc = match dice.between(0, 1) {
                0 => vec![Havoc::Clock],
                _ => vec![Havoc::Purge],
            };
        } else if !is_simple && !is_calm && dice.one_in(6) {
            // Nobody is held up alone, so that nobody may be taken for dead.
            havoc = vec![Havoc::Outage];
        }
        let is_locky = !is_simple && !is_calm && !is_brisk && dice.one_in(4);
        if is_locky && dice.one_in(2) {
            havoc = vec![Havoc::Crash];
        }
        let mortals = usize::from(havoc.contains(&Havoc::Purge));
        faults.late_by = match dice.between(0, 2) {
            0 => Duration::from_millis(300),
            1 => Duration::from_secs(5),
            _ => faults.late_by,
        };
        Self {
            servers: if is_locky && dice.one_in(2) {
                1
            } else {
                servers
            },
            senders,
            clients,
            instances: dice.between(1, 4) as usize,
            mortals,
            shards: u32::try_from(dice.between(1, 3)).unwrap(),
            batches: dice
                .one_in(2)
                .then(|| Duration::from_millis(dice.between(1, 20))),
            faults,
            havoc,
            is_calm,
            is_brisk,
            is_locky,
            active,
            think: active * 2 * everybody / OPERATIONS,
            gap: active / if dice.one_in(3) { 20 } else { 5 },
            options,
        }
    }

    /// Whether no message fails by itself or takes the lock.
    pub(crate) fn is_flawless(&self) -> bool {
        self.is_calm || self.is_brisk
    }

    /// Whether processes are held up by outages only.
    pub(crate) fn is_steady(&self) -> bool {
        let steady = [Havoc::Outage, Havoc::Clock, Havoc::Purge, Havoc::Break];
        self.havoc.iter().all(|kind| steady.contains(kind))
    }

    /// Whether a message may be tried again for no fault of its own.
    pub(crate) fn may_repeat(&self) -> bool {
        let harmless = [Havoc::Clock, Havoc::Purge, Havoc::Break];
        !self.havoc.iter().all(|kind| harmless.contains(kind))
    }

    /// The names of the instances.
    pub(crate) fn names(&self) -> Vec<String> {
        let lasting = (0..self.instances).map(|index| format!("book{index}"));
        lasting.chain(self.mortal_names()).collect()
    }

    pub(crate) fn lasting_names(&self) -> Vec<String> {
        (0..self.instances)
            .map(|index| format!("book{index}"))
            .collect()
    }

    pub(crate) fn mortal_names(&self) -> Vec<String> {
        (0..self.mortals)
            .map(|index| format!("mortal{index}"))
            .collect()
    }
}

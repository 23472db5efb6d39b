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
    /// An operator kills or resets an instance, or purges its mailbox.
    Purge,
    /// An operator breaks a lock, if there is one.
    Break,
    /// What processes tell themselves in memory is lost from now on, or is not lost any more.
    Deaf,
}

impl Havoc {
    const ALL: [Self; 10] = [
        Self::Crash,
        Self::Restart,
        Self::Pause,
        Self::LongPause,
        Self::Slow,
        Self::Outage,
        Self::Clock,
        Self::Purge,
        Self::Break,
        Self::Deaf,
    ];
}

/// What a run is about. Half of the runs are about everything at once; the others are narrow, so that
/// they come often to what the others seldom come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Wide,
    /// Several processes call and ask the same few instances, one call right behind the other: turns
    /// that read ahead, and others that come between.
    Duel,
    /// One process serves what others send, now and then: each wake-up counts.
    Sparse,
    /// Long work under locks, and long outages for everybody: nobody may be taken for dead.
    Steady,
    /// Servers that shut down in the middle of their work, again and again: which is no failure.
    Restarts,
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) profile: Profile,
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
    /// Whether no message fails or locks, and no process dies.
    pub(crate) is_calm: bool,
    /// Whether nothing goes wrong that could hold an operation up. Then each of them ends soon, so
    /// that a lost wake-up is found although a poll would make up for it.
    pub(crate) is_brisk: bool,
    /// Whether what a process tells itself in memory is lost. That only saves time: the store says all
    /// of it again.
    pub(crate) is_deaf: bool,
    /// Whether locks are what the run is about: many of them, priority messages meanwhile, and
    /// holders that die with nobody beside them.
    pub(crate) is_locky: bool,
    /// How long clients work.
    pub(crate) active: Duration,
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
        if seed < 5 {
            return Self::simple(seed, dice);
        }
        let settings = match dice.between(0, 9) {
            0..=4 => Self::wide(dice),
            5 | 6 => Self::duel(dice),
            7 => Self::sparse(dice),
            8 => Self::steady(dice),
            _ => Self::restarts(dice),
        };
        Self {
            is_deaf: dice.one_in(6),
            ..settings
        }
    }

    /// What all profiles begin with: nothing goes wrong.
    fn plain(dice: &mut Dice) -> Self {
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
        let active = Duration::from_secs(match dice.between(0, 2) {
            0 => dice.between(1, 10),
            1 => dice.between(10, 60),
            _ => dice.between(60, 400),
        });
        Self {
            profile: Profile::Wide,
            servers: dice.between(1, 4) as usize,
            senders: dice.between(0, 2) as usize,
            clients: dice.between(1, 3) as usize,
            instances: dice.between(1, 4) as usize,
            mortals: 0,
            shards: u32::try_from(dice.between(1, 3)).unwrap(),
            batches: dice
                .one_in(2)
                .then(|| Duration::from_millis(dice.between(1, 20))),
            faults: Faults::none(),
            havoc: Vec::new(),
            is_calm: false,
            is_brisk: false,
            is_deaf: false,
            is_locky: false,
            active,
            gap: active / if dice.one_in(3) { 20 } else { 5 },
            options,
        }
    }

    fn simple(seed: u64, dice: &mut Dice) -> Self {
        let mut simple = Self::plain(dice);
        if seed < 3 {
            (simple.servers, simple.senders) = (1, 0);
        }
        simple
    }

    fn wide(dice: &mut Dice) -> Self {
        let mut wide = Self::plain(dice);
        wide.faults = match dice.between(0, 3) {
            0 => Faults::none(),
            1 => delays(1.0, 50),
            _ => Faults::bad_day(),
        };
        wide.havoc = Havoc::ALL.to_vec();
        wide.havoc.retain(|_| dice.one_in(3));
        wide.is_calm = dice.one_in(4) && wide.servers == 1;
        if wide.is_calm {
            let calm = [Havoc::Pause, Havoc::Slow, Havoc::Clock];
            wide.havoc.retain(|kind| calm.contains(kind));
        }
        wide.is_brisk = !wide.is_calm && dice.one_in(4);
        if wide.is_brisk {
            wide.faults = delays(0.8, dice.between(1, 10));
            wide.havoc = match dice.between(0, 1) {
                0 => vec![Havoc::Clock],
                _ => vec![Havoc::Purge],
            };
        }
        let is_wild = !wide.is_calm && !wide.is_brisk;
        if is_wild && dice.one_in(8) {
            // Nobody is held up alone, so that nobody may be taken for dead.
            wide.havoc = vec![Havoc::Outage];
        }
        wide.is_locky = is_wild && dice.one_in(4);
        if wide.is_locky && dice.one_in(2) {
            wide.havoc = vec![Havoc::Crash];
            wide.servers = 1;
        }
        wide.mortals = usize::from(wide.havoc.contains(&Havoc::Purge));
        wide.faults.late_by = match dice.between(0, 2) {
            0 => Duration::from_millis(300),
            1 => Duration::from_secs(5),
            _ => wide.faults.late_by,
        };
        wide
    }

    fn duel(dice: &mut Dice) -> Self {
        let active = Duration::from_millis(dice.between(100, 1_000));
        let mut faults = delays(0.8, dice.between(1, 20));
        // Then what others push is seen late, and what was read ahead is old.
        let is_blind = dice.one_in(2);
        if is_blind {
            faults.late_watch = 0.5;
            faults.lost_watch = 0.4;
        }
        Self {
            profile: Profile::Duel,
            servers: dice.between(2, 3) as usize,
            senders: dice.between(0, 2) as usize,
            instances: dice.between(1, 2) as usize,
            shards: 1,
            faults,
            is_brisk: !is_blind,
            active,
            ..Self::plain(dice)
        }
    }

    fn sparse(dice: &mut Dice) -> Self {
        let plain = Self::plain(dice);
        let options = plain.options.clone();
        Self {
            profile: Profile::Sparse,
            servers: 1,
            senders: dice.between(1, 2) as usize,
            instances: dice.between(1, 3) as usize,
            shards: 1,
            faults: delays(0.9, dice.between(1, 40)),
            is_brisk: true,
            options: match dice.one_in(2) {
                true => options.batch_messages(dice.between(1, 2) as usize),
                false => options,
            },
            // So long that nothing comes for seconds, and wakes whoever missed what came before.
            active: Duration::from_secs(dice.between(200, 600)),
            ..plain
        }
    }

    fn steady(dice: &mut Dice) -> Self {
        let active = Duration::from_secs(dice.between(200, 900));
        Self {
            profile: Profile::Steady,
            servers: dice.between(2, 4) as usize,
            senders: dice.between(0, 1) as usize,
            clients: 1,
            faults: delays(0.5, 20),
            havoc: vec![Havoc::Outage],
            is_locky: true,
            active,
            gap: active / 4,
            ..Self::plain(dice)
        }
    }

    fn restarts(dice: &mut Dice) -> Self {
        let active = Duration::from_secs(dice.between(5, 60));
        let plain = Self::plain(dice);
        Self {
            profile: Profile::Restarts,
            servers: dice.between(1, 3) as usize,
            senders: dice.between(1, 2) as usize,
            instances: dice.between(1, 2) as usize,
            faults: delays(0.9, dice.between(20, 200)),
            havoc: vec![Havoc::Restart, Havoc::Restart, Havoc::Clock],
            is_locky: dice.one_in(2),
            active,
            gap: Duration::from_millis(dice.between(200, 3_000)),
            options: plain.options.clone().concurrency(2),
            ..plain
        }
    }

    /// What goes wrong between the process at a place and the store. In a duel of three the first is
    /// much slower than the others, who are done with something new before it knows that it is done with
    /// something old.
    pub(crate) fn faults_at(&self, place: usize) -> Faults {
        let mut faults = self.faults.clone();
        if self.profile == Profile::Duel && self.servers > 2 {
            faults.delay_by = match place {
                0 => faults.delay_by * 8,
                _ => faults.delay_by / 4,
            };
        }
        faults
    }

    /// A client's longest pause between two operations.
    pub(crate) fn think(&self) -> Duration {
        let everybody = u32::try_from((self.servers + self.senders) * self.clients).unwrap();
        self.active * 2 * everybody / OPERATIONS
    }

    /// Whether outages are for everybody, and long.
    pub(crate) fn has_long_outages(&self) -> bool {
        self.profile == Profile::Steady
    }

    /// Whether clients wait for all processes to have started. Then no message was there before
    /// whoever handles it, so that none is suspect.
    pub(crate) fn begins_together(&self) -> bool {
        self.is_flawless()
    }

    /// Whether no message fails by itself or takes the lock.
    pub(crate) fn is_flawless(&self) -> bool {
        self.is_calm || self.is_brisk || self.profile == Profile::Duel
    }

    /// Whether processes are held up by outages only.
    pub(crate) fn is_steady(&self) -> bool {
        let steady = [
            Havoc::Outage,
            Havoc::Clock,
            Havoc::Purge,
            Havoc::Break,
            Havoc::Deaf,
        ];
        self.havoc.iter().all(|kind| steady.contains(kind))
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

/// Only delays, of reads and of commits, up to so many milliseconds.
fn delays(often: f64, millis: u64) -> Faults {
    Faults {
        delay: often,
        delay_by: Duration::from_millis(millis),
        ..Faults::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_of_every_test_run_have_all_that_can_go_wrong() {
        let all: Vec<Settings> = (0..crate::SEEDS).map(Settings::of).collect();
        for havoc in Havoc::ALL {
            let with = all.iter().filter(|of| of.havoc.contains(&havoc)).count();
            assert!(with >= 10, "{with} seeds with {havoc:?}");
        }
        let deaf = all.iter().filter(|of| of.is_deaf);
        assert!(deaf.clone().count() >= 20);
        assert!(deaf.filter(|of| of.is_brisk).count() >= 5);
    }
}

//! Whether the simulation finds mistakes: each is planted in abide's code, and a seed must fail that
//! passes without it.
//!
//! ```text
//! cargo test --test simulation planted                     all but those that are found late
//! ABIDE_SIM_PLANTED=all cargo test --release --test simulation planted -- --nocapture
//! ABIDE_SIM_PLANTED=StaleCacheAccepted cargo test ...      one of them
//! ```

use crate::run::run_with;
use abide::testing::Bug;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// After how many seeds without a failure a mistake counts as not found.
const MOST_SEEDS: u64 = 400;

/// What every test run looks for: all that is found soon, or that no test of a rule shows; and the seed
/// that found it last, which is looked at first. Any change of abide's may make another one find it: then
/// the search begins with the first seed, and takes longer. `ABIDE_SIM_PLANTED=all` tells the new ones.
const FAST: [(Bug, u64); 31] = [
    (Bug::PopWithoutConflict, 3),
    (Bug::ConflictAfterClear, 3),
    (Bug::LengthNotAdjusted, 0),
    (Bug::AttemptsLeftBehind, 0),
    (Bug::UserVersionsRepeated, 0),
    (Bug::PushWakesNobody, 8),
    (Bug::MarkClearedBlindly, 0),
    (Bug::MarkClearedWhileLocked, 13),
    (Bug::StaleCacheAccepted, 3),
    (Bug::VersionBySnapshot, 5),
    (Bug::ChainedUnread, 5),
    (Bug::ScanWatchesLater, 25),
    (Bug::InboxWatchesLater, 33),
    (Bug::UnknownAsFailure, 9),
    (Bug::UnknownAsSuccess, 9),
    (Bug::NoMarkerConflict, 13),
    (Bug::BlindUnpinned, 9),
    (Bug::WorkMovesLane, 9),
    (Bug::ReplyStagedApart, 5),
    (Bug::AnswerBeforeCommit, 0),
    (Bug::EffectsBeforeCommit, 1),
    (Bug::CacheBeforeCommit, 6),
    (Bug::LockTokenUnchecked, 34),
    (Bug::LeaseByWallClock, 3),
    (Bug::LeaseByFewObservations, 7),
    (Bug::InlineBeforeMailbox, 6),
    (Bug::ClaimNotReleased, 57),
    (Bug::WrongMessageBlamed, 0),
    (Bug::PartialStateKept, 0),
    (Bug::RejectedStateKept, 0),
    (Bug::KillDoesNotLook, 5),
];

/// What is not asked of the simulation, and why.
const NOT_ASKED: [(&str, &str); 5] = [
    (
        "WakeReadOlder",
        "its commit is refused, or it looks again: tests/rules",
    ),
    ("ScanWithoutRoom", "it only costs work: tests/rules"),
    ("TurnWatches", "it only costs work: tests/rules"),
    (
        "UnfitCounts",
        "it needs two versions of a server: tests/rules",
    ),
    (
        "NotificationsLost",
        "it must do no harm: many seeds have it, see settings",
    ),
];

/// The runs without a mistake that were looked at already: one seed finds several mistakes.
#[derive(Default)]
struct Controls(Mutex<BTreeSet<u64>>);

impl Controls {
    /// Without a mistake the seed passes.
    fn check(&self, seed: u64) {
        if self.0.lock().unwrap().contains(&seed) {
            return;
        }
        let control = run_with(seed, None);
        assert_eq!(control.violations, Vec::<String>::new(), "seed {seed}");
        self.0.lock().unwrap().insert(seed);
    }
}

/// The first seed that fails with the mistake, and what it says.
fn find(bug: Bug, hint: Option<u64>, controls: &Controls) -> Option<(u64, String)> {
    hint.into_iter().chain(0..MOST_SEEDS).find_map(|seed| {
        let report = run_with(seed, Some(bug));
        let violation = report.violations.into_iter().next()?;
        // It is the mistake that makes it fail.
        controls.check(seed);
        Some((seed, violation))
    })
}

fn name_of(bug: Bug) -> String {
    format!("{bug:?}")
}

#[test]
fn planted_mistakes_are_found() {
    let chosen = std::env::var("ABIDE_SIM_PLANTED").unwrap_or_default();
    let bugs: Vec<(Bug, Option<u64>)> = match chosen.as_str() {
        "" => FAST.map(|(bug, seed)| (bug, Some(seed))).to_vec(),
        "all" => Bug::ALL.map(|bug| (bug, None)).to_vec(),
        name => {
            let chosen = Bug::ALL.into_iter().filter(|bug| name_of(*bug) == name);
            chosen.map(|bug| (bug, None)).collect()
        }
    };
    assert!(!bugs.is_empty(), "there is no mistake {chosen:?}");
    let controls = Controls::default();
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((bug, hint)) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match find(*bug, *hint, &controls) {
                        Some((seed, violation)) => {
                            let violation: String = violation.chars().take(160).collect();
                            match hint {
                                Some(_) => eprintln!("{bug:?}: found by seed {seed}: {violation}"),
                                None => {
                                    let seeds = seed + 1;
                                    eprintln!("{bug:?}: found after {seeds} seeds: {violation}");
                                }
                            }
                        }
                        None => {
                            eprintln!("{bug:?}: NOT FOUND");
                            survivors.lock().unwrap().push(*bug);
                        }
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    eprintln!("{} mistakes", bugs.len());
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}

/// The mistakes as the code has them.
fn variants() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = std::fs::read_to_string(root.join("src/planted.rs")).unwrap();
    let (_, body) = code.split_once("pub enum Bug {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let lines = body
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','));
    let names = lines.filter(|line| line.chars().all(char::is_alphanumeric));
    names.map(str::to_owned).collect()
}

#[test]
fn every_mistake_that_can_be_planted_is_asked_for_or_has_a_reason() {
    let all = Bug::ALL.map(name_of);
    let not_asked = NOT_ASKED.map(|(name, _)| name.to_owned());
    let asked: BTreeSet<String> = all.iter().chain(&not_asked).cloned().collect();
    assert_eq!(asked.len(), all.len() + not_asked.len(), "listed twice");
    assert_eq!(asked, variants().into_iter().collect());
}

/// The tests of the rules show one mistake each, by a scenario that is made for it.
#[test]
fn every_mistake_is_looked_for_by_each_test_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut rules = String::new();
    for file in std::fs::read_dir(root.join("tests/rules")).unwrap() {
        rules.push_str(&std::fs::read_to_string(file.unwrap().path()).unwrap());
    }
    let rules = rules.replace(['\n', ' '], "");
    let fast = FAST.map(|(bug, _)| name_of(bug));
    let harmless = |name: &String| name == "NotificationsLost";
    for name in variants().into_iter().filter(|name| !harmless(name)) {
        let by_rules = ["holds_only_without(Bug::", "plant(Some(Bug::"]
            .iter()
            .any(|planting| {
                rules
                    .replace(')', ",")
                    .contains(&format!("{planting}{name},"))
            });
        assert!(by_rules || fast.contains(&name), "nothing looks for {name}");
    }
}

//! Whether the simulation finds mistakes: each is planted in abide's code, and a seed must fail that
//! passes without it.
//!
//! ```text
//! cargo test --test simulation planted                     those that are found fast
//! ABIDE_SIM_PLANTED=all cargo test --release --test simulation planted -- --nocapture
//! ABIDE_SIM_PLANTED=StaleCacheAccepted cargo test ...      one of them
//! ```

use crate::run::run_with;
use abide::testing::Bug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// After how many seeds without a failure a mistake counts as not found.
const MOST_SEEDS: u64 = 400;

/// Found within few seeds each, so that every test run looks for them.
const FAST: [Bug; 8] = [
    Bug::PopWithoutConflict,
    Bug::ConflictAfterClear,
    Bug::LengthNotAdjusted,
    Bug::AttemptsLeftBehind,
    Bug::UserVersionsRepeated,
    Bug::PushWakesNobody,
    Bug::StaleCacheAccepted,
    Bug::VersionBySnapshot,
];

/// The first seed that fails with the mistake, and what it says.
fn find(bug: Bug) -> Option<(u64, String)> {
    (0..MOST_SEEDS).find_map(|seed| {
        let report = run_with(seed, false, Some(bug));
        let violation = report.violations.into_iter().next()?;
        // The control: it is the mistake that makes it fail.
        let control = run_with(seed, false, None);
        assert_eq!(control.violations, Vec::<String>::new(), "seed {seed}");
        Some((seed, violation))
    })
}

#[test]
fn planted_mistakes_are_found() {
    let chosen = std::env::var("ABIDE_SIM_PLANTED").unwrap_or_default();
    let bugs: Vec<Bug> = match chosen.as_str() {
        "" => FAST.to_vec(),
        "all" => Bug::ALL.to_vec(),
        name => Bug::ALL
            .into_iter()
            .filter(|bug| format!("{bug:?}") == name)
            .collect(),
    };
    assert!(!bugs.is_empty(), "there is no mistake {chosen:?}");
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match find(*bug) {
                        Some((seed, violation)) => {
                            let violation: String = violation.chars().take(160).collect();
                            eprintln!("{bug:?}: found after {} seeds: {violation}", seed + 1);
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
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}

/// What a process tells itself in memory only saves time: the store says all of it again.
#[test]
fn lost_notifications_do_no_harm() {
    for seed in 0..20 {
        let report = run_with(seed, false, Some(Bug::NotificationsLost));
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
    }
}

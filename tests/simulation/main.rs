//! The whole system under a seeded simulation: nodes, clients and a store with faults, in virtual
//! time, checked against what the design promises.
//!
//! ```text
//! cargo test --test simulation                           300 seeds
//! ABIDE_SIM_SEEDS=20000 ABIDE_SIM_FIRST=1000 cargo test --test simulation seeds
//! ABIDE_SIM_SEED=17 ABIDE_SIM_LOG=1 cargo test --test simulation seeds     one, with its events
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "also the helpers of a test fail by panicking"
)]

mod clients;
mod ledger;
mod notes;
mod operators;
mod order;
mod planted;
mod rest;
mod run;
mod settings;
mod world;

use notes::Detail;
use run::run;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many seeds an ordinary test runs.
const SEEDS: u64 = 300;

/// After how many failures no further seed is begun.
const ENOUGH: usize = 5;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn seeds() {
    let first = number("ABIDE_SIM_SEED")
        .or(number("ABIDE_SIM_FIRST"))
        .unwrap_or(0);
    let count = match number("ABIDE_SIM_SEED") {
        Some(_) => 1,
        None => number("ABIDE_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let detail = match number("ABIDE_SIM_LOG") {
        Some(_) => Detail::Steps,
        None => Detail::None,
    };
    let next = AtomicU64::new(first);
    let operations = AtomicUsize::new(0);
    let failures = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failures.load(Ordering::Relaxed) >= ENOUGH {
                        return;
                    }
                    let report = run(seed, detail);
                    operations.fetch_add(report.operations, Ordering::Relaxed);
                    for line in report.log {
                        eprintln!("{line}");
                    }
                    if !report.violations.is_empty() {
                        tell(seed, &report.violations);
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    let operations = operations.into_inner();
    eprintln!("{count} seeds from {first} on, {operations} operations: {failures} failed");
    assert_eq!(failures, 0, "some seeds failed");
}

/// Says what was wrong in a run, and how to see it again.
fn tell(seed: u64, violations: &[String]) {
    let mut text = format!("seed {seed}:\n");
    for violation in violations.iter().take(8) {
        text.push_str(&format!("    {violation}\n"));
    }
    eprintln!(
        "{text}    replay it: ABIDE_SIM_SEED={seed} ABIDE_SIM_LOG=1 \
         cargo test --test simulation seeds -- --nocapture"
    );
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..16 {
        let first = run(seed, Detail::Events);
        let second = run(seed, Detail::Events);
        for (line, other) in first.log.iter().zip(&second.log) {
            assert_eq!(line, other, "seed {seed}");
        }
        assert_eq!(first, second, "seed {seed}");
    }
}

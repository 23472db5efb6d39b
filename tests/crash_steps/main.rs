//! Each operation is crashed at each of its steps in the store, in every way that a commit can be
//! overtaken by a crash; then another process comes, and everything must be as if the operation had
//! happened once or not at all. Each of its commits once ends with an unknown outcome, of every kind, in
//! a process that lives; and each of its steps is once refused for a moment, as a store does that is
//! busy: then everything must be as if nothing had gone wrong, and every caller must be told so.
//!
//! [`cases`] is the table of the operations.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "also the helpers of a test fail by panicking"
)]

mod cases;
mod recovery;
mod server;
mod stage;
mod world;

use abide::server::CallErrorKind;
use abide::store::StoreErrorKind;
use abide::testing::faults::{CommitFate, CrashMode};
use cases::Case;
use recovery::recover;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::{Told, WATCHED, World};

/// What goes wrong, with which step.
#[derive(Debug, Clone, Copy)]
enum Injury {
    Crash(u64, CrashMode),
    /// The process lives, and does not learn what became of the commit.
    Unknown(u64, CommitFate),
    /// The process lives, and the step has to be done again.
    Refused(u64, StoreErrorKind),
}

impl Injury {
    /// Whether what is asked of the process may end with an error: there is no telling for how long
    /// the store will be away.
    fn may_disappoint(self) -> bool {
        matches!(self, Self::Refused(_, StoreErrorKind::Unavailable))
    }
}

/// The steps of an operation, and which of them are commits.
struct Steps {
    count: u64,
    commits: BTreeSet<u64>,
}

/// Runs an operation; with an injury, if one is given. What it does in the store.
fn run(case: &Case, injury: Option<Injury>) -> Steps {
    let name = match injury {
        Some(injury) => format!("{} with {injury:?}", case.name),
        None => case.name.to_owned(),
    };
    let world = World::new();
    (case.before)(&world);
    let store = world.connection();
    let victim = world.process("victim", &store, case.serves);
    world.rest(case.age);
    let before = store.steps();
    let commits = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&commits);
    store.set_trace(move |event| {
        if event.operation == "commit" && event.step > before {
            seen.lock().unwrap().insert(event.step - before);
        }
    });
    match injury {
        Some(Injury::Crash(step, mode)) => store.crash_at(before + step, mode),
        Some(Injury::Unknown(step, fate)) => store.unknown_at(before + step, fate),
        Some(Injury::Refused(step, kind)) => store.fail_at(before + step, kind),
        None => {}
    }
    let begun = world.sim.now();
    (case.begin)(&world, &victim);
    while !(case.is_over)(&world) && !store.has_crashed() && world.sim.now() < begun + WATCHED {
        world.rest(Duration::from_millis(20));
    }
    let count = store.steps() - before;
    match injury {
        // It may notice for a moment that its connection is gone.
        Some(Injury::Crash(..)) => world.rest(Duration::from_millis(500)),
        _ => check_living(&world, case, injury, &name),
    }
    if !matches!(injury, None | Some(Injury::Crash(..))) {
        assert_eq!(victim.node.failure(), None, "{name}");
        assert!(world.stop(&victim), "{name}: it does not shut down");
    }
    victim.machine.crash();
    recover(&world, case, &name);
    let commits = commits.lock().unwrap().clone();
    Steps { count, commits }
}

/// As long as a session lives, its operations end and no outcome stays unknown.
fn check_living(world: &World, case: &Case, injury: Option<Injury>, name: &str) {
    assert!((case.is_over)(world), "{name} does not end");
    let may_disappoint = injury.is_some_and(Injury::may_disappoint);
    if let Some(trouble) = world.trouble() {
        assert!(may_disappoint, "{name}: {trouble}");
    }
    for (op, told) in world.told() {
        let is_fine = match &told {
            Told::Failed(CallErrorKind::OutcomeUnknown) => false,
            Told::Failed(CallErrorKind::Unavailable) => may_disappoint,
            _ => true,
        };
        assert!(is_fine, "{name}: {op} was {told:?}");
    }
}

fn injure_everywhere(name: &str) {
    let mut cases = cases::ALL.iter();
    let case = cases.find(|case| case.name == name).unwrap();
    let steps = run(case, None);
    assert!(steps.count > 0);
    let mut runs = 1;
    for step in 1..=steps.count {
        for injury in injuries(step, steps.commits.contains(&step)) {
            run(case, Some(injury));
            runs += 1;
        }
    }
    assert!(runs > 5, "{name} has only {} steps", steps.count);
    eprintln!(
        "{name}: {} steps, {} commits, {runs} runs",
        steps.count,
        steps.commits.len()
    );
}

/// What can go wrong with a step.
fn injuries(step: u64, is_commit: bool) -> Vec<Injury> {
    let refused = |kind| Injury::Refused(step, kind);
    if !is_commit {
        // What is no commit fails in one way.
        let crash = CrashMode::ALL.into_iter().take(1);
        let crash = crash.map(|mode| Injury::Crash(step, mode));
        let kinds = [StoreErrorKind::TooOld, StoreErrorKind::Unavailable];
        return crash.chain(kinds.map(refused)).collect();
    }
    let crashes = CrashMode::ALL.map(|mode| Injury::Crash(step, mode));
    let fates = [
        CommitFate::NotApplied,
        CommitFate::Applied,
        CommitFate::Late,
    ];
    let fates = fates.map(|fate| Injury::Unknown(step, fate));
    let kinds = [StoreErrorKind::Conflict, StoreErrorKind::TooOld];
    let all = crashes.into_iter().chain(fates);
    all.chain(kinds.map(refused)).collect()
}

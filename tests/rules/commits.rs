//! Outcomes: whatever the store says of a commit, or does not say, each piece of work lands at most
//! once, and nothing leaves a turn before its commit.

use crate::support::{Put, World, holds_only_without, ms, secs};
use abide::server::CallErrorKind;
use abide::testing::Bug;
use abide::testing::faults::Faults;
use std::collections::BTreeMap;

/// Casts and calls, pushed and inline, while outcomes are unknown: applied, not applied, or later.
fn each_lands_once(seed: u64) {
    let world = World::new(seed);
    let (server, sender) = (world.serve("server"), world.sender("sender"));
    let faults = Faults {
        unknown_applied: 0.15,
        unknown_not_applied: 0.15,
        unknown_late: 0.15,
        late_by: secs(3),
        delay: 0.5,
        delay_by: ms(30),
        ..Faults::none()
    };
    server.store.set_faults(faults.clone());
    sender.store.set_faults(faults);
    let mut ends = Vec::new();
    for n in 0..24 {
        let from = if n % 3 == 0 { &server } else { &sender };
        let desk = from.desk("one");
        ends.push(match n % 2 {
            0 => world.spawn(async move { desk.call(Put { n }).await.map(drop) }),
            _ => world.spawn(async move { desk.cast(Put { n }).await }),
        });
        world.rest(ms(40));
    }
    world.rest(secs(120));
    for process in [&server, &sender] {
        process.store.set_faults(Faults::none());
    }
    world.rest(secs(30));
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for n in world.all(&server, "one") {
        *counts.entry(n).or_default() += 1;
    }
    for (n, end) in ends.into_iter().enumerate() {
        let count = counts.get(&(n as u64)).copied().unwrap_or(0);
        match end.take().expect("it has ended") {
            Ok(()) => assert_eq!(count, 1, "{n} was acknowledged"),
            Err(error) => {
                assert_eq!(error.kind(), CallErrorKind::OutcomeUnknown, "{error}");
                assert!(count <= 1, "{n} was applied {count} times");
            }
        }
    }
    let notes = world.notes.of("effect ");
    for n in 0..24 {
        let n = n.to_string();
        let ran = notes.iter().filter(|note| **note == n).count();
        assert!(ran <= 1, "the effect of {n} ran {ran} times");
    }
    world.stop(&server);
    world.stop(&sender);
}

#[test]
fn each_attempt_checks_the_marker_so_that_at_most_one_lands() {
    holds_only_without(
        Bug::NoMarkerConflict,
        12,
        "was acknowledged",
        each_lands_once,
    );
}

#[test]
fn each_attempts_read_version_comes_before_its_commit() {
    holds_only_without(Bug::BlindUnpinned, 12, "was acknowledged", each_lands_once);
}

#[test]
fn after_an_unknown_result_the_marker_is_read() {
    holds_only_without(
        Bug::UnknownAsFailure,
        12,
        "was acknowledged",
        each_lands_once,
    );
}

#[test]
fn an_unknown_result_is_never_taken_for_a_success() {
    holds_only_without(
        Bug::UnknownAsSuccess,
        12,
        "was acknowledged",
        each_lands_once,
    );
}

#[test]
fn work_moves_to_another_lane_only_by_overwriting_the_marker_of_the_first() {
    holds_only_without(Bug::WorkMovesLane, 12, "was acknowledged", each_lands_once);
}

#[test]
fn only_after_the_commit_is_the_state_in_memory_changed() {
    holds_only_without(
        Bug::CacheBeforeCommit,
        12,
        "was acknowledged",
        each_lands_once,
    );
}

/// Two nodes call one instance at once, so that their turns conflict: each reply is a place that
/// nobody else got, and each effect runs once.
fn replies_and_effects_are_of_what_was_committed(seed: u64) {
    let world = World::new(seed);
    let (first, second) = (world.serve("first"), world.serve("second"));
    let mut ends = Vec::new();
    for n in 0..40 {
        for (node, server) in [&first, &second].into_iter().enumerate() {
            let n = n * 2 + node as u64;
            ends.push((n, world.spawn(server.desk("one").call(Put { n }))));
        }
        world.rest(ms(u64::from(n % 3 == 0)));
    }
    world.rest(secs(20));
    let all = world.all(&first, "one");
    for (n, end) in ends {
        let place = end.take().expect("it has ended").unwrap();
        assert_eq!(all[place as usize - 1], n, "the place that {n} was told");
    }
    let mut effects = world.notes.of("effect ");
    effects.sort();
    let count = effects.len();
    effects.dedup();
    assert_eq!((effects.len(), count), (80, 80), "each effect once");
    world.stop(&first);
    world.stop(&second);
}

#[test]
fn only_after_the_commit_are_callers_answered() {
    holds_only_without(
        Bug::AnswerBeforeCommit,
        8,
        "was told",
        replies_and_effects_are_of_what_was_committed,
    );
}

#[test]
fn only_after_the_commit_do_effects_run() {
    holds_only_without(
        Bug::EffectsBeforeCommit,
        8,
        "each effect once",
        replies_and_effects_are_of_what_was_committed,
    );
}

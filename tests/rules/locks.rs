//! Locks: who finds one whose holder is dead, what counts as an attempt, and what outside systems
//! can check.

use crate::support::{LEASE, Process, Put, Work, World, holds_only_without, instance, secs};
use abide::admin::Then;
use abide::testing::Bug;
use abide::testing::faults::Faults;

fn work(n: u64, time: u64, fails: u32) -> Work {
    Work {
        n,
        time: secs(time),
        fails,
    }
}

/// The mark of an instance stands as long as it is locked: it is how anyone finds the message.
fn a_dead_holders_message_is_found(seed: u64) {
    let world = World::new(seed);
    let (holder, sender) = (world.serve("holder"), world.sender("sender"));
    let call = world.spawn(sender.desk("one").call(work(1, 600, 0)));
    world.rest(secs(1));
    // The turn of a priority message leaves both mailboxes empty.
    let urgent = sender.desk("one").priority();
    world.run(urgent.call(Put { n: 2 })).unwrap();
    holder.crash();
    let next = world.serve("next");
    world.rest(LEASE * 2);
    assert_eq!(
        world.notes.of("ran 1 "),
        ["attempt 1 by holder", "attempt 2 by next"],
        "who ran it"
    );
    world.rest(secs(600));
    call.take().expect("it has ended").unwrap();
    assert_eq!(world.all(&next, "one"), [2, 1]);
    world.stop(&next);
    world.stop(&sender);
}

#[test]
fn the_mark_of_an_instance_goes_only_when_its_mailboxes_are_empty_and_it_is_not_locked() {
    holds_only_without(
        Bug::MarkClearedWhileLocked,
        3,
        "who ran it",
        a_dead_holders_message_is_found,
    );
}

#[test]
fn the_stop_of_a_node_is_no_failed_attempt_under_a_lock() {
    let mut world = World::new(1);
    world.options = world.options.clone().attempts(2);
    let sender = world.sender("sender");
    // Its fifth run fails: the first failure, of two.
    let call = world.spawn(sender.desk("one").call(work(1, 20, 5)));
    drop(call);
    let call = world.spawn(sender.desk("two").call(work(2, 600, 0)));
    let mut stopped = Vec::new();
    for name in ["a", "b", "c"] {
        let holder = world.serve(name);
        world.rest(secs(1));
        world.stop(&holder);
        stopped.push(holder);
    }
    let held = |id| world.run(world.admin().lock(&instance(id))).unwrap();
    assert_eq!(held("two").unwrap().attempts, 0);
    let last: Process = world.serve("d");
    world.rest(secs(1));
    let ran = world.notes.of("ran 2 ");
    assert_eq!(
        ran,
        [
            "attempt 1 by a",
            "attempt 2 by b",
            "attempt 3 by c",
            "attempt 4 by d"
        ]
    );
    // Two failures of its own, and not one fewer for all the stops.
    world.rest(secs(20));
    assert_eq!(world.notes.of("dead Work "), ["2"]);
    world.rest(secs(700));
    call.take().expect("it has ended").unwrap();
    world.stop(&last);
    world.stop(&sender);
}

#[test]
fn a_fencing_token_grows_with_each_taking_of_the_lock() {
    let world = World::new(2);
    let (first, second) = (world.serve("first"), world.serve("second"));
    for n in 0..4 {
        let from = if n % 2 == 0 { &first } else { &second };
        world.run(from.desk("one").call(work(n, 1, 1))).unwrap();
    }
    let crashing = world.spawn(second.desk("one").call(work(9, 300, 0)));
    world.rest(secs(1));
    let holder = world.notes.of("ran 9 attempt 1 by ");
    let (dies, lives) = match holder[0].as_str() {
        "first" => (first, second),
        _ => (second, first),
    };
    dies.crash();
    world.rest(LEASE * 2);
    let tokens = |n: u64| -> Vec<u128> {
        let tokens = world.notes.of(&format!("token {n} "));
        tokens.iter().map(|token| token.parse().unwrap()).collect()
    };
    let mut before = 0;
    for n in 0..4 {
        let of = tokens(n);
        // The second attempt was made under the same taking.
        assert_eq!(of.len(), 2);
        assert!(
            of[0] == of[1] && of[0] > before,
            "{n}: {of:?} after {before}"
        );
        before = of[0];
    }
    let of = tokens(9);
    assert!(of[0] > before && of[1] > of[0], "{of:?} after {before}");
    drop(crashing);
    world
        .run(lives.node.server::<crate::support::Desks>("one").kill())
        .unwrap();
    world.stop(&lives);
}

#[test]
fn a_reset_wakes_an_instance_that_is_parked_because_of_its_state() {
    let world = World::new(3);
    let newer = world.serve_as::<7>("newer");
    assert_eq!(world.put(&newer, "one", 1), 1);
    world.stop(&newer);
    let older = world.serve("older");
    let sender = world.sender("sender");
    let call = world.spawn(sender.desk("one").call(Put { n: 2 }));
    world.rest(secs(1));
    assert_eq!(older.node.parked().len(), 1);
    let reset = sender.node.server::<crate::support::Desks>("one").reset();
    world.run(reset).unwrap();
    // Much less than the time after which it would look again.
    world.rest(secs(1));
    assert_eq!(call.take().expect("it was woken").unwrap(), 1);
    // And nothing is left of the mark once there is nothing to do.
    world
        .run(sender.node.server::<crate::support::Desks>("idle").reset())
        .unwrap();
    world.rest(secs(30));
    let page = world.run(world.admin().doctor(None)).unwrap();
    assert!(page.items.is_empty(), "{:?}", page.items);
    world.stop(&older);
    world.stop(&sender);
}

/// The run of a lock that an operator broke goes on until it is found out. Its end says nothing of the
/// run that follows it in the same process.
#[test]
fn the_end_of_a_run_whose_lock_was_broken_leaves_the_next_run_alone() {
    let world = World::new(4);
    let (server, sender) = (world.serve("server"), world.sender("sender"));
    world.run(sender.desk("one").cast(work(1, 8, 0))).unwrap();
    world.rest(secs(2));
    let admin = world.admin();
    let one = instance("one");
    world
        .run(admin.break_lock(&one, Then::Retry, false))
        .unwrap();
    // The first run has ended, and the instance is looked at once more.
    world.rest(secs(7));
    world.run(sender.desk("one").cast(Put { n: 2 })).unwrap();
    world.rest(secs(60));
    assert_eq!(world.notes.of("ran 1 attempt 1 ").len(), 2);
    assert_eq!(world.notes.of("ran 1 ").len(), 2);
    assert_eq!(world.all(&server, "one"), [1, 2]);
    world.stop(&server);
    world.stop(&sender);
}

/// Renewals have no lane: of many the outcome is unknown, of some for ever, and some land late, while
/// another node that serves the instance watches the lock.
#[test]
fn renewals_whose_outcome_is_unknown_keep_the_lock_and_change_nothing_else() {
    for seed in 0..6 {
        let world = World::new(seed);
        let (holder, other) = (world.serve("holder"), world.serve("other"));
        let call = world.spawn(holder.desk("one").call(work(1, 300, 0)));
        world.rest(secs(1));
        assert_eq!(world.notes.of("ran 1 ").len(), 1);
        let token = world.notes.of("token 1 ");
        let runner = world.notes.of("ran 1 attempt 1 by ");
        let (runs, watches) = match runner[0].as_str() {
            "holder" => (&holder, &other),
            _ => (&other, &holder),
        };
        runs.store.set_faults(Faults {
            unknown_applied: 0.2,
            unknown_not_applied: 0.2,
            unknown_late: 0.2,
            late_by: secs(3),
            ..Faults::none()
        });
        // Has a reason to watch the lock: a message that waits behind it.
        let behind = world.spawn(watches.desk("one").call(Put { n: 2 }));
        world.rest(secs(250));
        let held = world.run(world.admin().lock(&instance("one"))).unwrap();
        assert_eq!(held.map(|held| held.attempts), Some(0), "seed {seed}");
        runs.store.set_faults(Faults::none());
        world.rest(secs(120));
        call.take().expect("it has ended").unwrap();
        behind.take().expect("it has ended").unwrap();
        assert_eq!(
            world.notes.of("token 1 "),
            token,
            "the lock was taken again"
        );
        assert_eq!(world.all(&holder, "one"), [1, 2]);
        world.stop(&holder);
        world.stop(&other);
    }
}

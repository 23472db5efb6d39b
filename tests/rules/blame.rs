//! What is not a message's fault never counts as an attempt.

use crate::support::{Fail, Put, Stranger, Work, World, holds_only_without, instance, ms, secs};
use abide::admin::Then;
use abide::durable::keys::Keys;
use abide::testing::Bug;
use abide::testing::faults::Faults;

/// Messages wait on a node that cannot handle them for the sake of the state, or of their name, longer
/// than all attempts would take; then they are handled, for the first time.
fn what_is_not_their_fault(seed: u64) {
    let world = World::new(seed);
    let newer = world.serve_as::<7>("newer");
    for id in ["schema", "damaged"] {
        assert_eq!(world.put(&newer, id, 1), 1);
    }
    world.stop(&newer);
    let keys = Keys::new(Keys::namespace_prefix(crate::support::NAMESPACE), 1);
    let damaged = keys.instance(&instance("damaged")).version();
    let sound = {
        let tx = world.cluster.begin().unwrap();
        let sound = world.run(tx.get(&damaged, abide::store::Isolation::Snapshot));
        tx.set(&damaged, b"damage");
        world.run(tx.commit()).unwrap();
        sound.unwrap().unwrap()
    };
    let (older, sender) = (world.serve("older"), world.sender("sender"));
    for id in ["schema", "damaged"] {
        world.run(sender.desk(id).cast(Put { n: 2 })).unwrap();
    }
    world
        .run(sender.desk("stranger").cast(Stranger {}))
        .unwrap();
    world.rest(secs(600));
    let parked = older.node.parked();
    assert_eq!(parked.len(), 3, "who is parked: {parked:?}");
    let admin = world.admin();
    for id in ["schema", "damaged", "stranger"] {
        let summary = world.run(admin.instance(&instance(id))).unwrap();
        let attempts = summary.ordinary.attempts.map_or(0, |known| known.attempts);
        assert_eq!((id, summary.length, attempts), (id, 1, 0));
    }
    let tx = world.cluster.begin().unwrap();
    tx.set(&damaged, &sound);
    world.run(tx.commit()).unwrap();
    // A node of the newer version comes.
    let newer = world.serve_as::<7>("newer again");
    world.rest(secs(60));
    for id in ["schema", "damaged"] {
        assert_eq!(world.all(&newer, id), [1, 2]);
        // Each run, however often a conflict had it repeated, was of the first attempt.
        let puts = world.notes.of(&format!("{id} put 2 "));
        assert!(
            puts.iter().all(|put| put == "attempt 1") && !puts.is_empty(),
            "{puts:?}"
        );
    }
    for process in [newer, older, sender] {
        world.stop(&process);
    }
}

#[test]
fn what_is_not_the_messages_fault_never_counts() {
    holds_only_without(
        Bug::UnfitCounts,
        2,
        "who is parked",
        what_is_not_their_fault,
    );
}

#[test]
fn a_failure_counts_against_the_message_that_failed() {
    holds_only_without(
        Bug::WrongMessageBlamed,
        3,
        "was not at its first attempt",
        |seed| {
            let world = World::new(seed);
            let sender = world.sender("sender");
            for n in 0..5 {
                world.run(sender.desk("one").cast(Put { n })).unwrap();
            }
            let poison = Fail { n: 99, times: 99 };
            world.run(sender.desk("one").cast(poison)).unwrap();
            world.run(sender.desk("one").cast(Put { n: 5 })).unwrap();
            let server = world.serve("server");
            world.rest(secs(60));
            assert_eq!(world.all(&server, "one"), [0, 1, 2, 3, 4, 5]);
            assert_eq!(world.notes.of("dead "), ["Fail 3"]);
            for put in world.notes.of("one put ") {
                assert!(
                    put.ends_with(" attempt 1"),
                    "was not at its first attempt: {put}"
                );
            }
            world.stop(&server);
            world.stop(&sender);
        },
    );
}

/// A process claims the heads of both mailboxes, counts a failure of the urgent one, and is stopped at
/// some moment of that, in good order.
fn stopped_in_the_middle(seed: u64) {
    let world = World::new(seed);
    let sender = world.sender("sender");
    let urgent = Fail { n: 1, times: 9 };
    world
        .run(sender.desk("one").priority().cast(urgent))
        .unwrap();
    world.run(sender.desk("one").cast(Put { n: 2 })).unwrap();
    let stopped = world.serve("stopped");
    stopped.store.set_faults(Faults {
        delay: 1.0,
        delay_by: ms(20),
        ..Faults::none()
    });
    // From the first claim to the last turn.
    world.rest(ms(seed * 4));
    world.stop(&stopped);
    let next = world.serve("next");
    world.rest(secs(60));
    assert_eq!(world.all(&next, "one"), [2]);
    for put in world.notes.of("one put ") {
        assert!(
            put.ends_with(" attempt 1"),
            "was not at its first attempt: {put}"
        );
    }
    assert_eq!(world.notes.of("dead "), ["Fail 3"]);
    let failed = world.notes.of("one fail 1 attempt ");
    for attempt in ["1", "2", "3"] {
        assert!(failed.iter().any(|one| one == attempt), "{failed:?}");
    }
    world.stop(&next);
    world.stop(&sender);
}

#[test]
fn a_process_that_stops_ends_its_claims_also_those_that_its_last_turn_was_not_about() {
    for seed in 0..100 {
        stopped_in_the_middle(seed);
    }
}

/// A message that an operator takes from under its lock stands at the head again: before one of which
/// it is noted that a process died with it.
#[test]
fn what_is_known_of_a_head_goes_back_behind_a_message_whose_lock_is_broken() {
    let mut were_blamed = 0;
    for moment in 0..12 {
        let world = World::new(moment);
        let sender = world.sender("sender");
        let work = Work {
            n: 1,
            time: secs(600),
            fails: 0,
        };
        world.run(sender.desk("one").cast(work)).unwrap();
        for n in 2..4 {
            world.run(sender.desk("one").cast(Put { n })).unwrap();
        }
        let slow = Faults {
            delay: 1.0,
            delay_by: ms(200),
            ..Faults::none()
        };
        let first = world.serve("first");
        first.store.set_faults(slow.clone());
        world.rest(ms(moment * 40));
        first.crash();
        let second = world.serve("second");
        world.rest(secs(150));
        let admin = world.admin();
        let summary = world.run(admin.instance(&instance("one"))).unwrap();
        were_blamed += usize::from(summary.ordinary.attempts.is_some());
        // Else it would have gone on before anybody looks.
        second.store.set_faults(slow);
        world
            .run(admin.break_lock(&instance("one"), Then::Retry, false))
            .unwrap();
        let page = world.run(admin.doctor(None)).unwrap();
        assert!(page.items.is_empty(), "{:?}", page.items);
        second.store.set_faults(Faults::none());
        world.rest(secs(700));
        assert_eq!(world.all(&second, "one"), [1, 2, 3]);
        world.stop(&second);
        world.stop(&sender);
    }
    assert!(were_blamed > 0);
}

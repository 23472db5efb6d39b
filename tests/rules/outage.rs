//! The store goes away for two minutes, for everybody: twice as long as it takes until a session is
//! swept, four times as long as a lease.

use crate::support::{Process, Put, Work, World, holds_only_without, instance, ms, secs};
use abide::testing::Bug;
use abide::testing::faults::{Faults, Outage};

const AWAY: std::time::Duration = secs(120);

#[derive(Debug, Clone, Copy)]
enum Way {
    Refuses,
    Hangs,
    /// As while another store takes its place.
    IsLocked,
}

fn set_away(process: &Process, way: Option<Way>) {
    let outage = match way {
        Some(Way::Refuses) => Some(Outage::Refuse),
        Some(Way::Hangs) => Some(Outage::Hang),
        Some(Way::IsLocked) | None => None,
    };
    process.store.set_outage(outage);
    process.store.set_locked(matches!(way, Some(Way::IsLocked)));
}

/// Two nodes and a sender. One node runs a message under a lock, behind which others wait; another
/// message stands in a mailbox that is suspect to both, and calls are under way.
fn loses_nobody(seed: u64, way: Way) {
    let world = World::new(seed);
    let sender = world.sender("sender");
    world.run(sender.desk("old").cast(Put { n: 1 })).unwrap();
    let holder = world.serve("holder");
    let work = Work {
        n: 1,
        time: secs(200),
        fails: 0,
    };
    let locked = world.spawn(sender.desk("one").call(work));
    world.rest(secs(2));
    let other = world.serve("other");
    let behind = world.spawn(other.desk("one").call(Put { n: 2 }));
    // Longer than it takes the other one to have watched the lock and the sessions.
    world.rest(secs(20));
    assert_eq!(world.notes.of("ran 1 "), ["attempt 1 by holder"]);
    let (sessions, token) = (world.sessions(), token(&world));
    let processes = [&sender, &holder, &other];
    for process in processes {
        set_away(process, Some(way));
    }
    let waiting = world.spawn(sender.desk("two").call(Put { n: 3 }));
    let inline = world.spawn(holder.desk("three").call(Put { n: 4 }));
    let cast = world.spawn(sender.desk("two").cast(Put { n: 5 }));
    world.rest(AWAY);
    assert!(!waiting.is_kept() && !cast.is_kept() && !locked.is_kept());
    for process in processes {
        set_away(process, None);
    }
    // Not yet the end of the run.
    world.rest(secs(45));
    assert_eq!(
        world.sessions(),
        sessions,
        "a session was swept, or renewed"
    );
    assert_eq!(self::token(&world), token, "the lock was taken");
    let held = world.run(world.admin().lock(&instance("one"))).unwrap();
    assert_eq!(held.unwrap().attempts, 0);
    world.rest(secs(120));
    for end in [&locked, &behind, &waiting] {
        end.take().expect("it has ended").unwrap();
    }
    inline.take().expect("it has ended").unwrap();
    cast.take().expect("it has ended").unwrap();
    assert_eq!(world.notes.of("ran 1 "), ["attempt 1 by holder"]);
    assert_eq!(world.all(&other, "one"), [1, 2]);
    for id in ["old", "one", "two", "three"] {
        for put in world.notes.of(&format!("{id} put ")) {
            assert!(put.ends_with(" attempt 1"), "{id}: {put}");
        }
    }
    assert_eq!(world.notes.of("dead "), Vec::<String>::new());
    for process in processes {
        assert_eq!(process.node.parked(), []);
        world.stop(process);
    }
}

fn token(world: &World) -> String {
    let held = world.run(world.admin().lock(&instance("one"))).unwrap();
    held.unwrap().token.to_string()
}

#[test]
fn a_store_that_refuses_for_two_minutes_loses_nobody() {
    for seed in 0..5 {
        loses_nobody(seed, Way::Refuses);
    }
}

#[test]
fn a_store_that_hangs_for_two_minutes_loses_nobody() {
    for seed in 0..5 {
        loses_nobody(seed, Way::Hangs);
    }
}

#[test]
fn a_store_that_is_locked_for_two_minutes_loses_nobody() {
    for seed in 0..5 {
        loses_nobody(seed, Way::IsLocked);
    }
}

/// Whenever a process has come so far as to try a message, the store hangs for longer than a turn is
/// tried. Calls past the mailbox and a message in it, which is alone there.
#[test]
fn a_store_that_hangs_again_and_again_blames_no_message() {
    for seed in 0..3 {
        let world = World::new(seed);
        let (server, sender) = (world.serve("server"), world.sender("sender"));
        server.store.set_faults(Faults {
            delay: 1.0,
            delay_by: ms(400),
            ..Faults::none()
        });
        world
            .run(sender.desk("mailbox").cast(Put { n: 1 }))
            .unwrap();
        let inline = world.spawn(server.desk("inline").call(Put { n: 2 }));
        for _ in 0..12 {
            world.rest(ms(150));
            for process in [&server, &sender] {
                set_away(process, Some(Way::Hangs));
            }
            world.rest(secs(40));
            for process in [&server, &sender] {
                set_away(process, None);
            }
        }
        world.rest(secs(60));
        inline.take().expect("it has ended").unwrap();
        for id in ["mailbox", "inline"] {
            let puts = world.notes.of(&format!("{id} put "));
            assert!(!puts.is_empty());
            for put in puts {
                assert!(put.ends_with(" attempt 1"), "{id}: {put}");
            }
        }
        world.stop(&server);
        world.stop(&sender);
    }
}

#[test]
fn an_outage_counts_for_nothing_with_those_who_judge_sessions() {
    holds_only_without(
        Bug::SweepAfterOutage,
        5,
        "a session was swept, or renewed",
        |seed| {
            loses_nobody(seed, Way::Refuses);
        },
    );
}

#[test]
fn an_outage_counts_for_nothing_with_those_who_judge_locks() {
    holds_only_without(
        Bug::LeaseByFewObservations,
        5,
        "the lock was taken",
        |seed| {
            loses_nobody(seed, Way::Refuses);
        },
    );
}

//! Order: what was acknowledged before something else began applies before it, whichever way both go.

use crate::support::{All, Process, Put, World, holds_only_without, ms, secs};
use abide::testing::Bug;
use abide::testing::faults::Faults;
use std::time::Duration;

/// One client does one thing after the other, through two nodes that serve the instance and one that
/// does not: calls past the mailbox, calls and casts through it, and queries.
fn one_after_the_other(world: &World, seed: u64) {
    let nodes = [
        world.serve("first"),
        world.serve("second"),
        world.sender("sender"),
    ];
    let slow = Faults {
        delay: 0.5,
        delay_by: ms(6),
        ..Faults::none()
    };
    for node in &nodes {
        node.store.set_faults(slow.clone());
    }
    let mut random = seed;
    let mut next = |end: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as usize % end
    };
    let mut done = 0;
    for _ in 0..60 {
        let node: &Process = &nodes[next(3)];
        let desk = node.desk("one");
        match next(3) {
            0 => {
                let all = world.run(desk.query(All {})).unwrap();
                assert_eq!(all.len() as u64, done, "a query after {done}");
            }
            1 => {
                let place = world.run(desk.call(Put { n: done })).unwrap();
                assert_eq!(place, done + 1, "its place");
                done += 1;
            }
            _ => {
                world.run(desk.cast(Put { n: done })).unwrap();
                done += 1;
                // The cast may not be handled yet; what follows comes behind it all the same.
                let place = world.run(nodes[next(2)].desk("one").call(Put { n: done }));
                assert_eq!(place.unwrap(), done + 1, "its place");
                done += 1;
            }
        }
        world.rest(ms([0, 0, 1, 3, 50][next(5)]));
    }
    let all = world.all(&nodes[0], "one");
    assert_eq!(all, (0..done).collect::<Vec<_>>());
    for node in &nodes {
        node.store.set_faults(Faults::none());
        world.stop(node);
    }
}

fn in_order(seed: u64) {
    one_after_the_other(&World::with_batches(seed, ms(20)), seed);
}

#[test]
fn messages_in_memory_come_after_everything_in_the_mailbox() {
    holds_only_without(Bug::InlineBeforeMailbox, 12, "its place", in_order);
}

/// A call ends, and its worker stays for a moment, with its reads for the next turn at hand. Within
/// that moment something else is acknowledged, of which that process has not heard yet; then comes the
/// next call, or a query.
fn within_a_moment(seed: u64) {
    let world = World::with_batches(seed, ms(1));
    let (first, second) = (world.serve("first"), world.serve("second"));
    let sender = world.sender("sender");
    first.store.set_faults(Faults {
        late_watch: 1.0,
        watch_delay_by: secs(1),
        ..Faults::none()
    });
    let mut done = 0;
    for round in 0..20 {
        done += 1;
        assert_eq!(world.put(&first, "one", done), done);
        // Not before its reads are done.
        world.rest(Duration::from_micros(100 * (round % 4)));
        done += 1;
        if round % 2 == 0 {
            world.run(sender.desk("one").cast(Put { n: done })).unwrap();
            done += 1;
            assert_eq!(world.put(&first, "one", done), done, "a call after a cast");
        } else {
            assert_eq!(world.put(&second, "one", done), done);
            let all = world.all(&first, "one");
            assert_eq!(all.len() as u64, done, "a query after a call");
        }
        world.rest(ms(round));
    }
    assert_eq!(world.all(&second, "one"), (1..=done).collect::<Vec<_>>());
    for node in [&first, &second, &sender] {
        world.stop(node);
    }
}

#[test]
fn a_chained_turn_with_messages_from_memory_must_conflict_with_the_whole_mailbox() {
    holds_only_without(
        Bug::ChainedWithoutMailboxConflict,
        6,
        "a call after a cast",
        within_a_moment,
    );
}

#[test]
fn a_query_must_read_at_a_version_that_was_obtained_after_it_came() {
    holds_only_without(
        Bug::QueryFromPrefetch,
        6,
        "a query after a call",
        within_a_moment,
    );
}

/// Several clients at once, so that commits of different instances and nodes share versions.
fn at_once(seed: u64) {
    let world = World::with_batches(seed, ms(20));
    let (first, second) = (world.serve("first"), world.serve("second"));
    let mut ends = Vec::new();
    for n in 0..60 {
        let node = if n % 2 == 0 { &first } else { &second };
        ends.push((n, world.spawn(node.desk("one").call(Put { n }))));
        world.rest(ms([0, 0, 2, 7][n as usize % 4]));
    }
    world.rest(secs(20));
    let all = world.all(&first, "one");
    for (n, end) in ends {
        let place = end.take().expect("it has ended").unwrap();
        assert_eq!(
            all.get(place as usize - 1),
            Some(&n),
            "the place that {n} was told"
        );
    }
    assert_eq!(all.len(), 60);
    world.stop(&first);
    world.stop(&second);
}

#[test]
fn a_chained_turn_reads_at_its_own_version_and_never_skips_a_read() {
    holds_only_without(Bug::ChainedUnread, 20, "was told", at_once);
}

#[test]
fn a_cached_state_is_compared_with_the_version_that_was_read() {
    holds_only_without(Bug::StaleCacheAccepted, 20, "was told", at_once);
}

/// Long and uneven, so that a process learns late what it has committed.
fn late() -> Faults {
    Faults {
        delay: 1.0,
        delay_by: ms(300),
        ..Faults::none()
    }
}

/// While a process does not know yet that its turn has landed, another one goes on from there. What the
/// first one reads ahead begins where its own turn ended, which is the past by then.
fn queries_see_what_others_were_told(seed: u64) {
    let world = World::with_batches(seed, ms(20));
    let (slow, quick) = (world.serve("slow"), world.serve("quick"));
    for round in 0..8 {
        slow.store.set_faults(late());
        let turn = world.spawn(slow.desk("one").call(Put { n: 2 * round }));
        while world.all(&quick, "one").len() as u64 <= 2 * round {
            world.rest(ms(5));
        }
        let place = world.put(&quick, "one", 2 * round + 1);
        assert_eq!(place, 2 * round + 2);
        let all = world.all(&slow, "one");
        assert_eq!(all.len() as u64, place, "what {place} was told is there");
        slow.store.set_faults(Faults::none());
        world.rest(secs(1));
        turn.take().expect("it has ended").unwrap();
    }
    world.stop(&slow);
    world.stop(&quick);
}

#[test]
fn a_query_is_not_answered_from_what_was_read_before_it_came() {
    holds_only_without(
        Bug::QueryFromPrefetch,
        5,
        "was told is there",
        queries_see_what_others_were_told,
    );
}

/// As before, but what comes in between is a message in the mailbox: the next call in memory has to
/// come behind it.
fn calls_come_behind_what_was_pushed(seed: u64) {
    let world = World::with_batches(seed, ms(20));
    let (server, sender) = (world.serve("server"), world.sender("sender"));
    for round in 0..8 {
        server.store.set_faults(late());
        let turn = world.spawn(server.desk("one").call(Put { n: 3 * round }));
        world.rest(ms(200 + 50 * round));
        let pushed = sender.desk("one").cast(Put { n: 3 * round + 1 });
        world.run(pushed).unwrap();
        let behind = world.run(server.desk("one").call(Put { n: 3 * round + 2 }));
        server.store.set_faults(Faults::none());
        world.rest(secs(15));
        turn.take().expect("it has ended").unwrap();
        let all = world.all(&server, "one");
        let place = |n| all.iter().position(|known| *known == n);
        assert!(
            place(3 * round + 1) < place(3 * round + 2),
            "not in the order of their acknowledgements: {all:?}"
        );
        assert_eq!(place(3 * round + 2), Some(behind.unwrap() as usize - 1));
    }
    world.stop(&server);
    world.stop(&sender);
}

#[test]
fn a_chained_turn_conflicts_with_what_was_pushed_since_it_read() {
    holds_only_without(
        Bug::ChainedWithoutMailboxConflict,
        8,
        "not in the order",
        calls_come_behind_what_was_pushed,
    );
}

//! An orderly stop: what a process leaves behind looks like no death, and nothing of it goes on.

use crate::support::{Fail, Put, Work, World, ms, secs};
use abide::testing::faults::Faults;

fn slow() -> Faults {
    Faults {
        delay: 1.0,
        delay_by: ms(100),
        ..Faults::none()
    }
}

/// A stop gives the lock up, so that the next run begins at once. What the first one holds, a
/// connection say, or a file, must be gone by then.
#[test]
fn a_run_is_over_before_its_lock_is_given_up() {
    for seed in 0..10 {
        let world = World::new(seed);
        let (holder, sender) = (world.serve("holder"), world.sender("sender"));
        let work = Work {
            n: 1,
            time: secs(600),
            fails: 0,
        };
        world.run(sender.desk("one").cast(work)).unwrap();
        world.rest(secs(1));
        let next = world.serve("next");
        world.rest(secs(1));
        // Then the others see what it commits before it does.
        holder.store.set_faults(slow());
        world.stop(&holder);
        world.rest(secs(5));
        let left = world.notes.place("left 1 by holder");
        let began = world.notes.place("ran 1 attempt 2 by next");
        assert!(left.is_some() && began.is_some(), "seed {seed}");
        assert!(
            left < began,
            "seed {seed}: left at {left:?}, next at {began:?}"
        );
        world
            .run(next.node.server::<crate::support::Desks>("one").kill())
            .unwrap();
        world.stop(&next);
        world.stop(&sender);
    }
}

/// A process that claims a message and then has a turn about another one, which fails, still has to
/// end its claim when it stops: a claim of a session that is gone would count as a death.
#[test]
fn a_claim_is_ended_by_a_stop_whatever_the_last_turn_was_about() {
    for moment in 0..60 {
        let world = World::new(moment);
        let sender = world.sender("sender");
        for n in 0..3 {
            world.run(sender.desk("one").cast(Put { n })).unwrap();
        }
        let urgent = sender.desk("one").priority();
        world.run(urgent.cast(Fail { n: 9, times: 1 })).unwrap();
        let first = world.serve("first");
        first.store.set_faults(slow());
        world.rest(ms(moment * 15));
        world.stop(&first);
        let second = world.serve("second");
        world.rest(secs(20));
        let mut all = world.all(&second, "one");
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 9]);
        for n in 0..3 {
            for put in world.notes.of(&format!("one put {n} ")) {
                assert_eq!(put, "attempt 1", "{n}, stopped at {} ms", moment * 15);
            }
        }
        world.stop(&second);
        world.stop(&sender);
    }
}

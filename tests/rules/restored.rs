//! A restored store, another one in its place, and a locked one: a node opens itself anew.

use crate::support::{Process, Put, Work, World, instance, ms, secs};
use crate::swap::Swap;
use abide::server::CallErrorKind;
use abide::store::MemoryStore;
use abide::testing::faults::{CommitFate, CommitReport, CrashMode};
use abide::testing::sim::Sim;
use std::time::Duration;

/// Longer than it takes until a node sees that its store is another one: a heartbeat.
const NOTICED: Duration = secs(15);

fn world(seed: u64) -> (World, Swap) {
    let sim = Sim::new(seed).with_time_limit(secs(4 * 3_600));
    let swap = Swap::new(MemoryStore::with_env(sim.env()));
    (
        World::on(sim, std::sync::Arc::new(swap.clone()), seed),
        swap,
    )
}

fn lock_all(processes: &[&Process], locked: bool) {
    for process in processes {
        process.store.set_locked(locked);
    }
}

#[test]
fn what_was_restored_comes_before_what_is_pushed_afterwards() {
    let (world, swap) = world(1);
    let sender = world.sender("sender");
    // Stamps far above those that the other store begins with.
    for n in 0..50 {
        world.run(sender.desk("other").cast(Put { n })).unwrap();
    }
    world.run(sender.desk("one").cast(Put { n: 10 })).unwrap();
    let backup = swap.backup(&world);
    lock_all(&[&sender], true);
    world.rest(secs(20));
    swap.restore(&world, &backup);
    let restored = world.run(world.admin().restored()).unwrap();
    assert_eq!(
        (restored.incarnation, restored.locks, restored.claims),
        (1, 0, 0)
    );
    lock_all(&[&sender], false);
    world.rest(NOTICED);
    world.run(sender.desk("one").cast(Put { n: 11 })).unwrap();
    let server = world.serve("server");
    world.rest(secs(5));
    assert_eq!(world.all(&server, "one"), [10, 11]);
    assert_eq!(server.node.namespace().incarnation(), 1);
    assert_eq!(sender.node.namespace().incarnation(), 1);
    world.stop(&sender);
    world.stop(&server);
}

#[test]
fn a_node_that_lives_through_a_restore_keeps_nothing_of_the_store_that_was() {
    let (world, swap) = world(2);
    let (server, sender) = (world.serve("server"), world.sender("sender"));
    assert_eq!(world.put(&server, "one", 1), 1);
    let backup = swap.backup(&world);
    assert_eq!(world.put(&server, "one", 2), 2);
    // A caller whom nobody will answer: his message is not in the backup.
    let admin = world.admin();
    world.run(admin.pause(&instance("held"), "a test")).unwrap();
    let call = world.spawn(sender.desk("held").call(Put { n: 9 }));
    world.rest(secs(1));
    assert!(!call.is_kept());
    lock_all(&[&server, &sender], true);
    world.rest(secs(20));
    swap.restore(&world, &backup);
    world.run(world.admin().restored()).unwrap();
    lock_all(&[&server, &sender], false);
    world.rest(NOTICED);
    let lost = call.take().expect("its session is gone").unwrap_err();
    assert_eq!(lost.kind(), CallErrorKind::OutcomeUnknown);
    assert_eq!(world.all(&server, "one"), [1]);
    assert_eq!(world.put(&server, "one", 3), 2);
    world.run(sender.desk("one").cast(Put { n: 4 })).unwrap();
    world.rest(secs(1));
    assert_eq!(world.all(&server, "one"), [1, 3, 4]);
    world.stop(&sender);
    world.stop(&server);
}

#[test]
fn a_node_sees_that_its_store_was_set_back_though_nobody_says_so() {
    let (world, swap) = world(3);
    let server = world.serve("server");
    assert_eq!(world.put(&server, "one", 1), 1);
    let backup = swap.backup(&world);
    // Some heartbeats later.
    world.rest(secs(60));
    assert_eq!(world.put(&server, "one", 2), 2);
    swap.restore(&world, &backup);
    world.rest(NOTICED);
    assert_eq!(world.put(&server, "one", 3), 2);
    assert_eq!(world.all(&server, "one"), [1, 3]);
    world.stop(&server);
}

#[test]
fn a_restore_frees_what_the_processes_of_then_held() {
    let (world, swap) = world(4);
    let holder = world.serve("holder");
    let sender = world.sender("sender");
    let work = Work {
        n: 1,
        time: secs(600),
        fails: 0,
    };
    world.run(sender.desk("one").cast(work)).unwrap();
    world.rest(secs(1));
    assert_eq!(world.notes.of("ran 1 "), ["attempt 1 by holder"]);
    let backup = swap.backup(&world);
    holder.crash();
    sender.crash();
    swap.restore(&world, &backup);
    let admin = world.admin();
    assert_eq!(world.sessions().len(), 2);
    let restored = world.run(admin.restored()).unwrap();
    assert_eq!((restored.locks, restored.claims), (1, 0));
    assert!(restored.damaged.is_empty());
    // Those of then are gone; the operator has one.
    assert!(world.sessions().len() <= 1);
    let next = world.serve("next");
    // Much less than the lease.
    world.rest(secs(5));
    let ran = world.notes.of("ran 1 ");
    assert_eq!(ran, ["attempt 1 by holder", "attempt 2 by next"]);
    let held = world.run(admin.lock(&instance("one"))).unwrap().unwrap();
    assert_eq!(held.attempts, 0);
    let tokens: Vec<u128> = world
        .notes
        .of("token 1 ")
        .iter()
        .map(|n| n.parse().unwrap())
        .collect();
    assert!(tokens[0] < tokens[1], "{tokens:?}");
    world
        .run(next.node.server::<crate::support::Desks>("one").kill())
        .unwrap();
    world.run(admin.close()).unwrap();
    world.stop(&next);
}

/// A store in which a process holds a claim on a message.
fn claimed() -> (World, Swap) {
    for step in 1..100 {
        let (world, swap) = world(5);
        let sender = world.sender("sender");
        world.run(sender.desk("one").cast(Put { n: 1 })).unwrap();
        let victim = world.serve("victim");
        victim.store.crash_at(
            step,
            CrashMode {
                fate: CommitFate::Applied,
                report: CommitReport::Silence,
            },
        );
        world.rest(secs(1));
        let admin = world.admin();
        let page = world.run(admin.instance(&instance("one"))).unwrap();
        let claim = page.ordinary.attempts.and_then(|known| known.claim);
        victim.crash();
        sender.crash();
        if claim.is_some() {
            return (world, swap);
        }
    }
    panic!("no process held a claim");
}

#[test]
fn a_restore_blames_no_message_for_the_end_of_the_processes_of_then() {
    let (world, swap) = claimed();
    let backup = swap.backup(&world);
    swap.restore(&world, &backup);
    let restored = world.run(world.admin().restored()).unwrap();
    assert_eq!((restored.locks, restored.claims), (0, 1));
    let next = world.serve("next");
    world.rest(secs(5));
    assert_eq!(world.notes.of("one put "), ["1 attempt 1"]);
    assert_eq!(world.all(&next, "one"), [1]);
    world.stop(&next);
}

#[test]
fn after_a_lock_of_the_store_a_node_forgets_what_it_knew_and_keeps_its_session() {
    let world = World::new(6);
    let (server, sender) = (world.serve("server"), world.sender("sender"));
    assert_eq!(world.put(&server, "one", 1), 1);
    let before = world.sessions();
    lock_all(&[&server, &sender], true);
    let waits = world.spawn(sender.desk("one").call(Put { n: 2 }));
    world.rest(secs(90));
    assert!(!waits.is_kept());
    lock_all(&[&server, &sender], false);
    world.rest(NOTICED);
    assert_eq!(waits.take().unwrap().unwrap(), 2);
    assert_eq!(
        world.sessions(),
        before,
        "a claim of theirs is no dead process's"
    );
    world.rest(ms(10));
    let loaded = world.notes.of("activated one ");
    assert!(loaded.len() > 1, "the state was not read again: {loaded:?}");
    world.stop(&sender);
    world.stop(&server);
}

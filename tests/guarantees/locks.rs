//! G7: a lock outlives its dead holder by no more than its lease, and a holder that lost it changes
//! nothing. And what runs, and what waits, while a lock is held.

use crate::support::{Add, Append, Labour, NodeExt, Probe, Work, World, eventually, ms, pause};
use abide::env::TokioEnv;
use abide::server::CallErrorKind;
use abide::testing::faults::{FaultyStore, Outage};
use std::sync::Arc;
use std::time::{Duration, Instant};

on_each_store!(
    g07_a_lock_outlives_its_dead_holder_by_no_more_than_its_lease,
    g07_a_holder_that_lost_its_lock_changes_nothing,
    g07_a_living_holder_keeps_its_lock_beyond_the_lease,
    g07_a_killed_instance_fences_the_holder_of_its_lock,
    a_lock_is_taken_by_cast_call_and_priority_call,
    priority_messages_and_queries_pass_a_lock_and_ordinary_ones_wait,
    a_state_changed_under_a_lock_persists,
    another_node_waits_for_the_lock,
    a_run_that_fails_is_tried_again_and_then_given_up,
    a_run_that_is_refused_tells_the_caller_and_unlocks,
    a_node_that_stops_gives_its_locks_up_at_once,
    g06_no_number_of_stopped_nodes_makes_a_dead_letter,
);

const LEASE: Duration = ms(900);

fn work(name: &str, how: Labour) -> Work {
    Work {
        name: name.into(),
        how,
    }
}

async fn g07_a_lock_outlives_its_dead_holder_by_no_more_than_its_lease(world: World) {
    let (first, second) = (Probe::new(), Probe::new());
    let (holder, connection) = world.serving_mortally(&first).await;
    let producer = world.producer().await;
    let call = tokio::spawn(producer.actor("desk").call(work("w", Labour::Gate)));
    eventually("it runs", async || !first.of("ran w").is_empty()).await;
    let waiting = world.serving(&second).await;
    let behind = tokio::spawn(producer.actor("desk").call(Append {
        text: "behind".into(),
    }));
    // The other one knows of the lock by now.
    pause(ms(300)).await;
    assert_eq!(second.of("ran w"), Vec::<String>::new());
    let died = Instant::now();
    connection.set_outage(Some(Outage::Refuse));
    drop(holder);
    call.await.unwrap().unwrap();
    let after = died.elapsed();
    behind.await.unwrap().unwrap();
    // A lease, a look every sixth of it, the back-off, and a slow machine.
    assert!(after < LEASE + LEASE / 3 + ms(1_200), "it took {after:?}");
    assert_eq!(second.of("ran w "), ["2"]);
    assert_eq!(
        waiting.lines("desk").await,
        ["w begun", "w done 2", "behind"]
    );
    producer.stop().await;
    waiting.stop().await;
}

async fn g07_a_holder_that_lost_its_lock_changes_nothing(world: World) {
    let (first, second) = (Probe::new(), Probe::new());
    let store = FaultyStore::new(world.store().await, Arc::new(TokioEnv::current()), 1);
    let holder = world
        .serving_on(Arc::new(store.clone()), &first, World::options())
        .await;
    let producer = world.producer().await;
    let call = tokio::spawn(producer.actor("desk").call(work("w", Labour::Gate)));
    eventually("it runs", async || !first.of("ran w").is_empty()).await;
    let other = world.serving(&second).await;
    // It cannot renew the lock any more, but it lives.
    store.set_outage(Some(Outage::Refuse));
    call.await.unwrap().unwrap();
    assert_eq!(second.of("ran w "), ["2"]);
    // Its run ends, and it comes back.
    first.open_gate(1);
    pause(ms(50)).await;
    store.set_outage(None);
    assert_eq!(holder.actor("desk").call(Add { n: 1 }).await.unwrap(), 1);
    pause(LEASE).await;
    assert_eq!(holder.lines("desk").await, ["w begun", "w done 2"]);
    assert_eq!(other.lines("desk").await, ["w begun", "w done 2"]);
    for node in [producer, other, holder] {
        node.stop().await;
    }
}

async fn g07_a_living_holder_keeps_its_lock_beyond_the_lease(world: World) {
    let (first, second) = (Probe::new(), Probe::new());
    let holder = world.serving(&first).await;
    let call = tokio::spawn(
        holder
            .actor("desk")
            .call(work("w", Labour::Take { ms: 2_000 })),
    );
    eventually("it runs", async || !first.of("ran w").is_empty()).await;
    let other = world.serving(&second).await;
    let behind = tokio::spawn(other.actor("desk").call(Append {
        text: "behind".into(),
    }));
    call.await.unwrap().unwrap();
    behind.await.unwrap().unwrap();
    assert_eq!(second.of("ran w"), Vec::<String>::new());
    assert_eq!(other.lines("desk").await, ["w begun", "w done 1", "behind"]);
    holder.stop().await;
    other.stop().await;
}

async fn g07_a_killed_instance_fences_the_holder_of_its_lock(world: World) {
    let probe = Probe::new();
    let (holder, producer) = (world.serving(&probe).await, world.producer().await);
    let calls = [&holder, &producer]
        .map(|node| tokio::spawn(node.actor("desk").call(work("w", Labour::Gate))));
    eventually("it runs", async || !probe.of("ran w").is_empty()).await;
    producer.actor("desk").kill().await.unwrap();
    for call in calls {
        assert_eq!(
            call.await.unwrap().unwrap_err().kind(),
            CallErrorKind::Killed
        );
    }
    probe.open_gate(2);
    assert_eq!(producer.actor("desk").call(Add { n: 1 }).await.unwrap(), 1);
    pause(LEASE).await;
    assert_eq!(holder.lines("desk").await, Vec::<String>::new());
    producer.stop().await;
    holder.stop().await;
}

async fn a_lock_is_taken_by_cast_call_and_priority_call(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    for from in [&node, &producer] {
        let desk = from.actor("desk");
        desk.cast(work("cast", Labour::Take { ms: 20 }))
            .await
            .unwrap();
        desk.call(work("call", Labour::Take { ms: 20 }))
            .await
            .unwrap();
        desk.priority()
            .call(work("priority", Labour::Take { ms: 20 }))
            .await
            .unwrap();
    }
    let mut expected = Vec::new();
    for name in ["cast", "call", "priority", "cast", "call", "priority"] {
        expected.extend([format!("{name} begun"), format!("{name} done 1")]);
    }
    assert_eq!(node.lines("desk").await, expected);
    producer.stop().await;
    node.stop().await;
}

async fn priority_messages_and_queries_pass_a_lock_and_ordinary_ones_wait(world: World) {
    let probe = Probe::new();
    let (node, producer) = (world.serving(&probe).await, world.producer().await);
    for (round, from) in [&node, &producer].into_iter().enumerate() {
        let desk = from.actor("desk");
        let call = tokio::spawn(desk.call(work("w", Labour::Gate)));
        eventually("it runs", async || probe.of("ran w").len() == round + 1).await;
        let waits = [&node, &producer].map(|other| {
            tokio::spawn(other.actor("desk").call(Append {
                text: "waited".into(),
            }))
        });
        pause(ms(60)).await;
        for other in [&node, &producer] {
            let urgent = Append {
                text: "urgent".into(),
            };
            other.actor("desk").priority().call(urgent).await.unwrap();
        }
        assert_eq!(node.lines("desk").await.last().unwrap(), "urgent");
        assert!(!call.is_finished() && !waits.iter().any(|call| call.is_finished()));
        probe.open_gate(1);
        call.await.unwrap().unwrap();
        for call in waits {
            call.await.unwrap().unwrap();
        }
        let lines = producer.lines("desk").await;
        let expected = [
            "w begun", "urgent", "urgent", "w done 1", "waited", "waited",
        ];
        assert_eq!(lines[round * 6..], expected);
    }
    producer.stop().await;
    node.stop().await;
}

async fn a_state_changed_under_a_lock_persists(world: World) {
    let node = world.serving(&Probe::new()).await;
    node.actor("desk")
        .call(work("w", Labour::Take { ms: 5 }))
        .await
        .unwrap();
    node.stop().await;
    let node = world.serving(&Probe::new()).await;
    assert_eq!(node.lines("desk").await, ["w begun", "w done 1"]);
    node.stop().await;
}

async fn another_node_waits_for_the_lock(world: World) {
    let (first, second) = (Probe::new(), Probe::new());
    let (a, b) = (world.serving(&first).await, world.serving(&second).await);
    let calls = [&a, &b, &a, &b]
        .map(|node| tokio::spawn(node.actor("desk").call(work("w", Labour::Take { ms: 60 }))));
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let lines = a.lines("desk").await;
    assert_eq!(lines.len(), 8);
    for pair in lines.chunks(2) {
        assert_eq!(pair, ["w begun", "w done 1"], "one at a time");
    }
    a.stop().await;
    b.stop().await;
}

async fn a_run_that_fails_is_tried_again_and_then_given_up(world: World) {
    let probe = Probe::new();
    let (node, producer) = (world.serving(&probe).await, world.producer().await);
    let desk = producer.actor("desk");
    desk.call(work("a", Labour::Fail { times: 2 }))
        .await
        .unwrap();
    assert_eq!(probe.of("ran a "), ["1", "2", "3"]);
    for (name, how, why) in [
        ("b", Labour::Fail { times: 99 }, "failed: b"),
        ("c", Labour::Panic, "panic"),
    ] {
        let error = desk.call(work(name, how)).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::DeadLetter);
        assert!(error.message().contains(why), "{error}");
        assert_eq!(probe.of(&format!("ran {name} ")), ["1", "2", "3"]);
    }
    // What the handlers changed when they took the lock was committed then.
    let expected = ["a begun", "a done 3", "b begun", "c begun"];
    assert_eq!(node.lines("desk").await, expected);
    assert_eq!(desk.call(Add { n: 1 }).await.unwrap(), 1, "it is unlocked");
    assert_eq!(probe.of("dead desk 3 ").len(), 2, "{:?}", probe.notes());
    producer.stop().await;
    node.stop().await;
}

async fn a_run_that_is_refused_tells_the_caller_and_unlocks(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    for from in [&node, &producer] {
        let error = from
            .actor("desk")
            .call(work("w", Labour::Refuse))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (CallErrorKind::Rejected, "refused: w")
        );
    }
    assert_eq!(node.actor("desk").call(Add { n: 1 }).await.unwrap(), 1);
    producer.stop().await;
    node.stop().await;
}

async fn a_node_that_stops_gives_its_locks_up_at_once(world: World) {
    let (first, second) = (Probe::new(), Probe::new());
    let options = || World::options().lease(Duration::from_secs(30));
    let holder = world.serving_with(&first, options()).await;
    let producer = world.producer().await;
    let call = tokio::spawn(producer.actor("desk").call(work("w", Labour::Gate)));
    eventually("it runs", async || !first.of("ran w").is_empty()).await;
    let other = world.serving_with(&second, options()).await;
    let began = Instant::now();
    holder.stop().await;
    call.await.unwrap().unwrap();
    assert!(began.elapsed() < ms(4_000), "it took {:?}", began.elapsed());
    assert_eq!(other.lines("desk").await, ["w begun", "w done 2"]);
    producer.stop().await;
    other.stop().await;
}

async fn g06_no_number_of_stopped_nodes_makes_a_dead_letter(world: World) {
    let producer = world.producer().await;
    let desk = producer.actor("desk").timeout(Duration::from_secs(60));
    let call = tokio::spawn(desk.call(work("w", Labour::Take { ms: 600_000 })));
    // One more than the attempts that a message has.
    for attempt in 1..=4 {
        let probe = Probe::new();
        let options = World::options().attempts(3);
        let holder = world.serving_with(&probe, options).await;
        let runs = [attempt.to_string()];
        eventually("it runs", async || probe.of("ran w ") == runs).await;
        holder.stop().await;
    }
    desk.kill().await.unwrap();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Killed, "{error}");
    producer.stop().await;
}

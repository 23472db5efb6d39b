//! G4: no wake-up is lost. The polls that back watches are ten seconds apart, so that a call that
//! takes two seconds has lost one.

use crate::support::{Add, AddBoth, NodeExt, Probe, World, eventually, ms, pause};
use futures_util::future::join_all;
use std::time::{Duration, Instant};

on_each_store!(
    g04_each_push_from_a_node_that_serves_nothing_is_answered_promptly,
    g04_pushes_at_any_moment_of_an_instances_rest_are_seen,
    g04_pushes_to_many_instances_are_all_seen,
    g04_sends_between_instances_are_seen,
);

const PROMPT: Duration = Duration::from_secs(3);

async fn g04_each_push_from_a_node_that_serves_nothing_is_answered_promptly(world: World) {
    let (serving, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    for number in 1..=40 {
        let began = Instant::now();
        let sum = producer.actor("till").call(Add { n: 1 }).await.unwrap();
        assert_eq!(sum, number);
        assert!(
            began.elapsed() < PROMPT,
            "call {number} took {:?}",
            began.elapsed()
        );
    }
    producer.stop().await;
    serving.stop().await;
}

async fn g04_pushes_at_any_moment_of_an_instances_rest_are_seen(world: World) {
    let (serving, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    // Around the moment at which the turn has found nothing more and the watch is armed.
    let callers = (0..4).map(|caller| {
        let till = producer.actor(&format!("till {}", caller % 2));
        async move {
            for time in 0..15_u64 {
                pause(ms((caller * 7 + time * 3) % 19)).await;
                let began = Instant::now();
                till.call(Add { n: 1 }).await.unwrap();
                assert!(
                    began.elapsed() < PROMPT,
                    "a call took {:?}",
                    began.elapsed()
                );
            }
        }
    });
    join_all(callers).await;
    assert_eq!(
        serving.sum("till 0").await + serving.sum("till 1").await,
        60
    );
    producer.stop().await;
    serving.stop().await;
}

async fn g04_pushes_to_many_instances_are_all_seen(world: World) {
    const INSTANCES: u64 = 150;
    let options = World::options().concurrency(8).cached(16);
    let serving = world.serving_with(&Probe::new(), options).await;
    let producer = world.producer().await;
    let calls = (0..INSTANCES).map(|number| {
        let till = producer.actor(&format!("till {number}"));
        async move {
            till.cast(Add { n: 1 }).await.unwrap();
            till.call(Add { n: 1 }).await.unwrap()
        }
    });
    let began = Instant::now();
    assert!(join_all(calls).await.into_iter().all(|sum| sum == 2));
    assert!(
        began.elapsed() < 3 * PROMPT,
        "it took {:?}",
        began.elapsed()
    );
    producer.stop().await;
    serving.stop().await;
}

async fn g04_sends_between_instances_are_seen(world: World) {
    let (serving, other) = (
        world.serving(&Probe::new()).await,
        world.serving(&Probe::new()).await,
    );
    let began = Instant::now();
    for number in 1..=20 {
        let node = if number % 2 == 0 { &serving } else { &other };
        let both = AddBoth {
            n: 1,
            other: "ledger".into(),
        };
        node.actor("till").call(both).await.unwrap();
        // A query sees what stands in the mailbox as little as it must.
        eventually("the send arrives", async || {
            serving.sum("ledger").await == number
        })
        .await;
    }
    assert!(
        began.elapsed() < 3 * PROMPT,
        "it took {:?}",
        began.elapsed()
    );
    serving.stop().await;
    other.stop().await;
}

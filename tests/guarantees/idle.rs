//! A node with nothing to do does nothing: it commits its heartbeat, and reads next to nothing.

use crate::support::{
    Add, CountingStore, How, NodeExt, Probe, Trouble, World, eventually, ms, pause,
};
use abide::Poison;
use abide::durable::keys::{Key, SessionPart};
use std::sync::Arc;
use std::time::Duration;

on_each_store!(
    an_idle_node_commits_nothing_but_heartbeats,
    parked_instances_cost_nothing,
);

fn is_heartbeat(key: &Key) -> bool {
    matches!(
        key,
        Key::Session {
            part: SessionPart::Heartbeat,
            ..
        }
    )
}

async fn an_idle_node_commits_nothing_but_heartbeats(world: World) {
    let counting = CountingStore::new(world.store().await);
    let store = Arc::new(counting.clone());
    let node = world
        .serving_on(store, &Probe::new(), World::options())
        .await;
    let producer = world.producer().await;
    for number in 0..20 {
        let till = format!("till {number}");
        producer.actor(&till).call(Add { n: 1 }).await.unwrap();
        node.actor(&till).call(Add { n: 1 }).await.unwrap();
    }
    pause(ms(500)).await;
    counting.take();
    counting.take_begun();
    pause(ms(4_000)).await;
    let commits = counting.take();
    let keys = world.keys();
    let written: Vec<Key> = commits
        .iter()
        .flatten()
        .map(|key| keys.decode(key).unwrap())
        .collect();
    assert!(written.iter().all(is_heartbeat), "{written:?}");
    assert!(commits.len() <= 3, "{} heartbeats", commits.len());
    // The slow polls of the shards and of the reply inbox, and the sweeper.
    let begun = counting.take_begun();
    assert!(begun < 120, "{begun} transactions");
    producer.stop().await;
    node.stop().await;
}

async fn parked_instances_cost_nothing(world: World) {
    let counting = CountingStore::new(world.store().await);
    let options = World::options()
        .backoff(Duration::from_secs(60), Duration::from_secs(60))
        .poison(Poison::Block);
    let probe = Probe::new();
    let node = world
        .serving_on(Arc::new(counting.clone()), &probe, options)
        .await;
    let producer = world.producer().await;
    // Backing off, of an unknown name, with a damaged state: each for a reason of its own.
    let trouble = Trouble {
        how: How::Fail,
        times: 99,
        text: "t".into(),
    };
    producer.actor("backing off").cast(trouble).await.unwrap();
    producer
        .actor("unknown")
        .cast(crate::support::Foreign {})
        .await
        .unwrap();
    producer.actor("damaged").call(Add { n: 1 }).await.unwrap();
    let damaged = abide::InstanceId::new("actor", "damaged").unwrap();
    world
        .plant(&world.keys().instance(&damaged).version(), b"damage")
        .await;
    producer.actor("damaged").cast(Add { n: 1 }).await.unwrap();
    producer.actor("half").call(Add { n: 1 }).await.unwrap();
    let half = abide::InstanceId::new("actor", "half").unwrap();
    let half = world.keys().instance(&half).state().begin;
    world
        .plant(&[&half[..], b"\x02sum\0"].concat(), b"damage")
        .await;
    producer.stop().await;
    let producer = world.producer().await;
    producer.actor("half").cast(Add { n: 1 }).await.unwrap();
    eventually("they are parked", async || node.parked().len() >= 3).await;
    pause(ms(500)).await;
    counting.take();
    counting.take_begun();
    pause(ms(2_000)).await;
    let begun = counting.take_begun();
    assert!(begun < 100, "{begun} transactions for {:?}", node.parked());
    let keys = world.keys();
    let written = counting.take();
    let written: Vec<Key> = written
        .iter()
        .flatten()
        .map(|key| keys.decode(key).unwrap())
        .collect();
    assert!(written.iter().all(is_heartbeat), "{written:?}");
    assert_eq!(node.actor("bystander").call(Add { n: 1 }).await.unwrap(), 1);
    producer.stop().await;
    node.stop().await;
}

//! G3: what was acknowledged is durable, whatever becomes of the process that said so.

use crate::support::{Add, Append, NodeExt, Probe, World, ms, pause};
use abide::testing::faults::Outage;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

on_each_store!(
    g03_acknowledged_casts_outlive_a_node_that_vanishes,
    g03_acknowledged_calls_outlive_a_node_that_vanishes,
    g03_a_message_to_a_kind_that_nobody_serves_waits,
);

async fn g03_acknowledged_casts_outlive_a_node_that_vanishes(world: World) {
    let connection = world.connection().await;
    let producer = world.producer_on(Arc::new(connection.clone())).await;
    for number in 0..20 {
        let append = Append {
            text: number.to_string(),
        };
        producer.actor("scroll").cast(append).await.unwrap();
    }
    // No shutdown, and nothing that it does from now on counts: it is dead.
    connection.set_outage(Some(Outage::Refuse));
    drop(producer);
    let node = world.serving(&Probe::new()).await;
    node.actor("scroll").call(Add { n: 0 }).await.unwrap();
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(node.lines("scroll").await, expected);
    node.stop().await;
}

async fn g03_acknowledged_calls_outlive_a_node_that_vanishes(world: World) {
    let mut acknowledged = 0;
    let mut begun = 0;
    for round in 0..3 {
        let (node, connection) = world.serving_mortally(&Probe::new()).await;
        let (told, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let tasks: Vec<_> = (0..6)
            .map(|task| {
                let (till, told, sent) = (node.actor("till"), Arc::clone(&told), Arc::clone(&sent));
                tokio::spawn(async move {
                    loop {
                        sent.fetch_add(1, Ordering::SeqCst);
                        let done = match task % 2 {
                            0 => till.call(Add { n: 1 }).await.map(drop),
                            _ => till.cast(Add { n: 1 }).await,
                        };
                        if done.is_err() {
                            return;
                        }
                        told.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        pause(ms(60 + 20 * round)).await;
        connection.set_outage(Some(Outage::Refuse));
        drop(node);
        for task in tasks {
            // A reference outlives its node, and says that it is gone; it does not hang.
            let ended = tokio::time::timeout(ms(25_000), task).await;
            ended.expect("a call of a dropped node ends").unwrap();
        }
        acknowledged += told.load(Ordering::SeqCst);
        begun += sent.load(Ordering::SeqCst);
        // It may have claimed what was there when it began; others wait until it is known to be dead.
        world.sweep_all().await;
    }
    let node = world.serving(&Probe::new()).await;
    let sum = node.actor("till").call(Add { n: 0 }).await.unwrap();
    assert!(acknowledged > 0);
    assert!(
        (acknowledged..=begun).contains(&sum),
        "{acknowledged} <= {sum} <= {begun}"
    );
    node.stop().await;
}

async fn g03_a_message_to_a_kind_that_nobody_serves_waits(world: World) {
    let producer = world.producer().await;
    producer.actor("till").cast(Add { n: 7 }).await.unwrap();
    let waiting = {
        let actor = producer.actor("till");
        tokio::spawn(async move { actor.call(Add { n: 1 }).await })
    };
    pause(ms(300)).await;
    let node = world.serving(&Probe::new()).await;
    assert_eq!(waiting.await.unwrap().unwrap(), 8);
    assert_eq!(node.sum("till").await, 8);
    node.stop().await;
    producer.stop().await;
}

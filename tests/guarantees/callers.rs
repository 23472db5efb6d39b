//! What callers may rely on when they stop waiting, or when their store goes away for a while.

use crate::support::{Add, NodeExt, Probe, Sleep, World, eventually, ms, pause};
use abide::env::TokioEnv;
use abide::server::CallErrorKind;
use abide::testing::faults::{FaultyStore, Outage};
use std::sync::Arc;
use std::time::Duration;

on_each_store!(
    dropping_a_call_cancels_only_the_waiting,
    a_call_that_timed_out_may_still_apply_and_others_get_their_own_replies,
    calls_and_casts_outlast_an_outage_of_the_store,
    a_node_that_shuts_down_finishes_what_it_accepted,
);

async fn dropping_a_call_cancels_only_the_waiting(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    for (round, from) in [&node, &producer].into_iter().enumerate() {
        let busy = tokio::spawn(from.actor("till").call(Sleep { ms: 800 }));
        pause(ms(50)).await;
        for _ in 0..5 {
            let call = from.actor("till").call(Add { n: 1 });
            assert!(tokio::time::timeout(ms(20), call).await.is_err());
        }
        let cast = from.actor("till").cast(Add { n: 1 });
        // Polled once.
        let _ = tokio::time::timeout(Duration::ZERO, cast).await;
        busy.await.unwrap().unwrap();
        let expected = 6 * (round as u64 + 1);
        eventually("all apply", async || node.sum("till").await == expected).await;
    }
    producer.stop().await;
    node.stop().await;
}

async fn a_call_that_timed_out_may_still_apply_and_others_get_their_own_replies(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    for from in [&node, &producer] {
        let till = from.actor("till");
        let before = from.sum("till").await;
        let busy = tokio::spawn(till.call(Sleep { ms: 800 }));
        pause(ms(50)).await;
        let late = till.clone().timeout(ms(50)).call(Add { n: 1 }).await;
        assert_eq!(late.unwrap_err().kind(), CallErrorKind::TimedOut);
        assert_eq!(till.call(Add { n: 10 }).await.unwrap(), before + 11);
        busy.await.unwrap().unwrap();
    }
    producer.stop().await;
    node.stop().await;
}

async fn calls_and_casts_outlast_an_outage_of_the_store(world: World) {
    for outage in [Outage::Refuse, Outage::Hang] {
        let faulty = async |seed| {
            let env = Arc::new(TokioEnv::current());
            FaultyStore::new(world.store().await, env, seed)
        };
        let (serving, sending) = (faulty(1).await, faulty(2).await);
        let options = World::options();
        let node = world
            .serving_on(Arc::new(serving.clone()), &Probe::new(), options)
            .await;
        let producer = world.producer_on(Arc::new(sending.clone())).await;
        let before = producer.actor("till").call(Add { n: 1 }).await.unwrap();
        for store in [&serving, &sending] {
            store.set_outage(Some(outage));
        }
        let calls = [&node, &producer].map(|from| {
            let till = from.actor("till");
            (
                tokio::spawn(till.call(Add { n: 1 })),
                tokio::spawn(till.cast(Add { n: 1 })),
            )
        });
        pause(ms(700)).await;
        for store in [&serving, &sending] {
            store.set_outage(None);
        }
        for (call, cast) in calls {
            call.await.unwrap().unwrap();
            cast.await.unwrap().unwrap();
        }
        eventually("all apply", async || node.sum("till").await == before + 4).await;
        producer.stop().await;
        node.stop().await;
    }
}

async fn a_node_that_shuts_down_finishes_what_it_accepted(world: World) {
    let node = world.serving(&Probe::new()).await;
    let calls: Vec<_> = (0..20)
        .map(|number| {
            let till = node.actor(&format!("till {}", number % 3));
            tokio::spawn(till.call(Add { n: 1 }))
        })
        .collect();
    pause(ms(5)).await;
    node.stop().await;
    let mut sure = 0;
    let mut maybe = 0;
    for call in calls {
        match call.await.unwrap().map_err(|error| error.kind()) {
            Ok(_) => sure += 1,
            Err(CallErrorKind::OutcomeUnknown) => maybe += 1,
            Err(CallErrorKind::Unavailable) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let node = world.serving(&Probe::new()).await;
    let mut sum = 0;
    for till in ["till 0", "till 1", "till 2"] {
        sum += node.actor(till).call(Add { n: 0 }).await.unwrap();
    }
    assert!(
        (sure..=sure + maybe).contains(&sum),
        "{sure} <= {sum} <= {sure} + {maybe}"
    );
    node.stop().await;
}

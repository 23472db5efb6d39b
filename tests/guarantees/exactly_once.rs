//! G1: a message's change, its reply, its removal and what it sends commit together, once, also when
//! it is not known whether a commit took place.

use crate::support::{Add, AddBoth, NodeExt, Probe, World, eventually, ms};
use abide::env::TokioEnv;
use abide::server::CallErrorKind;
use abide::testing::faults::{Faults, FaultyStore};
use std::sync::Arc;

on_each_store!(
    g01_each_message_counts_once_though_outcomes_are_unknown,
    g01_each_message_counts_once_though_two_nodes_compete_with_unknown_outcomes,
    g01_what_a_message_sends_commits_with_it,
);

/// Every fault of a commit, often. Late commits come soon enough for the test to see them.
fn faults() -> Faults {
    Faults {
        conflict: 0.08,
        too_old_commit: 0.02,
        unknown_applied: 0.1,
        unknown_not_applied: 0.1,
        unknown_late: 0.08,
        late_by: ms(150),
        too_old_read: 0.01,
        ..Faults::none()
    }
}

async fn faulty(world: &World, seed: u64) -> FaultyStore {
    let store = world.store().await;
    FaultyStore::new(store, Arc::new(TokioEnv::current()), seed)
}

async fn g01_each_message_counts_once_though_outcomes_are_unknown(world: World) {
    exactly_once(world, 1).await;
}

async fn g01_each_message_counts_once_though_two_nodes_compete_with_unknown_outcomes(world: World) {
    exactly_once(world, 2).await;
}

async fn exactly_once(world: World, nodes: u64) {
    const TASKS: u64 = 8;
    const TIMES: u64 = 8;
    let mut stores = Vec::new();
    let mut senders = Vec::new();
    for seed in 0..nodes {
        let store = faulty(&world, seed).await;
        stores.push(store.clone());
        senders.push(
            world
                .serving_on(Arc::new(store), &Probe::new(), World::options())
                .await,
        );
    }
    let store = faulty(&world, 77).await;
    stores.push(store.clone());
    senders.push(world.producer_on(Arc::new(store)).await);
    for store in &stores {
        store.set_faults(faults());
    }
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let node = senders[task as usize % senders.len()].clone();
        tasks.push(tokio::spawn(async move {
            let (mut sure, mut maybe) = (0, 0);
            for time in 0..TIMES {
                let message = AddBoth {
                    n: 1,
                    other: "ledger".into(),
                };
                let till = node.actor("till");
                let sent = match time % 2 {
                    0 => till.call(message).await.map(drop),
                    _ => till.cast(message).await,
                };
                match sent.map_err(|error| error.kind()) {
                    Ok(()) => sure += 1,
                    Err(CallErrorKind::OutcomeUnknown) => maybe += 1,
                    Err(CallErrorKind::Unavailable) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            (sure, maybe)
        }));
    }
    let (mut sure, mut maybe) = (0, 0);
    for task in tasks {
        let (more, unknown) = task.await.unwrap();
        sure += more;
        maybe += unknown;
    }
    for store in &stores {
        store.set_faults(Faults::none());
    }
    // What was on its way lands now, or never.
    crate::support::pause(ms(200)).await;
    // Behind everything that was sent.
    let till = senders[0].actor("till").call(Add { n: 0 }).await.unwrap();
    assert!(
        (sure..=sure + maybe).contains(&till),
        "{till}: {sure} and {maybe}"
    );
    assert!(sure >= TASKS * TIMES * 9 / 10, "{sure} and {maybe}");
    eventually("the ledger knows all", async || {
        senders[0].sum("ledger").await >= till
    })
    .await;
    assert_eq!(senders[0].sum("ledger").await, till, "each send once");
    assert_eq!(senders[0].sum("till").await, till, "each message once");
    for node in senders {
        node.stop().await;
    }
}

async fn g01_what_a_message_sends_commits_with_it(world: World) {
    let node = world.serving(&Probe::new()).await;
    for _ in 0..10 {
        let both = AddBoth {
            n: 1,
            other: "ledger".into(),
        };
        node.actor("till").call(both).await.unwrap();
        // The send stands before it in the mailbox, or was handled.
        let ledger = node.actor("ledger").call(Add { n: 0 }).await.unwrap();
        assert_eq!(ledger, node.sum("till").await);
    }
    node.stop().await;
}

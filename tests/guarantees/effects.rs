//! G8: effects run at most once, after the commit and only then, with the committed state.

use crate::support::{Add, NodeExt, Note, Probe, Sleep, Then, World, eventually, ms, pause};
use abide::env::TokioEnv;
use abide::testing::faults::{Faults, FaultyStore};
use std::sync::Arc;

on_each_store!(
    g08_an_effect_runs_once_after_its_commit_on_every_path,
    g08_an_effect_can_halt_the_rest_of_its_batch,
    g08_an_effect_of_a_failed_attempt_never_runs,
    g08_no_effect_runs_twice_though_commits_conflict_and_outcomes_are_unknown,
);

fn note(label: &str, then: Then) -> Note {
    Note {
        label: label.into(),
        then,
    }
}

async fn g08_an_effect_runs_once_after_its_commit_on_every_path(world: World) {
    let probe = Probe::new();
    let (node, producer) = (world.serving(&probe).await, world.producer().await);
    let desk = |from: &abide::Node| from.actor("desk");
    // With a reply the effect has run or is about to.
    desk(&node).call(note("inline", Then::Reply)).await.unwrap();
    desk(&node)
        .priority()
        .call(note("inline priority", Then::Reply))
        .await
        .unwrap();
    desk(&producer)
        .call(note("pushed", Then::Reply))
        .await
        .unwrap();
    desk(&producer)
        .priority()
        .call(note("priority", Then::Reply))
        .await
        .unwrap();
    desk(&node).call(note("stop", Then::Stop)).await.unwrap();
    desk(&producer)
        .call(note("pushed stop", Then::Stop))
        .await
        .unwrap();
    desk(&producer)
        .cast(note("cast", Then::Reply))
        .await
        .unwrap();
    // Else the next message joins its batch, and its effect sees the state after both.
    eventually("the cast was handled", async || {
        probe.of("effect cast").len() == 1
    })
    .await;
    desk(&node).call(note("lock", Then::Lock)).await.unwrap();
    desk(&producer)
        .call(note("pushed lock", Then::Lock))
        .await
        .unwrap();
    eventually("all have run", async || probe.of("effect ").len() == 11).await;
    pause(ms(50)).await;
    let expected = [
        "inline 1",
        "inline priority 2",
        "pushed 3",
        "priority 4",
        "stop 5",
        "pushed stop 6",
        "cast 7",
        "lock 8",
        "lock closed 9",
        "pushed lock 10",
        "pushed lock closed 11",
    ];
    assert_eq!(probe.of("effect "), expected);
    eventually("it was deactivated", async || {
        probe.of("deactivated desk ") == ["Stopped", "Stopped"]
    })
    .await;
    producer.stop().await;
    node.stop().await;
}

async fn g08_an_effect_can_halt_the_rest_of_its_batch(world: World) {
    let probe = Probe::new();
    let (node, producer) = (world.serving(&probe).await, world.producer().await);
    // They come while it is busy, and so are one batch.
    let busy = tokio::spawn(producer.actor("desk").call(Sleep { ms: 150 }));
    pause(ms(60)).await;
    let batch = [
        note("a", Then::Reply),
        note("b", Then::Halt),
        note("c", Then::Reply),
    ];
    producer.actor("desk").cast_all(batch).await.unwrap();
    busy.await.unwrap().unwrap();
    eventually("the batch is handled", async || {
        probe.of("effect b").len() == 1
    })
    .await;
    assert_eq!(
        producer
            .actor("desk")
            .call(note("d", Then::Reply))
            .await
            .unwrap(),
        4
    );
    eventually("the next batch goes on", async || {
        probe.of("effect d").len() == 1
    })
    .await;
    assert_eq!(probe.of("effect "), ["a 3", "b 3", "d 4"]);
    producer.stop().await;
    node.stop().await;
}

async fn g08_an_effect_of_a_failed_attempt_never_runs(world: World) {
    let probe = Probe::new();
    let (node, producer) = (world.serving(&probe).await, world.producer().await);
    for from in [&node, &producer] {
        let fails = note("fails", Then::FailFirst { times: 99 });
        from.actor("desk").call(fails).await.unwrap_err();
        let recovers = note("recovers", Then::FailFirst { times: 2 });
        from.actor("desk").call(recovers).await.unwrap();
    }
    eventually("both have run", async || probe.of("effect ").len() == 2).await;
    pause(ms(50)).await;
    assert_eq!(probe.of("effect "), ["recovers 1", "recovers 2"]);
    producer.stop().await;
    node.stop().await;
}

async fn g08_no_effect_runs_twice_though_commits_conflict_and_outcomes_are_unknown(world: World) {
    const TIMES: u64 = 40;
    let probe = Probe::new();
    let store = FaultyStore::new(world.store().await, Arc::new(TokioEnv::current()), 5);
    let node = world
        .serving_on(Arc::new(store.clone()), &probe, World::options())
        .await;
    store.set_faults(Faults {
        conflict: 0.15,
        unknown_applied: 0.1,
        unknown_not_applied: 0.1,
        ..Faults::none()
    });
    let mut told = 0;
    for number in 0..TIMES {
        let label = format!("{number:02}");
        let answer = node.actor("desk").call(note(&label, Then::Reply)).await;
        told += u64::from(answer.is_ok());
    }
    store.set_faults(Faults::none());
    let sum = node.actor("desk").call(Add { n: 0 }).await.unwrap();
    assert!(
        (told..=TIMES).contains(&sum) && told > TIMES / 2,
        "{told} <= {sum}"
    );
    let mut effects = probe.of("effect ");
    let count = effects.len() as u64;
    assert!((told..=sum).contains(&count), "{told} <= {count} <= {sum}");
    effects.sort();
    effects.dedup_by_key(|effect| effect[..2].to_owned());
    assert_eq!(effects.len() as u64, count, "none ran twice");
    node.stop().await;
}

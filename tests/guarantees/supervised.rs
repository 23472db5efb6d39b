//! A panic of abide's own code is a mistake, which no test can do without having planted it. It must
//! not be silent, and nobody must wait for ever for what the task that is gone should have done.

use crate::support::{
    Add, Labour, NodeExt, PanickingStore, Probe, Step, Work, World, eventually, ms,
};
use abide::server::CallErrorKind;
use abide::{InstanceId, Node};
use std::sync::Arc;
use std::time::{Duration, Instant};

on_each_store!(
    a_reader_of_replies_that_panics_is_reported_and_goes_on,
    a_push_stream_that_panics_is_reported_and_the_next_push_goes_through,
    a_run_under_the_lock_that_abide_makes_panic_is_reported_and_tried_again,
);

/// What the node says of itself.
async fn failed(node: &Node) -> String {
    let failed = tokio::time::timeout(Duration::from_secs(5), node.failed());
    let failed = failed.await.expect("the node says nothing");
    assert_eq!(node.failure().as_ref(), Some(&failed));
    failed
}

async fn a_reader_of_replies_that_panics_is_reported_and_goes_on(world: World) {
    let node = world.serving(&Probe::new()).await;
    let store = PanickingStore::new(world.store().await);
    let producer = world.producer_on(Arc::new(store.clone())).await;
    let sessions = world.keys().sessions();
    store.panic_once(move |step| match step {
        Step::Range(range) => sessions.begin < range.begin && range.begin < sessions.end,
        Step::Stamped => false,
    });
    assert_eq!(producer.actor("one").call(Add { n: 1 }).await.unwrap(), 1);
    assert!(store.has_panicked(), "the reply was never looked for");
    let what = failed(&producer).await;
    assert!(
        what.contains("the reader of the replies panicked"),
        "{what}"
    );
    assert_eq!(producer.actor("one").call(Add { n: 1 }).await.unwrap(), 2);
    assert!(producer.shutdown(Duration::from_secs(5)).await);
    node.stop().await;
}

async fn a_push_stream_that_panics_is_reported_and_the_next_push_goes_through(world: World) {
    let node = world.serving(&Probe::new()).await;
    let store = PanickingStore::new(world.store().await);
    let producer = world.producer_on(Arc::new(store.clone())).await;
    store.panic_once(|step| matches!(step, Step::Stamped));
    let error = producer.actor("one").cast(Add { n: 1 }).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::OutcomeUnknown);
    let what = failed(&producer).await;
    assert!(what.contains("the push stream"), "{what}");
    assert_eq!(producer.actor("one").call(Add { n: 1 }).await.unwrap(), 1);
    assert!(producer.shutdown(Duration::from_secs(5)).await);
    node.stop().await;
}

/// The lock was given up by another node, so that whoever takes it over has to load the state for the
/// run, outside of any turn.
async fn a_run_under_the_lock_that_abide_makes_panic_is_reported_and_tried_again(world: World) {
    let producer = world.producer().await;
    let probe = Probe::new();
    let first = world.serving(&probe).await;
    let work = Work {
        name: "job".into(),
        how: Labour::Gate,
    };
    let working = tokio::spawn(producer.actor("desk").call(work));
    eventually("it runs", async || !probe.of("ran job").is_empty()).await;
    first.stop().await;

    let store = PanickingStore::new(world.store().await);
    let desk = InstanceId::new("actor", "desk").unwrap();
    let state = world.keys().instance(&desk).state();
    store.panic_once(move |step| match step {
        Step::Range(range) => state.begin <= range.begin && range.begin < state.end,
        Step::Stamped => false,
    });
    let probe = Probe::new();
    let second = world
        .serving_on(Arc::new(store.clone()), &probe, World::options())
        .await;
    let what = failed(&second).await;
    assert!(what.contains("the run under the lock of"), "{what}");
    assert_eq!(working.await.unwrap().unwrap(), 0);
    let lines = producer.lines("desk").await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "job begun");
    // The run that it was, once more, and nothing else counted.
    assert_eq!(probe.of("ran job").len(), 1);
    let began = Instant::now();
    assert!(second.shutdown(Duration::from_secs(10)).await);
    assert!(began.elapsed() < ms(5_000), "{:?}", began.elapsed());
    producer.stop().await;
}

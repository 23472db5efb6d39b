//! Lazy maps behind real nodes: what is read, and when; undone with their message; the same to every
//! node; under locks; and exchanged for plain maps from one version of a server to the next.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "also the helpers of a test fail by panicking, and their time is the real one"
)]

mod counted;
mod locks;
mod names;
mod nodes;
mod reads;
mod shelf;
mod states;
mod unfit;

use abide::store::{MemoryStore, Store};
use abide::{KindOptions, Node};
use shelf::Keeper;
use states::Shelf;
use std::sync::Arc;
use std::time::Duration;

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// Quick to give up, so that the tests are short.
fn options() -> KindOptions {
    KindOptions::default()
        .attempts(2)
        .backoff(Duration::from_millis(20), Duration::from_millis(40))
        .lease(Duration::from_millis(900))
}

async fn serving<S: Shelf>(store: &Arc<dyn Store>, keeper: Keeper<S>) -> Node {
    Node::builder_on(Arc::clone(store))
        .serve_with(keeper, options())
        .start()
        .await
        .unwrap()
}

async fn stop(node: Node) {
    assert!(node.shutdown(Duration::from_secs(10)).await);
}

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
use abide::{KindOptions, Node, NodeBuilder};
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
    Place::of(store).serving(keeper).await
}

/// Where nodes meet.
#[derive(Debug, Clone)]
struct Place {
    store: Arc<dyn Store>,
    namespace: String,
}

impl Place {
    /// A store that nobody else has.
    fn of(store: &Arc<dyn Store>) -> Self {
        Self {
            store: Arc::clone(store),
            namespace: "lazy".to_owned(),
        }
    }

    /// The cluster is shared, with earlier runs too.
    #[cfg(feature = "fdb")]
    async fn fdb(test: &str) -> Option<Self> {
        let url = abide::testing::fdb::TestCluster::get()?.url();
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        Some(Self {
            store: abide::store::open(&url).await.unwrap(),
            namespace: format!("{test}/{}/{}", since.as_nanos(), std::process::id()),
        })
    }

    fn node(&self) -> NodeBuilder {
        Node::builder_on(Arc::clone(&self.store)).namespace(&self.namespace)
    }

    async fn serving<S: Shelf>(&self, keeper: Keeper<S>) -> Node {
        let node = self.node().serve_with(keeper, options());
        node.start().await.unwrap()
    }
}

async fn stop(node: Node) {
    assert!(node.shutdown(Duration::from_secs(10)).await);
}

//! The memory store against the conformance suite.

use abide::env::{BoxFuture, TokioEnv};
use abide::store::MemoryStore;
use abide::testing::conformance::{Fixture, Opened};
use std::sync::Arc;
use std::time::Duration;

struct Memory;

impl Fixture for Memory {
    fn open(&self) -> BoxFuture<'_, Option<Opened>> {
        Box::pin(async { Some(Opened::new(Arc::new(MemoryStore::new()))) })
    }
}

/// Commits share versions, as they do in a FoundationDB cluster.
struct MemoryWithBatches;

impl Fixture for MemoryWithBatches {
    fn open(&self) -> BoxFuture<'_, Option<Opened>> {
        Box::pin(async {
            let env = Arc::new(TokioEnv::current());
            let store = MemoryStore::with_batches(env, Duration::from_millis(1));
            Some(Opened::new(Arc::new(store)))
        })
    }
}

mod single_commits {
    abide::store_conformance!(super::Memory);
}

mod batches {
    abide::store_conformance!(super::MemoryWithBatches);
}

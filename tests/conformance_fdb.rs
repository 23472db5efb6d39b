//! The FoundationDB store against the conformance suite, within one process and across several.

#![cfg(feature = "fdb")]
#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a test")]

use abide::env::BoxFuture;
use abide::store;
use abide::testing::conformance::{Fixture, Opened};
use abide::testing::fdb::TestCluster;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

struct Fdb;

impl Fixture for Fdb {
    fn open(&self) -> BoxFuture<'_, Option<Opened>> {
        Box::pin(async {
            let url = TestCluster::get()?.url();
            let store = store::open(&url).await.expect("a cluster that answers");
            Some(
                Opened::new(store)
                    .with_prefix(unique_prefix())
                    .with_url(url),
            )
        })
    }
}

/// The cluster is shared, with earlier runs too.
fn unique_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock that was set");
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(
        "conformance/{}/{}/{number}/",
        since.as_nanos(),
        std::process::id()
    )
}

mod one_process {
    abide::store_conformance!(super::Fdb);
}

mod many_processes {
    abide::store_conformance_across_processes!(super::Fdb);
}

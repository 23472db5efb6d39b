//! The SQLite store against the conformance suite, within one process and across several.

#![cfg(feature = "sqlite")]
#![allow(clippy::expect_used, reason = "a test")]

use abide::env::BoxFuture;
use abide::store::SqliteStore;
use abide::testing::conformance::{Fixture, Opened};
use std::sync::Arc;

struct Sqlite;

impl Fixture for Sqlite {
    fn open(&self) -> BoxFuture<'_, Option<Opened>> {
        Box::pin(async {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let path = directory.path().join("store.db");
            let path = path.to_str().expect("a path in UTF-8");
            let store = SqliteStore::open(path).await.expect("a new store");
            let url = format!("sqlite:{path}");
            Some(
                Opened::new(Arc::new(store))
                    .with_url(url)
                    .with_guard(directory),
            )
        })
    }
}

mod one_process {
    abide::store_conformance!(super::Sqlite);
}

mod many_processes {
    abide::store_conformance_across_processes!(super::Sqlite);
}

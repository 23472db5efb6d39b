//! What the tests share: a server that can do everything, and a store with nodes on it.

mod actor;
mod counting;
mod panicking;
mod world;

pub(crate) use actor::*;
pub(crate) use counting::CountingStore;
pub(crate) use panicking::{PanickingStore, Step};
pub(crate) use world::{NodeExt, World};

use std::future::Future;
use std::time::Duration;

/// Instantiates tests, functions of a [`World`], on every store.
macro_rules! on_each_store {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let world = crate::support::World::memory(stringify!($test));
                    crate::support::within_a_minute(super::$test(world)).await;
                }
            )*
        }

        #[cfg(feature = "sqlite")]
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let world = crate::support::World::sqlite(stringify!($test));
                    crate::support::within_a_minute(super::$test(world)).await;
                }
            )*
        }

        #[cfg(feature = "fdb")]
        mod fdb {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    // It has said so where there is no cluster.
                    let Some(world) = crate::support::World::fdb(stringify!($test)) else {
                        return;
                    };
                    crate::support::within_a_minute(super::$test(world)).await;
                }
            )*
        }
    };
}

/// A test that hangs fails.
pub(crate) async fn within_a_minute(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(60), Box::pin(test))
        .await
        .expect("the test hangs");
}

pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Waits until something holds, for ten seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        pause(ms(10)).await;
    }
    panic!("not within ten seconds: {what}");
}

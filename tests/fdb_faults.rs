//! FoundationDB under faults: unknown outcomes, killed servers, a locked database, process exit.
//!
//! Needs a cluster; see `abide::testing::fdb::TestCluster`.
#![cfg(feature = "fdb")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "the helpers of tests fail and speak as tests do"
)]

mod fdb_support;

use abide::env::{BoxFuture, Env, TokioEnv};
use abide::store::{
    Database, FdbStore, Isolation, KeyRange, OnUnknown, RetryPolicy, Store, StoreError,
    StoreErrorKind, TransactionExt, Tx,
};
use abide::testing::fdb::{Engine, TestCluster};
use fdb_support::{child, fresh, is_child, key, open, set, succeeds, within};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where a child finds the keys of its parent.
const PREFIX: &str = "ABIDE_TEST_PREFIX";

/// The same test in a process of its own, on the same cluster.
fn child_on(test: &str, cluster: &TestCluster) -> Command {
    let mut command = child(test);
    command.env("ABIDE_FDB_CLUSTER_FILE", cluster.cluster_file());
    command
}

/// Adds one to a counter, `rounds` times each in several lanes, exactly once each although
/// outcomes get lost: each attempt reads the lane's marker and writes its number there. Returns how
/// many attempts came after an unknown outcome.
async fn count_exactly(store: FdbStore, range: &KeyRange, lanes: u8, rounds: u32) -> u64 {
    let env: Arc<dyn Env> = Arc::new(TokioEnv::current());
    let database = Database::new(Arc::new(store), Arc::clone(&env));
    let unknown = Arc::new(AtomicU64::new(0));
    let lanes: Vec<_> = (0..lanes)
        .map(|lane| {
            let marker = key(range, [b'm', lane]);
            let counter = key(range, "n");
            let (database, unknown) = (database.clone(), Arc::clone(&unknown));
            async move {
                for number in 0..rounds {
                    count_once(&database, &marker, &counter, number, &unknown).await;
                }
            }
        })
        .collect();
    futures_util::future::join_all(lanes).await;
    unknown.load(Ordering::Relaxed)
}

async fn count_once(
    database: &Database,
    marker: &[u8],
    counter: &[u8],
    number: u32,
    unknown: &Arc<AtomicU64>,
) {
    let policy = RetryPolicy {
        on_unknown: OnUnknown::Retry,
        give_up_after: Duration::from_secs(120),
        ..RetryPolicy::default()
    };
    let done = database.run_with(policy, |attempt| {
        let (marker, counter) = (marker.to_vec(), counter.to_vec());
        let unknown = Arc::clone(unknown);
        let body: BoxFuture<'static, Result<(), StoreError>> = Box::pin(async move {
            let tx: &Tx = attempt.tx();
            let last = tx.get(&marker, Isolation::Serializable).await?;
            if attempt.after_unknown() {
                unknown.fetch_add(1, Ordering::Relaxed);
                if last.as_deref() == Some(number.to_be_bytes().as_slice()) {
                    return Ok(());
                }
            }
            tx.set(&marker, &number.to_be_bytes());
            tx.add_i64(&counter, 1);
            Ok(())
        });
        body
    });
    done.await.unwrap();
}

/// What the counter says, through a client that may inject faults.
async fn counted(store: &FdbStore, range: &KeyRange) -> i64 {
    let env: Arc<dyn Env> = Arc::new(TokioEnv::current());
    let database = Database::new(Arc::new(store.clone()), env);
    let counter = key(range, "n");
    let read = database.run(|attempt| {
        let read = attempt.tx().read_i64(&counter, Isolation::Snapshot);
        let body: BoxFuture<'static, Result<i64, StoreError>> = Box::pin(read);
        body
    });
    read.await.unwrap().value
}

#[tokio::test]
async fn markers_keep_a_count_exact_while_the_client_injects_faults() {
    let Some(cluster) = TestCluster::get() else {
        return;
    };
    if !is_child() {
        let range = fresh("buggify");
        let test = "markers_keep_a_count_exact_while_the_client_injects_faults";
        let option = |name| format!("FDB_NETWORK_OPTION_CLIENT_BUGGIFY_{name}");
        succeeds(
            child_on(test, cluster)
                .env(PREFIX, std::str::from_utf8(&range.begin).unwrap())
                .env(option("ENABLE"), "")
                .env(option("SECTION_ACTIVATED_PROBABILITY"), "100")
                .env(option("SECTION_FIRED_PROBABILITY"), "20"),
        );
        assert_eq!(counted(&open(cluster).await, &range).await, 4 * 50);
        return;
    }
    let range = KeyRange::prefix(std::env::var(PREFIX).unwrap().as_bytes());
    let unknown = count_exactly(open(cluster).await, &range, 4, 50).await;
    assert!(unknown > 0, "no outcome was unknown");
}

#[tokio::test]
async fn a_cluster_that_is_killed_and_restarted_loses_and_doubles_nothing() {
    if TestCluster::get().is_none() {
        return;
    }
    let cluster = TestCluster::start(Engine::Ssd).unwrap();
    let store = open(&cluster).await;
    let range = fresh("outage");
    let counting = count_exactly(store.clone(), &range, 4, 300);
    let killing = tokio::task::spawn_blocking(move || {
        for _ in 0..3 {
            cluster.kill().unwrap();
            cluster.restart().unwrap();
        }
        cluster
    });
    let (unknown, cluster) = within(180, async { tokio::join!(counting, killing) }).await;
    let cluster = cluster.unwrap();
    println!("{unknown} attempts came after an unknown outcome");
    assert_eq!(counted(&store, &range).await, 4 * 300);

    // A server that is gone: opening says so in time, and a read waits until it is back.
    cluster.kill().unwrap();
    let path = cluster.cluster_file().to_str().unwrap();
    let error = within(10, FdbStore::open(path)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let tx = store.begin().unwrap();
    let counter = key(&range, "n");
    let mut read = Box::pin(tx.read_i64(&counter, Isolation::Snapshot));
    let early = tokio::time::timeout(Duration::from_secs(1), read.as_mut()).await;
    assert!(early.is_err(), "a server that is gone was read");
    let restarting = tokio::task::spawn_blocking(move || cluster.restart().map(|()| cluster));
    let (read, cluster) = within(90, async { tokio::join!(read, restarting) }).await;
    assert_eq!(read.unwrap(), 4 * 300);
    let cluster = cluster.unwrap().unwrap();

    // A lock of the operator: what is there can be opened, and says so.
    let printed = cluster.cli("lock").unwrap();
    assert!(printed.contains("locked"), "{printed}");
    let locked = open(&cluster).await;
    let read = locked.begin().unwrap().read_version().await;
    assert_eq!(read.unwrap_err().kind(), StoreErrorKind::Locked);
}

#[test]
fn a_process_exits_cleanly_with_transactions_under_way() {
    let Some(cluster) = TestCluster::get() else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if !is_child() {
        for _ in 0..20 {
            succeeds(&mut child_on(
                "a_process_exits_cleanly_with_transactions_under_way",
                cluster,
            ));
        }
        return;
    }
    let store = runtime.block_on(open(cluster));
    let range = fresh("exit");
    for lane in 0..64_u8 {
        let (store, key) = (store.clone(), key(&range, [lane]));
        runtime.spawn(async move {
            loop {
                set(&store, &key, b"v").await;
            }
        });
    }
    runtime.block_on(TokioEnv::new(runtime.handle().clone()).sleep(Duration::from_millis(100)));
}

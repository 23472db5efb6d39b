//! What the FoundationDB tests share.

#![allow(dead_code, reason = "each file of tests uses a part")]

use abide::store::{FdbStore, KeyRange, Store};
use abide::testing::fdb::TestCluster;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CHILD: &str = "ABIDE_TEST_CHILD";

/// One test of this file again, alone, in a process of its own.
pub(crate) fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1");
    command
}

pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

pub(crate) fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) async fn open(cluster: &TestCluster) -> FdbStore {
    FdbStore::open(cluster.cluster_file().to_str().unwrap())
        .await
        .unwrap()
}

/// Keys that no other test has, nor another run: the cluster may be shared.
#[allow(clippy::disallowed_methods, reason = "a name that no earlier run had")]
pub(crate) fn fresh(name: &str) -> KeyRange {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (nanos, process) = (since.as_nanos(), std::process::id());
    KeyRange::prefix(format!("abide_tests/{name}/{nanos}/{process}/").as_bytes())
}

pub(crate) fn key(range: &KeyRange, name: impl AsRef<[u8]>) -> Vec<u8> {
    [range.begin.as_ref(), name.as_ref()].concat()
}

pub(crate) async fn set(store: &FdbStore, key: &[u8], value: &[u8]) {
    let tx = store.begin().unwrap();
    tx.set(key, value);
    tx.commit().await.unwrap().unwrap();
}

pub(crate) async fn within<T>(seconds: u64, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), future)
        .await
        .expect("it hangs")
}

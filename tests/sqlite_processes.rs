//! Several processes on one SQLite store, also ones that die.
//!
//! A test that needs other processes runs its own binary again, with itself as the only test and
//! `ABIDE_TEST_STORE` naming the file: then it plays the other process.

#![cfg(feature = "sqlite")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "also the helpers of a test fail by panicking, and their time is the real one"
)]

use abide::env::TokioEnv;
use abide::store::{
    Database, Isolation, KeyRange, SqliteStore, StoreError, TransactionExt, USER_SPACE_END,
};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const STORE: &str = "ABIDE_TEST_STORE";

/// The file to work on, if this process is the other one of a test.
fn role() -> Option<String> {
    std::env::var(STORE).ok()
}

fn other_process(test: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

async fn database(path: &str) -> Database {
    let store = SqliteStore::open(path).await.unwrap();
    Database::new(Arc::new(store), Arc::new(TokioEnv::current()))
}

async fn pause(duration: Duration) {
    let pending = std::future::pending::<()>();
    tokio::time::timeout(duration, pending).await.unwrap_err();
}

#[test]
fn processes_that_open_a_new_store_at_once_count_exactly() {
    const NAME: &str = "processes_that_open_a_new_store_at_once_count_exactly";
    const PROCESSES: i64 = 5;
    const TASKS: i64 = 4;
    const TIMES: i64 = 20;
    if let Some(path) = role() {
        return runtime().block_on(async {
            let db = database(&path).await;
            let tasks: Vec<_> = (0..TASKS)
                .map(|_| {
                    let db = db.clone();
                    async move {
                        for _ in 0..TIMES {
                            count(&db).await;
                        }
                    }
                })
                .collect();
            futures_util::future::join_all(tasks).await;
        });
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let children: Vec<_> = (0..PROCESSES).map(|_| other_process(NAME, &path)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    runtime().block_on(async {
        let db = database(path.to_str().unwrap()).await;
        let tx = db.store().begin().unwrap();
        let total = tx
            .read_i64(b"counter", Isolation::Serializable)
            .await
            .unwrap();
        assert_eq!(total, PROCESSES * TASKS * TIMES);
        // Each commit left a key with its stamp and the count it had reached: the same order.
        let range = KeyRange::new(&b"log/"[..], USER_SPACE_END);
        let log = tx.get_range(range.read()).await.unwrap();
        let counts: Vec<i64> = log
            .iter()
            .map(|row| i64::from_le_bytes(row.value.as_ref().try_into().unwrap()))
            .collect();
        assert_eq!(counts, (1..=total).collect::<Vec<_>>());
    });
}

async fn count(db: &Database) {
    db.run(|attempt| async move {
        let tx = attempt.tx();
        let next = 1 + tx.read_i64(b"counter", Isolation::Serializable).await?;
        tx.set(b"counter", &next.to_le_bytes());
        tx.set_versionstamped_key(b"log/0123456789", 4, &next.to_le_bytes());
        Ok::<_, StoreError>(())
    })
    .await
    .unwrap();
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    const NAME: &str = "a_killed_process_loses_nothing_acknowledged";
    const TASKS: u64 = 8;
    if let Some(path) = role() {
        return runtime().block_on(async {
            let db = database(&path).await;
            let tasks = (0..TASKS).map(|task| {
                let db = db.clone();
                tokio::spawn(async move { acknowledge_for_ever(&db, task).await })
            });
            futures_util::future::join_all(tasks.collect::<Vec<_>>()).await;
        });
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let runtime = runtime();
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..25 {
        let before = acknowledged.clone();
        let mut child = other_process(NAME, &path);
        let output = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .collect::<Vec<String>>()
        });
        // From the middle of making the file to the middle of any group.
        runtime.block_on(pause(Duration::from_micros(
            4_000 + round * 17_300 % 150_000,
        )));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            let mut words = line.split(' ').skip_while(|word| *word != "ack");
            if let (Some(_), Some(task), Some(count)) = (words.next(), words.next(), words.next()) {
                acknowledged.insert(task.parse().unwrap(), count.parse().unwrap());
            }
        }
        runtime.block_on(async {
            let db = database(path.to_str().unwrap()).await;
            for (task, acknowledged) in &mut acknowledged {
                let tx = db.store().begin().unwrap();
                let (key, copy) = (format!("task {task}"), format!("copy {task}"));
                let (value, copy) = (tx.read(key.as_bytes()), tx.read(copy.as_bytes()));
                let (value, copy) = (value.await.unwrap().unwrap(), copy.await.unwrap().unwrap());
                assert_eq!(value, copy, "half a transaction in round {round}");
                let stored = u64::from_le_bytes(value[..8].try_into().unwrap());
                // One more than acknowledged may have been committed, not two.
                let known = (*acknowledged).max(before.get(task).copied().unwrap_or(0));
                assert!(
                    stored == known || stored == known + 1,
                    "round {round}, task {task}: acknowledged {known}, stored {stored}"
                );
                *acknowledged = stored;
            }
        });
    }
    assert_eq!(
        acknowledged.len() as u64,
        TASKS,
        "the other process got nowhere"
    );
    let raw = rusqlite::Connection::open(&path).unwrap();
    let health: String = raw
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(health, "ok");
}

/// Counts up its own keys, and says so after each commit. The values are long enough to let
/// checkpoints happen.
async fn acknowledge_for_ever(db: &Database, task: u64) {
    let (key, copy) = (format!("task {task}"), format!("copy {task}"));
    let tx = db.store().begin().unwrap();
    let value = tx.read(key.as_bytes()).await.unwrap();
    let mut count = value.map_or(0, |value| {
        u64::from_le_bytes(value[..8].try_into().unwrap())
    });
    loop {
        count += 1;
        let mut value = vec![0x5a; 3_000];
        value[..8].copy_from_slice(&count.to_le_bytes());
        let tx = db.store().begin().unwrap();
        tx.set(key.as_bytes(), &value);
        tx.set(copy.as_bytes(), &value);
        tx.commit().await.unwrap();
        let mut out = std::io::stdout().lock();
        // One write, so that the line arrives whole or not at all.
        out.write_all(format!("\nack {task} {count} \n").as_bytes())
            .unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_watch_sees_what_another_process_commits() {
    const NAME: &str = "a_watch_sees_what_another_process_commits";
    const KEYS: u32 = 50;
    if let Some(path) = role() {
        return runtime().block_on(async {
            let db = database(&path).await;
            for key in 0..KEYS {
                let tx = db.store().begin().unwrap();
                tx.set(&key.to_be_bytes(), b"changed");
                tx.commit().await.unwrap();
            }
        });
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    runtime().block_on(async {
        let db = database(path.to_str().unwrap()).await;
        let tx = db.store().begin().unwrap();
        let watches: Vec<_> = (0..KEYS).map(|key| tx.watch(&key.to_be_bytes())).collect();
        let untouched = tx.watch(b"untouched");
        tx.commit().await.unwrap();
        let child = other_process(NAME, &path);
        let all = futures_util::future::join_all(watches);
        for fired in tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .unwrap()
        {
            fired.unwrap();
        }
        assert!(child.wait_with_output().unwrap().status.success());
        tokio::time::timeout(Duration::from_millis(50), untouched)
            .await
            .expect_err("nobody changed this key");
    });
}

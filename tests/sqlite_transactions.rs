//! What is particular to transactions on SQLite: groups, snapshots and their end, watches.

#![cfg(feature = "sqlite")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "also the helpers of a test fail by panicking, and their time is the real one"
)]

use abide::store::{
    Isolation, KeyRange, SqliteStore, Store, StoreErrorKind, TransactionExt, Tx, Version,
};
use rusqlite::Connection;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

struct Fixture {
    store: SqliteStore,
    path: PathBuf,
    _directory: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        Self {
            store: SqliteStore::open(path.to_str().unwrap()).await.unwrap(),
            path,
            _directory: directory,
        }
    }

    fn begin(&self) -> Tx {
        self.store.begin().unwrap()
    }

    async fn set(&self, key: &[u8], value: &[u8]) -> Version {
        let tx = self.begin();
        tx.set(key, value);
        tx.commit().await.unwrap().unwrap().version
    }

    fn raw(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }
}

async fn pause(duration: Duration) {
    let pending = std::future::pending::<()>();
    tokio::time::timeout(duration, pending).await.unwrap_err();
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .expect("it should have happened by now")
}

#[tokio::test]
async fn a_conflict_in_a_group_does_not_hurt_the_others() {
    let fixture = Fixture::new().await;
    fixture.set(b"a", b"0").await;
    let reader = fixture.begin();
    reader.read(b"a").await.unwrap();
    let late_reader = fixture.begin();
    late_reader.read(b"b").await.unwrap();

    // While another connection holds the write lock, the first commit waits for it and the rest
    // gather behind, to be taken as one group.
    let blocker = fixture.raw();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let blocked = fixture.begin();
    blocked.set(b"x", b"1");
    let blocked = blocked.commit();
    pause(Duration::from_millis(50)).await;

    let writer = fixture.begin();
    writer.set(b"a", b"1");
    reader.set(b"a", b"2");
    reader.set(b"only the reader", b"1");
    let blind = fixture.begin();
    blind.set(b"c", b"1");
    late_reader.set(b"d", b"1");
    let commits = [
        writer.commit(),
        reader.commit(),
        blind.commit(),
        late_reader.commit(),
    ];
    blocker.execute_batch("ROLLBACK").unwrap();

    let first = blocked.await.unwrap().unwrap().version.0;
    let [writer, reader, blind, late_reader] = commits.map(soon);
    assert_eq!(writer.await.unwrap().unwrap().version, Version(first + 1));
    assert_eq!(reader.await.unwrap_err().kind(), StoreErrorKind::Conflict);
    assert_eq!(blind.await.unwrap().unwrap().version, Version(first + 2));
    assert_eq!(
        late_reader.await.unwrap().unwrap().version,
        Version(first + 3)
    );
    let tx = fixture.begin();
    assert_eq!(tx.read(b"a").await.unwrap().unwrap(), "1");
    assert_eq!(tx.read(b"only the reader").await.unwrap(), None);
    assert_eq!(tx.read_version().await.unwrap(), Version(first + 3));
}

#[tokio::test]
async fn a_write_lock_that_never_comes_free_is_unavailable_and_applies_nothing() {
    let fixture = Fixture::new().await;
    let blocker = fixture.raw();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let commits: Vec<_> = (0..3_u8)
        .map(|number| {
            let tx = fixture.begin();
            tx.set(&[number], b"v");
            tx.commit()
        })
        .collect();
    for commit in commits {
        let error = tokio::time::timeout(Duration::from_secs(20), commit)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    }
    blocker.execute_batch("ROLLBACK").unwrap();
    let all = KeyRange::prefix(b"");
    assert!(
        fixture
            .begin()
            .is_empty(&all, Isolation::Snapshot)
            .await
            .unwrap()
    );
    fixture.set(b"and then", b"it works again").await;
}

#[tokio::test]
async fn a_forgotten_transaction_does_not_hold_the_log() {
    let fixture = Fixture::new().await;
    fixture.set(b"key", b"1").await;
    let forgotten = fixture.begin();
    forgotten.read(b"key").await.unwrap();
    fixture.set(b"key", b"2").await;

    let raw = fixture.raw();
    let is_held = || -> bool {
        raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0))
            .unwrap()
    };
    raw.busy_timeout(Duration::ZERO).unwrap();
    assert!(is_held(), "the snapshot is of before the second commit");
    pause(Duration::from_millis(5_300)).await;
    assert!(!is_held(), "the snapshot should be gone");

    let error = forgotten.read(b"key").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooOld);
    forgotten.set(b"other", b"1");
    let error = forgotten.commit().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooOld);
}

#[tokio::test]
async fn more_transactions_than_connections_take_turns() {
    let fixture = Fixture::new().await;
    fixture.set(b"key", b"1").await;
    let holding: Vec<_> = (0..256).map(|_| fixture.begin()).collect();
    for tx in &holding {
        tx.read(b"key").await.unwrap();
    }
    let waiting = fixture.begin();
    let mut read = waiting.get(b"key", Isolation::Serializable);
    tokio::time::timeout(Duration::from_millis(100), &mut read)
        .await
        .expect_err("all connections are taken");
    drop(holding);
    assert_eq!(soon(read).await.unwrap().unwrap(), "1");
}

#[tokio::test]
async fn a_conflict_is_about_content() {
    let fixture = Fixture::new().await;
    fixture.set(b"key", b"1").await;
    let tx = fixture.begin();
    tx.read(b"key").await.unwrap();
    fixture.set(b"key", b"2").await;
    fixture.set(b"key", b"1").await;
    tx.set(b"result", b"of 1");
    tx.commit().await.expect("it would read the same now");
}

#[tokio::test]
async fn an_explicit_conflict_holds_from_the_read_version_on() {
    let fixture = Fixture::new().await;
    for conflict_first in [true, false] {
        for range in [KeyRange::single(b"key"), KeyRange::prefix(b"k")] {
            let tx = fixture.begin();
            if conflict_first {
                tx.add_read_conflict(&range);
                tx.read_version().await.unwrap();
            } else {
                tx.read_version().await.unwrap();
                tx.add_read_conflict(&range);
            }
            let version = fixture
                .set(b"key", &[u8::from(conflict_first), range.end.len() as u8])
                .await;
            tx.set(b"result", &version.0.to_be_bytes());
            let error = tx.commit().await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Conflict);
        }
    }
}

#[tokio::test]
async fn a_set_read_version_holds_for_conflicts_without_reads() {
    let fixture = Fixture::new().await;
    let version = fixture.set(b"key", b"1").await;
    let chained = |version| {
        let tx = fixture.begin();
        tx.set_read_version(version);
        tx.add_read_conflict_key(b"key");
        tx.set(b"next", b"1");
        tx.commit()
    };
    let next = chained(version).await.unwrap().unwrap().version;
    assert_eq!(next, Version(version.0 + 1));
    assert_eq!(
        chained(version).await.unwrap_err().kind(),
        StoreErrorKind::TooOld
    );
    let tx = fixture.begin();
    tx.set_read_version(version);
    assert_eq!(
        tx.read(b"key").await.unwrap_err().kind(),
        StoreErrorKind::TooOld
    );
}

#[tokio::test]
async fn a_range_read_sees_the_writes_before_it_only() {
    let fixture = Fixture::new().await;
    fixture.set(b"k1", b"stored").await;
    let tx = fixture.begin();
    tx.set(b"k2", b"before");
    let read = tx.get_range(KeyRange::prefix(b"k").read());
    tx.set(b"k3", b"after");
    let keys: Vec<_> = read.await.unwrap().into_iter().map(|row| row.key).collect();
    assert_eq!(keys, ["k1", "k2"]);
}

#[tokio::test]
async fn a_read_outlives_its_transaction() {
    let fixture = Fixture::new().await;
    fixture.set(b"key", b"1").await;
    let read = fixture.begin().read(b"key");
    assert_eq!(soon(read).await.unwrap().unwrap(), "1");
}

#[tokio::test]
async fn ten_thousand_watches_fire_for_their_own_key_only() {
    let fixture = Fixture::new().await;
    let mut watches = Vec::new();
    for key in 0..10_000_u32 {
        let tx = fixture.begin();
        watches.push(tx.watch(&key.to_be_bytes()));
        tx.commit().await.unwrap();
    }
    let last = watches.pop().unwrap();
    fixture.set(&9_998_u32.to_be_bytes(), b"changed").await;
    soon(watches.pop().unwrap()).await.unwrap();
    drop(watches);
    fixture.set(&9_999_u32.to_be_bytes(), b"changed").await;
    soon(last).await.unwrap();
}

#[tokio::test]
async fn a_change_between_snapshot_and_arming_fires() {
    let fixture = Fixture::new().await;
    let tx = fixture.begin();
    let watch = tx.watch(b"key");
    tx.read_version().await.unwrap();
    fixture.set(b"key", b"1").await;
    tx.commit().await.unwrap();
    soon(watch).await.unwrap();
}

#[tokio::test]
async fn a_watch_is_not_fired_by_its_own_transaction() {
    let fixture = Fixture::new().await;
    for watch_first in [true, false] {
        let tx = fixture.begin();
        let early = watch_first.then(|| tx.watch(b"key"));
        tx.set(b"key", if watch_first { b"1" } else { b"2" });
        let mut watch = early.unwrap_or_else(|| tx.watch(b"key"));
        tx.commit().await.unwrap();
        tokio::time::timeout(Duration::from_millis(50), &mut watch)
            .await
            .expect_err("nothing changed since");
        fixture.set(b"key", b"other").await;
        soon(watch).await.unwrap();
    }
}

#[tokio::test]
async fn a_watch_fails_with_its_transaction_and_with_the_store() {
    let fixture = Fixture::new().await;
    let tx = fixture.begin();
    let dropped = tx.watch(b"key");
    drop(tx);
    soon(dropped).await.unwrap_err();

    let tx = fixture.begin();
    tx.set(&[0xff], b"not a user's key");
    let failed = tx.watch(b"key");
    tx.commit().await.unwrap_err();
    assert_eq!(
        soon(failed).await.unwrap_err().kind(),
        StoreErrorKind::InvalidCall
    );

    drop(tx);
    let tx = fixture.begin();
    let orphan = tx.watch(b"key");
    tx.commit().await.unwrap();
    // The directory stays: the poller may be about to open the file.
    let Fixture {
        store, _directory, ..
    } = fixture;
    drop((tx, store));
    assert_eq!(
        soon(orphan).await.unwrap_err().kind(),
        StoreErrorKind::Unavailable
    );
}

#[tokio::test]
async fn a_commit_is_made_although_everyone_has_gone() {
    let fixture = Fixture::new().await;
    let Fixture {
        store,
        path,
        _directory,
    } = fixture;
    let tx = store.begin().unwrap();
    tx.read(b"other").await.unwrap();
    tx.set(b"key", b"1");
    drop((tx.commit(), tx, store));
    let again = SqliteStore::open(path.to_str().unwrap()).await.unwrap();
    for _ in 0..100 {
        if again.begin().unwrap().read(b"key").await.unwrap().is_some() {
            return;
        }
        pause(Duration::from_millis(20)).await;
    }
    panic!("a commit that was issued should arrive");
}

#[tokio::test]
async fn the_log_stays_bounded_although_some_reader_is_always_there() {
    const WRITTEN: usize = 400;
    let fixture = Fixture::new().await;
    let log = fixture.path.with_file_name("store.db-wal");
    let mut overlapping = fixture.begin();
    overlapping.read_version().await.unwrap();
    for round in 0..WRITTEN {
        let tx = fixture.begin();
        for key in 0..10_u8 {
            tx.set(&[key], &vec![round as u8; 100_000]);
        }
        tx.commit().await.unwrap();
        // The next snapshot begins before the last one ends. That it waits for a commit meanwhile
        // is as bad as can be: the commit waits for the log, which waits for the snapshot.
        let next = fixture.begin();
        next.read_version().await.unwrap();
        overlapping = next;
    }
    let megabytes = std::fs::metadata(log).unwrap().len() / 1_000_000;
    assert!(
        megabytes < 200,
        "{megabytes} MB of log after {WRITTEN} MB of writes"
    );
    drop(overlapping);
}

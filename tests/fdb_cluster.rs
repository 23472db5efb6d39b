//! What FoundationDB does beyond the conformance suite.
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

use abide::env::{Env, TokioEnv};
use abide::store::{
    FdbStore, Isolation, KeyRange, MAX_KEY_BYTES, MAX_VALUE_BYTES, Store, StoreErrorKind,
    TransactionExt, Version,
};
use abide::testing::fdb::TestCluster;
use fdb_support::{fresh, key, open, set, within};
use std::time::Duration;

#[tokio::test]
async fn what_one_store_commits_another_reads() {
    let Some(cluster) = TestCluster::get() else {
        return;
    };
    let (writer, reader) = (open(cluster).await, open(cluster).await);
    let range = fresh("end_to_end");
    let tx = writer.begin().unwrap();
    let template = [range.begin.as_ref(), b"m", &[0; 10]].concat();
    let offset = range.begin.len() + 1;
    tx.set(&key(&range, "a"), b"1");
    tx.add_i64(&key(&range, "n"), -3);
    tx.set_versionstamped_key(&template, offset, b"first");
    tx.set_versionstamped_value(&key(&range, "s"), &[0; 10], 0);
    let committed = tx.commit().await.unwrap().unwrap();

    let tx = reader.begin().unwrap();
    let rows = tx.get_range(range.read()).await.unwrap();
    let stamp = committed.stamp.as_bytes();
    let expected = [
        (key(&range, "a"), b"1".to_vec()),
        (
            key(&range, [b"m", stamp.as_slice()].concat()),
            b"first".to_vec(),
        ),
        (key(&range, "n"), (-3_i64).to_le_bytes().to_vec()),
        (key(&range, "s"), stamp.to_vec()),
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .map(|row| (row.key.to_vec(), row.value.to_vec()))
        .collect();
    assert_eq!(rows, expected);
    assert!(tx.read_version().await.unwrap() >= committed.version);
    assert_eq!(tx.commit().await.unwrap(), None, "nothing was written");
}

#[tokio::test]
async fn of_two_that_read_and_write_the_same_key_one_conflicts() {
    let Some(cluster) = TestCluster::get() else {
        return;
    };
    let store = open(cluster).await;
    let range = fresh("conflict");
    let key = key(&range, "k");
    let (one, two) = (store.begin().unwrap(), store.begin().unwrap());
    for tx in [&one, &two] {
        tx.get(&key, Isolation::Serializable).await.unwrap();
        tx.set(&key, b"v");
    }
    one.commit().await.unwrap();
    assert_eq!(
        two.commit().await.unwrap_err().kind(),
        StoreErrorKind::Conflict
    );
}

/// A hundred values of 10 kB come in several answers of the client.
#[tokio::test]
async fn a_read_of_many_answers_is_whole_and_conflicts_as_one() {
    let Some(cluster) = TestCluster::get() else {
        return;
    };
    let store = open(cluster).await;
    let range = fresh("pages");
    let name = |n: usize| key(&range, format!("{n:03}"));
    let tx = store.begin().unwrap();
    (0..100).for_each(|n| tx.set(&name(n), &[7; 10_000]));
    tx.commit().await.unwrap();
    let forward: Vec<Vec<u8>> = (0..100).map(name).collect();
    let backward: Vec<Vec<u8>> = forward.iter().rev().cloned().collect();
    // What is read, in which order, and which keys a writer may and may not touch meanwhile.
    let (before, inside, behind) = (name(0), name(50), key(&range, "999"));
    let cases = [
        (
            range.read(),
            &forward[..],
            vec![],
            vec![&before, &inside, &behind],
        ),
        (
            range.read().reverse(),
            &backward[..],
            vec![],
            vec![&before, &inside, &behind],
        ),
        (
            range.read().limit(40),
            &forward[..40],
            vec![&inside, &behind],
            vec![&before],
        ),
        (
            range.read().limit(40).reverse(),
            &backward[..40],
            vec![&before, &inside],
            vec![&behind],
        ),
        (
            range.read().snapshot(),
            &forward[..],
            vec![&before, &inside, &behind],
            vec![],
        ),
    ];
    for (read, expected, free, conflicting) in cases {
        let outcomes = free.into_iter().map(|key| (key, true));
        for (touched, commits) in outcomes.chain(conflicting.into_iter().map(|key| (key, false))) {
            let tx = store.begin().unwrap();
            let rows = tx.get_range(read.clone()).await.unwrap();
            assert!(
                rows.iter()
                    .map(|row| &row.key[..])
                    .eq(expected.iter().map(|key| &key[..]))
            );
            let other = store.begin().unwrap();
            other.set(touched, &[7; 10_000]);
            other.commit().await.unwrap();
            tx.set(&key(&range, "998/own"), b"");
            assert_eq!(tx.commit().await.is_ok(), commits, "{read:?} {touched:?}");
            fresh_tail(&store, &range).await;
        }
    }
}

async fn fresh_tail(store: &FdbStore, range: &KeyRange) {
    let tx = store.begin().unwrap();
    tx.clear_range(&KeyRange::new(key(range, "998"), range.end.clone()));
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn reads_outlive_the_handle_and_watches_do_not() {
    let Some(cluster) = TestCluster::get() else {
        return;
    };
    let store = open(cluster).await;
    let range = fresh("handles");
    let key = key(&range, "k");
    set(&store, &key, b"v").await;
    let tx = store.begin().unwrap();
    let value = tx.get(&key, Isolation::Serializable);
    let rows = tx.get_range(range.read());
    drop(tx);
    assert_eq!(value.await.unwrap().unwrap(), "v");
    assert_eq!(rows.await.unwrap().len(), 1);

    let tx = store.begin().unwrap();
    let watch = tx.watch(&key);
    drop(tx);
    let error = within(5, watch).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn a_commit_waits_for_the_reads_under_way_and_ends_the_transaction() {
    let Some(cluster) = TestCluster::get() else {
        return;
    };
    let store = open(cluster).await;
    let range = fresh("outstanding");
    let key = key(&range, "k");
    set(&store, &key, b"v").await;
    let tx = store.begin().unwrap();
    let value = tx.get(&key, Isolation::Serializable);
    tx.set(&key, b"w");
    tx.commit().await.unwrap().unwrap();
    assert_eq!(value.await.unwrap().unwrap(), "v");
    let errors = [
        tx.get(&key, Isolation::Snapshot).await.unwrap_err(),
        tx.get_range(range.read()).await.unwrap_err(),
        tx.read_version().await.unwrap_err(),
        tx.watch(&key).await.unwrap_err(),
        tx.commit().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::InvalidCall, "{error}");
    }
}

/// A fire takes about a millisecond; half of the slow poll that backs a watch would be seconds.
#[tokio::test]
async fn watches_fire_at_once() {
    let Some(cluster) = TestCluster::get() else {
        return;
    };
    let store = open(cluster).await;
    let range = fresh("latency");
    let key = key(&range, "w");
    let env = TokioEnv::current();
    let mut waits = Vec::new();
    for round in 0..200_u32 {
        let tx = store.begin().unwrap();
        let watch = tx.watch(&key);
        tx.commit().await.unwrap();
        set(&store, &key, &round.to_be_bytes()).await;
        let committed = env.now();
        within(5, watch).await.unwrap();
        waits.push(env.now() - committed);
    }
    waits.sort();
    let (middle, high) = (waits[100], waits[197]);
    println!("a watch fired after p50 {middle:?}, p99 {high:?}");
    assert!(middle < Duration::from_millis(100), "{middle:?}");
}

#[tokio::test]
async fn ten_thousand_watches_wait_at_once_and_all_fire() {
    let Some(cluster) = TestCluster::get() else {
        return;
    };
    let store = open(cluster).await;
    let range = fresh("many");
    // One more than FoundationDB's default lets one store have.
    let keys: Vec<Vec<u8>> = (0..10_001)
        .map(|n| key(&range, format!("{n:05}")))
        .collect();
    let mut watches = Vec::new();
    for keys in keys.chunks(1_000) {
        let tx = store.begin().unwrap();
        watches.extend(keys.iter().map(|key| tx.watch(key)));
        tx.commit().await.unwrap();
    }
    for keys in keys.chunks(1_000) {
        let tx = store.begin().unwrap();
        keys.iter().for_each(|key| tx.set(key, b"x"));
        tx.commit().await.unwrap();
    }
    for watch in watches {
        within(30, watch).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_just_at_a_limit_commits() {
    let Some(cluster) = TestCluster::get() else {
        return;
    };
    let store = open(cluster).await;
    let range = fresh("limits");
    let long = key(&range, vec![b'k'; MAX_KEY_BYTES - range.begin.len()]);
    // FoundationDB appends four bytes to a template.
    let template = [&long[..MAX_KEY_BYTES - 14], &[0; 10]].concat();
    let tx = store.begin().unwrap();
    tx.add_read_conflict(&KeyRange::single(&long));
    tx.set(&long, &vec![1; MAX_VALUE_BYTES]);
    tx.set_versionstamped_key(&template, MAX_KEY_BYTES - 14, b"");
    tx.set_versionstamped_value(&key(&range, "s"), &vec![0; MAX_VALUE_BYTES - 4], 0);
    tx.commit().await.unwrap().unwrap();

    let one_more = [
        (
            vec![0; MAX_KEY_BYTES - 3],
            vec![0; 10],
            StoreErrorKind::KeyTooLarge,
        ),
        (
            vec![0; 10],
            vec![0; MAX_VALUE_BYTES - 3],
            StoreErrorKind::ValueTooLarge,
        ),
    ];
    for (key_template, value_template, kind) in one_more {
        let tx = store.begin().unwrap();
        tx.set_versionstamped_key(&key_template, 0, b"");
        tx.set_versionstamped_value(&key(&range, "s"), &value_template, 0);
        assert_eq!(tx.commit().await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn versions_that_the_cluster_cannot_show_are_too_old() {
    let Some(cluster) = TestCluster::get() else {
        return;
    };
    let store = open(cluster).await;
    let range = fresh("versions");
    for version in [0, 1, i64::MAX as u64, u64::MAX] {
        let tx = store.begin().unwrap();
        tx.set_read_version(Version(version));
        let read = within(10, tx.get(&key(&range, "k"), Isolation::Serializable)).await;
        assert_eq!(
            read.unwrap_err().kind(),
            StoreErrorKind::TooOld,
            "{version}"
        );
        tx.set(&key(&range, "k"), b"v");
        let commit = within(10, tx.commit()).await;
        assert_eq!(
            commit.unwrap_err().kind(),
            StoreErrorKind::TooOld,
            "{version}"
        );
    }
}

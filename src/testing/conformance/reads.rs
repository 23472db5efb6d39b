//! What a transaction sees.

use super::harness::{Space, commit, get, pairs, set};
use crate::store::{Isolation, KeyRange, TransactionExt};
use std::sync::Arc;

pub(super) async fn a_missing_key_reads_as_none(space: Space) {
    assert_eq!(get(&space.begin(), &space.key("missing")).await, None);
}

pub(super) async fn a_transaction_reads_its_own_sets(space: Space) {
    space.put(&[("a", "old")]).await;
    let tx = space.begin();
    set(&*tx, &space.key("a"), "new");
    set(&*tx, &space.key("b"), "also new");
    assert_eq!(
        get(&tx, &space.key("a")).await.as_deref(),
        Some(&b"new"[..])
    );
    assert_eq!(
        get(&tx, &space.key("b")).await.as_deref(),
        Some(&b"also new"[..])
    );
    assert_eq!(
        space.value("a").await.as_deref(),
        Some("old"),
        "others see the committed value"
    );
}

pub(super) async fn a_transaction_reads_its_own_clears(space: Space) {
    space.put(&[("a", "1"), ("b", "2")]).await;
    let tx = space.begin();
    tx.clear(&space.key("a"));
    assert_eq!(get(&tx, &space.key("a")).await, None);
    assert_eq!(get(&tx, &space.key("b")).await.as_deref(), Some(&b"2"[..]));
    commit(&tx).await;
    assert_eq!(space.content().await, pairs(&[("b", "2")]));
}

pub(super) async fn a_transaction_reads_its_own_cleared_ranges(space: Space) {
    space
        .put(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")])
        .await;
    let tx = space.begin();
    tx.clear_range(&space.range("b", "d"));
    assert_eq!(get(&tx, &space.key("b")).await, None);
    assert_eq!(get(&tx, &space.key("c")).await, None);
    let seen = space.pairs(&tx, space.everything().read()).await;
    assert_eq!(seen, pairs(&[("a", "1"), ("d", "4")]));
}

pub(super) async fn a_transaction_reads_its_own_additions(space: Space) {
    let key = space.key("n");
    let tx = space.begin();
    tx.add_i64(&key, 40);
    commit(&tx).await;
    let tx = space.begin();
    tx.add_i64(&key, 2);
    assert_eq!(
        tx.read_i64(&key, Isolation::Serializable).await.unwrap(),
        42
    );
    tx.clear(&key);
    tx.add_i64(&key, 7);
    assert_eq!(tx.read_i64(&key, Isolation::Serializable).await.unwrap(), 7);
    commit(&tx).await;
    assert_eq!(
        space
            .begin()
            .read_i64(&key, Isolation::Serializable)
            .await
            .unwrap(),
        7
    );
}

pub(super) async fn a_transaction_reads_its_own_compare_and_clears(space: Space) {
    space.put(&[("a", "x"), ("b", "x")]).await;
    let tx = space.begin();
    tx.compare_and_clear(&space.key("a"), b"x");
    tx.compare_and_clear(&space.key("b"), b"y");
    assert_eq!(get(&tx, &space.key("a")).await, None);
    assert_eq!(get(&tx, &space.key("b")).await.as_deref(), Some(&b"x"[..]));
    let seen = space.pairs(&tx, space.everything().read()).await;
    assert_eq!(seen, pairs(&[("b", "x")]));
}

pub(super) async fn a_set_after_a_clear_is_read(space: Space) {
    space.put(&[("a", "1"), ("b", "2"), ("c", "3")]).await;
    let tx = space.begin();
    tx.clear_range(&space.range("a", "d"));
    set(&*tx, &space.key("b"), "again");
    let seen = space.pairs(&tx, space.everything().read()).await;
    assert_eq!(seen, pairs(&[("b", "again")]));
    commit(&tx).await;
    assert_eq!(space.content().await, pairs(&[("b", "again")]));
}

pub(super) async fn snapshot_reads_see_own_writes(space: Space) {
    space.put(&[("a", "1"), ("b", "2")]).await;
    let tx = space.begin();
    set(&*tx, &space.key("a"), "mine");
    tx.clear(&space.key("b"));
    assert_eq!(
        tx.peek(&space.key("a")).await.unwrap().as_deref(),
        Some(&b"mine"[..])
    );
    let seen = space.pairs(&tx, space.everything().read().snapshot()).await;
    assert_eq!(seen, pairs(&[("a", "mine")]));
}

pub(super) async fn reads_do_not_see_what_is_committed_later(space: Space) {
    space.put(&[("a", "1"), ("b", "1")]).await;
    let tx = space.begin();
    assert_eq!(get(&tx, &space.key("a")).await.as_deref(), Some(&b"1"[..]));
    space.put(&[("a", "2"), ("b", "2"), ("c", "2")]).await;
    assert_eq!(get(&tx, &space.key("b")).await.as_deref(), Some(&b"1"[..]));
    let seen = space.pairs(&tx, space.everything().read()).await;
    assert_eq!(seen, pairs(&[("a", "1"), ("b", "1")]));
}

pub(super) async fn many_reads_of_one_transaction_run_at_once(space: Space) {
    let tx = space.begin();
    for n in 0..200_u8 {
        tx.set(&space.key([n]), &[n]);
    }
    commit(&tx).await;
    let tx = space.begin();
    let reads: Vec<_> = (0..200_u8)
        .map(|n| tx.get(&space.key([n]), Isolation::Serializable))
        .collect();
    // The last first: the order in which they are awaited must not matter.
    for (n, read) in (0..200_u8).zip(reads).rev() {
        assert_eq!(read.await.unwrap().as_deref(), Some(&[n][..]));
    }
}

pub(super) async fn empty_keys_and_values_are_kept(space: Space) {
    let empty = space.key("");
    let tx = space.begin();
    tx.set(&empty, b"");
    assert_eq!(get(&tx, &empty).await.as_deref(), Some(&b""[..]));
    commit(&tx).await;
    assert_eq!(get(&space.begin(), &empty).await.as_deref(), Some(&b""[..]));
    assert_eq!(space.content().await, pairs(&[("", "")]));
    let tx = space.begin();
    tx.clear_range(&KeyRange::single(&empty));
    commit(&tx).await;
    assert_eq!(space.content().await, pairs(&[]));
}

pub(super) async fn an_uncommitted_transaction_leaves_nothing(space: Space) {
    let tx = space.begin();
    get(&tx, &space.key("a")).await;
    set(&*tx, &space.key("a"), "1");
    drop(tx);
    assert_eq!(space.content().await, pairs(&[]));
}

pub(super) async fn a_commit_applies_all_writes_together(space: Space) {
    let writer = {
        let space = space.clone();
        async move {
            for round in 0..50 {
                let value = round.to_string();
                space
                    .put(&[("a", &value), ("m", &value), ("z", &value)])
                    .await;
            }
        }
    };
    let writer = tokio::spawn(writer);
    while !writer.is_finished() {
        let seen = space.content().await;
        if let [(_, a), (_, m), (_, z)] = &seen[..] {
            assert!(a == m && m == z, "half a commit was seen: {seen:?}");
        } else {
            assert!(seen.is_empty(), "half a commit was seen: {seen:?}");
        }
    }
    writer.await.unwrap();
}

pub(super) async fn a_transaction_can_be_spawned(space: Space) {
    let tx = space.begin();
    let (shared, key) = (Arc::clone(&tx), space.key("a"));
    tokio::spawn(async move {
        assert_eq!(get(&shared, &key).await, None);
        set(&*shared, &key, "1");
    })
    .await
    .unwrap();
    commit(&tx).await;
    assert_eq!(space.value("a").await.as_deref(), Some("1"));
}

//! Watches.

#![allow(
    clippy::async_yields_async,
    reason = "a watch is a future that a transaction hands out"
)]

use super::harness::{Space, commit, get, set};
use crate::env::Env;
use crate::store::{CommitStamp, StoreFuture, TransactionExt, Tx};
use futures_util::future::{Either, join_all, select};
use std::time::Duration;

/// How long a watch may take to fire: its poll, with room for a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// How long a watch that must not fire is given to do so all the same.
const A_WHILE: Duration = Duration::from_millis(300);

/// Watches a key in a transaction that only reads.
async fn watch(space: &Space, key: &str) -> StoreFuture<()> {
    let tx = space.begin();
    get(&tx, &space.key(key)).await;
    let watch = tx.watch(&space.key(key));
    assert_eq!(tx.commit().await.unwrap(), None, "a watch is no write");
    watch
}

/// Whether the watch completes within `time`; the watch, if it does not.
async fn fires_within(
    space: &Space,
    watch: StoreFuture<()>,
    time: Duration,
) -> Result<(), StoreFuture<()>> {
    match select(watch, space.env().sleep(time)).await {
        Either::Left((result, _)) => {
            result.expect("a watch that fires");
            Ok(())
        }
        Either::Right(((), watch)) => Err(watch),
    }
}

async fn assert_fires(space: &Space, watch: StoreFuture<()>) {
    assert!(
        fires_within(space, watch, SOON).await.is_ok(),
        "the watch missed a change"
    );
}

/// A watch may fire for nothing now and then, but one that always does is no watch: of several, one
/// must wait. Each is given back with its key still unchanged.
async fn assert_waits<F>(space: &Space, arm: impl Fn(u32) -> F + Send) -> StoreFuture<()>
where
    F: Future<Output = StoreFuture<()>> + Send,
{
    for round in 0..5 {
        let watch = arm(round).await;
        if let Err(waiting) = fires_within(space, watch, A_WHILE).await {
            return waiting;
        }
    }
    panic!("the watch fires although nothing changes");
}

pub(super) async fn a_watch_does_not_fire_before_a_change(space: Space) {
    space.put(&[("a", "1"), ("b", "1")]).await;
    let watch = assert_waits(&space, |_| watch(&space, "a")).await;
    space.put(&[("b", "2")]).await;
    space.put(&[("a", "2")]).await;
    assert_fires(&space, watch).await;
}

pub(super) async fn a_watch_does_not_fire_on_the_transactions_own_write(space: Space) {
    space.put(&[("a", "0")]).await;
    let change_and_watch = |round: u32| {
        let space = &space;
        async move {
            let tx = space.begin();
            set(&*tx, &space.key("a"), &format!("round {round}"));
            let watch = tx.watch(&space.key("a"));
            commit(&tx).await;
            watch
        }
    };
    drop(assert_waits(&space, change_and_watch).await);
}

pub(super) async fn a_watch_of_an_own_write_fires_on_the_next_change(space: Space) {
    let tx = space.begin();
    set(&*tx, &space.key("a"), "mine");
    let watch = tx.watch(&space.key("a"));
    commit(&tx).await;
    space.put(&[("a", "changed")]).await;
    assert_fires(&space, watch).await;
}

pub(super) async fn a_watch_of_an_uncommitted_transaction_ends_with_an_error(space: Space) {
    space.put(&[("a", "1")]).await;
    let dropped: Tx = space.begin();
    let watch = dropped.watch(&space.key("a"));
    drop(dropped);
    let Either::Left((ended, _)) = select(watch, space.env().sleep(SOON)).await else {
        panic!("the watch of a dropped transaction waits for ever");
    };
    ended.expect_err("a watch that was never armed");

    let conflicting = space.begin();
    get(&conflicting, &space.key("a")).await;
    set(&*conflicting, &space.key("b"), "1");
    let watch = conflicting.watch(&space.key("c"));
    space.put(&[("a", "2")]).await;
    conflicting.commit().await.expect_err("a conflict");
    let Either::Left((ended, _)) = select(watch, space.env().sleep(SOON)).await else {
        panic!("the watch of a failed transaction waits for ever");
    };
    ended.expect_err("a watch that was never armed");
}

/// More than a store may have at once, which FoundationDB limits: so a dropped one must be gone.
pub(super) async fn dropped_watches_do_not_disturb_others(space: Space) {
    const ROUNDS: u32 = 220;
    const PER_ROUND: u32 = 500;
    space.put(&[("a", "1")]).await;
    let kept = watch(&space, "a").await;
    for _ in 0..ROUNDS {
        let tx = space.begin();
        let watches: Vec<_> = (0..PER_ROUND)
            .map(|n| tx.watch(&space.key(n.to_be_bytes())))
            .collect();
        tx.commit().await.unwrap();
        drop(watches);
    }
    space.put(&[("a", "2")]).await;
    assert_fires(&space, kept).await;
    let last = watch(&space, "a").await;
    space.put(&[("a", "3")]).await;
    assert_fires(&space, last).await;
}

pub(super) async fn ten_thousand_watches_fire(space: Space) {
    const WATCHES: u32 = 10_000;
    const PER_TRANSACTION: u32 = 500;
    let mut watches = Vec::new();
    for first in (0..WATCHES).step_by(PER_TRANSACTION as usize) {
        let tx = space.begin();
        for n in first..first + PER_TRANSACTION {
            watches.push(tx.watch(&space.key(n.to_be_bytes())));
        }
        tx.commit().await.unwrap();
    }
    for first in (0..WATCHES).step_by(5_000) {
        let tx = space.begin();
        for n in first..first + 5_000 {
            tx.set(&space.key(n.to_be_bytes()), b"changed");
        }
        commit(&tx).await;
    }
    let all = join_all(watches);
    let Either::Left((fired, _)) = select(all, space.env().sleep(SOON * 2)).await else {
        panic!("some watches missed their change");
    };
    for watch in fired {
        watch.expect("a watch that fires");
    }
}

pub(super) async fn a_watch_fires_after_a_later_commit(space: Space) {
    space.put(&[("a", "0")]).await;
    for round in 1..=5 {
        let watch = watch(&space, "a").await;
        space.put(&[("a", &round.to_string())]).await;
        assert_fires(&space, watch).await;
    }
}

pub(super) async fn a_watch_fires_when_its_key_is_cleared(space: Space) {
    space.put(&[("a", "1")]).await;
    let watch = watch(&space, "a").await;
    let tx = space.begin();
    tx.clear_range(&space.range("a", "b"));
    commit(&tx).await;
    assert_fires(&space, watch).await;
}

pub(super) async fn a_watch_fires_when_its_key_is_created(space: Space) {
    let watch = watch(&space, "a").await;
    space.put(&[("a", "created")]).await;
    assert_fires(&space, watch).await;
}

/// The change comes after the look and before the watch is armed: nobody else will ever report it.
pub(super) async fn a_watch_sees_a_change_between_its_read_and_its_commit(space: Space) {
    space.put(&[("a", "1")]).await;
    let tx = space.begin();
    assert_eq!(get(&tx, &space.key("a")).await.as_deref(), Some(&b"1"[..]));
    let watch = tx.watch(&space.key("a"));
    space.put(&[("a", "2")]).await;
    assert_eq!(tx.commit().await.unwrap(), None);
    assert_fires(&space, watch).await;
}

/// What wakes a node: ready marks and wake counters.
pub(super) async fn a_watch_fires_on_a_stamped_value_and_on_an_addition(space: Space) {
    let (mark, counter) = (watch(&space, "mark").await, watch(&space, "counter").await);
    let tx = space.begin();
    tx.set_versionstamped_value(&space.key("mark"), &[0; CommitStamp::LEN], 0);
    tx.add_i64(&space.key("counter"), 1);
    commit(&tx).await;
    assert_fires(&space, mark).await;
    assert_fires(&space, counter).await;
}

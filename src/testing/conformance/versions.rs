//! Read versions, commit versions, and who sees what.

use super::harness::{Space, assert_kind, commit, get, set};
use crate::store::{Isolation, StoreErrorKind, Version};

pub(super) async fn a_read_version_stays_the_same(space: Space) {
    let tx = space.begin();
    let first = tx.read_version().await.unwrap();
    space.put(&[("a", "1")]).await;
    assert_eq!(tx.read_version().await.unwrap(), first);
    assert_eq!(
        get(&tx, &space.key("a")).await,
        None,
        "reads are of the read version"
    );
    assert_eq!(tx.read_version().await.unwrap(), first);
}

pub(super) async fn a_read_version_includes_acknowledged_commits(space: Space) {
    for round in 0..50 {
        let committed = space.put(&[("a", &round.to_string())]).await;
        let version = space.begin().read_version().await.unwrap();
        assert!(
            version >= committed.version,
            "{version} misses {}",
            committed.version
        );
    }
}

pub(super) async fn a_read_only_commit_returns_nothing(space: Space) {
    space.put(&[("a", "1")]).await;
    let tx = space.begin();
    get(&tx, &space.key("a")).await;
    assert_eq!(tx.commit().await.unwrap(), None);
    assert_eq!(space.begin().commit().await.unwrap(), None);
}

pub(super) async fn a_commit_version_is_above_its_read_version(space: Space) {
    let tx = space.begin();
    let read = tx.read_version().await.unwrap();
    set(&*tx, &space.key("a"), "1");
    assert!(commit(&tx).await.version > read);
}

pub(super) async fn a_chosen_version_shows_exactly_that_version_or_is_too_old(space: Space) {
    let first = space.put(&[("a", "1"), ("b", "1")]).await.version;
    space.put(&[("a", "2")]).await;
    let tx = space.begin();
    tx.set_read_version(first);
    match tx.get(&space.key("a"), Isolation::Serializable).await {
        Ok(value) => {
            assert_eq!(value.as_deref(), Some(&b"1"[..]));
            assert_eq!(tx.read_version().await.unwrap(), first);
            set(&*tx, &space.key("c"), "1");
            assert_kind(tx.commit().await, StoreErrorKind::Conflict);
        }
        Err(error) => {
            assert_eq!(error.kind(), StoreErrorKind::TooOld);
            set(&*tx, &space.key("c"), "1");
            assert_kind(tx.commit().await, StoreErrorKind::TooOld);
        }
    }
    assert_eq!(space.value("c").await, None);
}

pub(super) async fn the_version_of_the_newest_commit_can_be_chosen(space: Space) {
    // Others may commit to a shared store in between; then the version is not the newest.
    for _ in 0..100 {
        let version = space.put(&[("a", "1")]).await.version;
        let tx = space.begin();
        tx.set_read_version(version);
        match tx.get(&space.key("a"), Isolation::Serializable).await {
            Ok(value) => {
                assert_eq!(value.as_deref(), Some(&b"1"[..]));
                assert_eq!(tx.read_version().await.unwrap(), version);
                set(&*tx, &space.key("b"), "chained");
                commit(&tx).await;
                assert_eq!(space.value("b").await.as_deref(), Some("chained"));
                return;
            }
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::TooOld),
        }
    }
    panic!("the version of an own commit was never readable");
}

pub(super) async fn a_version_that_never_was_cannot_be_read(space: Space) {
    let now = space.put(&[("a", "1")]).await.version;
    // Ages before, and far beyond, any version that a store can have by now.
    for version in [Version(0), Version(now.0 + 1_000_000_000_000)] {
        let tx = space.begin();
        tx.set_read_version(version);
        let error = tx
            .get(&space.key("a"), Isolation::Serializable)
            .await
            .expect_err("this version does not exist");
        assert!(error.is_retryable(), "{error}");
    }
}

pub(super) async fn a_version_chosen_after_a_read_fails_the_transaction(space: Space) {
    let version = space.put(&[("a", "1")]).await.version;
    let tx = space.begin();
    get(&tx, &space.key("a")).await;
    tx.set_read_version(version);
    set(&*tx, &space.key("b"), "1");
    assert_kind(tx.commit().await, StoreErrorKind::InvalidCall);
    assert_eq!(space.value("b").await, None);
}

pub(super) async fn a_transaction_is_used_up_by_its_commit(space: Space) {
    let tx = space.begin();
    set(&*tx, &space.key("a"), "1");
    commit(&tx).await;
    set(&*tx, &space.key("a"), "2");
    assert_kind(tx.commit().await, StoreErrorKind::InvalidCall);
    let read = tx.get(&space.key("a"), Isolation::Serializable).await;
    assert_kind(read, StoreErrorKind::InvalidCall);
    assert_kind(
        tx.get_range(space.everything().read()).await,
        StoreErrorKind::InvalidCall,
    );
    assert_eq!(space.value("a").await.as_deref(), Some("1"));
}

pub(super) async fn a_commit_is_seen_by_whoever_begins_after_it(space: Space) {
    for round in 0..30 {
        let value = round.to_string();
        space.put(&[("a", &value)]).await;
        assert_eq!(space.value("a").await, Some(value));
    }
}

pub(super) async fn writes_are_invisible_until_the_commit(space: Space) {
    space.put(&[("a", "old")]).await;
    let tx = space.begin();
    set(&*tx, &space.key("a"), "new");
    assert_eq!(
        get(&tx, &space.key("a")).await.as_deref(),
        Some(&b"new"[..])
    );
    assert_eq!(space.value("a").await.as_deref(), Some("old"));
    commit(&tx).await;
    assert_eq!(space.value("a").await.as_deref(), Some("new"));
}

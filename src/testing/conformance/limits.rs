//! The limits, the same on every store.

use super::harness::{Space, assert_kind, commit, get, set};
use crate::store::{
    Isolation, KeyRange, MAX_KEY_BYTES, MAX_TRANSACTION_AGE, MAX_TRANSACTION_BYTES,
    MAX_VALUE_BYTES, StoreErrorKind,
};
use std::time::Duration;

pub(super) async fn the_longest_key_is_kept_and_a_longer_one_refused(space: Space) {
    let longest = space.key(vec![b'k'; MAX_KEY_BYTES - space.prefix_len()]);
    let tx = space.begin();
    tx.set(&longest, b"value");
    assert_eq!(get(&tx, &longest).await.as_deref(), Some(&b"value"[..]));
    commit(&tx).await;
    let rows = space
        .begin()
        .get_range(KeyRange::single(&longest).read())
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);

    let longer = [&longest[..], b"k"].concat();
    let tx = space.begin();
    assert_kind(
        tx.get(&longer, Isolation::Serializable).await,
        StoreErrorKind::KeyTooLarge,
    );
    tx.set(&space.key("other"), b"value");
    tx.set(&longer, b"value");
    assert_kind(tx.commit().await, StoreErrorKind::KeyTooLarge);
    assert_eq!(
        space.value("other").await,
        None,
        "a failed transaction writes nothing"
    );
    let tx = space.begin();
    tx.clear(&longer);
    assert_kind(tx.commit().await, StoreErrorKind::KeyTooLarge);
}

pub(super) async fn the_longest_value_is_kept_and_a_longer_one_refused(space: Space) {
    let longest: Vec<u8> = (0..MAX_VALUE_BYTES).map(|at| (at % 251) as u8).collect();
    let tx = space.begin();
    tx.set(&space.key("a"), &longest);
    commit(&tx).await;
    assert_eq!(
        get(&space.begin(), &space.key("a")).await.as_deref(),
        Some(&longest[..])
    );

    let tx = space.begin();
    set(&*tx, &space.key("other"), "value");
    tx.set(&space.key("a"), &[&longest[..], b"x"].concat());
    assert_kind(tx.commit().await, StoreErrorKind::ValueTooLarge);
    assert_eq!(
        space.value("other").await,
        None,
        "a failed transaction writes nothing"
    );
}

pub(super) async fn a_transaction_below_the_limit_commits_and_one_above_does_not(space: Space) {
    let value = vec![7; MAX_VALUE_BYTES];
    let fits = MAX_TRANSACTION_BYTES / MAX_VALUE_BYTES - 1;
    let tx = space.begin();
    for n in 0..fits {
        tx.set(&space.key(format!("{n:03}")), &value);
    }
    commit(&tx).await;
    assert_eq!(
        space
            .begin()
            .get_range(space.everything().read())
            .await
            .unwrap()
            .len(),
        fits
    );

    let tx = space.begin();
    for n in 0..fits + 2 {
        tx.set(&space.key(format!("more/{n:03}")), &value);
    }
    assert_kind(tx.commit().await, StoreErrorKind::TransactionTooLarge);
    let more = KeyRange::prefix(&space.key("more/"));
    assert!(
        space
            .begin()
            .get_range(more.read())
            .await
            .unwrap()
            .is_empty()
    );
}

pub(super) async fn operands_are_limited_as_values_are(space: Space) {
    let (fits, longer) = (vec![1; MAX_VALUE_BYTES], vec![1; MAX_VALUE_BYTES + 1]);
    let tx = space.begin();
    tx.add(&space.key("n"), &fits);
    tx.compare_and_clear(&space.key("m"), &fits);
    commit(&tx).await;
    assert_eq!(
        get(&space.begin(), &space.key("n"))
            .await
            .map(|sum| sum.len()),
        Some(fits.len())
    );
    let tx = space.begin();
    tx.add(&space.key("n"), &longer);
    assert_kind(tx.commit().await, StoreErrorKind::ValueTooLarge);
    let tx = space.begin();
    tx.compare_and_clear(&space.key("n"), &longer);
    assert_kind(tx.commit().await, StoreErrorKind::ValueTooLarge);
}

pub(super) async fn conflicts_count_towards_the_size_of_a_transaction(space: Space) {
    let long = MAX_KEY_BYTES - space.prefix_len() - 4;
    let tx = space.begin();
    tx.read_version().await.unwrap();
    for n in 0..MAX_TRANSACTION_BYTES / MAX_KEY_BYTES {
        let key = space.key([format!("{n:04}").as_bytes(), &vec![b'k'; long]].concat());
        tx.add_read_conflict(&KeyRange::single(&key));
    }
    set(&*tx, &space.key("a"), "1");
    assert_kind(tx.commit().await, StoreErrorKind::TransactionTooLarge);
    assert_eq!(space.value("a").await, None);
}

pub(super) async fn an_old_transaction_is_too_old(space: Space) {
    space.put(&[("a", "1")]).await;
    let (reads, writes) = (space.begin(), space.begin());
    for tx in [&reads, &writes] {
        get(tx, &space.key("a")).await;
    }
    // Twice the age, with commits meanwhile: stores measure age in versions, and coarsely.
    let mut waited = Duration::ZERO;
    while waited < MAX_TRANSACTION_AGE * 2 {
        let step = Duration::from_millis(500);
        space.sleep(step).await;
        waited += step;
        space
            .put(&[("other", &waited.as_millis().to_string())])
            .await;
    }
    let read = reads.get(&space.key("b"), Isolation::Serializable).await;
    let error = assert_kind(read, StoreErrorKind::TooOld);
    assert!(error.is_retryable());
    set(&*writes, &space.key("a"), "2");
    assert_kind(writes.commit().await, StoreErrorKind::TooOld);
    assert_eq!(space.value("a").await.as_deref(), Some("1"));
}

pub(super) async fn keys_of_the_store_itself_are_refused(space: Space) {
    for key in [&b"\xff"[..], b"\xff\xff/status/json"] {
        let read = space.begin().get(key, Isolation::Snapshot).await;
        assert_kind(read, StoreErrorKind::InvalidCall);
        let tx = space.begin();
        tx.set(key, b"value");
        assert_kind(tx.commit().await, StoreErrorKind::InvalidCall);
    }
    let beyond = KeyRange::new(space.key("a"), &b"\xff\x01"[..]);
    let read = space.begin().get_range(beyond.read()).await;
    assert_kind(read, StoreErrorKind::InvalidCall);
}

pub(super) async fn an_inverted_range_is_refused(space: Space) {
    space.put(&[("b", "1")]).await;
    let inverted = space.range("c", "a");
    assert_kind(
        space.begin().get_range(inverted.read()).await,
        StoreErrorKind::InvalidCall,
    );
    let tx = space.begin();
    set(&*tx, &space.key("a"), "1");
    tx.clear_range(&inverted);
    assert_kind(tx.commit().await, StoreErrorKind::InvalidCall);
    let tx = space.begin();
    set(&*tx, &space.key("a"), "1");
    tx.add_read_conflict(&inverted);
    assert_kind(tx.commit().await, StoreErrorKind::InvalidCall);
    assert_eq!(space.value("a").await, None);
}

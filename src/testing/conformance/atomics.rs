//! Additions and compare-and-clear.

use super::harness::{Space, commit, get, pairs};
use crate::store::{CommitStamp, TransactionExt};

/// Adds `operand` to a key that holds `stored`, and returns what it holds then.
async fn sum(space: &Space, stored: Option<&[u8]>, operand: &[u8]) -> Vec<u8> {
    let key = space.key("n");
    let tx = space.begin();
    match stored {
        Some(stored) => tx.set(&key, stored),
        None => tx.clear(&key),
    }
    commit(&tx).await;
    let tx = space.begin();
    tx.add(&key, operand);
    let seen = get(&tx, &key).await;
    commit(&tx).await;
    let stored = get(&space.begin(), &key)
        .await
        .expect("an addition leaves a value");
    assert_eq!(
        seen.as_ref(),
        Some(&stored),
        "what the transaction saw is what it committed"
    );
    stored.to_vec()
}

pub(super) async fn add_to_a_missing_key_sets_it(space: Space) {
    assert_eq!(
        sum(&space, None, &7_i64.to_le_bytes()).await,
        7_i64.to_le_bytes()
    );
    assert_eq!(sum(&space, None, &[1, 2, 3]).await, [1, 2, 3]);
    assert_eq!(sum(&space, Some(b""), &[5, 0]).await, [5, 0]);
}

pub(super) async fn add_carries_and_wraps(space: Space) {
    for (stored, operand, expected) in [
        (255, 1, 256),
        (5, -7, -2),
        (-1, 1, 0),
        (i64::MAX, 1, i64::MIN),
        (i64::MIN, -1, i64::MAX),
    ] {
        let found = sum(
            &space,
            Some(&i64::to_le_bytes(stored)),
            &i64::to_le_bytes(operand),
        )
        .await;
        assert_eq!(found, expected.to_le_bytes(), "{stored} + {operand}");
    }
}

pub(super) async fn add_takes_the_length_of_its_operand(space: Space) {
    assert_eq!(
        sum(&space, Some(&[250]), &[10, 0, 0]).await,
        [4, 1, 0],
        "a shorter value"
    );
    assert_eq!(
        sum(&space, Some(&[250, 9, 9]), &[10]).await,
        [4],
        "a longer value"
    );
    assert_eq!(
        sum(&space, Some(&[1, 2, 3]), &[]).await,
        [0_u8; 0],
        "an operand of no length"
    );
    let long = sum(&space, Some(&[0xff; 20]), &[1; 12]).await;
    assert_eq!(
        long,
        [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "longer than any machine word"
    );
}

pub(super) async fn several_additions_in_one_transaction_accumulate(space: Space) {
    let key = space.key("n");
    let tx = space.begin();
    tx.add_i64(&key, 1);
    tx.add_i64(&key, 10);
    commit(&tx).await;
    let tx = space.begin();
    tx.add_i64(&key, 100);
    tx.add_i64(&key, -1);
    commit(&tx).await;
    assert_eq!(
        get(&space.begin(), &key).await.as_deref(),
        Some(&110_i64.to_le_bytes()[..])
    );
}

pub(super) async fn compare_and_clear_removes_only_an_equal_value(space: Space) {
    space
        .put(&[
            ("equal", "x"),
            ("longer", "xx"),
            ("other", "y"),
            ("shorter", ""),
        ])
        .await;
    let tx = space.begin();
    for name in ["equal", "longer", "missing", "other", "shorter"] {
        tx.compare_and_clear(&space.key(name), b"x");
    }
    commit(&tx).await;
    assert_eq!(
        space.content().await,
        pairs(&[("longer", "xx"), ("other", "y"), ("shorter", "")])
    );
}

pub(super) async fn compare_and_clear_sees_the_operations_before_it(space: Space) {
    let key = space.key("n");
    let zero = 0_i64.to_le_bytes();
    let tx = space.begin();
    tx.add_i64(&key, 2);
    commit(&tx).await;
    let tx = space.begin();
    tx.add_i64(&key, -1);
    tx.compare_and_clear(&key, &zero);
    commit(&tx).await;
    assert_eq!(
        get(&space.begin(), &key).await.as_deref(),
        Some(&1_i64.to_le_bytes()[..])
    );
    let tx = space.begin();
    tx.add_i64(&key, -1);
    tx.compare_and_clear(&key, &zero);
    commit(&tx).await;
    assert_eq!(get(&space.begin(), &key).await, None);
}

/// The ready mark of a turn that sends to its own instance.
pub(super) async fn compare_and_clear_then_a_stamped_value_leaves_the_stamp(space: Space) {
    let key = space.key("mark");
    for before in ["equal", "different"] {
        space.put(&[("mark", before)]).await;
        let tx = space.begin();
        tx.compare_and_clear(&key, b"equal");
        tx.set_versionstamped_value(&key, &[0; CommitStamp::LEN], 0);
        let stamp = commit(&tx).await.stamp;
        assert_eq!(
            get(&space.begin(), &key).await.as_deref(),
            Some(&stamp.as_bytes()[..])
        );
    }
}

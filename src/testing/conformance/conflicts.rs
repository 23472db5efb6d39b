//! What makes a commit fail, and what must not.

use super::harness::{Space, assert_conflict, commit, get, pairs, set};
use crate::store::{CommitStamp, KeyRange, Transaction, TransactionExt, Tx};

/// A transaction with a read version, that will write something nobody reads.
async fn reader(space: &Space) -> Tx {
    let tx = space.begin();
    tx.read_version().await.unwrap();
    set(&*tx, &space.key("~written"), "by the reader");
    tx
}

async fn five(space: &Space) {
    space
        .put(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")])
        .await;
}

fn letters(space: &Space) -> KeyRange {
    space.range("a", "z")
}

pub(super) async fn a_lost_update_is_prevented(space: Space) {
    space.put(&[("a", "0")]).await;
    let (one, two) = (space.begin(), space.begin());
    for tx in [&one, &two] {
        get(tx, &space.key("a")).await;
    }
    set(&*one, &space.key("a"), "one");
    set(&*two, &space.key("a"), "two");
    commit(&one).await;
    assert_conflict(&two).await;
    assert_eq!(space.value("a").await.as_deref(), Some("one"));
}

pub(super) async fn a_write_skew_is_prevented(space: Space) {
    space.put(&[("a", "on duty"), ("b", "on duty")]).await;
    let (one, two) = (space.begin(), space.begin());
    for tx in [&one, &two] {
        get(tx, &space.key("a")).await;
        get(tx, &space.key("b")).await;
    }
    set(&*one, &space.key("a"), "off");
    set(&*two, &space.key("b"), "off");
    commit(&one).await;
    assert_conflict(&two).await;
}

pub(super) async fn a_phantom_is_prevented(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    tx.get_range(letters(&space).read()).await.unwrap();
    space.put(&[("cc", "phantom")]).await;
    assert_conflict(&tx).await;
}

pub(super) async fn a_phantom_in_a_reversed_range_is_prevented(space: Space) {
    let tx = reader(&space).await;
    tx.get_range(letters(&space).read().reverse())
        .await
        .unwrap();
    space.put(&[("m", "phantom")]).await;
    assert_conflict(&tx).await;
}

pub(super) async fn a_missing_key_that_appears_conflicts(space: Space) {
    let tx = reader(&space).await;
    assert_eq!(get(&tx, &space.key("a")).await, None);
    space.put(&[("a", "created")]).await;
    assert_conflict(&tx).await;
}

pub(super) async fn a_cleared_key_conflicts_with_its_readers(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    get(&tx, &space.key("c")).await;
    let other = space.begin();
    other.clear(&space.key("c"));
    commit(&other).await;
    assert_conflict(&tx).await;
}

pub(super) async fn a_cleared_range_conflicts_with_readers_inside_it(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    get(&tx, &space.key("c")).await;
    let other = space.begin();
    other.clear_range(&space.range("b", "d"));
    commit(&other).await;
    assert_conflict(&tx).await;
}

pub(super) async fn a_snapshot_read_does_not_conflict(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    tx.peek(&space.key("c")).await.unwrap();
    tx.peek(&space.key("missing")).await.unwrap();
    space.put(&[("c", "changed"), ("missing", "created")]).await;
    commit(&tx).await;
}

pub(super) async fn a_snapshot_range_does_not_conflict(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    tx.get_range(letters(&space).read().snapshot())
        .await
        .unwrap();
    space.put(&[("c", "changed"), ("cc", "phantom")]).await;
    commit(&tx).await;
}

pub(super) async fn a_full_limited_read_conflicts_up_to_its_last_key(space: Space) {
    for change in ["a", "b", "bb", "c"] {
        five(&space).await;
        let tx = reader(&space).await;
        assert_eq!(
            tx.get_range(letters(&space).read().limit(3))
                .await
                .unwrap()
                .len(),
            3
        );
        space.put(&[(change, "changed")]).await;
        assert_conflict(&tx).await;
        let cleanup = space.begin();
        cleanup.clear_range(&letters(&space));
        commit(&cleanup).await;
    }
}

pub(super) async fn a_full_limited_read_does_not_conflict_behind_its_last_key(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    assert_eq!(
        tx.get_range(letters(&space).read().limit(3))
            .await
            .unwrap()
            .len(),
        3
    );
    space
        .put(&[("cc", "phantom"), ("d", "changed"), ("y", "phantom")])
        .await;
    commit(&tx).await;
}

pub(super) async fn a_short_limited_read_conflicts_to_the_end(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    assert_eq!(
        tx.get_range(letters(&space).read().limit(6))
            .await
            .unwrap()
            .len(),
        5
    );
    space.put(&[("y", "phantom")]).await;
    assert_conflict(&tx).await;
}

pub(super) async fn a_full_reversed_read_conflicts_down_to_its_last_key(space: Space) {
    for change in ["c", "cc", "e", "y"] {
        five(&space).await;
        let tx = reader(&space).await;
        let read = letters(&space).read().reverse().limit(3);
        assert_eq!(tx.get_range(read).await.unwrap().len(), 3);
        space.put(&[(change, "changed")]).await;
        assert_conflict(&tx).await;
        let cleanup = space.begin();
        cleanup.clear_range(&letters(&space));
        commit(&cleanup).await;
    }
}

pub(super) async fn a_full_reversed_read_does_not_conflict_below_its_last_key(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    let read = letters(&space).read().reverse().limit(3);
    assert_eq!(tx.get_range(read).await.unwrap().len(), 3);
    space.put(&[("a", "changed"), ("bb", "phantom")]).await;
    commit(&tx).await;
}

pub(super) async fn blind_sets_of_one_key_do_not_conflict(space: Space) {
    let (one, two) = (reader(&space).await, reader(&space).await);
    set(&*one, &space.key("a"), "one");
    set(&*one, &space.key("b"), "cleared by the other");
    set(&*two, &space.key("a"), "two");
    two.clear_range(&space.range("b", "c"));
    commit(&one).await;
    commit(&two).await;
    assert_eq!(space.value("a").await.as_deref(), Some("two"));
}

pub(super) async fn additions_to_one_key_do_not_conflict(space: Space) {
    let key = space.key("n");
    let all = [
        reader(&space).await,
        reader(&space).await,
        reader(&space).await,
    ];
    for tx in &all {
        tx.add_i64(&key, 5);
        tx.compare_and_clear(&space.key("other"), b"x");
    }
    for (round, tx) in (0..).zip(&all) {
        space.put(&[("other", &format!("round {round}"))]).await;
        commit(tx).await;
    }
    assert_eq!(
        get(&space.begin(), &key).await.as_deref(),
        Some(&15_i64.to_le_bytes()[..])
    );
}

pub(super) async fn stamped_values_of_one_key_do_not_conflict(space: Space) {
    let (one, two) = (reader(&space).await, reader(&space).await);
    for tx in [&one, &two] {
        tx.set_versionstamped_value(&space.key("mark"), &[0; CommitStamp::LEN], 0);
    }
    commit(&one).await;
    let last = commit(&two).await.stamp;
    let mark = get(&space.begin(), &space.key("mark")).await;
    assert_eq!(mark.as_deref(), Some(&last.as_bytes()[..]));
}

pub(super) async fn a_stamped_value_conflicts_with_readers_of_its_key(space: Space) {
    let tx = reader(&space).await;
    get(&tx, &space.key("mark")).await;
    let other = space.begin();
    other.set_versionstamped_value(&space.key("mark"), &[0; CommitStamp::LEN], 0);
    commit(&other).await;
    assert_conflict(&tx).await;
}

pub(super) async fn a_stamped_key_conflicts_with_readers_of_its_range(space: Space) {
    let (in_it, beside) = (reader(&space).await, reader(&space).await);
    let queue = KeyRange::prefix(&space.key("q/"));
    in_it.get_range(queue.read()).await.unwrap();
    beside
        .get_range(KeyRange::prefix(&space.key("p/")).read())
        .await
        .unwrap();
    let other = space.begin();
    let template = [&space.key("q/")[..], &[0; CommitStamp::LEN]].concat();
    other.set_versionstamped_key(&template, template.len() - CommitStamp::LEN, b"");
    commit(&other).await;
    assert_conflict(&in_it).await;
    commit(&beside).await;
}

pub(super) async fn a_read_of_an_added_key_conflicts(space: Space) {
    let key = space.key("n");
    let tx = reader(&space).await;
    tx.add_i64(&key, 1);
    get(&tx, &key).await;
    let other = space.begin();
    other.add_i64(&key, 1);
    commit(&other).await;
    assert_conflict(&tx).await;
}

pub(super) async fn an_explicit_conflict_on_a_key_counts(space: Space) {
    let tx = reader(&space).await;
    tx.add_read_conflict_key(&space.key("a"));
    let bystander = reader(&space).await;
    bystander.add_read_conflict_key(&space.key("aa"));
    space.put(&[("a", "changed")]).await;
    assert_conflict(&tx).await;
    commit(&bystander).await;
}

pub(super) async fn an_explicit_conflict_on_a_range_counts(space: Space) {
    let tx = reader(&space).await;
    tx.add_read_conflict(&space.range("b", "d"));
    let bystander = reader(&space).await;
    bystander.add_read_conflict(&space.range("b", "c"));
    space.put(&[("c", "phantom"), ("d", "behind")]).await;
    assert_conflict(&tx).await;
    commit(&bystander).await;
}

pub(super) async fn an_explicit_conflict_added_before_a_clear_counts(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    tx.add_read_conflict_key(&space.key("a"));
    tx.clear(&space.key("a"));
    space.put(&[("a", "changed")]).await;
    assert_conflict(&tx).await;
}

pub(super) async fn a_conflict_added_after_the_clear_is_dropped(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    tx.clear(&space.key("a"));
    set(&*tx, &space.key("b"), "mine");
    tx.add_read_conflict_key(&space.key("a"));
    tx.add_read_conflict_key(&space.key("b"));
    space.put(&[("a", "changed"), ("b", "changed")]).await;
    commit(&tx).await;
    let expected = pairs(&[("b", "mine"), ("c", "3"), ("d", "4"), ("e", "5")]);
    assert_eq!(
        space.pairs(&space.begin(), letters(&space).read()).await,
        expected
    );
}

pub(super) async fn a_read_of_an_own_set_does_not_conflict(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    set(&*tx, &space.key("a"), "mine");
    get(&tx, &space.key("a")).await;
    space.put(&[("a", "changed")]).await;
    commit(&tx).await;
}

pub(super) async fn a_read_only_transaction_is_not_checked(space: Space) {
    five(&space).await;
    let tx = space.begin();
    tx.get_range(letters(&space).read()).await.unwrap();
    space.put(&[("a", "changed")]).await;
    assert_eq!(tx.commit().await.unwrap(), None);
}

pub(super) async fn an_empty_read_does_not_conflict(space: Space) {
    five(&space).await;
    let tx = reader(&space).await;
    tx.get_range(letters(&space).read().limit(0)).await.unwrap();
    tx.get_range(space.range("c", "c").read()).await.unwrap();
    space.put(&[("a", "changed"), ("c", "changed")]).await;
    commit(&tx).await;
}

/// Takes the first key of the queue as a turn does: a snapshot read, a conflict, then the clear.
async fn pop(space: &Space, tx: &dyn Transaction) {
    let read = letters(space).read().limit(1).snapshot();
    let head = tx.get_range(read).await.unwrap().remove(0).key;
    tx.add_read_conflict_key(&head);
    tx.clear(&head);
}

pub(super) async fn two_poppers_of_one_head_do_not_both_commit(space: Space) {
    five(&space).await;
    let (one, two) = (reader(&space).await, reader(&space).await);
    pop(&space, &*one).await;
    pop(&space, &*two).await;
    commit(&one).await;
    assert_conflict(&two).await;
}

pub(super) async fn pushes_behind_a_popped_head_do_not_conflict(space: Space) {
    space.put(&[("a", "only")]).await;
    let tx = reader(&space).await;
    pop(&space, &*tx).await;
    space.put(&[("b", "pushed")]).await;
    commit(&tx).await;
    let left = space.pairs(&space.begin(), letters(&space).read()).await;
    assert_eq!(left, pairs(&[("b", "pushed")]));
}

//! Ranges: order, limits, direction, size.

use super::harness::{Space, commit, pairs, set};
use crate::store::{Isolation, TransactionExt};
use std::ops::ControlFlow;

pub(super) async fn keys_are_ordered_by_bytes(space: Space) {
    let mut names: Vec<&[u8]> = vec![
        b"",
        b"\x00",
        b"\x00\x00",
        b"\x00\xff",
        b"\x01",
        b"a",
        b"a\x00",
        b"a\x00b",
        b"aa",
        b"b",
        b"\x7f",
        b"\x80",
        b"\xfe\xff",
        b"\xfe\xff\xff",
        "\u{e9}".as_bytes(),
    ];
    let tx = space.begin();
    for name in names.iter().rev() {
        tx.set(&space.key(name), b"");
    }
    commit(&tx).await;
    names.sort_unstable();
    let rows = space
        .begin()
        .get_range(space.everything().read())
        .await
        .unwrap();
    let found: Vec<&[u8]> = rows.iter().map(|row| space.name(&row.key)).collect();
    assert_eq!(found, names);
    let rows = space
        .begin()
        .get_range(space.everything().read().reverse())
        .await
        .unwrap();
    let found: Vec<&[u8]> = rows.iter().rev().map(|row| space.name(&row.key)).collect();
    assert_eq!(found, names);
}

async fn five(space: &Space) {
    space
        .put(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")])
        .await;
}

pub(super) async fn a_range_is_limited_from_its_begin(space: Space) {
    five(&space).await;
    let tx = space.begin();
    let range = space.range("b", "e");
    for (limit, expected) in [
        (1, &[("b", "2")][..]),
        (2, &[("b", "2"), ("c", "3")]),
        (3, &[("b", "2"), ("c", "3"), ("d", "4")]),
        (4, &[("b", "2"), ("c", "3"), ("d", "4")]),
    ] {
        assert_eq!(
            space.pairs(&tx, range.read().limit(limit)).await,
            pairs(expected)
        );
    }
}

pub(super) async fn a_reversed_range_is_limited_from_its_end(space: Space) {
    five(&space).await;
    let tx = space.begin();
    let range = space.range("b", "e");
    for (limit, expected) in [
        (1, &[("d", "4")][..]),
        (2, &[("d", "4"), ("c", "3")]),
        (9, &[("d", "4"), ("c", "3"), ("b", "2")]),
    ] {
        assert_eq!(
            space.pairs(&tx, range.read().reverse().limit(limit)).await,
            pairs(expected)
        );
    }
}

pub(super) async fn own_writes_are_merged_into_ranges(space: Space) {
    five(&space).await;
    let tx = space.begin();
    set(&*tx, &space.key("aa"), "new");
    set(&*tx, &space.key("c"), "changed");
    tx.clear(&space.key("d"));
    tx.add(&space.key("n"), &[65]);
    tx.compare_and_clear(&space.key("e"), b"5");
    let expected = pairs(&[
        ("a", "1"),
        ("aa", "new"),
        ("b", "2"),
        ("c", "changed"),
        ("n", "A"),
    ]);
    assert_eq!(space.pairs(&tx, space.everything().read()).await, expected);
    commit(&tx).await;
    assert_eq!(space.content().await, expected);
}

pub(super) async fn own_writes_are_merged_into_limited_and_reversed_ranges(space: Space) {
    five(&space).await;
    let tx = space.begin();
    tx.clear_range(&space.range("a", "c"));
    set(&*tx, &space.key("cc"), "new");
    set(&*tx, &space.key("z"), "last");
    let read = space.everything().read();
    let expected = pairs(&[("c", "3"), ("cc", "new"), ("d", "4")]);
    assert_eq!(space.pairs(&tx, read.clone().limit(3)).await, expected);
    let expected = pairs(&[("z", "last"), ("e", "5"), ("d", "4"), ("cc", "new")]);
    assert_eq!(space.pairs(&tx, read.reverse().limit(4)).await, expected);
}

pub(super) async fn an_empty_range_and_a_limit_of_zero_read_nothing(space: Space) {
    five(&space).await;
    let tx = space.begin();
    assert_eq!(
        space.pairs(&tx, space.range("b", "b").read()).await,
        pairs(&[])
    );
    assert_eq!(
        space.pairs(&tx, space.everything().read().limit(0)).await,
        pairs(&[])
    );
    assert!(
        tx.is_empty(&space.range("x", "z"), Isolation::Serializable)
            .await
            .unwrap()
    );
    assert!(
        !tx.is_empty(&space.range("a", "z"), Isolation::Serializable)
            .await
            .unwrap()
    );
}

pub(super) async fn clear_range_excludes_its_end(space: Space) {
    five(&space).await;
    let tx = space.begin();
    tx.clear_range(&space.range("b", "d"));
    tx.clear_range(&space.range("e", "e"));
    commit(&tx).await;
    assert_eq!(
        space.content().await,
        pairs(&[("a", "1"), ("d", "4"), ("e", "5")])
    );
}

pub(super) async fn a_hundred_thousand_keys_are_read_whole_and_by_page(space: Space) {
    const KEYS: u32 = 100_000;
    const PER_COMMIT: u32 = 10_000;
    for first in (0..KEYS).step_by(PER_COMMIT as usize) {
        let tx = space.begin();
        for n in first..first + PER_COMMIT {
            tx.set(&space.key(n.to_be_bytes()), &n.to_le_bytes());
        }
        commit(&tx).await;
    }
    let whole = space
        .begin()
        .get_range(space.everything().read())
        .await
        .unwrap();
    let names: Vec<&[u8]> = whole.iter().map(|row| space.name(&row.key)).collect();
    assert_eq!(names.len(), KEYS as usize);
    assert!(
        (0..KEYS)
            .zip(&names)
            .all(|(n, name)| *name == n.to_be_bytes())
    );

    let (mut pages, mut rows) = (0, Vec::new());
    space
        .begin()
        .for_each_page(&space.everything(), Isolation::Snapshot, |page| {
            pages += 1;
            rows.extend(page);
            ControlFlow::Continue(())
        })
        .await
        .unwrap();
    assert!(pages > 1, "everything came in one page");
    assert_eq!(rows, whole);

    let read = space.everything().read().reverse().limit(70_000);
    let mut last = space.begin().get_range(read).await.unwrap();
    last.reverse();
    assert_eq!(last, whole[30_000..]);
}

//! Versionstamps.

use super::harness::{Space, assert_kind, commit, get, set};
use crate::store::{CommitStamp, Isolation, KeyRange, Stamp, StoreErrorKind, Version};

const HOLE: [u8; CommitStamp::LEN] = [0; CommitStamp::LEN];

pub(super) async fn a_stamped_key_holds_the_stamp_of_its_commit(space: Space) {
    let tx = space.begin();
    let template = [&space.key("k/"), &HOLE[..], b"/tail"].concat();
    tx.set_versionstamped_key(&template, space.prefix_len() + 2, b"value");
    let committed = commit(&tx).await;
    assert_eq!(
        committed.stamp.version(),
        committed.version,
        "a stamp begins with its version"
    );
    let expected = [b"k/", &committed.stamp.as_bytes()[..], b"/tail"].concat();
    let rows = space
        .begin()
        .get_range(space.everything().read())
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(space.name(&rows[0].key), expected);
    assert_eq!(rows[0].value, &b"value"[..]);
}

pub(super) async fn a_stamped_value_holds_the_stamp_of_its_commit(space: Space) {
    let tx = space.begin();
    let template = [b"before", &HOLE[..], b"behind"].concat();
    tx.set_versionstamped_value(&space.key("a"), &template, 6);
    let stamp = commit(&tx).await.stamp;
    let expected = [b"before", &stamp.as_bytes()[..], b"behind"].concat();
    assert_eq!(
        get(&space.begin(), &space.key("a")).await.as_deref(),
        Some(&expected[..])
    );
}

pub(super) async fn a_stamp_goes_where_its_offset_says(space: Space) {
    let template: Vec<u8> = (1..=14).collect();
    let tx = space.begin();
    for offset in 0..=4 {
        tx.set_versionstamped_value(&space.key([offset]), &template, usize::from(offset));
    }
    let stamp = commit(&tx).await.stamp;
    let tx = space.begin();
    for offset in 0..=4_u8 {
        let mut expected = template.clone();
        expected[usize::from(offset)..][..CommitStamp::LEN].copy_from_slice(stamp.as_bytes());
        assert_eq!(
            get(&tx, &space.key([offset])).await.as_deref(),
            Some(&expected[..])
        );
    }
}

/// Buffers a key whose stamp has this user version.
fn push(space: &Space, tx: &dyn crate::store::Transaction, user: u16, value: &str) {
    let template = [&space.key("q/"), &HOLE[..], &user.to_be_bytes()].concat();
    tx.set_versionstamped_key(&template, space.prefix_len() + 2, value.as_bytes());
}

/// The stamps and values of the keys that `push` wrote, in key order.
async fn queue(space: &Space) -> Vec<(Stamp, String)> {
    let range = KeyRange::prefix(&space.key("q/"));
    let rows = space.begin().get_range(range.read()).await.unwrap();
    rows.iter()
        .map(|row| {
            let stamp = space.name(&row.key)[2..]
                .try_into()
                .expect("a stamp behind the prefix");
            (
                Stamp::from_bytes(stamp),
                String::from_utf8_lossy(&row.value).into_owned(),
            )
        })
        .collect()
}

pub(super) async fn user_versions_keep_the_keys_of_one_commit_apart(space: Space) {
    let tx = space.begin();
    for (user, value) in [
        (2, "third"),
        (0, "first"),
        (1, "second"),
        (u16::MAX, "last"),
    ] {
        push(&space, &*tx, user, value);
    }
    let stamp = commit(&tx).await.stamp;
    let expected: Vec<(Stamp, String)> = [
        (0, "first"),
        (1, "second"),
        (2, "third"),
        (u16::MAX, "last"),
    ]
    .map(|(user, value)| (stamp.with_user(user), value.to_owned()))
    .into();
    assert_eq!(queue(&space).await, expected);
}

pub(super) async fn an_offset_without_room_fails_the_commit(space: Space) {
    for offset in [5, 6, 15, usize::MAX] {
        let tx = space.begin();
        set(&*tx, &space.key("other"), "value");
        tx.set_versionstamped_value(&space.key("a"), &[0; 14], offset);
        assert_kind(tx.commit().await, StoreErrorKind::InvalidCall);
        let tx = space.begin();
        set(&*tx, &space.key("other"), "value");
        let key_offset = offset.saturating_add(space.prefix_len());
        tx.set_versionstamped_key(&space.key([0; 14]), key_offset, b"");
        assert_kind(tx.commit().await, StoreErrorKind::InvalidCall);
    }
    assert!(
        space.content().await.is_empty(),
        "a failed transaction writes nothing"
    );
}

pub(super) async fn a_range_over_an_own_stamped_key_is_unreadable(space: Space) {
    space.put(&[("a", "1"), ("z", "2")]).await;
    let tx = space.begin();
    push(&space, &*tx, 0, "mine");
    assert_eq!(
        get(&tx, &space.key("z")).await.as_deref(),
        Some(&b"2"[..]),
        "elsewhere it reads"
    );
    commit(&tx).await;
    for snapshot in [false, true] {
        let tx = space.begin();
        get(&tx, &space.key("a")).await;
        push(&space, &*tx, 0, "mine too");
        let mut read = KeyRange::prefix(&space.key("q/")).read();
        if snapshot {
            read = read.snapshot();
        }
        assert_kind(tx.get_range(read).await, StoreErrorKind::Unreadable);
        assert_kind(tx.commit().await, StoreErrorKind::Unreadable);
    }
    assert_eq!(
        queue(&space).await.len(),
        1,
        "a failed transaction writes nothing"
    );
}

pub(super) async fn an_own_stamped_value_is_unreadable(space: Space) {
    let key = space.key("a");
    for isolation in [Isolation::Serializable, Isolation::Snapshot] {
        let tx = space.begin();
        tx.set_versionstamped_value(&key, &HOLE, 0);
        assert_kind(tx.get(&key, isolation).await, StoreErrorKind::Unreadable);
        assert_kind(tx.commit().await, StoreErrorKind::Unreadable);
    }
    assert_eq!(
        space.value("a").await,
        None,
        "a failed transaction writes nothing"
    );
}

/// The read may run later than it was asked for, on what had been written by then.
pub(super) async fn an_unreadable_read_fails_the_transaction_whatever_is_written_meanwhile(
    space: Space,
) {
    for _ in 0..20 {
        let tx = space.begin();
        push(&space, &*tx, 0, "mine");
        let read = tx.get_range(KeyRange::prefix(&space.key("q/")).read());
        set(&*tx, &space.key("other"), "value");
        assert_kind(read.await, StoreErrorKind::Unreadable);
        assert_kind(tx.commit().await, StoreErrorKind::Unreadable);
    }
    assert_eq!(
        space.value("other").await,
        None,
        "a failed transaction writes nothing"
    );
}

pub(super) async fn stamps_increase_from_commit_to_commit(space: Space) {
    let mut last = CommitStamp::new(Version(0), 0);
    let mut version = Version(0);
    for round in 0..100 {
        let committed = space.put(&[("a", &round.to_string())]).await;
        assert!(
            committed.stamp > last,
            "{:?} does not come after {last:?}",
            committed.stamp
        );
        assert!(committed.version >= version);
        (last, version) = (committed.stamp, committed.version);
    }
}

pub(super) async fn stamped_pushes_do_not_conflict_and_come_in_commit_order(space: Space) {
    const PRODUCERS: usize = 16;
    const EACH: usize = 20;
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let space = space.clone();
            tokio::spawn(async move {
                let mut stamps = Vec::new();
                for n in 0..EACH {
                    let tx = space.begin();
                    push(&space, &*tx, 7, &format!("{producer}/{n}"));
                    // Never a conflict: a retry would hide one.
                    stamps.push((commit(&tx).await.stamp, format!("{producer}/{n}")));
                }
                assert!(
                    stamps.is_sorted(),
                    "a producer's own pushes are in its order"
                );
                stamps
            })
        })
        .collect();
    let mut pushed = Vec::new();
    for producer in producers {
        pushed.extend(producer.await.unwrap());
    }
    pushed.sort();
    pushed.dedup_by_key(|(stamp, _)| *stamp);
    assert_eq!(pushed.len(), PRODUCERS * EACH, "two commits share a stamp");
    let expected: Vec<(Stamp, String)> = pushed
        .into_iter()
        .map(|(stamp, value)| (stamp.with_user(7), value))
        .collect();
    assert_eq!(queue(&space).await, expected);
}

use super::*;
use crate::durable::message::tests::cast;
use crate::store::{Database, MemoryStore, Store, after};
use crate::testing::sim::Sim;
use proptest::prelude::*;

const ALL: usize = 1_000_000;

/// A namespace on a store in memory.
pub(in crate::durable) struct World {
    sim: Sim,
    store: MemoryStore,
    pub(in crate::durable) namespace: Namespace,
}

pub(in crate::durable) fn instance(id: &str) -> InstanceId {
    InstanceId::new("kind", id).unwrap()
}

impl World {
    pub(in crate::durable) fn new() -> Self {
        let sim = Sim::new(1);
        let store = MemoryStore::with_env(sim.env());
        let db = Database::new(Arc::new(store.clone()), sim.env());
        let namespace = sim.block_on(Namespace::open(&db, "test")).unwrap().unwrap();
        Self {
            sim,
            store,
            namespace,
        }
    }

    pub(in crate::durable) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.sim.block_on(future).unwrap()
    }

    pub(in crate::durable) fn begin(&self) -> Tx {
        self.store.begin().unwrap()
    }

    pub(in crate::durable) fn keys(&self, id: &str) -> InstanceKeys {
        self.namespace.keys().instance(&instance(id))
    }

    pub(in crate::durable) async fn mark(&self, id: &str) {
        let tx = self.begin();
        ready::set_mark(&tx, &self.keys(id));
        tx.commit().await.unwrap();
    }

    /// Pushes to the instance `a`, in one transaction.
    async fn push(&self, names: &[&str]) {
        let tx = self.begin();
        self.push_in(&tx, names);
        tx.commit().await.unwrap();
    }

    fn push_in(&self, tx: &Tx, names: &[&str]) {
        let mut pushes = Pushes::new(&self.namespace, tx);
        for name in names {
            let message = cast(name, 10);
            pushes
                .push(&instance("a"), Lane::Ordinary, &message)
                .unwrap();
        }
        assert_eq!(pushes.len(), names.len());
    }

    async fn head(&self, tx: &Tx, rows: usize, bytes: usize) -> Result<Head, StoreError> {
        let keys = self.keys("a");
        read_head(tx, &keys, Lane::Ordinary, rows, bytes).await
    }

    async fn all(&self) -> Vec<String> {
        names(&self.head(&self.begin(), ALL, ALL).await.unwrap())
    }

    /// A transaction that pops the first `count` messages, not yet committed.
    async fn popping(&self, count: usize) -> Tx {
        let tx = self.begin();
        let head = self.head(&tx, ALL, ALL).await.unwrap();
        pop(&tx, &self.keys("a"), &head.messages[..count]);
        tx
    }

    async fn length(&self) -> i64 {
        length(&self.begin(), &self.keys("a")).await.unwrap()
    }
}

fn names(head: &Head) -> Vec<String> {
    let name = |queued: &Queued| queued.message.as_ref().unwrap().name.to_string();
    head.messages.iter().map(name).collect()
}

async fn conflict(tx: Tx) {
    let error = tx.commit().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
}

#[test]
fn messages_stand_in_the_order_of_their_pushes_each_under_its_own_stamp() {
    let world = World::new();
    world.run(async {
        world.push(&["a", "b", "c"]).await;
        world.push(&["d"]).await;
        world.push(&["e", "f"]).await;
        let head = world.head(&world.begin(), ALL, ALL).await.unwrap();
        assert_eq!(names(&head), ["a", "b", "c", "d", "e", "f"]);
        assert!(!head.more);
        assert!(head.messages.is_sorted_by(|a, b| a.stamp < b.stamp));
        let bytes = |stamp: Stamp| stamp.as_bytes()[..10].to_vec();
        assert_eq!(bytes(head.messages[0].stamp), bytes(head.messages[2].stamp));
    });
}

#[test]
fn a_push_marks_counts_and_wakes_once_per_shard() {
    let world = World::new();
    world.run(async {
        world.push(&["a", "b"]).await;
        let (tx, keys) = (world.begin(), world.keys("a"));
        assert!(ready::read_mark(&tx, &keys).await.unwrap().is_some());
        let wake = world.namespace.keys().wake(keys.shard());
        assert_eq!(tx.read_i64(&wake, Isolation::Snapshot).await.unwrap(), 1);
        assert_eq!(world.length().await, 2);
        for (lane, empty) in [(Lane::Ordinary, false), (Lane::Priority, true)] {
            let found = mailbox_is_empty(&tx, &keys, lane, Isolation::Snapshot).await;
            assert_eq!(found.unwrap(), empty);
        }
    });
}

#[test]
fn more_messages_than_user_versions_are_refused() {
    let world = World::new();
    let tx = world.begin();
    let mut pushes = Pushes::new(&world.namespace, &tx);
    pushes.count = usize::from(u16::MAX);
    let message = cast("last", 0);
    pushes
        .push(&instance("a"), Lane::Ordinary, &message)
        .unwrap();
    let error = pushes
        .push(&instance("a"), Lane::Ordinary, &message)
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TransactionTooLarge);
}

#[test]
fn a_message_that_would_leave_no_room_for_moving_it_is_refused() {
    let world = World::new();
    world.run(async {
        let tx = world.begin();
        let mut pushes = Pushes::new(&world.namespace, &tx);
        let message = cast("huge", MAX_MESSAGE_BYTES);
        let error = pushes
            .push(&instance("a"), Lane::Ordinary, &message)
            .unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::ValueTooLarge);
        assert_eq!(pushes.len(), 0);
        assert_eq!(tx.commit().await.unwrap(), None, "nothing was written");
    });
}

#[test]
fn pushes_conflict_neither_with_each_other_nor_with_a_pop_before_them() {
    let world = World::new();
    world.run(async {
        world.push(&["a", "b"]).await;
        let (one, two) = (world.begin(), world.begin());
        one.read_version().await.unwrap();
        two.read_version().await.unwrap();
        world.push_in(&one, &["c"]);
        world.push_in(&two, &["d"]);
        let popper = world.popping(2).await;
        one.commit().await.unwrap();
        popper.commit().await.unwrap();
        two.commit().await.unwrap();
        assert_eq!(world.all().await, ["c", "d"]);
        assert_eq!(world.length().await, 2);
    });
}

#[test]
fn of_two_poppers_of_one_head_exactly_one_commits() {
    let world = World::new();
    world.run(async {
        world.push(&["a", "b", "c"]).await;
        let (one, two) = (world.popping(2).await, world.popping(1).await);
        one.commit().await.unwrap();
        conflict(two).await;
        assert_eq!(world.all().await, ["c"]);
        assert_eq!(world.length().await, 1);
    });
}

#[test]
fn a_conflict_that_is_added_after_the_clear_would_let_both_poppers_commit() {
    let world = World::new();
    world.run(async {
        world.push(&["a"]).await;
        let (one, two) = (world.begin(), world.begin());
        for tx in [&one, &two] {
            let head = world.head(tx, ALL, ALL).await.unwrap();
            tx.clear_range(&head.messages[0].span);
            tx.add_read_conflict(&head.messages[0].span);
        }
        one.commit().await.unwrap();
        // Wrong, and the reason for the order in `pop`.
        two.commit().await.unwrap();
    });
}

#[test]
fn a_purge_out_of_the_middle_conflicts_with_a_pop_over_it_and_only_with_that() {
    for count in [1, 3] {
        for purge_first in [true, false] {
            let world = World::new();
            world.run(async {
                world.push(&["a", "b", "c"]).await;
                let popper = world.popping(count).await;
                let (purge, keys) = (world.begin(), world.keys("a"));
                let head = world.head(&world.begin(), ALL, ALL).await.unwrap();
                let stamp = head.messages[1].stamp;
                let found = find(&purge, &keys, Lane::Ordinary, stamp);
                let found = found.await.unwrap().unwrap();
                assert_eq!(found.message.as_ref().unwrap().name.as_ref(), "b");
                pop(&purge, &keys, std::slice::from_ref(&found));
                let (first, second) = match purge_first {
                    true => (purge, popper),
                    false => (popper, purge),
                };
                first.commit().await.unwrap();
                if count == 3 {
                    conflict(second).await;
                } else {
                    second.commit().await.unwrap();
                    assert_eq!(world.all().await, ["c"]);
                }
                let left = i64::try_from(world.all().await.len()).unwrap();
                assert_eq!(world.length().await, left);
            });
        }
    }
}

#[test]
fn the_length_vanishes_with_the_last_message() {
    let world = World::new();
    world.run(async {
        world.push(&["a", "b", "c"]).await;
        world.popping(1).await.commit().await.unwrap();
        assert_eq!(world.length().await, 2);
        world.popping(2).await.commit().await.unwrap();
        let left = world.begin().get_range(world.keys("a").all().read()).await;
        assert_eq!(left.unwrap(), [], "nothing of the instance is left");
    });
}

#[test]
fn whoever_conflicts_with_pushes_fails_at_any_push() {
    for lane in [Lane::Ordinary, Lane::Priority] {
        let world = World::new();
        world.run(async {
            let inline = world.begin();
            inline.read_version().await.unwrap();
            conflict_with_pushes(&inline, &world.keys("a"));
            inline.set(b"x", b"");
            let tx = world.begin();
            Pushes::new(&world.namespace, &tx)
                .push(&instance("a"), lane, &cast("a", 1))
                .unwrap();
            tx.commit().await.unwrap();
            conflict(inline).await;
        });
    }
}

#[test]
fn large_messages_come_back_whole_whatever_the_limits() {
    let world = World::new();
    world.run(async {
        let large = cast("large", 8_000_000);
        let tx = world.begin();
        let mut pushes = Pushes::new(&world.namespace, &tx);
        pushes.push(&instance("a"), Lane::Ordinary, &large).unwrap();
        assert!(size_of(&large) > 8_000_000);
        tx.commit().await.unwrap();
        world.push(&["behind"]).await;
        for (rows, bytes) in [(0, 0), (1, 1), (50, ALL), (ALL, 1), (1, 99 * ALL)] {
            let head = world.head(&world.begin(), rows, bytes).await.unwrap();
            assert_eq!(head.messages.len(), 1);
            assert!(head.messages[0].message.as_ref().unwrap() == &large);
            assert!(head.more);
        }
        let both = world.head(&world.begin(), ALL, 99 * ALL).await.unwrap();
        assert_eq!(names(&both), ["large", "behind"]);
        assert!(!both.more);
        world.popping(1).await.commit().await.unwrap();
        assert_eq!(world.all().await, ["behind"]);
    });
}

#[test]
fn limits_cut_between_messages_and_pages_follow_each_other() {
    let world = World::new();
    world.run(async {
        let tx = world.begin();
        let mut pushes = Pushes::new(&world.namespace, &tx);
        let mut pushed = Vec::new();
        for n in 0..100 {
            let message = cast(&format!("{n}"), if n % 3 == 0 { 200_000 } else { 5 });
            pushes
                .push(&instance("a"), Lane::Ordinary, &message)
                .unwrap();
            pushed.push(format!("{n}"));
        }
        tx.commit().await.unwrap();
        let (keys, tx) = (world.keys("a"), world.begin());
        for rows in 1..8 {
            let (mut found, mut rest) = (Vec::new(), keys.mailbox(Lane::Ordinary));
            loop {
                let lane = Lane::Ordinary;
                let page = read_from(&tx, &keys, lane, rest, rows, 500_000);
                let page = page.await.unwrap();
                assert!(page.messages.len() <= rows);
                found.extend(names(&page));
                rest = page.rest;
                if !page.more {
                    break;
                }
            }
            assert_eq!(found, pushed, "{rows} rows");
        }
        let head = world.head(&tx, ALL, ALL).await.unwrap();
        assert!(head.more && head.messages.iter().map(|m| m.bytes).sum::<usize>() <= ALL);
        let third = &head.messages[2];
        let from = since(&keys, Lane::Ordinary, third.incarnation, third.stamp);
        let page = read_from(&tx, &keys, Lane::Ordinary, from, 1, 1);
        assert_eq!(names(&page.await.unwrap()), ["2"]);
    });
}

#[test]
fn messages_of_an_older_incarnation_come_first_and_are_found() {
    let world = World::new();
    world.run(async {
        world.push(&["now"]).await;
        let keys = world.keys("a");
        let now = world.head(&world.begin(), 1, 1).await.unwrap().messages;
        // As a restored namespace would be: the next incarnation, with versions that began anew.
        let tx = world.begin();
        let early = Stamp::from_bytes([0; Stamp::LEN]);
        let encoded = value::encode(&cast("next", 1)).unwrap();
        let key_of = |chunk| keys.message(Lane::Ordinary, 7, early, chunk);
        chunk::write(&tx, key_of, &encoded).unwrap();
        tx.commit().await.unwrap();
        assert_eq!(world.all().await, ["now", "next"]);
        let tx = world.begin();
        for (stamp, name) in [(now[0].stamp, "now"), (early, "next")] {
            let found = find(&tx, &keys, Lane::Ordinary, stamp).await;
            assert_eq!(&*found.unwrap().unwrap().message.unwrap().name, name);
        }
        let missing = Stamp::from_bytes([9; Stamp::LEN]);
        let found = find(&tx, &keys, Lane::Ordinary, missing).await;
        assert!(found.unwrap().is_none());
    });
}

#[test]
fn a_damaged_message_keeps_its_place_and_can_be_purged() {
    let world = World::new();
    world.run(async {
        world.push(&["a", "b", "c"]).await;
        let (tx, keys) = (world.begin(), world.keys("a"));
        let b = world.head(&tx, ALL, ALL).await.unwrap().messages.remove(1);
        // A chunk too many, and a key within the message's span that is none.
        tx.set(&keys.message(Lane::Ordinary, 0, b.stamp, 1), b"more");
        tx.set(&after(&keys.message(Lane::Ordinary, 0, b.stamp, 0)), b"");
        tx.commit().await.unwrap();
        let tx = world.begin();
        let head = world.head(&tx, ALL, ALL).await.unwrap();
        let [a, b, c] = &head.messages[..] else {
            panic!("{head:?}");
        };
        assert!(a.message.is_ok() && c.message.is_ok());
        let error = b.message.as_ref().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        pop(&tx, &keys, std::slice::from_ref(b));
        tx.commit().await.unwrap();
        assert_eq!(world.all().await, ["a", "c"]);
    });
}

#[test]
fn a_foreign_key_is_reported_when_it_is_at_the_head() {
    let world = World::new();
    world.run(async {
        world.push(&["a"]).await;
        let (tx, mailbox) = (world.begin(), world.keys("a").mailbox(Lane::Ordinary));
        let foreign = [&mailbox.begin[..], b"\x30zzz"].concat();
        tx.set(&foreign, b"");
        tx.commit().await.unwrap();
        let head = world.head(&world.begin(), ALL, ALL).await.unwrap();
        assert_eq!((names(&head), head.more), (vec!["a".to_owned()], true));
        world.popping(1).await.commit().await.unwrap();
        let error = world.head(&world.begin(), ALL, ALL).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert!(error.to_string().contains("0zzz"), "{error}");
    });
}

/// Incarnation, stamp and chunk, or the bytes behind the mailbox's prefix.
type AnyKey = Result<(u32, u8, u32), Vec<u8>>;

/// A row that could have strayed into a mailbox: its key right but for its numbers, or any; its value
/// any, with small counts more likely.
fn any_row() -> impl Strategy<Value = (AnyKey, Vec<u8>)> {
    let key = prop_oneof![
        9 => (0..2_u32, 0..3_u8, 0..4_u32).prop_map(Ok),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Err),
    ];
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        (0..4_u8, any::<u8>()).prop_map(|(count, byte)| vec![0, count, 1, byte]),
    ];
    (key, value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_stands_in_a_mailbox_is_taken_out_piece_by_piece_or_named(
        rows in prop::collection::vec(any_row(), 0..20), limit in 0..6_usize, bytes in 0..400_usize,
    ) {
        let world = World::new();
        world.run(async {
            let (tx, keys) = (world.begin(), world.keys("a"));
            let mailbox = keys.mailbox(Lane::Ordinary);
            for (key, value) in &rows {
                let key = match key {
                    Ok((incarnation, stamp, chunk)) => {
                        let stamp = Stamp::from_bytes([*stamp; Stamp::LEN]);
                        keys.message(Lane::Ordinary, *incarnation, stamp, *chunk)
                    }
                    Err(suffix) => [&mailbox.begin[..], suffix].concat().into(),
                };
                if mailbox.contains(&key) {
                    tx.set(&key, value);
                }
            }
            tx.commit().await.unwrap();
            loop {
                let tx = world.begin();
                let before = tx.get_range(mailbox.read().snapshot()).await.unwrap().len();
                let Ok(head) = world.head(&tx, limit, bytes).await else {
                    break;
                };
                assert_eq!(head.messages.is_empty(), before == 0);
                if before == 0 {
                    break;
                }
                pop(&tx, &keys, &head.messages);
                let after = tx.get_range(mailbox.read().snapshot()).await.unwrap().len();
                assert!(after < before);
                assert_eq!(head.more, after > 0);
                tx.commit().await.unwrap();
            }
        });
    }
}

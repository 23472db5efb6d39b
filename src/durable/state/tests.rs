use super::*;
use crate::codec::diff;
use crate::durable::chunk::CHUNK_BYTES;
use crate::durable::keys::Keys;
use crate::id::InstanceId;
use crate::store::{MemoryStore, Store, StoreErrorKind, TransactionExt};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn keys() -> InstanceKeys {
    let keys = Keys::new(Keys::namespace_prefix("test"), 8);
    keys.instance(&InstanceId::new("cart", "7").unwrap())
}

fn path(name: &str) -> Path {
    Path::root().child(name)
}

fn leaves(sizes: &[(Path, usize)]) -> Leaves {
    let filled = |(path, size): &(Path, usize)| (path.clone(), vec![7; *size].into());
    sizes.iter().map(filled).collect()
}

async fn dump(store: &MemoryStore, range: KeyRange) -> Vec<KeyValue> {
    let tx = store.begin().unwrap();
    tx.get_range(range.read()).await.unwrap()
}

async fn stored(store: &MemoryStore) -> Leaves {
    load(&store.begin().unwrap(), &keys()).await.unwrap()
}

/// Turns the stored leaves from `before` into `after`; returns which of the keys that are there
/// before or afterwards were written or cleared, the version's apart.
async fn change(store: &MemoryStore, before: &Leaves, after: &Leaves) -> BTreeSet<Bytes> {
    let known = dump(store, keys().state()).await;
    let tx = store.begin().unwrap();
    write(&tx, &keys(), &diff(before, after), before, 1).unwrap();
    // A transaction that read a key before the commit conflicts with it if the key was written.
    let mut probes = Vec::new();
    let all: BTreeSet<Bytes> = known
        .into_iter()
        .map(|row| row.key)
        .chain(expected_keys(after))
        .collect();
    for key in all {
        let probe = store.begin().unwrap();
        probe.read_version().await.unwrap();
        probe.add_read_conflict_key(&key);
        probe.set(b"probe", b"");
        probes.push((key, probe));
    }
    tx.commit().await.unwrap();
    let mut written = BTreeSet::new();
    for (key, probe) in probes {
        if let Err(error) = probe.commit().await {
            assert_eq!(error.kind(), StoreErrorKind::Conflict);
            written.insert(key);
        }
    }
    assert_eq!(stored(store).await, *after);
    let there: BTreeSet<Bytes> = dump(store, keys().state())
        .await
        .into_iter()
        .map(|row| row.key)
        .collect();
    assert_eq!(there, expected_keys(after).collect());
    written
}

fn expected_keys(leaves: &Leaves) -> impl Iterator<Item = Bytes> {
    let prefix = keys().state().begin;
    leaves.iter().flat_map(move |(path, bytes)| {
        let key = [&prefix[..], path.as_tuple()].concat();
        (0..chunk::count(bytes.len()))
            .map(move |number| chunk_key(&key, u32::try_from(number).unwrap()))
    })
}

#[tokio::test]
async fn a_state_comes_back_with_its_version() {
    let (store, keys) = (MemoryStore::new(), keys());
    let tx = store.begin().unwrap();
    assert_eq!(read_version(&tx, &keys).await.unwrap(), None);
    let state = leaves(&[
        (Path::root(), 2),
        (path("a"), 0),
        (path("b").child(3_u64), 40),
    ]);
    write(&tx, &keys, &diff(&Leaves::new(), &state), &Leaves::new(), 9).unwrap();
    let stamp = tx.commit().await.unwrap().unwrap().stamp;
    let tx = store.begin().unwrap();
    let version = read_version(&tx, &keys).await.unwrap();
    assert_eq!(version, Some(StateVersion { stamp, schema: 9 }));
    assert_eq!(load(&tx, &keys).await.unwrap(), state);
    delete(&tx, &keys);
    tx.commit().await.unwrap();
    assert_eq!(dump(&store, keys.all()).await, []);
}

#[tokio::test]
async fn an_empty_state_has_a_version() {
    let (store, keys) = (MemoryStore::new(), keys());
    let tx = store.begin().unwrap();
    touch(&tx, &keys, 1);
    tx.commit().await.unwrap();
    let tx = store.begin().unwrap();
    assert!(read_version(&tx, &keys).await.unwrap().is_some());
    assert!(load(&tx, &keys).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_changed_field_is_one_write_and_the_version() {
    let store = MemoryStore::new();
    let before = leaves(&[(Path::root(), 2), (path("a"), 5), (path("b"), 200_000)]);
    change(&store, &Leaves::new(), &before).await;
    let mut after = before.clone();
    after.insert(path("a"), Bytes::from_static(b"new"));
    let tx = store.begin().unwrap();
    let version = read_version(&tx, &keys()).await.unwrap();
    let written = change(&store, &before, &after).await;
    assert_eq!(written, expected_keys(&leaves(&[(path("a"), 3)])).collect());
    let tx = store.begin().unwrap();
    assert_ne!(read_version(&tx, &keys()).await.unwrap(), version);
}

#[tokio::test]
async fn a_leaf_that_grows_and_shrinks_leaves_no_chunk_behind() {
    let store = MemoryStore::new();
    let neighbours = [
        (path("a"), 3),
        (path("big").child("x"), 4),
        (path("bigger"), 5),
    ];
    let mut before = Leaves::new();
    let sizes = [
        1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        500_000,
        2 * CHUNK_BYTES,
        9,
        300_000,
    ];
    for size in sizes {
        let mut after = leaves(&neighbours);
        after.insert(path("big"), vec![7; size].into());
        change(&store, &before, &after).await;
        before = after;
    }
    let without = leaves(&neighbours);
    // What is below a leaf stays when the leaf alone goes.
    let tx = store.begin().unwrap();
    write(&tx, &keys(), &[Change::Clear(path("big"))], &before, 1).unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stored(&store).await, without);
}

#[tokio::test]
async fn clearing_a_tree_clears_its_chunks_and_no_neighbours() {
    let store = MemoryStore::new();
    let tree = path("a");
    let kept = [
        (Path::root(), 2),
        (path("a\0"), 100_000),
        (path("a\0b"), 3),
        (path("b"), 100_000),
    ];
    let mut before = leaves(&kept);
    before.insert(tree.clone(), vec![1; 200_000].into());
    before.insert(tree.child("x"), vec![1; 200_000].into());
    before.insert(tree.child(5_u64), vec![1; 3].into());
    change(&store, &Leaves::new(), &before).await;
    let tx = store.begin().unwrap();
    let again = Bytes::from(vec![1; 100_000]);
    // A part of what was cleared comes back: nothing of it may be taken for stored.
    let changes = [
        Change::ClearTree(tree.clone()),
        Change::Set(tree.clone(), again.clone()),
        Change::Set(tree.child("x"), again.clone()),
    ];
    write(&tx, &keys(), &changes, &before, 1).unwrap();
    tx.commit().await.unwrap();
    let mut after = leaves(&kept);
    after.insert(tree.clone(), again.clone());
    after.insert(tree.child("x"), again);
    assert_eq!(stored(&store).await, after);
}

#[tokio::test]
async fn a_state_is_loaded_at_one_version_while_writers_go_on() {
    let store = MemoryStore::new();
    let of = |byte: u8| -> Leaves {
        let small = (0..600_u64).map(|n| (Path::root().child(n), vec![byte; 3].into()));
        small
            .chain([(path("big"), vec![byte; 200_000].into())])
            .collect()
    };
    let mut current = Leaves::new();
    change(&store, &current, &of(1)).await;
    current = of(1);
    let tx = store.begin().unwrap();
    let version = read_version(&tx, &keys()).await.unwrap();
    let mut writers = Vec::new();
    let reading = load(&tx, &keys());
    for byte in 2..5 {
        let tx = store.begin().unwrap();
        write(&tx, &keys(), &diff(&current, &of(byte)), &current, 1).unwrap();
        writers.push(tx);
        current = of(byte);
    }
    let writing = async {
        for writer in writers {
            writer.commit().await.unwrap();
        }
    };
    let (loaded, ()) = futures_util::future::join(reading, writing).await;
    assert_eq!(loaded.unwrap(), of(1));
    assert_eq!(read_version(&tx, &keys()).await.unwrap(), version);
    assert_eq!(stored(&store).await, of(4));
    // Leaves are covered by the version, which makes the late writer fail.
    tx.set(b"other", b"");
    assert_eq!(
        tx.commit().await.unwrap_err().kind(),
        StoreErrorKind::Conflict
    );
}

#[tokio::test]
async fn a_leaf_too_large_for_any_transaction_is_refused() {
    let tx = MemoryStore::new().begin().unwrap();
    let huge = leaves(&[(path("a"), 11_000_000)]);
    let changes = diff(&Leaves::new(), &huge);
    let error = write(&tx, &keys(), &changes, &Leaves::new(), 1).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ValueTooLarge);
}

#[tokio::test]
async fn missing_and_foreign_chunks_are_corrupt_and_named() {
    let leaf = [&keys().state().begin[..], path("a").as_tuple()].concat();
    let too_deep = (0..200_u64).fold(Path::root(), |path, _| path.child(1_u64));
    let too_deep = [&keys().state().begin[..], too_deep.as_tuple()].concat();
    let cases: [(Bytes, Option<&[u8]>); 7] = [
        (leaf.clone().into(), None),
        (chunk_key(&leaf, 1), None),
        (chunk_key(&leaf, 2), None),
        (chunk_key(&leaf, 3), Some(b"x")),
        (chunk_key(&leaf, 2), Some(b"")),
        (with(&leaf, CHUNKS).into(), Some(b"x")),
        (too_deep.into(), Some(b"\0\x01x")),
    ];
    for (key, value) in cases {
        let store = MemoryStore::new();
        let long = leaves(&[(path("a"), 180_001), (path("b"), 1)]);
        change(&store, &Leaves::new(), &long).await;
        let tx = store.begin().unwrap();
        match value {
            Some(value) => tx.set(&key, value),
            None => tx.clear(&key),
        }
        tx.commit().await.unwrap();
        let error = load(&store.begin().unwrap(), &keys()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{key:?}");
        assert!(error.to_string().contains("key \""), "{error}");
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        rows in prop::collection::vec(
            (
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..12),
                    (0_u64..3, 0_u32..4).prop_map(|(leaf, chunk)| {
                        chunk_key(Path::root().child(leaf).as_tuple(), chunk).to_vec()
                    }),
                ],
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..12),
                    (0_u8..4, Just(CHUNK_BYTES)).prop_map(|(chunks, length)| {
                        let mut value = vec![7; length + 2];
                        value[..2].copy_from_slice(&[0, chunks]);
                        value
                    }),
                ],
            ),
            1..8,
        ),
        version in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, keys) = (MemoryStore::new(), keys());
            let tx = store.begin().unwrap();
            for (tail, value) in rows {
                let key = [&keys.state().begin[..], &tail].concat();
                if keys.state().contains(&key) {
                    tx.set(&key, &value);
                }
            }
            tx.set(&keys.version(), &version);
            tx.commit().await.unwrap();
            let tx = store.begin().unwrap();
            if let Err(error) = load(&tx, &keys).await {
                assert_eq!(error.kind(), StoreErrorKind::Corrupt);
            }
            let found = read_version(&tx, &keys).await;
            assert_eq!(found.is_ok(), version.len() == 15 && version[0] == FORMAT);
        });
    }
}

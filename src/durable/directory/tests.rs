use super::*;
use crate::store::{MemoryStore, Store, StoreErrorKind};
use proptest::prelude::*;

fn keys() -> Keys {
    Keys::new(Keys::namespace_prefix("test"), 8)
}

fn instance(kind: &str, id: &str) -> InstanceId {
    InstanceId::new(kind, id).unwrap()
}

async fn listed(store: &MemoryStore, kind: Option<&str>, limit: usize) -> Vec<(InstanceId, u64)> {
    let mut all = Vec::new();
    let mut next = Some(keys().directory_of(kind));
    while let Some(range) = next {
        let tx = store.begin().unwrap();
        let page = list(&tx, &keys(), range, limit).await.unwrap();
        assert!(page.entries.len() <= limit);
        for entry in page.entries {
            let created = read(&tx, &keys(), &entry).await.unwrap();
            all.push((entry, created.unwrap()));
        }
        next = page.next;
    }
    all
}

#[tokio::test]
async fn instances_are_listed_by_kind_page_by_page() {
    let store = MemoryStore::new();
    let tx = store.begin().unwrap();
    for (kind, id, created) in [("b", "1", 4), ("a", "2", 2), ("a", "1", 1), ("a\0", "1", 3)] {
        add(&tx, &keys(), &instance(kind, id), created).unwrap();
    }
    tx.commit().await.unwrap();
    for limit in 1..6 {
        let all = listed(&store, None, limit).await;
        let created: Vec<u64> = all.iter().map(|(_, created)| *created).collect();
        assert_eq!(created, [1, 2, 3, 4]);
        let of_a = listed(&store, Some("a"), limit).await;
        assert_eq!(of_a, [(instance("a", "1"), 1), (instance("a", "2"), 2)]);
    }
}

#[tokio::test]
async fn an_entry_is_there_until_it_is_removed() {
    let (store, cart) = (MemoryStore::new(), instance("cart", "7"));
    let tx = store.begin().unwrap();
    assert_eq!(read(&tx, &keys(), &cart).await.unwrap(), None);
    add(&tx, &keys(), &cart, 12).unwrap();
    assert_eq!(read(&tx, &keys(), &cart).await.unwrap(), Some(12));
    remove(&tx, &keys(), &cart);
    assert_eq!(read(&tx, &keys(), &cart).await.unwrap(), None);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_listed_all_the_same() {
    let (store, cart) = (MemoryStore::new(), instance("cart", "7"));
    let tx = store.begin().unwrap();
    tx.set(&keys().directory(&cart), b"?");
    let error = read(&tx, &keys(), &cart).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    let range = keys().directory_of(None);
    let page = list(&tx, &keys(), range, 10).await.unwrap();
    assert_eq!(page.entries, [cart]);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        rows in prop::collection::vec(
            (
                prop::collection::vec(any::<u8>(), 0..8),
                prop::collection::vec(any::<u8>(), 0..12),
            ),
            0..10,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let tx = MemoryStore::new().begin().unwrap();
            let range = keys().directory_of(None);
            let mut planted = 0;
            for (tail, value) in rows {
                let key = [&range.begin[..], &tail].concat();
                if range.contains(&key) && tx.get(&key, Isolation::Snapshot).await.unwrap().is_none() {
                    tx.set(&key, &value);
                    planted += 1;
                }
            }
            let page = list(&tx, &keys(), range, 100).await.unwrap();
            assert_eq!(page.entries.len() + page.undecodable.len(), planted);
        });
    }
}

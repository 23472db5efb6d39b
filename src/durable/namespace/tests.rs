use super::*;
use crate::env::TokioEnv;
use crate::store::MemoryStore;
use std::sync::Arc;

fn database() -> Database {
    Database::new(Arc::new(MemoryStore::new()), Arc::new(TokioEnv::current()))
}

async fn plant(db: &Database, value: &[u8]) {
    let key = Keys::new(Keys::namespace_prefix("app"), 1).meta();
    let tx = db.store().begin().unwrap();
    tx.set(&key, value);
    tx.commit().await.unwrap();
}

fn meta(layout: u32, shards: u32) -> Vec<u8> {
    encode(&Meta {
        layout,
        shards,
        incarnation: 0,
    })
    .unwrap()
}

#[tokio::test]
async fn the_number_of_shards_is_fixed_at_creation() {
    let db = database();
    let first = Namespace::open_with_shards(&db, "app", 7).await.unwrap();
    let second = Namespace::open_with_shards(&db, "app", 9).await.unwrap();
    assert_eq!((first.keys().shards(), second.keys().shards()), (7, 7));
}

#[tokio::test]
async fn namespaces_do_not_share_keys() {
    let db = database();
    let app = Namespace::open(&db, "app").await.unwrap();
    let apple = Namespace::open(&db, "apple").await.unwrap();
    assert!(!app.keys().all().intersects(&apple.keys().all()));
}

#[tokio::test]
async fn a_namespace_of_a_newer_layout_is_refused_and_named() {
    /// A layout that has nothing in common with this one but its number.
    #[derive(Serialize)]
    struct Newer {
        layout: u32,
        partitions: Vec<String>,
    }
    let newer = Newer {
        layout: LAYOUT + 1,
        partitions: vec!["one".to_owned()],
    };
    let newer = [&[FORMAT][..], &codec::to_payload(&newer).unwrap()].concat();
    for value in [meta(LAYOUT + 1, 64), newer, vec![FORMAT + 1, 0xc1]] {
        let db = database();
        plant(&db, &value).await;
        let error = Namespace::open(&db, "app").await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::InvalidStore);
        let said = error.to_string();
        assert!(
            said.contains("`app`") && said.contains("upgrade this program"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_namespace_of_an_older_layout_is_refused_and_the_way_out_named() {
    let db = database();
    plant(&db, &meta(LAYOUT - 1, 64)).await;
    let error = Namespace::open(&db, "app").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidStore);
    assert!(
        error.to_string().contains("export the namespace"),
        "{error}"
    );
}

#[tokio::test]
async fn a_corrupt_description_is_an_error_and_stays_as_it_is() {
    for value in [
        &b""[..],
        b"\x01",
        b"\x01\xff\xff\xff",
        &meta(LAYOUT, 0),
        &meta(LAYOUT, u32::MAX),
        &meta(0, 1),
    ] {
        let db = database();
        plant(&db, value).await;
        let error = Namespace::open(&db, "app").await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{value:?}");
        let key = Keys::new(Keys::namespace_prefix("app"), 1).meta();
        let kept = db.store().begin().unwrap().read(&key).await.unwrap();
        assert_eq!(kept.as_deref(), Some(value));
    }
}

#[tokio::test]
async fn a_name_that_would_fill_the_keys_is_refused() {
    let db = database();
    for name in ["".to_owned(), "n".repeat(MAX_NAME_BYTES + 1)] {
        let error = Namespace::open(&db, &name).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::InvalidCall);
    }
}

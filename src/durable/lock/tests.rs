use super::*;
use crate::durable::keys::Keys;
use crate::durable::message::CallId;
use crate::id::InstanceId;
use crate::store::{MemoryStore, Store, StoreErrorKind};
use proptest::prelude::*;

fn keys() -> InstanceKeys {
    let keys = Keys::new(Keys::namespace_prefix("test"), 8);
    keys.instance(&InstanceId::new("cart", "7").unwrap())
}

fn new_lock(session: u8) -> NewLock {
    NewLock {
        session: SessionId::from_bytes([session; SessionId::LEN]),
        attempts: 2,
        stops: 0,
        not_before_ms: 5,
        taken_ms: 1_700_000_000_000,
        stamp: Some(Stamp::from_bytes([3; Stamp::LEN])),
        lane: keys::Lane::Priority,
        error: "refused".into(),
    }
}

fn message(length: usize) -> Message {
    let session = SessionId::from_bytes([8; SessionId::LEN]);
    Message {
        name: "charge".into(),
        payload: vec![0xc0; length].into(),
        call: Some(CallId { session, call: 4 }),
        query: false,
        sender: Some(session),
        sent_ms: 6,
        trace: None,
        failed: None,
        deadline_ms: None,
        idempotency_key: None,
    }
}

async fn taken(store: &MemoryStore, lock: &NewLock, message: Option<&Message>) -> CommitStamp {
    let tx = store.begin().unwrap();
    take(&tx, &keys(), lock, message).unwrap();
    tx.commit().await.unwrap().unwrap().stamp
}

async fn found(store: &MemoryStore) -> Option<Lock> {
    let tx = store.begin().unwrap();
    read_lock(&tx, &keys()).await.unwrap()
}

async fn found_message(store: &MemoryStore) -> Result<Message, StoreError> {
    read_message(&store.begin().unwrap(), &keys()).await
}

async fn rows(store: &MemoryStore) -> usize {
    let tx = store.begin().unwrap();
    tx.get_range(keys().all().read()).await.unwrap().len()
}

#[tokio::test]
async fn a_lock_is_named_by_the_commit_that_took_it() {
    let store = MemoryStore::new();
    assert_eq!(found(&store).await, None);
    let new = new_lock(1);
    let token = taken(&store, &new, Some(&message(10))).await;
    let expected = Lock {
        token,
        session: new.session,
        nonce: 0,
        attempts: 2,
        stops: 0,
        not_before_ms: 5,
        taken_ms: 1_700_000_000_000,
        stamp: new.stamp,
        lane: keys::Lane::Priority,
        error: "refused".into(),
    };
    assert_eq!(found(&store).await, Some(expected));
    assert_eq!(found_message(&store).await.unwrap(), message(10));
    let inline = NewLock {
        stamp: None,
        lane: keys::Lane::Ordinary,
        ..new
    };
    taken(&store, &inline, None).await;
    let lock = found(&store).await.unwrap();
    assert_eq!((lock.stamp, lock.lane), (None, keys::Lane::Ordinary));
}

#[tokio::test]
async fn a_large_message_is_kept_by_renewals_and_takeovers_and_goes_with_the_lock() {
    let store = MemoryStore::new();
    taken(&store, &new_lock(1), Some(&message(8_000_000))).await;
    let held = found(&store).await.unwrap();
    let tx = store.begin().unwrap();
    assert!(renew(&tx, &keys(), held.token).await.unwrap().is_some());
    tx.commit().await.unwrap();
    taken(&store, &new_lock(2), None).await;
    assert_eq!(found_message(&store).await.unwrap(), message(8_000_000));
    // Another, shorter message leaves nothing of it.
    taken(&store, &new_lock(2), Some(&message(100_000))).await;
    assert_eq!(found_message(&store).await.unwrap(), message(100_000));
    assert_eq!(rows(&store).await, 3);
    let tx = store.begin().unwrap();
    clear(&tx, &keys());
    tx.commit().await.unwrap();
    assert_eq!(rows(&store).await, 0);
}

#[tokio::test]
async fn a_renewal_keeps_the_token_and_moves_the_nonce() {
    let store = MemoryStore::new();
    let token = taken(&store, &new_lock(1), Some(&message(1))).await;
    let held = found(&store).await.unwrap();
    let tx = store.begin().unwrap();
    let renewed = renew(&tx, &keys(), held.token).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    assert_eq!((renewed.token, renewed.nonce), (token, 1));
    assert_eq!(found(&store).await, Some(renewed));
}

#[tokio::test]
async fn a_former_holder_is_fenced_after_a_takeover_and_after_the_end() {
    let store = MemoryStore::new();
    taken(&store, &new_lock(1), Some(&message(1))).await;
    let former = found(&store).await.unwrap();
    // The same session, nonce and all: the token alone tells them apart.
    let token = taken(&store, &new_lock(1), None).await;
    let current = found(&store).await.unwrap();
    assert!(current.is_held_by(token) && !current.is_held_by(former.token));
    let tx = store.begin().unwrap();
    assert_eq!(renew(&tx, &keys(), former.token).await.unwrap(), None);
    tx.commit().await.unwrap();
    assert_eq!(found(&store).await, Some(current.clone()));
    let tx = store.begin().unwrap();
    clear(&tx, &keys());
    tx.commit().await.unwrap();
    let tx = store.begin().unwrap();
    assert_eq!(renew(&tx, &keys(), current.token).await.unwrap(), None);
}

#[tokio::test]
async fn of_a_renewal_and_a_takeover_at_once_one_fails() {
    let store = MemoryStore::new();
    taken(&store, &new_lock(1), Some(&message(1))).await;
    let held = found(&store).await.unwrap();
    let renewing = store.begin().unwrap();
    assert!(
        renew(&renewing, &keys(), held.token)
            .await
            .unwrap()
            .is_some()
    );
    let taking = store.begin().unwrap();
    assert_eq!(read_lock(&taking, &keys()).await.unwrap(), Some(held));
    take(&taking, &keys(), &new_lock(2), None).unwrap();
    taking.commit().await.unwrap();
    let error = renewing.commit().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
}

#[tokio::test]
async fn a_long_error_is_cut_between_characters() {
    let store = MemoryStore::new();
    let error = "é".repeat(100_000);
    let lock = NewLock {
        error: format!("x{error}"),
        ..new_lock(1)
    };
    taken(&store, &lock, Some(&message(1))).await;
    let error = found(&store).await.unwrap().error;
    assert_eq!(error.len(), MAX_ERROR_BYTES - 1);
    assert!(error.ends_with('é'));
}

#[tokio::test]
async fn a_lock_without_its_whole_message_is_corrupt_and_named() {
    for missing in 0..3 {
        let store = MemoryStore::new();
        taken(&store, &new_lock(1), Some(&message(200_000))).await;
        let tx = store.begin().unwrap();
        tx.clear(&keys().lock_message_chunk(missing));
        tx.commit().await.unwrap();
        let error = found_message(&store).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert!(error.to_string().contains("key \""), "{error}");
    }
    let error = found_message(&MemoryStore::new()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        header in prop::collection::vec(any::<u8>(), 0..40),
        rows in prop::collection::vec(
            (
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..6),
                    (0_u8..4).prop_map(|chunk| vec![0x15, chunk]),
                ],
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..12),
                    prop::collection::vec(any::<u8>(), 0..12)
                        .prop_map(|tail| [&[0, 1, 1][..], &tail].concat()),
                ],
            ),
            0..6,
        ),
        change in (0_usize..200, any::<u8>()),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::new();
            let tx = store.begin().unwrap();
            for (tail, value) in rows {
                let key = [&keys().lock_message().begin[..], &tail].concat();
                if keys().lock_message().contains(&key) {
                    tx.set(&key, &value);
                }
            }
            tx.set(&keys().lock(), &header);
            tx.commit().await.unwrap();
            let found = read_lock(&store.begin().unwrap(), &keys()).await;
            if let Err(error) = found {
                assert_eq!(error.kind(), StoreErrorKind::Corrupt);
            }
            if let Err(error) = found_message(&store).await {
                assert_eq!(error.kind(), StoreErrorKind::Corrupt);
            }
        });
        // And a sound header with one byte changed.
        let sound = Lock {
            token: CommitStamp::from_bytes([1; CommitStamp::LEN]),
            ..decode(b"key", &encode(&sound_lock()).unwrap()).unwrap()
        };
        let mut bytes = encode(&sound).unwrap();
        if let Some(byte) = bytes.get_mut(change.0) {
            *byte = change.1;
        }
        if let Err(error) = decode(b"key", &bytes) {
            assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        }
    }
}

fn sound_lock() -> Lock {
    let new = new_lock(1);
    Lock {
        token: CommitStamp::from_bytes([0; CommitStamp::LEN]),
        session: new.session,
        nonce: 0,
        attempts: new.attempts,
        stops: 0,
        not_before_ms: new.not_before_ms,
        taken_ms: new.taken_ms,
        stamp: new.stamp,
        lane: new.lane,
        error: new.error,
    }
}

use super::*;
use crate::durable::pause::{self, Paused};
use crate::durable::queue::tests::World;
use crate::store::StoreErrorKind;

fn failed() -> Attempts {
    Attempts {
        stamp: Stamp::from_bytes([1; Stamp::LEN]),
        until: Stamp::from_bytes([2; Stamp::LEN]),
        attempts: 3,
        shared: 0,
        not_before_ms: 4,
        claim: Some(SessionId::from_bytes([5; SessionId::LEN])),
        error: "ü".repeat(MAX_ERROR_BYTES),
        first_ms: 6,
    }
}

#[test]
fn attempts_are_kept_per_mailbox_with_a_bounded_error() {
    let world = World::new();
    world.run(async {
        let (tx, keys) = (world.begin(), world.keys("a"));
        write(&tx, &keys, Lane::Priority, &failed()).unwrap();
        tx.commit().await.unwrap();
        let tx = world.begin();
        let stored = read(&tx, &keys, Lane::Priority).await.unwrap().unwrap();
        let mut expected = failed();
        expected.error = "ü".repeat(MAX_ERROR_BYTES / 2);
        assert_eq!(stored, expected);
        assert_eq!(read(&tx, &keys, Lane::Ordinary).await.unwrap(), None);
        clear(&tx, &keys, Lane::Priority);
        assert_eq!(read(&tx, &keys, Lane::Priority).await.unwrap(), None);
    });
}

#[test]
fn a_claim_or_a_pause_that_comes_meanwhile_fails_who_did_not_see_it() {
    let world = World::new();
    world.run(async {
        let keys = world.keys("a");
        let (one, two) = (world.begin(), world.begin());
        read(&one, &keys, Lane::Ordinary).await.unwrap();
        one.set(b"one", b"");
        pause::read_at(&two, keys.paused()).await.unwrap();
        two.set(b"two", b"");
        let tx = world.begin();
        write(&tx, &keys, Lane::Ordinary, &failed()).unwrap();
        let paused = Paused {
            since_ms: 1,
            reason: "maintenance".to_owned(),
        };
        pause::set(&tx, &keys, &paused).unwrap();
        tx.commit().await.unwrap();
        for tx in [one, two] {
            let error = tx.commit().await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Conflict);
        }
        let tx = world.begin();
        assert_eq!(
            pause::read_at(&tx, keys.paused()).await.unwrap(),
            Some(paused)
        );
        tx.clear(&keys.paused());
        assert_eq!(pause::read_at(&tx, keys.paused()).await.unwrap(), None);
    });
}

#[test]
fn foreign_bytes_are_corrupt() {
    let world = World::new();
    world.run(async {
        let (tx, keys) = (world.begin(), world.keys("a"));
        tx.set(&keys.attempts(Lane::Ordinary), b"\x01\xc0");
        tx.set(&keys.paused(), b"");
        let error = read(&tx, &keys, Lane::Ordinary).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        let error = pause::read_at(&tx, keys.paused()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    });
}

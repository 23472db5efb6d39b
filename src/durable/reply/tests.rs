use super::*;
use crate::durable::keys::SessionId;
use crate::store::{Isolation, MemoryStore, Store, StoreErrorKind};
use proptest::prelude::*;

fn all_keys() -> Keys {
    Keys::new(Keys::namespace_prefix("test"), 8)
}

fn keys() -> SessionKeys {
    all_keys().session(session())
}

fn session() -> SessionId {
    SessionId::from_bytes([5; SessionId::LEN])
}

fn reply(length: usize) -> Answer {
    Answer::Reply(vec![0xc0; length].into())
}

async fn staged(store: &MemoryStore, answers: &[(u64, Answer)]) {
    let tx = store.begin().unwrap();
    for (call, answer) in answers {
        let call = CallId {
            session: session(),
            call: *call,
        };
        stage(&tx, &all_keys(), call, answer).unwrap();
    }
    tx.commit().await.unwrap();
}

async fn planted(store: &MemoryStore, key: &[u8], value: &[u8]) {
    let tx = store.begin().unwrap();
    tx.set(key, value);
    tx.commit().await.unwrap();
}

async fn inbox(store: &MemoryStore, rows: usize) -> Inbox {
    let tx = store.begin().unwrap();
    read_inbox(&tx, &keys(), rows).await.unwrap()
}

/// Reads and clears page by page until nothing is there; returns the calls with their answers.
async fn drained(store: &MemoryStore, rows: usize) -> Vec<(u64, Result<Answer, StoreErrorKind>)> {
    let mut all = Vec::new();
    loop {
        let page = inbox(store, rows).await;
        let tx = store.begin().unwrap();
        for key in &page.foreign {
            clear_foreign(&tx, key);
        }
        for (call, answer) in page.answers {
            clear(&tx, &keys(), call);
            all.push((call, answer.map_err(|error| error.kind())));
        }
        tx.commit().await.unwrap();
        if !page.more {
            let tx = store.begin().unwrap();
            let left = tx.get_range(keys().replies().read()).await.unwrap();
            assert_eq!(left, []);
            return all;
        }
    }
}

#[tokio::test]
async fn every_answer_comes_back_and_wakes() {
    let store = MemoryStore::new();
    let answers = [
        (1, reply(10)),
        (2, Answer::Rejected("no".into())),
        (3, Answer::DeadLetter("failed".into())),
        (300, Answer::Killed),
        (u64::MAX, Answer::Failed("unknown message".into())),
    ];
    staged(&store, &answers).await;
    let tx = store.begin().unwrap();
    let wakes = tx.read_i64(&keys().reply_wake(), Isolation::Snapshot).await;
    assert_eq!(wakes.unwrap(), 5);
    let expected: Vec<_> = answers.map(|(call, answer)| (call, Ok(answer))).into();
    assert_eq!(drained(&store, 100).await, expected);
}

#[tokio::test]
async fn pages_hold_whole_replies_however_large() {
    for rows in [1, 2, 3, 90, 200] {
        let store = MemoryStore::new();
        let answers = [(1, reply(3)), (2, reply(8_000_000)), (3, Answer::Killed)];
        staged(&store, &answers).await;
        let expected: Vec<_> = answers.map(|(call, answer)| (call, Ok(answer))).into();
        assert_eq!(drained(&store, rows).await, expected);
    }
}

#[tokio::test]
async fn the_answer_staged_last_counts_whatever_its_length() {
    for (first, last) in [(500_000, 100_000), (500_000, 1), (1, 500_000)] {
        let store = MemoryStore::new();
        staged(&store, &[(1, reply(first))]).await;
        staged(&store, &[(1, reply(last)), (2, Answer::Killed)]).await;
        let expected = [(1, Ok(reply(last))), (2, Ok(Answer::Killed))];
        assert_eq!(drained(&store, 1).await, expected);
    }
}

#[tokio::test]
async fn a_reply_that_cannot_be_read_spoils_no_other_and_can_be_cleared() {
    let store = MemoryStore::new();
    staged(&store, &[(1, reply(1)), (3, reply(200_000)), (9, reply(1))]).await;
    planted(&store, &keys().reply(2, 0), b"\x00\x01\x01\xc1").await;
    planted(&store, &keys().reply(4, 1), b"no first chunk").await;
    planted(&store, &keys().reply(5, 0), b"\x07").await;
    let tx = store.begin().unwrap();
    tx.clear(&keys().reply(3, 1));
    tx.commit().await.unwrap();
    for (call, answer) in inbox(&store, 100).await.answers {
        if let Err(error) = answer {
            assert!((2..6).contains(&call), "{call}");
            assert!(error.to_string().contains("key \""), "{error}");
        }
    }
    let corrupt = StoreErrorKind::Corrupt;
    let expected = [
        (1, Ok(reply(1))),
        (2, Err(corrupt)),
        (3, Err(corrupt)),
        (4, Err(corrupt)),
        (5, Err(corrupt)),
        (9, Ok(reply(1))),
    ];
    assert_eq!(drained(&store, 2).await, expected);
}

#[tokio::test]
async fn keys_that_are_no_replys_are_reported_and_can_be_cleared() {
    let store = MemoryStore::new();
    staged(&store, &[(1, reply(200_000)), (2, reply(1))]).await;
    let prefix = keys().replies().begin;
    let foreign = [
        [&prefix[..], b"\x02text\0"].concat(),
        [&prefix[..], b"\x15\x01"].concat(),
        [&keys().reply(1, 0)[..], b"\x14"].concat(),
        [&prefix[..], b"\x13\xfe\x14"].concat(),
    ];
    for key in &foreign {
        planted(&store, key, b"?").await;
    }
    let mut found = inbox(&store, 100).await.foreign;
    found.sort();
    let mut foreign = foreign.map(Bytes::from);
    foreign.sort();
    assert_eq!(found, foreign);
    let expected = [(1, Ok(reply(200_000))), (2, Ok(reply(1)))];
    assert_eq!(drained(&store, 1).await, expected);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic_and_can_be_cleared(
        rows in prop::collection::vec(
            (
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..6),
                    (0_u8..3, 0_u8..3).prop_map(|(call, chunk)| {
                        Path::root().child(u64::from(call)).child(u64::from(chunk))
                            .as_tuple().to_vec()
                    }),
                ],
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..12),
                    prop::collection::vec(any::<u8>(), 0..12)
                        .prop_map(|tail| [&[0, 1, 1][..], &tail].concat()),
                ],
            ),
            0..10,
        ),
        limit in 0_usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::new();
            let tx = store.begin().unwrap();
            for (tail, value) in rows {
                let key = [&keys().replies().begin[..], &tail].concat();
                if keys().replies().contains(&key) {
                    tx.set(&key, &value);
                }
            }
            tx.commit().await.unwrap();
            for (_, answer) in drained(&store, limit).await {
                assert!(matches!(answer, Ok(_) | Err(StoreErrorKind::Corrupt)));
            }
        });
    }
}

use super::*;
use crate::durable::message::tests::cast;
use crate::durable::queue::tests::World;
use crate::store::StoreErrorKind;

fn letter(name: &str, size: usize) -> DeadLetter {
    DeadLetter {
        message: cast(name, size),
        lane: Lane::Priority,
        incarnation: 0,
        error: "x".repeat(2 * attempts::MAX_ERROR_BYTES),
        attempts: 5,
        first_failed_ms: 1,
        dead_ms: 2,
    }
}

fn stamp(n: u8) -> Stamp {
    Stamp::from_bytes([n; Stamp::LEN])
}

#[test]
fn dead_letters_are_read_listed_page_by_page_and_removed() {
    let world = World::new();
    world.run(async {
        let (tx, keys) = (world.begin(), world.keys("a"));
        for n in 1..=5 {
            let size = if n == 3 { 500_000 } else { 10 };
            write(&tx, &keys, stamp(n), &letter(&format!("{n}"), size)).unwrap();
        }
        tx.commit().await.unwrap();

        let tx = world.begin();
        let big = read(&tx, &keys, stamp(3)).await.unwrap().unwrap();
        assert_eq!(big.message.payload.len(), 500_000);
        assert_eq!(big.error.len(), attempts::MAX_ERROR_BYTES);
        assert_eq!(big.lane, Lane::Priority);
        let (mut next, mut found) = (Some(keys.dead_letters()), Vec::new());
        while let Some(range) = next {
            let page = list(&tx, &world.namespace, &keys, range, 2, 1_000_000)
                .await
                .unwrap();
            assert!((1..=2).contains(&page.letters.len()));
            for (stamp, letter) in page.letters {
                found.push((stamp, letter.unwrap().message.name.to_string()));
            }
            next = page.next;
        }
        let expected: Vec<_> = (1..=5).map(|n| (stamp(n), format!("{n}"))).collect();
        assert_eq!(found, expected);

        (1..=5).for_each(|n| remove(&tx, &keys, stamp(n)));
        assert_eq!(read(&tx, &keys, stamp(3)).await.unwrap(), None);
        tx.commit().await.unwrap();
        let left = world.begin().get_range(keys.all().read()).await.unwrap();
        assert_eq!(left, []);
    });
}

#[test]
fn of_two_who_take_a_letter_one_fails_and_a_damaged_one_is_listed() {
    let world = World::new();
    world.run(async {
        let (tx, keys) = (world.begin(), world.keys("a"));
        write(&tx, &keys, stamp(1), &letter("one", 10)).unwrap();
        tx.set(&keys.dead_letter(stamp(2), 1), b"no beginning");
        tx.commit().await.unwrap();
        let tx = world.begin();
        let all = keys.dead_letters();
        let page = list(&tx, &world.namespace, &keys, all, 9, 9_999).await;
        let page = page.unwrap();
        assert!(page.letters[0].1.is_ok() && page.next.is_none());
        let error = page.letters[1].1.as_ref().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);

        let (one, two) = (world.begin(), world.begin());
        for tx in [&one, &two] {
            read(tx, &keys, stamp(1)).await.unwrap().unwrap();
            remove(tx, &keys, stamp(1));
        }
        one.commit().await.unwrap();
        let error = two.commit().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Conflict);
    });
}

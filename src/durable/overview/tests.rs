use super::*;
use crate::durable::keys::SessionId;
use crate::durable::lock::NewLock;
use crate::durable::message::tests::cast;
use crate::durable::queue::Pushes;
use crate::durable::queue::tests::{World, instance};
use crate::store::StoreErrorKind;

fn window(page: usize) -> Window {
    Window {
        rows: 1_000,
        bytes: 1_000_000,
        page,
    }
}

async fn push(world: &World, lane: Lane, count: usize) {
    let tx = world.begin();
    let mut pushes = Pushes::new(&world.namespace, &tx);
    for _ in 0..count {
        pushes.push(&instance("a"), lane, &cast("m", 10)).unwrap();
    }
    tx.commit().await.unwrap();
}

async fn overview(world: &World, page: usize) -> Result<Overview, StoreError> {
    read(&world.begin(), &world.keys("a"), window(page)).await
}

fn lengths(overview: &Overview) -> [(usize, bool); 2] {
    [&overview.priority.0, &overview.ordinary.0].map(|head| (head.messages.len(), head.more))
}

#[test]
fn what_is_read_at_once_is_what_each_part_says_for_itself() {
    let world = World::new();
    world.run(async {
        let keys = world.keys("a");
        let head = {
            push(&world, Lane::Ordinary, 3).await;
            push(&world, Lane::Priority, 2).await;
            overview(&world, 64).await.unwrap().ordinary.0
        };
        let first = head.messages[0].stamp;
        let tx = world.begin();
        let session = SessionId::from_bytes([1; 16]);
        let new = NewLock {
            session,
            attempts: 0,
            stops: 0,
            not_before_ms: 0,
            taken_ms: 0,
            stamp: None,
            lane: Lane::Ordinary,
            error: String::new(),
        };
        lock::take(&tx, &keys, &new, Some(&cast("locked", 200_000))).unwrap();
        let record = Attempts::fresh(first);
        attempts::write(&tx, &keys, Lane::Ordinary, &record).unwrap();
        state::touch(&tx, &keys, 7);
        let paused = pause::Paused {
            since_ms: 1,
            reason: String::new(),
        };
        pause::set(&tx, &keys, &paused).unwrap();
        tx.commit().await.unwrap();

        let seen = overview(&world, 64).await.unwrap();
        let tx = world.begin();
        assert_eq!(seen.version, state::read_version(&tx, &keys).await.unwrap());
        assert_eq!(seen.version.unwrap().schema, 7);
        assert_eq!(seen.lock, lock::read_lock(&tx, &keys).await.unwrap());
        assert!(seen.lock.is_some() && seen.paused);
        assert_eq!(seen.ordinary.1, Some(record));
        assert_eq!(seen.priority.1, None);
        assert_eq!(lengths(&seen), [(2, false), (3, false)]);
    });
}

#[test]
fn mailboxes_of_any_length_are_read_whole_whatever_the_first_page_was() {
    let world = World::new();
    world.run(async {
        push(&world, Lane::Priority, 9).await;
        push(&world, Lane::Ordinary, 9).await;
        for page in 0..30 {
            let seen = overview(&world, page).await.unwrap();
            assert_eq!(lengths(&seen), [(9, false), (9, false)], "page of {page}");
        }
    });
}

#[test]
fn the_pause_of_the_kind_pauses_the_instance() {
    let world = World::new();
    world.run(async {
        assert!(!overview(&world, 64).await.unwrap().paused);
        let paused = pause::Paused {
            since_ms: 1,
            reason: String::new(),
        };
        let tx = world.begin();
        pause::set_at(&tx, world.keys("a").kind_paused(), &paused).unwrap();
        tx.commit().await.unwrap();
        assert!(overview(&world, 64).await.unwrap().paused);
    });
}

/// The outcome of a transaction that read the overview before `change` was committed.
async fn beside(world: &World, change: impl FnOnce(&Tx)) -> Result<(), StoreErrorKind> {
    let turn = world.begin();
    // Whatever it found.
    let _ = read(&turn, &world.keys("a"), window(64)).await;
    let other = world.begin();
    change(&other);
    other.commit().await.unwrap();
    turn.set(b"written", b"by the turn");
    turn.commit().await.map(drop).map_err(|error| error.kind())
}

#[test]
fn a_change_of_what_is_known_is_a_conflict_and_a_push_is_none() {
    let world = World::new();
    world.run(async {
        let keys = world.keys("a");
        let first = crate::store::Stamp::from_bytes([1; 12]);
        let record = Attempts::fresh(first);
        let conflict = Err(StoreErrorKind::Conflict);
        // All of these were absent: absence is checked too.
        let attempts = |tx: &Tx| attempts::write(tx, &keys, Lane::Priority, &record).unwrap();
        assert_eq!(beside(&world, attempts).await, conflict);
        assert_eq!(
            beside(&world, |tx| state::touch(tx, &keys, 1)).await,
            conflict
        );
        assert_eq!(
            beside(&world, |tx| tx.set(&keys.lock(), b"x")).await,
            conflict
        );
        assert_eq!(beside(&world, |tx| lock::clear(tx, &keys)).await, conflict);
        assert_eq!(
            beside(&world, |tx| tx.set(&keys.paused(), b"x")).await,
            conflict
        );
        assert_eq!(beside(&world, |tx| pause::clear(tx, &keys)).await, conflict);
        let kind = keys.kind_paused().clone();
        assert_eq!(beside(&world, |tx| tx.set(&kind, b"x")).await, conflict);
        assert_eq!(beside(&world, |tx| tx.clear(&kind)).await, conflict);
        let push = |tx: &Tx| {
            let mut pushes = Pushes::new(&world.namespace, tx);
            pushes
                .push(&instance("a"), Lane::Ordinary, &cast("m", 10))
                .unwrap();
        };
        assert_eq!(beside(&world, push).await, Ok(()));
    });
}

#[test]
fn bytes_that_cannot_be_read_are_named_and_unknown_keys_are_passed_over() {
    let world = World::new();
    world.run(async {
        let keys = world.keys("a");
        let unknown = [&keys.meta().begin[..], b"\x02?\x00"].concat();
        let tx = world.begin();
        tx.set(&unknown, b"?");
        tx.commit().await.unwrap();
        assert!(overview(&world, 64).await.is_ok());
        let places = [
            keys.lock(),
            keys.version(),
            keys.paused(),
            keys.attempts(Lane::Ordinary),
            keys.kind_paused().clone(),
        ];
        for key in places {
            let tx = world.begin();
            tx.set(&key, b"\xc1");
            tx.commit().await.unwrap();
            let error = overview(&world, 64).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Corrupt);
            assert!(error.to_string().contains("key \""), "{error}");
            let tx = world.begin();
            tx.clear(&key);
            tx.commit().await.unwrap();
        }
    });
}

//! What the conformance suite cannot see: pruning, shared versions, and the books of the watches.

use super::*;
use crate::store::types::{Isolation, KeyRange};
use crate::store::{MAX_TRANSACTION_AGE, TransactionExt};
use crate::testing::sim::Sim;
use futures_util::FutureExt;
use futures_util::future::{join, join_all};

mod model;

const BATCH: Duration = Duration::from_millis(5);

fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind()
}

fn begin(store: &MemoryStore) -> Tx {
    store.begin().unwrap()
}

async fn put(store: &MemoryStore, key: &[u8], value: &[u8]) -> Committed {
    let tx = begin(store);
    tx.set(key, value);
    tx.commit().await.unwrap().unwrap()
}

async fn get(store: &MemoryStore, key: &[u8]) -> Option<Vec<u8>> {
    let value = begin(store).read(key).await.unwrap();
    value.map(|value| value.to_vec())
}

/// Runs a test on a store with the simulation's clock.
fn simulated<F: Future<Output = ()>>(test: impl FnOnce(MemoryStore, Arc<dyn Env>) -> F) {
    let sim = Sim::new(1);
    let store = MemoryStore::with_env(sim.env());
    sim.block_on(test(store, sim.env())).unwrap();
}

/// Runs a test on a store that commits in batches.
fn batched<F: Future<Output = ()>>(test: impl FnOnce(MemoryStore, Arc<dyn Env>) -> F) {
    let sim = Sim::new(1);
    let store = MemoryStore::with_batches(sim.env(), BATCH);
    sim.block_on(test(store, sim.env())).unwrap();
}

#[test]
fn history_and_conflicts_older_than_a_transaction_may_be_are_forgotten() {
    simulated(|store, env| async move {
        for round in 0..200_u32 {
            put(&store, &round.to_be_bytes(), b"value").await;
            put(&store, b"same", &round.to_be_bytes()).await;
            let tx = begin(&store);
            tx.clear_range(&KeyRange::new(
                round.to_be_bytes().to_vec(),
                b"\x01".to_vec(),
            ));
            tx.commit().await.unwrap();
        }
        let (snapshots, _) = store.shared.lock().kept();
        assert!(snapshots > 600, "{snapshots}");
        env.sleep(MAX_TRANSACTION_AGE * 2).await;
        begin(&store).read_version().await.unwrap();
        assert_eq!(store.shared.lock().kept(), (1, 0));
        assert_eq!(
            get(&store, b"same").await,
            Some(199_u32.to_be_bytes().to_vec())
        );
    });
}

#[test]
fn a_store_in_steady_use_keeps_no_more_than_its_window() {
    simulated(|store, env| async move {
        let mut most = (0, 0);
        for round in 0..2_000_u32 {
            put(&store, &(round % 7).to_be_bytes(), &round.to_be_bytes()).await;
            env.sleep(Duration::from_millis(50)).await;
            let kept = store.shared.lock().kept();
            most = (most.0.max(kept.0), most.1.max(kept.1));
        }
        assert!(most.0 <= 103, "{most:?}");
        assert!(most.1 <= 2 * 103 + 14, "{most:?}");
    });
}

#[test]
fn a_set_read_version_shows_the_commits_up_to_it_and_no_later_one() {
    simulated(|store, env| async move {
        let mut commits = Vec::new();
        for round in 0..50_u32 {
            let commit = put(&store, b"key", &round.to_be_bytes()).await;
            commits.push((commit.version, round));
            env.sleep(Duration::from_millis(u64::from(round % 3))).await;
        }
        for (version, round) in commits {
            let tx = begin(&store);
            tx.set_read_version(version);
            let value = tx.read(b"key").await.unwrap().unwrap();
            assert_eq!(value.as_ref(), round.to_be_bytes());
            assert_eq!(tx.read_version().await.unwrap(), version);
        }
    });
}

#[test]
fn versions_outside_the_window_and_in_the_future_are_too_old() {
    simulated(|store, env| async move {
        let old = put(&store, b"key", b"1").await.version;
        env.sleep(MAX_TRANSACTION_AGE).await;
        let at = |version| {
            let tx = begin(&store);
            tx.set_read_version(version);
            tx
        };
        assert!(at(old).read(b"key").await.is_ok());
        env.sleep(Duration::from_millis(1)).await;
        for version in [
            Version(0),
            Version(1),
            old,
            Version(old.0 + (1 << 40)),
            Version(u64::MAX),
        ] {
            assert_eq!(kind(at(version).read(b"key").await), StoreErrorKind::TooOld);
            let tx = at(version);
            tx.set(b"key", b"2");
            assert_eq!(kind(tx.commit().await), StoreErrorKind::TooOld);
        }
    });
}

#[test]
fn a_paused_writer_that_read_is_too_old_and_a_blind_one_is_not() {
    simulated(|store, env| async move {
        let reader = begin(&store);
        reader.read(b"key").await.unwrap();
        reader.set(b"key", b"late");
        let blind = begin(&store);
        blind.set(b"key", b"blind");
        env.sleep(MAX_TRANSACTION_AGE + Duration::from_millis(1))
            .await;
        assert_eq!(kind(reader.commit().await), StoreErrorKind::TooOld);
        assert!(blind.commit().await.unwrap().is_some());
    });
}

#[test]
fn versions_grow_with_the_clock_and_with_every_commit() {
    simulated(|store, env| async move {
        let first = put(&store, b"key", b"1").await;
        let second = put(&store, b"key", b"2").await;
        assert!(first.version < second.version && first.stamp < second.stamp);
        env.sleep(Duration::from_secs(1)).await;
        let version = begin(&store).read_version().await.unwrap();
        assert!(version.0 >= second.version.0 + 999_000);
        assert!(put(&store, b"key", b"3").await.version > version);
    });
}

#[test]
fn the_commits_of_a_batch_share_a_version_and_are_ordered_by_their_stamps() {
    batched(|store, env| async move {
        let commits = join_all((0..10_u8).map(|key| {
            let store = store.clone();
            async move { put(&store, &[key], b"value").await }
        }))
        .await;
        let stamps: std::collections::BTreeSet<_> = commits.iter().map(|c| c.stamp).collect();
        assert_eq!(stamps.len(), 10);
        assert!(
            commits
                .iter()
                .all(|commit| commit.version == commits[0].version)
        );
        assert!(env.now() < BATCH);
        let next = put(&store, b"next", b"value").await;
        assert!(next.version > commits[0].version && next.stamp > commits[9].stamp);
    });
}

#[test]
fn within_a_batch_a_reader_conflicts_with_an_earlier_writer_only() {
    batched(|store, _| async move {
        let (reader_first, writer, reader_last) = (begin(&store), begin(&store), begin(&store));
        for reader in [&reader_first, &reader_last] {
            reader.read(b"key").await.unwrap();
            reader.set(b"other", b"value");
        }
        writer.set(b"key", b"value");
        let (first, (written, last)) = join(
            reader_first.commit(),
            join(writer.commit(), reader_last.commit()),
        )
        .await;
        assert!(first.unwrap().unwrap().stamp < written.unwrap().unwrap().stamp);
        assert_eq!(kind(last), StoreErrorKind::Conflict);
    });
}

#[test]
fn nothing_of_a_batch_is_visible_before_all_of_it_is() {
    batched(|store, _| async move {
        let (one, two) = (begin(&store), begin(&store));
        one.set(b"one", b"1");
        two.set(b"two", b"2");
        let both = join(one.commit(), two.commit());
        assert_eq!(get(&store, b"one").await, None);
        let (one, two) = both.await;
        let version = one.unwrap().unwrap().version;
        assert_eq!(version, two.unwrap().unwrap().version);
        let tx = begin(&store);
        tx.set_read_version(version);
        assert!(tx.read(b"one").await.unwrap().is_some());
        assert!(tx.read(b"two").await.unwrap().is_some());
    });
}

#[test]
fn a_transaction_chained_at_its_own_commit_misses_what_it_does_not_read() {
    batched(|store, _| async move {
        let (own, other) = (begin(&store), begin(&store));
        own.set(b"own", b"1");
        other.set(b"shared", b"1");
        let (own, other) = join(own.commit(), other.commit()).await;
        assert_eq!(
            own.unwrap().unwrap().version,
            other.as_ref().unwrap().unwrap().version
        );
        // A read conflict at the shared version does not see the other commit of that version.
        let chained = begin(&store);
        chained.set_read_version(other.unwrap().unwrap().version);
        chained.add_read_conflict_key(b"shared");
        chained.set(b"own", b"2");
        assert!(chained.commit().await.is_ok());
    });
}

#[test]
fn a_commit_whose_future_is_dropped_lands_with_its_batch() {
    batched(|store, env| async move {
        let tx = begin(&store);
        tx.set(b"key", b"value");
        drop(tx.commit());
        drop(tx);
        assert_eq!(get(&store, b"key").await, None);
        env.sleep(BATCH).await;
        assert!(get(&store, b"key").await.is_some());
    });
}

#[test]
fn dropping_a_watch_frees_it_before_and_after_it_is_armed() {
    simulated(|store, _| async move {
        let armed = begin(&store);
        let mut watches: Vec<_> = (0..10_u8).map(|key| armed.watch(&[key % 3])).collect();
        drop(watches.pop());
        armed.commit().await.unwrap();
        assert_eq!(store.armed_watches(), 9);
        watches.truncate(4);
        assert_eq!(store.armed_watches(), 4);
        drop(watches);
        assert_eq!(store.armed_watches(), 0);
    });
}

#[test]
fn a_watch_that_fires_is_forgotten_and_the_others_of_its_key_that_still_hold_stay() {
    simulated(|store, _| async move {
        put(&store, b"key", b"1").await;
        let sees_one = begin(&store);
        let one = sees_one.watch(b"key");
        sees_one.commit().await.unwrap();
        let sees_two = begin(&store);
        sees_two.set(b"key", b"2");
        let mut two = sees_two.watch(b"key");
        sees_two.commit().await.unwrap();
        one.await.unwrap();
        assert!((&mut two).now_or_never().is_none());
        assert_eq!(store.armed_watches(), 1);
        let clear = begin(&store);
        clear.clear_range(&KeyRange::prefix(b""));
        clear.commit().await.unwrap();
        two.await.unwrap();
        assert_eq!(store.armed_watches(), 0);
    });
}

#[test]
fn a_watch_fires_at_once_if_the_value_changed_before_it_was_armed() {
    simulated(|store, _| async move {
        let tx = begin(&store);
        let watch = tx.watch(b"key");
        put(&store, b"key", b"value").await;
        assert_eq!(tx.commit().await.unwrap(), None);
        watch.await.unwrap();
    });
}

#[test]
fn a_watch_fails_with_its_transaction() {
    simulated(|store, _| async move {
        let dropped = begin(&store);
        let watch = dropped.watch(b"key");
        drop(dropped);
        assert_eq!(kind(watch.await), StoreErrorKind::Unavailable);

        let conflicting = begin(&store);
        let watch = conflicting.watch(b"key");
        conflicting.set(b"other", b"value");
        put(&store, b"key", b"value").await;
        assert_eq!(kind(conflicting.commit().await), StoreErrorKind::Conflict);
        assert_eq!(kind(watch.await), StoreErrorKind::Conflict);

        let wrong = begin(&store);
        let watch = wrong.watch(b"key");
        wrong.set(b"\xff", b"value");
        assert_eq!(kind(wrong.commit().await), StoreErrorKind::InvalidCall);
        assert_eq!(kind(watch.await), StoreErrorKind::InvalidCall);
    });
}

#[test]
fn a_watch_ends_with_the_last_handle_of_its_store() {
    simulated(|store, _| async move {
        let tx = begin(&store);
        let watch = tx.watch(b"key");
        tx.commit().await.unwrap();
        drop((tx, store));
        assert_eq!(kind(watch.await), StoreErrorKind::Unavailable);
    });
}

#[test]
fn reads_see_what_was_written_before_they_were_called_and_nothing_later() {
    simulated(|store, _| async move {
        let tx = begin(&store);
        tx.set(b"key", b"before");
        let (point, range) = (tx.read(b"key"), tx.get_range(KeyRange::prefix(b"").read()));
        tx.set(b"key", b"after");
        assert_eq!(point.await.unwrap().as_deref(), Some(b"before".as_slice()));
        assert_eq!(range.await.unwrap()[0].value.as_ref(), b"before");
    });
}

#[test]
fn a_large_range_is_read_both_ways_and_cleared_at_once() {
    const KEYS: u32 = 100_000;
    simulated(|store, _| async move {
        for chunk in 0..KEYS / 10_000 {
            let tx = begin(&store);
            for key in 0..10_000 {
                tx.set(&(chunk * 10_000 + key).to_be_bytes(), b"");
            }
            tx.commit().await.unwrap();
        }
        let all = KeyRange::prefix(b"");
        let tx = begin(&store);
        let forward = tx.get_range(all.read()).await.unwrap();
        assert!(
            forward
                .iter()
                .map(|row| row.key.to_vec())
                .eq((0..KEYS).map(|key| key.to_be_bytes().to_vec()))
        );
        let mut backward = tx.get_range(all.read().reverse()).await.unwrap();
        backward.reverse();
        assert_eq!(backward, forward);
        let clear = begin(&store);
        clear.clear_range(&all);
        clear.commit().await.unwrap();
        assert!(
            begin(&store)
                .is_empty(&all, Isolation::Snapshot)
                .await
                .unwrap()
        );
    });
}

#[test]
fn concurrent_transactions_of_one_thread_interleave() {
    simulated(|store, _| async move {
        let results = join_all((0..4).map(|_| {
            let tx = begin(&store);
            async move {
                tx.read(b"key").await?;
                tx.set(b"key", b"value");
                tx.commit().await
            }
        }))
        .await;
        let conflicts = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(conflicts, 3);
    });
}

#[test]
fn a_batch_whose_environment_ends_is_an_unknown_outcome() {
    let sim = Sim::new(1);
    let node = sim.node("one");
    let store = MemoryStore::with_batches(node.env(), Duration::from_secs(1));
    let abandoned = store.begin().unwrap();
    abandoned.set(b"key", b"value");
    let commit = abandoned.commit();
    node.crash();
    let outcome = sim.block_on(commit).unwrap();
    assert_eq!(outcome.unwrap_err().kind(), StoreErrorKind::MaybeCommitted);
}

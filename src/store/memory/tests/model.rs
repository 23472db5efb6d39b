//! The parts of the store against plain models, and the whole of it against a serial replay.

use super::*;
use crate::store::memory::tree::Tree;
use crate::store::memory::write_log::WriteLog;
use crate::store::types::KeyValue;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn range() -> impl Strategy<Value = KeyRange> {
    (any::<u8>(), 0..20_u8)
        .prop_map(|(begin, length)| KeyRange::new(vec![begin], vec![begin.saturating_add(length)]))
}

#[derive(Debug, Clone)]
enum Change {
    Insert(u8, u8),
    Remove(KeyRange),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any::<(u8, u8)>().prop_map(|(key, value)| Change::Insert(key, value)),
        1 => range().prop_map(Change::Remove),
    ]
}

proptest! {
    #[test]
    fn every_version_of_a_tree_equals_its_map(changes in vec(change(), 0..150), read in range()) {
        let (mut tree, mut map) = (Tree::default(), BTreeMap::new());
        let mut versions = Vec::new();
        for change in changes {
            match change {
                Change::Insert(key, value) => {
                    tree.insert(vec![key].into(), vec![value].into());
                    map.insert(key, value);
                }
                Change::Remove(range) => {
                    tree.remove(&range);
                    map.retain(|key, _| !range.contains(&[*key]));
                }
            }
            versions.push((tree.clone(), map.clone()));
        }
        for (tree, map) in versions {
            let mut expected: Vec<KeyValue> = map
                .iter()
                .filter(|(key, _)| read.contains(&[**key]))
                .map(|(key, value)| KeyValue { key: vec![*key].into(), value: vec![*value].into() })
                .collect();
            prop_assert_eq!(tree.rows(&read, false).collect::<Vec<_>>(), expected.clone());
            expected.reverse();
            prop_assert_eq!(tree.rows(&read, true).collect::<Vec<_>>(), expected);
            for key in 0..=u8::MAX {
                let value = tree.get(&[key]).map(|value| value[0]);
                prop_assert_eq!(value, map.get(&key).copied());
            }
        }
    }

    #[test]
    fn the_newest_write_of_a_range_is_known_back_to_the_horizon_and_nothing_is_kept_beyond(
        writes in vec((range(), 0..3_u64, 0..10_u64), 1..60),
        reads in vec(range(), 10),
    ) {
        let mut log = WriteLog::default();
        let mut model = [Version(0); 256];
        let (mut version, mut horizon) = (Version(1), Version(0));
        for (range, step, lag) in writes {
            version.0 += step;
            horizon = horizon.max(Version(version.0.saturating_sub(lag)));
            log.prune(horizon);
            log.insert(&range, version);
            for key in 0..=u8::MAX {
                if range.contains(&[key]) {
                    model[usize::from(key)] = version;
                }
            }
            for read in &reads {
                let expected = (0..=u8::MAX)
                    .filter(|key| read.contains(&[*key]))
                    .map(|key| model[usize::from(key)])
                    .max()
                    .unwrap_or(Version(0));
                let newest = log.newest(read);
                // At the horizon and below, "forgotten" and the truth are equally harmless.
                prop_assert_eq!(newest.max(horizon), expected.max(horizon));
            }
        }
        log.prune(version);
        prop_assert_eq!(log.len(), 0);
    }
}

/// What one transaction of the random workload read and wrote.
#[derive(Debug)]
struct Done {
    commit: Committed,
    read: Vec<(u8, Option<Vec<u8>>)>,
    wrote: Vec<(u8, Vec<u8>)>,
}

/// A random transaction over five keys; half of them chain at the version of the last commit.
async fn random_transaction(
    store: &MemoryStore,
    env: &dyn Env,
    last: Option<Version>,
) -> Result<Done, StoreError> {
    let tx = begin(store);
    if let Some(version) = last.filter(|_| env.random().is_multiple_of(2)) {
        tx.set_read_version(version);
    }
    let (mut read, mut wrote) = (Vec::new(), Vec::new());
    for _ in 0..=env.random() % 3 {
        let key = (env.random() % 5) as u8;
        let value = tx.read(&[key]).await?;
        read.push((key, value.map(|value| value.to_vec())));
        env.sleep(Duration::from_millis(env.random() % 4)).await;
    }
    for _ in 0..=env.random() % 2 {
        wrote.push((
            (env.random() % 5) as u8,
            env.random().to_be_bytes().to_vec(),
        ));
    }
    // After the reads: what the transaction wrote itself is not what the replay would see.
    for (key, value) in &wrote {
        tx.set(&[*key], value);
    }
    let commit = tx.commit().await?.unwrap();
    Ok(Done {
        commit,
        read,
        wrote,
    })
}

fn assert_serial(store: impl FnOnce(&Sim) -> MemoryStore, seed: u64) {
    let sim = Sim::new(seed);
    let store = store(&sim);
    let clients = (0..8).map(|_| {
        let (store, env) = (store.clone(), sim.env());
        async move {
            let (mut done, mut last) = (Vec::new(), None);
            for _ in 0..100 {
                if let Ok(one) = random_transaction(&store, env.as_ref(), last).await {
                    last = Some(one.commit.version);
                    done.push(one);
                }
            }
            done
        }
    });
    let mut done: Vec<Done> = sim
        .block_on(join_all(clients))
        .unwrap()
        .into_iter()
        .flatten()
        .collect();
    assert!(done.len() > 200, "only {} commits", done.len());
    done.sort_by_key(|one| one.commit.stamp);
    let mut data: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for one in done {
        for (key, value) in &one.read {
            assert_eq!(data.get(key), value.as_ref(), "seed {seed}: {one:?}");
        }
        data.extend(one.wrote);
    }
}

#[test]
fn concurrent_transactions_equal_a_serial_replay_in_the_order_of_their_stamps() {
    for seed in 0..10 {
        assert_serial(|sim| MemoryStore::with_env(sim.env()), seed);
        assert_serial(|sim| MemoryStore::with_batches(sim.env(), BATCH), seed);
    }
}

use super::*;
use crate::store::{
    Committed, Database, KeyRange, MAX_TRANSACTION_AGE, MemoryStore, RetryPolicy, TransactionExt,
};
use crate::testing::sim::{Sim, SimErrorKind};
use futures_util::FutureExt;
use std::future::Future;

struct World {
    sim: Sim,
    cluster: MemoryStore,
    store: FaultyStore,
}

fn world(faults: Faults) -> World {
    let sim = Sim::new(1);
    let cluster = MemoryStore::with_env(sim.env());
    let store = FaultyStore::new(Arc::new(cluster.clone()), sim.env(), 1);
    store.set_faults(faults);
    World {
        sim,
        cluster,
        store,
    }
}

impl World {
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.sim.block_on(future).unwrap()
    }

    fn sleep(&self, duration: Duration) {
        self.sim.run_for(duration).unwrap();
    }

    /// What is really stored.
    fn stored(&self, key: &[u8]) -> Option<Vec<u8>> {
        let tx = self.cluster.begin().unwrap();
        let value = self.run(tx.read(key)).unwrap();
        value.map(|value| value.to_vec())
    }

    fn put_past_the_faults(&self, key: &[u8], value: &[u8]) {
        let tx = self.cluster.begin().unwrap();
        tx.set(key, value);
        self.run(tx.commit()).unwrap();
    }

    /// A blind write through the faults.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Option<Committed>, StoreError> {
        let tx = self.store.begin().unwrap();
        tx.set(key, value);
        self.run(tx.commit())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let tx = self.store.begin()?;
        let value = self.run(tx.read(key))?;
        Ok(value.map(|value| value.to_vec()))
    }
}

fn kind<T: fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn without_faults_it_is_the_store_it_wraps() {
    let world = world(Faults::none());
    assert!(world.put(b"key", b"value").unwrap().is_some());
    assert_eq!(
        world.get(b"key").unwrap().as_deref(),
        Some(b"value".as_slice())
    );
    let tx = world.store.begin().unwrap();
    let rows = world
        .run(tx.get_range(KeyRange::prefix(b"").read()))
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(world.run(tx.commit()).unwrap(), None);
    assert_eq!(
        kind(world.run(tx.read(b"key"))),
        StoreErrorKind::InvalidCall
    );
    assert_eq!(kind(world.run(tx.commit())), StoreErrorKind::InvalidCall);
    assert_eq!(world.store.steps(), 5, "the second commit never began");
}

#[test]
fn each_commit_fault_does_in_the_store_what_it_says() {
    let none = Faults::none;
    let cases = [
        (
            Faults {
                conflict: 1.0,
                ..none()
            },
            StoreErrorKind::Conflict,
            false,
        ),
        (
            Faults {
                too_old_commit: 1.0,
                ..none()
            },
            StoreErrorKind::TooOld,
            false,
        ),
        (
            Faults {
                unknown_applied: 1.0,
                ..none()
            },
            StoreErrorKind::MaybeCommitted,
            true,
        ),
        (
            Faults {
                unknown_not_applied: 1.0,
                ..none()
            },
            StoreErrorKind::MaybeCommitted,
            false,
        ),
        (
            Faults {
                unknown_late: 1.0,
                ..none()
            },
            StoreErrorKind::MaybeCommitted,
            false,
        ),
    ];
    for (faults, expected, is_applied) in cases {
        let world = world(faults);
        assert_eq!(kind(world.put(b"key", b"value")), expected);
        assert_eq!(world.stored(b"key").is_some(), is_applied, "{expected:?}");
        let read_only = world.store.begin().unwrap();
        assert_eq!(world.run(read_only.commit()).unwrap(), None);
    }
}

#[test]
fn a_late_blind_commit_overwrites_what_came_after_it() {
    let world = world(Faults {
        unknown_late: 1.0,
        ..Faults::none()
    });
    assert_eq!(
        kind(world.put(b"key", b"late")),
        StoreErrorKind::MaybeCommitted
    );
    world.put_past_the_faults(b"key", b"newer");
    world.sleep(Faults::none().late_by);
    assert_eq!(world.stored(b"key").unwrap(), b"late");
}

#[test]
fn a_late_commit_keeps_its_read_version_and_loses_against_what_came_after_it() {
    let world = world(Faults {
        unknown_late: 1.0,
        late_by: secs(4),
        ..Faults::none()
    });
    let tx = world.store.begin().unwrap();
    world.run(tx.read_version()).unwrap();
    tx.add_read_conflict_key(b"marker");
    tx.set(b"marker", b"late");
    assert_eq!(kind(world.run(tx.commit())), StoreErrorKind::MaybeCommitted);
    world.put_past_the_faults(b"marker", b"newer");
    world.sleep(MAX_TRANSACTION_AGE);
    assert_eq!(world.stored(b"marker").unwrap(), b"newer");
}

#[test]
fn reads_are_refused_as_too_old_as_often_as_configured_and_faults_change_at_run_time() {
    let world = world(Faults {
        too_old_read: 0.5,
        ..Faults::none()
    });
    let refused = |world: &World| {
        (0..200)
            .filter(|_| match world.get(b"key") {
                Ok(_) => false,
                Err(error) => error.kind() == StoreErrorKind::TooOld,
            })
            .count()
    };
    let half = refused(&world);
    assert!((60..140).contains(&half), "{half}");
    world.store.set_faults(Faults::none());
    assert_eq!(refused(&world), 0);
}

#[test]
fn a_delayed_read_still_answers_as_of_its_call() {
    let world = world(Faults {
        delay: 1.0,
        ..Faults::none()
    });
    let tx = world.store.begin().unwrap();
    tx.set(b"key", b"before");
    let read = tx.read(b"key");
    tx.set(b"key", b"after");
    let begun = world.sim.now();
    assert_eq!(world.run(read).unwrap().unwrap().as_ref(), b"before");
    assert!(world.sim.now() > begun);
}

#[test]
fn a_commit_on_its_way_lands_though_nobody_waits_and_takes_no_more_writes() {
    let world = world(Faults {
        delay: 1.0,
        ..Faults::none()
    });
    let node = world.sim.node("a");
    let tx = world.store.begin().unwrap();
    let dying = node.run(async move {
        tx.set(b"key", b"value");
        let commit = tx.commit();
        tx.set(b"other", b"value");
        commit.await
    });
    world.sleep(Duration::ZERO);
    node.crash();
    assert!(world.run(dying).is_none());
    assert_eq!(world.stored(b"key"), None);
    world.sleep(Faults::none().delay_by);
    assert!(world.stored(b"key").is_some());
    assert_eq!(world.stored(b"other"), None);
}

#[test]
fn an_outage_refuses_every_step_and_ends() {
    let world = world(Faults::none());
    world.store.set_outage(Some(Outage::Refuse));
    assert_eq!(kind(world.get(b"key")), StoreErrorKind::Unavailable);
    assert_eq!(
        kind(world.put(b"key", b"value")),
        StoreErrorKind::Unavailable
    );
    let tx = world.store.begin().unwrap();
    assert_eq!(
        kind(world.run(tx.read_version())),
        StoreErrorKind::Unavailable
    );
    assert_eq!(
        kind(world.run(tx.watch(b"key"))),
        StoreErrorKind::Unavailable
    );
    assert_eq!(
        kind(world.run(tx.get_range(KeyRange::prefix(b"").read()))),
        StoreErrorKind::Unavailable
    );
    world.store.set_outage(None);
    assert!(world.put(b"key", b"value").is_ok());
}

#[test]
fn a_hanging_outage_holds_reads_and_commits_until_it_ends() {
    let world = world(Faults::none());
    world.store.set_outage(Some(Outage::Hang));
    let (tx, reader) = (world.store.begin().unwrap(), world.store.begin().unwrap());
    tx.set(b"key", b"value");
    let (mut commit, mut read) = (tx.commit(), reader.read(b"key"));
    world.sleep(secs(60));
    assert!((&mut commit).now_or_never().is_none() && (&mut read).now_or_never().is_none());
    assert_eq!(world.stored(b"key"), None);
    world.store.set_outage(None);
    assert!(world.run(commit).is_ok());
    assert!(world.run(read).is_ok());
    assert!(world.stored(b"key").is_some());
}

#[test]
fn an_outage_holds_commits_of_any_fate() {
    for faults in [
        Faults {
            unknown_applied: 1.0,
            ..Faults::none()
        },
        Faults {
            unknown_not_applied: 1.0,
            ..Faults::none()
        },
        Faults {
            conflict: 1.0,
            ..Faults::none()
        },
        Faults {
            unknown_late: 1.0,
            late_by: secs(1),
            ..Faults::none()
        },
    ] {
        let world = world(faults);
        world.store.set_outage(Some(Outage::Hang));
        let tx = world.store.begin().unwrap();
        tx.set(b"key", b"value");
        let mut commit = tx.commit();
        world.sleep(secs(60));
        assert!((&mut commit).now_or_never().is_none());
        assert_eq!(world.stored(b"key"), None);
        world.store.set_outage(None);
        assert!(world.run(commit).is_err());
    }
}

#[test]
fn a_watch_that_nobody_looked_at_survives_an_outage() {
    let world = world(Faults::none());
    let tx = world.store.begin().unwrap();
    let watch = tx.watch(b"key");
    assert!(world.run(tx.commit()).is_ok());
    world.store.set_outage(Some(Outage::Refuse));
    world.put_past_the_faults(b"key", b"value");
    let mut watch = Box::pin(watch);
    assert!((&mut watch).now_or_never().is_none());
    world.store.set_outage(None);
    assert!(world.run(watch).is_ok());
}

#[test]
fn a_hanging_outage_may_turn_into_a_refusing_one() {
    let world = world(Faults::none());
    world.store.set_outage(Some(Outage::Hang));
    let tx = world.store.begin().unwrap();
    tx.set(b"key", b"value");
    let commit = tx.commit();
    world.sleep(secs(1));
    world.store.set_outage(Some(Outage::Refuse));
    assert_eq!(kind(world.run(commit)), StoreErrorKind::Unavailable);
    assert_eq!(world.stored(b"key"), None);
}

#[test]
fn a_locked_store_says_so() {
    let world = world(Faults::none());
    world.store.set_locked(true);
    assert_eq!(kind(world.get(b"key")), StoreErrorKind::Locked);
    assert_eq!(kind(world.put(b"key", b"value")), StoreErrorKind::Locked);
    assert_eq!(world.stored(b"key"), None);
    world.store.set_locked(false);
    assert!(world.put(b"key", b"value").is_ok());
}

#[test]
fn a_crash_at_a_commit_does_and_reports_what_its_mode_says() {
    for mode in CrashMode::ALL {
        let world = world(Faults::none());
        world.store.crash_at(2, mode);
        assert!(world.get(b"key").is_ok());
        let tx = world.store.begin().unwrap();
        tx.set(b"key", b"value");
        let commit = world.sim.block_on(tx.commit());
        match mode.report {
            CommitReport::Unknown => {
                assert_eq!(kind(commit.unwrap()), StoreErrorKind::MaybeCommitted);
            }
            CommitReport::Silence => {
                assert_eq!(commit.unwrap_err().kind(), SimErrorKind::Deadlock);
            }
        }
        assert!(world.store.has_crashed());
        assert_eq!(kind(world.store.begin()), StoreErrorKind::Unavailable);
        assert_eq!(
            kind(world.run(tx.read(b"key"))),
            StoreErrorKind::Unavailable
        );
        world.sleep(Faults::none().late_by);
        let is_applied = mode.fate != CommitFate::NotApplied;
        assert_eq!(world.stored(b"key").is_some(), is_applied, "{mode:?}");
    }
}

#[test]
fn a_crash_at_a_read_or_an_empty_commit_refuses_it_and_everything_after() {
    for step in 1..4 {
        let world = world(Faults::none());
        let tx = world.store.begin().unwrap();
        world.store.crash_at(step, CrashMode::ALL[1]);
        let results = [
            world.run(tx.read(b"key")).err(),
            world.run(tx.read_version()).err(),
            world.run(tx.commit()).err(),
        ];
        for (index, error) in results.iter().enumerate() {
            let expected = (index as u64 + 1 >= step).then_some(StoreErrorKind::Unavailable);
            assert_eq!(error.as_ref().map(StoreError::kind), expected);
        }
    }
}

#[test]
fn a_commit_under_way_when_the_connection_crashes_is_unknown() {
    let world = world(Faults {
        delay: 1.0,
        ..Faults::none()
    });
    let tx = world.store.begin().unwrap();
    tx.set(b"key", b"value");
    let commit = tx.commit();
    world.store.crash_at(2, CrashMode::ALL[0]);
    let reader = world.store.begin().unwrap();
    assert_eq!(
        kind(world.run(reader.read(b"key"))),
        StoreErrorKind::Unavailable
    );
    assert_eq!(kind(world.run(commit)), StoreErrorKind::MaybeCommitted);
    assert!(world.stored(b"key").is_some());
}

#[test]
fn watches_fire_spuriously_late_or_never() {
    let none = Faults::none;
    let armed = |faults| {
        let world = world(faults);
        let tx = world.store.begin().unwrap();
        let mut watch = tx.watch(b"key");
        assert!(world.run(tx.commit()).is_ok());
        assert!((&mut watch).now_or_never().is_none());
        (world, watch)
    };
    let longest = none().watch_delay_by;

    let (world, watch) = armed(Faults {
        spurious_watch: 1.0,
        ..none()
    });
    assert!(world.run(watch).is_ok());

    let (world, mut watch) = armed(Faults {
        late_watch: 1.0,
        ..none()
    });
    world.put_past_the_faults(b"key", b"value");
    assert!((&mut watch).now_or_never().is_none());
    let begun = world.sim.now();
    assert!(world.run(watch).is_ok());
    assert!(world.sim.now() > begun && world.sim.now() <= begun + longest);

    let (world, watch) = armed(Faults {
        lost_watch: 1.0,
        ..none()
    });
    world.put_past_the_faults(b"key", b"value");
    assert_eq!(kind(world.run(watch)), StoreErrorKind::Unavailable);
    assert!(world.sim.now() <= longest);
    assert_eq!(world.cluster.armed_watches(), 0);

    let (world, watch) = armed(none());
    world.store.set_outage(Some(Outage::Refuse));
    world.put_past_the_faults(b"key", b"value");
    let env = world.sim.env();
    let ended = world.store.clone();
    world.sim.env().spawn(Box::pin(async move {
        env.sleep(secs(60)).await;
        ended.set_outage(None);
    }));
    assert!(world.run(watch).is_ok());
    assert_eq!(world.sim.now(), secs(60));
}

#[test]
fn a_watch_fails_when_its_commit_is_refused_though_the_transaction_is_still_held() {
    let world = world(Faults {
        conflict: 1.0,
        ..Faults::none()
    });
    let tx = world.store.begin().unwrap();
    let watch = tx.watch(b"key");
    tx.set(b"other", b"value");
    assert_eq!(kind(world.run(tx.commit())), StoreErrorKind::Conflict);
    assert_eq!(kind(world.run(watch)), StoreErrorKind::Unavailable);
    drop(tx);
}

const NODES: u32 = 4;
const ROUNDS: u32 = 20;

/// The nodes on one cluster, on a bad day, each counting its rounds by the marker recipe: an
/// attempt reads its marker, and is done if an earlier attempt wrote it.
fn count_on_a_bad_day(seed: u64) -> (i64, Vec<String>, u64) {
    let sim = Sim::new(seed);
    let cluster = MemoryStore::with_batches(sim.env(), Duration::from_millis(3));
    let log = Arc::new(Mutex::new(Vec::new()));
    let policy = RetryPolicy {
        give_up_after: secs(100_000),
        ..RetryPolicy::retry_unknown()
    };
    let counts = (0..NODES).map(|number| {
        let node = sim.node(&number.to_string());
        let store = FaultyStore::new(
            Arc::new(cluster.clone()),
            sim.env(),
            seed ^ u64::from(number),
        );
        store.set_faults(Faults::bad_day());
        let log = Arc::clone(&log);
        store.set_trace(move |event| log.lock().unwrap().push(format!("{number} {event}")));
        let db = Database::new(Arc::new(store), node.env());
        let policy = policy.clone();
        node.run(async move {
            for round in 0..ROUNDS {
                let marker =
                    [b"m".as_slice(), &number.to_be_bytes(), &round.to_be_bytes()].concat();
                let done = db.run_with(policy.clone(), move |attempt| {
                    let marker = marker.clone();
                    async move {
                        let tx = attempt.tx();
                        if tx.read(&marker).await?.is_none() {
                            tx.set(&marker, b"");
                            tx.add_i64(b"counter", 1);
                        }
                        Ok::<_, StoreError>(())
                    }
                });
                done.await.unwrap();
            }
        })
    });
    let all = futures_util::future::join_all(counts);
    assert!(sim.block_on(all).unwrap().iter().all(Option::is_some));
    sim.run_for(Faults::none().late_by).unwrap();
    let tx = cluster.begin().unwrap();
    let counter = sim.block_on(tx.read_i64(b"counter", crate::store::Isolation::Snapshot));
    let log = log.lock().unwrap().clone();
    (counter.unwrap().unwrap(), log, sim.fingerprint())
}

#[test]
fn the_marker_recipe_counts_every_change_once_and_a_seed_replays_the_whole_run() {
    for seed in 0..5 {
        let (count, log, fingerprint) = count_on_a_bad_day(seed);
        assert_eq!(count, i64::from(NODES * ROUNDS), "seed {seed}");
        for fault in ["MaybeCommitted", "Conflict", "TooOld"] {
            assert!(log.iter().any(|line| line.contains(fault)), "{fault}");
        }
        assert_eq!(count_on_a_bad_day(seed), (count, log, fingerprint));
    }
}

#[test]
fn one_step_is_refused_and_the_connection_goes_on() {
    let world = world(Faults::none());
    world.put(b"key", b"before").unwrap();
    let refused_with = |step, refused| {
        world.store.fail_at(world.store.steps() + step, refused);
    };
    refused_with(1, StoreErrorKind::TooOld);
    assert_eq!(kind(world.get(b"key")), StoreErrorKind::TooOld);
    assert_eq!(world.get(b"key").unwrap().as_deref(), Some(&b"before"[..]));
    refused_with(1, StoreErrorKind::Conflict);
    assert_eq!(kind(world.put(b"key", b"lost")), StoreErrorKind::Conflict);
    world.sleep(secs(200));
    assert_eq!(world.stored(b"key").as_deref(), Some(&b"before"[..]));
    assert!(world.put(b"key", b"after").is_ok());
    assert!(!world.store.has_crashed());
}

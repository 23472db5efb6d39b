use super::*;
use crate::durable::Namespace;
use crate::store::{Isolation, MemoryStore, Store};
use crate::testing::faults::{Faults, FaultyStore};
use crate::testing::sim::Sim;
use std::time::Duration;

const COUNT: &[u8] = b"count";

/// A node with a session, on a store that a seed makes fail.
struct World {
    sim: Sim,
    cluster: MemoryStore,
    faulty: FaultyStore,
    session: Arc<Session>,
}

fn world(seed: u64) -> World {
    let sim = Sim::new(seed);
    let cluster = MemoryStore::with_env(sim.env());
    let faulty = FaultyStore::new(Arc::new(cluster.clone()), sim.env(), seed);
    let db = crate::store::Database::new(Arc::new(faulty.clone()), sim.env());
    let session = sim
        .block_on(async {
            let namespace = Namespace::open(&db, "test").await.unwrap();
            Session::open(&namespace, Vec::new()).await.unwrap()
        })
        .unwrap();
    World {
        sim,
        cluster,
        faulty,
        session,
    }
}

impl World {
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.sim.block_on(future).unwrap()
    }

    fn count(&self) -> i64 {
        let tx = self.cluster.begin().unwrap();
        self.run(tx.read_i64(COUNT, Isolation::Snapshot)).unwrap()
    }

    /// One piece of work on a lane: a blind addition, which nothing but the marker protects.
    async fn add_one(&self, lane: &mut Lane) -> Result<Landed<u64>, SessionError> {
        let mut runs = 0;
        lane.run_for(Duration::from_secs(3_600), |tx| {
            runs += 1;
            let run = runs;
            async move {
                tx.add_i64(COUNT, 1);
                Ok(run)
            }
        })
        .await
    }
}

fn unknown_outcomes() -> Faults {
    Faults {
        conflict: 0.1,
        unknown_applied: 0.2,
        unknown_not_applied: 0.2,
        unknown_late: 0.2,
        late_by: Duration::from_secs(2),
        ..Faults::none()
    }
}

#[test]
fn work_lands_exactly_once_under_unknown_and_late_outcomes() {
    for seed in 0..60 {
        let world = world(seed);
        world.faulty.set_faults(unknown_outcomes());
        world.run(async {
            let mut lane = world.session.lane();
            for _ in 0..20 {
                world.add_one(&mut lane).await.unwrap();
            }
        });
        // Every late attempt has had its chance.
        world.sim.run_for(Duration::from_secs(10)).unwrap();
        assert_eq!(world.count(), 20, "seed {seed}");
    }
}

#[test]
fn the_value_returned_is_that_of_the_attempt_that_landed() {
    let world = world(1);
    world.faulty.set_faults(Faults {
        unknown_applied: 1.0,
        ..Faults::none()
    });
    let landed = world.run(async {
        let mut lane = world.session.lane();
        world.add_one(&mut lane).await
    });
    // The first attempt landed and was reported as unknown; the second found its marker.
    assert_eq!(landed.unwrap().value, 1);
    assert_eq!(world.count(), 1);
}

#[test]
fn the_commit_returned_is_that_of_the_attempt_that_landed() {
    let world = world(1);
    world.faulty.set_faults(Faults {
        unknown_applied: 1.0,
        ..Faults::none()
    });
    let landed = world.run(async {
        let mut lane = world.session.lane();
        lane.run(|tx| async move {
            tx.set_versionstamped_value(b"stamp", &[0; CommitStamp::LEN], 0);
            Ok(())
        })
        .await
        .unwrap()
    });
    let stored = world
        .run(world.cluster.begin().unwrap().read(b"stamp"))
        .unwrap();
    assert_eq!(stored.as_deref(), Some(&landed.commit.stamp.as_bytes()[..]));
    assert_eq!(landed.commit.version, landed.commit.stamp.version());
}

#[test]
fn after_the_session_was_swept_an_unknown_outcome_is_never_guessed() {
    for applied in [true, false] {
        let world = world(1);
        let (unknown_applied, unknown_not_applied) = if applied { (1.0, 0.0) } else { (0.0, 1.0) };
        world.faulty.set_faults(Faults {
            unknown_applied,
            unknown_not_applied,
            ..Faults::none()
        });
        let outcome = world.run(async {
            // Far longer than the sweep takes to come.
            let policy = RetryPolicy {
                first_backoff: Duration::from_secs(10),
                max_backoff: Duration::from_secs(10),
                ..RetryPolicy::retry_unknown()
            };
            let mut lane = world.session.lane();
            let work = run_marked(
                &world.session,
                &mut lane.slot,
                policy,
                None,
                |tx, _| async move {
                    tx.add_i64(COUNT, 1);
                    Ok(Work::Write(()))
                },
            );
            let sweep = async {
                world.sim.env().sleep(Duration::from_millis(1)).await;
                let sweeper = world.cluster.begin().unwrap();
                sweeper.clear_range(&world.session.keys().all());
                sweeper.commit().await.unwrap();
            };
            futures_util::future::join(work, sweep).await.0
        });
        assert!(
            matches!(outcome, Err(SessionError::SessionGone)),
            "{outcome:?}"
        );
        assert_eq!(world.count(), i64::from(applied), "it was not tried again");
    }
}

#[test]
fn a_beat_does_not_bring_a_swept_session_back() {
    let world = world(1);
    world.run(world.session.beat()).unwrap();
    world.run(world.session.close()).unwrap();
    let beat = world.run(world.session.beat());
    assert!(matches!(beat, Err(SessionError::SessionGone)), "{beat:?}");
    let tx = world.cluster.begin().unwrap();
    let left = world
        .run(tx.get_range(world.session.keys().all().read()))
        .unwrap();
    assert_eq!(left, [], "a closed session leaves nothing");
}

#[test]
fn a_lane_is_not_shared_while_it_is_held_and_is_used_again_afterwards() {
    let world = world(1);
    let (one, two) = (world.session.lane(), world.session.lane());
    assert_ne!(one.slot.number, two.slot.number);
    let number = one.slot.number;
    drop(one);
    assert_eq!(world.session.lane().slot.number, number);
}

#[test]
fn a_lane_is_not_used_again_after_work_whose_outcome_stays_unknown() {
    let world = world(1);
    let late = Faults {
        unknown_late: 1.0,
        late_by: Duration::from_secs(2),
        ..Faults::none()
    };
    world.faulty.set_faults(late);
    let mut lane = world.session.lane();
    let number = lane.slot.number;
    let outcome = world.run(lane.run_for(Duration::ZERO, |tx| async move {
        tx.add_i64(COUNT, 1);
        Ok(())
    }));
    let error = outcome.unwrap_err();
    assert!(
        matches!(&error, SessionError::Store(error) if error.is_maybe_committed()),
        "{error}"
    );
    world.faulty.set_faults(Faults::none());
    world.run(world.add_one(&mut lane)).unwrap();
    assert_ne!(lane.slot.number, number);
    drop(lane);
    assert_ne!(world.session.lane().slot.number, number);
    world.sim.run_for(Duration::from_secs(120)).unwrap();
    assert_eq!(
        world.count(),
        2,
        "the late attempt landed too, and hurt nobody"
    );
}

#[test]
fn a_lane_whose_work_was_abandoned_is_not_used_again() {
    let world = world(1);
    let mut lane = world.session.lane();
    let number = lane.slot.number;
    world.run(async {
        let work = lane.run(|tx| async move {
            tx.add_i64(COUNT, 1);
            Ok(())
        });
        // Begun, and dropped before it ends.
        assert!(futures_util::FutureExt::now_or_never(work).is_none());
    });
    drop(lane);
    assert_ne!(world.session.lane().slot.number, number);
}

#[test]
fn work_that_is_under_way_does_not_land_after_its_session_was_closed() {
    let world = world(1);
    let mut lane = world.session.lane();
    world.run(world.add_one(&mut lane)).unwrap();
    world.faulty.set_faults(Faults {
        unknown_late: 1.0,
        ..Faults::none()
    });
    let outcome = world.run(lane.run_for(Duration::ZERO, |tx| async move {
        tx.add_i64(COUNT, 1);
        Ok(())
    }));
    outcome.unwrap_err();
    world.faulty.set_faults(Faults::none());
    world.run(world.session.close()).unwrap();
    world.sim.run_for(Duration::from_secs(600)).unwrap();
    assert_eq!(world.count(), 1);
}

#[test]
fn a_foreign_marker_is_corrupt_and_named() {
    for value in [&b""[..], b"\x01", &[1; 18], &[1; 20], &[9; 19]] {
        let error = Marker::decode(b"marker", value).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert!(error.to_string().contains("marker"), "{error}");
    }
}

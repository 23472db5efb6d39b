use super::*;
use crate::durable::{Session, SessionError};
use crate::env::Env;
use crate::store::{Database, MemoryStore, Store};
use crate::testing::faults::{FaultyStore, Outage};
use crate::testing::sim::Sim;
use std::sync::Arc;

const BEAT: Duration = Duration::from_secs(5);

struct World {
    sim: Sim,
    env: Arc<dyn Env>,
    cluster: MemoryStore,
    faulty: FaultyStore,
    namespace: Namespace,
}

fn world() -> World {
    let sim = Sim::new(7);
    let cluster = MemoryStore::with_env(sim.env());
    let faulty = FaultyStore::new(Arc::new(cluster.clone()), sim.env(), 7);
    let env = sim.env();
    let db = Database::new(Arc::new(faulty.clone()), Arc::clone(&env));
    let namespace = sim.block_on(Namespace::open(&db, "test")).unwrap().unwrap();
    World {
        sim,
        env,
        cluster,
        faulty,
        namespace,
    }
}

impl World {
    fn open(&self) -> Arc<Session> {
        self.sim
            .block_on(Session::open(&self.namespace, Vec::new()))
            .unwrap()
            .unwrap()
    }

    /// Observes every five seconds for `time`; returns what was swept.
    fn observe(&self, sweeper: &mut Sweeper, time: Duration) -> Vec<SessionId> {
        let mut swept = Vec::new();
        let until = self.env.now() + time;
        while self.env.now() < until {
            self.sim.run_for(BEAT).unwrap();
            if let Ok(dead) = self.sim.block_on(sweeper.observe()).unwrap() {
                swept.extend(dead);
            }
        }
        swept
    }

    fn keys_left(&self) -> usize {
        let tx = self.cluster.begin().unwrap();
        let read = self.namespace.keys().sessions().read();
        self.sim
            .block_on(tx.get_range(read))
            .unwrap()
            .unwrap()
            .len()
    }
}

#[test]
fn a_session_that_stands_still_for_a_minute_is_swept_with_all_its_keys() {
    let world = world();
    let session = world.open();
    world
        .sim
        .block_on(session.lane().run(|_| async { Ok(()) }))
        .unwrap()
        .unwrap();
    let mut sweeper = Sweeper::new(&world.namespace);
    assert_eq!(world.observe(&mut sweeper, DEAD_AFTER), []);
    assert_eq!(world.observe(&mut sweeper, BEAT * 2), [session.id()]);
    assert_eq!(world.keys_left(), 0);
    let beat = world.sim.block_on(session.beat()).unwrap();
    assert!(matches!(beat, Err(SessionError::SessionGone)), "{beat:?}");
}

#[test]
fn a_session_that_beats_is_not_swept() {
    let world = world();
    let (living, dead) = (world.open(), world.open());
    let mut sweeper = Sweeper::new(&world.namespace);
    let mut swept = Vec::new();
    for _ in 0..8 {
        swept.extend(world.observe(&mut sweeper, BEAT * 4));
        world.sim.block_on(living.beat()).unwrap().unwrap();
    }
    assert_eq!(swept, [dead.id()]);
}

#[test]
fn an_outage_counts_for_nothing() {
    let world = world();
    let session = world.open();
    let mut sweeper = Sweeper::new(&world.namespace);
    assert_eq!(world.observe(&mut sweeper, DEAD_AFTER - BEAT * 2), []);
    world.faulty.set_outage(Some(Outage::Refuse));
    assert_eq!(world.observe(&mut sweeper, DEAD_AFTER * 2), []);
    world.faulty.set_outage(None);
    // Nobody could beat meanwhile: the session has as long as ever.
    assert_eq!(world.observe(&mut sweeper, DEAD_AFTER), []);
    world.sim.block_on(session.beat()).unwrap().unwrap();
    assert_eq!(world.observe(&mut sweeper, BEAT * 4), []);
}

/// The look is answered when the outage is over, before anybody else has come to beat.
#[test]
fn an_outage_that_a_look_outlasts_counts_for_nothing() {
    let world = world();
    let session = world.open();
    let mut sweeper = Sweeper::new(&world.namespace);
    assert_eq!(world.observe(&mut sweeper, DEAD_AFTER - BEAT * 2), []);
    world.faulty.set_outage(Some(Outage::Hang));
    let faulty = world.faulty.clone();
    let over = world.env.sleep(DEAD_AFTER * 2);
    world.env.spawn(Box::pin(async move {
        over.await;
        faulty.set_outage(None);
    }));
    assert_eq!(world.observe(&mut sweeper, BEAT), []);
    assert_eq!(world.observe(&mut sweeper, DEAD_AFTER - BEAT), []);
    world.sim.block_on(session.beat()).unwrap().unwrap();
    assert_eq!(world.observe(&mut sweeper, BEAT * 4), []);
}

#[test]
fn a_pause_of_the_observer_counts_for_nothing() {
    let world = world();
    world.open();
    let mut sweeper = Sweeper::new(&world.namespace);
    assert_eq!(world.observe(&mut sweeper, BEAT), []);
    world.sim.run_for(DEAD_AFTER * 10).unwrap();
    assert_eq!(world.observe(&mut sweeper, BEAT), []);
}

#[test]
fn a_beat_between_the_last_look_and_the_sweep_saves_the_session() {
    let world = world();
    let session = world.open();
    let sweeper = Sweeper::new(&world.namespace);
    let tx = world.cluster.begin().unwrap();
    let observed = world
        .sim
        .block_on(tx.read(&session.keys().heartbeat()))
        .unwrap()
        .unwrap();
    world.sim.block_on(session.beat()).unwrap().unwrap();
    let removed = world
        .sim
        .block_on(sweeper.remove(session.id(), observed))
        .unwrap()
        .unwrap();
    assert!(!removed);
    assert_eq!(world.keys_left(), 1);
}

#[test]
fn replies_to_a_session_that_is_gone_are_swept_too() {
    let world = world();
    let keys = world
        .namespace
        .keys()
        .session(SessionId::from_bytes([9; SessionId::LEN]));
    let tx = world.cluster.begin().unwrap();
    tx.set(&keys.reply(1, 0), b"too late");
    tx.set(&keys.reply_wake(), b"");
    world.sim.block_on(tx.commit()).unwrap().unwrap();
    let mut sweeper = Sweeper::new(&world.namespace);
    let swept = world.observe(&mut sweeper, DEAD_AFTER + BEAT * 2);
    assert_eq!(swept.len(), 1);
    assert_eq!(world.keys_left(), 0);
}

/// Before all sessions, among the keys of one, before those of another, and behind all of them.
#[test]
fn foreign_keys_hide_no_session() {
    let world = world();
    let (first, second) = (world.open(), world.open());
    let all = world.namespace.keys().sessions();
    let beside = |key: &[u8], end: &[u8]| Bytes::from([key, end].concat());
    let last = all.end.len() - 1;
    let outside = [
        beside(&all.begin, b""),
        beside(&all.begin, b"\x00"),
        beside(&all.end[..last], b"\xfe\xff"),
    ];
    let within = [
        beside(&first.keys().all().begin, b"\x00\xff"),
        beside(&second.keys().heartbeat(), b"\x15\x01"),
    ];
    let tx = world.cluster.begin().unwrap();
    for key in outside.iter().chain(&within) {
        assert!(world.namespace.keys().decode(key).is_err(), "{key:?}");
        tx.set(key, b"planted");
    }
    world.sim.block_on(tx.commit()).unwrap().unwrap();
    let planted = |keys: &[Bytes]| {
        keys.iter()
            .filter(|key| all.begin <= **key && **key < all.end)
            .count()
    };
    assert_eq!(planted(&within), 2);
    let mut sweeper = Sweeper::new(&world.namespace);
    let mut swept = world.observe(&mut sweeper, DEAD_AFTER + BEAT * 2);
    swept.sort();
    let mut both = [first.id(), second.id()];
    both.sort();
    assert_eq!(swept, both);
    assert_eq!(
        world.keys_left(),
        planted(&outside),
        "the rest is left alone"
    );
    assert!(world.keys_left() >= 2);
    let mut told: Vec<_> = sweeper.foreign.iter().cloned().collect();
    told.retain(|key| !within.contains(key));
    assert_eq!(told.len(), planted(&outside), "each is told of once");
}

/// As many as would keep one transaction busy for longer than it lives.
#[test]
fn any_number_of_foreign_keys_hides_no_session() {
    let world = world();
    let session = world.open();
    let before = world.namespace.keys().sessions().begin;
    let tx = world.cluster.begin().unwrap();
    for number in 0..PAGE * 2 {
        let end = [&[0][..], number.to_string().as_bytes()].concat();
        tx.set(&[&before, end.as_slice()].concat(), b"planted");
    }
    world.sim.block_on(tx.commit()).unwrap().unwrap();
    let mut sweeper = Sweeper::new(&world.namespace);
    let swept = world.observe(&mut sweeper, DEAD_AFTER + BEAT * 2);
    assert_eq!(swept, [session.id()]);
    assert_eq!(sweeper.foreign.len(), MAX_FOREIGN);
}

#[test]
fn more_sessions_than_a_page_holds_are_all_seen() {
    let world = world();
    let sessions = PAGE * 2 + 1;
    for _ in 0..sessions {
        world.open();
    }
    let mut sweeper = Sweeper::new(&world.namespace);
    assert_eq!(
        world.observe(&mut sweeper, DEAD_AFTER + BEAT * 3).len(),
        sessions
    );
    assert_eq!(world.keys_left(), 0);
}

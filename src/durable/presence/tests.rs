use super::*;
use crate::durable::Sweeper;
use crate::store::{Database, MemoryStore, Store};
use crate::testing::faults::{FaultyStore, Outage};
use crate::testing::sim::Sim;
use std::sync::atomic::{AtomicU64, Ordering};

struct World {
    sim: Sim,
    cluster: MemoryStore,
    faulty: FaultyStore,
    presence: Arc<Presence>,
}

fn world(seed: u64) -> World {
    let sim = Sim::new(seed);
    let cluster = MemoryStore::with_env(sim.env());
    let faulty = FaultyStore::new(Arc::new(cluster.clone()), sim.env(), seed);
    let db = Database::new(Arc::new(faulty.clone()), sim.env());
    let presence = sim
        .block_on(async {
            let namespace = Namespace::open(&db, "test").await.unwrap();
            Presence::open(&namespace, Vec::new()).await.unwrap()
        })
        .unwrap();
    World {
        sim,
        cluster,
        faulty,
        presence,
    }
}

impl World {
    fn sweep(&self, session: &Session) {
        let tx = self.cluster.begin().unwrap();
        tx.clear_range(&session.keys().all());
        self.sim.block_on(tx.commit()).unwrap().unwrap();
    }

    fn sessions_left(&self) -> usize {
        let tx = self.cluster.begin().unwrap();
        let all = self.presence.namespace().keys().sessions().read();
        self.sim.block_on(tx.get_range(all)).unwrap().unwrap().len()
    }
}

#[derive(Default)]
struct Heard(AtomicU64);

impl Renewals for Heard {
    fn renewed(&self, _: &Arc<Session>, generation: u64) {
        assert_eq!(self.0.swap(generation, Ordering::SeqCst) + 1, generation);
    }
}

#[test]
fn all_who_find_the_session_gone_get_the_same_new_one() {
    let world = world(1);
    let heard = Arc::new(Heard::default());
    let observer: Weak<dyn Renewals> = Arc::downgrade(&(Arc::clone(&heard) as Arc<dyn Renewals>));
    world.presence.observe(observer);
    let gone = world.presence.session();
    let renewed = world
        .sim
        .block_on(futures_util::future::join3(
            world.presence.renew(&gone),
            world.presence.renew(&gone),
            world.presence.renew(&gone),
        ))
        .unwrap();
    let ids = [renewed.0, renewed.1, renewed.2].map(|session| session.unwrap().id());
    assert_ne!(ids[0], gone.id());
    assert_eq!(ids, [ids[0]; 3]);
    assert_eq!(world.presence.generation(), 1);
    assert_eq!(heard.0.load(Ordering::SeqCst), 1);
    assert!(world.presence.session().opened() > gone.opened());
}

#[test]
fn beats_go_on_through_an_outage_and_renew_a_swept_session() {
    let world = world(2);
    let env = world.sim.env();
    env.spawn(Box::pin(
        Arc::clone(&world.presence).beat_forever(Arc::clone(&env)),
    ));
    for outage in [Outage::Refuse, Outage::Hang] {
        let before = world.presence.session();
        world.faulty.set_outage(Some(outage));
        world.sim.run_for(Duration::from_secs(300)).unwrap();
        world.sweep(&before);
        world.faulty.set_outage(None);
        world.sim.run_for(Duration::from_secs(30)).unwrap();
        assert_ne!(world.presence.session().id(), before.id(), "{outage:?}");
    }
    // An observer that looks every few seconds sees it live.
    let swept = world.sim.block_on(async {
        let mut sweeper = Sweeper::new(world.presence.namespace());
        let mut swept = Vec::new();
        for _ in 0..60 {
            swept.extend(sweeper.observe().await.unwrap());
            env.sleep(Duration::from_secs(5)).await;
        }
        swept
    });
    assert_eq!(swept.unwrap(), []);
}

#[test]
fn a_closed_presence_leaves_nothing_and_opens_nothing() {
    let world = world(3);
    let env = world.sim.env();
    env.spawn(Box::pin(
        Arc::clone(&world.presence).beat_forever(Arc::clone(&env)),
    ));
    world.sim.run_for(Duration::from_secs(20)).unwrap();
    let session = world.presence.session();
    world.sim.block_on(world.presence.close()).unwrap().unwrap();
    let renewed = world.sim.block_on(world.presence.renew(&session)).unwrap();
    assert_eq!(renewed.unwrap_err().kind(), StoreErrorKind::InvalidCall);
    world.sim.run_for(Duration::from_secs(60)).unwrap();
    assert_eq!(world.sessions_left(), 0);
}

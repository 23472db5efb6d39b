use super::*;
use crate::codec::Leaves;
use crate::durable::keys::SessionId;
use crate::durable::lock::NewLock;
use crate::durable::message::CallId;
use crate::durable::queue::Pushes;
use crate::store::{Database, MemoryStore, Store, TransactionExt};
use crate::testing::faults::{Faults, FaultyStore};
use crate::testing::sim::Sim;
use std::time::Duration;

/// A node with a session on a store that a seed makes fail, and callers that wait elsewhere.
struct World {
    sim: Sim,
    cluster: MemoryStore,
    faulty: FaultyStore,
    session: Arc<Session>,
    callers: SessionId,
}

fn world(seed: u64) -> World {
    let sim = Sim::new(seed);
    let cluster = MemoryStore::with_env(sim.env());
    let faulty = FaultyStore::new(Arc::new(cluster.clone()), sim.env(), seed);
    let db = Database::new(Arc::new(faulty.clone()), sim.env());
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
        callers: SessionId::from_bytes([9; SessionId::LEN]),
    }
}

fn instance() -> InstanceId {
    InstanceId::new("counter", "one").unwrap()
}

impl World {
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.sim.block_on(future).unwrap()
    }

    fn keys(&self) -> InstanceKeys {
        self.session.namespace().keys().instance(&instance())
    }

    fn call(&self, number: u64, size: usize) -> Message {
        Message {
            name: "Add".into(),
            payload: vec![0; size].into(),
            call: Some(CallId {
                session: self.callers,
                call: number,
            }),
            query: false,
            sender: None,
            sent_ms: 0,
            trace: None,
            failed: None,
            deadline_ms: None,
            idempotency_key: None,
        }
    }

    fn write(&self, write: impl FnOnce(&Tx)) {
        let tx = self.cluster.begin().unwrap();
        write(&tx);
        self.run(tx.commit()).unwrap();
    }

    fn push(&self, mailbox: MailboxLane, message: &Message) {
        self.write(|tx| {
            let mut pushes = Pushes::new(self.session.namespace(), tx);
            pushes.push(&instance(), mailbox, message).unwrap();
        });
    }

    fn lock(&self, message: &Message) {
        let lock = NewLock {
            session: self.callers,
            stops: 0,
            attempts: 0,
            not_before_ms: 0,
            taken_ms: 0,
            stamp: None,
            lane: MailboxLane::Ordinary,
            error: String::new(),
        };
        self.write(|tx| {
            lock::take(tx, &self.keys(), &lock, Some(message)).unwrap();
            ready::set_mark(tx, &self.keys());
        });
    }

    /// The calls that were answered, all of them with the death of the instance.
    fn told(&self) -> Vec<u64> {
        let keys = self.session.namespace().keys().session(self.callers);
        let tx = self.cluster.begin().unwrap();
        let inbox = self.run(reply::read_inbox(&tx, &keys, 10_000)).unwrap();
        let killed = |(call, answer): (u64, Result<Answer, StoreError>)| {
            assert_eq!(answer.unwrap(), Answer::Killed);
            call
        };
        inbox.answers.into_iter().map(killed).collect()
    }

    /// Whether anything of the instance is in the store.
    fn exists(&self) -> bool {
        let keys = self.session.namespace().keys();
        let tx = self.cluster.begin().unwrap();
        let nothing = self.run(tx.is_empty(&self.keys().all(), Isolation::Snapshot));
        let others = [self.keys().ready().clone(), keys.directory(&instance())];
        !nothing.unwrap()
            || others
                .iter()
                .any(|key| self.run(tx.read(key)).unwrap().is_some())
    }
}

#[test]
fn every_caller_is_told_and_nothing_is_left() {
    for seed in 0..10 {
        let world = world(seed);
        for number in 0..30 {
            world.push(MailboxLane::Ordinary, &world.call(number, 100_000));
        }
        world.push(MailboxLane::Priority, &world.call(30, 1));
        world.lock(&world.call(31, 200_000));
        world.write(|tx| {
            state::touch(tx, &world.keys(), 1);
            tx.set(
                &world.session.namespace().keys().directory(&instance()),
                b"x",
            );
        });
        world.faulty.set_faults(Faults::bad_day());
        world.run(kill(&world.session, &instance())).unwrap();
        assert!(!world.exists(), "seed {seed}");
        assert_eq!(world.told(), (0..32).collect::<Vec<u64>>());
        // No late attempt brings a pause back.
        world.sim.run_for(Duration::from_secs(300)).unwrap();
        assert!(!world.exists(), "seed {seed}");
    }
}

#[test]
fn an_acknowledged_push_is_told_or_stands_in_the_next_instance() {
    for seed in 0..20 {
        let world = world(seed);
        world.faulty.set_faults(Faults {
            delay: 1.0,
            ..Faults::none()
        });
        let pushes = async {
            for number in 0..100 {
                let tx = world.cluster.begin().unwrap();
                Pushes::new(world.session.namespace(), &tx)
                    .push(&instance(), MailboxLane::Ordinary, &world.call(number, 1))
                    .unwrap();
                tx.commit().await.unwrap();
                let env = world.sim.env();
                env.sleep(Duration::from_millis(env.random() % 20)).await;
            }
        };
        let killing = async {
            world.sim.env().sleep(Duration::from_millis(200)).await;
            kill(&world.session, &instance()).await
        };
        let (killed, ()) = world.run(futures_util::future::join(killing, pushes));
        killed.unwrap();
        let tx = world.cluster.begin().unwrap();
        let keys = world.keys();
        let head = queue::read_head(&tx, &keys, MailboxLane::Ordinary, 1_000, 1_000_000);
        let stands = world.run(head).unwrap().messages;
        let call = |queued: &queue::Queued| queued.message.as_ref().unwrap().call.unwrap().call;
        let mut all = world.told();
        assert!(all.len() > 5, "seed {seed}");
        all.extend(stands.iter().map(call));
        assert_eq!(all, (0..100).collect::<Vec<u64>>(), "seed {seed}");
        assert_eq!(world.run(pause::read_at(&tx, keys.paused())).unwrap(), None);
    }
}

#[test]
fn what_cannot_be_read_is_removed_too() {
    let world = world(1);
    world.push(MailboxLane::Ordinary, &world.call(1, 1));
    world.write(|tx| tx.set(&world.keys().lock(), b"no lock"));
    world.run(kill(&world.session, &instance())).unwrap();
    assert!(!world.exists());
    assert_eq!(world.told(), [1]);
}

#[test]
fn a_reset_takes_the_state_and_leaves_the_mailbox() {
    let world = world(1);
    world.push(MailboxLane::Ordinary, &world.call(1, 1));
    world.write(|tx| {
        let leaves =
            crate::codec::encode(&vec![1, 2], &Leaves::new(), &crate::codec::Ignored::none());
        let changes = crate::codec::diff(&Leaves::new(), &leaves.unwrap().leaves);
        state::write(tx, &world.keys(), &changes, &Leaves::new(), 1).unwrap();
    });
    world.run(reset(&world.session, &instance())).unwrap();
    let tx = world.cluster.begin().unwrap();
    assert_eq!(world.run(tx.read(&world.keys().version())).unwrap(), None);
    let state = world.keys().state();
    assert!(world.run(tx.is_empty(&state, Isolation::Snapshot)).unwrap());
    assert_eq!(world.run(queue::length(&tx, &world.keys())).unwrap(), 1);
    assert_eq!(world.told(), Vec::<u64>::new());
}

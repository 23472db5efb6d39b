use super::*;
use crate::durable::keys::Lane;
use crate::durable::{Namespace, queue, reply};
use crate::store::{Database, Isolation, MemoryStore, Store, StoreError, TransactionExt, Version};
use crate::testing::faults::{Faults, FaultyStore, Outage};
use crate::testing::sim::{Node, Sim};
use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use std::collections::{BTreeMap, BTreeSet};

const MINUTE: Duration = Duration::from_secs(60);

/// A process with a client, on a connection that a seed makes fail; and the world beside it, whose
/// connection never does.
struct World {
    sim: Sim,
    node: Node,
    cluster: MemoryStore,
    faulty: FaultyStore,
    namespace: Namespace,
    presence: Arc<Presence>,
    client: Arc<Client>,
}

fn world_with(seed: u64, options: &Options) -> World {
    let sim = Sim::new(seed);
    let cluster = MemoryStore::with_env(sim.env());
    let faulty = FaultyStore::new(Arc::new(cluster.clone()), sim.env(), seed);
    let node = sim.node("client");
    let db = Database::new(Arc::new(faulty.clone()), node.env());
    let beside = Database::new(Arc::new(cluster.clone()), sim.env());
    let (namespace, presence) = sim
        .block_on(async {
            let namespace = Namespace::open(&db, "test").await.unwrap();
            let presence = Presence::open(&namespace, Vec::new()).await.unwrap();
            (Namespace::open(&beside, "test").await.unwrap(), presence)
        })
        .unwrap();
    let client = Client::new(Arc::clone(&presence), options);
    World {
        sim,
        node,
        cluster,
        faulty,
        namespace,
        presence,
        client,
    }
}

fn world(seed: u64) -> World {
    world_with(seed, &Options::default())
}

fn instance(id: &str) -> InstanceId {
    InstanceId::new("counter", id).unwrap()
}

fn outgoing(id: &str, text: &str) -> Outgoing {
    Outgoing {
        instance: instance(id),
        name: "Add".into(),
        payload: Bytes::copy_from_slice(text.as_bytes()),
        lane: Lane::Ordinary,
        query: false,
        trace: None,
    }
}

impl World {
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.sim.block_on(future).unwrap()
    }

    /// The messages of an instance in their order, with the version that each was pushed at.
    fn mailbox(&self, id: &str) -> Vec<(Version, String)> {
        let keys = self.namespace.keys().instance(&instance(id));
        let tx = self.cluster.begin().unwrap();
        let head = queue::read_head(&tx, &keys, Lane::Ordinary, usize::MAX, usize::MAX);
        let read = |queued: &queue::Queued| {
            let stamp = queued.stamp.as_bytes();
            let version = Version(u64::from_be_bytes(stamp[..8].try_into().unwrap()));
            let payload = queued.message.as_ref().unwrap().payload.to_vec();
            (version, String::from_utf8(payload).unwrap())
        };
        self.run(head).unwrap().messages.iter().map(read).collect()
    }

    /// What a consumer elsewhere does: takes everything out and stages a reply to each call.
    async fn consume(&self, id: &str) -> usize {
        let keys = self.namespace.keys().instance(&instance(id));
        let namespace = self.namespace.clone();
        let consumed = self.namespace.database().run(|attempt| {
            let (namespace, keys) = (namespace.clone(), keys.clone());
            async move {
                let tx = attempt.tx();
                let head = queue::read_head(tx, &keys, Lane::Ordinary, 1_000, 1_000_000);
                let head = head.await?;
                queue::pop(tx, &keys, &head.messages);
                tx.clear(keys.ready());
                for queued in &head.messages {
                    let message = queued.message.as_ref().unwrap();
                    if let Some(call) = message.call {
                        let answer = Answer::Reply(message.payload.clone());
                        reply::stage(tx, namespace.keys(), call, &answer)?;
                    }
                }
                Ok::<_, StoreError>(head.messages.len())
            }
        });
        consumed.await.unwrap().value
    }

    async fn consume_after(&self, id: &str, wait: Duration) -> usize {
        self.sim.env().sleep(wait).await;
        self.consume(id).await
    }

    /// Every key that stands below the session.
    fn replies_left(&self) -> usize {
        let tx = self.cluster.begin().unwrap();
        let replies = self.presence.session().keys().replies();
        self.run(tx.get_range(replies.read())).unwrap().len()
    }

    fn sweep(&self) {
        let tx = self.cluster.begin().unwrap();
        tx.clear_range(&self.presence.session().keys().all());
        self.run(tx.commit()).unwrap();
    }
}

#[test]
fn acknowledged_casts_stand_once_and_in_order_and_others_at_most_once() {
    let options = Options {
        push_for: Duration::from_secs(2),
        streams: 3,
        ..Options::default()
    };
    let (mut acknowledged, mut unknown) = (0, 0);
    for seed in 0..15 {
        let world = world_with(seed, &options);
        world.faulty.set_faults(Faults {
            unknown_late: 0.1,
            ..Faults::bad_day()
        });
        let env = world.sim.env();
        let senders = (0..8).map(|sender| {
            let (client, env) = (Arc::clone(&world.client), Arc::clone(&env));
            async move {
                let mut outcomes = Vec::new();
                for number in 0..25_u32 {
                    let id = format!("{}", (sender + number) % 3);
                    let text = format!("{sender}:{number:03}");
                    let sent = client.cast(vec![outgoing(&id, &text)]).await;
                    outcomes.push((id, text, sent.map_err(|error| error.kind())));
                    env.sleep(Duration::from_millis(env.random() % 20)).await;
                }
                outcomes
            }
        });
        let outage = async {
            env.sleep(Duration::from_millis(700)).await;
            world.faulty.set_outage(Some(Outage::Refuse));
            env.sleep(Duration::from_secs(5)).await;
            world.faulty.set_outage(None);
        };
        let outcomes = world.run(join(join_all(senders), outage)).0;
        // Every late attempt has had its chance.
        world.sim.run_for(5 * MINUTE).unwrap();
        let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
        for id in ["0", "1", "2"] {
            let texts: Vec<String> = world
                .mailbox(id)
                .into_iter()
                .map(|(_, text)| text)
                .collect();
            for (sender, sent) in outcomes.iter().enumerate() {
                let mine = texts
                    .iter()
                    .filter(|text| text.starts_with(&format!("{sender}:")));
                // One that was not acknowledged may stand behind what was sent after it.
                let is_acknowledged = |text: &&String| {
                    sent.iter()
                        .any(|(_, sent, outcome)| sent == *text && outcome.is_ok())
                };
                assert!(
                    mine.filter(is_acknowledged).is_sorted(),
                    "seed {seed}: {texts:?}"
                );
            }
            for text in texts {
                *found.entry((id.to_owned(), text)).or_default() += 1;
            }
        }
        for (id, text, outcome) in outcomes.into_iter().flatten() {
            let stands = found.remove(&(id, text.clone())).unwrap_or(0);
            match outcome {
                Ok(()) => {
                    assert_eq!(stands, 1, "seed {seed}: {text}");
                    acknowledged += 1;
                }
                Err(CallErrorKind::OutcomeUnknown) => {
                    assert!(stands <= 1, "seed {seed}: {text}");
                    unknown += 1;
                }
                Err(kind) => assert_eq!(stands, 0, "seed {seed}: {text} failed: {kind:?}"),
            }
        }
        assert!(found.is_empty());
    }
    assert!(
        acknowledged > 1_000 && unknown > 0,
        "{acknowledged}, {unknown}"
    );
}

#[test]
fn a_lone_message_goes_at_once_and_what_comes_meanwhile_is_the_next_batch() {
    let world = world(1);
    world.faulty.set_faults(Faults {
        delay: 1.0,
        ..Faults::none()
    });
    let casts = (0..100).map(|number| {
        let client = Arc::clone(&world.client);
        let env = world.sim.env();
        async move {
            env.sleep(Duration::from_nanos(number)).await;
            client
                .cast(vec![outgoing("one", &format!("{number:03}"))])
                .await
        }
    });
    world
        .run(join_all(casts))
        .into_iter()
        .for_each(|sent| sent.unwrap());
    let (versions, texts): (Vec<Version>, Vec<String>) = world.mailbox("one").into_iter().unzip();
    assert!(texts.is_sorted() && texts.len() == 100, "{texts:?}");
    assert_eq!(
        versions.iter().collect::<BTreeSet<_>>().len(),
        2,
        "two transactions"
    );
    assert_ne!(versions[0], versions[1], "the first went alone");
}

#[test]
fn nothing_happens_while_nobody_sends() {
    let world = world(1);
    world
        .run(world.client.cast(vec![outgoing("one", "1")]))
        .unwrap();
    let steps = world.faulty.steps();
    world.sim.run_for(60 * MINUTE).unwrap();
    assert_eq!(world.faulty.steps(), steps);
}

#[test]
fn a_batch_is_pushed_whole_in_one_transaction() {
    let world = world(1);
    let batch = (0..2_000).map(|number| outgoing(&format!("{}", number % 2), "x"));
    world.run(world.client.cast(batch.collect())).unwrap();
    let versions: BTreeSet<Version> = ["0", "1"]
        .into_iter()
        .flat_map(|id| world.mailbox(id))
        .map(|(version, _)| version)
        .collect();
    assert_eq!(versions.len(), 1);
    assert_eq!(world.mailbox("0").len() + world.mailbox("1").len(), 2_000);
}

#[test]
fn what_no_transaction_takes_is_refused_before_anything_is_done() {
    let world = world(1);
    let steps = world.faulty.steps();
    let huge = outgoing("one", &"x".repeat(unit::MAX_MESSAGE_BYTES + 1));
    let large = outgoing("one", &"x".repeat(4_000_000));
    let called = world
        .run(world.client.call(huge.clone(), MINUTE))
        .unwrap_err();
    let many = vec![outgoing("one", ""); unit::MAX_UNIT_MESSAGES + 1];
    for batch in [
        vec![huge],
        vec![large.clone(), large.clone(), large.clone()],
        many,
    ] {
        let error = world.run(world.client.cast(batch)).unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::TooLarge);
        assert!(error.message().contains("are allowed"), "{error}");
    }
    assert_eq!(called.kind(), CallErrorKind::TooLarge);
    assert_eq!(world.faulty.steps(), steps);
    // As two they are taken.
    world
        .run(world.client.cast(vec![large.clone(), large]))
        .unwrap();
}

#[test]
fn a_message_that_the_store_refuses_fails_alone() {
    let world = world(1);
    world.faulty.set_faults(Faults {
        delay: 1.0,
        ..Faults::none()
    });
    // Escaped zeros make the key twice as long as the id: too long with a kind of the same sort.
    let bad = InstanceId::new("\0".repeat(128), "\0".repeat(1_024)).unwrap();
    let long = Outgoing {
        instance: bad,
        ..outgoing("one", "bad")
    };
    let one_stream = Options {
        streams: 1,
        ..Options::default()
    };
    let client = Client::new(Arc::clone(&world.presence), &one_stream);
    let sent = world.run(async {
        let first = client.cast(vec![outgoing("one", "1")]);
        let others = join(
            client.cast(vec![long]),
            client.cast(vec![outgoing("one", "2")]),
        );
        join(first, others).await
    });
    sent.0.unwrap();
    sent.1.1.unwrap();
    assert_eq!(world.mailbox("one").len(), 2);
}

#[test]
fn senders_wait_while_too_much_waits() {
    let options = Options {
        waiting_messages: 10,
        ..Options::default()
    };
    let world = world_with(1, &options);
    world.faulty.set_outage(Some(Outage::Hang));
    let casts: Vec<_> = (0..50)
        .map(|number| {
            world
                .client
                .cast(vec![outgoing("one", &format!("{number:02}"))])
        })
        .collect();
    let waiting = world.node.run(join_all(casts));
    world.sim.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(world.client.parts.pusher.waiting(), 10);
    world.faulty.set_outage(None);
    assert!(
        world
            .run(waiting)
            .unwrap()
            .into_iter()
            .all(|sent| sent.is_ok())
    );
    assert_eq!(world.mailbox("one").len(), 50);
    assert_eq!(world.client.parts.pusher.waiting(), 0);
}

#[test]
fn a_sender_that_leaves_before_its_batch_cancels_only_its_waiting() {
    let world = world(1);
    world.faulty.set_outage(Some(Outage::Hang));
    let first = world
        .node
        .run(world.client.cast(vec![outgoing("one", "1")]));
    world.sim.run_for(Duration::from_secs(1)).unwrap();
    let mut second = world.client.cast(vec![outgoing("one", "2")]);
    assert!((&mut second).now_or_never().is_none());
    drop(second);
    world.faulty.set_outage(None);
    world.run(first).unwrap().unwrap();
    world.sim.run_for(MINUTE).unwrap();
    assert_eq!(world.mailbox("one").len(), 2);
}

#[test]
fn an_outage_ends_in_unavailable_and_is_forgotten() {
    let world = world(1);
    world.faulty.set_outage(Some(Outage::Refuse));
    let casts = (0..5).map(|_| world.client.cast(vec![outgoing("one", "1")]));
    let begin = world.sim.now();
    for sent in world.run(join_all(casts)) {
        assert_eq!(sent.unwrap_err().kind(), CallErrorKind::Unavailable);
    }
    assert!(world.sim.now() - begin < MINUTE);
    world.faulty.set_outage(None);
    world
        .run(world.client.cast(vec![outgoing("one", "2")]))
        .unwrap();
    assert_eq!(world.mailbox("one").len(), 1);
}

#[test]
fn replies_from_the_store_reach_their_callers_and_are_cleared() {
    for seed in 0..10 {
        let world = world(seed);
        world.faulty.set_faults(Faults::bad_day());
        let calls = (0..40).map(|number| {
            let text = format!("{number}");
            let call = world.client.call(outgoing("one", &text), 10 * MINUTE);
            async move { (text, call.await) }
        });
        let consume = async {
            let mut consumed = 0;
            while consumed < 40 {
                consumed += world.consume_after("one", Duration::from_millis(200)).await;
            }
        };
        for (text, reply) in world.run(join(join_all(calls), consume)).0 {
            assert_eq!(reply.unwrap(), text.as_bytes(), "seed {seed}");
        }
        world.sim.run_for(MINUTE).unwrap();
        assert_eq!(world.replies_left(), 0, "seed {seed}");
        assert_eq!(world.client.parts.calls.pending(), 0);
    }
}

#[test]
fn more_replies_than_a_look_reads_all_arrive() {
    let world = world(1);
    let calls = (0..700).map(|number| {
        world
            .client
            .call(outgoing("one", &format!("{number}")), MINUTE)
    });
    let consume = async {
        world.sim.env().sleep(Duration::from_secs(1)).await;
        assert_eq!(world.consume("one").await, 700);
    };
    let answered = world.run(join(join_all(calls), consume)).0;
    assert!(answered.into_iter().all(|reply| reply.is_ok()));
    world.sim.run_for(MINUTE).unwrap();
    assert_eq!(world.replies_left(), 0);
}

#[test]
fn the_late_reply_to_a_call_that_timed_out_is_cleared() {
    let world = world(1);
    let called = world
        .client
        .call(outgoing("one", "1"), Duration::from_secs(5));
    assert_eq!(
        world.run(called).unwrap_err().kind(),
        CallErrorKind::TimedOut
    );
    assert_eq!(world.client.parts.calls.pending(), 0);
    assert_eq!(world.run(world.consume("one")), 1);
    world.sim.run_for(MINUTE).unwrap();
    assert_eq!(world.replies_left(), 0);
}

#[test]
fn an_outage_of_minutes_delays_replies_and_loses_none() {
    for outage in [Outage::Refuse, Outage::Hang] {
        let world = world(1);
        let call = world.client.call(outgoing("one", "1"), 20 * MINUTE);
        let away = async {
            world.sim.env().sleep(Duration::from_secs(1)).await;
            world.faulty.set_outage(Some(outage));
            assert_eq!(world.consume("one").await, 1);
            world.sim.env().sleep(5 * MINUTE).await;
            world.faulty.set_outage(None);
        };
        assert_eq!(
            world.run(join(call, away)).0.unwrap(),
            &b"1"[..],
            "{outage:?}"
        );
    }
}

#[test]
fn a_process_that_was_taken_for_dead_ends_its_calls_and_goes_on() {
    let world = world(1);
    world.node.env().spawn(Box::pin(
        Arc::clone(&world.presence).beat_forever(world.node.env()),
    ));
    let call = world
        .node
        .run(world.client.call(outgoing("one", "1"), 20 * MINUTE));
    world.sim.run_for(Duration::from_secs(1)).unwrap();
    world.node.pause(2 * MINUTE);
    world.sweep();
    let ended = world.run(call).unwrap();
    assert_eq!(ended.unwrap_err().kind(), CallErrorKind::OutcomeUnknown);
    // Its reply goes to a session that is gone; that of the next call does not.
    assert_eq!(world.run(world.consume("one")), 1);
    let next = world.client.call(outgoing("one", "2"), MINUTE);
    let consume = world.consume_after("one", Duration::from_secs(1));
    assert_eq!(world.run(join(next, consume)).0.unwrap(), &b"2"[..]);
}

#[test]
fn a_push_in_doubt_of_a_swept_session_is_unknown_and_the_next_one_goes_through() {
    let world = world(1);
    world.faulty.set_faults(Faults {
        unknown_applied: 1.0,
        ..Faults::none()
    });
    let gone = world.presence.session();
    let sent = world
        .node
        .run(world.client.cast(vec![outgoing("one", "1")]));
    // The first attempt has landed and its outcome is unknown; the sweep comes before the second.
    world.sim.run_for(Duration::from_nanos(1)).unwrap();
    assert_eq!(world.mailbox("one").len(), 1);
    world.sweep();
    world.faulty.set_faults(Faults::none());
    let sent = world.run(sent).unwrap();
    assert_eq!(sent.unwrap_err().kind(), CallErrorKind::OutcomeUnknown);
    world
        .run(world.client.cast(vec![outgoing("one", "2")]))
        .unwrap();
    assert_ne!(world.presence.session().id(), gone.id());
    assert_eq!(world.mailbox("one").len(), 2, "each stands once");
}

/// A consumer that answers every other inline call, and refuses the rest.
#[derive(Debug, Default)]
struct EveryOther {
    client: Mutex<Option<Weak<Client>>>,
    offered: Mutex<usize>,
    pushed: Mutex<Vec<Version>>,
}

impl Local for EveryOther {
    fn serves(&self, kind: &str) -> bool {
        kind == "counter"
    }

    fn pushed(&self, _: &InstanceId, version: Version) {
        self.pushed.lock().unwrap().push(version);
    }

    fn offer(&self, inline: Inline) -> Result<(), Inline> {
        let mut offered = self.offered.lock().unwrap();
        *offered += 1;
        if offered.is_multiple_of(2) {
            return Err(inline);
        }
        let client = self
            .client
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .upgrade()
            .unwrap();
        let call = inline.message.call.unwrap();
        assert!(client.is_mine(call.session));
        assert!(client.answer(call, Answer::Reply(Bytes::from_static(b"inline"))));
        assert!(!client.answer(call, Answer::Killed), "it is answered once");
        Ok(())
    }
}

#[test]
fn a_call_is_offered_to_the_own_consumer_and_pushed_if_that_refuses() {
    let world = world(1);
    let local = Arc::new(EveryOther::default());
    *local.client.lock().unwrap() = Some(Arc::downgrade(&world.client));
    let weak: Weak<dyn Local> = Arc::downgrade(&(Arc::clone(&local) as Arc<dyn Local>));
    world.client.set_local(weak);
    let inline = world.client.call(outgoing("one", "1"), MINUTE);
    assert_eq!(world.run(inline).unwrap(), &b"inline"[..]);
    assert!(local.pushed.lock().unwrap().is_empty());
    let pushed = world.client.call(outgoing("one", "2"), MINUTE);
    let consume = async {
        world.sim.env().sleep(Duration::from_secs(1)).await;
        let versions: Vec<Version> = local.pushed.lock().unwrap().clone();
        let stands: Vec<Version> = world.mailbox_now("one").await;
        assert_eq!(versions, stands, "the consumer was told of the push");
        world.consume("one").await
    };
    assert_eq!(world.run(join(pushed, consume)).0.unwrap(), &b"2"[..]);
}

#[test]
fn a_lost_call_and_a_dropped_one_leave_nothing_pending() {
    let world = world(1);
    let mut call = world.client.call(outgoing("one", "1"), MINUTE);
    assert!((&mut call).now_or_never().is_none());
    assert_eq!(world.client.parts.calls.pending(), 1);
    let id = CallId {
        session: world.presence.session().id(),
        call: 0,
    };
    world.client.lost(id, "for a test");
    let error = world.run(call).unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (CallErrorKind::OutcomeUnknown, "for a test")
    );
    let mut call = world.client.call(outgoing("one", "1"), MINUTE);
    assert!((&mut call).now_or_never().is_none());
    drop(call);
    assert_eq!(world.client.parts.calls.pending(), 0);
}

#[test]
fn nothing_leaks_after_the_close() {
    for seed in 0..10 {
        let world = world(seed);
        world.faulty.set_faults(Faults::bad_day());
        let env = world.node.env();
        env.spawn(Box::pin(
            Arc::clone(&world.presence).beat_forever(Arc::clone(&env)),
        ));
        let mut sent = Vec::new();
        for number in 0..30 {
            let timeout = Duration::from_millis(100 * number);
            sent.push(
                world
                    .node
                    .run(world.client.call(outgoing("one", "1"), timeout)),
            );
        }
        let consume = async {
            for _ in 0..20 {
                world.consume_after("one", Duration::from_millis(200)).await;
            }
        };
        world.run(consume);
        world.run(async {
            world.client.close().await;
            world.presence.close().await.unwrap();
        });
        let refused = world.run(world.client.cast(vec![outgoing("one", "1")]));
        assert_eq!(refused.unwrap_err().kind(), CallErrorKind::Unavailable);
        world.run(join_all(sent));
        // A reply to a session that is gone, or a late attempt, is the sweeper's.
        world.run(world.consume("one"));
        world.run(async {
            let mut sweeper = crate::durable::Sweeper::new(&world.namespace);
            for _ in 0..80 {
                sweeper.observe().await.unwrap();
                world.sim.env().sleep(Duration::from_secs(5)).await;
            }
        });
        let tx = world.cluster.begin().unwrap();
        let left = world
            .run(tx.get_range(world.namespace.keys().all().read()))
            .unwrap();
        let shard = world.namespace.keys().shard(&instance("one"));
        let allowed = [
            world.namespace.keys().meta(),
            world.namespace.keys().wake(shard),
        ];
        for row in left {
            let is_allowed = allowed.contains(&row.key);
            assert!(
                is_allowed,
                "seed {seed}: {:?}",
                world.namespace.keys().decode(&row.key)
            );
        }
    }
}

impl World {
    async fn mailbox_now(&self, id: &str) -> Vec<Version> {
        let keys = self.namespace.keys().instance(&instance(id));
        let tx = self.cluster.begin().unwrap();
        let head = queue::read_head(&tx, &keys, Lane::Ordinary, 1_000, 1_000_000);
        let stamps = head.await.unwrap().messages;
        let version = |queued: &queue::Queued| {
            let stamp = queued.stamp.as_bytes();
            Version(u64::from_be_bytes(stamp[..8].try_into().unwrap()))
        };
        stamps.iter().map(version).collect()
    }

    /// Whether anything of an instance is in the store.
    fn exists(&self, id: &str) -> bool {
        let keys = self.namespace.keys().instance(&instance(id));
        let tx = self.cluster.begin().unwrap();
        let nothing = self.run(tx.is_empty(&keys.all(), Isolation::Snapshot));
        !nothing.unwrap() || self.run(tx.read(keys.ready())).unwrap().is_some()
    }
}

#[test]
fn a_killed_instance_is_gone_and_its_callers_are_told() {
    for seed in 0..10 {
        let world = world(seed);
        world.faulty.set_faults(Faults::bad_day());
        let calls = (0..20).map(|_| world.client.call(outgoing("one", "1"), 10 * MINUTE));
        let kill = async {
            world.sim.env().sleep(5 * MINUTE).await;
            world.client.kill(instance("one")).await
        };
        let (answers, killed) = world.run(join(join_all(calls), kill));
        killed.unwrap();
        for answer in answers {
            assert_eq!(
                answer.unwrap_err().kind(),
                CallErrorKind::Killed,
                "seed {seed}"
            );
        }
        world.sim.run_for(5 * MINUTE).unwrap();
        assert!(!world.exists("one"), "seed {seed}");
    }
}

//! G10: bad bytes never panic. They give a typed error, or a reason for which an instance is parked,
//! that names the key; everybody else goes on.

use crate::support::{Add, NodeExt, Probe, Sum, World, eventually, ms};
use abide::durable::keys::{InstanceKeys, Lane, SessionId};
use abide::server::{CallError, CallErrorKind};
use abide::store::{KeyRange, Stamp, StoreErrorKind};
use abide::{InstanceId, Node, StartError};
use bytes::Bytes;
use std::error::Error;

on_each_store!(
    g10_bad_bytes_below_an_instance_park_it_with_the_key_and_others_go_on,
    g10_a_kill_mends_an_instance_with_bad_bytes,
    g10_bad_bytes_that_nobody_has_to_read_harm_nobody,
    g10_bad_bytes_of_sessions_harm_nobody,
    g10_a_bad_description_of_the_namespace_is_an_error_at_the_start,
    g10_a_bad_reply_is_an_error_of_its_call,
);

const BAD: [&[u8]; 4] = [b"", b"\x00", b"\xff\xff\xff\xff garbage", b"\x01\xc1"];

fn stamp() -> Stamp {
    Stamp::from_bytes([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
}

/// A key whose tuple nobody can read, in a range.
fn foreign(range: &KeyRange) -> Bytes {
    [&range.begin[..], b"\x02not a tuple"].concat().into()
}

/// The keys of an instance that its turns read, by what they are.
fn read_by_turns(keys: &InstanceKeys) -> Vec<(&'static str, Bytes)> {
    vec![
        ("version", keys.version()),
        (
            "leaf",
            [&keys.state().begin[..], b"\x02sum\0"].concat().into(),
        ),
        ("foreign leaf", foreign(&keys.state())),
        ("lock", keys.lock()),
        ("attempts", keys.attempts(Lane::Ordinary)),
        ("priority attempts", keys.attempts(Lane::Priority)),
        ("message", keys.message(Lane::Ordinary, 0, stamp(), 0)),
        (
            "priority message",
            keys.message(Lane::Priority, 0, stamp(), 0),
        ),
        (
            "half a message",
            keys.message(Lane::Ordinary, 0, stamp(), 1),
        ),
        ("foreign message", foreign(&keys.mailbox(Lane::Ordinary))),
        ("pause", keys.paused()),
    ]
}

fn instance(id: &str) -> InstanceId {
    InstanceId::new("actor", id).unwrap()
}

/// Whether the text has the key as the library writes keys.
fn names(text: &str, key: &[u8]) -> bool {
    let escaped = key.escape_ascii().to_string();
    let debug = format!("{:?}", Bytes::copy_from_slice(key));
    text.contains(&escaped) || text.contains(debug.trim_matches(|c| c == 'b' || c == '"'))
}

/// Instances with a state, each with one kind of bad bytes.
async fn damaged(world: &World, node: &Node) -> Vec<(String, Bytes)> {
    let mut damaged = Vec::new();
    for (index, bad) in BAD.into_iter().enumerate() {
        for (part, _) in read_by_turns(&world.keys().instance(&instance("any"))) {
            let id = format!("{part} {index}");
            node.actor(&id).call(Add { n: 1 }).await.unwrap();
            let keys = world.keys().instance(&instance(&id));
            let (_, key) = read_by_turns(&keys)
                .into_iter()
                .find(|(name, _)| *name == part)
                .unwrap();
            world.plant(&key, bad).await;
            damaged.push((id, key));
        }
    }
    damaged
}

async fn g10_bad_bytes_below_an_instance_park_it_with_the_key_and_others_go_on(world: World) {
    let node = world.serving(&Probe::new()).await;
    let damaged = damaged(&world, &node).await;
    node.stop().await;
    let node = world.serving(&Probe::new()).await;
    for (id, _) in &damaged {
        node.actor(id).cast(Add { n: 1 }).await.unwrap();
    }
    let mut wrong = Vec::new();
    for (id, key) in &damaged {
        let reason = async || {
            let parked = node
                .parked()
                .into_iter()
                .find(|(parked, _)| parked.id() == id);
            parked.map(|(_, reason)| reason.to_string())
        };
        let mut found = None;
        for _ in 0..100 {
            found = reason().await;
            if found.is_some() {
                break;
            }
            crate::support::pause(ms(10)).await;
        }
        if !found.as_ref().is_some_and(|found| names(found, key)) {
            wrong.push(format!(
                "{id}: {found:?} does not name {}",
                key.escape_ascii()
            ));
        }
        // Neither a call nor a query hangs longer than it is told to, or panics.
        let actor = node.actor(id).timeout(ms(30));
        let _: Result<u64, CallError> = actor.call(Add { n: 1 }).await;
        let _: Result<u64, CallError> = actor.query(Sum {}).await;
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(node.actor("bystander").call(Add { n: 1 }).await.unwrap(), 1);
    assert_eq!(node.failure(), None);
    node.stop().await;
}

async fn g10_a_kill_mends_an_instance_with_bad_bytes(world: World) {
    let node = world.serving(&Probe::new()).await;
    let damaged = damaged(&world, &node).await;
    let mut wrong = Vec::new();
    for (id, _) in &damaged {
        let actor = node.actor(id);
        if let Err(error) = actor.kill().await {
            wrong.push(format!(
                "{id}: {error}: {:?}",
                error.source().map(ToString::to_string)
            ));
            continue;
        }
        match actor.timeout(ms(3_000)).call(Add { n: 5 }).await {
            Ok(5) => {}
            answered => wrong.push(format!("{id}: {answered:?}")),
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    node.stop().await;
}

async fn g10_bad_bytes_that_nobody_has_to_read_harm_nobody(world: World) {
    let node = world.serving(&Probe::new()).await;
    for (index, bad) in BAD.into_iter().enumerate() {
        for part in [
            "length",
            "directory",
            "dead letter",
            "ready",
            "foreign ready",
            "wake",
            "foreign",
        ] {
            let id = format!("{part} {index}");
            let actor = node.actor(&id);
            actor.call(Add { n: 1 }).await.unwrap();
            let (all, name) = (world.keys(), instance(&id));
            let keys = all.instance(&name);
            let key = match part {
                "length" => keys.length(),
                "directory" => all.directory(&name),
                "dead letter" => keys.dead_letter(stamp(), 0),
                "ready" => keys.ready().clone(),
                "foreign ready" => foreign(&all.ready_of(keys.shard())),
                "wake" => all.wake(keys.shard()),
                _ => foreign(&all.all()),
            };
            world.plant(&key, bad).await;
            assert_eq!(actor.call(Add { n: 1 }).await.unwrap(), 2, "{id}");
            actor.cast(Add { n: 1 }).await.unwrap();
            assert_eq!(actor.call(Add { n: 1 }).await.unwrap(), 4, "{id}");
        }
    }
    node.stop().await;
}

async fn g10_bad_bytes_of_sessions_harm_nobody(world: World) {
    let all = world.keys();
    for (index, bad) in BAD.into_iter().enumerate() {
        let session = all.session(SessionId::from_bytes([index as u8; SessionId::LEN]));
        for key in [
            session.heartbeat(),
            session.reply_wake(),
            session.reply(1, 0),
            session.outcome(3),
            foreign(&session.all()),
        ] {
            world.plant(&key, bad).await;
        }
    }
    world.plant(&foreign(&all.sessions()), b"bad").await;
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    assert_eq!(producer.actor("desk").call(Add { n: 1 }).await.unwrap(), 1);
    producer.stop().await;
    node.stop().await;
}

async fn g10_a_bad_description_of_the_namespace_is_an_error_at_the_start(world: World) {
    for bad in BAD {
        world.plant(&world.keys().meta(), bad).await;
        let builder = Node::builder_on(world.store().await).namespace(world.namespace());
        let Err(StartError::Store(error)) = builder.start().await else {
            panic!("{bad:?} is no description");
        };
        // A format of the future is no damage.
        let newer = error.kind() == StoreErrorKind::InvalidStore && bad[0] == 0xff;
        assert!(newer || error.kind() == StoreErrorKind::Corrupt, "{error}");
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            text += &source.to_string();
            next = source.source();
        }
        assert!(text.contains(world.namespace()), "{text}");
        assert!(newer || text.contains("(\"m\")"), "{text}");
    }
}

async fn g10_a_bad_reply_is_an_error_of_its_call(world: World) {
    let producer = world.producer().await;
    producer.actor("desk").cast(Add { n: 1 }).await.unwrap();
    let sessions = world.decoded().await;
    let session = sessions.iter().find_map(|key| match key {
        abide::durable::keys::Key::Session { session, .. } => Some(*session),
        _ => None,
    });
    let keys = world.keys().session(session.unwrap());
    let call = tokio::spawn(producer.actor("nobody").call(Add { n: 1 }));
    crate::support::pause(ms(200)).await;
    // Nobody serves the kind yet, and it is the session's first call.
    let tx = world.store().await.begin().unwrap();
    tx.set(&keys.reply(0, 0), b"\xff\xff garbage");
    tx.add(&keys.reply_wake(), &1_i64.to_le_bytes());
    tx.commit().await.unwrap();
    match tokio::time::timeout(ms(5_000), call).await {
        Ok(answered) => {
            let error = answered.unwrap().unwrap_err();
            assert_eq!(error.kind(), CallErrorKind::Decode, "{error}");
            let source = error.source().unwrap().to_string();
            let named = format!("key \"{}\"", keys.reply(0, 0).escape_ascii());
            assert!(source.contains(&named), "{source} does not name {named}");
        }
        Err(_) => panic!("the call is not told of its bad reply"),
    }
    let node = world.serving(&Probe::new()).await;
    eventually("others go on", async || node.sum("desk").await == 1).await;
    assert_eq!(producer.actor("desk").call(Add { n: 1 }).await.unwrap(), 2);
    producer.stop().await;
    node.stop().await;
}

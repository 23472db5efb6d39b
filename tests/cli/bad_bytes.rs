//! Bytes that abide does not write, in every kind of key: commands report them and go on.

use crate::support::{Add, Till, Tilling, World, stop};
use abide::durable::keys::{Keys, Lane, SessionId};
use abide::store::{self, KeyRange, Stamp};
use abide::{InstanceId, Poison};
use bytes::Bytes;

on_each_store!(undecodable_bytes_are_reported_and_hide_nothing);

const BAD: &[u8] = b"\xff\xff garbage";

fn foreign(range: &KeyRange) -> Bytes {
    [&range.begin[..], b"\x02not a tuple"].concat().into()
}

/// Every kind of key: its name, which is also the id of the instance that it belongs to, if any.
fn planted(all: &Keys) -> Vec<(&'static str, Bytes)> {
    let stamp = Stamp::from_bytes([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    let of = |id: &str| all.instance(&InstanceId::new("till", id).unwrap());
    let session = all.session(SessionId::from_bytes([7; SessionId::LEN]));
    let sum = [&of("leaf").state().begin[..], b"\x02sum\0"].concat();
    vec![
        ("version", of("version").version()),
        ("leaf", sum.into()),
        ("foreign-leaf", foreign(&of("foreign-leaf").state())),
        ("lock", of("lock").lock()),
        ("attempts", of("attempts").attempts(Lane::Ordinary)),
        (
            "message",
            of("message").message(Lane::Ordinary, 0, stamp, 0),
        ),
        (
            "priority",
            of("priority").message(Lane::Priority, 0, stamp, 0),
        ),
        ("half", of("half").message(Lane::Ordinary, 0, stamp, 1)),
        (
            "foreign-message",
            foreign(&of("foreign-message").mailbox(Lane::Ordinary)),
        ),
        ("pause", of("pause").paused()),
        ("length", of("length").length()),
        ("letter", of("letter").dead_letter(stamp, 0)),
        (
            "foreign-letter",
            foreign(&of("foreign-letter").dead_letters()),
        ),
        (
            "directory",
            all.directory(&InstanceId::new("till", "directory").unwrap()),
        ),
        ("foreign-ready", foreign(&all.ready_of(of("any").shard()))),
        ("wake", all.wake(of("any").shard())),
        ("kind pause", all.kind_paused("shop")),
        ("heartbeat", session.heartbeat()),
        ("reply wake", session.reply_wake()),
        ("reply", session.reply(1, 0)),
        ("outcome", session.outcome(3)),
        ("foreign session", foreign(&all.sessions())),
        ("foreign", foreign(&all.all())),
    ]
}

async fn undecodable_bytes_are_reported_and_hide_nothing(world: World) {
    let node = world
        .serving(Till { broken: false }, Poison::DeadLetter)
        .await;
    let keys = node.namespace().keys().clone();
    let planted = planted(&keys);
    for (id, _) in &planted {
        node.server::<Tilling>(*id)
            .call(Add { n: 1 })
            .await
            .unwrap();
    }
    node.server::<Tilling>("sound")
        .call(Add { n: 1 })
        .await
        .unwrap();
    stop(node).await;
    let store = store::open(&world.url).await.unwrap();
    let tx = store.begin().unwrap();
    for (_, key) in &planted {
        tx.set(key, BAD);
    }
    tx.commit().await.unwrap();

    for arguments in [&["ls"][..], &["ls", "till"], &["ls", "--json"]] {
        let listed = world.done(arguments);
        for (id, _) in &planted {
            assert!(listed.contains(id), "{arguments:?} hides {id}: {listed}");
        }
        assert!(listed.contains("sound"), "{listed}");
    }
    for (id, _) in &planted {
        for command in [
            &["show"][..],
            &["mailbox"],
            &["dead", "ls"],
            &["lock", "show"],
            &["export"],
        ] {
            let named = [command, &["till", id]].concat();
            for json in [&[][..], &["--json"]] {
                let ran = world.abide(&[&named[..], json].concat());
                assert!(ran.code == 0 || ran.code == 1, "{named:?}: {ran:?}");
            }
        }
    }
    each_is_named(&world, &planted);
    let sound = world.done(&["show", "till", "sound", "sum"]);
    assert_eq!(sound, "state.sum = 1\n");
}

/// Every command names what it meets.
fn each_is_named(world: &World, planted: &[(&str, Bytes)]) {
    let names = |text: &str, id: &str| {
        let (_, key) = planted.iter().find(|(of, _)| *of == id).unwrap();
        // Keys stand in JSON texts, where a backslash is written twice.
        text.contains(&key.escape_ascii().to_string())
            || text.contains(&key.escape_ascii().to_string().replace('\\', "\\\\"))
    };
    let both = |arguments: &[&str]| {
        let ran = world.abide(arguments);
        ran.out + &ran.err
    };
    let checks: [(&[&str], &[&str]); 12] = [
        (
            &["ls", "--json"],
            &["version", "lock", "attempts", "message", "pause"],
        ),
        (&["show", "till", "leaf"], &["leaf"]),
        (&["show", "till", "foreign-leaf"], &["foreign-leaf"]),
        (&["show", "till", "version"], &["version"]),
        (&["mailbox", "till", "message"], &["message"]),
        (&["mailbox", "till", "priority"], &["priority"]),
        (
            &["mailbox", "till", "foreign-message"],
            &["foreign-message"],
        ),
        (&["dead", "ls"], &["letter", "foreign-letter"]),
        (&["lock", "show", "till", "lock"], &["lock"]),
        (&["sessions"], &["heartbeat", "foreign session"]),
        (&["nodes", "--apart", "1ms"], &["heartbeat"]),
        (&["export"], &["leaf", "message", "letter", "kind pause"]),
    ];
    let mut silent = Vec::new();
    for (arguments, expected) in checks {
        let said = both(arguments);
        for id in expected {
            if !names(&said, id) {
                silent.push(format!("{arguments:?} does not name {id}: {said}"));
            }
        }
    }
    let said = both(&["doctor", "--json"]);
    for (id, _) in planted {
        // Counters, which any bytes are, and what only the session's own process reads.
        let not_checked = ["wake", "reply wake", "reply", "outcome"].contains(id);
        if !names(&said, id) && !not_checked {
            silent.push(format!("the doctor does not name {id}: {said}"));
        }
    }
    assert_eq!(silent, Vec::<String>::new());
}

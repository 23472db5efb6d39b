//! Bytes that abide does not write, in every kind of key: every command reports those that it meets,
//! and goes on.

use crate::support::{Add, Hold, Till, Tilling, World, stop};
use abide::durable::keys::{Keys, Lane, SessionId};
use abide::store::{self, KeyRange, Stamp};
use abide::{InstanceId, Poison};
use bytes::Bytes;

on_each_store!(
    undecodable_bytes_are_reported_by_every_command_and_hide_nothing,
    a_namespace_whose_description_is_damaged_is_refused_by_name,
);

const BAD: &[u8] = b"\xff\xff garbage";

/// The stamp of every message and letter that is planted.
const STAMP: &str = "000000000000000100000000";

fn foreign(range: &KeyRange) -> Bytes {
    [&range.begin[..], b"\x02not a tuple"].concat().into()
}

/// A kind of key.
struct Planted {
    /// Its name, which is also the id of the instance that it belongs to, if it belongs to one.
    name: &'static str,
    key: Bytes,
    /// The commands that meet it and so must name it, besides the doctor: `ID` stands for the name.
    meet: &'static [&'static str],
}

const LS: &str = "ls till";
const SHOW: &str = "show till ID";
const SET: &str = "set till ID sum 5 --dry-run";
const MAILBOX: &str = "mailbox till ID";
const EXPORT: &str = "export till ID";
const PURGE: &str = "purge till ID --all --dry-run";
const PURGE_HEAD: &str = "purge till ID --head --dry-run";
const TO_DEAD: &str = "purge till ID --all --to-dead --dry-run";
const DEAD: &str = "dead ls till ID";
const DEAD_SHOW: &str = "dead show till ID STAMP";
const RETRY: &str = "dead retry till ID --dry-run";
const BURN: &str = "dead purge till ID --dry-run";
const LOCK: &str = "lock show till ID";
const BREAK: &str = "lock break till ID --retry --dry-run";
const RESTORED: &str = "restored --yes";

/// Every kind of key that there is.
fn planted(all: &Keys) -> Vec<Planted> {
    let stamp = Stamp::from_bytes([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    let of = |id: &str| all.instance(&InstanceId::new("till", id).unwrap());
    let session = all.session(SessionId::from_bytes([7; SessionId::LEN]));
    let message = |id, lane, chunk| of(id).message(lane, 0, stamp, chunk);
    let (ordinary, priority) = (Lane::Ordinary, Lane::Priority);
    let sum: Bytes = [&of("leaf").state().begin[..], b"\x02sum\0"]
        .concat()
        .into();
    let lock_message = of("lock-message").lock_message_chunk(0);
    let waiting = &[LS, MAILBOX, PURGE, PURGE_HEAD, TO_DEAD, EXPORT][..];
    let kinds: [(&'static str, Bytes, &'static [&'static str]); 29] = [
        ("version", of("version").version(), &[LS, SHOW, SET, EXPORT]),
        ("leaf", sum, &[SHOW, SET, EXPORT]),
        (
            "foreign-leaf",
            foreign(&of("foreign-leaf").state()),
            &[SHOW, SET, EXPORT],
        ),
        (
            "lock",
            of("lock").lock(),
            &[LS, LOCK, BREAK, EXPORT, RESTORED],
        ),
        ("lock-message", lock_message, &[LOCK, BREAK, EXPORT]),
        (
            "attempts",
            of("attempts").attempts(ordinary),
            &[LS, RESTORED],
        ),
        (
            "attempts-first",
            of("attempts-first").attempts(priority),
            &[LS, RESTORED],
        ),
        ("message", message("message", ordinary, 0), waiting),
        (
            "priority",
            message("priority", priority, 0),
            &[LS, MAILBOX, PURGE, TO_DEAD, EXPORT],
        ),
        ("half", message("half", ordinary, 1), waiting),
        (
            "foreign-message",
            foreign(&of("foreign-message").mailbox(ordinary)),
            waiting,
        ),
        ("pause", of("pause").paused(), &[LS, EXPORT]),
        ("length", of("length").length(), &[LS]),
        (
            "letter",
            of("letter").dead_letter(stamp, 0),
            &[DEAD, DEAD_SHOW, RETRY, BURN, EXPORT],
        ),
        (
            "foreign-letter",
            foreign(&of("foreign-letter").dead_letters()),
            &[LS, DEAD, RETRY, BURN, EXPORT],
        ),
        (
            "directory",
            all.directory(&InstanceId::new("till", "directory").unwrap()),
            &[LS, EXPORT],
        ),
        ("mark", of("mark").ready().clone(), &[LS]),
        ("foreign entry", foreign(&all.directory_of(None)), &["ls"]),
        (
            "foreign mark",
            foreign(&all.ready_of(of("any").shard())),
            &["ls --stuck"],
        ),
        ("wake", all.wake(of("any").shard()), &[]),
        ("kind pause", all.kind_paused("shop"), &["ls", "export"]),
        (
            "heartbeat",
            session.heartbeat(),
            &["sessions", "nodes --apart 1ms"],
        ),
        ("reply wake", session.reply_wake(), &[]),
        ("reply", session.reply(1, 0), &[]),
        ("outcome", session.outcome(3), &[]),
        (
            "foreign session",
            foreign(&all.sessions()),
            &["sessions", "nodes --apart 1ms"],
        ),
        ("import", all.import(), &["import STREAM"]),
        (
            "foreign instance",
            foreign(&all.instances_of(0, None)),
            &["ls", "dead ls", "export"],
        ),
        ("foreign", foreign(&all.all()), &[]),
    ];
    let kinds = kinds.into_iter();
    kinds
        .map(|(name, key, meet)| Planted { name, key, meet })
        .collect()
}

/// What looks, or plans, and changes nothing.
const LOOKING: &[&str] = &[
    LS,
    SHOW,
    SET,
    MAILBOX,
    EXPORT,
    PURGE,
    PURGE_HEAD,
    TO_DEAD,
    DEAD,
    DEAD_SHOW,
    RETRY,
    BURN,
    LOCK,
    BREAK,
    "ls",
    "ls --stuck",
    "dead ls",
    "dead retry --all --dry-run",
    "dead purge --all --dry-run",
    "show till ID sum",
    "purge till ID --stamp STAMP --dry-run",
    "purge till ID --older-than 0s --dry-run",
    "lock break till ID --discard --dry-run",
    "kill till ID --dry-run",
    "reset till ID --dry-run",
    "sessions",
    "nodes --apart 1ms",
    "restored --dry-run",
    "export",
    "import STREAM",
];

/// What changes something, from the mildest to the end.
const ACTING: &[&str] = &[
    "pause till ID",
    "resume till ID",
    "cast till ID add {\"n\":1}",
    "call till ID sum {} --query --timeout 1ms",
    "set till ID sum 5 --yes",
    "purge till ID --head --to-dead --yes",
    "purge till ID --stamp STAMP --yes",
    "purge till ID --older-than 0s --yes",
    "purge till ID --all --yes",
    "dead retry till ID --yes",
    "dead purge till ID --yes",
    "lock break till ID --retry --yes",
    "lock break till ID --discard --yes",
    "reset till ID --yes",
];

fn is_instance(name: &str) -> bool {
    !name.contains(' ')
        && !["wake", "heartbeat", "reply", "outcome", "import", "foreign"].contains(&name)
}

/// Instances that have what can be damaged, and one that stays sound.
async fn lived_in(world: &World, planted: &[Planted]) {
    let node = world
        .serving(Till { broken: false }, Poison::DeadLetter)
        .await;
    let ids = planted
        .iter()
        .map(|of| of.name)
        .filter(|name| is_instance(name));
    for id in ids.chain(["sound"]) {
        let till = node.server::<Tilling>(id);
        till.call(Add { n: 1 }).await.unwrap();
        if id.starts_with("lock") {
            till.cast(Hold {}).await.unwrap();
            let show = ["lock", "show", "till", id];
            world.until(&show, |out| !out.is_empty()).await;
        }
    }
    stop(node).await;
}

async fn undecodable_bytes_are_reported_by_every_command_and_hide_nothing(world: World) {
    let keys = Keys::new(Keys::namespace_prefix(&world.namespace), 64);
    let planted = planted(&keys);
    lived_in(&world, &planted).await;
    // A stream to import, of the store as it was.
    let stream = world.dir.path().join("sound.export");
    let stream = stream.to_str().unwrap();
    world.done(&["export", "--output", stream]);
    let store = store::open(&world.url).await.unwrap();
    let tx = store.begin().unwrap();
    for of in &planted {
        tx.set(&of.key, BAD);
    }
    tx.commit().await.unwrap();

    let run = |command: &str, id: &str, json: bool| {
        let words = command.split(' ').map(|word| match word {
            "ID" => id,
            "STAMP" => STAMP,
            "STREAM" => stream,
            word => word,
        });
        let words: Vec<&str> = words.chain(json.then_some("--json")).collect();
        let ran = world.abide(&words);
        assert!(ran.code == 0 || ran.code == 1, "{words:?}: {ran:?}");
        ran.out + &ran.err
    };
    let mut silent = Vec::new();
    for of in &planted {
        for command in LOOKING {
            let is_of_instance = command.contains("ID");
            if is_of_instance && !is_instance(of.name) {
                continue;
            }
            let meets = of.meet.contains(command);
            // Those about everything are run once for all who do not meet them.
            if !meets && !is_of_instance && of.name != "version" {
                continue;
            }
            // What meets it says so in both forms.
            for json in [false, true].into_iter().take(1 + usize::from(meets)) {
                let said = run(command, of.name, json);
                if meets && !names(&said, &of.key) {
                    silent.push(format!("{command} ({json}) hides {}: {said}", of.name));
                }
            }
        }
    }
    let said = run("doctor", "", true);
    let hidden = planted.iter().filter(|of| !names(&said, &of.key));
    silent.extend(hidden.map(|of| format!("the doctor hides {}: {said}", of.name)));
    // It comes to its end, and names what it leaves.
    let said = run(RESTORED, "", false);
    let met = planted.iter().filter(|of| of.meet.contains(&RESTORED));
    let hidden = met.filter(|of| !names(&said, &of.key));
    silent.extend(hidden.map(|of| format!("{RESTORED} hides {}: {said}", of.name)));
    assert_eq!(silent, Vec::<String>::new());

    let sound = world.done(&["show", "till", "sound", "sum"]);
    assert_eq!(sound, "state.sum = 1\n");
    let damaged = planted.iter().filter(|of| is_instance(of.name));
    for of in damaged {
        for command in ACTING {
            run(command, of.name, false);
        }
        // Whatever it was: it goes, and with it all that was wrong.
        let killed = world.abide(&["kill", "till", of.name, "--yes"]);
        assert!(
            killed.code == 0 || killed.err.contains("there is nothing of"),
            "{killed:?}"
        );
    }
    run("doctor --fix", "", false);
    let said = run("doctor", "", true);
    for of in planted.iter().filter(|of| is_instance(of.name)) {
        assert!(!names(&said, &of.key), "{} is still there: {said}", of.name);
    }
    let node = world
        .serving(Till { broken: false }, Poison::DeadLetter)
        .await;
    for (id, sum) in [
        ("sound", "3\n"),
        ("lock", "2\n"),
        ("foreign-message", "2\n"),
    ] {
        let call = ["call", "till", id, "add", r#"{"n":2}"#];
        assert_eq!(world.done(&call), sum, "{id}");
    }
    stop(node).await;
}

/// Whether a text names a key. In JSON a backslash is written twice.
fn names(text: &str, key: &Bytes) -> bool {
    let key = key.escape_ascii().to_string();
    text.contains(&key) || text.contains(&key.replace('\\', "\\\\"))
}

async fn a_namespace_whose_description_is_damaged_is_refused_by_name(world: World) {
    stop(world.producer().await).await;
    let key = Keys::new(Keys::namespace_prefix(&world.namespace), 64).meta();
    let newer = b"\x01\x83\xa6layout\x63\xa6shards\x40\xabincarnation\x00";
    let store = store::open(&world.url).await.unwrap();
    for (value, code, says) in [
        (BAD, 3, "newer than this version"),
        (b"\x01garbage", 1, "not one that abide writes"),
        (newer, 3, "the layout 99 is newer than this version"),
    ] {
        let tx = store.begin().unwrap();
        tx.set(&key, value);
        tx.commit().await.unwrap();
        for command in [
            "ls",
            "show till desk",
            "sessions",
            "export",
            "restored --yes",
            "import",
        ] {
            let words: Vec<&str> = command.split(' ').collect();
            let ran = world.abide(&words);
            assert_eq!(
                (ran.code, ran.out.as_str()),
                (code, ""),
                "{command}: {ran:?}"
            );
            assert!(ran.err.contains(says), "{ran:?}");
            assert_eq!(ran.err.matches("the store ").count(), 1, "{ran:?}");
        }
        // The doctor names it, and explains.
        let found = world.abide(&["doctor", "--json"]);
        assert_eq!(found.code, 1, "{found:?}");
        assert!(
            names(&found.out, &key) && found.out.contains(says),
            "{found:?}"
        );
        assert!(
            found
                .out
                .ends_with("{\"type\":\"doctor\",\"findings\":1,\"fixed\":0}\n")
        );
    }
}

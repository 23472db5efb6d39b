//! Bytes that abide does not write, in every kind of key: every command reports those that it meets,
//! and goes on.

use crate::planted::{
    ABANDON, BAD, BREAK, BURN, DEAD, DEAD_SHOW, EXPORT, LOCK, LS, MAILBOX, PURGE, PURGE_HEAD,
    Planted, RESTORED, RETRY, SET, SHOW, STAMP, TO_DEAD, is_instance, planted,
};
use crate::support::{Add, Hold, Till, Tilling, World, stop};
use abide::Poison;
use abide::durable::keys::Keys;
use abide::store;
use bytes::Bytes;

on_each_store!(
    undecodable_bytes_are_reported_by_every_command_and_hide_nothing,
    a_namespace_whose_description_is_damaged_is_refused_by_name,
);

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
    ABANDON,
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
    #[cfg(unix)]
    top_names_damage(&world);
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
    run("import --abandon --yes", "", false);
    run("doctor --fix", "", false);
    let said = run("doctor", "", true);
    let is_mended = |name| is_instance(name) || name == "import";
    for of in planted.iter().filter(|of| is_mended(of.name)) {
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

/// The live view says that there is some, and goes on.
#[cfg(unix)]
fn top_names_damage(world: &World) {
    let top = crate::terminal::Screen::of(world, &["top", "--every", "100ms"]);
    top.until("the damage", |text| {
        text.contains("damaged, see `doctor`") && text.contains("till/")
    });
    top.press("q");
    assert_eq!(top.ended(), 0);
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

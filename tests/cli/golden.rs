//! What the commands print, to the letter, but for times, stamps and sessions.

use crate::support::{Add, Hold, Risky, Till, Tilling, World, normalised, stop};
use abide::durable::keys::{Keys, SessionId};
use abide::store::{self, Stamp};
use abide::{InstanceId, Poison};
use std::fmt::Write;

const TEXT: &str = include_str!("golden.txt");
const JSON: &str = include_str!("golden.jsonl");

/// Every command, on what the nodes have left behind that have come and gone. `@dead` stands for the
/// stamp of the dead letter.
const LOOKING: &[&str] = &[
    "ls",
    "ls till",
    "ls --stuck",
    "show till front",
    "show till front notes",
    "show till back",
    "mailbox till back",
    "mailbox till nobody",
    "dead ls",
    "dead show till back @dead",
    "lock show till held",
    "lock show till back",
    "sessions",
    "nodes",
    "doctor",
    "export till front",
];

/// In this order: each sees what those before it did.
const ACTING: &[&str] = &[
    "set till front sum 9 --dry-run",
    "set till front sum 9",
    "set till front sum 9 --yes",
    "set till front sum \"nine\" --yes",
    "set till front added 2 --append --yes",
    "set till front notes.tips 5 --yes",
    "set till front notes.tips --remove --yes",
    "set till front owner --remove --yes",
    "pause till",
    "pause shop --reason audit",
    "ls",
    "resume till",
    "resume shop",
    "resume shop",
    "cast till back add {\"n\":4} --priority",
    "purge till back --all --dry-run",
    "purge till back --older-than 1d",
    "purge till back --head --to-dead --yes",
    "purge till back --all --yes",
    "purge till back --head --yes",
    "dead retry till --dry-run",
    "dead retry till back --stamp @dead --yes",
    "dead purge --all --dry-run",
    "dead purge --all --yes",
    "dead purge --all",
    "lock break till held --retry --dry-run",
    "lock break till held --dead --yes",
    "reset till front --dry-run",
    "reset till front --yes",
    "kill till back --dry-run",
    "kill till back",
    "kill till back --yes",
    "kill till back --yes",
    "kill till held --dry-run",
    "restored --dry-run",
    "restored",
    "restored --yes",
    "resume till back",
];

/// While a node serves the kind.
const SENDING: &[&str] = &[
    "call till front add {\"n\":42}",
    "call till front sum {} --query",
];

/// With damage of several kinds.
const DAMAGED: &[&str] = &[
    "ls",
    "mailbox till damaged",
    "purge till damaged --all --dry-run",
    "dead retry till damaged --yes",
    "lock show till damaged",
    "doctor",
    "doctor --fix",
    "doctor",
];

async fn printed(json: bool) -> String {
    let world = World::sqlite();
    let node = world
        .serving(Till { broken: true }, Poison::DeadLetter)
        .await;
    let front = node.server::<Tilling>("front");
    front.call(Add { n: 7 }).await.unwrap();
    let back = node.server::<Tilling>("back");
    back.call(Risky { n: 3 }).await.unwrap_err();
    node.server::<Tilling>("held").cast(Hold {}).await.unwrap();
    world
        .until(&["lock", "show", "till", "held"], |out| !out.is_empty())
        .await;
    stop(node).await;
    world.done(&["pause", "till", "back", "--reason", "inventory"]);
    world.done(&["cast", "till", "back", "add", r#"{"n":2}"#]);
    let sender = world.producer().await;
    let mut printed = run(&world, LOOKING, json);
    stop(sender).await;
    printed += &run(&world, ACTING, json);
    let node = world
        .serving(Till { broken: false }, Poison::DeadLetter)
        .await;
    printed += &run(&world, SENDING, json);
    stop(node).await;
    printed += &moved(&world, json);
    damage(&world).await;
    printed + &run(&world, DAMAGED, json)
}

/// Runs commands. What they say beside their output stands behind it, as does what they exit with.
fn run(world: &World, commands: &[&str], json: bool) -> String {
    let letters = world.done(&["dead", "ls", "--json"]);
    let letter = letters.lines().next().map(|letter| {
        let letter: serde_json::Value = serde_json::from_str(letter).unwrap();
        letter["stamp"].as_str().unwrap().to_owned()
    });
    let mut printed = String::new();
    for command in commands {
        let words = command.split(' ').map(|word| match (word, &letter) {
            ("@dead", Some(stamp)) => stamp.as_str(),
            _ => word,
        });
        let words: Vec<&str> = words.chain(json.then_some("--json")).collect();
        let ran = world.abide(&words);
        if json {
            for line in ran.out.lines() {
                let object: serde_json::Value = serde_json::from_str(line).unwrap();
                let is_record = command.starts_with("export");
                assert!(is_record || object["type"].is_string(), "{line}");
            }
        }
        // As a shell would want it.
        let quoted = words.iter().map(|word| match word.contains(['{', '"']) {
            true => format!("'{word}'"),
            false => (*word).to_owned(),
        });
        let quoted: Vec<String> = quoted.collect();
        writeln!(printed, "$ abide {}", quoted.join(" ")).unwrap();
        printed += &ran.out;
        for line in ran.err.lines() {
            writeln!(printed, "! {line}").unwrap();
        }
        if ran.code != 0 {
            writeln!(printed, "[exits with {}]", ran.code).unwrap();
        }
    }
    printed
}

/// From a store to another one, with fixed names.
fn moved(world: &World, json: bool) -> String {
    let path = world.dir.path();
    let line = |arguments: &str| {
        let mut command = crate::support::abide();
        command.current_dir(path).args(arguments.split(' '));
        let ran = crate::support::ran(command.args(json.then_some("--json")));
        assert_eq!(ran.code, 0, "{ran:?}");
        let json = if json { " --json" } else { "" };
        format!("$ abide {arguments}{json}\n{}{}", ran.out, ran.err)
    };
    line("--store sqlite:till.db export --output till.export")
        + &line("--store sqlite:new.db import till.export")
}

/// Bytes that abide does not write.
async fn damage(world: &World) {
    let keys = Keys::new(Keys::namespace_prefix(&world.namespace), 64);
    let of = keys.instance(&InstanceId::new("till", "damaged").unwrap());
    let stamp = Stamp::from_bytes([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    let lane = abide::durable::keys::Lane::Ordinary;
    let foreign = [&of.mailbox(lane).begin[..], b"\x02foreign"].concat();
    let gone = keys.session(SessionId::from_bytes([7; SessionId::LEN]));
    let store = store::open(&world.url).await.unwrap();
    let tx = store.begin().unwrap();
    for key in [
        &of.message(lane, 0, stamp, 0)[..],
        &foreign,
        &of.lock(),
        &of.attempts(lane),
        &of.dead_letter(stamp, 0),
        &gone.reply(1, 0),
    ] {
        tx.set(key, b"\xffgarbage");
    }
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_is_what_it_was() {
    check("golden.txt", &printed(false).await, TEXT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_json_is_what_it_was() {
    check("golden.jsonl", &printed(true).await, JSON);
}

/// Compares what was printed with what is kept; with `ABIDE_WRITE_GOLDEN=1` keeps this instead.
fn check(file: &str, printed: &str, golden: &str) {
    let printed = normalised(printed);
    if std::env::var_os("ABIDE_WRITE_GOLDEN").is_some_and(|value| value == "1") {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli");
        return std::fs::write(format!("{dir}/{file}"), printed).unwrap();
    }
    for (number, (now, then)) in printed.lines().zip(golden.lines()).enumerate() {
        assert_eq!(now, then, "line {} of {file} has changed", number + 1);
    }
    assert_eq!(printed.lines().count(), golden.lines().count(), "{file}");
}

/// The document shows commands with their output, as they were printed.
#[test]
fn the_document_shows_what_is_printed() {
    let document = include_str!("../../src/docs/cli.md");
    let printed = format!("{TEXT}{JSON}");
    let mut shown = 0;
    for block in document.split("```text\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for example in normalised(block).split_inclusive("\n$ ") {
            let example = example.trim_start_matches("$ ").trim_end_matches("$ ");
            if example.starts_with("abide ") {
                let example = format!("$ {example}");
                assert!(
                    printed.contains(&example),
                    "nothing prints this:\n{example}"
                );
                shown += 1;
            }
        }
    }
    assert!(shown > 10, "the examples were not found");
}

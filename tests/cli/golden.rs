//! What the commands print, to the letter, but for times and stamps.

use crate::support::{Add, Risky, Till, Tilling, World, normalised, stop};
use abide::Poison;

/// Nodes that have come and gone; what they left is the same each time.
async fn left_behind() -> World {
    let world = World::sqlite();
    let node = world
        .serving(Till { broken: true }, Poison::DeadLetter)
        .await;
    node.server::<Tilling>("front")
        .call(Add { n: 7 })
        .await
        .unwrap();
    let back = node.server::<Tilling>("back");
    back.call(Risky { n: 3 }).await.unwrap_err();
    stop(node).await;
    world.done(&["pause", "till", "back", "--reason", "inventory"]);
    world.done(&["cast", "till", "back", "add", r#"{"n":2}"#]);
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_is_what_the_document_shows() {
    let world = left_behind().await;
    let mut printed = String::new();
    for arguments in [
        "ls",
        "ls --stuck",
        "show till front",
        "mailbox till back",
        "dead ls",
        "doctor",
        "purge till back --all --dry-run",
        "dead retry till --dry-run",
        "kill till back --dry-run",
        "set till front sum 9 --dry-run",
    ] {
        let words: Vec<&str> = arguments.split(' ').collect();
        printed += &format!("$ abide {arguments}\n{}", world.done(&words));
    }
    check(
        "golden.txt",
        &normalised(&printed),
        include_str!("golden.txt"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_json_is_what_the_document_shows() {
    let world = left_behind().await;
    let mut printed = String::new();
    for arguments in [
        "ls",
        "show till front",
        "mailbox till back",
        "dead ls",
        "doctor",
        "sessions",
        "purge till back --all --dry-run",
        "dead purge --all --dry-run",
        "kill till back --dry-run",
        "set till front sum 9 --dry-run",
        "pause till",
        "resume till",
    ] {
        let words: Vec<&str> = arguments.split(' ').chain(["--json"]).collect();
        let out = world.done(&words);
        for line in out.lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(object["type"].is_string(), "{line}");
        }
        printed += &format!("$ abide {arguments} --json\n{out}");
    }
    check(
        "golden.jsonl",
        &normalised(&printed),
        include_str!("golden.jsonl"),
    );
}

/// Compares what was printed with what is kept; with `ABIDE_WRITE_GOLDEN=1` keeps this instead.
fn check(file: &str, printed: &str, golden: &str) {
    if std::env::var_os("ABIDE_WRITE_GOLDEN").is_some_and(|value| value == "1") {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli");
        return std::fs::write(format!("{dir}/{file}"), printed).unwrap();
    }
    assert!(printed == golden, "{file} has changed:\n{printed}");
}

//! Exit codes, and what happens at the ends of pipes.

use crate::support::{Add, Tilling, World, abide, ran, stop};
use std::process::Stdio;

#[test]
fn a_command_that_is_not_understood_exits_with_2() {
    let world = World::sqlite();
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["show", "till"],
        &["purge", "till", "desk"],
        &["purge", "till", "desk", "--head", "--all"],
        &["purge", "till", "desk", "--stamp", "12"],
        &["purge", "till", "desk", "--older-than", "5 minutes"],
        &["dead", "purge"],
        &["lock", "break", "till", "desk"],
        &["set", "till", "desk", "sum", "{"],
        &["call", "till", "desk", "add", "{'n': 1}"],
        &["cast", "till", "desk", ""],
        &["show", "till", "desk", "a["],
        &["ls", ""],
        &["pause", ""],
        &["mailbox", "", "desk"],
        &["import", "--yes"],
        &["import", "--abandon", "desk.export"],
    ] {
        let ran = world.abide(arguments);
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (2, ""),
            "{arguments:?}: {ran:?}"
        );
    }
    assert_eq!(world.abide(&["--help"]).code, 0);
}

#[test]
fn a_store_that_is_not_there_exits_with_3_and_is_not_created() {
    let world = World::sqlite();
    for arguments in [
        &["ls"][..],
        &["show", "till", "desk"],
        &["cast", "till", "desk", "add"],
        &["doctor", "--fix"],
        &["export"],
        &["pause", "till"],
        &["import", "--abandon", "--yes"],
    ] {
        let ran = world.abide(arguments);
        assert_eq!(ran.code, 3, "{arguments:?}: {ran:?}");
        assert!(
            ran.err.starts_with("error: the store is unavailable"),
            "{ran:?}"
        );
    }
    assert_eq!(world.dir.path().read_dir().unwrap().count(), 0);
    for url in [
        "redis:6379",
        "nothing",
        "sqlite:/nowhere/at/all.db",
        "fdb:/nowhere",
    ] {
        let ran = ran(abide().args(["--store", url, "ls"]));
        assert_eq!(ran.code, 3, "{url}: {ran:?}");
    }
    let ran = ran(abide()
        .env("ABIDE_STORE", "sqlite:/nowhere/at/all.db")
        .arg("ls"));
    assert!(ran.err.contains("/nowhere/at/all.db"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_exits_with_1() {
    let world = World::sqlite();
    let node = world.producer().await;
    for arguments in [
        &["show", "till", "desk"][..],
        &["mailbox", "till", "desk"],
        &["purge", "till", "desk", "--head", "--yes"],
        &["kill", "till", "desk", "--yes"],
        &["lock", "show", "till", "desk"],
        &["resume", "till"],
        &["import", "--abandon", "--yes"],
        &["export", "till", "desk"],
        &["call", "till", "desk", "add", "--timeout", "50ms"],
        &["--namespace", "another", "ls"],
    ] {
        let ran = ran(abide().args(["--store", &world.url]).args(arguments));
        assert_eq!(ran.code, 1, "{arguments:?}: {ran:?}");
        assert!(ran.err.starts_with("error: "), "{ran:?}");
    }
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_ends_the_command_quietly() {
    let world = World::sqlite();
    let node = world.producer().await;
    let desk = node.server::<Tilling>("desk");
    desk.cast_all((0..2_000).map(|n| Add { n })).await.unwrap();
    for arguments in [
        &["mailbox", "till", "desk"][..],
        &["completions", "bash"],
        &["ls"],
    ] {
        let mut command = world.command(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(output.stderr, b"", "{arguments:?}");
    }
    assert_eq!(
        world.done(&["mailbox", "till", "desk"]).lines().count(),
        2_001
    );
    stop(node).await;
}

#[test]
fn shells_get_completions_without_a_store() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = ran(abide().args(["completions", shell]));
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("mailbox"), "{shell}");
    }
}

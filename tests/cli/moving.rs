//! From one store to another.

use crate::support::{Add, Risky, Till, Tilling, World, ran, stop};
use abide::Poison;
use std::fs;
use std::io::Write;
use std::process::Stdio;

on_each_store!(
    an_application_moves_from_sqlite_and_continues,
    an_import_whose_pipe_broke_is_abandoned_and_another_one_begins,
);

async fn an_application_moves_from_sqlite_and_continues(target: World) {
    let source = World::sqlite();
    let till = Till { broken: true };
    let node = source.serving(till, Poison::DeadLetter).await;
    for (id, n) in [("a", 1), ("b", 2), ("c", 3)] {
        node.server::<Tilling>(id).call(Add { n }).await.unwrap();
    }
    node.server::<Tilling>("a")
        .cast(Risky { n: 10 })
        .await
        .unwrap();
    source
        .until(&["dead", "ls"], |out| out.contains("risky"))
        .await;
    source.done(&["pause", "till", "b", "--reason", "on leave"]);
    source.done(&["cast", "till", "b", "add", r#"{"n":20}"#]);
    source.done(&["cast", "till", "b", "add", r#"{"n":30}"#]);
    stop(node).await;
    assert_eq!(source.done(&["doctor"]), "nothing is wrong\n");
    let file = target.dir.path().join("till.export");
    let file = file.to_str().unwrap();
    source.done(&["export", "--output", file]);
    assert_eq!(source.abide(&["export", "--output", file]).code, 1);

    // The same stream comes from a pipe; it is cut off, and then goes on.
    let whole = fs::read(file).unwrap();
    let cut = whole.iter().rposition(|byte| *byte == b'\n').unwrap() / 2;
    assert_eq!(piped(&target, &whole[..cut]), 1);
    let imported = target.done(&["import", file, "--json"]);
    assert!(imported.contains(r#""type":"imported""#), "{imported}");
    assert_eq!(target.abide(&["import", file]).code, 1, "it is not empty");
    assert_eq!(target.done(&["doctor"]), "nothing is wrong\n");

    let node = target
        .serving(Till { broken: false }, Poison::DeadLetter)
        .await;
    target.done(&["dead", "retry", "--all", "--yes"]);
    target
        .until(&["show", "till", "a", "added", "--json"], |out| {
            out.contains("[1,10]")
        })
        .await;
    assert!(target.done(&["ls"]).contains("paused: on leave"));
    target.done(&["resume", "till", "b"]);
    target
        .until(&["show", "till", "b", "added", "--json"], |out| {
            out.contains("[2,20,30]")
        })
        .await;
    assert_eq!(
        node.server::<Tilling>("c")
            .call(Add { n: 1 })
            .await
            .unwrap(),
        4
    );
    stop(node).await;
    assert_eq!(target.done(&["doctor"]), "nothing is wrong\n");
}

/// Imports what comes from a pipe, which then breaks.
fn piped(target: &World, stream: &[u8]) -> i32 {
    let mut import = target.command(&["import"]);
    let mut import = import
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = import.stdin.take().unwrap();
    pipe.write_all(stream).unwrap();
    drop(pipe);
    import.wait().unwrap().code().unwrap()
}

async fn an_import_whose_pipe_broke_is_abandoned_and_another_one_begins(target: World) {
    let source = World::sqlite();
    let node = source.producer().await;
    let desk = node.server::<Tilling>("desk");
    desk.cast_all((0..1_200).map(|n| Add { n })).await.unwrap();
    stop(node).await;
    let first = source.done(&["export"]);
    let end = first.match_indices('\n').nth(1_100).unwrap().0;
    assert_eq!(piped(&target, &first.as_bytes()[..end]), 1);
    // What the source says now is another stream.
    let second = target.dir.path().join("second.export");
    let second = second.to_str().unwrap();
    source.done(&["export", "--output", second]);
    for more in [&[][..], &["--into-non-empty"]] {
        let refused = target.abide(&[&["import", second], more].concat());
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains("--abandon"), "{refused:?}");
    }
    let found = target.abide(&["doctor"]);
    assert!(found.out.contains("unfinished-import") && found.out.contains("--abandon"));
    let refused = target.abide(&["import", "--abandon"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("pass --yes"), "{refused:?}");
    let planned = target.done(&["import", "--abandon", "--dry-run"]);
    assert!(
        planned.contains("would be abandoned; 1001 records") && planned.contains("till/desk"),
        "{planned}"
    );
    let abandoned = target.done(&["import", "--abandon", "--yes", "--json"]);
    assert!(
        abandoned.contains(r#""records":1001,"kind":"till","id":"desk","dry_run":false"#),
        "{abandoned}"
    );
    assert_eq!(target.abide(&["import", "--abandon", "--yes"]).code, 1);
    target.done(&["kill", "till", "desk", "--yes"]);
    let imported = target.done(&["import", second]);
    assert!(imported.contains("1200 messages"), "{imported}");
    assert_eq!(target.done(&["doctor"]), "nothing is wrong\n");
}

/// A stream of so many messages that an import takes its time.
async fn long_stream(world: &World, messages: usize) -> String {
    let node = world.producer().await;
    node.server::<Tilling>("desk")
        .cast(Add { n: 1 })
        .await
        .unwrap();
    stop(node).await;
    let short = world.done(&["export"]);
    let is_message = |line: &&str| line.starts_with(r#"{"message""#);
    let message = short.lines().find(is_message).unwrap();
    let before: Vec<&str> = short.lines().take_while(|line| !is_message(line)).collect();
    let records = before.len() + messages + 1;
    let mut stream = before.join("\n") + "\n";
    for _ in 0..messages {
        stream += message;
        stream += "\n";
    }
    stream + "\"instance_end\"\n" + &format!("{{\"end\":{{\"records\":{records}}}}}\n")
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_is_interrupted_closes_its_session_and_goes_on() {
    const MESSAGES: usize = 40_000;
    let (source, target) = (World::sqlite(), World::sqlite());
    let stream = long_stream(&source, MESSAGES).await;
    let file = target.dir.path().join("long.export");
    fs::write(&file, &stream).unwrap();
    let file = file.to_str().unwrap();
    let mut import = target.command(&["import", file]);
    let import = import.stderr(Stdio::piped()).spawn().unwrap();
    // It has opened its session, and is at work.
    target
        .until(&["doctor"], |out| out.contains("unfinished-import"))
        .await;
    let pid = import.id().to_string();
    assert_eq!(
        ran(std::process::Command::new("kill").args(["-INT", &pid])).code,
        0
    );
    let output = import.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("begun again"), "{said}");
    assert_eq!(target.done(&["sessions"]), "");
    let imported = target.done(&["import", file, "--json"]);
    let imported: serde_json::Value = serde_json::from_str(&imported).unwrap();
    assert!(imported["resumed"].as_u64() > Some(0), "{imported}");
    let listed = target.done(&["ls", "--json"]);
    assert!(
        listed.contains(&format!(r#""messages":{MESSAGES}"#)),
        "{listed}"
    );
}

/// Ctrl-C also ends it while it waits for input that does not come.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_waits_for_its_input_can_be_interrupted() {
    let (source, target) = (World::sqlite(), World::sqlite());
    let stream = long_stream(&source, 1_100).await;
    let mut import = target.command(&["import"]);
    let mut import = import
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = import.stdin.take().unwrap();
    let cut = stream.rfind("\"instance_end").unwrap();
    pipe.write_all(&stream.as_bytes()[..cut]).unwrap();
    target
        .until(&["doctor"], |out| out.contains("unfinished-import"))
        .await;
    let pid = import.id().to_string();
    assert_eq!(
        ran(std::process::Command::new("kill").args(["-INT", &pid])).code,
        0
    );
    assert_eq!(import.wait().unwrap().code(), Some(130));
    drop(pipe);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_was_interrupted_goes_on_with_its_file() {
    let world = World::sqlite();
    let node = world
        .serving(Till { broken: false }, Poison::DeadLetter)
        .await;
    for id in ["a", "b", "c"] {
        node.server::<Tilling>(id).call(Add { n: 1 }).await.unwrap();
    }
    stop(node).await;
    let path = |name: &str| world.dir.path().join(name).to_str().unwrap().to_owned();
    let (first, second) = (path("first"), path("second"));
    world.done(&["export", "--output", &first]);
    let whole = fs::read_to_string(&first).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(path("second.part"), &whole[..cut]).unwrap();
        let ran = world.abide(&["export", "--output", &second]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(
            ran.err.contains("going on with"),
            cut > whole.len() / 3,
            "{ran:?}"
        );
        let written = fs::read_to_string(&second).unwrap();
        // All but the header.
        assert!(
            written.lines().skip(1).eq(whole.lines().skip(1)),
            "{cut}: {written}"
        );
        fs::remove_file(&second).unwrap();
    }
    // What is not there leaves no file.
    let ran = world.abide(&["export", "till", "nobody", "--output", &second]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    fs::write(path("second.part"), "no export\n").unwrap();
    let ran = world.abide(&["export", "--output", &second]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn an_import_of_nothing_creates_no_store() {
    let world = World::sqlite();
    for file in ["/nowhere/at/all", "/"] {
        let ran = world.abide(&["import", file]);
        assert_eq!(ran.code, 1, "{ran:?}");
    }
    assert_eq!(world.dir.path().read_dir().unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_export_is_refused_with_its_line() {
    let world = World::sqlite();
    let mut import = world.command(&["import", "Cargo.toml"]);
    let refused = ran(import.current_dir(env!("CARGO_MANIFEST_DIR")));
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("line 1 "), "{refused:?}");
    assert_eq!(
        ran(&mut world.command(&["import", "/nowhere/at/all"])).code,
        1
    );
}

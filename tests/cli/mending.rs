//! Finding what is stuck, and mending it.

use crate::support::{Add, Hold, Risky, Till, Tilling, World, stop};
use abide::durable::keys::Lane;
use abide::server::CallErrorKind;
use abide::store::{self, Stamp};
use abide::{InstanceId, Poison};

on_each_store!(
    a_message_that_blocks_its_instance_is_found_seen_and_purged,
    dead_letters_are_retried_when_the_handler_is_mended,
    a_lock_is_shown_and_broken,
    a_pause_keeps_messages_and_a_resume_lets_them_go,
    a_field_is_set_and_an_instance_is_killed,
    damage_at_the_head_is_found_and_purged_and_the_instance_goes_on,
    a_restored_namespace_begins_anew_while_its_nodes_live,
);

const BROKEN: Till = Till { broken: true };
const SOUND: Till = Till { broken: false };

async fn a_message_that_blocks_its_instance_is_found_seen_and_purged(world: World) {
    let node = world.serving(BROKEN, Poison::Block).await;
    let (desk, other) = (
        node.server::<Tilling>("desk"),
        node.server::<Tilling>("other"),
    );
    // Somebody waits for it.
    let waiting = desk.clone();
    let waiting = tokio::spawn(async move { waiting.call(Risky { n: 1 }).await });
    world
        .until(&["mailbox", "till", "desk"], |out| out.contains("risky"))
        .await;
    desk.cast(Add { n: 5 }).await.unwrap();
    other.call(Add { n: 1 }).await.unwrap();
    let stuck = world
        .until(&["ls", "till", "--stuck"], |out| out.contains("broken"))
        .await;
    assert!(
        stuck.contains("desk") && !stuck.contains("other"),
        "{stuck}"
    );
    let peeked = world.done(&["mailbox", "till", "desk"]);
    let head = peeked.lines().nth(1).unwrap();
    assert!(
        head.contains("risky") && head.contains(r#"{"n":1}"#),
        "{peeked}"
    );
    let stamp = head.split_whitespace().next().unwrap();
    // Nobody is there to be asked.
    let purge = ["purge", "till", "desk", "--stamp", stamp];
    let refused = world.abide(&purge);
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("1 message would be deleted"),
        "{refused:?}"
    );
    let planned = world.done(&[&purge[..], &["--dry-run"]].concat());
    assert!(planned.contains("1 message would be deleted"), "{planned}");
    assert_eq!(world.done(&["mailbox", "till", "desk"]).lines().count(), 3);
    let purged = world.done(&[&purge[..], &["--yes"]].concat());
    assert!(
        purged.contains("1 message deleted, 1 of them awaited"),
        "{purged}"
    );
    let told = waiting.await.unwrap().unwrap_err();
    assert_eq!(told.kind(), CallErrorKind::Killed);
    world
        .until(&["call", "till", "desk", "sum", "{}", "--query"], |out| {
            out == "5\n"
        })
        .await;
    assert_eq!(world.done(&["ls", "--stuck"]), "");
    assert_eq!(world.abide(&[&purge[..], &["--yes"]].concat()).code, 1);
    stop(node).await;
}

async fn dead_letters_are_retried_when_the_handler_is_mended(world: World) {
    let node = world.serving(BROKEN, Poison::DeadLetter).await;
    let desk = node.server::<Tilling>("desk");
    desk.cast_all([Risky { n: 1 }, Risky { n: 2 }, Risky { n: 3 }])
        .await
        .unwrap();
    let ls = ["dead", "ls", "till", "desk", "--json"];
    let listed = world.until(&ls, |out| out.lines().count() == 3).await;
    assert!(listed.contains("the scale is broken"), "{listed}");
    stop(node).await;
    let node = world.serving(SOUND, Poison::DeadLetter).await;
    let retry = ["dead", "retry", "till", "desk"];
    assert_eq!(world.abide(&retry).code, 1);
    let retried = world.done(&[&retry[..], &["--yes"]].concat());
    assert!(retried.contains("3 dead letters put back"), "{retried}");
    world
        .until(&["show", "till", "desk", "added", "--json"], |out| {
            out.contains("[1,2,3]")
        })
        .await;
    assert_eq!(world.done(&ls), "");
    assert_eq!(world.done(&["doctor"]), "nothing is wrong\n");
    stop(node).await;
}

async fn a_lock_is_shown_and_broken(world: World) {
    let node = world.serving(SOUND, Poison::DeadLetter).await;
    let desk = node.server::<Tilling>("desk");
    assert_eq!(world.abide(&["lock", "show", "till", "desk"]).code, 1);
    desk.cast(Hold {}).await.unwrap();
    let shown = world
        .until(&["lock", "show", "till", "desk"], |out| !out.is_empty())
        .await;
    assert!(shown.contains("hold {}"), "{shown}");
    let break_it = ["lock", "break", "till", "desk", "--dead"];
    assert_eq!(world.abide(&break_it).code, 1);
    let broken = world.done(&[&break_it[..], &["--yes"]].concat());
    assert!(broken.contains("its message is a dead letter"), "{broken}");
    let sum = world.done(&["call", "till", "desk", "add", r#"{"n":2}"#]);
    assert_eq!(sum, "2\n");
    let letters = world.done(&["dead", "ls"]);
    assert!(letters.contains("hold"), "{letters}");
    stop(node).await;
}

async fn a_pause_keeps_messages_and_a_resume_lets_them_go(world: World) {
    let node = world.serving(SOUND, Poison::DeadLetter).await;
    for target in [&["till", "desk"][..], &["till"]] {
        world.done(&[&["pause"], target, &["--reason", "inventory"]].concat());
        world.done(&["cast", "till", "desk", "add", r#"{"n":1}"#]);
        let listed = world.done(&["ls", "--stuck"]);
        assert!(listed.contains("paused: inventory"), "{listed}");
        world.done(&[&["resume"], target].concat());
        world.until(&["ls", "--stuck"], str::is_empty).await;
        assert_eq!(world.abide(&[&["resume"], target].concat()).code, 1);
    }
    let sum = world.done(&["call", "till", "desk", "sum", "{}", "--query"]);
    assert_eq!(sum, "2\n");
    stop(node).await;
}

async fn a_field_is_set_and_an_instance_is_killed(world: World) {
    let node = world.serving(SOUND, Poison::DeadLetter).await;
    node.server::<Tilling>("desk")
        .call(Add { n: 7 })
        .await
        .unwrap();
    let set = ["set", "till", "desk", "sum", "40"];
    assert_eq!(world.abide(&set).code, 1);
    let planned = world.done(&[&set[..], &["--dry-run"]].concat());
    assert_eq!(planned, "state.sum: 7 becomes 40\n");
    world.done(&[&set[..], &["--yes"]].concat());
    let sum = world.done(&["call", "till", "desk", "add", r#"{"n":2}"#]);
    assert_eq!(sum, "42\n");
    // What the server could not read is refused.
    let wrong = world.abide(&["set", "till", "desk", "sum", r#""much""#, "--yes"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert_eq!(
        world
            .abide(&["set", "till", "desk", "nothing", "1", "--yes"])
            .code,
        1
    );
    assert_eq!(world.abide(&["kill", "till", "desk"]).code, 1);
    let killed = world.done(&["kill", "till", "desk", "--yes"]);
    assert_eq!(
        killed,
        "till/desk: the state, 0 messages, 0 dead letters removed\n"
    );
    assert_eq!(world.abide(&["show", "till", "desk"]).code, 1);
    let sum = world.done(&["call", "till", "desk", "add", r#"{"n":1}"#]);
    assert_eq!(sum, "1\n");
    stop(node).await;
}

async fn damage_at_the_head_is_found_and_purged_and_the_instance_goes_on(world: World) {
    let node = world.serving(SOUND, Poison::DeadLetter).await;
    let keys = node.namespace().keys();
    let of = |id: &str| keys.instance(&InstanceId::new("till", id).unwrap());
    let first = Stamp::from_bytes([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    let message = of("unread").message(Lane::Ordinary, 0, first, 0);
    let foreign = [&of("foreign").mailbox(Lane::Ordinary).begin[..], b"\x02x"].concat();
    let store = store::open(&world.url).await.unwrap();
    for (id, key) in [("unread", &message[..]), ("foreign", &foreign)] {
        let desk = node.server::<Tilling>(id);
        desk.call(Add { n: 1 }).await.unwrap();
        world.done(&["pause", "till", id]);
        desk.cast(Add { n: 2 }).await.unwrap();
        let tx = store.begin().unwrap();
        tx.set(key, b"\xffgarbage");
        tx.commit().await.unwrap();
        world.done(&["resume", "till", id]);
        let stuck = world.abide(&["ls", "till", "--stuck"]);
        assert!(
            stuck.out.contains(id) && stuck.out.contains("damaged"),
            "{stuck:?}"
        );
        assert!(
            stuck.err.contains(&key.escape_ascii().to_string()),
            "{stuck:?}"
        );
        // The message behind it is not what stands at the head.
        world.done(&["purge", "till", id, "--head", "--yes"]);
        let sum = ["call", "till", id, "sum", "{}", "--query"];
        world.until(&sum, |out| out == "3\n").await;
    }
    stop(node).await;
    world.done(&["doctor", "--fix"]);
    assert_eq!(world.done(&["doctor"]), "nothing is wrong\n");
}

async fn a_restored_namespace_begins_anew_while_its_nodes_live(world: World) {
    let node = world.serving(SOUND, Poison::DeadLetter).await;
    let desk = node.server::<Tilling>("desk");
    desk.call(Add { n: 1 }).await.unwrap();
    node.server::<Tilling>("held").cast(Hold {}).await.unwrap();
    let show = ["lock", "show", "till", "held", "--json"];
    let held = world.until(&show, |out| !out.is_empty()).await;
    let refused = world.abide(&["restored"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("incarnation 1 would begin"),
        "{refused:?}"
    );
    let planned = world.done(&["restored", "--dry-run", "--json"]);
    assert!(
        planned.contains(r#""sessions":1,"locks":null"#),
        "{planned}"
    );
    assert_eq!(node.namespace().incarnation(), 0);
    let restored = world.done(&["restored", "--yes", "--json"]);
    let restored: serde_json::Value = serde_json::from_str(&restored).unwrap();
    assert_eq!(
        (
            &restored["incarnation"],
            &restored["sessions"],
            &restored["locks"]
        ),
        (&1.into(), &1.into(), &1.into())
    );
    // The node finds out with its next heartbeat. The lock is free at once: another one takes it,
    // and waits for no lease.
    world.until(&["sessions"], |out| out.contains("till")).await;
    let other = world.serving(SOUND, Poison::DeadLetter).await;
    world
        .until(&show, |out| {
            out != held && !out.contains(r#""holder":null"#)
        })
        .await;
    assert_eq!(node.namespace().incarnation(), 1);
    let sum = world.done(&["call", "till", "desk", "add", r#"{"n":2}"#]);
    assert_eq!(sum, "3\n");
    stop(other).await;
    stop(node).await;
    assert_eq!(world.done(&["doctor"]), "nothing is wrong\n");
}

/// What stands in the way of the doctor is no error of the command, so it is among the objects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_says_in_its_json_what_it_could_not_mend() {
    let world = World::sqlite();
    let node = world.producer().await;
    let keys = node.namespace().keys();
    let desk = keys.instance(&InstanceId::new("till", "desk").unwrap());
    let store = store::open(&world.url).await.unwrap();
    let tx = store.begin().unwrap();
    // One chunk of a message, which says that it is the only one; and nothing that can be read in it.
    tx.set(&desk.lock_message_chunk(0), b"\0\x01\xff");
    tx.commit().await.unwrap();
    stop(node).await;
    let fixed = world.abide(&["doctor", "--fix", "--json"]);
    assert_eq!((fixed.code, fixed.err.as_str()), (1, ""), "{fixed:?}");
    let objects = fixed
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let objects: Vec<serde_json::Value> = objects.collect();
    let code = |of: &serde_json::Value| of["code"] == "message-without-lock";
    let found = objects.iter().find(|of| code(of)).unwrap();
    assert_eq!(
        (&found["fixable"], &found["fixed"]),
        (&true.into(), &false.into())
    );
    let why = found["not_fixed"].as_str().unwrap();
    assert!(why.contains("unknown format 255"), "{why}");
    let other = objects.iter().find(|of| !code(of)).unwrap();
    assert!(other["not_fixed"].is_null());
    let text = world.abide(&["doctor", "--fix"]);
    assert!(text.err.starts_with("not fixed: "), "{text:?}");
}

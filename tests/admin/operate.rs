//! What is stuck, and mending it.

use crate::{All, Logging, Put, Slow, World, log, put, reference, secs};
use abide::Poison;
use abide::admin::{
    AdminErrorKind, DeadFilter, InstanceFilter, Purge, Selection, SetOptions, Then, parse_path,
};
use abide::codec::Value;
use abide::durable::keys::Lane;
use abide::server::CallErrorKind;
use futures_util::future::join;

#[test]
fn a_poison_message_that_blocks_is_found_seen_and_purged_and_the_instance_goes_on() {
    let world = World::new(1);
    let node = world.serve("a", true, Poison::Block);
    let sender = world.sender();
    let waiting = reference(&sender, "x").timeout(secs(600));
    let admin = &world.admin;
    world.run(async {
        reference(&node, "x").call(Put(1)).await.unwrap();
        reference(&node, "fine").call(Put(1)).await.unwrap();
        let blocked = waiting.call(Put(13));
        let operator = async {
            let env = world.sim.env();
            env.sleep(secs(1)).await;
            sender.courier().cast(vec![put("x", 2)]).await.unwrap();
            env.sleep(secs(30)).await;
            let filter = InstanceFilter {
                kind: None,
                stuck: Some(secs(3600)),
            };
            let (mut stuck, mut cursor) = (Vec::new(), None);
            loop {
                let page = admin.instances(&filter, cursor.as_ref(), 10).await.unwrap();
                stuck.extend(page.items);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(stuck.len(), 1);
            assert_eq!(stuck[0].instance, log("x"));
            assert_eq!(stuck[0].length, 2);
            let attempts = stuck[0].ordinary.attempts.clone().unwrap();
            assert!(attempts.attempts > 2 && attempts.error == "thirteen");

            let page = admin
                .mailbox(&log("x"), Lane::Ordinary, None, 1)
                .await
                .unwrap();
            let head = page.items[0].message.clone().unwrap();
            assert_eq!(head.value().unwrap(), Value::Int(13));
            assert!(head.call.is_some() && page.next.is_some());
            let mut purge = Purge::new(Selection::Head);
            purge.dry_run = true;
            assert_eq!(admin.purge(&log("x"), &purge).await.unwrap().messages, 1);
            purge.dry_run = false;
            let purged = admin.purge(&log("x"), &purge).await.unwrap();
            assert_eq!((purged.messages, purged.callers), (1, 1));
            env.sleep(secs(1)).await;
            assert_eq!(reference(&node, "x").query(All).await.unwrap(), [1, 2]);
        };
        let (answer, ()) = Box::pin(join(blocked, operator)).await;
        assert_eq!(answer.unwrap_err().kind(), CallErrorKind::Killed);
    });
    assert_eq!(world.doctor(), []);
}

#[test]
fn dead_letters_are_retried_in_their_order_after_the_handler_was_mended() {
    let world = World::new(2);
    let strict = world.serve("a", true, Poison::DeadLetter);
    let courier = strict.courier();
    world.run(async {
        // The first message of all: there is no state, and no entry in the directory.
        courier.cast(vec![put("y", 13)]).await.unwrap();
        courier
            .cast(vec![put("x", 1), put("x", 13), put("x", 13), put("x", 5)])
            .await
            .unwrap();
    });
    world.sleep(secs(60));
    let admin = &world.admin;
    world.run(async {
        let page = admin
            .dead_letters(&DeadFilter::default(), None, 100)
            .await
            .unwrap();
        assert_eq!(page.items.len(), 3);
        let letter = page.items[0].letter.clone().unwrap();
        assert_eq!((letter.error.as_str(), letter.attempts), ("thirteen", 2));
        // One by one, by cursors.
        let (mut count, mut cursor) = (0, None);
        loop {
            let filter = DeadFilter {
                kind: Some("log".to_owned()),
                ..DeadFilter::default()
            };
            let page = admin
                .dead_letters(&filter, cursor.as_ref(), 1)
                .await
                .unwrap();
            count += page.items.len();
            cursor = page.next.map(|next| next.to_string().parse().unwrap());
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(count, 3);
        let all = admin
            .instances(&InstanceFilter::default(), None, 10)
            .await
            .unwrap();
        assert_eq!(all.items.len(), 1);
        let rest = admin
            .instances(&InstanceFilter::default(), all.next.as_ref(), 10)
            .await
            .unwrap();
        assert_eq!(rest.items[0].instance, log("y"));
        assert_eq!(rest.items[0].dead_letters.count, 1);
    });
    world.stop(&strict);
    let tolerant = world.serve("b", false, Poison::DeadLetter);
    world.run(async {
        let of = DeadFilter {
            instance: Some(log("x")),
            ..DeadFilter::default()
        };
        assert_eq!(admin.retry_dead(&of, true).await.unwrap().letters, 2);
        assert_eq!(admin.retry_dead(&of, false).await.unwrap().letters, 2);
        world.sim.env().sleep(secs(5)).await;
        let entries = reference(&tolerant, "x").query(All).await.unwrap();
        assert_eq!(entries, [1, 5, 13, 13]);
        let deleted = admin
            .purge_dead(&DeadFilter::default(), false)
            .await
            .unwrap();
        assert_eq!(deleted.letters, 1);
        admin.close().await.unwrap();
    });
    assert_eq!(world.doctor(), []);
}

#[test]
fn dead_letters_of_a_store_that_was_far_ahead_are_retried_after_a_restore() {
    let world = World::new(9);
    let strict = world.serve("a", true, Poison::DeadLetter);
    let put_13 = strict.courier().cast(vec![put("x", 13)]);
    world.run(async { put_13.await.unwrap() });
    world.sleep(secs(60));
    world.stop(&strict);
    let admin = &world.admin;
    let all = DeadFilter::default();
    let keys = admin.namespace().keys().instance(&log("x"));
    // As if it had come from a store with higher versions.
    let ahead = abide::store::Stamp::from_bytes([9; 12]);
    let letter = world.run(async {
        use abide::store::{Store, TransactionExt};
        let page = admin.dead_letters(&all, None, 10).await.unwrap();
        let tx = world.store.begin().unwrap();
        let stored = keys.dead_letter(page.items[0].stamp, 0);
        let letter = tx.peek(&stored).await.unwrap().unwrap();
        tx.clear(&stored);
        tx.set(&keys.dead_letter(ahead, 0), &letter);
        tx.commit().await.unwrap();
        letter
    });
    assert!(!letter.is_empty());
    world.run(async {
        assert_eq!(admin.restored().await.unwrap().incarnation, 1);
        assert_eq!(admin.retry_dead(&all, false).await.unwrap().letters, 1);
        assert_eq!(admin.retry_dead(&all, false).await.unwrap().letters, 0);
        assert_eq!(admin.instance(&log("x")).await.unwrap().length, 1);
    });
    assert_eq!(world.doctor(), []);
}

#[test]
fn a_purge_keeps_the_length_and_the_mark_right_without_any_node() {
    let world = World::new(3);
    let sender = world.sender();
    let admin = &world.admin;
    world.run(async {
        let batch = (0..1_200).map(|number| put("x", number)).collect();
        sender.courier().cast(batch).await.unwrap();
        let mut purge = Purge::new(Selection::Head);
        purge.to_dead = true;
        assert_eq!(admin.purge(&log("x"), &purge).await.unwrap().messages, 1);
        let page = admin
            .mailbox(&log("x"), Lane::Ordinary, None, 2)
            .await
            .unwrap();
        let second = page.items[1].stamp;
        let one = Purge::new(Selection::Stamp(second));
        assert_eq!(admin.purge(&log("x"), &one).await.unwrap().messages, 1);
        let error = admin.purge(&log("x"), &one).await.unwrap_err();
        assert_eq!(error.kind(), AdminErrorKind::NotFound);
        assert_eq!(admin.instance(&log("x")).await.unwrap().length, 1_198);
    });
    assert_eq!(world.doctor(), []);
    world.run(async {
        let old = Purge::new(Selection::SentBefore(0));
        assert_eq!(admin.purge(&log("x"), &old).await.unwrap().messages, 0);
        let all = Purge::new(Selection::All);
        assert_eq!(admin.purge(&log("x"), &all).await.unwrap().messages, 1_198);
        let summary = admin.instance(&log("x")).await.unwrap();
        assert_eq!((summary.length, summary.dead_letters.count), (0, 1));
    });
    assert_eq!(world.doctor(), []);
}

#[test]
fn a_field_is_set_while_a_node_runs_and_what_would_break_the_state_is_refused() {
    let world = World::new(4);
    let node = world.serve("a", true, Poison::DeadLetter);
    let admin = &world.admin;
    world.run(async {
        let x = reference(&node, "x");
        x.call(Put(7)).await.unwrap();
        let state = admin.state(&log("x")).await.unwrap();
        let json = state.value().unwrap().to_json().unwrap();
        assert!(json.contains(r#""limit":1000"#), "{json}");
        let at = |path: &str| parse_path(path).unwrap();
        let options = SetOptions::default();
        let set = |path: &str, value: Value| {
            let path = at(path);
            async move { admin.set(&log("x"), &path, &value, options).await }
        };
        assert_eq!(set("limit", Value::Int(5)).await.unwrap(), Value::Int(1000));
        let error = x.call(Put(6)).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Rejected);
        set("entries", Value::Array(vec![Value::Int(9)]))
            .await
            .unwrap();
        assert_eq!(x.query(All).await.unwrap(), [9]);
        set("entries", Value::Array(vec![])).await.unwrap();
        assert_eq!(x.query(All).await.unwrap(), Vec::<u64>::new());
        set("entries", Value::Array(vec![Value::Int(1)]))
            .await
            .unwrap();
        set("seen.n7", Value::Int(3)).await.unwrap();
        for (path, value, kind) in [
            ("limit", Value::from("much"), AdminErrorKind::Refused),
            ("seen", Value::Int(1), AdminErrorKind::Refused),
            ("", Value::Int(1), AdminErrorKind::Refused),
            ("nothing", Value::Int(1), AdminErrorKind::NotFound),
        ] {
            assert_eq!(set(path, value).await.unwrap_err().kind(), kind, "{path}");
        }
        x.call(Put(4)).await.unwrap();
        assert_eq!(x.query(All).await.unwrap(), [1, 4]);
    });
    assert_eq!(world.doctor(), []);
}

#[test]
fn a_broken_lock_fences_its_holder_and_its_message_goes_where_it_is_told() {
    let world = World::new(5);
    let node = world.serve("a", true, Poison::DeadLetter);
    let admin = &world.admin;
    world.run(async {
        let env = world.sim.env();
        let x = reference(&node, "x");
        x.call(Put(1)).await.unwrap();
        for then in [Then::DeadLetter, Then::Discard] {
            let slow = x.clone().timeout(secs(600));
            let operator = async {
                env.sleep(secs(1)).await;
                let lock = admin.lock(&log("x")).await.unwrap().unwrap();
                assert_eq!(lock.message.unwrap().unwrap().name, "slow");
                assert!(lock.session.is_some());
                admin.break_lock(&log("x"), then, true).await.unwrap();
                admin.break_lock(&log("x"), then, false).await.unwrap();
                assert!(admin.lock(&log("x")).await.unwrap().is_none());
            };
            let (answer, ()) = join(slow.call(Slow(8)), operator).await;
            let kind = answer.unwrap_err().kind();
            match then {
                Then::DeadLetter => assert_eq!(kind, CallErrorKind::DeadLetter),
                _ => assert_eq!(kind, CallErrorKind::Killed),
            }
            x.call(Put(2)).await.unwrap();
        }
        x.cast(Slow(8)).await.unwrap();
        env.sleep(secs(1)).await;
        x.cast(Put(3)).await.unwrap();
    });
    // The run under the broken lock never ends, so the node cannot stop in order.
    let _ = world.run(node.shutdown(secs(1)));
    world.run(async {
        admin
            .break_lock(&log("x"), Then::Retry, false)
            .await
            .unwrap();
        let page = admin
            .mailbox(&log("x"), Lane::Ordinary, None, 10)
            .await
            .unwrap();
        let names: Vec<String> = page
            .items
            .iter()
            .map(|queued| queued.message.clone().unwrap().name)
            .collect();
        assert_eq!(names, ["slow", "put"]);
    });
    let tolerant = world.serve("b", false, Poison::DeadLetter);
    world.sleep(secs(30));
    let entries = world.run(async { reference(&tolerant, "x").query(All).await.unwrap() });
    assert_eq!(entries, [1, 2, 2, 8, 3]);
}

#[test]
fn a_paused_kind_waits_until_it_is_resumed() {
    let world = World::new(6);
    let node = world.serve("a", true, Poison::DeadLetter);
    let admin = &world.admin;
    world.run(async {
        let env = world.sim.env();
        let x = reference(&node, "x");
        x.call(Put(1)).await.unwrap();
        admin.pause_kind("log", "maintenance").await.unwrap();
        x.cast(Put(2)).await.unwrap();
        reference(&node, "new").cast(Put(1)).await.unwrap();
        env.sleep(secs(60)).await;
        let summary = admin.instance(&log("x")).await.unwrap();
        assert_eq!(summary.length, 1);
        assert_eq!(summary.kind_paused.unwrap().reason, "maintenance");
        assert_eq!(admin.paused_kinds().await.unwrap().0[0].kind, "log");
        admin.pause(&log("x"), "alone").await.unwrap();
        assert!(admin.resume_kind("log").await.unwrap());
        env.sleep(secs(2)).await;
        assert_eq!(admin.instance(&log("x")).await.unwrap().length, 1);
        assert_eq!(admin.instance(&log("new")).await.unwrap().length, 0);
        assert!(admin.resume(&log("x")).await.unwrap());
        assert!(!admin.resume(&log("x")).await.unwrap());
        env.sleep(secs(2)).await;
        assert_eq!(x.query(All).await.unwrap(), [1, 2]);
        admin.kill(&log("x")).await.unwrap();
        let gone = admin.instance(&log("x")).await.unwrap_err();
        assert_eq!(gone.kind(), AdminErrorKind::NotFound);
    });
    assert_eq!(world.doctor(), []);
}

#[test]
fn sessions_and_nodes_show_who_lives_and_serves_what() {
    let world = World::new(7);
    let node = world.serve("a", true, Poison::DeadLetter);
    let _sender = world.sender();
    let page = world.run(async {
        let before = world.admin.first_look().await.unwrap();
        world.sim.env().sleep(secs(20)).await;
        world.admin.nodes(&before, None, 100).await.unwrap()
    });
    let (nodes, damaged) = (page.items, page.damaged);
    assert_eq!(damaged, []);
    assert_eq!(nodes.len(), 2);
    assert!(nodes.iter().all(|node| node.beat));
    assert_eq!(
        nodes
            .iter()
            .filter(|node| node.session.kinds == ["log"])
            .count(),
        1
    );
    world.stop(&node);
    let sessions = world.run(async { world.admin.sessions(None, 1).await.unwrap() });
    assert_eq!(sessions.items.len(), 1);
    let _ = <Logging as abide::server::Protocol>::KIND;
}

/// The ids of the instances that are stuck for longer than a minute.
fn stuck(world: &World) -> Vec<(String, bool)> {
    let filter = InstanceFilter {
        stuck: Some(secs(60)),
        ..InstanceFilter::default()
    };
    world.run(async {
        let page = world.admin.instances(&filter, None, 100).await.unwrap();
        let items = page.items.into_iter();
        items
            .map(|of| (of.instance.id().to_owned(), of.lock_abandoned))
            .collect()
    })
}

#[test]
fn a_lock_that_nobody_holds_any_more_is_stuck_though_no_message_waits() {
    for crash in [false, true] {
        let world = World::new(51);
        let process = world.sim.node("a");
        let node = world.serve_in(&process, true, Poison::DeadLetter);
        world.run(async { reference(&node, "x").cast(Slow(7)).await.unwrap() });
        world.sleep(secs(300));
        // It takes long, and somebody is at it.
        assert_eq!(stuck(&world), []);
        // Nobody is left who serves the kind; whoever only sends sweeps the session of a dead process.
        let sender = world.sender();
        match crash {
            true => process.crash(),
            false => world.stop(&node),
        }
        world.sleep(secs(240));
        assert_eq!(stuck(&world), [("x".to_owned(), true)], "crash: {crash}");
        let other = world.serve("b", true, Poison::DeadLetter);
        world.sleep(secs(60));
        let x = world.run(async { world.admin.instance(&log("x")).await.unwrap() });
        assert!(x.lock.unwrap().session.is_some() && !x.lock_abandoned);
        world.stop(&other);
        world.stop(&sender);
    }
}

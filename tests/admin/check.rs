//! What the doctor finds, and mends.

use crate::{All, Put, Slow, World, log, put, reference, secs};
use abide::Poison;
use abide::admin::{FindingCode, InstanceFilter};
use abide::durable::keys::Lane;
use abide::store::{CommitStamp, Store};

fn codes(world: &World) -> Vec<FindingCode> {
    let mut codes: Vec<FindingCode> = world.doctor().iter().map(|of| of.code).collect();
    codes.sort_by_key(|code| code.name());
    codes.dedup();
    codes
}

#[test]
fn what_can_be_mended_is_found_and_mended() {
    let world = World::new(11);
    let sender = world.sender();
    world.run(async {
        sender
            .courier()
            .cast(vec![put("x", 1), put("x", 2)])
            .await
            .unwrap();
    });
    assert_eq!(world.doctor(), []);
    let keys = world.admin.namespace().keys().clone();
    let x = keys.instance(&log("x"));
    let tx = world.store.begin().unwrap();
    tx.clear(x.ready());
    tx.set(&x.length(), &7_i64.to_le_bytes());
    tx.set(keys.instance(&log("empty")).ready(), b"\x010123456789");
    tx.set(
        &keys.directory(&log("ghost")),
        b"\x01\x81\xaacreated_ms\x05",
    );
    let gone = abide::durable::keys::SessionId::from_bytes([9; 16]);
    tx.set(&keys.session(gone).reply(4, 0), b"reply");
    world.run(async { tx.commit().await.unwrap() });
    let findings = world.doctor();
    assert_eq!(
        codes(&world),
        [
            FindingCode::EntryWithoutState,
            FindingCode::MarkOverNothing,
            FindingCode::MissingMark,
            FindingCode::RepliesOfAbsentSession,
            FindingCode::WrongLength,
        ]
    );
    world.run(async {
        for finding in &findings {
            assert!(world.admin.fix(finding).await.unwrap(), "{finding:?}");
            assert!(!world.admin.fix(finding).await.unwrap(), "{finding:?}");
        }
    });
    assert_eq!(world.doctor(), []);
    let node = world.serve("a", true, Poison::DeadLetter);
    world.sleep(secs(5));
    let entries = world.run(async { reference(&node, "x").query(All).await.unwrap() });
    assert_eq!(entries, [1, 2]);
}

#[test]
fn records_that_cannot_be_read_are_written_anew_and_nothing_is_lost() {
    let world = World::new(13);
    let node = world.serve("a", true, Poison::DeadLetter);
    world.run(async { reference(&node, "x").call(Put(1)).await.unwrap() });
    world.stop(&node);
    let sender = world.sender();
    world.run(async { sender.courier().cast(vec![put("x", 2)]).await.unwrap() });
    world.stop(&sender);
    let keys = world.admin.namespace().keys().clone();
    let x = keys.instance(&log("x"));
    let rows = [
        x.attempts(Lane::Ordinary).to_vec(),
        x.attempts(Lane::Priority).to_vec(),
        x.ready().to_vec(),
        keys.directory(&log("x")).to_vec(),
        keys.directory(&log("nobody")).to_vec(),
        keys.instance(&log("nobody")).ready().to_vec(),
        keys.wake(x.shard()).to_vec(),
    ];
    let damaged: Vec<(&[u8], &[u8])> = rows.iter().map(|key| (&key[..], &b"junk"[..])).collect();
    world.plant(&damaged);
    let findings = world.doctor();
    for key in &rows {
        let found = findings.iter().find(|finding| finding.key == *key);
        let found = found.unwrap_or_else(|| panic!("nothing at {}", key.escape_ascii()));
        assert_eq!(found.code, FindingCode::UndecodableRecord);
    }
    world.run(async {
        for finding in &findings {
            // What one of them is about may have been mended with another one.
            world.admin.fix(finding).await.unwrap();
        }
    });
    assert_eq!(world.doctor(), []);
    let node = world.serve("b", true, Poison::DeadLetter);
    world.sleep(secs(5));
    let entries = world.run(async { reference(&node, "x").query(All).await.unwrap() });
    assert_eq!(entries, [1, 2]);
    let listed = world.run(async {
        let all = InstanceFilter::default();
        let page = world.admin.instances(&all, None, 100).await;
        page.unwrap().items
    });
    assert_eq!(listed.len(), 1);
}

/// Removes keys behind everybody's back.
fn lose(world: &World, ranges: &[abide::store::KeyRange]) {
    let tx = world.store.begin().unwrap();
    for range in ranges {
        tx.clear_range(range);
    }
    world.run(async { tx.commit().await.unwrap() });
}

fn fix_all(world: &World) {
    let findings = world.doctor();
    world.run(async {
        for finding in findings.iter().filter(|of| of.is_fixable()) {
            world.admin.fix(finding).await.unwrap();
        }
    });
}

#[test]
fn a_message_whose_lock_is_gone_becomes_a_dead_letter() {
    let world = World::new(71);
    let node = world.serve("a", true, Poison::DeadLetter);
    world.run(async { reference(&node, "x").cast(Slow(7)).await.unwrap() });
    world.sleep(secs(5));
    world.stop(&node);
    assert_eq!(world.doctor(), []);
    let keys = world.admin.namespace().keys().instance(&log("x"));
    let header = keys.lock();
    lose(
        &world,
        &[abide::store::KeyRange::new(
            header.clone(),
            [&header[..], &[0]].concat(),
        )],
    );
    assert_eq!(
        codes(&world),
        [
            FindingCode::MarkOverNothing,
            FindingCode::MessageWithoutLock
        ]
    );
    fix_all(&world);
    assert_eq!(world.doctor(), []);
    world.run(async {
        let letters = world
            .admin
            .dead_letters(&Default::default(), None, 10)
            .await
            .unwrap();
        let letter = letters.items[0].letter.clone().unwrap();
        assert_eq!(
            (letters.items.len(), letter.message.name.as_str()),
            (1, "slow")
        );
        // Nothing ran it; whoever decides so has it run.
        world
            .admin
            .retry_dead(&Default::default(), false)
            .await
            .unwrap();
    });
    let node = world.serve("b", false, Poison::DeadLetter);
    world.sleep(secs(5));
    let entries = world.run(async { reference(&node, "x").query(All).await.unwrap() });
    assert_eq!(entries, [7]);
}

#[test]
fn a_lock_whose_message_is_gone_is_found_and_can_be_broken() {
    let world = World::new(72);
    let node = world.serve("a", true, Poison::DeadLetter);
    world.run(async { reference(&node, "x").cast(Slow(7)).await.unwrap() });
    world.sleep(secs(5));
    world.stop(&node);
    let keys = world.admin.namespace().keys().instance(&log("x"));
    lose(&world, &[keys.lock_message()]);
    assert_eq!(codes(&world), [FindingCode::LockWithoutMessage]);
    fix_all(&world);
    assert_eq!(codes(&world), [FindingCode::LockWithoutMessage]);
    world.run(async {
        let discard = abide::admin::Then::Discard;
        world
            .admin
            .break_lock(&log("x"), discard, false)
            .await
            .unwrap();
    });
    assert_eq!(world.doctor(), []);
}

#[test]
fn what_is_left_of_an_absent_session_is_found_and_removed() {
    let world = World::new(73);
    let keys = world.admin.namespace().keys().clone();
    let gone = |byte| keys.session(abide::durable::keys::SessionId::from_bytes([byte; 16]));
    let one = 1_u64.to_le_bytes();
    // Markers as a process writes them, and as none does.
    let node = world.sender();
    world.run(async { node.courier().cast(vec![put("x", 1)]).await.unwrap() });
    let marker = world.run(async {
        let tx = world.store.begin().unwrap();
        let page = tx.get_range(keys.sessions().read()).await.unwrap();
        let own = node.namespace().keys().sessions();
        let rows = page.into_iter().filter(|row| own.contains(&row.key));
        let row = rows.last().unwrap();
        row.value
    });
    world.stop(&node);
    world.plant(&[
        (&gone(7).outcome(3), &marker),
        (&gone(7).outcome(4), b"junk"),
        (&gone(7).reply(1, 0), b"reply"),
        (&gone(7).reply_wake(), &one),
        (&gone(8).reply_wake(), &one),
    ]);
    let found: Vec<_> = world
        .doctor()
        .into_iter()
        .map(|of| (of.code, of.key))
        .collect();
    let expected = [
        (FindingCode::RemainsOfAbsentSession, gone(7).outcome(3)),
        (FindingCode::RepliesOfAbsentSession, gone(7).reply(1, 0)),
        (FindingCode::RemainsOfAbsentSession, gone(8).reply_wake()),
    ];
    assert_eq!(found, expected);
    fix_all(&world);
    assert_eq!(world.doctor(), []);
}

#[test]
fn pauses_of_however_many_kinds_are_listed() {
    let world = World::new(74);
    let keys = world.admin.namespace().keys().clone();
    let rows: Vec<_> = (0..2_500)
        .map(|number| keys.kind_paused(&format!("kind{number}")))
        .collect();
    world.run(async { world.admin.pause_kind("first", "why").await.unwrap() });
    let pause = world.run(async {
        let tx = world.store.begin().unwrap();
        let page = tx.get_range(keys.kinds_paused().read()).await.unwrap();
        page[0].value.clone()
    });
    let rows: Vec<(&[u8], &[u8])> = rows.iter().map(|key| (&key[..], &pause[..])).collect();
    world.plant(&rows);
    let (kinds, damaged) = world.run(async { world.admin.paused_kinds().await.unwrap() });
    assert_eq!((kinds.len(), damaged.len()), (2_501, 0));
}

#[test]
fn damage_anywhere_is_reported_and_hides_nothing() {
    let world = World::new(12);
    let node = world.serve("a", true, Poison::DeadLetter);
    world.run(async { reference(&node, "x").call(Put(1)).await.unwrap() });
    world.stop(&node);
    let sender = world.sender();
    world.run(async { sender.courier().cast(vec![put("x", 2)]).await.unwrap() });
    let keys = world.admin.namespace().keys().clone();
    let x = keys.instance(&log("x"));
    let with = |key: &[u8], more: &[u8]| [key, more].concat();
    let stamp = CommitStamp::from_bytes([0; 10]).with_user(1);
    let junk: &[u8] = b"\xffjunk";
    let first = |range: abide::store::KeyRange| range.begin;
    let rows: Vec<Vec<u8>> = vec![
        with(&first(keys.directory_of(Some("log"))), b"\x05"),
        with(&first(keys.sessions()), b"\x05"),
        with(&first(keys.ready_of(0)), b"\x05"),
        with(&first(keys.instances_of(0, None)), b"\x05"),
        with(&first(keys.kinds_paused()), b"\x05"),
        with(&first(x.mailbox(Lane::Ordinary)), b"\x05"),
        with(&first(x.dead_letters()), b"\x05"),
        with(&first(x.state()), b"\x05"),
        x.message(Lane::Priority, 0, stamp, 0).to_vec(),
        x.message(Lane::Ordinary, 0, stamp, 3).to_vec(),
        x.dead_letter(stamp, 0).to_vec(),
        x.lock().to_vec(),
        x.attempts(Lane::Ordinary).to_vec(),
        x.paused().to_vec(),
        x.length().to_vec(),
        keys.kind_paused("other").to_vec(),
        keys.directory(&log("damaged")).to_vec(),
    ];
    let rows: Vec<(&[u8], &[u8])> = rows.iter().map(|key| (&key[..], junk)).collect();
    world.plant(&rows);
    let findings = world.doctor();
    for (key, _) in &rows {
        assert!(
            findings.iter().any(|finding| finding.key == *key),
            "nothing found at {}",
            key.escape_ascii()
        );
    }
    let admin = &world.admin;
    world.run(async {
        let page = admin
            .instances(&InstanceFilter::default(), None, 100)
            .await
            .unwrap();
        assert!(!page.damaged.is_empty());
        let summary = page
            .items
            .iter()
            .find(|of| of.instance == log("x"))
            .unwrap();
        assert!(summary.damaged.len() > 3, "{:?}", summary.damaged);
        let stuck = InstanceFilter {
            stuck: Some(secs(1)),
            ..InstanceFilter::default()
        };
        admin.instances(&stuck, None, 100).await.unwrap();
        let page = admin
            .mailbox(&log("x"), Lane::Ordinary, None, 100)
            .await
            .unwrap();
        assert_eq!(page.items.iter().filter(|of| of.message.is_ok()).count(), 1);
        assert_eq!(page.items.len() + page.damaged.len(), 3);
        let state = admin.state(&log("x")).await.unwrap();
        assert!(state.value().is_ok() && state.damaged.len() == 1);
        let letters = admin
            .dead_letters(&Default::default(), None, 100)
            .await
            .unwrap();
        assert_eq!(letters.items.len(), 1);
        assert!(
            admin
                .purge_dead(&Default::default(), false)
                .await
                .unwrap()
                .letters
                == 1
        );
        assert!(!admin.sessions(None, 100).await.unwrap().damaged.is_empty());
        assert_eq!(admin.paused_kinds().await.unwrap().1.len(), 2);
        admin.lock(&log("x")).await.unwrap_err();
        admin
            .break_lock(&log("x"), abide::admin::Then::Discard, false)
            .await
            .unwrap();
        let all = abide::admin::Purge::new(abide::admin::Selection::All);
        assert_eq!(admin.purge(&log("x"), &all).await.unwrap().messages, 3);
    });
}

//! What the doctor finds, and mends.

use crate::{All, Put, World, log, put, reference, secs};
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

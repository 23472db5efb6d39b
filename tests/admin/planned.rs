//! What was shown is what is done, whatever came in between.

use crate::{Put, Slow, World, log, put, reference, secs};
use abide::Poison;
use abide::admin::{AdminErrorKind, DeadFilter, Edit, Purge, Selection, SetOptions, Then};
use abide::codec::{Path, Value};
use abide::durable::keys::Lane;

fn dry(selection: Selection) -> Purge {
    Purge {
        dry_run: true,
        ..Purge::new(selection)
    }
}

/// A mailbox with these numbers, which nobody works on.
fn waiting(seed: u64, numbers: &[u64]) -> World {
    let world = World::new(seed);
    push(&world, "x", numbers);
    world
}

fn push(world: &World, id: &str, numbers: &[u64]) {
    let sender = world.sender();
    world.run(async {
        let batch = numbers.iter().map(|number| put(id, *number));
        sender.courier().cast(batch.collect()).await.unwrap();
    });
    world.stop(&sender);
}

/// The numbers that wait, by their payload.
fn left(world: &World) -> Vec<u64> {
    world.run(async {
        let x = log("x");
        let read = world.admin.mailbox(&x, Lane::Ordinary, None, 1_000);
        let page = read.await.unwrap();
        let number = |value: Value| value.to_typed::<u64>().unwrap();
        let messages = page.items.into_iter().map(|of| of.message.unwrap());
        messages.map(|of| number(of.value().unwrap())).collect()
    })
}

#[test]
fn another_message_that_has_come_to_the_head_is_not_purged_for_the_one_shown() {
    let world = waiting(41, &[1, 2, 3]);
    world.run(async {
        let admin = &world.admin;
        let head = dry(Selection::Head);
        let planned = admin.purge(&log("x"), &head).await.unwrap();
        assert_eq!(planned.messages, 1);
        // Handled meanwhile, say.
        admin
            .purge(&log("x"), &Purge::new(Selection::Head))
            .await
            .unwrap();
        let refused = admin.purge_planned(&log("x"), &head, &planned).await;
        assert_eq!(refused.unwrap_err().kind(), AdminErrorKind::Refused);
    });
    assert_eq!(left(&world), [2, 3]);
    assert_eq!(world.doctor(), []);
}

#[test]
fn the_message_shown_is_purged_also_where_it_does_not_stand_at_the_head_any_more() {
    let world = waiting(42, &[1, 2, 3]);
    let foreign = [
        &world
            .admin
            .namespace()
            .keys()
            .instance(&log("x"))
            .mailbox(Lane::Ordinary)
            .begin[..],
        b"\x02foreign",
    ]
    .concat();
    world.run(async {
        let head = dry(Selection::Head);
        let planned = world.admin.purge(&log("x"), &head).await.unwrap();
        let tx = abide::store::Store::begin(&world.store).unwrap();
        tx.set(&foreign, b"junk");
        tx.commit().await.unwrap();
        let purged = world
            .admin
            .purge_planned(&log("x"), &head, &planned)
            .await
            .unwrap();
        assert_eq!((purged.messages, purged.foreign), (1, 0));
        // And the key, once that is what is shown.
        let planned = world.admin.purge(&log("x"), &head).await.unwrap();
        let purged = world
            .admin
            .purge_planned(&log("x"), &head, &planned)
            .await
            .unwrap();
        assert_eq!((purged.messages, purged.foreign), (0, 1));
    });
    assert_eq!(left(&world), [2, 3]);
    assert_eq!(world.doctor(), []);
}

#[test]
fn messages_that_come_after_a_plan_stay() {
    for selection in [Selection::All, Selection::SentBefore(u64::MAX)] {
        let world = waiting(43, &[1, 2, 3]);
        let all = dry(selection);
        let planned = world.run(async { world.admin.purge(&log("x"), &all).await.unwrap() });
        assert_eq!(planned.messages, 3);
        push(&world, "x", &[4, 5]);
        let purged = world.run(async {
            let admin = &world.admin;
            admin
                .purge(&log("x"), &Purge::new(Selection::Head))
                .await
                .unwrap();
            admin
                .purge_planned(&log("x"), &all, &planned)
                .await
                .unwrap()
        });
        assert_eq!(purged.messages, 2);
        assert_eq!(left(&world), [4, 5]);
        assert_eq!(world.doctor(), []);
    }
}

/// Put back out of a lock, it stands among those that were shown.
#[test]
fn a_message_that_comes_to_stand_among_those_shown_stays() {
    let world = World::new(44);
    let node = world.serve("a", true, Poison::DeadLetter);
    world.run(async {
        reference(&node, "x").cast(Slow(7)).await.unwrap();
        world.sim.env().sleep(secs(2)).await;
        assert!(world.admin.lock(&log("x")).await.unwrap().is_some());
        node.courier()
            .cast(vec![put("x", 1), put("x", 2)])
            .await
            .unwrap();
        let all = dry(Selection::All);
        let planned = world.admin.purge(&log("x"), &all).await.unwrap();
        assert_eq!(planned.messages, 2);
        world.admin.pause(&log("x"), "").await.unwrap();
        world
            .admin
            .break_lock(&log("x"), Then::Retry, false)
            .await
            .unwrap();
        let purged = world
            .admin
            .purge_planned(&log("x"), &all, &planned)
            .await
            .unwrap();
        assert_eq!(purged.messages, 2);
    });
    assert_eq!(left(&world), [7]);
}

#[test]
fn of_more_messages_than_are_named_those_are_purged_that_stood_there() {
    let world = World::new(45);
    for batch in 0..11 {
        push(&world, "x", &vec![batch; 1_000]);
    }
    let all = dry(Selection::All);
    let planned = world.run(async { world.admin.purge(&log("x"), &all).await.unwrap() });
    assert_eq!(planned.messages, 11_000);
    push(&world, "x", &[99]);
    let purged = world.run(async {
        let x = log("x");
        let purged = world.admin.purge_planned(&x, &all, &planned);
        purged.await.unwrap()
    });
    assert_eq!(purged.messages, 11_000);
    assert_eq!(left(&world), [99]);
}

#[test]
fn a_letter_that_came_after_a_plan_stays_although_its_message_is_older() {
    for retry in [true, false] {
        let world = World::new(46);
        push(&world, "older", &[13]);
        world.run(async { world.admin.pause(&log("older"), "").await.unwrap() });
        let node = world.serve("a", true, Poison::DeadLetter);
        world.run(async {
            reference(&node, "x").call(Put(13)).await.unwrap_err();
            let (admin, all) = (&world.admin, DeadFilter::default());
            let planned = match retry {
                true => admin.retry_dead(&all, true).await.unwrap(),
                false => admin.purge_dead(&all, true).await.unwrap(),
            };
            assert_eq!(planned.letters, 1);
            admin.resume(&log("older")).await.unwrap();
            world.sim.env().sleep(secs(20)).await;
            assert_eq!(
                admin
                    .instance(&log("older"))
                    .await
                    .unwrap()
                    .dead_letters
                    .count,
                1
            );
            // So that what is retried stays where it is put.
            admin.pause(&log("x"), "").await.unwrap();
            let disposed = match retry {
                true => admin.retry_dead_planned(&all, &planned).await.unwrap(),
                false => admin.purge_dead_planned(&all, &planned).await.unwrap(),
            };
            assert_eq!(disposed.letters, 1);
            assert_eq!(
                admin
                    .instance(&log("older"))
                    .await
                    .unwrap()
                    .dead_letters
                    .count,
                1
            );
            let gone = match retry {
                true => admin.retry_dead_planned(&all, &planned).await,
                false => admin.purge_dead_planned(&all, &planned).await,
            };
            assert_eq!(gone.unwrap_err().kind(), AdminErrorKind::Refused);
            let x = admin.instance(&log("x")).await.unwrap();
            assert_eq!(x.length, u64::from(retry));
        });
        world.stop(&node);
    }
}

#[test]
fn a_lock_that_somebody_else_has_taken_is_not_broken_for_the_one_shown() {
    let world = World::new(47);
    let node = world.serve("a", true, Poison::DeadLetter);
    world.run(async {
        reference(&node, "x").cast(Slow(7)).await.unwrap();
        world.sim.env().sleep(secs(2)).await;
    });
    let planned = world.run(async {
        let x = log("x");
        let planned = world.admin.break_lock(&x, Then::Discard, true);
        planned.await.unwrap()
    });
    world.stop(&node);
    let other = world.serve("b", true, Poison::DeadLetter);
    world.sleep(secs(60));
    world.run(async {
        let admin = &world.admin;
        let held = admin.lock(&log("x")).await.unwrap().unwrap();
        assert_ne!(held.token, planned.lock.as_ref().unwrap().token);
        let refused = admin
            .break_lock_planned(&log("x"), Then::Discard, &planned)
            .await;
        assert_eq!(refused.unwrap_err().kind(), AdminErrorKind::Refused);
        assert_eq!(
            admin.lock(&log("x")).await.unwrap().unwrap().token,
            held.token
        );
        // Renewals change nothing.
        let planned = admin
            .break_lock(&log("x"), Then::Discard, true)
            .await
            .unwrap();
        world.sim.env().sleep(secs(15)).await;
        admin
            .break_lock_planned(&log("x"), Then::Discard, &planned)
            .await
            .unwrap();
        assert!(admin.lock(&log("x")).await.unwrap().is_none());
    });
    world.stop(&other);
}

#[test]
fn a_field_that_has_changed_is_not_set_for_what_was_shown() {
    let world = World::new(48);
    let node = world.serve("a", true, Poison::DeadLetter);
    world.run(async {
        reference(&node, "x").call(Put(1)).await.unwrap();
        let admin = &world.admin;
        let dry_run = SetOptions {
            dry_run: true,
            ..SetOptions::default()
        };
        let options = SetOptions::default();
        let value = |json| Value::from_json(json).unwrap();
        let edits = [
            (Path::root().child("limit"), Edit::Set(value("5"))),
            (Path::root().child("entries"), Edit::Append(value("6"))),
            (Path::root().child("seen").child("n1"), Edit::Remove),
        ];
        for (path, edit) in &edits {
            let planned = admin.edit(&log("x"), path, edit, dry_run).await.unwrap();
            // Other fields may change.
            admin
                .set(
                    &log("x"),
                    &Path::root().child("name"),
                    &value(r#""new""#),
                    options,
                )
                .await
                .unwrap();
            reference(&node, "x").call(Put(1)).await.unwrap();
            if path == &edits[0].0 {
                admin
                    .set(&log("x"), path, &value("77"), options)
                    .await
                    .unwrap();
            }
            let refused = admin
                .edit_planned(&log("x"), path, edit, options, &planned)
                .await;
            assert_eq!(
                refused.unwrap_err().kind(),
                AdminErrorKind::Refused,
                "{path}"
            );
            let planned = admin.edit(&log("x"), path, edit, dry_run).await.unwrap();
            let edited = admin
                .edit_planned(&log("x"), path, edit, options, &planned)
                .await;
            assert_eq!(edited.unwrap().before, planned.before);
        }
    });
    world.stop(&node);
}

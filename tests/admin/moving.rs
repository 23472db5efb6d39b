//! From one store to another.

use crate::{All, Put, World, log, put, reference, secs};
use abide::Poison;
use abide::admin::{
    Admin, AdminError, AdminErrorKind, DeadFilter, ImportOptions, Imported, Purge, Record, Scope,
    Selection, SetOptions,
};
use abide::codec::{Path, Value};
use abide::durable::keys::Lane;

async fn export(admin: &Admin, scope: Scope) -> Vec<String> {
    let mut export = admin.export(scope);
    let mut lines = Vec::new();
    while let Some(records) = export.next().await.unwrap() {
        lines.extend(records.iter().map(|record| record.to_line().unwrap()));
    }
    assert_eq!(export.take_damaged(), []);
    lines
}

async fn import(
    admin: &Admin,
    lines: &[String],
    options: ImportOptions,
) -> Result<Imported, AdminError> {
    let mut import = admin.import(options);
    for line in lines {
        import.push(Record::from_line(line)?).await?;
    }
    import.finish().await
}

/// Exports with something done between the first records of an instance and the rest.
async fn export_beside(
    admin: &Admin,
    id: &str,
    meanwhile: impl AsyncFnOnce(),
) -> Result<Vec<String>, AdminError> {
    let mut export = admin.export(Scope::Instance(log(id)));
    let mut meanwhile = Some(meanwhile);
    let mut lines = Vec::new();
    while let Some(records) = export.next().await? {
        lines.extend(records.iter().map(|record| record.to_line().unwrap()));
        if lines.len() > 40
            && let Some(meanwhile) = meanwhile.take()
        {
            meanwhile().await;
        }
    }
    assert!(meanwhile.is_none());
    Ok(lines)
}

/// A namespace with states, dead letters, messages in order, and pauses.
fn lived_in(seed: u64) -> World {
    let world = World::new(seed);
    let node = world.serve("a", true, Poison::DeadLetter);
    world.run(async {
        for id in ["x", "y", "z"] {
            reference(&node, id).call(Put(1)).await.unwrap();
            node.courier().cast(vec![put(id, 13)]).await.unwrap();
        }
        world.sim.env().sleep(secs(30)).await;
    });
    world.stop(&node);
    let sender = world.sender();
    world.run(async {
        let batch = (100..1_700).map(|number| put("x", number % 900));
        sender.courier().cast(batch.collect()).await.unwrap();
        sender.courier().cast(vec![put("y", 5)]).await.unwrap();
        world.admin.pause(&log("y"), "why").await.unwrap();
        world.admin.pause_kind("other", "because").await.unwrap();
    });
    world.stop(&sender);
    world
}

#[test]
fn an_export_is_imported_elsewhere_and_the_application_goes_on_there() {
    let old = lived_in(21);
    assert_eq!(old.doctor(), []);
    let lines = old.run(export(&old.admin, Scope::Namespace));
    let new = World::new(22);
    let imported = new
        .run(import(&new.admin, &lines, ImportOptions::default()))
        .unwrap();
    assert_eq!((imported.instances, imported.messages), (3, 1_604));
    assert_eq!(new.doctor(), []);
    let again = new.run(import(&new.admin, &lines, ImportOptions::default()));
    assert_eq!(again.unwrap_err().kind(), AdminErrorKind::Refused);
    let into = ImportOptions {
        into_non_empty: true,
    };
    let again = new.run(import(&new.admin, &lines, into));
    assert_eq!(again.unwrap_err().kind(), AdminErrorKind::Refused);
    let node = new.serve("a", true, Poison::DeadLetter);
    new.sleep(secs(60));
    new.run(async {
        let entries = reference(&node, "x").query(All).await.unwrap();
        let expected: Vec<u64> = [1]
            .into_iter()
            .chain((100..1_700).map(|of| of % 900).filter(|of| *of != 13))
            .collect();
        assert_eq!(entries, expected);
        let y = new.admin.instance(&log("y")).await.unwrap();
        assert_eq!((y.length, y.paused.unwrap().reason.as_str()), (1, "why"));
        assert_eq!(y.dead_letters.count, 1);
        assert_eq!(
            new.admin.paused_kinds().await.unwrap().0[0].pause.reason,
            "because"
        );
        new.admin.resume(&log("y")).await.unwrap();
        new.sim.env().sleep(secs(1)).await;
        assert_eq!(reference(&node, "y").query(All).await.unwrap(), [1, 5]);
    });
    assert_eq!(new.doctor(), []);
}

#[test]
fn an_import_that_was_interrupted_anywhere_goes_on_and_takes_each_record_once() {
    let old = lived_in(23);
    let lines = old.run(export(&old.admin, Scope::Kind("log".to_owned())));
    for cut in [1, 2, 700, 1_100, lines.len() - 1] {
        let new = World::new(24);
        let cut_off = new.run(import(&new.admin, &lines[..cut], ImportOptions::default()));
        assert_eq!(cut_off.unwrap_err().kind(), AdminErrorKind::Refused);
        let imported = new
            .run(import(&new.admin, &lines, ImportOptions::default()))
            .unwrap();
        assert_eq!(imported.records, lines.len() as u64);
        assert_eq!(imported.resumed > 0, cut > 1_000);
        assert_eq!(new.doctor(), []);
        let copy = new.run(export(&new.admin, Scope::Kind("log".to_owned())));
        // All but the header.
        assert_eq!(copy[1..], lines[1..]);
    }
}

#[test]
fn an_import_that_will_not_go_on_is_abandoned_and_another_one_begins() {
    let old = lived_in(31);
    let lines = old.run(export(&old.admin, Scope::Namespace));
    let new = World::new(32);
    let into = ImportOptions {
        into_non_empty: true,
    };
    let kind = |of: Result<Imported, AdminError>| of.unwrap_err().kind();
    new.run(async {
        assert_eq!(new.admin.unfinished_import().await.unwrap(), None);
        import(&new.admin, &lines[..1_100], into).await.unwrap_err();
    });
    // The stream of a second export is another one, though it says the same.
    let second = old.run(export(&old.admin, Scope::Namespace));
    new.run(async {
        assert_eq!(
            kind(import(&new.admin, &second, into).await),
            AdminErrorKind::Refused
        );
        let found = new.admin.unfinished_import().await.unwrap().unwrap();
        let progress = found.progress.clone().unwrap();
        assert!(progress.records > 1_000);
        assert_eq!(progress.within, Some(log("x")));
        let mut going_on = new.admin.import(into);
        for line in &lines {
            going_on
                .push(Record::from_line(line).unwrap())
                .await
                .unwrap();
        }
        new.admin.abandon_import(&found).await.unwrap();
        // Whoever was at it finds its record gone.
        assert_eq!(kind(going_on.finish().await), AdminErrorKind::Refused);
        let gone = new.admin.abandon_import(&found).await.unwrap_err();
        assert_eq!(gone.kind(), AdminErrorKind::NotFound);
        // What was imported stays, and the part of an instance waits for its end.
        let x = new.admin.instance(&log("x")).await.unwrap();
        assert!(x.paused.is_some() && x.length > 900);
        assert_eq!(
            kind(import(&new.admin, &second, into).await),
            AdminErrorKind::Refused
        );
        for id in ["x", "y", "z"] {
            new.admin.kill(&log(id)).await.unwrap();
        }
        let imported = import(&new.admin, &second, into).await.unwrap();
        assert_eq!((imported.instances, imported.resumed), (3, 0));
    });
    assert_eq!(new.doctor(), []);
}

#[test]
fn an_import_is_not_abandoned_if_it_went_on_since_it_was_found() {
    let old = lived_in(33);
    let sender = old.sender();
    old.run(async {
        let batch = (0..1_000).map(|number| put("x", number));
        sender.courier().cast(batch.collect()).await.unwrap();
    });
    let lines = old.run(export(&old.admin, Scope::Namespace));
    let new = World::new(34);
    new.run(async {
        let options = ImportOptions::default();
        import(&new.admin, &lines[..1_100], options)
            .await
            .unwrap_err();
        let found = new.admin.unfinished_import().await.unwrap().unwrap();
        import(&new.admin, &lines[..2_200], options)
            .await
            .unwrap_err();
        let refused = new.admin.abandon_import(&found).await.unwrap_err();
        assert_eq!(refused.kind(), AdminErrorKind::Refused);
        import(&new.admin, &lines, options).await.unwrap();
    });
    assert_eq!(new.doctor(), []);
}

#[test]
fn the_record_of_an_import_that_cannot_be_read_is_abandoned_too() {
    let old = lived_in(35);
    let lines = old.run(export(&old.admin, Scope::Instance(log("y"))));
    let new = World::new(36);
    let key = new.admin.namespace().keys().import();
    new.plant(&[(&key, b"\xffjunk")]);
    new.run(async {
        let damaged = import(&new.admin, &lines, ImportOptions::default()).await;
        assert_eq!(damaged.unwrap_err().kind(), AdminErrorKind::Corrupt);
        let found = new.admin.unfinished_import().await.unwrap().unwrap();
        assert_eq!(found.progress.as_ref().unwrap_err().key, key);
        new.admin.abandon_import(&found).await.unwrap();
        import(&new.admin, &lines, ImportOptions::default())
            .await
            .unwrap();
    });
    assert_eq!(new.doctor(), []);
}

#[test]
fn an_export_that_was_interrupted_anywhere_goes_on_behind_what_is_whole() {
    let old = lived_in(29);
    let whole = old.run(export(&old.admin, Scope::Namespace));
    for cut in [0, 1, 2, 3, 40, 900, whole.len() - 1, whole.len()] {
        let mut going_on = old.admin.export(Scope::Namespace);
        let mut kept = 0;
        for (number, line) in whole[..cut].iter().enumerate() {
            if going_on.written(&Record::from_line(line).unwrap()).unwrap() {
                kept = number + 1;
            }
        }
        let mut lines = whole[..kept].to_vec();
        old.run(async {
            while let Some(records) = going_on.next().await.unwrap() {
                lines.extend(records.iter().map(|record| record.to_line().unwrap()));
            }
        });
        // All but the header, which names the export.
        assert_eq!(lines[1..], whole[1..], "cut at {cut}");
        let new = World::new(30);
        new.run(import(&new.admin, &lines, ImportOptions::default()))
            .unwrap();
    }
    // Not that of something else.
    let mut other = old.admin.export(Scope::Instance(log("x")));
    let refused = other.written(&Record::from_line(&whole[0]).unwrap());
    assert_eq!(refused.unwrap_err().kind(), AdminErrorKind::Refused);
}

#[test]
fn one_instance_is_exported_alone() {
    let old = lived_in(25);
    let lines = old.run(export(&old.admin, Scope::Instance(log("y"))));
    let new = World::new(26);
    let imported = new
        .run(import(&new.admin, &lines, ImportOptions::default()))
        .unwrap();
    assert_eq!((imported.instances, imported.messages), (1, 2));
    assert_eq!(new.doctor(), []);
    let missing = old.run(async {
        let mut export = old.admin.export(Scope::Instance(log("nobody")));
        export.next().await.unwrap();
        export.next().await.unwrap_err()
    });
    assert_eq!(missing.kind(), AdminErrorKind::NotFound);
}

#[test]
fn a_hostile_stream_is_refused_and_nothing_panics() {
    let old = lived_in(27);
    let lines = old.run(export(&old.admin, Scope::Instance(log("y"))));
    for at in 0..lines.len() {
        for damage in [
            "",
            "{}",
            "[1]",
            r#"{"leaf":{"path":{"$bytes":"AAAA"},"bytes":{"$bytes":""}}}"#,
            r#"{"instance":{"kind":"","id":"","created_ms":null,"schema":null}}"#,
            r#"{"end":{"records":3}}"#,
        ] {
            let mut lines = lines.clone();
            lines[at] = damage.to_owned();
            let new = World::new(28);
            assert!(
                new.run(import(&new.admin, &lines, ImportOptions::default()))
                    .is_err()
            );
        }
        let half = &lines[at][..lines[at].len() / 2];
        assert!(Record::from_line(half).is_err());
    }
}

/// Messages from this number on, in `x`, which nobody works on.
fn long_mailbox(seed: u64, numbers: std::ops::Range<u64>) -> World {
    let world = World::new(seed);
    let sender = world.sender();
    world.run(async {
        for number in numbers {
            sender.courier().cast(vec![put("x", number)]).await.unwrap();
        }
    });
    world.stop(&sender);
    world
}

fn to_dead(selection: Selection) -> Purge {
    Purge {
        to_dead: true,
        ..Purge::new(selection)
    }
}

/// Else it would be exported twice: as the message that it was, and as the letter that it is.
#[test]
fn an_export_ends_if_a_message_that_was_exported_becomes_a_dead_letter() {
    let world = long_mailbox(61, 0..1_500);
    world.run(async {
        let admin = &world.admin;
        let page = admin.mailbox(&log("x"), Lane::Ordinary, None, 10).await;
        // Not the head, which shows by itself that the instance went on.
        let fifth = page.unwrap().items[4].stamp;
        let ended = export_beside(admin, "x", async || {
            let purge = to_dead(Selection::Stamp(fifth));
            let purged = admin.purge(&log("x"), &purge).await.unwrap();
            assert_eq!(purged.messages, 1);
        });
        let ended = ended.await.map(|lines| lines.len());
        assert_eq!(ended.unwrap_err().kind(), AdminErrorKind::Refused);
    });
}

/// Else it would be lost: it stands where the export has been already.
#[test]
fn an_export_ends_if_a_dead_letter_is_retried_behind_what_was_exported() {
    let world = long_mailbox(62, 0..1_500);
    let sender = world.sender();
    world.run(async {
        let admin = &world.admin;
        let purge = to_dead(Selection::All);
        admin.purge(&log("x"), &purge).await.unwrap();
        // They stand at the head before and after.
        let waiting = vec![put("x", 1), put("x", 2)];
        sender.courier().cast(waiting).await.unwrap();
        let ended = export_beside(admin, "x", async || {
            let retried = admin.retry_dead(&DeadFilter::default(), false).await;
            assert_eq!(retried.unwrap().letters, 1_500);
        });
        let ended = ended.await.map(|lines| lines.len());
        assert_eq!(ended.unwrap_err().kind(), AdminErrorKind::Refused);
    });
}

#[test]
fn messages_that_come_while_a_long_instance_is_exported_do_not_end_the_export() {
    let world = long_mailbox(63, 0..2_500);
    let sender = world.sender();
    let lines = world.run(async {
        let exported = export_beside(&world.admin, "x", async || {
            sender.courier().cast(vec![put("x", 9)]).await.unwrap();
        });
        exported.await.unwrap()
    });
    let new = World::new(64);
    let imported = new.run(import(&new.admin, &lines, ImportOptions::default()));
    // The export had not come to the end of the mailbox yet.
    assert_eq!(imported.unwrap().messages, 2_501);
}

/// The line of a leaf of a state.
fn leaf(path: &Path, value: &Value) -> String {
    let text = |text: &str| Value::Text(text.to_owned());
    let payload = value.to_payload().unwrap().to_vec();
    let fields = [
        (text("path"), Value::Bytes(path.as_tuple().to_vec())),
        (text("bytes"), Value::Bytes(payload)),
    ];
    let leaf = [(text("leaf"), Value::Map(fields.to_vec()))];
    Value::Map(leaf.to_vec()).to_json().unwrap()
}

/// A state of more than one transaction's worth of leaves, which are several rows each.
#[test]
fn a_large_state_is_exported_in_pages_of_one_version() {
    let old = World::new(65);
    let node = old.serve("a", true, Poison::DeadLetter);
    let path = |name: &str| Path::root().child("seen").child(name);
    old.run(async { reference(&node, "x").call(Put(1)).await.unwrap() });
    old.stop(&node);
    let mut lines = old.run(export(&old.admin, Scope::Instance(log("x"))));
    let large = Value::Text("n".repeat(100_000));
    let place = lines.len() - 2;
    let leaves = (0..110).map(|number| leaf(&path(&format!("large{number}")), &large));
    lines.splice(place..place, leaves);
    let count = lines.len() - 1;
    *lines.last_mut().unwrap() = format!(r#"{{"end":{{"records":{count}}}}}"#);
    let world = World::new(67);
    world
        .run(import(&world.admin, &lines, ImportOptions::default()))
        .unwrap();
    let admin = &world.admin;
    let whole = world.run(async { export_beside(admin, "x", async || {}).await.unwrap() });
    assert_eq!(whole.len(), lines.len());
    let new = World::new(66);
    new.run(import(&new.admin, &whole, ImportOptions::default()))
        .unwrap();
    assert_eq!(new.doctor(), []);
    let copy = new.run(async { new.admin.state(&log("x")).await.unwrap() });
    world.run(async {
        assert_eq!(copy.leaves, admin.state(&log("x")).await.unwrap().leaves);
        let ended = export_beside(admin, "x", async || {
            let (limit, options) = (Path::root().child("limit"), SetOptions::default());
            let value = Value::from_json("5").unwrap();
            admin.set(&log("x"), &limit, &value, options).await.unwrap();
        });
        let ended = ended.await.map(|lines| lines.len());
        assert_eq!(ended.unwrap_err().kind(), AdminErrorKind::Refused);
        // Of so much a part can be read alone.
        let part = admin.state_at(&log("x"), &path("n1")).await.unwrap();
        assert_eq!(part.leaves.iter().count(), 1);
        let nothing = admin.state_at(&log("x"), &path("n2")).await.unwrap();
        assert!(nothing.leaves.is_empty() && nothing.schema.is_some());
    });
}

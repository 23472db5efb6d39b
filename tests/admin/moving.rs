//! From one store to another.

use crate::{All, Put, World, log, put, reference, secs};
use abide::Poison;
use abide::admin::{Admin, AdminError, AdminErrorKind, ImportOptions, Imported, Record, Scope};

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

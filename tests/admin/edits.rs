//! Edits of a state while a node works on it: what the server could have written is made, and
//! everything else is refused.

use crate::{All, Put, World, log, reference};
use abide::Poison;
use abide::admin::{AdminError, AdminErrorKind, Edit, Edited, SetOptions, parse_path};
use abide::codec::Value;

async fn edit(world: &World, path: &str, edit: Edit) -> Result<Edited, AdminError> {
    let path = parse_path(path).unwrap();
    let (admin, of) = (&world.admin, log("x"));
    // A dry run says the same, and changes nothing.
    let before = admin.state(&of).await.unwrap().leaves;
    let dry_run = SetOptions {
        dry_run: true,
        ..SetOptions::default()
    };
    let planned = admin.edit(&of, &path, &edit, dry_run).await;
    assert_eq!(admin.state(&of).await.unwrap().leaves, before);
    let edited = admin.edit(&of, &path, &edit, SetOptions::default()).await;
    let after = |edited: &Result<Edited, AdminError>| match edited {
        Ok(edited) => Ok((edited.before.clone(), edited.after.clone())),
        Err(error) => Err(error.kind()),
    };
    assert_eq!(after(&planned), after(&edited), "{path}");
    edited
}

fn json(text: &str) -> Value {
    Value::from_json(text).unwrap()
}

#[test]
fn entries_and_items_are_added_and_removed_and_the_server_reads_them() {
    let world = World::new(31);
    let node = world.serve("a", true, Poison::DeadLetter);
    world.run(async {
        let x = reference(&node, "x");
        for number in [1, 2] {
            x.call(Put(number)).await.unwrap();
        }
        let set = |text: &str| Edit::Set(json(text));
        for (path, of) in [
            ("seen.n7", set("3")),
            ("seen[\"a b\"]", set("4")),
            ("shelves.s9", set(r#"{"label":"nine","count":9}"#)),
            ("shelves.s9.count", set("10")),
            ("entries", Edit::Append(json("5"))),
            ("shelves.s1", Edit::Remove),
            ("seen.n1", Edit::Remove),
        ] {
            let edited = edit(&world, path, of.clone()).await.unwrap();
            assert_eq!(edited.after.is_none(), matches!(of, Edit::Remove), "{path}");
        }
        // An item of a list that is stored item by item lies under a path of its own.
        let state = world.admin.state(&log("x")).await.unwrap();
        let mut paths = state.leaves.iter().map(|(path, _)| path.to_string());
        let row = paths.find(|path| path.ends_with(".number")).unwrap();
        let row = row.strip_suffix(".number").unwrap().to_owned();
        edit(&world, &row, Edit::Remove).await.unwrap();

        x.call(Put(3)).await.unwrap();
        assert_eq!(x.query(All).await.unwrap(), [1, 2, 5, 3]);
        let state = world.admin.state(&log("x")).await.unwrap();
        let read: crate::State =
            serde_json::from_str(&state.value().unwrap().to_json().unwrap()).unwrap();
        let seen: Vec<(&str, u64)> = read.seen.iter().map(|(key, of)| (&key[..], *of)).collect();
        assert_eq!(seen, [("a b", 4), ("n2", 1), ("n3", 1), ("n7", 3)]);
        let shelves: Vec<(&str, u64)> = read
            .shelves
            .iter()
            .map(|(key, of)| (&key[..], of.count))
            .collect();
        assert_eq!(shelves, [("s2", 2), ("s3", 3), ("s9", 10)]);
        let rows: Vec<u64> = read.rows.iter().map(|row| row.number).collect();
        assert_eq!(rows, [2, 3]);
    });
    assert_eq!(world.doctor(), []);
}

#[test]
fn what_the_server_could_not_have_written_is_refused() {
    use AdminErrorKind::{NotFound, Refused};
    let world = World::new(32);
    let node = world.serve("a", true, Poison::DeadLetter);
    world.run(async {
        let x = reference(&node, "x");
        x.call(Put(1)).await.unwrap();
        let set = |text: &str| Edit::Set(json(text));
        for (path, of, kind) in [
            ("limit", set(r#""much""#), Refused),
            ("limit", set("null"), Refused),
            ("seen", set("{}"), Refused),
            ("seen.n9", set(r#""text""#), Refused),
            ("seen[4]", set("4"), Refused),
            ("shelves.s9", set(r#"{"count":9}"#), Refused),
            (
                "shelves.s9",
                set(r#"{"count":9,"label":"a","more":1}"#),
                Refused,
            ),
            ("shelves.s9", set(r#"{"count":"9","label":"a"}"#), Refused),
            ("shelves.s1", set(r#"{"count":9,"label":"a"}"#), Refused),
            ("shelves.s1.more", set("1"), NotFound),
            ("rows.new", set(r#"{"id":"new","number":1}"#), Refused),
            ("nothing", set("1"), NotFound),
            ("entries", Edit::Append(json(r#""text""#)), Refused),
            ("limit", Edit::Append(json("1")), Refused),
            (
                "rows",
                Edit::Append(json(r#"{"id":"new","number":1}"#)),
                Refused,
            ),
            ("limit", Edit::Remove, Refused),
            ("", Edit::Remove, Refused),
            ("shelves.s1.count", Edit::Remove, Refused),
            ("seen.n9", Edit::Remove, NotFound),
        ] {
            let refused = edit(&world, path, of.clone()).await;
            let refused = refused.expect_err(&format!("{path} {of:?}"));
            assert_eq!(refused.kind(), kind, "{path} {of:?}: {refused}");
        }
        x.call(Put(2)).await.unwrap();
        assert_eq!(x.query(All).await.unwrap(), [1, 2]);
    });
    assert_eq!(world.doctor(), []);
}

//! An older version of a state over a newer one, and back: no field is lost.

use super::{State, fresh, last_name, round_trips, turn};
use abide::codec::{CodecErrorKind, Leaves, decode};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;

/// Lets the older version change what the newer one stored; answers what the newer one then reads.
pub(super) fn old_over_new<Old: State, New: State + PartialEq + Debug>(
    new: &New,
    change: impl FnOnce(&mut Old),
) -> New {
    let mut stored = fresh(new);
    turn::<Old>(&mut stored, |_| {});
    assert_eq!(decode::<New>(&stored).unwrap().value, *new, "touched only");
    turn::<Old>(&mut stored, change);
    // And once more, from what was written: what is kept must be kept for good.
    turn::<Old>(&mut stored, |_| {});
    decode::<New>(&stored).unwrap().value
}

pub(super) mod old {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Part {
        pub(crate) name: String,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) enum Choice {
        A { part: Part },
        B(Part, u8),
        C(Part),
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Row {
        pub(crate) id: String,
        pub(crate) part: Part,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Root {
        pub(crate) n: u8,
        pub(crate) part: Part,
        pub(crate) map: BTreeMap<String, Part>,
        pub(crate) rows: Vec<Row>,
        pub(crate) option: Option<Part>,
        pub(crate) choice: Choice,
        pub(crate) plain: Vec<Part>,
        pub(crate) odd: BTreeMap<bool, Part>,
    }
}

pub(super) mod new {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Part {
        pub(crate) name: String,
        pub(crate) extra: BTreeMap<String, Vec<Row0>>,
        pub(crate) note: Option<String>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Row0 {
        pub(crate) id: String,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) enum Choice {
        A { part: Part, more: u8 },
        B(Part, u8),
        C(Part),
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Row {
        pub(crate) id: String,
        pub(crate) part: Part,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Root {
        pub(crate) n: u8,
        pub(crate) a_new_first_field: Part,
        pub(crate) part: Part,
        pub(crate) map: BTreeMap<String, Part>,
        pub(crate) rows: Vec<Row>,
        pub(crate) option: Option<Part>,
        pub(crate) choice: Choice,
        pub(crate) plain: Vec<Part>,
        pub(crate) odd: BTreeMap<bool, Part>,
    }
}

pub(super) fn part(name: &str) -> new::Part {
    let row = |id: &str| new::Row0 { id: id.into() };
    new::Part {
        name: name.into(),
        extra: BTreeMap::from([
            ("ids".into(), vec![row("z"), row("a")]),
            ("same".into(), vec![row("x"), row("x")]),
        ]),
        note: Some(format!("note of {name}")),
    }
}

fn root() -> new::Root {
    let row = |id: &str| new::Row {
        id: id.into(),
        part: part(id),
    };
    new::Root {
        n: 1,
        a_new_first_field: part("first"),
        part: part("part"),
        map: BTreeMap::from([("k".into(), part("k")), ("l".into(), part("l"))]),
        rows: vec![row("1"), row("2")],
        option: Some(part("option")),
        choice: new::Choice::A {
            part: part("choice"),
            more: 7,
        },
        plain: vec![part("p0"), part("p1"), part("p2")],
        odd: BTreeMap::from([(true, part("true"))]),
    }
}

fn check(change_old: impl FnOnce(&mut old::Root), change_new: impl FnOnce(&mut new::Root)) {
    let mut expected = root();
    change_new(&mut expected);
    assert_eq!(old_over_new(&root(), change_old), expected);
}

#[test]
fn an_older_state_deployed_over_a_newer_one_and_back_loses_no_field() {
    check(|s| s.n = 2, |s| s.n = 2);
    check(|s| s.part.name = "x".into(), |s| s.part.name = "x".into());
    check(
        |s| s.map.get_mut("k").unwrap().name = "x".into(),
        |s| s.map.get_mut("k").unwrap().name = "x".into(),
    );
    check(
        |s| s.rows[1].part.name = "x".into(),
        |s| s.rows[1].part.name = "x".into(),
    );
    check(
        |s| s.option.as_mut().unwrap().name = "x".into(),
        |s| s.option.as_mut().unwrap().name = "x".into(),
    );
}

#[test]
fn foreign_fields_follow_an_item_that_moves() {
    check(|s| s.rows.swap(0, 1), |s| s.rows.swap(0, 1));
}

#[test]
fn foreign_fields_inside_one_leaf_are_kept() {
    check(
        |s| match &mut s.choice {
            old::Choice::A { part } => part.name = "x".into(),
            _ => unreachable!(),
        },
        |s| match &mut s.choice {
            new::Choice::A { part, .. } => part.name = "x".into(),
            _ => unreachable!(),
        },
    );
    check(
        |s| s.odd.get_mut(&true).unwrap().name = "x".into(),
        |s| s.odd.get_mut(&true).unwrap().name = "x".into(),
    );
    let tuple = |name: &str| (part(name), 1_u8, part("other"));
    let read = old_over_new::<(old::Part, u8, old::Part), _>(&tuple("a"), |t| {
        t.0.name = "b".into();
        t.1 = 2;
    });
    assert_eq!(
        read.0,
        new::Part {
            name: "b".into(),
            ..part("a")
        }
    );
    assert_eq!(read.2, part("other"));
    let choice = old_over_new::<old::Choice, _>(&new::Choice::B(part("b"), 1), |choice| {
        if let old::Choice::B(_, n) = choice {
            *n = 2;
        }
    });
    assert_eq!(choice, new::Choice::B(part("b"), 2));
}

#[test]
fn foreign_fields_in_a_list_without_ids_stay_with_the_items_that_did_not_change() {
    let plain = |change: fn(&mut Vec<old::Part>)| {
        let list = vec![part("0"), part("1"), part("2")];
        let mut stored = fresh(&list);
        turn::<Vec<old::Part>>(&mut stored, change);
        decode::<Vec<serde_json::Value>>(&stored)
            .unwrap()
            .value
            .iter()
            .map(|item| {
                (
                    item["name"].as_str().unwrap().to_owned(),
                    item["note"].is_string(),
                )
            })
            .collect::<Vec<_>>()
    };
    let is = |name: &str, kept| (name.to_owned(), kept);
    assert_eq!(
        plain(|l| l.insert(1, old::Part { name: "n".into() })),
        [is("0", true), is("n", false), is("1", true), is("2", true)]
    );
    assert_eq!(plain(|l| drop(l.remove(0))), [is("1", true), is("2", true)]);
    assert_eq!(
        plain(|l| l[1].name = "n".into()),
        [is("0", true), is("n", false), is("2", true)]
    );
}

/// The notes left in the store: only the newer version writes them.
fn notes(stored: &Leaves) -> usize {
    stored
        .iter()
        .filter(|(path, _)| last_name(path).as_deref() == Some("note"))
        .count()
}

#[test]
fn foreign_fields_go_with_the_entry() {
    type Old = BTreeMap<String, old::Part>;
    let mut stored = fresh(&BTreeMap::from([("k".to_owned(), part("k"))]));
    assert_eq!(notes(&stored), 1);
    turn::<Old>(&mut stored, |map| drop(map.remove("k")));
    assert_eq!(stored, fresh(&Old::new()));
    turn::<Old>(&mut stored, |map| {
        map.insert("k".into(), old::Part { name: "k".into() });
    });
    assert_eq!(notes(&stored), 0);
}

#[test]
fn foreign_fields_go_with_the_item() {
    let row = new::Row {
        id: "a".into(),
        part: part("a"),
    };
    let mut stored = fresh(&vec![row]);
    turn::<Vec<old::Row>>(&mut stored, |rows| rows[0].id = "b".into());
    assert_eq!(notes(&stored), 0);
}

#[test]
fn foreign_fields_go_with_the_option() {
    type Old = BTreeMap<String, Option<old::Part>>;
    let mut stored = fresh(&BTreeMap::from([("k".to_owned(), Some(part("k")))]));
    turn::<Old>(&mut stored, |map| drop(map.insert("k".into(), None)));
    assert_eq!(stored.len(), 2);
}

#[test]
fn foreign_fields_go_with_the_variant() {
    let mut stored = fresh(&new::Choice::A {
        part: part("a"),
        more: 1,
    });
    let c = old::Choice::C(old::Part { name: "c".into() });
    turn::<old::Choice>(&mut stored, |choice| *choice = c.clone());
    assert_eq!(stored, fresh(&c));
}

#[test]
fn foreign_fields_go_with_the_kind_of_the_container() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Any {
        Part(old::Part),
        Number(u8),
        Map(BTreeMap<String, u8>),
    }
    for next in [Any::Number(1), Any::Map(BTreeMap::new())] {
        let mut stored = fresh(&part("a"));
        let expected = fresh(&next);
        turn::<Any>(&mut stored, |any| *any = next);
        assert_eq!(stored, expected);
    }
}

#[test]
fn a_field_read_through_an_alias_is_not_foreign() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Before {
        old_name: u8,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct After {
        #[serde(alias = "old_name")]
        name: u8,
    }
    let mut stored = fresh(&Before { old_name: 1 });
    turn::<After>(&mut stored, |_| {});
    assert_eq!(stored, fresh(&After { name: 1 }));
}

#[test]
fn a_type_that_denies_unknown_fields_refuses_a_newer_state() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        name: String,
    }
    let error = decode::<Strict>(&fresh(&part("a"))).unwrap_err();
    assert_eq!(error.kind(), CodecErrorKind::Mismatch);
    assert_eq!(error.path(), "state.extra");
}

#[test]
fn decode_tells_what_the_type_does_not_know() {
    let ignored = decode::<old::Part>(&fresh(&part("a"))).unwrap().ignored;
    assert_eq!(ignored.paths(), ["state.extra", "state.note"]);
    assert!(
        decode::<new::Part>(&fresh(&part("a")))
            .unwrap()
            .ignored
            .is_empty()
    );
}

#[test]
fn ids_that_a_newer_version_gave_to_items_are_kept() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct With {
        id: String,
        n: u8,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Without {
        n: u8,
    }
    let with = |id: &str, n| With { id: id.into(), n };
    let list = vec![with("b", 1), with("a", 2)];
    let mut stored = fresh(&list);
    assert_eq!(turn::<Vec<Without>>(&mut stored, |_| {}), []);
    turn::<Vec<Without>>(&mut stored, |list| {
        list.remove(0);
    });
    assert_eq!(decode::<Vec<With>>(&stored).unwrap().value, [with("a", 2)]);
}

#[test]
fn fields_are_kept_below_keys_that_are_chars() {
    let map = BTreeMap::from([('x', part("x")), ('y', part("y"))]);
    let mut expected = map.clone();
    expected.get_mut(&'x').unwrap().name = "z".into();
    let read = old_over_new::<BTreeMap<char, old::Part>, _>(&map, |map| {
        map.get_mut(&'x').unwrap().name = "z".into();
    });
    assert_eq!(read, expected);
}

mod kinds {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) enum Status {
        Open,
        Done,
    }
}

#[test]
fn an_enum_in_a_struct_of_the_same_name_is_no_tag_of_it() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Status {
        status: kinds::Status,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Newer {
        status: kinds::Status,
        extra: u8,
    }
    let newer = |status| Newer { status, extra: 7 };
    let read = old_over_new::<Status, _>(&newer(kinds::Status::Open), |value| {
        value.status = kinds::Status::Done;
    });
    assert_eq!(read, newer(kinds::Status::Done));
}

#[test]
fn the_tag_that_a_struct_writes_itself_is_not_foreign() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "type")]
    struct Tagged {
        a: u8,
    }
    round_trips(&Tagged { a: 1 });
    round_trips(&vec![Tagged { a: 1 }]);
    round_trips(&BTreeMap::from([(1, (Tagged { a: 1 }, 2))]));
}

#[test]
fn items_without_ids_are_known_by_what_the_type_would_write() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Old {
        name: String,
        #[serde(default)]
        never_stored: Vec<u8>,
        words: HashSet<String>,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct New {
        name: String,
        words: HashSet<String>,
        note: u8,
    }
    let words = || (0..20).map(|n| n.to_string()).collect();
    let new = |name: &str| New {
        name: name.into(),
        words: words(),
        note: 7,
    };
    let list = vec![new("a"), new("b"), new("c")];
    let mut expected = list.clone();
    expected.remove(1);
    let read = old_over_new::<Vec<Old>, _>(&list, |list| drop(list.remove(1)));
    assert_eq!(read, expected);
}

#[test]
fn foreign_fields_in_a_list_without_ids_move_with_their_items() {
    let list = vec![part("0"), part("1"), part("2"), part("1")];
    let mut expected = list.clone();
    expected.rotate_left(2);
    let read = old_over_new::<Vec<old::Part>, _>(&list, |list| list.rotate_left(2));
    assert_eq!(read, expected);
}

#[test]
fn foreign_fields_of_the_items_of_a_hash_set_are_kept() {
    #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
    struct Old {
        name: String,
        #[serde(default)]
        n: u8,
    }
    #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
    struct New {
        name: String,
        n: u8,
        note: String,
    }
    let new = |n: u8| New {
        name: n.to_string(),
        n,
        note: format!("note of {n}"),
    };
    let set: HashSet<New> = (0..30).map(new).collect();
    let read = old_over_new::<HashSet<Old>, _>(&set, |set| {
        set.retain(|item| item.n < 20);
    });
    assert_eq!(read, (0..20).map(new).collect());
}

//! Which values are sub-paths and which are one leaf, and what a change writes.

use super::{at, fresh, paths, round_trips, touched, turn};
use abide::codec::{Change, Ignored, Leaves, Path, decode, diff, encode};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    id: String,
    text: String,
    done: bool,
}

fn item(id: impl Display) -> Item {
    Item {
        id: id.to_string(),
        text: format!("text of {id}"),
        done: false,
    }
}

fn items(ids: impl IntoIterator<Item = impl Display>) -> Vec<Item> {
    ids.into_iter().map(item).collect()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Board {
    items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Dot,
    Circle { radius: f64 },
}

#[test]
fn each_field_of_a_struct_is_a_leaf() {
    let leaves = round_trips(&item("a"));
    assert_eq!(
        paths(&leaves),
        ["state", "state.done", "state.id", "state.text"]
    );
}

#[test]
fn each_entry_of_a_string_or_integer_keyed_map_is_a_leaf() {
    let names = BTreeMap::from([("a b", 1), ("c", 2)].map(|(k, v)| (k.to_owned(), v)));
    assert_eq!(
        paths(&round_trips(&names)),
        ["state", "state[\"a b\"]", "state.c"]
    );
    let numbers = BTreeMap::from([(i64::MIN, 'a'), (-1, 'b'), (0, 'c'), (300, 'd')]);
    assert_eq!(round_trips(&numbers).len(), 5);
    assert_eq!(round_trips(&BTreeMap::from([(u64::MAX, ())])).len(), 2);
}

#[test]
fn a_string_key_and_an_integer_key_never_collide() {
    #[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Key {
        Number(u64),
        Text(String),
    }
    let both = BTreeMap::from([(Key::Number(1), 'n'), (Key::Text("1".into()), 't')]);
    assert_eq!(round_trips(&both).len(), 3);
}

#[test]
fn each_item_of_a_list_with_distinct_ids_is_a_sub_path() {
    let leaves = round_trips(&Board {
        items: items(["b", "a"]),
    });
    assert!(leaves.get(&at!["items", "a", "text"]).is_some());
    assert_eq!(leaves.len(), 2 + 2 * 4);
}

#[test]
fn sub_paths_nest_in_each_other() {
    type Nested = BTreeMap<String, Vec<BTreeMap<String, serde_json::Value>>>;
    let board = |id: &str| BTreeMap::from([("id".to_owned(), id.into())]);
    let nested: Nested = BTreeMap::from([("x".to_owned(), vec![board("p"), board("q")])]);
    assert!(round_trips(&nested).get(&at!["x", "q", "id"]).is_some());

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Column {
        id: String,
        cards: Vec<Item>,
    }
    let columns = vec![Column {
        id: "todo".into(),
        cards: items(1..4),
    }];
    let leaves = round_trips(&columns);
    assert!(leaves.get(&at!["todo", "cards", "3", "done"]).is_some());
}

#[test]
fn everything_else_is_one_leaf() {
    assert_eq!(round_trips(&7_u8).len(), 1);
    assert_eq!(round_trips(&Shape::Circle { radius: 1.5 }).len(), 1);
    assert_eq!(round_trips(&(1, "x".to_owned(), item("a"))).len(), 1);
    assert_eq!(round_trips(&vec![1, 2, 3]).len(), 1);
    assert_eq!(round_trips(&[item("a"), item("b")]).len(), 1);
    assert_eq!(round_trips(&BTreeMap::from([(true, 1)])).len(), 1);
    assert_eq!(round_trips(&BTreeMap::from([('x', 1)])).len(), 1);
    assert_eq!(round_trips(&BTreeMap::from([((1, 2), 1)])).len(), 1);
}

#[test]
fn a_list_with_duplicate_or_missing_ids_is_one_leaf() {
    assert_eq!(round_trips(&items(["a", "a"])).len(), 1);
    assert_eq!(round_trips(&vec![Some(item("a")), None]).len(), 1);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Numbered {
        id: u32,
    }
    assert_eq!(round_trips(&vec![Numbered { id: 1 }]).len(), 1);
}

#[test]
fn empty_containers_and_absent_ones_differ() {
    type Case = (Option<Vec<Item>>, u8);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Maybe {
        list: Option<Vec<Item>>,
        map: Option<BTreeMap<String, u8>>,
        unit: Option<Empty>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Empty {}
    round_trips(&Maybe {
        list: None,
        map: None,
        unit: None,
    });
    let leaves = round_trips(&Maybe {
        list: Some(vec![]),
        map: Some(BTreeMap::new()),
        unit: Some(Empty {}),
    });
    assert_eq!(leaves.len(), 4);
    let mut kinds: Vec<_> = leaves.iter().map(|(_, bytes)| bytes).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(
        kinds.len(),
        3,
        "a struct, a map and a list have three markers"
    );
    round_trips::<Case>(&(Some(vec![]), 1));
}

#[test]
fn shape_and_not_size_decides() {
    let large = "x".repeat(300_000);
    let value = BTreeMap::from([("k".to_owned(), vec![large; 2])]);
    assert_eq!(round_trips(&value).len(), 2);
}

#[test]
fn one_field_of_a_large_struct_writes_one_key() {
    type Wide = BTreeMap<String, Item>;
    let wide: Wide = (0..200).map(|n| (format!("f{n}"), item(n))).collect();
    #[derive(Serialize, Deserialize)]
    struct Large {
        a: Wide,
        b: Item,
        c: u64,
    }
    let mut stored = fresh(&Large {
        a: wide,
        b: item("b"),
        c: 0,
    });
    assert_eq!(
        touched(&turn::<Large>(&mut stored, |s| s.c = 1)),
        ["state.c"]
    );
    assert_eq!(
        touched(&turn::<Large>(&mut stored, |s| s.b.done = true)),
        ["state.b.done"]
    );
}

#[test]
fn one_entry_of_ten_thousand_writes_one_key() {
    type Map = HashMap<u64, String>;
    let map: Map = (0..10_000).map(|n| (n, n.to_string())).collect();
    let mut stored = fresh(&map);
    let changes = turn::<Map>(&mut stored, |map| {
        map.insert(5_000, "new".into());
    });
    assert_eq!(touched(&changes), ["state[5000]"]);
    let changes = turn::<Map>(&mut stored, |map| {
        map.remove(&77);
    });
    assert_eq!(changes, [Change::Clear(at![77_u64])]);
}

#[test]
fn an_item_inserted_into_a_thousand_writes_only_its_own_keys() {
    for position in [0, 1, 500, 1_000] {
        let mut stored = fresh(&Board {
            items: items(0..1_000),
        });
        let changes = turn::<Board>(&mut stored, |board| {
            board.items.insert(position, item("new"));
        });
        assert_eq!(
            touched(&changes),
            [
                "state.items.new",
                "state.items.new.done",
                "state.items.new.id",
                "state.items.new.text"
            ]
        );
        let board = decode::<Board>(&stored).unwrap().value;
        assert_eq!(board.items[position].id, "new");
    }
}

#[test]
fn a_move_writes_one_key() {
    let mut stored = fresh(&Board {
        items: items(0..1_000),
    });
    for (from, to) in [(0, 999), (999, 0), (10, 500), (500, 501)] {
        let mut expected = decode::<Board>(&stored).unwrap().value;
        let moved = expected.items.remove(from);
        expected.items.insert(to, moved);
        let changes = turn::<Board>(&mut stored, |board| *board = expected.clone());
        assert_eq!(changes.len(), 1, "from {from} to {to}: {changes:?}");
        assert_eq!(decode::<Board>(&stored).unwrap().value, expected);
    }
}

#[test]
fn two_items_swapped_write_two_keys_at_most() {
    let mut stored = fresh(&items(0..100));
    let changes = turn::<Vec<Item>>(&mut stored, |items| items.swap(3, 90));
    assert_eq!(changes.len(), 2);
    let list = decode::<Vec<Item>>(&stored).unwrap().value;
    assert_eq!((list[3].id.as_str(), list[90].id.as_str()), ("90", "3"));
}

#[test]
fn an_item_with_a_new_id_is_another_item() {
    let mut stored = fresh(&items(["a", "b"]));
    let changes = turn::<Vec<Item>>(&mut stored, |items| items[0].id = "c".into());
    assert_eq!(changes.first(), Some(&Change::ClearTree(at!["a"])));
    assert_eq!(changes.len(), 1 + 4);
    assert_eq!(decode::<Vec<Item>>(&stored).unwrap().value[0].id, "c");
}

#[test]
fn a_removed_item_is_one_change() {
    let mut stored = fresh(&items(0..100));
    let changes = turn::<Vec<Item>>(&mut stored, |items| {
        items.remove(50);
    });
    assert_eq!(changes, [Change::ClearTree(at!["50"])]);
}

#[test]
fn a_list_becomes_one_leaf_and_sub_paths_again_with_its_ids() {
    let mut stored = fresh(&items(["a", "b"]));
    let changes = turn::<Vec<Item>>(&mut stored, |items| items[1].id = "a".into());
    assert!(
        matches!(&changes[..], [Change::ClearTree(a), Change::Set(b, _)] if a == b),
        "{changes:?}"
    );
    assert_eq!(stored.len(), 1);
    let changes = turn::<Vec<Item>>(&mut stored, |items| items[1].id = "b".into());
    assert!(
        changes
            .iter()
            .all(|change| matches!(change, Change::Set(..)))
    );
    assert_eq!(
        stored,
        fresh(&vec![
            item("a"),
            Item {
                id: "b".into(),
                ..item("b")
            }
        ])
    );
}

#[test]
fn a_list_empties_and_fills_in_either_shape() {
    let mut stored = fresh(&Vec::<Item>::new());
    turn::<Vec<Item>>(&mut stored, |list| *list = items(["a"]));
    assert_eq!(stored.len(), 5);
    turn::<Vec<Item>>(&mut stored, Vec::clear);
    assert_eq!(stored, fresh(&Vec::<Item>::new()));
    let mut stored = fresh(&Vec::<u8>::new());
    assert_eq!(turn::<Vec<u8>>(&mut stored, |list| list.push(1)).len(), 1);
    assert_eq!(turn::<Vec<u8>>(&mut stored, Vec::clear).len(), 1);
    assert!(decode::<Vec<u8>>(&stored).unwrap().value.is_empty());
}

#[test]
fn a_kind_that_changed_replaces_the_whole_sub_range() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Any {
        Item(Item),
        Map(BTreeMap<String, u8>),
        Number(u8),
    }
    let mut stored = fresh(&Any::Item(item("a")));
    let changes = turn::<Any>(&mut stored, |any| {
        *any = Any::Map(BTreeMap::from([("x".into(), 1)]));
    });
    assert_eq!(changes[0], Change::ClearTree(Path::root()));
    assert_eq!(stored.len(), 2);
    let changes = turn::<Any>(&mut stored, |any| *any = Any::Number(1));
    assert!(matches!(
        changes[..],
        [Change::ClearTree(_), Change::Set(..)]
    ));
    assert_eq!(decode::<Any>(&stored).unwrap().value, Any::Number(1));
}

#[test]
fn the_base_of_the_diff_is_what_is_stored() {
    let mut stored = fresh(&item("a"));
    stored.insert(at!["text"], vec![0xc0].into());
    let next = encode(&item("a"), &stored, &Ignored::none()).unwrap();
    assert_eq!(touched(&diff(&stored, &next.leaves)), ["state.text"]);
}

#[test]
fn leaves_below_a_value_that_nobody_wrote_are_cleared() {
    let mut stored = fresh(&item("a"));
    stored.insert(at!["text", "orphan"], vec![1].into());
    stored.insert(at!["lost", "orphan"], vec![1].into());
    let next = fresh(&item("a"));
    let changes = diff(&stored, &next);
    stored.apply(&changes);
    assert_eq!(stored, next);
}

#[test]
fn equal_states_have_equal_leaves_whatever_the_order_of_their_hash_maps() {
    type Maps = (HashMap<u32, HashMap<String, u8>>, HashMap<(u8, u8), u8>);
    let inner: Vec<(String, u8)> = (0..50).map(|n| (format!("k{n}"), n)).collect();
    let build = |reverse: bool| -> Maps {
        let mut entries = inner.clone();
        if reverse {
            entries.reverse();
        }
        let inner: HashMap<_, _> = entries.into_iter().collect();
        let outer = (0..50).map(|n| (n, inner.clone())).collect();
        (outer, (0..50).map(|n| ((n, n), n)).collect())
    };
    let stored = fresh(&build(false));
    assert_eq!(stored.len(), 1, "a tuple is one leaf");
    let next = encode(&build(true), &stored, &Ignored::none()).unwrap();
    assert_eq!(diff(&stored, &next.leaves), []);
}

#[test]
fn not_a_number_is_not_written_again_and_zeros_keep_their_sign() {
    type Floats = BTreeMap<String, f64>;
    let odd = f64::from_bits(0x7ff8_0000_0000_1234);
    let mut stored = fresh(&Floats::from([("nan".into(), odd), ("zero".into(), -0.0)]));
    assert_eq!(turn::<Floats>(&mut stored, |_| {}), []);
    let floats = decode::<Floats>(&stored).unwrap().value;
    assert_eq!(floats["nan"].to_bits(), odd.to_bits());
    assert!(floats["zero"].is_sign_negative());
    assert_eq!(
        turn::<Floats>(&mut stored, |floats| {
            floats.insert("zero".into(), 0.0);
        })
        .len(),
        1
    );
}

#[test]
fn a_first_write_is_one_set_per_leaf() {
    let next = fresh(&items(["a"]));
    let changes = diff(&Leaves::new(), &next);
    assert_eq!(changes.len(), next.len());
    let mut stored = Leaves::new();
    stored.apply(&changes);
    assert_eq!(stored, next);
}

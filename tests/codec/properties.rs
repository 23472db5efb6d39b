//! The codec's property over a zoo of types: decode(apply(diff(encode(a), b))) = b.

use super::{State, fresh};
use abide::codec::{decode, diff, encode};
use proptest::collection::{btree_map, hash_map, vec};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Choice {
    Nothing,
    Text(String),
    Pair(i64, u8),
    Record { flag: bool, inner: Vec<Choice> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    Empty,
    Data {
        value: Option<i32>,
        map: BTreeMap<u8, char>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    id: String,
    choice: Choice,
    tagged: Tagged,
    children: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flat {
    x: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, u16>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Zoo {
    items: Vec<Item>,
    by_name: HashMap<String, Option<Item>>,
    by_number: BTreeMap<i64, Tagged>,
    by_pair: HashMap<(u8, bool), Vec<u8>>,
    flat: Option<Flat>,
    bytes: ByteBuf,
    floats: (f32, f64),
    wide: Option<u128>,
    untyped: serde_json::Value,
}

fn choice() -> impl Strategy<Value = Choice> {
    let leaf = prop_oneof![
        Just(Choice::Nothing),
        "[a-c]{0,2}".prop_map(Choice::Text),
        (any::<i64>(), any::<u8>()).prop_map(|(a, b)| Choice::Pair(a, b)),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        (any::<bool>(), vec(inner, 0..3)).prop_map(|(flag, inner)| Choice::Record { flag, inner })
    })
}

fn tagged() -> impl Strategy<Value = Tagged> {
    prop_oneof![
        Just(Tagged::Empty),
        (
            any::<Option<i32>>(),
            btree_map(0..3_u8, any::<char>(), 0..3)
        )
            .prop_map(|(value, map)| Tagged::Data { value, map }),
    ]
}

/// Few ids, so that lists share items, move them, and at times hold one twice.
fn item() -> impl Strategy<Value = Item> {
    let make = |children: Vec<Item>| {
        ("[a-h]", choice(), tagged()).prop_map(move |(id, choice, tagged)| Item {
            id,
            choice,
            tagged,
            children: children.clone(),
        })
    };
    make(vec![]).prop_recursive(3, 20, 5, move |inner| vec(inner, 0..5).prop_flat_map(make))
}

fn untyped() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[a-c\\x00]{0,2}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            btree_map("[a-c\\x00]{0,2}|id", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn zoo() -> impl Strategy<Value = Zoo> {
    (
        vec(item(), 0..6),
        hash_map("[a-c\\x00]{0,2}", prop::option::of(item()), 0..4),
        btree_map(prop_oneof![-2..3_i64, any::<i64>()], tagged(), 0..4),
        hash_map((0..3_u8, any::<bool>()), vec(any::<u8>(), 0..3), 0..4),
        prop::option::of((any::<u8>(), btree_map("[a-c]{1,2}", any::<u16>(), 0..3))),
        vec(any::<u8>(), 0..4),
        (
            -2.0..2.0_f32,
            any::<f64>().prop_filter("equal to itself", |f| !f.is_nan()),
        ),
        any::<Option<u128>>(),
        untyped(),
    )
        .prop_map(
            |(items, by_name, by_number, by_pair, flat, bytes, floats, wide, untyped)| Zoo {
                items,
                by_name,
                by_number,
                by_pair,
                flat: flat.map(|(x, rest)| Flat { x, rest }),
                bytes: ByteBuf::from(bytes),
                floats,
                wide,
                untyped,
            },
        )
}

fn assert_turns<T: State + PartialEq + Debug>(states: &[T]) {
    let mut stored = fresh(&states[0]);
    for state in states {
        let ignored = decode::<T>(&stored).unwrap().ignored;
        assert!(ignored.is_empty(), "{:?}", ignored.paths());
        let next = encode(state, &stored, &ignored).unwrap();
        stored.apply(&diff(&stored, &next.leaves));
        assert_eq!(stored, next.leaves);
        let decoded = decode::<T>(&stored).unwrap();
        assert_eq!(decoded.value, *state);
        let again = encode(&decoded.value, &stored, &decoded.ignored).unwrap();
        assert_eq!(
            diff(&stored, &again.leaves),
            [],
            "an unchanged state was written"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn decode_of_the_applied_diff_is_the_new_state(states in vec(zoo(), 1..5)) {
        assert_turns(&states);
    }

    #[test]
    fn encoding_is_deterministic(state in zoo()) {
        let again: Zoo = decode(&fresh(&state)).unwrap().value;
        prop_assert_eq!(fresh(&state), fresh(&again));
    }

    #[test]
    fn lists_take_any_order_and_selection(
        orders in vec(prop::sample::subsequence((0..12).collect::<Vec<u8>>(), 0..12).prop_shuffle(), 1..8)
    ) {
        let list = |ids: &Vec<u8>| -> Vec<BTreeMap<String, String>> {
            ids.iter().map(|id| BTreeMap::from([("id".to_owned(), id.to_string())])).collect()
        };
        assert_turns(&orders.iter().map(list).collect::<Vec<_>>());
    }
}

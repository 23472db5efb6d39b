//! Values without their types: as MessagePack, as JSON, and out of a state's leaves.

use super::{at, fresh};
use abide::codec::{
    CodecErrorKind, Ignored, Leaves, MAX_DEPTH, Path, Value, encode, from_payload, to_payload,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i128>().prop_map(Value::from),
        any::<u128>().prop_map(Value::from),
        prop::sample::select(vec![i128::MIN, i128::MAX, i64::MIN.into(), u64::MAX.into()])
            .prop_map(Value::Int),
        any::<u32>().prop_map(|bits| Value::F32(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))),
        any::<i32>().prop_map(|n| Value::F64(n.into())),
        prop::sample::select(vec![
            0.0,
            -0.0,
            f64::NAN,
            f64::INFINITY,
            f64::MIN_POSITIVE,
            1e300
        ])
        .prop_map(Value::F64),
        prop::sample::select(vec![
            -0.0,
            f32::NAN,
            f32::NEG_INFINITY,
            0.1,
            f32::MAX,
            1e-45
        ])
        .prop_map(Value::F32),
        text().prop_map(Value::from),
        vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        (any::<i8>(), vec(any::<u8>(), 0..18)).prop_map(|(code, bytes)| Value::Ext(code, bytes)),
        (1..3_i8, vec(any::<u8>(), 16)).prop_map(|(code, bytes)| Value::Ext(code, bytes)),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,4}",
        "[$a-c\"\\\\\n\\x00\\x7f]{0,3}",
        any::<String>()
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 32, 5, |inner| {
        let map = |key: BoxedStrategy<Value>, inner: BoxedStrategy<Value>| {
            vec((key, inner), 0..5).prop_map(|entries| {
                let mut distinct: Vec<(Value, Value)> = Vec::new();
                for (key, value) in entries {
                    if distinct.iter().all(|(other, _)| *other != key) {
                        distinct.push((key, value));
                    }
                }
                Value::Map(distinct)
            })
        };
        let inner = inner.boxed();
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::Array),
            map(text().prop_map(Value::from).boxed(), inner.clone()),
            map(inner.clone(), inner),
        ]
    })
}

/// The value with its maps in one order, for a state keeps none.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Map(entries) => {
            let entries = entries.into_iter();
            let mut entries: Vec<_> = entries.map(|(k, v)| (sorted(k), sorted(v))).collect();
            entries.sort_by_key(|(key, _)| key.to_payload().unwrap());
            Value::Map(entries)
        }
        scalar => scalar,
    }
}

proptest! {
    #[test]
    fn json_says_all_of_a_value(value in value()) {
        let json = value.to_json().unwrap();
        prop_assert_eq!(Value::from_json(&json).unwrap(), value, "{}", json);
        // And it is JSON to others.
        serde_json::from_str::<serde_json::Value>(&json).unwrap();
    }

    #[test]
    fn payloads_hold_all_of_a_value(value in value()) {
        let payload = value.to_payload().unwrap();
        let again = Value::from_payload(&payload).unwrap();
        prop_assert_eq!(&again, &value);
        prop_assert_eq!(again.to_payload().unwrap(), payload);
    }

    #[test]
    fn a_value_within_a_state_round_trips(value in value()) {
        let leaves = match encode(&(1, value.clone()), &Leaves::new(), &Ignored::none()) {
            Ok(encoded) => encoded.leaves,
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let (_, again) = abide::codec::decode::<(u8, Value)>(&leaves).unwrap().value;
        prop_assert_eq!(sorted(again), sorted(value));
    }

    #[test]
    fn hostile_json_is_an_error(text in "[\\[\\]{}\",:$a-f0-9.eE+\\-\\\\u \u{e9}]{0,40}") {
        let _ = Value::from_json(&text);
    }

    #[test]
    fn mutated_json_is_an_error_or_round_trips(
        value in value(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut json = value.to_json().unwrap().into_bytes();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(json) = String::from_utf8(json)
            && let Ok(value) = Value::from_json(&json)
        {
            prop_assert_eq!(Value::from_json(&value.to_json().unwrap()).unwrap(), value);
        }
    }

    #[test]
    fn random_payloads_are_errors_or_round_trip(bytes in vec(any::<u8>(), 0..64)) {
        if let Ok(value) = Value::from_payload(&bytes) {
            prop_assert_eq!(Value::from_payload(&value.to_payload().unwrap()).unwrap(), value);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    id: String,
    data: ByteBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State {
    count: u128,
    rate: f32,
    items: Vec<Item>,
    names: BTreeMap<i64, Option<char>>,
    flags: BTreeMap<bool, f64>,
}

fn state() -> State {
    let item = |id: &str| Item {
        id: id.into(),
        data: ByteBuf::from(vec![0xde, 0xad, 0xbe, 0xef]),
    };
    State {
        count: u128::MAX,
        rate: 0.1,
        items: vec![item("b"), item("a")],
        names: BTreeMap::from([(-1, Some('x')), (2, None)]),
        flags: BTreeMap::from([(false, 1.0), (true, f64::NEG_INFINITY)]),
    }
}

#[test]
fn a_state_is_shown_without_its_type() {
    let leaves = fresh(&state());
    let value = Value::from_leaves(&leaves).unwrap();
    assert_eq!(
        value.to_json().unwrap(),
        concat!(
            r#"{"count":{"$int":"340282366920938463463374607431768211455"},"#,
            r#""flags":{"$map":[[false,1.0],[true,{"$float":"-Infinity"}]]},"#,
            r#""items":[{"data":{"$bytes":"3q2+7w=="},"id":"b"},"#,
            r#"{"data":{"$bytes":"3q2+7w=="},"id":"a"}],"#,
            r#""names":{"$map":[[-1,"x"],[2,null]]},"rate":{"$f32":0.1}}"#
        )
    );
    assert_eq!(value.to_typed::<State>().unwrap(), state());
    assert_eq!(Value::from_typed(&state()).unwrap(), value);
    let json = Value::from_json(&value.to_json().unwrap()).unwrap();
    assert_eq!(json.to_typed::<State>().unwrap(), state());
}

#[test]
fn a_part_of_a_state_is_found_by_its_path() {
    let leaves = fresh(&state());
    let part = |path: &Path| Value::from_leaves_at(&leaves, path);
    let whole = Value::from_leaves(&leaves).unwrap();
    assert_eq!(part(&Path::root()).unwrap(), whole);
    assert_eq!(&part(&at!["names"]).unwrap(), whole.get("names").unwrap());
    assert_eq!(part(&at!["names", 2_u64]).unwrap(), Value::Nil);
    let item = part(&at!["items", "a"]).unwrap();
    assert_eq!(item.get("id"), Some(&Value::from("a")));
    for missing in [at!["name"], at!["names", 3_u64], at!["flags", "false"]] {
        let error = part(&missing).unwrap_err();
        assert_eq!(error.kind(), CodecErrorKind::Missing);
        assert_eq!(error.path(), missing.to_string());
    }
}

#[test]
fn json_that_people_write_is_understood() {
    let read = |json: &str| Value::from_json(json).unwrap();
    assert_eq!(read(" 1 "), Value::Int(1));
    assert_eq!(read("1.0"), Value::F64(1.0));
    assert_eq!(read("1e2"), Value::F64(100.0));
    assert_eq!(read("-0.0"), Value::F64(-0.0));
    assert_eq!(read("18446744073709551616"), Value::Int(1 << 64));
    assert_eq!(read(r#""\u00e9\ud83d\ude00\/""#), Value::from("é😀/"));
    assert_eq!(read(r#"{"$f32":0.1}"#), Value::F32(0.1));
    assert_eq!(
        read(r#"{ "a" : [ ] }"#).get("a"),
        Some(&Value::Array(vec![]))
    );
    // Text need not be a tag: only keys are.
    assert_eq!(read(r#""$bytes""#), Value::from("$bytes"));
    // A float that a program wrote without a fraction still fits the field.
    assert_eq!(read("[1]").to_typed::<Vec<f64>>().unwrap(), [1.0]);
}

#[test]
fn json_that_would_be_guessed_at_is_refused() {
    let cases = [
        "",
        "nul",
        "[1,]",
        "{\"a\":1,}",
        "01",
        "1.",
        ".5",
        "+1",
        "- 1",
        "1e",
        "1e999",
        "--1",
        "NaN",
        "'a'",
        "[1 2]",
        "\"\n\"",
        r#""\x""#,
        r#""\ud83d""#,
        r#""\ud83dx""#,
        r#""\u12""#,
        r#""\u+123""#,
        "\"",
        "1 1",
        "{1:2}",
        "340282366920938463463374607431768211456",
        r#"{"$bytes":"3q2+7w"}"#,
        r#"{"$bytes":"3q2+7x=="}"#,
        r#"{"$bytes":"===="}"#,
        r#"{"$bytes":"AA==AAAA"}"#,
        r#"{"$bytes":1}"#,
        r#"{"$bytes":"","a":1}"#,
        r#"{"$what":1}"#,
        r#"{"a":1,"$b":2}"#,
        r#"{"$int":"1.0"}"#,
        r#"{"$int":""}"#,
        r#"{"$float":"nan"}"#,
        r#"{"$float":"0x"}"#,
        r#"{"$f32":1e39}"#,
        r#"{"$f32":"0x7ff8000000000000"}"#,
        r#"{"$map":[1]}"#,
        r#"{"$map":[[1]]}"#,
        r#"{"$map":{}}"#,
        r#"{"$ext":[128,""]}"#,
        r#"{"$ext":[1]}"#,
    ];
    for case in cases {
        let error = Value::from_json(case).unwrap_err();
        assert_eq!(error.kind(), CodecErrorKind::Json, "{case}");
    }
    for twice in [r#"{"a":1,"a":2}"#, r#"{"$map":[[1,1],[{"$int":"1"},2]]}"#] {
        let error = Value::from_json(twice).unwrap_err();
        assert_eq!(error.kind(), CodecErrorKind::DuplicateKey, "{twice}");
    }
    let error = Value::from_json(r#"{"a":[0,{"$b":1}]}"#).unwrap_err();
    assert_eq!(error.path(), "state.a[#1]");
}

#[test]
fn depth_is_bounded_and_the_deepest_value_round_trips() {
    type Wrap = fn(Value) -> Value;
    let wraps: [Wrap; 3] = [
        |value| Value::Array(vec![value]),
        |value| Value::Map(vec![(Value::from("k"), value)]),
        |value| Value::Map(vec![(Value::from(1_u64), value)]),
    ];
    for wrap in wraps {
        let deep = |levels| (0..levels).fold(Value::Ext(5, vec![1]), |value, _| wrap(value));
        let deepest = deep(MAX_DEPTH);
        let json = deepest.to_json().unwrap();
        assert_eq!(Value::from_json(&json).unwrap(), deepest);
        let payload = deepest.to_payload().unwrap();
        assert_eq!(Value::from_payload(&payload).unwrap(), deepest);
        let deeper = deep(MAX_DEPTH + 1);
        let kind = CodecErrorKind::TooDeep;
        assert_eq!(deeper.to_json().unwrap_err().kind(), kind);
        assert_eq!(deeper.to_payload().unwrap_err().kind(), kind);
    }
    for open in ["[", "{\"a\":", "{\"$map\":[["] {
        let error = Value::from_json(&open.repeat(100_000)).unwrap_err();
        assert_eq!(error.kind(), CodecErrorKind::TooDeep);
    }
}

#[test]
fn any_serde_format_takes_the_same_form() {
    let value = Value::from_typed(&state()).unwrap();
    let json = serde_json::to_string(&value).unwrap();
    assert_eq!(json, value.to_json().unwrap());
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
    let payload = to_payload(&value).unwrap();
    assert_eq!(from_payload::<Value>(&payload).unwrap(), value);
    assert!(serde_json::from_str::<Value>(&"[".repeat(1000)).is_err());
}

#[test]
fn equal_means_the_same_to_the_bit() {
    assert_eq!(Value::F64(f64::NAN), Value::F64(f64::NAN));
    assert_ne!(Value::F64(0.0), Value::F64(-0.0));
    assert_ne!(Value::F64(1.0), Value::F32(1.0));
    assert_ne!(Value::F64(1.0), Value::Int(1));
    assert_eq!(Value::Huge(1), Value::Int(1));
    assert_eq!(Value::Ext(1, 5_i128.to_be_bytes().to_vec()), Value::Int(5));
    assert_ne!(Value::Text("a".into()), Value::Bytes(b"a".to_vec()));
}

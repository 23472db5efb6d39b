//! serde's features: each round-trips or is refused with an error that names the place.

use super::{assert_refused, at, fresh, refusal, round_trips, turn};
use abide::codec::{CodecErrorKind, MAX_DEPTH, decode, from_payload, to_payload};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

#[test]
fn renamed_fields_go_by_their_new_names() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        first_name: u8,
        #[serde(rename = "odd name")]
        other: u8,
    }
    let leaves = round_trips(&Named {
        first_name: 1,
        other: 2,
    });
    assert!(leaves.get(&at!["firstName"]).is_some());
    assert!(leaves.get(&at!["odd name"]).is_some());
}

#[test]
fn absent_fields_take_their_defaults() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        a: u8,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        a: u8,
        #[serde(default)]
        b: Vec<u8>,
        c: Option<u8>,
    }
    let mut stored = fresh(&Old { a: 1 });
    let expected = New {
        a: 1,
        b: vec![],
        c: None,
    };
    assert_eq!(decode::<New>(&stored).unwrap().value, expected);
    assert_eq!(turn::<New>(&mut stored, |_| {}).len(), 2);
}

#[test]
fn skipped_fields_are_not_stored() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Skips {
        a: u8,
        #[serde(skip)]
        cache: u8,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        b: Option<u8>,
    }
    let some = Skips {
        a: 1,
        cache: 0,
        b: Some(2),
    };
    let mut stored = round_trips(&some);
    assert_eq!(stored.len(), 3);
    turn::<Skips>(&mut stored, |skips| {
        skips.b = None;
        skips.cache = 9;
    });
    assert_eq!(stored, round_trips(&Skips { b: None, ..some }));
}

mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
        let text = String::deserialize(from)?;
        u32::from_str_radix(&text, 16).map_err(de::Error::custom)
    }
}

#[test]
fn fields_with_their_own_functions_use_them() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct With {
        #[serde(with = "hex")]
        number: u32,
    }
    let leaves = round_trips(&With { number: 255 });
    assert_eq!(leaves.get(&at!["number"]).unwrap().as_ref(), b"\xa2ff");
}

#[test]
fn flattened_structs_and_maps_round_trip() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        x: u8,
        ip: IpAddr,
        f: f32,
        list: Vec<BTreeMap<u8, Option<char>>>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Outer {
        a: u8,
        #[serde(flatten)]
        inner: Inner,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }
    let leaves = round_trips(&Outer {
        a: 1,
        inner: Inner {
            x: 2,
            ip: "::1".parse().unwrap(),
            f: 0.1,
            list: vec![BTreeMap::from([(1, Some('c')), (2, None)])],
        },
        rest: BTreeMap::from([("more".into(), serde_json::json!({"deep": [1, "x", null]}))]),
    });
    assert!(leaves.get(&at!["x"]).is_some());
    assert!(leaves.get(&at!["more", "deep"]).is_some());
}

#[test]
fn two_fields_under_one_name_are_refused() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Twice {
        a: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }
    let error = refusal(&Twice {
        a: 1,
        rest: BTreeMap::from([("a".into(), 2)]),
    });
    assert_eq!(error.kind(), CodecErrorKind::DuplicateKey);
    assert_eq!(error.path(), "state.a");
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Unit;
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Newtype(Vec<u8>);
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pair(u8, Option<String>);

macro_rules! enums {
    ($($(#[$attribute:meta])* $name:ident)*) => {$(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        $(#[$attribute])*
        enum $name {
            Struct { x: i32, y: Option<Box<$name>> },
            Newtype(BTreeMap<String, f32>),
            Unit,
        }

        impl $name {
            fn all() -> Vec<Self> {
                vec![
                    Self::Struct { x: -1, y: Some(Box::new(Self::Newtype(BTreeMap::new()))) },
                    Self::Newtype(BTreeMap::from([("k".into(), 0.1)])),
                    Self::Unit,
                ]
            }
        }
    )*};
}

enums! {
    External
    #[serde(tag = "kind")] Internal
    #[serde(tag = "kind", content = "a content before the tag")] Adjacent
    #[serde(untagged)] Untagged
}

#[test]
fn enums_of_all_representations_round_trip() {
    External::all()
        .iter()
        .for_each(|value| drop(round_trips(value)));
    Internal::all()
        .iter()
        .for_each(|value| drop(round_trips(value)));
    Adjacent::all()
        .iter()
        .for_each(|value| drop(round_trips(value)));
    Untagged::all()
        .iter()
        .for_each(|value| drop(round_trips(value)));
    round_trips(&(
        External::all(),
        Internal::all(),
        Adjacent::all(),
        Untagged::all(),
    ));
}

#[test]
fn an_untagged_unit_in_an_option_is_refused() {
    assert_refused(&Some(Untagged::Unit), "state");
    round_trips(&Some(Internal::Unit));
    round_trips(&Some(External::Unit));
}

#[test]
fn enums_change_their_variants_in_place() {
    let mut stored = fresh(&BTreeMap::from([("e".to_owned(), Internal::all())]));
    for value in Internal::all() {
        turn::<BTreeMap<String, Vec<Internal>>>(&mut stored, |map| {
            map.insert("e".into(), vec![value.clone()]);
        });
        let map = decode::<BTreeMap<String, Vec<Internal>>>(&stored).unwrap();
        assert_eq!(map.value["e"], [value]);
    }
}

#[test]
fn options_newtypes_tuples_and_units_round_trip() {
    round_trips(&(None::<u8>, Some(1), Some(Newtype(vec![])), Unit, ()));
    round_trips(&BTreeMap::from([("k".to_owned(), Some(Pair(1, None)))]));
    round_trips(&Some(Some(1)));
    round_trips(&None::<Option<u8>>);
}

#[test]
fn what_would_come_back_as_none_is_refused() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Holder {
        field: BTreeMap<String, Vec<Option<Option<u8>>>>,
    }
    assert_refused(
        &Holder {
            field: BTreeMap::from([("k".into(), vec![Some(Some(1)), Some(None)])]),
        },
        "state.field.k[#1]",
    );
    assert_refused(&Some(()), "state");
    assert_refused(&Some(Unit), "state");
    #[derive(Debug, Serialize, Deserialize)]
    struct Wrap(Option<u8>);
    assert_refused(&vec![Some(Wrap(None))], "state[#0]");
    assert_refused(&Some(serde_json::Value::Null), "state");
}

#[test]
fn bytes_and_borrowed_wrappers_round_trip() {
    let bytes = ByteBuf::from(vec![0, 255]);
    let leaves = round_trips(&bytes);
    assert_eq!(leaves.iter().next().unwrap().1.as_ref(), [0xc4, 2, 0, 255]);
    round_trips(&BTreeMap::from([("b".to_owned(), vec![bytes])]));
    round_trips(&(Cow::<'static, str>::Owned("x".into()), Box::new(1)));
}

#[test]
fn addresses_times_and_paths_round_trip_everywhere() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct System {
        ip: IpAddr,
        socket: SocketAddr,
        wait: Duration,
        at: SystemTime,
        path: PathBuf,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "t")]
    enum Tagged {
        System(System),
    }
    let system = System {
        ip: "10.0.0.1".parse().unwrap(),
        socket: "[::1]:80".parse().unwrap(),
        wait: Duration::new(1, 2),
        at: SystemTime::UNIX_EPOCH + Duration::from_nanos(12_345_678_901),
        path: "/tmp/x".into(),
    };
    let leaves = round_trips(&system);
    assert_eq!(leaves.get(&at!["ip"]).unwrap().as_ref(), b"\xa810.0.0.1");
    round_trips(&vec![(system.clone(), Some(system.clone()))]);
    round_trips(&Tagged::System(system));
    round_trips(&BTreeMap::from([("::1".parse::<IpAddr>().unwrap(), 1)]));
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let path = PathBuf::from(std::ffi::OsString::from_vec(vec![255]));
    let error = refusal(&BTreeMap::from([("file".to_owned(), path)]));
    assert_eq!(error.kind(), CodecErrorKind::Serialize);
    assert_eq!(error.path(), "state.file");
}

#[test]
fn maps_with_keys_of_any_type_round_trip() {
    #[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
    struct Name(String);
    #[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
    enum Color {
        Red,
        Rgb(u8, u8, u8),
    }
    #[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
    struct Point {
        x: i8,
    }
    let leaves = round_trips(&BTreeMap::from([(Name("n\0".into()), 1)]));
    assert!(leaves.get(&at!["n\0"]).is_some());
    assert!(
        round_trips(&HashMap::from([(Color::Red, 1)]))
            .get(&at!["Red"])
            .is_some()
    );
    round_trips(&HashMap::from([(Color::Red, 1), (Color::Rgb(1, 2, 3), 2)]));
    round_trips(&BTreeMap::from([(Point { x: 1 }, 1)]));
    round_trips(&BTreeMap::from([(None, 1), (Some("x".to_owned()), 2)]));
    round_trips(&BTreeMap::from([(false, 1), (true, 2)]));
    round_trips(&BTreeMap::from([(vec![1, 2], BTreeSet::from(['x']))]));
    round_trips(&BTreeMap::from([(u128::MAX, 1), (1, 2)]));
    round_trips(&HashSet::from(["a".to_owned()]));
}

#[test]
fn integers_of_all_widths_round_trip() {
    round_trips(&(i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN));
    round_trips(&(u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX));
    round_trips(&(i64::MAX, i128::MAX, u128::from(u64::MAX) + 1, -33, -129));
    round_trips(&(f32::MIN_POSITIVE, f64::MAX, 'ß', true));
}

#[test]
fn wide_integers_that_serde_would_not_read_back_are_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Wide {
        n: u128,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        wide: Wide,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "z", content = "c")]
    enum Adjacent {
        A(Wide),
    }
    round_trips(&Wide { n: u128::MAX });
    round_trips(&Adjacent::A(Wide { n: u128::MAX }));
    let error = refusal(&Flat {
        wide: Wide { n: 1 },
    });
    assert_eq!(error.kind(), CodecErrorKind::Refused, "{error}");
}

#[test]
fn a_number_that_a_float_cannot_hold_is_an_error() {
    let error = decode::<f32>(&fresh(&0.1_f64)).unwrap_err();
    assert_eq!(error.kind(), CodecErrorKind::Mismatch);
    assert!(decode::<f64>(&fresh(&u64::MAX)).is_err());
    assert_eq!(decode::<f32>(&fresh(&0.5_f64)).unwrap().value, 0.5);
    assert_eq!(decode::<f64>(&fresh(&7)).unwrap().value, 7.0);
    assert!(decode::<u8>(&fresh(&256)).is_err());
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Deep {
    inner: Option<Box<Deep>>,
}

fn deep(levels: usize) -> Deep {
    (1..levels).fold(Deep { inner: None }, |inner, _| Deep {
        inner: Some(Box::new(inner)),
    })
}

#[test]
fn recursive_types_are_bounded_in_depth() {
    round_trips(&deep(MAX_DEPTH / 2));
    let error = refusal(&deep(MAX_DEPTH / 2 + 1));
    assert_eq!(error.kind(), CodecErrorKind::TooDeep);
    assert!(error.path().starts_with("state.inner.inner"));
}

#[test]
fn a_type_that_recurses_without_an_end_is_an_error() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Endless(Option<Box<Endless>>);
    let error = decode::<Endless>(&fresh(&1)).unwrap_err();
    assert_eq!(error.kind(), CodecErrorKind::TooDeep);
}

#[test]
fn a_tuple_that_lost_an_element_is_an_error() {
    let error = decode::<(u8, u8)>(&fresh(&(1, 2, 3))).unwrap_err();
    assert_eq!(error.kind(), CodecErrorKind::Mismatch);
    assert!(decode::<(u8, u8)>(&fresh(&(1,))).is_err());
}

#[test]
fn errors_name_the_place() {
    let state = BTreeMap::from([("a b".to_owned(), vec![("x", 1), ("y", 2)])]);
    let leaves = fresh(&BTreeMap::from([(
        "a b".to_owned(),
        state["a b"]
            .iter()
            .map(|(k, v)| (k.to_string(), *v))
            .collect::<Vec<_>>(),
    )]));
    let error = decode::<BTreeMap<String, Vec<(String, bool)>>>(&leaves).unwrap_err();
    assert_eq!(error.path(), "state[\"a b\"][#0][#1]");
    assert_eq!(
        error.to_string(),
        "the stored value does not fit the type at state[\"a b\"][#0][#1]: \
         invalid type: integer `1`, expected a boolean"
    );
}

#[test]
fn payloads_round_trip_by_the_same_rules() {
    let value = (External::all(), Internal::all(), Pair(1, None), u128::MAX);
    let payload = to_payload(&value).unwrap();
    assert_eq!(
        from_payload::<(Vec<External>, Vec<Internal>, Pair, u128)>(&payload).unwrap(),
        value
    );
    assert_eq!(
        to_payload(&Some(None::<u8>)).unwrap_err().kind(),
        CodecErrorKind::Refused
    );
    assert_eq!(
        to_payload(&deep(MAX_DEPTH)).unwrap_err().kind(),
        CodecErrorKind::TooDeep
    );
    assert_eq!(
        from_payload::<u8>(&[1, 2]).unwrap_err().kind(),
        CodecErrorKind::Corrupt
    );
    assert_eq!(
        from_payload::<Deep>(&[0x91; 1_000_000]).unwrap_err().kind(),
        CodecErrorKind::Corrupt
    );
}

#[test]
fn payloads_are_the_message_pack_that_others_read_and_write() {
    let value = (
        External::all(),
        Pair(1, Some("x".into())),
        -7,
        0.5,
        ByteBuf::from([1]),
    );
    type Value = (Vec<External>, Pair, i32, f64, ByteBuf);
    let ours = to_payload(&value).unwrap();
    assert_eq!(rmp_serde::from_slice::<Value>(&ours).unwrap(), value);
    let theirs = rmp_serde::to_vec_named(&value).unwrap();
    assert_eq!(from_payload::<Value>(&theirs).unwrap(), value);
}

#[test]
fn a_char_and_a_string_that_are_one_key_are_refused() {
    #[derive(PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Key {
        Char(char),
        Str(String),
    }
    let map = BTreeMap::from([(Key::Char('x'), 1), (Key::Str("x".into()), 2)]);
    assert_eq!(refusal(&map).kind(), CodecErrorKind::DuplicateKey);
}

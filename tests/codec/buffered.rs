//! Foreign fields where serde reads on the type's behalf and does not say what it ignores: beside
//! flattened fields and in tagged and untagged enums.

use super::foreign::{new, old, old_over_new, part};
use super::{fresh, turn};
use abide::codec::decode;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};

mod flat {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) struct OldInner {
        #[serde(alias = "was", default)]
        pub(super) x: u8,
        pub(super) part: old::Part,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) struct Old {
        pub(super) a: u8,
        pub(super) direct: old::Part,
        #[serde(flatten)]
        pub(super) inner: OldInner,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) struct NewInner {
        pub(super) x: u8,
        pub(super) part: new::Part,
        pub(super) y: Vec<u8>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) struct New {
        pub(super) a: u8,
        pub(super) b: new::Part,
        pub(super) direct: new::Part,
        #[serde(flatten)]
        pub(super) inner: NewInner,
    }

    pub(super) fn new() -> New {
        New {
            a: 1,
            b: part("b"),
            direct: part("direct"),
            inner: NewInner {
                x: 2,
                part: part("inner"),
                y: vec![3],
            },
        }
    }
}

#[test]
fn fields_beside_flattened_ones_are_kept() {
    let mut expected = flat::new();
    expected.a = 9;
    expected.inner.x = 8;
    expected.inner.part.name = "x".into();
    expected.direct.name = "y".into();
    let read = old_over_new::<flat::Old, _>(&flat::new(), |old| {
        old.a = 9;
        old.inner.x = 8;
        old.inner.part.name = "x".into();
        old.direct.name = "y".into();
    });
    assert_eq!(read, expected);
    let list = vec![(flat::new(), 1_u8)];
    let read = old_over_new::<Vec<(flat::Old, u8)>, _>(&list, |_| {});
    assert_eq!(read, list);
}

#[test]
fn flattened_fields_kept_in_maps_and_lists() {
    type Map<T> = BTreeMap<u32, T>;
    let map = Map::from([(1, flat::new()), (2, flat::new())]);
    let mut expected = map.clone();
    expected.get_mut(&1).unwrap().a = 7;
    let read = old_over_new::<Map<flat::Old>, _>(&map, |map| map.get_mut(&1).unwrap().a = 7);
    assert_eq!(read, expected);
}

#[test]
fn an_alias_behind_a_flattened_field_is_not_foreign() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Before {
        a: u8,
        direct: old::Part,
        was: u8,
        part: old::Part,
        unknown: u8,
    }
    for was in [5, 0] {
        let name = || old::Part { name: "p".into() };
        let mut stored = fresh(&Before {
            a: 1,
            direct: name(),
            was,
            part: name(),
            unknown: 3,
        });
        turn::<flat::Old>(&mut stored, |_| {});
        turn::<flat::Old>(&mut stored, |old| old.a = 2);
        let read = decode::<flat::Old>(&stored).unwrap();
        assert_eq!(read.value.inner.x, was);
        assert_eq!(read.ignored.paths(), ["state.unknown"]);
    }
}

#[test]
fn a_newer_version_may_flatten_what_an_older_one_reads_plainly() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Flat {
        name: String,
        #[serde(flatten)]
        more: BTreeMap<String, u8>,
    }
    let flat = |name: &str| Flat {
        name: name.into(),
        more: BTreeMap::from([("k".into(), 1)]),
    };
    let read = old_over_new::<old::Part, _>(&flat("a"), |part| part.name = "b".into());
    assert_eq!(read, flat("b"));
}

macro_rules! tagged {
    ($($(#[$attribute:meta])* $old:ident $new:ident)*) => {$(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        $(#[$attribute])*
        enum $old {
            A { name: String, part: old::Part },
            B { name: String, part: old::Part },
        }

        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        $(#[$attribute])*
        enum $new {
            A { name: String, part: new::Part, extra: Option<u8> },
            B { name: String, part: new::Part },
        }

        impl $new {
            fn check() {
                let value = |name: &str| Self::A {
                    name: name.into(),
                    part: part("p"),
                    extra: Some(1),
                };
                let read = old_over_new::<$old, _>(&value("a"), |value| {
                    if let $old::A { name, .. } = value {
                        *name = "b".into();
                    }
                });
                assert_eq!(read, value("b"));
                let mut stored = fresh(&value("a"));
                let other = $old::B { name: "a".into(), part: old::Part { name: "p".into() } };
                turn::<$old>(&mut stored, |value| *value = other.clone());
                assert_eq!(stored, fresh(&other), "foreign fields outlive their variant");
            }
        }
    )*};
}

tagged! {
    OldExternal NewExternal
    #[serde(tag = "t")] OldInternal NewInternal
    #[serde(tag = "t", content = "c")] OldAdjacent NewAdjacent
}

#[test]
fn fields_of_an_enums_variant_are_kept_as_long_as_it_is_this_variant() {
    NewExternal::check();
    NewInternal::check();
    NewAdjacent::check();
}

#[test]
fn fields_of_an_untagged_enum_are_kept_while_its_fields_are_the_same() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Old {
        Part(old::Part),
        Other { n: u8 },
    }
    let read = old_over_new::<Old, _>(&part("a"), |any| {
        if let Old::Part(part) = any {
            part.name = "b".into();
        }
    });
    assert_eq!(
        read,
        new::Part {
            name: "b".into(),
            ..part("a")
        }
    );
    let mut stored = fresh(&part("a"));
    turn::<Old>(&mut stored, |any| *any = Old::Other { n: 1 });
    assert_eq!(stored, fresh(&Old::Other { n: 1 }));
}

#[test]
fn a_stored_field_that_the_type_reads_into_another_is_not_foreign() {
    #[derive(Debug, Clone, Default, Serialize, Deserialize)]
    struct Names {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<u8>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u8>,
    }
    #[derive(Debug, Clone, Serialize, Deserialize)]
    struct Wire {
        #[serde(flatten)]
        names: Names,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(from = "Wire", into = "Wire")]
    struct Value(Option<u8>);
    impl From<Wire> for Value {
        fn from(wire: Wire) -> Self {
            Self(wire.names.before.or(wire.names.after))
        }
    }
    impl From<Value> for Wire {
        fn from(value: Value) -> Self {
            let names = Names {
                after: value.0,
                ..Names::default()
            };
            Self { names }
        }
    }
    let mut stored = fresh(&BTreeMap::from([("before".to_owned(), 5)]));
    turn::<Value>(&mut stored, |_| {});
    turn::<Value>(&mut stored, |value| value.0 = Some(6));
    assert_eq!(decode::<Value>(&stored).unwrap().value, Value(Some(6)));
}

#[test]
fn foreign_fields_are_found_beside_hash_sets_of_any_order() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Sets {
        words: HashSet<String>,
        #[serde(flatten)]
        inner: old::Part,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Newer {
        words: HashSet<String>,
        name: String,
        note: u8,
    }
    let newer = Newer {
        words: (0..50).map(|n| n.to_string()).collect(),
        name: "n".into(),
        note: 1,
    };
    assert_eq!(old_over_new::<Sets, _>(&newer, |_| {}), newer);
}

#[test]
fn names_that_the_type_changes_do_not_make_a_decode_quadratic() {
    thread_local! {
        static READS: Cell<usize> = const { Cell::new(0) };
    }
    #[derive(Clone, Serialize, Deserialize)]
    struct Wire {
        #[serde(flatten)]
        map: BTreeMap<String, u8>,
    }
    #[derive(Clone, Serialize, Deserialize)]
    #[serde(from = "Wire", into = "Wire")]
    struct LowerCase(BTreeMap<String, u8>);
    impl From<Wire> for LowerCase {
        fn from(wire: Wire) -> Self {
            READS.set(READS.get() + 1);
            let entries = wire.map.into_iter();
            Self(entries.map(|(key, n)| (key.to_lowercase(), n)).collect())
        }
    }
    impl From<LowerCase> for Wire {
        fn from(value: LowerCase) -> Self {
            Self { map: value.0 }
        }
    }
    let stored = fresh(&BTreeMap::from_iter(
        (0..500).map(|n| (format!("K{n}"), 1_u8)),
    ));
    let decoded = decode::<LowerCase>(&stored).unwrap();
    assert_eq!(decoded.value.0.len(), 500);
    assert!(decoded.ignored.is_empty());
    assert!(READS.get() < 400, "read {} times", READS.get());
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t")]
enum Holds<P> {
    A { part: P },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Named<M> {
    name: String,
    #[serde(flatten)]
    more: M,
}

#[test]
fn a_default_that_is_not_stored_makes_no_other_variant_in_a_buffer() {
    #[derive(Serialize, Deserialize)]
    struct Legacy {
        name: String,
        #[serde(default)]
        legacy: u8,
    }
    let newer = Holds::A { part: part("a") };
    assert_eq!(old_over_new::<Holds<Legacy>, _>(&newer, |_| {}), newer);
}

#[test]
fn what_a_newer_version_flattens_in_a_buffer_is_kept() {
    let more = BTreeMap::from([("k".to_owned(), 1_u8)]);
    let name = "a".to_owned();
    let newer = Holds::A {
        part: Named { name, more },
    };
    assert_eq!(old_over_new::<Holds<old::Part>, _>(&newer, |_| {}), newer);
}

#[test]
fn a_field_in_a_buffer_that_is_skipped_at_times_makes_no_other_variant() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Old {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        a: Option<u8>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        b: Option<u8>,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct New {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        a: Option<u8>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        b: Option<u8>,
        extra: Vec<u8>,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Any<P> {
        Part(P),
        Other { n: u8 },
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Flat<P> {
        first: u8,
        #[serde(flatten)]
        inner: Inner<P>,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Inner<P> {
        part: P,
    }
    let new = |a, b| New {
        name: "n".into(),
        a,
        b,
        extra: vec![1, 2],
    };
    let states = [
        (None, None),
        (Some(1), None),
        (None, Some(2)),
        (Some(3), Some(4)),
    ];
    for (a, b) in states {
        for (next_a, next_b) in states {
            let change = |part: &mut Old| {
                part.a = next_a;
                part.b = next_b;
            };
            let read = old_over_new::<Holds<Old>, _>(&Holds::A { part: new(a, b) }, |value| {
                let Holds::A { part } = value;
                change(part);
            });
            assert_eq!(
                read,
                Holds::A {
                    part: new(next_a, next_b)
                }
            );
            let flat = |a, b| Flat {
                first: 1,
                inner: Inner { part: new(a, b) },
            };
            let read =
                old_over_new::<Flat<Old>, _>(&flat(a, b), |value| change(&mut value.inner.part));
            assert_eq!(read, flat(next_a, next_b));
            let any = |a, b| vec![(Any::Part(new(a, b)), 0_u8)];
            let read = old_over_new::<Vec<(Any<Old>, u8)>, _>(&any(a, b), |_| {});
            assert_eq!(read, any(a, b));
            let any = |a, b| BTreeMap::from([(1, Any::Part(new(a, b)))]);
            let read = old_over_new::<BTreeMap<u8, Any<Old>>, _>(&any(a, b), |map| {
                if let Some(Any::Part(part)) = map.get_mut(&1) {
                    change(part);
                }
            });
            assert_eq!(read, any(next_a, next_b));
            let mut stored = fresh(&any(a, b));
            turn::<BTreeMap<u8, Any<Old>>>(&mut stored, |map| {
                map.insert(1, Any::Other { n: 1 });
            });
            let other = BTreeMap::from([(1, Any::<Old>::Other { n: 1 })]);
            assert_eq!(
                stored,
                fresh(&other),
                "foreign fields outlive their variant"
            );
        }
    }
}

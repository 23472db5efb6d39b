//! What serde would read as another value is refused when it is written, and nothing else is.

use super::{State, fresh, refusal, round_trips};
use abide::codec::{CodecErrorKind, Ignored, Leaves, decode, encode};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    A(u8),
    B(u64),
}

fn assert_ambiguous<T: State + Debug>(value: &T, path: &str) {
    let error = refusal(value);
    assert_eq!(error.kind(), CodecErrorKind::Refused, "{error}");
    assert_eq!(error.path(), path);
}

#[test]
fn a_variant_that_reads_as_an_earlier_one_is_refused() {
    assert_ambiguous(&Number::B(1), "state");
    round_trips(&Number::B(256));
    round_trips(&Number::A(1));
    let list = |n| {
        (
            0_u8,
            BTreeMap::from([("k".to_owned(), vec![Number::A(1), n])]),
        )
    };
    assert_ambiguous(&list(Number::B(2)), "state[#1].k[#1]");
    round_trips(&list(Number::B(1000)));
}

#[test]
fn keys_that_read_as_other_ones_are_refused() {
    #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Key {
        A(u8),
        B(u64),
    }
    let map = |key| (0_u8, BTreeMap::from([(key, 'x')]));
    round_trips(&map(Key::A(1)));
    round_trips(&map(Key::B(300)));
    assert_ambiguous(&map(Key::B(1)), "state[#1][1]");
}

#[test]
fn a_number_in_a_buffer_that_a_float_cannot_hold_is_an_error() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Inner<N> {
        n: Vec<N>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat<N> {
        #[serde(flatten)]
        inner: Inner<N>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "t")]
    enum Tagged<N> {
        A { inner: Inner<N> },
    }
    fn check<N: Debug + State>(numbers: Vec<N>, narrow: bool, fits: bool) {
        let inner = || Inner { n: Vec::new() };
        let mut flat = Flat { inner: inner() };
        flat.inner.n = numbers;
        let leaves = fresh(&flat);
        let result = match narrow {
            true => decode::<Flat<f32>>(&leaves).map(|_| ()),
            false => decode::<Flat<f64>>(&leaves).map(|_| ()),
        };
        let kind = result.map_err(|error| (error.kind(), error.path()));
        let refused = Err((CodecErrorKind::Mismatch, "state.n[#1]".to_owned()));
        assert_eq!(kind, if fits { Ok(()) } else { refused });
    }
    check(vec![0, u64::MAX], false, false);
    check(vec![0, u64::from(u32::MAX)], false, true);
    check(vec![0, u64::from(u32::MAX)], true, false);
    check(vec![0.0, 0.1_f64], true, false);
    check(vec![0.0, 0.5_f64], true, true);
    let inner = Inner { n: vec![u64::MAX] };
    let error = decode::<Tagged<f64>>(&fresh(&Tagged::A { inner })).unwrap_err();
    assert_eq!(error.path(), "state.inner.n[#0]");
}

#[test]
fn variants_with_the_same_fields_are_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Dog {
        name: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Cat {
        name: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Pet {
        Dog(Dog),
        Cat(Cat),
    }
    let name = || "tom".to_owned();
    round_trips(&vec![Pet::Dog(Dog { name: name() })]);
    assert_ambiguous(&vec![Pet::Cat(Cat { name: name() })], "state[#0]");
}

#[test]
fn a_flattened_option_that_comes_back_as_some_is_refused() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Inner {
        x: Option<u8>,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Outer {
        a: u8,
        #[serde(flatten)]
        inner: Option<Inner>,
    }
    let outer = |inner| Outer { a: 1, inner };
    assert_ambiguous(&outer(None), "state.x");
    round_trips(&outer(Some(Inner { x: None })));
    round_trips(&outer(Some(Inner { x: Some(1) })));
}

#[test]
fn an_ambiguous_value_is_refused_in_any_turn() {
    type Map = BTreeMap<String, Number>;
    // The first of its type that this state ever holds.
    let stored = fresh(&Map::new());
    let ignored = decode::<Map>(&stored).unwrap().ignored;
    let cached = encode(&Map::new(), &stored, &ignored).unwrap();
    let next = Map::from([("k".into(), Number::B(1))]);
    for ignored in [&ignored, &cached.ignored, &Ignored::none()] {
        let error = encode(&next, &stored, ignored).unwrap_err();
        assert_eq!(error.kind(), CodecErrorKind::Refused);
    }
    // And beside foreign fields.
    #[derive(Debug, Serialize, Deserialize)]
    struct Newer {
        n: u16,
        extra: u8,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Older {
        n: Number,
    }
    let stored = fresh(&Newer { n: 300, extra: 1 });
    let decoded = decode::<Older>(&stored).unwrap();
    assert_eq!(decoded.ignored.paths(), ["state.extra"]);
    let next = |n| encode(&Older { n }, &stored, &decoded.ignored);
    let kept = decode::<Newer>(&next(Number::B(400)).unwrap().leaves)
        .unwrap()
        .value;
    assert_eq!((kept.n, kept.extra), (400, 1));
    assert_eq!(next(Number::B(5)).unwrap_err().path(), "state.n");
}

#[test]
fn what_serde_writes_otherwise_each_time_is_not_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sets {
        number: Number,
        words: HashSet<String>,
        pairs: HashSet<(u8, String)>,
        #[serde(skip_deserializing)]
        total: usize,
    }
    let sets = Sets {
        number: Number::A(1),
        words: (0..50).map(|n| n.to_string()).collect(),
        pairs: (0..50).map(|n| (n, n.to_string())).collect(),
        total: 7,
    };
    let leaves = fresh(&sets);
    let read = decode::<Sets>(&leaves).unwrap().value;
    assert_eq!(read, Sets { total: 0, ..sets });
}

#[test]
fn types_without_buffers_do_not_pay() {
    thread_local! {
        static READS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }
    #[derive(Serialize, Deserialize)]
    #[serde(from = "u8", into = "u8")]
    #[derive(Clone)]
    struct Counted(u8);
    impl From<u8> for Counted {
        fn from(n: u8) -> Self {
            READS.set(READS.get() + 1);
            Self(n)
        }
    }
    impl From<Counted> for u8 {
        fn from(counted: Counted) -> Self {
            counted.0
        }
    }
    let state = vec![Counted(1); 100];
    let first = encode(&state, &Leaves::new(), &Ignored::none()).unwrap();
    assert!(READS.get() < 4, "the type alone was looked at");
    READS.set(0);
    encode(&state, &first.leaves, &first.ignored).unwrap();
    assert_eq!(READS.get(), 0);
}

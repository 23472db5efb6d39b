//! Random programs on a stored state, by servers with lazy maps and by one with plain maps: turn by
//! turn, undone or committed, on two nodes with caches of their own. The model is the plain state.

use super::{LazyMap, NotLoaded};
use crate::codec::collection::{Want, asking};
use crate::codec::{self, Change, CodecErrorKind, Ignored, Leaves, Path, decode, lazy_places};
use crate::collections::AsElement;
use crate::durable::chunk::CHUNK_BYTES;
use crate::durable::keys::{InstanceKeys, Keys};
use crate::durable::state::{self, StateVersion};
use crate::id::InstanceId;
use crate::store::{MemoryStore, Store, Tx};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

#[allow(
    clippy::unit_arg,
    reason = "what an operation shows may be nothing, and that is compared, too"
)]
mod machine;
mod spans;

use machine::{Machine, turns};

type Runtime = tokio::runtime::Runtime;

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    amount: u32,
    notes: BTreeMap<String, String>,
}

fn line(amount: u32) -> Line {
    Line {
        amount,
        notes: BTreeMap::new(),
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Lazy {
    title: u32,
    inner: LazyInner,
    numbers: LazyMap<i64, u32>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct LazyInner {
    lines: LazyMap<String, Line>,
    other: Option<LazyMap<String, Line>>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Plain {
    title: u32,
    inner: PlainInner,
    numbers: BTreeMap<i64, u32>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct PlainInner {
    lines: BTreeMap<String, Line>,
    other: Option<BTreeMap<String, Line>>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_lazy_map_is_a_map_whatever_of_it_is_in_memory(turns in turns()) {
        let mut machine = Machine::new();
        for program in &turns {
            machine.turn(program);
        }
    }
}

#[test]
fn the_places_of_lazy_maps_follow_from_the_type() {
    #[derive(Serialize, Deserialize)]
    struct Deep {
        within: Option<Box<Deep>>,
        map: LazyMap<u64, u64>,
        listed: Vec<LazyMap<u64, u64>>,
        either: Result<LazyMap<u64, u64>, u64>,
        #[serde(flatten)]
        flat: Flat,
    }
    #[derive(Serialize, Deserialize)]
    struct Flat {
        hidden: LazyMap<u64, u64>,
    }
    #[derive(Serialize, Deserialize)]
    struct Named {
        #[serde(rename = "renamed")]
        map: Wrapped,
        within: Option<Box<Named>>,
    }
    #[derive(Serialize, Deserialize)]
    struct Wrapped(LazyMap<String, Vec<u8>>);

    let root = Path::root();
    assert_eq!(lazy_places::<LazyMap<String, u8>>(), [Path::root()]);
    assert_eq!(lazy_places::<BTreeMap<String, u8>>(), []);
    let inner = root.child("inner");
    assert_eq!(
        lazy_places::<Lazy>(),
        [
            inner.child("lines"),
            inner.child("other"),
            root.child("numbers")
        ]
    );
    // serde reads a struct with flattened fields as a map: it is read as a whole.
    assert_eq!(lazy_places::<Deep>(), []);
    let places = lazy_places::<Named>();
    assert!(places.contains(&root.child("renamed")));
    assert!(places.contains(&root.child("within").child("renamed")));
    assert!(places.len() <= 16, "types recurse: {places:?}");
}

/// A state and what is known of it, read lazily from leaves.
fn deferred<T: Serialize + DeserializeOwned>(stored: &Leaves) -> (T, Leaves, Ignored) {
    let places = lazy_places::<T>();
    let outside = |path: &Path| !places.iter().any(|at| at.contains(path) && at != path);
    let mut leaves: Leaves = stored
        .iter()
        .filter(|(path, _)| outside(path))
        .map(|(path, leaf)| (path.clone(), leaf.clone()))
        .collect();
    for place in &places {
        // Where nothing is stored there is nothing to defer.
        let deferred = leaves.defer(place);
        assert!(
            deferred
                || !stored
                    .iter()
                    .any(|(path, _)| place.contains(path) && place != path)
        );
    }
    let (state, ignored) = codec::load(&mut leaves).unwrap();
    (state, leaves, ignored)
}

fn leaves_of<T: Serialize + DeserializeOwned>(state: &T) -> Leaves {
    codec::encode(state, &Leaves::new(), &Ignored::none())
        .unwrap()
        .leaves
}

fn some_lines() -> Plain {
    let lines = ["a", "b", "c"].map(|key| (key.to_owned(), line(1)));
    Plain {
        inner: PlainInner {
            lines: lines.into(),
            other: Some(BTreeMap::from([("x".to_owned(), line(9))])),
        },
        ..Plain::default()
    }
}

#[test]
fn a_map_that_was_not_read_is_never_taken_for_a_whole_one() {
    let stored = leaves_of(&some_lines());
    let (state, leaves, _) = deferred::<Lazy>(&stored);
    let refused = codec::to_payload(&state).unwrap_err();
    assert!(refused.to_string().contains("not in memory"), "{refused}");
    assert!(codec::encode(&state, &Leaves::new(), &Ignored::none()).is_err());
    let missing = decode::<Lazy>(&leaves).unwrap_err();
    assert_eq!(missing.kind(), CodecErrorKind::Missing);
    let (missing, wants) = asking(|| state.inner.lines.contains_key("a"));
    assert!(missing.is_err());
    assert_eq!(wants.len(), 1);
    assert!(
        state.inner.lines.get("a").is_err(),
        "nobody asks, nothing is read"
    );
    assert_eq!(state.inner.lines.in_memory().count(), 0);
    assert_eq!(format!("{:?}", state.inner.lines), "{..}");
}

#[test]
fn a_map_that_was_not_read_cannot_be_moved() {
    let stored = leaves_of(&some_lines());
    let refused = |change: fn(&mut Lazy)| {
        let (mut state, leaves, ignored) = deferred::<Lazy>(&stored);
        change(&mut state);
        let refused = codec::update(&state, &leaves, &ignored).unwrap_err();
        assert_eq!(refused.kind(), CodecErrorKind::Refused, "{refused}");
    };
    refused(|state| state.inner.other = Some(state.inner.lines.clone()));
    refused(|state| {
        let other = state.inner.other.as_mut().unwrap();
        std::mem::swap(other, &mut state.inner.lines);
    });
    let (elsewhere, ..) = deferred::<Lazy>(&stored);
    let (mut state, leaves, ignored) = deferred::<Lazy>(&stored);
    state.inner.lines = elsewhere.inner.lines;
    assert!(codec::update(&state, &leaves, &ignored).is_err());
}

#[test]
fn what_replaces_a_map_that_was_not_read_clears_it() {
    let stored = leaves_of(&some_lines());
    let changed = |change: fn(&mut Lazy)| {
        let (mut state, leaves, ignored) = deferred::<Lazy>(&stored);
        change(&mut state);
        let update = codec::update(&state, &leaves, &ignored).unwrap();
        let mut written = stored.clone();
        written.apply(&update.changes);
        decode::<Plain>(&written).unwrap().value
    };
    let mut expected = some_lines();
    expected.inner.other = None;
    assert_eq!(changed(|state| state.inner.other = None), expected);
    let mut expected = some_lines();
    expected.inner.lines = BTreeMap::from([("b".to_owned(), line(2))]);
    let replace = |state: &mut Lazy| {
        state.inner.lines = LazyMap::from_iter([("b".to_owned(), line(2))]);
    };
    assert_eq!(changed(replace), expected);
    let clear = |state: &mut Lazy| {
        state.inner.lines.clear();
        state.inner.lines.insert("b".to_owned(), line(2));
    };
    assert_eq!(changed(clear), expected);
    let mut expected = some_lines();
    expected.inner = PlainInner::default();
    assert_eq!(
        changed(|state| state.inner = LazyInner::default()),
        expected
    );
}

/// A state of a newer version: with fields that [`Line`] does not have.
fn newer() -> Leaves {
    #[derive(Serialize, Deserialize)]
    struct Newer {
        title: u32,
        inner: NewerInner,
        numbers: BTreeMap<i64, u32>,
        hint: String,
    }
    #[derive(Serialize, Deserialize)]
    struct NewerInner {
        lines: BTreeMap<String, NewerLine>,
        other: Option<BTreeMap<String, NewerLine>>,
    }
    #[derive(Serialize, Deserialize)]
    struct NewerLine {
        amount: u32,
        notes: BTreeMap<String, String>,
        extra: u32,
    }
    let lines = ["a", "b", "c"].map(|key| {
        let (amount, notes, extra) = (1, BTreeMap::new(), 7);
        (
            key.to_owned(),
            NewerLine {
                amount,
                notes,
                extra,
            },
        )
    });
    leaves_of(&Newer {
        title: 0,
        inner: NewerInner {
            lines: lines.into(),
            other: None,
        },
        numbers: BTreeMap::new(),
        hint: "new".to_owned(),
    })
}

/// Answers wants from leaves.
fn answer(stored: &Leaves, wants: Vec<Want>, leaves: &mut Leaves, ignored: &mut Ignored) {
    for want in wants {
        let inside = stored.iter().filter(|(path, _)| {
            let below = want.collection.contains(path);
            let key = path.as_tuple().get(want.collection.as_tuple().len()..);
            let (from, to) = (&want.stretch.from, &want.stretch.to);
            key.is_some_and(|key| {
                below
                    && !key.is_empty()
                    && key >= &from[..]
                    && to.as_ref().is_none_or(|to| key < &to[..])
            })
        });
        let found = codec::lazy::Found {
            leaves: inside
                .map(|(path, leaf)| (path.clone(), leaf.clone()))
                .collect(),
            collection: want.collection.clone(),
            stretch: want.stretch.clone(),
        };
        codec::lazy::learn(leaves, ignored, found).unwrap();
    }
}

#[test]
fn fields_of_newer_versions_stay_with_entries_that_are_changed() {
    let stored = newer();
    let (state, mut leaves, mut ignored) = deferred::<Lazy>(&stored);
    assert_eq!(ignored.paths(), ["state.hint"]);
    let (_, wants) = asking(|| state.inner.lines.load(["a", "b"]).is_ok());
    answer(&stored, wants, &mut leaves, &mut ignored);
    let known = [
        "state.hint",
        "state.inner.lines.a.extra",
        "state.inner.lines.b.extra",
    ];
    assert_eq!(ignored.paths(), known);
    let mut state: Lazy = codec::restore(&leaves).unwrap();
    let lines = &mut state.inner.lines;
    lines.get_mut("a").unwrap().unwrap().amount = 5;
    lines.remove("b");
    lines.insert("c".to_owned(), line(3));
    let update = codec::update(&state, &leaves, &ignored).unwrap();
    let mut written = stored.clone();
    written.apply(&update.changes);
    let at = |key: &str| {
        Path::root()
            .child("inner")
            .child("lines")
            .child(key)
            .child("extra")
    };
    assert_eq!(written.get(&at("a")), stored.get(&at("a")));
    assert_eq!(written.get(&at("b")), None);
    // Nothing is known of what is written unread; it takes the place of all that is stored.
    assert_eq!(written.get(&at("c")), None);
    assert_eq!(update.ignored.paths(), known[..2]);
    let hint = Path::root().child("hint");
    assert_eq!(written.get(&hint), stored.get(&hint));
}

#[test]
fn a_container_that_is_written_afresh_leaves_the_maps_outside_of_it_alone() {
    #[derive(Serialize, Deserialize)]
    struct Before {
        apart: BTreeMap<String, u32>,
        group: BTreeMap<String, BTreeMap<String, u32>>,
    }
    #[derive(Serialize, Deserialize)]
    struct After {
        apart: LazyMap<String, u32>,
        group: Group,
    }
    #[derive(Serialize, Deserialize)]
    struct Group {
        map: LazyMap<String, u32>,
    }
    let entries = BTreeMap::from([("k".to_owned(), 1)]);
    let mut stored = leaves_of(&Before {
        apart: entries.clone(),
        group: BTreeMap::from([("map".to_owned(), entries)]),
    });
    // What is a map and not a struct is no place of a lazy collection.
    let group = Path::root().child("group");
    let mut leaves = stored.clone();
    assert!(!leaves.defer(&group.child("map")));
    let apart = Path::root().child("apart");
    let mut leaves: Leaves = stored
        .iter()
        .filter(|(path, _)| !apart.contains(path) || **path == apart)
        .map(|(path, leaf)| (path.clone(), leaf.clone()))
        .collect();
    assert!(leaves.defer(&apart));
    let (mut state, ignored) = codec::load::<After>(&mut leaves).unwrap();
    state.group.map.insert("l".to_owned(), 2);
    let update = codec::update(&state, &leaves, &ignored).unwrap();
    stored.apply(&update.changes);
    let entry = |map: &LazyMap<String, u32>, key: &str| map.get(key).unwrap().copied();
    let after = decode::<After>(&stored).unwrap().value;
    assert_eq!(entry(&after.apart, "k"), Some(1));
    assert_eq!(
        (entry(&after.group.map, "k"), entry(&after.group.map, "l")),
        (Some(1), Some(2))
    );
}

/// A type that makes something else of its map cannot leave it unread.
#[test]
fn a_type_that_does_not_keep_its_lazy_map_is_read_as_a_whole() {
    #[derive(Serialize, Deserialize)]
    #[serde(from = "Stored", into = "Stored")]
    #[derive(Clone)]
    struct Counted {
        entries: BTreeMap<u64, u64>,
    }
    #[derive(Clone, Serialize, Deserialize)]
    struct Stored {
        entries: LazyMap<u64, u64>,
    }
    impl From<Stored> for Counted {
        fn from(stored: Stored) -> Self {
            let entries = stored.entries.in_memory();
            Self {
                entries: entries.map(|(key, value)| (*key, *value)).collect(),
            }
        }
    }
    impl From<Counted> for Stored {
        fn from(counted: Counted) -> Self {
            Self {
                entries: counted.entries.into(),
            }
        }
    }
    let entries = Path::root().child("entries");
    assert_eq!(lazy_places::<Counted>(), std::slice::from_ref(&entries));
    let stored = leaves_of(&Counted {
        entries: BTreeMap::from([(1, 2)]),
    });
    let mut leaves = Leaves::new();
    for (path, leaf) in stored.iter().filter(|(path, _)| **path <= entries) {
        leaves.insert(path.clone(), leaf.clone());
    }
    assert!(leaves.defer(&entries));
    assert!(codec::load::<Counted>(&mut leaves).is_err());
    let mut whole = stored;
    let (counted, _) = codec::load::<Counted>(&mut whole).unwrap();
    assert_eq!(counted.entries, BTreeMap::from([(1, 2)]));
    assert!(!whole.is_partial());
}

#[test]
fn a_handler_inside_a_handler_asks_for_itself() {
    let (state, ..) = deferred::<Lazy>(&leaves_of(&some_lines()));
    let (inner, outer) = asking(|| {
        let _ = state.inner.lines.get("a");
        let (_, inner) = asking(|| state.numbers.get(&1).is_ok());
        let _ = state.inner.lines.get("b");
        inner.len()
    });
    assert_eq!((inner, outer.len()), (1, 2));
    let panicked = std::panic::catch_unwind(|| asking(|| panic!("on purpose")));
    assert!(panicked.is_err());
    assert!(
        state.numbers.get(&1).is_err(),
        "asking has ended, for nobody"
    );
}

#[test]
fn what_is_known_of_long_keys_is_counted_by_their_length() {
    let stored = leaves_of(&Plain::default());
    let (state, mut leaves, mut ignored) = deferred::<Lazy>(&stored);
    let long = |letter: &str| letter.repeat(9_000);
    let (_, wants) = asking(|| state.inner.lines.get(&long("a")).is_ok());
    answer(&stored, wants, &mut leaves, &mut ignored);
    assert!(leaves.loaded() >= 9_000, "{}", leaves.loaded());
    let state: Lazy = codec::restore(&leaves).unwrap();
    let (page, wants) = asking(|| state.inner.lines.range(long("b")..long("c"), 9).is_ok());
    assert!(!page);
    answer(&stored, wants, &mut leaves, &mut ignored);
    assert!(leaves.loaded() >= 27_000, "{}", leaves.loaded());
    let mut rest = leaves.without(&lazy_places::<Lazy>());
    assert_eq!(rest.loaded(), 0);
    let (state, _) = codec::load::<Lazy>(&mut rest).unwrap();
    let (known, _) = asking(|| state.inner.lines.get(&long("a")).is_ok());
    assert!(!known, "it is forgotten");
}

/// A field that is cheap to look into is found, however many fields others have.
#[test]
fn places_that_are_known_already_are_found_however_large_the_rest_is() {
    macro_rules! wide {
        ($($type:ident: $inner:ty),*) => {$(
            #[derive(Serialize, Deserialize)]
            struct $type {
                a: $inner, b: $inner, c: $inner, d: $inner, e: $inner, f: $inner, g: $inner,
                h: $inner, i: $inner, j: $inner, k: $inner, l: $inner,
            }
        )*};
    }
    wide!(Widest: u8, Wider: Widest, Wide: Wider);
    #[derive(Serialize, Deserialize)]
    struct State {
        wide: Wide,
        within: Within,
    }
    #[derive(Serialize, Deserialize)]
    struct Within {
        deeper: Deeper,
    }
    #[derive(Serialize, Deserialize)]
    struct Deeper {
        map: LazyMap<u64, u64>,
    }
    let place = Path::root().child("within").child("deeper").child("map");
    assert_eq!(lazy_places::<State>(), [place]);
}

#[test]
fn a_key_that_is_stored_under_another_name_is_refused_when_it_is_removed_unread() {
    #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    struct Shouted(String);
    impl AsElement for Shouted {
        fn as_element(&self) -> codec::PathElement<'_> {
            codec::PathElement::Str(self.0.to_uppercase().into())
        }
    }
    #[derive(Default, Serialize, Deserialize)]
    struct State {
        map: LazyMap<Shouted, u64>,
    }
    let stored = leaves_of(&State::default());
    let (mut state, leaves, ignored) = deferred::<State>(&stored);
    state.map.remove(&Shouted("a".to_owned()));
    let refused = codec::update(&state, &leaves, &ignored).unwrap_err();
    assert_eq!(refused.kind(), CodecErrorKind::Refused);
}

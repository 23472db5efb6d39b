//! Bytes that nobody wrote: a typed error that names the place, never a panic.

use super::{at, fresh};
use abide::codec::{
    CodecErrorKind, Ignored, Leaves, MAX_DEPTH, Path, decode, diff, encode, from_payload,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Any {
    Rows(Vec<Row>),
    Map(BTreeMap<String, Any>),
    Number(i64),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    id: String,
    n: Option<Box<Row>>,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State {
    any: Any,
    rows: Vec<Row>,
    map: BTreeMap<i64, (u8, String)>,
}

fn state() -> State {
    let row = |id: &str| Row {
        id: id.into(),
        n: None,
        rest: BTreeMap::from([("k".into(), 1)]),
    };
    State {
        any: Any::Map(BTreeMap::from([("x".into(), Any::Rows(vec![row("r")]))])),
        rows: vec![row("a"), row("b"), row("c")],
        map: BTreeMap::from([(-1, (1, "x".into())), (1, (2, "y".into()))]),
    }
}

/// Everything that a node does with leaves it did not write. Only errors, and soon.
fn use_all(leaves: &Leaves) {
    let _ = decode::<serde_json::Value>(leaves);
    if let Ok(decoded) = decode::<State>(leaves) {
        let _ = encode(&decoded.value, leaves, &decoded.ignored);
    }
    let ignored = decode::<BTreeMap<String, u8>>(leaves).map_or(Ignored::none(), |d| d.ignored);
    let Ok(next) = encode(&state(), leaves, &ignored) else {
        return;
    };
    let mut stored = leaves.clone();
    stored.apply(&diff(leaves, &next.leaves));
    assert_eq!(stored, next.leaves);
    let _ = diff(&next.leaves, leaves);
}

proptest! {
    #[test]
    fn mutated_leaves_never_panic(
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0..7_u8),
            1..6,
        )
    ) {
        let mut leaves: Vec<(Path, Vec<u8>)> =
            fresh(&state()).into_iter().map(|(path, bytes)| (path, bytes.to_vec())).collect();
        for (which, at, byte, kind) in edits {
            let other = leaves[at.index(leaves.len())].clone();
            let which = which.index(leaves.len());
            if kind == 0 && leaves.len() > 1 {
                leaves.remove(which);
                continue;
            }
            let (path, bytes) = &mut leaves[which];
            match kind {
                1 => bytes.insert(at.index(bytes.len() + 1), byte),
                2 if !bytes.is_empty() => drop(bytes.remove(at.index(bytes.len()))),
                3 if !bytes.is_empty() => {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                4 => *bytes = other.1,
                5 => *path = other.0.child("more"),
                _ => *path = path.child(u64::from(byte)),
            }
        }
        use_all(&leaves.into_iter().map(|(path, bytes)| (path, bytes.into())).collect());
    }

    #[test]
    fn random_payloads_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = from_payload::<State>(&bytes);
        let _ = from_payload::<serde_json::Value>(&bytes);
        use_all(&Leaves::from_iter([(Path::root(), bytes.into())]));
    }
}

fn kind_and_path(leaves: &Leaves) -> (CodecErrorKind, String) {
    let error = decode::<State>(leaves).unwrap_err();
    (error.kind(), error.path())
}

fn with(path: Path, bytes: &[u8]) -> Leaves {
    let mut leaves = fresh(&state());
    leaves.insert(path, bytes.to_vec().into());
    leaves
}

#[test]
fn errors_of_corrupt_leaves_name_them() {
    let corrupt = |path: &str| (CodecErrorKind::Corrupt, path.to_owned());
    // Cut off, reserved, trailing, not UTF-8.
    for bytes in [&[][..], &[0xd9, 200], &[0xc1], &[1, 2], &[0xa1, 0xff]] {
        assert_eq!(
            kind_and_path(&with(at!["map", 1_i64], bytes)),
            corrupt("state.map[1]")
        );
    }
    let below = at!["map", 1_i64, "below"];
    assert_eq!(
        kind_and_path(&with(below, &[1])),
        corrupt("state.map[1].below")
    );
    let orphan = at!["lost", "orphan"];
    assert_eq!(
        kind_and_path(&with(orphan, &[1])),
        corrupt("state.lost.orphan")
    );
    let number = at![1_u64];
    assert_eq!(kind_and_path(&with(number, &[1])), corrupt("state[1]"));
    let no_index = at!["rows", "a"];
    assert_eq!(
        kind_and_path(&with(no_index, b"\xc1m")),
        corrupt("state.rows.a")
    );
    let stray_index = at!["any"];
    assert_eq!(
        kind_and_path(&with(stray_index, b"\xc1m\x80")),
        corrupt("state.any")
    );
    assert_eq!(
        kind_and_path(&with(Path::root(), b"\xc1s\x80")),
        corrupt("state")
    );
    let mut headless = fresh(&state());
    headless.apply(&[abide::codec::Change::Clear(Path::root())]);
    assert_eq!(kind_and_path(&headless).0, CodecErrorKind::Corrupt);
}

#[test]
fn two_items_with_one_index_are_corrupt() {
    let leaves = fresh(&state());
    let index = leaves.get(&at!["rows", "a"]).unwrap().clone();
    let leaves = with(at!["rows", "b"], &index);
    assert_eq!(kind_and_path(&leaves).0, CodecErrorKind::Corrupt);
}

#[test]
fn no_leaves_are_no_state() {
    let error = decode::<State>(&Leaves::new()).unwrap_err();
    assert_eq!(error.kind(), CodecErrorKind::Missing);
}

#[test]
fn nesting_without_an_end_is_an_error() {
    for byte in [0x91, 0x81] {
        let leaves = Leaves::from_iter([(Path::root(), vec![byte; 100_000].into())]);
        let error = decode::<serde_json::Value>(&leaves).unwrap_err();
        assert_eq!(error.kind(), CodecErrorKind::Corrupt);
    }
    // As deep as paths may be, and then a leaf that nests on.
    let mut path = Path::root();
    let mut leaves = Leaves::new();
    for _ in 0..MAX_DEPTH {
        leaves.insert(path.clone(), b"\xc1m".to_vec().into());
        path = path.child("k");
    }
    leaves.insert(path, vec![0x91, 1].into());
    let error = decode::<serde_json::Value>(&leaves).unwrap_err();
    assert_eq!(error.kind(), CodecErrorKind::Corrupt);
    use_all(&leaves);
}

#[test]
fn lengths_that_lie_reserve_nothing() {
    for header in [0xdd, 0xdf, 0xdb, 0xc6, 0xc9] {
        let error =
            from_payload::<serde_json::Value>(&[header, 255, 255, 255, 255, 0]).unwrap_err();
        assert_eq!(error.kind(), CodecErrorKind::Corrupt);
    }
}

#[test]
fn two_entries_with_one_key_in_a_leaf_are_corrupt() {
    // The second time, the same key is spelled differently.
    for bytes in [
        &b"\x82\xa1a\x01\xa1a\x02"[..],
        b"\x82\xa1a\x01\xd9\x01a\x02",
    ] {
        let error = from_payload::<serde_json::Value>(bytes).unwrap_err();
        assert_eq!(
            (error.kind(), error.path().as_str()),
            (CodecErrorKind::Corrupt, "state.a")
        );
    }
    let unsorted = from_payload::<BTreeMap<String, u8>>(b"\x82\xa1b\x01\xa1a\x02").unwrap();
    assert_eq!(unsorted.len(), 2);
}

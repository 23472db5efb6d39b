//! The state codec, rule by rule (DESIGN, section 7).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, which clippy takes for other code"
)]

mod buffered;
mod depth;
mod faithful;
mod features;
mod foreign;
mod hostile;
mod properties;
mod shapes;
mod value;

use abide::codec::{
    Change, CodecError, CodecErrorKind, Encoded, Ignored, Leaves, Path, PathElement, decode, diff,
    encode,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

trait State: Serialize + DeserializeOwned {}
impl<T: Serialize + DeserializeOwned> State for T {}

/// The leaves of a new state.
fn fresh<T: State>(value: &T) -> Leaves {
    encode(value, &Leaves::new(), &Ignored::none())
        .unwrap()
        .leaves
}

/// What a turn does: decode what is stored, change it, write the difference.
fn turn<T: State>(stored: &mut Leaves, change: impl FnOnce(&mut T)) -> Vec<Change> {
    let mut decoded = decode::<T>(stored).unwrap();
    change(&mut decoded.value);
    let next = encode(&decoded.value, stored, &decoded.ignored).unwrap();
    let changes = diff(stored, &next.leaves);
    stored.apply(&changes);
    assert_eq!(*stored, next.leaves, "the diff is not the difference");
    let ignored = decode::<T>(stored).unwrap().ignored;
    assert_eq!(next.ignored, ignored, "a cached base is not the stored one");
    changes
}

fn round_trips<T: State + PartialEq + Debug>(value: &T) -> Leaves {
    let leaves = fresh(value);
    let decoded = decode::<T>(&leaves).unwrap();
    assert_eq!(decoded.value, *value);
    assert!(decoded.ignored.is_empty(), "{:?}", decoded.ignored.paths());
    let Encoded { leaves: again, .. } = encode(&decoded.value, &leaves, &decoded.ignored).unwrap();
    assert_eq!(diff(&leaves, &again), []);
    leaves
}

fn refusal<T: State>(value: &T) -> CodecError {
    encode(value, &Leaves::new(), &Ignored::none()).unwrap_err()
}

fn assert_refused<T: State>(value: &T, path: &str) {
    let error = refusal(value);
    assert_eq!(
        (error.kind(), error.path().as_str()),
        (CodecErrorKind::Refused, path),
        "{error}"
    );
}

/// The path of these elements: `at!["orders", 7, "price"]`.
macro_rules! at {
    ($($element:expr),* $(,)?) => {
        abide::codec::Path::root()$(.child($element))*
    };
}
use at;

/// The paths of the leaves, as text.
fn paths(leaves: &Leaves) -> Vec<String> {
    leaves.iter().map(|(path, _)| path.to_string()).collect()
}

fn touched(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| change.path().to_string())
        .collect()
}

fn last_name(path: &Path) -> Option<String> {
    match path.elements().last()? {
        PathElement::Str(name) => Some(name.into_owned()),
        PathElement::Int(_) => None,
    }
}

//! How deep values may be nested: what encodes must decode.

use super::{State, refusal, round_trips};
use abide::codec::{CodecErrorKind, MAX_DEPTH, from_payload, to_payload};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

mod chains {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) enum Tuple {
        End,
        More(Box<Tuple>, u8),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) enum Struct {
        End,
        More { inner: Box<Struct> },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) enum Newtype {
        End,
        More(Box<Newtype>),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Options {
        pub(super) inner: Option<Box<Options>>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Lists(pub(super) Vec<Lists>);
}

/// Checks that what encodes decodes, as a state and as a payload, up to the first that does not.
fn assert_deepest_decodes<T: State + PartialEq + Debug>(
    end: impl Fn() -> T,
    more: impl Fn(T) -> T,
) {
    for levels in 1.. {
        let value = (0..levels).fold(end(), |value, _| more(value));
        match to_payload(&value) {
            Ok(payload) => assert_eq!(from_payload::<T>(&payload).unwrap(), value),
            Err(error) => {
                assert_eq!(error.kind(), CodecErrorKind::TooDeep);
                assert_eq!(refusal(&value).kind(), CodecErrorKind::TooDeep);
                assert!(levels >= MAX_DEPTH / 2, "only {levels} levels encode");
                return;
            }
        }
        round_trips(&value);
    }
}

#[test]
fn the_deepest_value_that_encodes_decodes() {
    use chains::{Lists, Newtype, Options, Struct, Tuple};
    assert_deepest_decodes(|| Tuple::End, |inner| Tuple::More(inner.into(), 1));
    assert_deepest_decodes(
        || Struct::End,
        |inner| Struct::More {
            inner: inner.into(),
        },
    );
    assert_deepest_decodes(|| Newtype::End, |inner| Newtype::More(inner.into()));
    assert_deepest_decodes(
        || Options { inner: None },
        |inner| Options {
            inner: Some(inner.into()),
        },
    );
    assert_deepest_decodes(|| Lists(Vec::new()), |inner| Lists(vec![inner]));
}

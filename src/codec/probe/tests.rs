use super::may_buffer;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, SystemTime};

#[derive(Deserialize)]
#[allow(dead_code, reason = "only its shape is looked at")]
struct Plain<T> {
    id: IpAddr,
    number: NonZeroU8,
    inner: Option<Vec<T>>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "only its shape is looked at")]
enum Choice<T> {
    Unit,
    Newtype(Box<Choice<T>>),
    Tuple(u8, HashMap<String, T>),
    Record { when: SystemTime, inner: T },
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "only its shape is looked at")]
struct Tree<T>(Vec<Tree<T>>, T);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    A(u8),
    B(u64),
}

#[derive(Deserialize)]
#[serde(tag = "t")]
#[allow(dead_code, reason = "only its shape is looked at")]
enum Internal {
    A { a: u8 },
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "only its shape is looked at")]
struct Flat {
    a: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "only its shape is looked at")]
enum PartlyUntagged {
    A,
    #[serde(untagged)]
    Other(String),
}

#[test]
fn types_that_serde_reads_straight_have_no_buffers() {
    assert!(!may_buffer::<()>());
    assert!(!may_buffer::<Plain<u8>>());
    assert!(!may_buffer::<Choice<Plain<Duration>>>());
    assert!(!may_buffer::<Tree<Choice<String>>>());
    assert!(!may_buffer::<(u128, [char; 3], BTreeMap<(u8, bool), f32>)>());
}

#[test]
fn buffers_are_found_wherever_they_are() {
    assert!(may_buffer::<Untagged>());
    assert!(may_buffer::<Internal>());
    assert!(may_buffer::<Flat>());
    assert!(may_buffer::<PartlyUntagged>());
    assert!(may_buffer::<crate::codec::Value>());
    assert!(may_buffer::<Plain<Untagged>>());
    assert!(may_buffer::<Choice<Flat>>());
    assert!(may_buffer::<Tree<Internal>>());
    assert!(may_buffer::<BTreeMap<u8, Untagged>>());
    // The same struct with other parameters is another type.
    assert!(may_buffer::<Choice<(Vec<Plain<u8>>, Plain<Untagged>)>>());
    assert!(may_buffer::<HashMap<IpAddr, Untagged>>());
}

#[test]
fn a_type_without_an_end_is_bounded() {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape is looked at")]
    struct Endless(Box<Endless>);
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape is looked at")]
    struct Chain {
        next: Option<Box<Chain>>,
        other: Vec<Chain>,
    }
    assert!(!may_buffer::<Endless>());
    assert!(!may_buffer::<Chain>());
}

//! What is done to arbitrary bytes: one function for each target of `fuzz/`.
//!
//! Each reads bytes as the crate reads what comes from a store, a network or a file. Errors are fine;
//! a panic is a finding, and so is memory or time without bound, which the fuzzer watches. What is
//! read without an error must say the same once it was written and read again; a target panics if it
//! does not. Not part of the interface: it may change in any release.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a target panics where a property does not hold"
)]

mod seeds;
mod stored;

pub use stored::{import_lines, rows};

use crate::codec::{self, Leaves, MAX_DEPTH, Path, Value};
use crate::durable::attempts::Attempts;
use crate::durable::chunk::Assembler;
use crate::durable::dead::DeadLetter;
use crate::durable::keys::Keys;
use crate::durable::message::Message;
use crate::durable::pause::Paused;
use crate::durable::reply::Answer;
use crate::durable::session::Heartbeat;
use crate::durable::value;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// A target: its name, what it does, inputs that reach its depths, and whether an input takes it
/// microseconds only.
#[derive(Debug, Clone)]
pub struct Target {
    /// The name of its file in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Takes one input.
    pub run: fn(&[u8]),
    /// What mutation begins with.
    pub seeds: Vec<Vec<u8>>,
    /// Whether it works on bytes alone, without a store.
    pub is_fast: bool,
}

/// All targets.
#[must_use]
pub fn targets() -> Vec<Target> {
    let target = |name, run, seeds, is_fast| Target {
        name,
        run,
        seeds,
        is_fast,
    };
    vec![
        target("keys", keys as fn(&[u8]), seeds::keys(), true),
        target("messages", messages, seeds::messages(), true),
        target("replies", replies, seeds::replies(), true),
        target("leaves", leaves, seeds::leaves(), true),
        target("json", json, seeds::json(), true),
        target("import_lines", import_lines, seeds::import_lines(), false),
        target("rows", rows, seeds::rows(), false),
    ]
}

/// A key of a namespace, and the path of a leaf.
pub fn keys(input: &[u8]) {
    let keys = Keys::new(Keys::namespace_prefix("fuzz"), 64);
    // What decodes is what was written: the decoder itself compares.
    let _ = keys.decode(input);
    let prefixed = [keys.all().begin.as_ref(), input].concat();
    let _ = keys.decode(&prefixed);
    if let Ok(path) = Path::from_tuple(input) {
        let built = path
            .elements()
            .fold(Path::root(), |path, element| path.child(element));
        assert_eq!(built, path, "another path");
        assert_eq!(built.as_tuple(), path.as_tuple(), "spelled otherwise");
        let _ = path.to_string();
    }
}

/// The records of a mailbox and what stands beside it.
pub fn messages(input: &[u8]) {
    record::<Message>(input);
    record::<DeadLetter>(input);
    record::<Attempts>(input);
    record::<Paused>(input);
    record::<Heartbeat>(input);
    payload(input);
}

/// What is sent to callers, in chunks too.
pub fn replies(input: &[u8]) {
    record::<Answer>(input);
    payload(input);
    let mut assembler = Assembler::default();
    for (chunk, row) in (0..).zip(input.chunks(64)) {
        if assembler
            .add(b"key", chunk, Bytes::copy_from_slice(row))
            .is_err()
        {
            return;
        }
    }
    if let Ok(whole) = assembler.finish(b"key") {
        assert!(whole.len() <= input.len());
        record::<Answer>(&whole);
    }
}

/// A record under a key, which reads the same once it was written again.
fn record<T: Serialize + DeserializeOwned + PartialEq + Debug>(stored: &[u8]) {
    if let Ok(record) = value::decode::<T>(b"key", stored) {
        let again = value::encode(&record).expect("what was read can be written");
        let again = value::decode::<T>(b"key", &again).expect("what was written can be read");
        assert_eq!(again, record);
    }
}

fn payload(input: &[u8]) {
    let _ = codec::from_payload::<State>(input);
    let Ok(value) = Value::from_payload(input) else {
        return;
    };
    let again = value.to_payload().expect("what was read can be written");
    assert_eq!(Value::from_payload(&again).unwrap(), value);
    told_as_json(&value);
}

fn told_as_json(value: &Value) {
    let json = value.to_json().expect("any value has a form as JSON");
    assert_eq!(&Value::from_json(&json).unwrap(), value, "{json}");
}

/// A value as people write it.
pub fn json(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(value) = Value::from_json(text) {
        told_as_json(&value);
        if let Ok(payload) = value.to_payload() {
            assert_eq!(Value::from_payload(&payload).unwrap(), value);
        }
        let _ = value.to_typed::<State>();
    }
}

/// A type with what serde knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    name: String,
    count: u64,
    small: i8,
    ratio: f64,
    wide: u128,
    perhaps: Option<Box<State>>,
    items: Vec<Item>,
    numbers: BTreeMap<i64, (u8, String)>,
    form: Form,
    either: Either,
    #[serde(with = "serde_bytes")]
    blob: Vec<u8>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Item {
    id: String,
    n: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
enum Form {
    #[default]
    Unit,
    New(u16),
    Pair(i32, String),
    Named {
        x: f32,
        y: Option<bool>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Either {
    Number(i64),
    Text(String),
    Many(Vec<Either>),
}

impl Default for Either {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// Leaves that nobody need have written, read as several types and written again.
pub fn leaves(input: &[u8]) {
    let leaves = unpacked(input);
    type_of::<State>(&leaves);
    type_of::<Vec<Item>>(&leaves);
    type_of::<BTreeMap<String, u64>>(&leaves);
    type_of::<Either>(&leaves);
    if let Ok(value) = Value::from_leaves(&leaves) {
        told_as_json(&value);
    }
}

fn type_of<T: Serialize + DeserializeOwned>(stored: &Leaves) {
    let Ok(decoded) = codec::decode::<T>(stored) else {
        return;
    };
    let Ok(next) = codec::encode(&decoded.value, stored, &decoded.ignored) else {
        return;
    };
    let mut applied = stored.clone();
    applied.apply(&codec::diff(stored, &next.leaves));
    assert_eq!(applied, next.leaves, "the difference is another one");
    assert!(
        codec::decode::<T>(&next.leaves).is_ok(),
        "what was written cannot be read"
    );
}

/// Leaves from an input: the length of a path, the path, the length of the bytes, the bytes.
fn unpacked(mut input: &[u8]) -> Leaves {
    let mut leaves = Leaves::new();
    while let Some((path, rest)) = field(input) {
        let Some((bytes, rest)) = field(rest) else {
            break;
        };
        input = rest;
        if let Ok(path) = Path::from_tuple(path) {
            leaves.insert(path, Bytes::copy_from_slice(bytes));
        }
    }
    leaves
}

/// The counterpart of [`unpacked`].
fn packed(leaves: &Leaves) -> Vec<u8> {
    let mut input = Vec::new();
    for (path, bytes) in leaves.iter() {
        put_field(&mut input, path.as_tuple());
        put_field(&mut input, bytes);
    }
    input
}

/// A length of two bytes and so many bytes; fewer if there are no more.
fn field(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    Some(rest.split_at(length.min(rest.len())))
}

fn put_field(input: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("a seed is short");
    input.extend_from_slice(&length.to_be_bytes());
    input.extend_from_slice(bytes);
}

/// A value that is nested as deep as may be, and one level more.
fn deep() -> [Vec<u8>; 2] {
    [MAX_DEPTH, MAX_DEPTH + 1].map(|depth| [vec![0x91; depth], vec![0xc0]].concat())
}

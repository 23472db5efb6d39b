//! Inputs that are as the crate writes them: what mutation begins with.

use super::stored::slots;
use super::{Either, Form, Item, State, deep, packed, put_field};
use crate::codec::{self, Ignored, Leaves, Value};
use crate::durable::LAYOUT;
use crate::durable::attempts::Attempts;
use crate::durable::dead::DeadLetter;
use crate::durable::keys::{Keys, Lane, SessionId};
use crate::durable::message::{CallId, Failed, Message};
use crate::durable::pause::Paused;
use crate::durable::reply::Answer;
use crate::durable::session::Heartbeat;
use crate::durable::value;
use crate::store::CommitStamp;
use crate::trace::TraceParent;
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;

pub(super) fn keys() -> Vec<Vec<u8>> {
    let keys = Keys::new(Keys::namespace_prefix("fuzz"), 64);
    let mut seeds = slots(&keys);
    seeds.push(keys.wake(63).to_vec());
    let leaves = leaves_of(&state());
    seeds.extend(leaves.iter().map(|(path, _)| path.as_tuple().to_vec()));
    seeds
}

fn record<T: Serialize>(record: &T) -> Vec<u8> {
    value::encode(record).expect("a seed has an encoding")
}

fn message() -> Message {
    Message {
        name: "add".into(),
        payload: codec::to_payload(&state()).expect("a seed has an encoding"),
        call: Some(CallId {
            session: SessionId::from_bytes([7; 16]),
            call: 300,
        }),
        query: true,
        sender: Some(SessionId::from_bytes([8; 16])),
        sent_ms: 1_700_000_000_000,
        trace: TraceParent::new([10; 16], [11; 8], 1),
        failed: Some(Failed {
            attempts: 1,
            error: "it failed".to_owned(),
        }),
        deadline_ms: Some(5),
        idempotency_key: Some(Bytes::from_static(b"once")),
    }
}

fn letter() -> DeadLetter {
    DeadLetter {
        message: message(),
        lane: Lane::Priority,
        incarnation: 1,
        error: "it failed".to_owned(),
        attempts: 5,
        first_failed_ms: 1,
        dead_ms: 2,
    }
}

fn attempts() -> Attempts {
    Attempts {
        attempts: 3,
        claim: Some(SessionId::from_bytes([9; 16])),
        error: "it failed".to_owned(),
        ..Attempts::fresh(CommitStamp::from_bytes([1; 10]).with_user(1))
    }
}

fn paused() -> Paused {
    Paused {
        since_ms: 1,
        reason: "why".to_owned(),
    }
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        nonce: u64::MAX,
        kinds: vec!["one".to_owned(), "two".to_owned()],
        opened_ms: 1,
    }
}

pub(super) fn messages() -> Vec<Vec<u8>> {
    let plain = Message {
        call: None,
        sender: None,
        trace: None,
        deadline_ms: None,
        idempotency_key: None,
        ..message()
    };
    let mut seeds = vec![
        record(&message()),
        record(&plain),
        record(&letter()),
        record(&attempts()),
        record(&paused()),
        record(&heartbeat()),
    ];
    seeds.extend(deep());
    seeds.push(message().payload.to_vec());
    seeds
}

pub(super) fn replies() -> Vec<Vec<u8>> {
    let answers = [
        Answer::Reply(message().payload),
        Answer::Rejected("no".to_owned()),
        Answer::DeadLetter("it failed".to_owned()),
        Answer::Killed,
        Answer::Failed("unknown".to_owned()),
    ];
    let mut seeds: Vec<Vec<u8>> = answers.iter().map(record).collect();
    let chunked = seeds.iter().map(|answer| {
        let count = u16::try_from((answer.len() + 2).div_ceil(64)).unwrap_or(1);
        [&count.to_be_bytes()[..], answer].concat()
    });
    let chunked: Vec<Vec<u8>> = chunked.collect();
    seeds.extend(chunked);
    seeds.extend(deep());
    seeds
}

fn state() -> State {
    let item = |id: &str, note: Option<&str>| Item {
        id: id.to_owned(),
        n: 7,
        note: note.map(str::to_owned),
    };
    let inner = State {
        form: Form::Pair(-1, "p".to_owned()),
        either: Either::Text("e".to_owned()),
        ..State::default()
    };
    State {
        name: "name".to_owned(),
        count: u64::MAX,
        small: -1,
        ratio: 0.5,
        wide: 1 << 70,
        perhaps: Some(Box::new(inner)),
        items: vec![item("a", None), item("b", Some("n")), item("c", None)],
        numbers: BTreeMap::from([(-1, (1, "x".to_owned())), (70_000, (2, "y".to_owned()))]),
        form: Form::Named {
            x: 1.5,
            y: Some(true),
        },
        either: Either::Many(vec![Either::Number(1), Either::Text("t".to_owned())]),
        blob: vec![0, 255],
        rest: BTreeMap::from([("more".to_owned(), Value::Bytes(vec![1]))]),
    }
}

fn leaves_of<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> Leaves {
    codec::encode(value, &Leaves::new(), &Ignored::none())
        .expect("a seed has an encoding")
        .leaves
}

pub(super) fn leaves() -> Vec<Vec<u8>> {
    let plain = State {
        wide: 3,
        rest: BTreeMap::new(),
        ..state()
    };
    vec![
        packed(&leaves_of(&plain)),
        packed(&leaves_of(&State::default())),
        packed(&leaves_of(&plain.items)),
        packed(&leaves_of(&plain.either)),
        packed(&leaves_of(&BTreeMap::from([
            ("a".to_owned(), 1_u64),
            ("b".to_owned(), 2),
        ]))),
    ]
}

pub(super) fn json() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"a":[1,-2,3.5,null,true,"t\u00e9\n"],"b":{}}"#,
        r#"{"$bytes":"3q2+7w=="}"#,
        r#"{"$int":"340282366920938463463374607431768211455"}"#,
        r#"[{"$float":"NaN"},{"$float":"0x7ff8000000000001"},{"$f32":1.5}]"#,
        r#"{"$map":[[1,"one"],["$x",2],[{"$ext":[7,"AQI="]},[]]]}"#,
        r#"{"name":"n","count":1,"items":[{"id":"a","n":1}],"form":{"New":3},"either":[1]}"#,
        "18446744073709551615",
        "-1.7976931348623157e308",
    ];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    seeds.push([vec![b'['; 300], vec![b']'; 300]].concat());
    seeds
}

/// An export as it is written, and one that lacks its end.
pub(super) fn import_lines() -> Vec<Vec<u8>> {
    let message = Value::from_typed(&Message {
        call: None,
        ..message()
    });
    let letter = Value::from_typed(&letter());
    let text = |value: Result<Value, codec::CodecError>| {
        let value = value.and_then(|value| value.to_json());
        value.expect("a seed has an encoding")
    };
    let (message, letter) = (text(message), text(letter));
    let lines = [
        r#"{"header":{"format":"abide-export","version":1,"id":"one","namespace":"n","exported_ms":1}}"#,
        r#"{"kind_paused":{"kind":"other","pause":{"since_ms":1,"reason":"why"}}}"#,
        r#"{"instance":{"kind":"kind","id":"id","created_ms":1,"schema":1}}"#,
        r#"{"paused":{"pause":{"since_ms":1,"reason":"why"}}}"#,
        r#"{"leaf":{"path":{"$bytes":""},"bytes":{"$bytes":"wXM="}}}"#,
        r#"{"leaf":{"path":{"$bytes":"Am5hbWUA"},"bytes":{"$bytes":"pG5hbWU="}}}"#,
        &format!(r#"{{"message":{{"lane":"ordinary","message":{message}}}}}"#),
        &format!(r#"{{"dead":{letter}}}"#),
        r#""instance_end""#,
        r#"{"instance":{"kind":"kind","id":"2","created_ms":null,"schema":null}}"#,
        &format!(r#"{{"message":{{"lane":"priority","message":{message}}}}}"#),
        r#""instance_end""#,
        r#"{"end":{"records":12}}"#,
    ];
    let whole = lines.join("\n");
    let cut = lines.get(..6).unwrap_or_default().join("\n");
    vec![whole.into_bytes(), cut.into_bytes()]
}

/// What a namespace says of itself.
fn description(shards: u32) -> BTreeMap<&'static str, u32> {
    BTreeMap::from([("layout", LAYOUT), ("shards", shards), ("incarnation", 1)])
}

/// A plausible value under every key, and the same value under all of them.
pub(super) fn rows() -> Vec<Vec<u8>> {
    let chunk = |value: Vec<u8>| [&1_u16.to_be_bytes()[..], &value].concat();
    let version = [&[1, 0, 0, 0, 1][..], &[1; 10]].concat();
    let mark = [&[1][..], &[1; 10]].concat();
    let created = value::encode(&BTreeMap::from([("created_ms", 1_u64)]));
    let lock = BTreeMap::from([("nonce", 1_u64), ("attempts", 1), ("taken_ms", 1)]);
    let mut header = record(&lock);
    header.splice(1..1, [1; 10]);
    let values = [
        (0, chunk(record(&message()))),
        (2, chunk(record(&message()))),
        (3, 2_i64.to_le_bytes().to_vec()),
        (4, version),
        (5, header),
        (6, chunk(record(&message()))),
        (8, record(&attempts())),
        (10, chunk(record(&letter()))),
        (12, record(&paused())),
        (13, mark),
        (14, record(&paused())),
        (15, created.expect("a seed has an encoding")),
        (17, record(&heartbeat())),
        (18, chunk(record(&Answer::Killed))),
        (20, vec![1; 19]),
        (21, chunk(vec![0xc1, b's'])),
        (22, chunk(vec![0xa1, b'n'])),
        (26, record(&description(3))),
    ];
    let mut all = Vec::new();
    for (slot, value) in &values {
        all.push(*slot);
        put_field(&mut all, value);
    }
    let everywhere = |value: &[u8]| {
        let mut input = Vec::new();
        for slot in 0..27 {
            input.push(slot);
            put_field(&mut input, value);
        }
        input
    };
    let described = |shards: u32| {
        let mut input = vec![26];
        put_field(&mut input, &record(&description(shards)));
        input
    };
    vec![
        all,
        everywhere(&record(&message())),
        everywhere(b""),
        described(64),
        described(u32::MAX),
    ]
}

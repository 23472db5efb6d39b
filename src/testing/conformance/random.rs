//! Random transactions that compete, checked against an independent model.
//!
//! Every transaction notes what it read and wrote, and every commit its stamp. Afterwards the
//! committed transactions are replayed one after the other, in stamp order, on a plain map:
//!
//! - each serializable read of a transaction that wrote must return what the map holds at its
//!   place in the order;
//! - each read of any transaction, snapshot reads included, must return what the map held at its
//!   read version, with the transaction's own writes so far on top;
//! - the map at the end must be the content of the store.

use super::harness::{Space, get};
use crate::env::Env;
use crate::store::{CommitStamp, Isolation, KeyRange, RangeRead, StoreError, Tx, Version};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

const TASKS: u64 = 8;
const TRANSACTIONS_PER_TASK: u64 = 700;
/// Few keys, so that transactions meet.
const NAMES: [&str; 8] = ["a", "aa", "b", "c", "ca", "d", "e", "f"];

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Something that a transaction did. Keys are without the case's prefix.
#[derive(Debug, Clone)]
enum Step {
    Get {
        key: Vec<u8>,
        isolation: Isolation,
        seen: Option<Vec<u8>>,
    },
    Range {
        begin: Vec<u8>,
        end: Vec<u8>,
        limit: usize,
        reverse: bool,
        isolation: Isolation,
        seen: Pairs,
    },
    Set {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Clear {
        key: Vec<u8>,
    },
    ClearRange {
        begin: Vec<u8>,
        end: Vec<u8>,
    },
    Add {
        key: Vec<u8>,
        operand: u32,
    },
    CompareAndClear {
        key: Vec<u8>,
        expected: Vec<u8>,
    },
}

/// A transaction that ended well.
#[derive(Debug)]
struct Record {
    read_version: Version,
    /// `None` if it only read.
    stamp: Option<CommitStamp>,
    steps: Vec<Step>,
}

pub(super) async fn random_transactions_equal_a_serial_replay_in_stamp_order(space: Space) {
    let seed = match std::env::var("ABIDE_SEED") {
        Ok(seed) => seed.parse().expect("ABIDE_SEED is a number"),
        Err(_) => space.env().random(),
    };
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let space = space.clone();
            let rng = StdRng::seed_from_u64(seed ^ task.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            tokio::spawn(compete(space, task, rng))
        })
        .collect();
    let mut records = Vec::new();
    for task in tasks {
        records.extend(
            task.await
                .unwrap_or_else(|error| panic!("seed {seed}: {error}")),
        );
    }
    let committed = records
        .iter()
        .filter(|record| record.stamp.is_some())
        .count();
    assert!(
        committed >= 2_000,
        "seed {seed}: only {committed} transactions got through"
    );
    let content = space.begin().get_range(names(&space)).await.unwrap();
    let content: Model = content
        .iter()
        .map(|row| (space.name(&row.key).to_vec(), row.value.to_vec()))
        .collect();
    if let Err(wrong) = check(&mut records, &content) {
        panic!("not serializable (ABIDE_SEED={seed}): {wrong}");
    }
}

/// The part of the space that the steps touch; the outcome markers lie behind it.
fn names(space: &Space) -> RangeRead {
    space.range("a", "g").read()
}

async fn compete(space: Space, task: u64, mut rng: StdRng) -> Vec<Record> {
    let mut records = Vec::new();
    for number in 0..TRANSACTIONS_PER_TASK {
        let marker = space.key(format!("marker/{task}/{number}"));
        match transaction(&space, &marker, &mut rng).await {
            Ok(record) => records.push(record),
            Err((error, _)) if error.is_retryable() => {}
            Err((error, Some(mut record))) if error.is_maybe_committed() => {
                // Landed or not: the marker that it wrote knows, and the stamp with it.
                let found = get(&space.begin(), &marker).await;
                if let Some(found) = found {
                    record.stamp = Some(CommitStamp::from_bytes(found[..].try_into().unwrap()));
                    records.push(record);
                }
            }
            Err((error, _)) => panic!("an error that nothing explains: {error}"),
        }
    }
    records
}

async fn transaction(
    space: &Space,
    marker: &[u8],
    rng: &mut StdRng,
) -> Result<Record, (StoreError, Option<Record>)> {
    let tx = space.begin();
    let early = |error| (error, None);
    let read_version = tx.read_version().await.map_err(early)?;
    let read_only = rng.random_ratio(1, 6);
    let mut steps = Vec::new();
    for _ in 0..rng.random_range(1..=6) {
        let kind = rng.random_range(0..if read_only { 2 } else { 7 });
        steps.push(step(space, &tx, kind, rng).await.map_err(early)?);
    }
    if !read_only {
        tx.set_versionstamped_value(marker, &[0; CommitStamp::LEN], 0);
    }
    let committed = tx.commit().await;
    let mut record = Record {
        read_version,
        stamp: None,
        steps,
    };
    match committed {
        Ok(commit) => {
            record.stamp = commit.map(|commit| commit.stamp);
            assert_eq!(record.stamp.is_none(), read_only);
            Ok(record)
        }
        Err(error) => Err((error, Some(record))),
    }
}

async fn step(space: &Space, tx: &Tx, kind: u32, rng: &mut StdRng) -> Result<Step, StoreError> {
    let key = |rng: &mut StdRng| NAMES[rng.random_range(0..NAMES.len())].as_bytes().to_vec();
    let bounds = |rng: &mut StdRng| {
        let (a, b) = (key(rng), key(rng));
        if a <= b { (a, b) } else { (b, a) }
    };
    let isolation = if rng.random_ratio(1, 5) {
        Isolation::Snapshot
    } else {
        Isolation::Serializable
    };
    let small = |rng: &mut StdRng| rng.random_range(0..4_u32).to_le_bytes().to_vec();
    Ok(match kind {
        0 => {
            let key = key(rng);
            let seen = tx
                .get(&space.key(&key), isolation)
                .await?
                .map(|value| value.to_vec());
            Step::Get {
                key,
                isolation,
                seen,
            }
        }
        1 => {
            let (begin, end) = bounds(rng);
            let (limit, reverse) = (rng.random_range(1..=5), rng.random());
            let range = KeyRange::new(space.key(&begin), space.key(&end));
            let read = RangeRead {
                range,
                limit,
                reverse,
                isolation,
            };
            let rows = tx.get_range(read).await?;
            let pair = |key: &Bytes, value: &Bytes| (space.name(key).to_vec(), value.to_vec());
            let seen = rows.iter().map(|row| pair(&row.key, &row.value)).collect();
            Step::Range {
                begin,
                end,
                limit,
                reverse,
                isolation,
                seen,
            }
        }
        2 | 3 => {
            let (key, value) = (key(rng), small(rng));
            tx.set(&space.key(&key), &value);
            Step::Set { key, value }
        }
        4 => {
            let key = key(rng);
            tx.clear(&space.key(&key));
            Step::Clear { key }
        }
        5 if rng.random_ratio(1, 3) => {
            let (begin, end) = bounds(rng);
            tx.clear_range(&KeyRange::new(space.key(&begin), space.key(&end)));
            Step::ClearRange { begin, end }
        }
        5 => {
            let (key, operand) = (key(rng), rng.random_range(0..3_u32));
            tx.add(&space.key(&key), &operand.to_le_bytes());
            Step::Add { key, operand }
        }
        _ => {
            let (key, expected) = (key(rng), small(rng));
            tx.compare_and_clear(&space.key(&key), &expected);
            Step::CompareAndClear { key, expected }
        }
    })
}

/// Replays the records; says what does not fit.
fn check(records: &mut [Record], content: &Model) -> Result<(), String> {
    records.sort_by_key(|record| record.stamp);
    let (readers, writers): (Vec<&Record>, Vec<&Record>) =
        records.iter().partition(|record| record.stamp.is_none());
    let mut history = vec![(Version(0), Model::new())];
    let mut model = Model::new();
    for record in &writers {
        replay(&mut model, &record.steps, &[Isolation::Serializable])
            .map_err(|wrong| format!("at its place in the order, {record:?} {wrong}"))?;
        let version = record.stamp.map_or(Version(0), |stamp| stamp.version());
        history.push((version, model.clone()));
    }
    for record in writers.iter().chain(&readers) {
        let at = history.partition_point(|(version, _)| *version <= record.read_version);
        let mut seen = history[at - 1].1.clone();
        replay(
            &mut seen,
            &record.steps,
            &[Isolation::Serializable, Isolation::Snapshot],
        )
        .map_err(|wrong| format!("at its read version, {record:?} {wrong}"))?;
    }
    if model != *content {
        return Err(format!(
            "the store ends with {content:?}, the model with {model:?}"
        ));
    }
    Ok(())
}

/// Applies steps to the model, and checks the reads of the given isolations.
fn replay(model: &mut Model, steps: &[Step], checked: &[Isolation]) -> Result<(), String> {
    for step in steps {
        match step {
            Step::Get {
                key,
                isolation,
                seen,
            } => {
                let expected = model.get(key);
                if checked.contains(isolation) && seen.as_ref() != expected {
                    return Err(format!("should have read {expected:?} in {step:?}"));
                }
            }
            Step::Range {
                begin,
                end,
                limit,
                reverse,
                isolation,
                seen,
            } => {
                let range = model.range(begin.clone()..end.clone());
                let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
                let expected: Pairs = if *reverse {
                    range.rev().take(*limit).map(pair).collect()
                } else {
                    range.take(*limit).map(pair).collect()
                };
                if checked.contains(isolation) && *seen != expected {
                    return Err(format!("should have read {expected:?} in {step:?}"));
                }
            }
            Step::Set { key, value } => {
                model.insert(key.clone(), value.clone());
            }
            Step::Clear { key } => {
                model.remove(key);
            }
            Step::ClearRange { begin, end } => {
                model.retain(|key, _| key < begin || key >= end);
            }
            Step::Add { key, operand } => {
                let stored = model.get(key).map_or(0, |value| {
                    let mut bytes = [0; 4];
                    bytes
                        .iter_mut()
                        .zip(value)
                        .for_each(|(to, from)| *to = *from);
                    u32::from_le_bytes(bytes)
                });
                model.insert(
                    key.clone(),
                    stored.wrapping_add(*operand).to_le_bytes().to_vec(),
                );
            }
            Step::CompareAndClear { key, expected } => {
                if model.get(key) == Some(expected) {
                    model.remove(key);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(version: u64, read_version: u64, steps: Vec<Step>) -> Record {
        let stamp = Some(CommitStamp::new(Version(version), 0));
        Record {
            read_version: Version(read_version),
            stamp,
            steps,
        }
    }

    fn get(seen: Option<&[u8]>) -> Step {
        let seen = seen.map(<[u8]>::to_vec);
        Step::Get {
            key: b"a".to_vec(),
            isolation: Isolation::Serializable,
            seen,
        }
    }

    fn set(value: &[u8]) -> Step {
        Step::Set {
            key: b"a".to_vec(),
            value: value.to_vec(),
        }
    }

    fn holds(value: &[u8]) -> Model {
        Model::from([(b"a".to_vec(), value.to_vec())])
    }

    #[test]
    fn the_check_accepts_a_serial_history() {
        let mut records = [
            writer(10, 5, vec![get(None), set(b"1")]),
            writer(20, 10, vec![get(Some(b"1")), set(b"2")]),
        ];
        check(&mut records, &holds(b"2")).unwrap();
    }

    #[test]
    fn the_check_finds_a_lost_update() {
        let mut records = [
            writer(10, 5, vec![get(None), set(b"1")]),
            writer(20, 5, vec![get(None), set(b"2")]),
        ];
        check(&mut records, &holds(b"2")).unwrap_err();
    }

    #[test]
    fn the_check_finds_a_read_from_the_future() {
        let mut records = [
            writer(10, 5, vec![set(b"1")]),
            Record {
                read_version: Version(9),
                stamp: None,
                steps: vec![get(Some(b"1"))],
            },
        ];
        check(&mut records, &holds(b"1")).unwrap_err();
    }

    #[test]
    fn the_check_finds_a_lost_write() {
        check(&mut [writer(10, 5, vec![set(b"1")])], &Model::new()).unwrap_err();
    }
}

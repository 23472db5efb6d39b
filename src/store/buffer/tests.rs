//! The buffer against a model: apply the mutations to a copy of the data, then read the copy.

use super::mutation::little_endian_sum;
use super::*;
use crate::store::types::Version;
use crate::store::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::convert::Infallible;

type Data = BTreeMap<Vec<u8>, Vec<u8>>;

/// A write that does not depend on the stamp.
#[derive(Debug, Clone)]
enum Op {
    Set(Vec<u8>, Vec<u8>),
    Clear(Vec<u8>, Vec<u8>),
    Add(Vec<u8>, Vec<u8>),
    CompareAndClear(Vec<u8>, Vec<u8>),
}

/// All keys over three letters up to this length; the letter zero makes neighbours.
fn universe(longest: usize) -> Vec<Vec<u8>> {
    let mut keys = vec![vec![]];
    let mut last = keys.clone();
    for _ in 0..longest {
        last = last
            .iter()
            .flat_map(|key| {
                [0, 1, 0xfe].map(|letter| key.iter().copied().chain([letter]).collect())
            })
            .collect();
        keys.extend(last.clone());
    }
    keys
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(universe(2))
}

fn bounds() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (key(), key()).prop_map(|(a, b)| if a <= b { (a, b) } else { (b, a) })
}

/// Few values, so that comparisons often hit.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![vec![], vec![0], vec![1], vec![0xff], vec![0xff, 0xff]])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| Op::Set(key, value)),
        1 => bounds().prop_map(|(begin, end)| Op::Clear(begin, end)),
        3 => (key(), value()).prop_map(|(key, operand)| Op::Add(key, operand)),
        3 => (key(), value()).prop_map(|(key, expected)| Op::CompareAndClear(key, expected)),
    ]
}

fn data() -> impl Strategy<Value = Data> {
    btree_map(key(), value(), 0..8)
}

fn range(bounds: &(Vec<u8>, Vec<u8>)) -> KeyRange {
    KeyRange::new(bounds.0.clone(), bounds.1.clone())
}

fn buffer(ops: &[Op]) -> WriteBuffer {
    let mut buffer = WriteBuffer::default();
    for op in ops {
        match op {
            Op::Set(key, value) => buffer.set(key, value),
            Op::Clear(begin, end) => {
                buffer.clear_range(&KeyRange::new(begin.clone(), end.clone()));
            }
            Op::Add(key, operand) => buffer.add(key, operand),
            Op::CompareAndClear(key, expected) => buffer.compare_and_clear(key, expected),
        }
    }
    buffer
}

/// What the operations mean, in the plainest words.
fn model(mut data: Data, ops: &[Op]) -> Data {
    for op in ops {
        match op {
            Op::Set(key, value) => {
                data.insert(key.clone(), value.clone());
            }
            Op::Clear(begin, end) => data.retain(|key, _| key < begin || key >= end),
            Op::Add(key, operand) => {
                let mut sum = data.get(key).cloned().unwrap_or_default();
                sum.resize(operand.len(), 0);
                let mut carry = 0;
                for (digit, add) in sum.iter_mut().zip(operand) {
                    let total = u16::from(*digit) + u16::from(*add) + carry;
                    *digit = (total % 256) as u8;
                    carry = total / 256;
                }
                data.insert(key.clone(), sum);
            }
            Op::CompareAndClear(key, expected) => {
                if data.get(key) == Some(expected) {
                    data.remove(key);
                }
            }
        }
    }
    data
}

fn rows<'a>(data: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>) -> Vec<KeyValue> {
    data.map(|(key, value)| KeyValue {
        key: key.clone().into(),
        value: value.clone().into(),
    })
    .collect()
}

fn read_rows(data: &Data, read: &RangeRead) -> Vec<KeyValue> {
    let mut rows = rows(data.iter().filter(|(key, _)| read.range.contains(key)));
    if read.reverse {
        rows.reverse();
    }
    rows
}

fn stamp() -> CommitStamp {
    CommitStamp::new(Version(0x0102_0304_0506_0708), 0x090a)
}

proptest! {
    #[test]
    fn a_point_read_equals_the_model(stored in data(), ops in vec(op(), 0..20)) {
        let buffer = buffer(&ops);
        let expected = model(stored.clone(), &ops);
        for key in universe(2) {
            let value = match buffer.lookup(&key).unwrap() {
                Lookup::Known(value) => value,
                Lookup::Stored(pending) => pending.finish(stored.get(&key).cloned().map(Bytes::from)),
            };
            prop_assert_eq!(value, expected.get(&key).cloned().map(Bytes::from), "{:?}", key);
        }
    }

    #[test]
    fn a_range_read_equals_the_model_and_pulls_no_more_than_it_needs(
        stored in data(),
        ops in vec(op(), 0..20),
        bounds in bounds(),
        limit in prop_oneof![0..5_usize, Just(usize::MAX)],
        reverse in any::<bool>(),
    ) {
        let mut read = range(&bounds).read().limit(limit);
        read.reverse = reverse;
        let mut expected = read_rows(&model(stored.clone(), &ops), &read);
        expected.truncate(limit);
        let source = read_rows(&stored, &read);
        let pulled = Cell::new(0);
        let iter = source.iter().inspect(|_| pulled.set(pulled.get() + 1)).cloned().map(Ok);
        let merged = buffer(&ops).merge(&read, iter).unwrap();

        let full = merged.rows.len() == limit;
        let (begin, end) = bounds;
        let covered = match merged.rows.last() {
            _ if limit == 0 => KeyRange::new(begin.clone(), begin),
            Some(last) if full && reverse => KeyRange::new(last.key.clone(), end),
            Some(last) if full => KeyRange::new(begin, after(&last.key)),
            _ => KeyRange::new(begin, end),
        };
        let needed = source.iter().filter(|row| covered.contains(&row.key)).count();
        prop_assert!(pulled.get() <= needed + usize::from(limit > 0), "{} of {}", pulled.get(), needed);
        prop_assert_eq!(merged.rows, expected);
        prop_assert_eq!(merged.covered, covered);
    }

    #[test]
    fn the_effects_of_the_mutations_equal_the_model(stored in data(), ops in vec(op(), 0..20)) {
        let expected = model(stored.clone(), &ops);
        let mut data = stored;
        for mutation in buffer(&ops).take().unwrap() {
            let current = |key: &[u8]| Ok::<_, Infallible>(data.get(key).cloned().map(Bytes::from));
            match mutation.effect(stamp(), current).unwrap() {
                Effect::Put(key, value) => {
                    prop_assert!(mutation.conflict_range(stamp()).contains(&key));
                    data.insert(key.to_vec(), value.to_vec());
                }
                Effect::Remove(range) => {
                    prop_assert_eq!(mutation.conflict_range(stamp()), range.clone());
                    data.retain(|key, _| !range.contains(key));
                }
                Effect::Nothing => {}
            }
        }
        prop_assert_eq!(data, expected);
    }

    #[test]
    fn unwritten_leaves_out_what_was_set_or_cleared_and_keeps_bare_atomics(
        ops in vec(op(), 0..12),
        bounds in bounds(),
    ) {
        let parts = buffer(&ops).unwritten(&range(&bounds));
        prop_assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].begin), "{:?}", parts);
        for key in universe(3) {
            let written = ops.iter().any(|op| match op {
                Op::Set(set, _) => *set == key,
                Op::Clear(begin, end) => *begin <= key && key < *end,
                Op::Add(..) | Op::CompareAndClear(..) => false,
            });
            let expected = !written && range(&bounds).contains(&key);
            prop_assert_eq!(parts.iter().any(|part| part.contains(&key)), expected, "{:?}", key);
        }
    }

    #[test]
    fn a_range_set_equals_a_set_of_keys(
        ranges in vec(bounds(), 0..8),
        window in bounds(),
    ) {
        let (mut set, mut model) = (RangeSet::default(), BTreeSet::new());
        for bounds in &ranges {
            set.insert(range(bounds));
            model.extend(universe(3).into_iter().filter(|key| range(bounds).contains(key)));
        }
        let window = range(&window);
        let (inside, gaps) = (set.intersecting(&window), set.gaps(&window));
        for parts in [&inside, &gaps] {
            prop_assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].begin), "{:?}", parts);
            prop_assert!(parts.iter().all(|part| !part.is_empty()), "{:?}", parts);
        }
        for key in universe(3) {
            let is_in = |parts: &[KeyRange]| parts.iter().any(|part| part.contains(&key));
            prop_assert_eq!(set.contains(&key), model.contains(&key), "{:?}", key);
            prop_assert_eq!(is_in(&inside), window.contains(&key) && model.contains(&key));
            prop_assert_eq!(is_in(&gaps), window.contains(&key) && !model.contains(&key));
        }
    }

    #[test]
    fn an_addition_is_little_endian_and_wraps(current in any::<u64>(), operand in any::<u64>()) {
        let sum = little_endian_sum(Some(&current.to_le_bytes()), &operand.to_le_bytes());
        prop_assert_eq!(sum.as_ref(), current.wrapping_add(operand).to_le_bytes());
    }
}

#[test]
fn an_addition_has_the_length_of_its_operand() {
    assert_eq!(little_endian_sum(None, &[7, 0]).as_ref(), [7, 0]);
    assert_eq!(
        little_endian_sum(Some(&[0xff]), &[1, 0, 0]).as_ref(),
        [0, 1, 0]
    );
    assert_eq!(
        little_endian_sum(Some(&[0xff, 5, 9]), &[1, 0]).as_ref(),
        [0, 6]
    );
    assert_eq!(little_endian_sum(Some(&[0xff]), &[1]).as_ref(), [0]);
    assert_eq!(little_endian_sum(Some(&[1, 2]), &[]).as_ref(), b"");
}

fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind()
}

fn all() -> RangeRead {
    KeyRange::prefix(b"").read()
}

#[test]
fn where_a_stamped_key_may_lie_is_unreadable_and_nothing_else_is() {
    let mut buffer = WriteBuffer::default();
    buffer.set_versionstamped_key(b"k0123456789u", 1, b"value");
    let first = [b"k".as_slice(), &[0; 10], b"u"].concat();
    let last = [b"k".as_slice(), &[0xff; 10], b"u"].concat();
    for unreadable in [first.as_slice(), b"kz", &last] {
        assert_eq!(kind(buffer.lookup(unreadable)), StoreErrorKind::Unreadable);
    }
    for readable in [b"k".as_slice(), &after(&last), b"l"] {
        assert!(buffer.lookup(readable).is_ok());
    }
    let merge = |read: &RangeRead| {
        let mut stored = vec![Ok(row(b"a", b"")), Ok(row(b"z", b""))];
        if read.reverse {
            stored.reverse();
        }
        buffer.merge(read, stored.into_iter())
    };
    assert_eq!(kind(merge(&all())), StoreErrorKind::Unreadable);
    assert_eq!(kind(merge(&all().limit(2))), StoreErrorKind::Unreadable);
    assert_eq!(merge(&all().limit(1)).unwrap().rows, [row(b"a", b"")]);
    assert_eq!(
        merge(&all().reverse().limit(1)).unwrap().rows,
        [row(b"z", b"")]
    );
}

fn row(key: &[u8], value: &[u8]) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
    }
}

#[test]
fn a_stamped_value_stays_unreadable_and_fails_the_transaction_that_reads_it() {
    let written = || {
        let mut buffer = WriteBuffer::default();
        buffer.set_versionstamped_value(b"key", b"<0123456789>", 1);
        buffer.clear_range(&KeyRange::prefix(b""));
        buffer
    };
    let mut buffer = written();
    assert_eq!(kind(buffer.lookup(b"key")), StoreErrorKind::Unreadable);
    assert_eq!(kind(buffer.take()), StoreErrorKind::Unreadable);
    let mut ranged = written();
    assert_eq!(
        kind(ranged.merge(&all(), std::iter::empty())),
        StoreErrorKind::Unreadable
    );
    assert_eq!(kind(ranged.take()), StoreErrorKind::Unreadable);
    let mut copied = written();
    let copy = copied.clone();
    copied.set(b"other", b"");
    assert_eq!(kind(copy.lookup(b"key")), StoreErrorKind::Unreadable);
    assert_eq!(kind(copied.take()), StoreErrorKind::Unreadable);
    assert_eq!(written().take().unwrap().len(), 2);
}

#[test]
fn a_stamped_value_keeps_the_atomics_before_it() {
    let mut buffer = WriteBuffer::default();
    buffer.compare_and_clear(b"key", b"old");
    buffer.set_versionstamped_value(b"key", b"<0123456789>", 1);
    let mutations = buffer.take().unwrap();
    let effects: Vec<_> = mutations
        .iter()
        .map(|mutation| {
            mutation
                .effect(stamp(), |_| Ok::<_, Infallible>(Some(Bytes::from("old"))))
                .unwrap()
        })
        .collect();
    assert!(matches!(&effects[0], Effect::Remove(range) if *range == KeyRange::single(b"key")));
    let expected = [b"<".as_slice(), stamp().as_bytes(), b">"].concat();
    assert!(matches!(&effects[1], Effect::Put(_, value) if *value == expected));
}

#[test]
fn a_stamped_key_conflicts_with_readers_of_the_final_key_only() {
    let mut buffer = WriteBuffer::default();
    buffer.set_versionstamped_key(b"k0123456789", 1, b"");
    let mutations = buffer.take().unwrap();
    let last = [b"k".as_slice(), stamp().as_bytes()].concat();
    assert_eq!(
        mutations[0].conflict_range(stamp()),
        KeyRange::single(&last)
    );
}

#[test]
fn the_first_broken_rule_fails_the_whole_transaction() {
    let long = vec![b'k'; MAX_KEY_BYTES + 1];
    let large = vec![0; MAX_VALUE_BYTES + 1];
    type Write<'a> = Box<dyn Fn(&mut WriteBuffer) + 'a>;
    let cases: Vec<(Write<'_>, StoreErrorKind)> = vec![
        (Box::new(|b| b.set(&long, b"")), StoreErrorKind::KeyTooLarge),
        (
            Box::new(|b| b.set(b"", &large)),
            StoreErrorKind::ValueTooLarge,
        ),
        (
            Box::new(|b| b.set(b"\xff", b"")),
            StoreErrorKind::InvalidCall,
        ),
        (Box::new(|b| b.add(&long, b"")), StoreErrorKind::KeyTooLarge),
        (
            Box::new(|b| b.add(b"", &large)),
            StoreErrorKind::ValueTooLarge,
        ),
        (
            Box::new(|b| b.compare_and_clear(&long, b"")),
            StoreErrorKind::KeyTooLarge,
        ),
        (
            Box::new(|b| b.clear_range(&KeyRange::new("b", "a"))),
            StoreErrorKind::InvalidCall,
        ),
        (
            Box::new(|b| b.clear_range(&KeyRange::new("b", b"\xff\x00".to_vec()))),
            StoreErrorKind::InvalidCall,
        ),
        (
            Box::new(|b| b.set_versionstamped_key(b"0123456789", 1, b"")),
            StoreErrorKind::InvalidCall,
        ),
        (
            Box::new(|b| b.set_versionstamped_value(b"", b"0123456789", usize::MAX)),
            StoreErrorKind::InvalidCall,
        ),
    ];
    for (write, expected) in cases {
        let mut buffer = WriteBuffer::default();
        buffer.set(b"fine", b"fine");
        write(&mut buffer);
        buffer.fail(StoreErrorKind::Failed.into());
        assert!(!buffer.is_empty());
        assert_eq!(kind(buffer.take()), expected);
    }
}

#[test]
fn keys_and_values_of_the_largest_size_are_fine() {
    let mut buffer = WriteBuffer::default();
    buffer.set(&[b'k'; MAX_KEY_BYTES], &[0; MAX_VALUE_BYTES]);
    buffer.clear_range(&KeyRange::single(&[b'k'; MAX_KEY_BYTES]));
    buffer.set(b"", b"");
    assert_eq!(buffer.take().unwrap().len(), 3);
}

#[test]
fn a_transaction_that_affects_too_much_fails_even_if_nothing_of_it_fitted() {
    let conflict = KeyRange::new("", [b'k'; MAX_KEY_BYTES].to_vec());
    let mut buffer = WriteBuffer::default();
    for _ in 0..=MAX_TRANSACTION_BYTES / MAX_KEY_BYTES {
        buffer.count_conflict(&conflict);
    }
    assert!(buffer.is_empty());
    assert_eq!(buffer.take().unwrap().len(), 0, "reads alone have no limit");
    buffer.set(b"key", b"value");
    assert!(!buffer.is_empty());
    assert_eq!(kind(buffer.take()), StoreErrorKind::TransactionTooLarge);

    let mut buffer = WriteBuffer::default();
    for _ in 0..90 {
        buffer.set(b"key", &[0; MAX_VALUE_BYTES]);
    }
    assert!(buffer.take().is_ok());
    for _ in 0..20 {
        buffer.set(b"key", &[0; MAX_VALUE_BYTES]);
    }
    assert_eq!(kind(buffer.take()), StoreErrorKind::TransactionTooLarge);
}

#[test]
fn an_error_of_the_stored_rows_ends_the_read() {
    let buffer = WriteBuffer::default();
    let stored = [Ok(row(b"a", b"")), Err(StoreErrorKind::Corrupt.into())];
    assert_eq!(
        kind(buffer.merge(&all(), stored.into_iter())),
        StoreErrorKind::Corrupt
    );
}

#[test]
fn an_inverted_range_is_no_reason_to_panic() {
    let mut buffer = WriteBuffer::default();
    buffer.set(b"key", b"value");
    let inverted = KeyRange::new("z", "a");
    assert!(
        buffer
            .merge(&inverted.read(), std::iter::empty())
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(buffer.unwritten(&inverted).is_empty());
}

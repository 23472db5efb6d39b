use super::*;
use proptest::prelude::*;

fn key(chunk: u32) -> Bytes {
    format!("key {chunk:03}").into()
}

fn rows(value: &[u8]) -> Vec<KeyValue> {
    let mut rows = Vec::new();
    cut(value, |chunk, row| {
        rows.push(KeyValue {
            key: key(chunk),
            value: Bytes::copy_from_slice(row),
        });
    })
    .unwrap();
    rows
}

#[test]
fn values_of_every_length_around_a_cut_come_back() {
    let first = CHUNK_BYTES - COUNT_BYTES;
    let lengths = [0, 1, first - 1, first, first + 1, first + CHUNK_BYTES];
    for length in lengths
        .into_iter()
        .chain([first + CHUNK_BYTES + 1, MAX_BYTES])
    {
        let value: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
        let rows = rows(&value);
        assert_eq!(rows.len(), count(length));
        assert!(rows.iter().all(|row| row.value.len() <= CHUNK_BYTES));
        assert!(join(rows, key).unwrap().unwrap() == value, "{length} bytes");
    }
}

#[test]
fn a_value_that_no_reader_would_take_is_not_written() {
    let error = cut(&vec![0; MAX_BYTES + 1], |_, _| panic!("written")).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ValueTooLarge);
}

#[test]
fn rows_that_are_not_one_whole_value_are_corrupt_and_named() {
    let whole = rows(&vec![1; 3 * CHUNK_BYTES]);
    let without = |gone: usize| {
        let mut rows = whole.clone();
        rows.remove(gone);
        rows
    };
    let with = |key: Bytes, value: &'static [u8]| {
        let value = Bytes::from_static(value);
        [whole.clone(), vec![KeyValue { key, value }]].concat()
    };
    let one = |value: &'static [u8]| {
        let value = Bytes::from_static(value);
        vec![KeyValue { key: key(0), value }]
    };
    for damaged in [
        without(0),
        without(1),
        without(3),
        with(key(4), b"more"),
        with("key 003 foreign".into(), b"more"),
        one(b""),
        one(b"\x01"),
        one(b"\x00\x00"),
        one(b"\x00\x71"),
        one(b"\xff\xff"),
    ] {
        let error = join(damaged, key).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert!(error.to_string().contains("key \"key 00"), "{error}");
    }
    assert_eq!(join(Vec::new(), key).unwrap(), None);
}

proptest! {
    #[test]
    fn no_rows_make_the_assembler_panic(
        rows in prop::collection::vec((0..4_u32, prop::collection::vec(0..4_u8, 0..5)), 0..6),
    ) {
        let mut assembler = Assembler::default();
        for (chunk, row) in rows {
            let _ = assembler.add(b"key", chunk, row.into());
        }
        let _ = assembler.finish(b"key");
    }
}

use super::*;
use foundationdb_tuple::pack;
use proptest::prelude::*;

fn elements() -> impl Strategy<Value = PathElement<'static>> {
    prop_oneof![
        "[\\x00ab\u{ff}\u{10ffff}]{0,4}".prop_map(|text| PathElement::Str(text.into())),
        any::<i64>().prop_map(PathElement::from),
        any::<u64>().prop_map(PathElement::from),
        (-300_i64..300).prop_map(PathElement::from),
        prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(-255), Just(-256)]
            .prop_map(PathElement::from),
    ]
}

fn path(elements: &[PathElement<'static>]) -> Path {
    elements
        .iter()
        .fold(Path::root(), |path, element| path.child(element.clone()))
}

/// What the tuple layer itself makes of the elements.
fn packed(elements: &[PathElement<'static>]) -> Vec<u8> {
    elements
        .iter()
        .flat_map(|element| match element {
            PathElement::Str(text) => pack(&text.as_ref()),
            PathElement::Int(number) => match u64::try_from(number.get()) {
                Ok(number) => pack(&number),
                Err(_) => pack(&i64::try_from(number.get()).unwrap()),
            },
        })
        .collect()
}

proptest! {
    #[test]
    fn a_path_is_its_tuple_encoding(parts in prop::collection::vec(elements(), 0..4)) {
        let path = path(&parts);
        prop_assert_eq!(path.as_tuple().to_vec(), packed(&parts));
        prop_assert_eq!(&Path::from_tuple(path.as_tuple()).unwrap(), &path);
        prop_assert_eq!(path.elements().collect::<Vec<_>>(), parts);
    }

    #[test]
    fn paths_order_as_their_elements_do(
        a in prop::collection::vec(elements(), 0..4),
        b in prop::collection::vec(elements(), 0..4),
    ) {
        prop_assert_eq!(path(&a).cmp(&path(&b)), a.cmp(&b));
    }

    #[test]
    fn a_path_contains_what_begins_with_its_elements(
        a in prop::collection::vec(elements(), 0..3),
        b in prop::collection::vec(elements(), 0..3),
    ) {
        prop_assert_eq!(path(&a).contains(&path(&b)), b.starts_with(&a));
        let below = [a.clone(), b].concat();
        prop_assert!(path(&a).contains(&path(&below)));
    }

    #[test]
    fn foreign_bytes_are_refused_or_canonical(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
        if let Ok(path) = Path::from_tuple(&bytes) {
            prop_assert_eq!(path.as_tuple(), bytes.as_slice());
        }
    }
}

#[test]
fn the_subtree_of_a_string_excludes_the_string_with_a_zero_byte() {
    let short = Path::root().child("a");
    let long = Path::root().child("a\0");
    assert!(long.as_tuple().starts_with(short.as_tuple()));
    assert!(!short.contains(&long));
    assert!(short.child(u64::MAX) < long);
}

#[test]
fn a_number_and_its_digits_are_different_elements() {
    assert_ne!(Path::root().child("1"), Path::root().child(1_u64));
    assert_eq!(Path::root().child(1_i64), Path::root().child(1_u64));
}

#[test]
fn a_path_of_too_many_elements_is_refused() {
    let bytes = pack(&1_u64).repeat(super::super::MAX_DEPTH + 1);
    let error = Path::from_tuple(&bytes).unwrap_err();
    assert_eq!(error.kind(), CodecErrorKind::Corrupt);
}

#[test]
fn no_element_begins_with_a_type_code_left_for_chunk_markers() {
    for code in (0x00..=0x01).chain(0x03..=0x0b).chain(0x1d..=0xff) {
        assert!(Path::from_tuple(&[code, 1, 1, 1, 1, 1, 1, 1, 1, 0]).is_err());
    }
}

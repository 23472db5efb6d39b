use super::*;
use proptest::prelude::*;

fn refs(indices: &[Vec<u8>]) -> Vec<Option<&[u8]>> {
    indices.iter().map(|index| Some(index.as_slice())).collect()
}

fn assert_increasing(indices: &[Vec<u8>]) {
    for pair in indices.windows(2) {
        assert!(pair[0] < pair[1], "{pair:02x?}");
    }
    for index in indices {
        assert!(is_valid(index), "{index:02x?}");
    }
}

proptest! {
    #[test]
    fn indices_increase_and_at_most_the_moved_and_new_items_change(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3), 1..200)
    ) {
        let mut list: Vec<Vec<u8>> = assign(&[None; 10]);
        for (a, b, kind) in edits {
            let mut old: Vec<Option<Vec<u8>>> = list.iter().cloned().map(Some).collect();
            match kind {
                0 => old.insert(a.index(old.len() + 1), None),
                1 if !old.is_empty() => { old.remove(a.index(old.len())); }
                _ if !old.is_empty() => {
                    let item = old.remove(a.index(old.len()));
                    old.insert(b.index(old.len() + 1), item);
                }
                _ => {}
            }
            let view: Vec<Option<&[u8]>> = old.iter().map(Option::as_deref).collect();
            list = assign(&view);
            assert_increasing(&list);
            let changed = list.iter().zip(&old).filter(|(new, old)| Some(*new) != old.as_ref()).count();
            prop_assert!(changed <= 1, "{changed} items changed");
        }
    }

    #[test]
    fn indices_order_as_their_bytes(
        a in (any::<i64>(), prop::collection::vec(1_u8.., 0..4)),
        b in (-3_i64..3, prop::collection::vec(1_u8.., 0..4)),
    ) {
        let a = Index { whole: a.0, fraction: a.1 };
        let b = Index { whole: b.0, fraction: b.1 };
        prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
        prop_assert_eq!(Index::parse(&a.to_bytes()), Some(a));
    }

    #[test]
    fn foreign_indices_never_panic(old in prop::collection::vec(
        prop::option::of(prop::collection::vec(any::<u8>(), 0..12)), 0..12)
    ) {
        let view: Vec<Option<&[u8]>> = old.iter().map(Option::as_deref).collect();
        assert_increasing(&assign(&view));
    }
}

#[test]
fn appending_and_prepending_keep_indices_short() {
    let mut list = assign(&[None]);
    for round in 0..2_000 {
        let mut old = refs(&list);
        if round % 2 == 0 {
            old.push(None);
        } else {
            old.insert(0, None);
        }
        list = assign(&old);
    }
    assert_increasing(&list);
    assert!(list.iter().all(|index| index.len() <= 3));
}

#[test]
fn inserting_at_one_place_for_ever_renumbers_the_list_rarely() {
    let mut list = assign(&[None, None]);
    let mut rewrites = 0;
    for _ in 0..2_000 {
        let mut old = refs(&list);
        old.insert(1, None);
        let new = assign(&old);
        assert_increasing(&new);
        rewrites += usize::from(new.last() != list.last());
        list = new;
    }
    assert!((1..=5).contains(&rewrites), "{rewrites} rewrites");
}

#[test]
fn a_run_of_new_items_between_two_gets_evenly_short_indices() {
    let mut old = vec![None; 1_002];
    let ends = assign(&[None, None]);
    old[0] = Some(ends[0].as_slice());
    old[1_001] = Some(ends[1].as_slice());
    let new = assign(&old);
    assert_increasing(&new);
    assert_eq!((&new[0], &new[1_001]), (&ends[0], &ends[1]));
    assert!(new.iter().all(|index| index.len() <= 3));
}

#[test]
fn the_ends_of_the_whole_numbers_renumber_the_list() {
    let top = Index::whole(i64::MAX).to_bytes();
    let bottom = Index::whole(i64::MIN).to_bytes();
    assert_increasing(&assign(&[Some(&top), None]));
    assert_increasing(&assign(&[None, Some(&bottom)]));
    assert_increasing(&assign(&[Some(&bottom), None, Some(&top)]));
}

use crate::collections::lazy::spans::Spans;
use proptest::prelude::*;

proptest! {
    #[test]
    fn spans_are_the_points_that_were_added(
        stretches in prop::collection::vec((0..20_u8, prop::option::of(0..20_u8)), 0..12)
    ) {
        let mut spans = Spans::default();
        let mut known = [false; 24];
        for (from, to) in stretches {
            // The point before all others is no bytes.
            let from_point = if from == 0 { Vec::new() } else { vec![from] };
            spans.add(&from_point, to.map(|to| vec![to]).as_deref());
            for point in from..to.unwrap_or(24).max(from) {
                known[usize::from(point)] = true;
            }
        }
        prop_assert_eq!(spans.is_all(), known.iter().all(|known| *known));
        let points: Vec<[u8; 1]> = (0..24).map(|at| [at]).collect();
        for point in 1..24_u8 {
            let end = spans.end_of(&[point]);
            prop_assert_eq!(end.is_some(), known[usize::from(point)], "at {}", point);
            if let Some(end) = end {
                let first_unknown = (point..24).find(|at| !known[usize::from(*at)]);
                prop_assert_eq!(end, first_unknown.map(|at| &points[usize::from(at)][..]));
            }
        }
    }
}

//! The order of operations in real time against their order in the log.

/// An operation's life on the clock of all events: it took effect somewhere in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) begin: u64,
    /// None while nobody knows of the end.
    pub(crate) end: Option<u64>,
}

/// Looks for two operations of which the one that stands later had ended before the other began.
///
/// `spans` are in the order in which the operations took effect. Since that order is known, the
/// history is linearizable if and only if there is no such pair. Returns the places of one.
pub(crate) fn contradiction(spans: &[Span]) -> Option<(usize, usize)> {
    let mut latest: Option<(u64, usize)> = None;
    for (place, span) in spans.iter().enumerate() {
        if let (Some((begin, before)), Some(end)) = (latest, span.end)
            && end < begin
        {
            return Some((before, place));
        }
        if latest.is_none_or(|(begin, _)| begin < span.begin) {
            latest = Some((span.begin, place));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(begin: u64, end: u64) -> Span {
        Span {
            begin,
            end: Some(end),
        }
    }

    #[test]
    fn one_after_the_other_in_the_order_of_the_log_is_consistent() {
        assert_eq!(contradiction(&[]), None);
        assert_eq!(contradiction(&[span(1, 2), span(3, 4), span(5, 6)]), None);
    }

    #[test]
    fn what_overlaps_may_stand_in_any_order() {
        assert_eq!(contradiction(&[span(3, 6), span(1, 4)]), None);
        assert_eq!(contradiction(&[span(2, 3), span(1, 4)]), None);
    }

    #[test]
    fn an_operation_that_ended_before_another_began_stands_before_it() {
        assert_eq!(contradiction(&[span(3, 4), span(1, 2)]), Some((0, 1)));
    }

    #[test]
    fn a_contradiction_is_found_across_others() {
        let spans = [
            span(1, 20),
            span(7, 9),
            span(2, 21),
            span(3, 6),
            span(8, 10),
        ];
        assert_eq!(contradiction(&spans), Some((1, 3)));
    }

    #[test]
    fn an_end_that_nobody_knows_contradicts_nothing() {
        let unknown = Span {
            begin: 1,
            end: None,
        };
        assert_eq!(contradiction(&[span(5, 6), unknown]), None);
        assert_eq!(contradiction(&[unknown, span(5, 6)]), None);
    }
}

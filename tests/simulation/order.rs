//! The order of operations in real time against their order in the log.

use crate::notes::{Answer, How, Operation};

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

/// Some of an instance's operations that may not contradict each other.
struct Class {
    what: &'static str,
    is_in: fn(&Operation, Facts) -> bool,
    /// Whether a cast has ended for the others once it is acknowledged.
    casts_end: bool,
}

/// What a run is like.
#[derive(Clone, Copy)]
struct Facts {
    /// Nothing blocks a mailbox.
    is_open: bool,
}

impl Facts {
    /// A query is answered beside a mailbox that is blocked, by a lock, a back-off or the claim of
    /// another process, and so passes the casts in it. Where none of these can be, it may not.
    fn in_line(self, operation: &Operation) -> bool {
        self.is_open || operation.how != How::Query
    }
}

const CLASSES: [Class; 3] = [
    Class {
        what: "ordinary operations",
        is_in: |operation, facts| !operation.is_priority && facts.in_line(operation),
        casts_end: true,
    },
    Class {
        what: "priority operations",
        is_in: |operation, facts| operation.is_priority && facts.in_line(operation),
        casts_end: true,
    },
    // An acknowledged cast may be passed by the other lane; what was answered may not.
    Class {
        what: "calls",
        is_in: |_, _| true,
        casts_end: false,
    },
];

/// What contradicts real time in the order in which an instance's operations took effect: each comes
/// with its place in the log, counted from one, if it has one. `is_open` says that nothing blocks a
/// mailbox in this run.
pub(crate) fn check_order<'o>(
    operations: impl Iterator<Item = (&'o Operation, Option<u64>)>,
    length: u64,
    is_open: bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    // By place in the log; what only looked comes behind the entry that it saw last.
    let mut events: Vec<((u64, u8, u64), &Operation)> = Vec::new();
    for (operation, place) in operations {
        if let Some(place) = place {
            events.push(((place, 0, 0), operation));
        } else if let Some((_, Ok(Answer::Length(seen)))) = operation.end {
            events.push(((seen, 1, operation.begin), operation));
            if seen > length {
                wrong.push(format!("{operation:?} saw a log of {seen}"));
            }
        }
    }
    events.sort_by_key(|(place, _)| *place);
    for class in &CLASSES {
        let chosen: Vec<&Operation> = events
            .iter()
            .map(|(_, operation)| *operation)
            .filter(|operation| (class.is_in)(operation, Facts { is_open }))
            .collect();
        let ended = |operation: &&Operation| match operation.end {
            Some((end, Ok(_))) if class.casts_end || operation.how != How::Cast => Some(end),
            _ => None,
        };
        let spans: Vec<Span> = chosen
            .iter()
            .map(|operation| Span {
                begin: operation.begin,
                end: ended(operation),
            })
            .collect();
        if let Some((before, behind)) = contradiction(&spans) {
            wrong.push(format!(
                "the order of {}: {:?} took effect before {:?}",
                class.what, chosen[before], chosen[behind]
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests;

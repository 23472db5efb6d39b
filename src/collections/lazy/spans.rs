//! Which stretches of keys were read.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Stretches that neither overlap nor touch. A clone costs nothing.
///
/// They are made of points, which order as the keys do: see
/// [`Stretch`](crate::codec::collection::Stretch).
#[derive(Debug, Clone, Default)]
pub(super) struct Spans(Arc<BTreeMap<Vec<u8>, Option<Vec<u8>>>>);

impl Spans {
    /// Whether there is nothing outside of them.
    pub(super) fn is_all(&self) -> bool {
        matches!(self.0.first_key_value(), Some((from, None)) if from.is_empty())
    }

    /// Where the span that holds a point ends; `Some(None)` if it has no end.
    pub(super) fn end_of(&self, point: &[u8]) -> Option<Option<&[u8]>> {
        let upto = (Bound::Unbounded, Bound::Included(point));
        let (_, to) = self.0.range::<[u8], _>(upto).next_back()?;
        match to {
            None => Some(None),
            Some(to) => (point < to.as_slice()).then_some(Some(to)),
        }
    }

    /// Adds a stretch.
    pub(super) fn add(&mut self, from: &[u8], to: Option<&[u8]>) {
        if to.is_some_and(|to| to <= from) {
            return;
        }
        let spans = Arc::make_mut(&mut self.0);
        let (mut from, mut to) = (from.to_vec(), to.map(<[u8]>::to_vec));
        // The one before reaches into the stretch, or up to it.
        let upto = (Bound::Unbounded, Bound::Included(from.as_slice()));
        if let Some((before, end)) = spans.range::<[u8], _>(upto).next_back()
            && end.as_ref().is_none_or(|end| *end >= from)
        {
            (from, to) = (before.clone(), farther(to, end.clone()));
        }
        let inside = (Bound::Included(from.as_slice()), Bound::Unbounded);
        let inside: Vec<Vec<u8>> = {
            let spans = spans.range::<[u8], _>(inside).map(|(from, _)| from);
            spans.cloned().collect()
        };
        for other in inside {
            if to.as_ref().is_some_and(|to| other > *to) {
                break;
            }
            if let Some(end) = spans.remove(&other) {
                to = farther(to, end);
            }
        }
        spans.insert(from, to);
    }
}

/// The farther of two ends; none is the farthest.
fn farther(one: Option<Vec<u8>>, other: Option<Vec<u8>>) -> Option<Vec<u8>> {
    Some(one?.max(other?))
}

//! Fractional indices: byte strings that say where an item stands in its list.
//!
//! An index is a whole number, and a fraction behind it. Appending counts the number up and
//! prepending counts it down, so lists that grow at their ends keep short indices for ever; only
//! insertions between neighbours need fractions, a bit each at worst. No randomness: the same lists
//! give the same indices everywhere.
//!
//! The number is written as a byte that tells its sign and length, and its significant bytes; the
//! fraction as base-256 digits of which the last is not zero, so there is always room below it.

/// The longest index, in bytes. A list in which one would become longer is numbered afresh, which
/// rewrites a key per item; some 400 insertions at the worst place lie between two such rewrites.
const MAX_BYTES: usize = 64;
const ZERO: u8 = 0x80;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Index {
    whole: i64,
    fraction: Vec<u8>,
}

impl Index {
    fn whole(whole: i64) -> Self {
        Self {
            whole,
            fraction: Vec::new(),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        // `!n` of a negative number counts its distance from −1, so both sides start at length 0.
        let negative = self.whole < 0;
        let magnitude = if negative { !self.whole } else { self.whole }.unsigned_abs();
        let skip = (magnitude.leading_zeros() / 8) as usize;
        #[allow(clippy::cast_possible_truncation, reason = "at most eight")]
        let length = (8 - skip) as u8;
        let (head, digits) = if negative {
            (ZERO - 1 - length, !magnitude)
        } else {
            (ZERO + length, magnitude)
        };
        let mut bytes = vec![head];
        bytes.extend(digits.to_be_bytes().iter().skip(skip));
        bytes.extend_from_slice(&self.fraction);
        bytes
    }

    /// Only what [`to_bytes`](Self::to_bytes) writes: then the order of bytes is that of indices.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (&head, rest) = bytes.split_first()?;
        let negative = head < ZERO;
        let length = usize::from(if negative {
            ZERO - 1 - head
        } else {
            head - ZERO
        });
        if length > 8 || bytes.len() > MAX_BYTES {
            return None;
        }
        let (digits, fraction) = rest.split_at_checked(length)?;
        let magnitude = digits.iter().fold(0_u64, |number, &digit| {
            number << 8 | u64::from(if negative { !digit } else { digit })
        });
        let magnitude = i64::try_from(magnitude).ok()?;
        let index = Self {
            whole: if negative { !magnitude } else { magnitude },
            fraction: fraction.to_vec(),
        };
        (fraction.last() != Some(&0) && index.to_bytes() == bytes).then_some(index)
    }
}

/// Whether the bytes are an index.
pub(super) fn is_valid(bytes: &[u8]) -> bool {
    Index::parse(bytes).is_some()
}

/// The indices of a list, given in the list's order the index each item has so far.
///
/// As many items as possible keep theirs: an insert changes no other item, a move only its own.
pub(super) fn assign(old: &[Option<&[u8]>]) -> Vec<Vec<u8>> {
    let parsed: Vec<Option<Index>> = old
        .iter()
        .map(|bytes| bytes.and_then(Index::parse))
        .collect();
    let kept = longest_increasing(&parsed);
    let indices =
        fill(parsed, &kept).filter(|indices| indices.iter().all(|index| index.len() <= MAX_BYTES));
    indices.unwrap_or_else(|| {
        (0_i64..)
            .take(old.len())
            .map(|whole| Index::whole(whole).to_bytes())
            .collect()
    })
}

/// The indices of a new list.
pub(crate) fn fresh(count: usize) -> Vec<Vec<u8>> {
    assign(&vec![None; count])
}

/// An index between two neighbours, of which either may be missing. None if it would be too long.
pub(crate) fn between_two(left: Option<&[u8]>, right: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut neighbours = Vec::with_capacity(3);
    neighbours.extend(left.map(Some));
    neighbours.push(None);
    neighbours.extend(right.map(Some));
    let mut indices = assign(&neighbours);
    let kept = |(old, new): (&Option<&[u8]>, &Vec<u8>)| old.is_none_or(|old| old == new);
    if !neighbours.iter().zip(&indices).all(kept) {
        return None;
    }
    Some(indices.swap_remove(usize::from(left.is_some())))
}

/// Marks a longest subsequence whose indices increase strictly (patience sorting).
fn longest_increasing(indices: &[Option<Index>]) -> Vec<bool> {
    // Of each length, the position at which the subsequence with the smallest end ends.
    let mut ends: Vec<(usize, &Index)> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; indices.len()];
    for (position, index) in indices.iter().enumerate() {
        let Some(index) = index else { continue };
        let length = ends.partition_point(|(_, end)| *end < index);
        let previous = length.checked_sub(1).and_then(|last| ends.get(last));
        if let Some(slot) = before.get_mut(position) {
            *slot = previous.map(|(position, _)| *position);
        }
        match ends.get_mut(length) {
            Some(end) => *end = (position, index),
            None => ends.push((position, index)),
        }
    }
    let mut kept = vec![false; indices.len()];
    let mut next = ends.last().map(|(position, _)| *position);
    while let Some(position) = next {
        if let Some(slot) = kept.get_mut(position) {
            *slot = true;
        }
        next = before.get(position).copied().flatten();
    }
    kept
}

/// Gives the items that do not keep theirs an index between their neighbours'. `None` if the whole
/// numbers run out.
fn fill(parsed: Vec<Option<Index>>, kept: &[bool]) -> Option<Vec<Vec<u8>>> {
    let mut indices = Vec::with_capacity(parsed.len());
    let mut left: Option<Index> = None;
    let mut waiting = 0;
    for (index, kept) in parsed.into_iter().zip(kept) {
        let Some(index) = index.filter(|_| *kept) else {
            waiting += 1;
            continue;
        };
        between(left.as_ref(), Some(&index), waiting, &mut indices)?;
        waiting = 0;
        indices.push(index.to_bytes());
        left = Some(index);
    }
    between(left.as_ref(), None, waiting, &mut indices)?;
    Some(indices)
}

/// Appends `count` increasing indices above `left` and below `right`.
fn between(
    left: Option<&Index>,
    right: Option<&Index>,
    count: usize,
    out: &mut Vec<Vec<u8>>,
) -> Option<()> {
    let steps = i64::try_from(count).ok()?;
    let first = match (left, right) {
        (Some(left), Some(right)) => {
            bisect(left, right, count, out);
            return Some(());
        }
        (Some(left), None) => left.whole.checked_add(1)?,
        (None, Some(right)) => right.whole.checked_sub(steps)?,
        (None, None) => 0,
    };
    first.checked_add(steps)?;
    out.extend((first..).take(count).map(|n| Index::whole(n).to_bytes()));
    Some(())
}

/// Halving keeps `count` new indices as short as they can evenly be; it recurses log₂ `count` deep.
fn bisect(left: &Index, right: &Index, count: usize, out: &mut Vec<Vec<u8>>) {
    if count == 0 {
        return;
    }
    let middle = middle(left, right);
    let below = (count - 1) / 2;
    bisect(left, &middle, below, out);
    out.push(middle.to_bytes());
    bisect(&middle, right, count - 1 - below, out);
}

fn middle(left: &Index, right: &Index) -> Index {
    let distance = i128::from(right.whole) - i128::from(left.whole);
    if distance >= 2 {
        return Index::whole(left.whole.midpoint(right.whole));
    }
    if distance == 1 && !right.fraction.is_empty() {
        return Index::whole(right.whole);
    }
    let end = (distance == 0).then_some(right.fraction.as_slice());
    Index {
        whole: left.whole,
        fraction: middle_fraction(&left.fraction, end),
    }
}

/// A fraction above `low` and below `high` (`None` is one). `low` must be below `high`, else the
/// digits would never part.
fn middle_fraction(low: &[u8], mut high: Option<&[u8]>) -> Vec<u8> {
    let mut fraction = Vec::new();
    for place in 0.. {
        let digit = |digits: &[u8]| u16::from(digits.get(place).copied().unwrap_or(0));
        let below = digit(low);
        let above = high.map_or(256, digit);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a digit below 256, the mean of one with at most 256"
        )]
        if above.saturating_sub(below) >= 2 {
            fraction.push(below.midpoint(above) as u8);
            break;
        } else {
            fraction.push(below as u8);
        }
        if above > below {
            high = None;
        }
    }
    fraction
}

#[cfg(test)]
mod tests;

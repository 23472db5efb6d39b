//! Single writes and what they do.

use crate::store::types::{CommitStamp, KeyRange};
use bytes::Bytes;

/// What FoundationDB counts for a mutation and for a conflict range besides their bytes. Counted
/// here too, rounded up, so that what fits here fits there.
const MUTATION_OVERHEAD: usize = 64;
pub(super) const RANGE_OVERHEAD: usize = 32;

/// One buffered write.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Set {
        key: Bytes,
        value: Bytes,
    },
    ClearRange(KeyRange),
    Add {
        key: Bytes,
        operand: Bytes,
    },
    CompareAndClear {
        key: Bytes,
        expected: Bytes,
    },
    StampedKey {
        template: Bytes,
        offset: usize,
        value: Bytes,
    },
    StampedValue {
        key: Bytes,
        template: Bytes,
        offset: usize,
    },
}

/// What a mutation does to the data, once the stamp and the current value are known.
#[derive(Debug)]
pub(crate) enum Effect {
    Put(Bytes, Bytes),
    Remove(KeyRange),
    Nothing,
}

impl Mutation {
    /// What this mutation does. `current` reads the value that the mutations before it left.
    pub(crate) fn effect<E>(
        &self,
        stamp: CommitStamp,
        current: impl FnOnce(&[u8]) -> Result<Option<Bytes>, E>,
    ) -> Result<Effect, E> {
        Ok(match self {
            Self::Set { key, value } => Effect::Put(key.clone(), value.clone()),
            Self::ClearRange(range) => Effect::Remove(range.clone()),
            Self::Add { key, operand } => Effect::Put(
                key.clone(),
                little_endian_sum(current(key)?.as_deref(), operand),
            ),
            Self::CompareAndClear { key, expected } => match current(key)? {
                Some(value) if value == expected => Effect::Remove(KeyRange::single(key)),
                _ => Effect::Nothing,
            },
            Self::StampedKey {
                template,
                offset,
                value,
            } => Effect::Put(stamped(template, *offset, stamp), value.clone()),
            Self::StampedValue {
                key,
                template,
                offset,
            } => Effect::Put(key.clone(), stamped(template, *offset, stamp)),
        })
    }

    /// The keys whose readers this mutation conflicts with.
    pub(crate) fn conflict_range(&self, stamp: CommitStamp) -> KeyRange {
        match self {
            Self::Set { key, .. }
            | Self::Add { key, .. }
            | Self::CompareAndClear { key, .. }
            | Self::StampedValue { key, .. } => KeyRange::single(key),
            Self::ClearRange(range) => range.clone(),
            Self::StampedKey {
                template, offset, ..
            } => KeyRange::single(&stamped(template, *offset, stamp)),
        }
    }

    pub(super) fn size(&self) -> usize {
        let (data, conflict) = match self {
            Self::Set { key, value } => (key.len() + value.len(), 2 * key.len() + 1),
            Self::ClearRange(range) => {
                let bounds = range.begin.len() + range.end.len();
                (bounds, bounds)
            }
            Self::Add {
                key,
                operand: param,
            }
            | Self::CompareAndClear {
                key,
                expected: param,
            }
            | Self::StampedValue {
                key,
                template: param,
                ..
            }
            | Self::StampedKey {
                template: key,
                value: param,
                ..
            } => (key.len() + param.len(), 2 * key.len() + 1),
        };
        data + conflict + MUTATION_OVERHEAD + RANGE_OVERHEAD
    }
}

/// The value that an addition of `operand` leaves: see [`Transaction::add`](crate::store::Transaction::add).
pub(super) fn little_endian_sum(current: Option<&[u8]>, operand: &[u8]) -> Bytes {
    let current = current
        .unwrap_or_default()
        .iter()
        .copied()
        .chain(std::iter::repeat(0));
    let mut carry = false;
    operand
        .iter()
        .zip(current)
        .map(|(a, b)| {
            let (sum, high) = a.overflowing_add(b);
            let (sum, low) = sum.overflowing_add(u8::from(carry));
            carry = high || low;
            sum
        })
        .collect::<Vec<u8>>()
        .into()
}

/// `template` with the stamp at `offset`, which was checked when the mutation was buffered.
fn stamped(template: &[u8], offset: usize, stamp: CommitStamp) -> Bytes {
    filled(template, offset, stamp.as_bytes())
}

/// `template` with these bytes at `offset`.
pub(super) fn filled(template: &[u8], offset: usize, stamp: &[u8; CommitStamp::LEN]) -> Bytes {
    let mut bytes = template.to_vec();
    if let Some(hole) = bytes.get_mut(offset..offset + CommitStamp::LEN) {
        hole.copy_from_slice(stamp);
    }
    bytes.into()
}

/// What an atomic operation makes of a value.
pub(super) fn apply_atomic(value: Option<Bytes>, atomic: &Mutation) -> Option<Bytes> {
    match atomic {
        Mutation::Add { operand, .. } => Some(little_endian_sum(value.as_deref(), operand)),
        Mutation::CompareAndClear { expected, .. } => value.filter(|value| value != expected),
        _ => value,
    }
}

//! FoundationDB's limits, which every backend keeps, and the checks of what a caller passes in.

use super::types::{KeyRange, USER_SPACE_END};
use super::{CommitStamp, StoreError, StoreErrorKind};
use std::time::Duration;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 10_000;

/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 100_000;

/// The most that one transaction may affect: keys and values written, and the keys of conflict
/// ranges, in bytes.
pub const MAX_TRANSACTION_BYTES: usize = 10_000_000;

/// How long after its read version was obtained a transaction may read and commit.
pub const MAX_TRANSACTION_AGE: Duration = Duration::from_secs(5);

/// Refuses a key that is too long or outside the user key space.
pub(crate) fn check_key(key: &[u8]) -> Result<(), StoreError> {
    if key.len() > MAX_KEY_BYTES {
        return Err(
            StoreError::new(StoreErrorKind::KeyTooLarge).with_context(format!(
                "{} bytes, at most {MAX_KEY_BYTES} are allowed",
                key.len()
            )),
        );
    }
    if key >= USER_SPACE_END {
        return Err(StoreError::new(StoreErrorKind::InvalidCall)
            .with_context("keys that begin with the byte 0xff belong to the store itself"));
    }
    Ok(())
}

/// Refuses a value that is too long.
pub(crate) fn check_value(value: &[u8]) -> Result<(), StoreError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(
            StoreError::new(StoreErrorKind::ValueTooLarge).with_context(format!(
                "{} bytes, at most {MAX_VALUE_BYTES} are allowed",
                value.len()
            )),
        );
    }
    Ok(())
}

/// Refuses a range that is inverted or has an end that is no key's neighbour.
pub(crate) fn check_range(range: &KeyRange) -> Result<(), StoreError> {
    // One byte more than a key: the end of the range that holds just the longest key.
    for bound in [&range.begin, &range.end] {
        if bound.len() > MAX_KEY_BYTES + 1 {
            return Err(
                StoreError::new(StoreErrorKind::KeyTooLarge).with_context(format!(
                    "a range bound of {} bytes, at most {MAX_KEY_BYTES} are allowed",
                    bound.len()
                )),
            );
        }
    }
    if range.begin > range.end {
        return Err(StoreError::new(StoreErrorKind::InvalidCall)
            .with_context("the begin of a range is above its end"));
    }
    if range.end.as_ref() > USER_SPACE_END {
        return Err(StoreError::new(StoreErrorKind::InvalidCall)
            .with_context("a range reaches beyond the byte 0xff, into the store's own keys"));
    }
    Ok(())
}

/// What FoundationDB appends to a template: the offset, counted towards the limit of what it is.
const OFFSET_BYTES: usize = 4;

/// Refuses the template of a key that is too long, outside the user key space, or without room for
/// a stamp at `offset`.
pub(crate) fn check_stamped_key(template: &[u8], offset: usize) -> Result<(), StoreError> {
    check_key(template)?;
    check_template(template, offset)?;
    check_appended(template, MAX_KEY_BYTES, StoreErrorKind::KeyTooLarge)
}

/// Refuses the template of a value that is too long or without room for a stamp at `offset`.
pub(crate) fn check_stamped_value(template: &[u8], offset: usize) -> Result<(), StoreError> {
    check_value(template)?;
    check_template(template, offset)?;
    check_appended(template, MAX_VALUE_BYTES, StoreErrorKind::ValueTooLarge)
}

fn check_appended(template: &[u8], most: usize, kind: StoreErrorKind) -> Result<(), StoreError> {
    if template.len() + OFFSET_BYTES > most {
        return Err(StoreError::new(kind).with_context(format!(
            "{} bytes with a stamp, at most {} are allowed",
            template.len(),
            most - OFFSET_BYTES
        )));
    }
    Ok(())
}

/// Refuses a template without room for a stamp at `offset`.
fn check_template(template: &[u8], offset: usize) -> Result<(), StoreError> {
    match offset.checked_add(CommitStamp::LEN) {
        Some(end) if end <= template.len() => Ok(()),
        _ => Err(
            StoreError::new(StoreErrorKind::InvalidCall).with_context(format!(
                "a stamp of {} bytes does not fit at offset {offset} of {} bytes",
                CommitStamp::LEN,
                template.len()
            )),
        ),
    }
}

//! Values of any size, cut into rows that the store takes.
//!
//! A value is one *record* of one or more rows, the *chunks*, under keys that differ in the chunk's
//! number only. The first chunk begins with the number of chunks. Invariant: a record that is not
//! exactly the rows `0..count` is [`Corrupt`](StoreErrorKind::Corrupt) and never a shorter or a
//! longer value; a reader knows without a further read whether it has the whole of it.

mod scan;

use super::keys::StampedKey;
use super::value::corrupt;
use crate::store::{
    Isolation, KeyRange, KeyValue, MAX_VALUE_BYTES, StoreError, StoreErrorKind, Tx,
};
use bytes::Bytes;
use std::future::Future;

pub(crate) use scan::{Layout, Limits, Record, Scanned, scan, scan_from};

/// The largest chunk, in bytes, the count in the first one included.
pub(crate) const CHUNK_BYTES: usize = 90_000;
const _: () = assert!(CHUNK_BYTES < MAX_VALUE_BYTES);

/// The most chunks of a value. So many fill a transaction; a greater count is a foreign one.
pub(crate) const MAX_CHUNKS: u16 = 112;

/// The number of chunks, big-endian.
const COUNT_BYTES: usize = 2;

/// The largest value, in bytes.
pub(crate) const MAX_BYTES: usize = MAX_CHUNKS as usize * CHUNK_BYTES - COUNT_BYTES;

/// Into how many chunks a value of this length is cut.
pub(crate) fn count(bytes: usize) -> usize {
    (bytes + COUNT_BYTES).div_ceil(CHUNK_BYTES)
}

/// Writes a value under the keys that `key_of` gives its chunks. Chunks of a longer value that
/// stood there before are the caller's to clear, first.
///
/// # Errors
///
/// [`ValueTooLarge`](StoreErrorKind::ValueTooLarge) above [`MAX_BYTES`]; then nothing is written.
pub(crate) fn write(
    tx: &Tx,
    key_of: impl Fn(u32) -> Bytes,
    value: &[u8],
) -> Result<(), StoreError> {
    cut(value, |chunk, row| tx.set(&key_of(chunk), row))
}

/// Writes a value under keys that hold the commit's stamp.
///
/// # Errors
///
/// As [`write`].
pub(crate) fn write_stamped(
    tx: &Tx,
    key_of: impl Fn(u32) -> StampedKey,
    value: &[u8],
) -> Result<(), StoreError> {
    cut(value, |chunk, row| {
        let StampedKey { template, offset } = key_of(chunk);
        tx.set_versionstamped_key(&template, offset, row);
    })
}

fn cut(value: &[u8], mut put: impl FnMut(u32, &[u8])) -> Result<(), StoreError> {
    if value.len() > MAX_BYTES {
        return Err(
            StoreError::new(StoreErrorKind::ValueTooLarge).with_context(format!(
                "{} bytes in chunks, at most {MAX_BYTES} are allowed",
                value.len()
            )),
        );
    }
    // At most MAX_CHUNKS, as the length was checked.
    let count = u16::try_from(count(value.len())).unwrap_or(MAX_CHUNKS);
    let (first, rest) = value.split_at(value.len().min(CHUNK_BYTES - COUNT_BYTES));
    put(0, &[&count.to_be_bytes()[..], first].concat());
    for (chunk, row) in (1..).zip(rest.chunks(CHUNK_BYTES)) {
        put(chunk, row);
    }
    Ok(())
}

/// Puts the chunks of one value together again, in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    /// How many chunks the first one announced.
    count: usize,
    parts: Vec<Bytes>,
}

impl Assembler {
    /// Takes the next row, which is chunk number `chunk` by its key.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](StoreErrorKind::Corrupt), naming the key, if it is not the next chunk.
    pub(crate) fn add(&mut self, key: &[u8], chunk: u32, row: Bytes) -> Result<(), StoreError> {
        let next = self.parts.len();
        if usize::try_from(chunk) != Ok(next) {
            return Err(corrupt(key, &format!("chunk {next} is missing before it")));
        }
        if next == 0 {
            let (count, _) = row
                .split_first_chunk::<COUNT_BYTES>()
                .ok_or_else(|| corrupt(key, "the first chunk is too short for its count"))?;
            let count = u16::from_be_bytes(*count);
            if !(1..=MAX_CHUNKS).contains(&count) {
                return Err(corrupt(key, &format!("a value of {count} chunks")));
            }
            self.count = usize::from(count);
            self.parts.push(row.slice(COUNT_BYTES..));
        } else if next < self.count {
            self.parts.push(row);
        } else {
            let count = self.count;
            return Err(corrupt(key, &format!("a chunk beyond the last of {count}")));
        }
        Ok(())
    }

    /// How many chunks are still to come, as far as is known.
    pub(crate) fn missing(&self) -> usize {
        self.count.saturating_sub(self.parts.len())
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](StoreErrorKind::Corrupt), naming `key`, if chunks are missing.
    pub(crate) fn finish(mut self, key: &[u8]) -> Result<Bytes, StoreError> {
        if self.parts.is_empty() || self.missing() > 0 {
            return Err(corrupt(
                key,
                &format!("{} of {} chunks", self.parts.len(), self.count),
            ));
        }
        // Most values are one chunk, which needs no copy.
        match (self.parts.len(), self.parts.pop()) {
            (1, Some(only)) => Ok(only),
            (_, last) => {
                self.parts.extend(last);
                Ok(self.parts.concat().into())
            }
        }
    }
}

/// The value that `rows` are, whose chunks have the keys that `key_of` gives; none if there are no
/// rows.
///
/// # Errors
///
/// [`Corrupt`](StoreErrorKind::Corrupt), naming the key, if they are anything but one whole value.
pub(crate) fn join(
    rows: Vec<KeyValue>,
    key_of: impl Fn(u32) -> Bytes,
) -> Result<Option<Bytes>, StoreError> {
    let Some(first) = rows.first().map(|row| row.key.clone()) else {
        return Ok(None);
    };
    let mut assembler = Assembler::default();
    for (chunk, row) in (0..).zip(rows) {
        if row.key != key_of(chunk) {
            return Err(corrupt(&row.key, &format!("chunk {chunk} is expected")));
        }
        assembler.add(&row.key, chunk, row.value)?;
    }
    assembler.finish(&first).map(Some)
}

/// Reads the one value whose chunks are all that `range` holds, under the keys of `key_of`.
pub(crate) fn read<K: Fn(u32) -> Bytes + Send + 'static>(
    tx: &Tx,
    range: &KeyRange,
    isolation: Isolation,
    key_of: K,
) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send + 'static + use<K> {
    // One more than there can be, so that a value that is too long shows.
    let mut read = range.read().limit(usize::from(MAX_CHUNKS) + 1);
    read.isolation = isolation;
    let rows = tx.get_range(read);
    async move { join(rows.await?, key_of) }
}

#[cfg(test)]
mod tests;

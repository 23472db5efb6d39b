//! How values are written: a format byte, then MessagePack with field names, which tools can read
//! without the program that wrote it. Values above [`CHUNK_BYTES`] are cut into chunks.

use crate::codec;
use crate::store::{StoreError, StoreErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format of every value written by this layout.
const FORMAT: u8 = 1;

/// Encodes a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, StoreError> {
    let mut value = vec![FORMAT];
    let payload = codec::to_payload(record).map_err(|error| {
        StoreError::new(StoreErrorKind::InvalidCall)
            .with_context("a record cannot be encoded")
            .with_source(error)
    })?;
    value.extend_from_slice(&payload);
    Ok(value)
}

/// Decodes the record stored under `key`.
///
/// # Errors
///
/// [`Corrupt`](StoreErrorKind::Corrupt), naming the key, whatever the bytes.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    let Some((format, payload)) = value.split_first() else {
        return Err(corrupt(key, "the value is empty"));
    };
    if *format != FORMAT {
        return Err(corrupt(
            key,
            &format!("the value has the unknown format {format}"),
        ));
    }
    codec::from_payload(payload)
        .map_err(|error| corrupt(key, "the value is damaged").with_source(error))
}

/// The error of a value that nobody should have written.
pub(crate) fn corrupt(key: &[u8], what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt)
        .at(key)
        .with_context(format!("key \"{}\": {what}", key.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn foreign_values_are_corrupt_and_named() {
        for value in [&b""[..], b"\x02\xc0", b"\x01", b"\x01\xdd\xff\xff\xff\xff"] {
            let error = decode::<Vec<String>>(b"some \xff key", value).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Corrupt);
            assert!(error.to_string().contains("some \\xff key"), "{error}");
        }
    }
}

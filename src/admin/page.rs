//! Pages of listings, and where to go on.

use super::error::AdminError;
use crate::codec;
use crate::id::InstanceId;
use crate::store::{KeyRange, StoreError, StoreErrorKind};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// How much damage a report names of what may be a whole namespace.
pub(super) const MAX_DAMAGED: usize = 1_000;

/// A part of a listing: what one transaction found.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// What was found. May be empty although more follows: a filter passed over all of it.
    pub items: Vec<T>,
    /// What belongs here and cannot be read.
    pub damaged: Vec<Damage>,
    /// Where the listing goes on; none at its end.
    pub next: Option<Cursor>,
}

/// Something in the store that abide does not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The key.
    pub key: Bytes,
    /// What is wrong with it.
    pub what: String,
}

impl Damage {
    pub(super) fn foreign(key: Bytes) -> Self {
        Self {
            key,
            what: "the key is not one that abide writes here".to_owned(),
        }
    }

    /// At the key that the error names, or else at this one.
    pub(super) fn new(key: Bytes, error: &StoreError) -> Self {
        let key = error.key().cloned().unwrap_or(key);
        let what = what_is_wrong(&key, error);
        Self { key, what }
    }
}

/// What an error says of a key, without the key, and why.
pub(super) fn what_is_wrong(key: &[u8], error: &StoreError) -> String {
    let named = format!("key \"{}\": ", key.escape_ascii());
    let text = error.context().unwrap_or_default();
    let mut what = match text.strip_prefix(&named).unwrap_or(text) {
        "" => error.kind().to_string(),
        text => text.to_owned(),
    };
    let mut cause = error.source();
    while let Some(of) = cause {
        what += &format!(": {of}");
        cause = of.source();
    }
    what
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key \"{}\": {}", self.key.escape_ascii(), self.what)
    }
}

/// Takes what could be read, or notes the damage; other errors of the store end the listing.
pub(super) fn or_damage<T>(
    read: Result<T, StoreError>,
    key: &Bytes,
    damaged: &mut Vec<Damage>,
) -> Result<Option<T>, StoreError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == StoreErrorKind::Corrupt => {
            damaged.push(Damage::new(key.clone(), &error));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Where a listing goes on. It has a text form, so that a listing can go on in another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub(super) Place);

/// What a cursor says: the part of a listing, and the first key that was not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) part: u8,
    pub(super) shard: u32,
    #[serde(with = "serde_bytes")]
    pub(super) key: Vec<u8>,
    pub(super) instance: Option<(String, String)>,
}

impl Place {
    /// The beginning of a part.
    pub(super) fn part(part: u8) -> Self {
        Self {
            part,
            ..Self::default()
        }
    }

    /// Where a listing goes on that has but one part.
    pub(super) fn key(key: &[u8]) -> Self {
        Self {
            key: key.to_vec(),
            ..Self::default()
        }
    }

    /// The rest of a range from here on. A cursor comes from outside, so it may point anywhere.
    pub(super) fn rest_of(&self, range: KeyRange) -> KeyRange {
        let begin = Bytes::copy_from_slice(&self.key);
        let begin = begin.max(range.begin).min(range.end.clone());
        KeyRange::new(begin, range.end)
    }

    pub(super) fn instance(&self) -> Result<Option<InstanceId>, AdminError> {
        let named = self.instance.as_ref();
        let instance = named.map(|(kind, id)| InstanceId::new(kind.as_str(), id.as_str()));
        Ok(instance.transpose()?)
    }

    pub(super) fn of(instance: &InstanceId) -> Option<(String, String)> {
        Some((instance.kind().to_owned(), instance.id().to_owned()))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = codec::to_payload(&self.0).map_err(|_| fmt::Error)?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = AdminError;

    fn from_str(text: &str) -> Result<Self, AdminError> {
        let invalid = || AdminError::invalid("this is no cursor");
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return Err(invalid());
        }
        let bytes: Option<Vec<u8>> = pairs
            .iter()
            .map(|pair| {
                let digits = std::str::from_utf8(pair).ok()?;
                u8::from_str_radix(digits, 16).ok()
            })
            .collect();
        let bytes = bytes.ok_or_else(invalid)?;
        let place = codec::from_payload(&bytes).map_err(|error| invalid().with_source(error))?;
        Ok(Self(place))
    }
}

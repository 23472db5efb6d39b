//! The pause of an instance, or of a kind: an operator's word that ordinary messages wait.
//!
//! Whoever ends a pause also gives the marks of those that waited a new value, and
//! [wakes](super::ready::wake) their shards.

use super::keys::InstanceKeys;
use super::{attempts, value};
use crate::store::{Isolation, StoreError, Tx};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::future::Future;

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Paused {
    /// Since when, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// Why, in the operator's words; as much is stored as of an error.
    pub(crate) reason: String,
}

/// Reads the pause under a key, an instance's or a kind's, serializably: a pause that comes meanwhile
/// fails the commit.
///
/// # Errors
///
/// Those of the store; [`Corrupt`](crate::store::StoreErrorKind::Corrupt) for foreign bytes.
pub(crate) fn read_at(
    tx: &Tx,
    key: Bytes,
) -> impl Future<Output = Result<Option<Paused>, StoreError>> + Send + 'static + use<> {
    let stored = tx.get(&key, Isolation::Serializable);
    async move {
        let stored = stored.await?;
        stored.map(|bytes| value::decode(&key, &bytes)).transpose()
    }
}

/// Pauses an instance. Blind.
///
/// # Errors
///
/// None that the record's content could cause.
pub(crate) fn set(tx: &Tx, instance: &InstanceKeys, paused: &Paused) -> Result<(), StoreError> {
    set_at(tx, &instance.paused(), paused)
}

/// Writes the pause of an instance or of a kind under its key. Blind.
///
/// # Errors
///
/// None that the record's content could cause.
pub(crate) fn set_at(tx: &Tx, key: &[u8], paused: &Paused) -> Result<(), StoreError> {
    let mut paused = paused.clone();
    attempts::shorten(&mut paused.reason);
    tx.set(key, &value::encode(&paused)?);
    Ok(())
}

/// Ends the pause of an instance. Blind.
pub(crate) fn clear(tx: &Tx, instance: &InstanceKeys) {
    tx.clear(&instance.paused());
}

//! A namespace: the key prefix of one application, and the description that its first user wrote.

use super::keys::Keys;
use crate::codec;
use crate::store::{
    Database, Isolation, MAX_KEY_BYTES, RetryPolicy, StoreError, StoreErrorKind, Transaction,
    TransactionExt, Tx,
};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The key layout that this version of the crate reads and writes.
pub const LAYOUT: u32 = 2;

/// The number of shards of a new namespace: enough to spread over the nodes of a large cluster, few
/// enough for a node to watch each.
pub const DEFAULT_SHARDS: u32 = 64;

/// The most shards a description may state; more are taken for foreign bytes.
const MAX_SHARDS: u32 = 65_536;

/// The format of the description's value.
const FORMAT: u8 = 1;

/// The longest name; the prefix repeats in every key.
const MAX_NAME_BYTES: usize = 256;
const _: () = assert!(MAX_NAME_BYTES * 16 < MAX_KEY_BYTES);

/// An open namespace of a store.
///
/// Clones are the same one: what one of them learns of the [incarnation](Self::incarnation), all know.
#[derive(Debug, Clone)]
pub struct Namespace {
    db: Database,
    keys: Keys,
    incarnation: Arc<AtomicU32>,
}

/// The value of `("m")`. Unknown fields are a newer layout's business and would have raised
/// `layout`; they are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Meta {
    layout: u32,
    shards: u32,
    incarnation: u32,
}

impl Namespace {
    /// Opens the namespace `name`, creating it with [`DEFAULT_SHARDS`] shards if it is not there.
    ///
    /// # Errors
    ///
    /// - [`InvalidCall`](StoreErrorKind::InvalidCall) if the name is empty or too long.
    /// - [`InvalidStore`](StoreErrorKind::InvalidStore) if a newer version of the crate wrote it.
    /// - [`Corrupt`](StoreErrorKind::Corrupt) if its description cannot be read.
    /// - Whatever the store answers.
    pub async fn open(db: &Database, name: &str) -> Result<Self, StoreError> {
        Self::open_with_shards(db, name, DEFAULT_SHARDS).await
    }

    /// Opens the namespace `name`; if it is not there, creates it with `shards` shards. The number
    /// is fixed from then on, and that of a namespace that exists is kept.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); and [`InvalidCall`](StoreErrorKind::InvalidCall) if `shards` is not
    /// between 1 and 65 536.
    pub async fn open_with_shards(
        db: &Database,
        name: &str,
        shards: u32,
    ) -> Result<Self, StoreError> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(
                StoreError::new(StoreErrorKind::InvalidCall).with_context(format!(
                    "the name of a namespace is {} bytes long: 1 to {MAX_NAME_BYTES} are allowed",
                    name.len()
                )),
            );
        }
        if !(1..=MAX_SHARDS).contains(&shards) {
            return Err(StoreError::new(StoreErrorKind::InvalidCall)
                .with_context(format!("{shards} shards: 1 to {MAX_SHARDS} are allowed")));
        }
        let prefix = Keys::namespace_prefix(name);
        let key = Keys::new(prefix.clone(), shards).meta();
        let fresh = Meta {
            layout: LAYOUT,
            shards,
            incarnation: 0,
        };
        // Idempotent: whoever comes second finds what the first has written, itself included.
        let meta = db
            .run_with(RetryPolicy::retry_unknown(), |attempt| {
                let (key, fresh) = (key.clone(), fresh.clone());
                async move { read_or_create(attempt.tx().as_ref(), &key, fresh).await }
            })
            .await
            .map_err(|error| name_namespace(error, name))?
            .value;
        Ok(Self {
            db: db.clone(),
            keys: Keys::new(prefix, meta.shards),
            incarnation: Arc::new(AtomicU32::new(meta.incarnation)),
        })
    }

    /// Opens the namespace `name` if it is there; creates nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn find(db: &Database, name: &str) -> Result<Option<Self>, StoreError> {
        let prefix = Keys::namespace_prefix(name);
        let key = Keys::new(prefix, 1).meta();
        let found = db.run(|attempt| {
            let key = key.clone();
            async move { attempt.tx().peek(&key).await }
        });
        match found.await?.value {
            Some(_) => Self::open(db, name).await.map(Some),
            None => Ok(None),
        }
    }

    /// The database that holds it.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// How often its data was moved to another store, where versionstamps began anew: as far as this
    /// process knows, which looks again with every heartbeat.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.incarnation.load(Ordering::SeqCst)
    }

    /// Whether the store is in this incarnation of the namespace. Without a conflict: whoever changes
    /// it waits for nobody.
    pub(crate) fn is_in(
        &self,
        tx: &Tx,
        incarnation: u32,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + use<> {
        let meta = tx.get(&self.keys.meta(), Isolation::Snapshot);
        async move {
            let meta = meta.await?.map(|meta| decode(&meta)).transpose()?;
            Ok(meta.is_some_and(|meta| meta.incarnation == incarnation))
        }
    }

    /// What the store says of the namespace now, where it may be another than the one that was
    /// opened: a restored one. Writes the description anew if it is older than the namespace.
    pub(crate) async fn reread(&self, tx: &Tx) -> Result<Reread, StoreError> {
        let fresh = Meta {
            layout: LAYOUT,
            shards: self.keys.shards(),
            incarnation: self.incarnation(),
        };
        let meta = read_or_create(tx.as_ref(), &self.keys.meta(), fresh).await?;
        if meta.shards != self.keys.shards() {
            return Err(
                StoreError::new(StoreErrorKind::InvalidStore).with_context(format!(
                    "the namespace had {} shards when it was opened, and has {} now: restart this \
                     program",
                    self.keys.shards(),
                    meta.shards
                )),
            );
        }
        Ok(Reread(meta.incarnation))
    }

    /// Takes over what was read, once that is known to be committed.
    pub(crate) fn learn(&self, reread: &Reread) {
        self.incarnation.store(reread.0, Ordering::SeqCst);
    }

    /// Begins the next incarnation.
    pub(crate) async fn begin_next(&self, tx: &Tx) -> Result<Reread, StoreError> {
        let key = self.keys.meta();
        let meta = tx.read(&key).await?;
        let meta = meta.ok_or_else(|| {
            StoreError::new(StoreErrorKind::Corrupt).with_context("the namespace has vanished")
        })?;
        let meta = decode(&meta)?;
        let next = Meta {
            incarnation: meta.incarnation.saturating_add(1),
            ..meta
        };
        tx.set(&key, &encode(&next)?);
        Ok(Reread(next.incarnation))
    }
}

/// What a transaction has found of a namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reread(u32);

impl Reread {
    /// The incarnation.
    pub(crate) fn incarnation(self) -> u32 {
        self.0
    }
}

async fn read_or_create(tx: &dyn Transaction, key: &[u8], fresh: Meta) -> Result<Meta, StoreError> {
    match tx.read(key).await? {
        Some(value) => decode(&value),
        None => {
            tx.set(key, &encode(&fresh)?);
            Ok(fresh)
        }
    }
}

fn encode(meta: &Meta) -> Result<Vec<u8>, StoreError> {
    let mut value = vec![FORMAT];
    let payload = codec::to_payload(meta)
        .map_err(|error| StoreError::new(StoreErrorKind::Failed).with_source(error))?;
    value.extend_from_slice(&payload);
    Ok(value)
}

/// The one field that every layout has.
#[derive(Deserialize)]
struct AnyLayout {
    layout: u32,
}

/// The layout is looked at before anything else is believed.
fn decode(value: &[u8]) -> Result<Meta, StoreError> {
    let corrupt = || {
        StoreError::new(StoreErrorKind::Corrupt)
            .with_context("the description, under the key (\"m\"), is not one that abide writes")
    };
    let newer = |what: String| {
        StoreError::new(StoreErrorKind::InvalidStore).with_context(format!(
            "{what} is newer than this version of abide understands: upgrade this program"
        ))
    };
    let (format, payload) = value.split_first().ok_or_else(corrupt)?;
    if *format > FORMAT {
        return Err(newer(format!("the format {format} of the description")));
    }
    let any: AnyLayout =
        codec::from_payload(payload).map_err(|error| corrupt().with_source(error))?;
    if any.layout > LAYOUT {
        return Err(newer(format!("the layout {}", any.layout)));
    }
    if (1..LAYOUT).contains(&any.layout) {
        return Err(
            StoreError::new(StoreErrorKind::InvalidStore).with_context(format!(
                "the layout {} is older than this version of abide reads: export the namespace with \
                 the version that wrote it, and import it with this one",
                any.layout
            )),
        );
    }
    let meta: Meta = codec::from_payload(payload).map_err(|error| corrupt().with_source(error))?;
    if *format == 0 || meta.layout == 0 || !(1..=MAX_SHARDS).contains(&meta.shards) {
        return Err(corrupt());
    }
    Ok(meta)
}

/// Says which namespace an error that is about its content is about.
fn name_namespace(error: StoreError, name: &str) -> StoreError {
    match error.kind() {
        StoreErrorKind::Corrupt | StoreErrorKind::InvalidStore => {
            error.about(&format!("the namespace `{name}`"))
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests;

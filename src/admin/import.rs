//! Reading an export into a namespace.
//!
//! Invariants:
//!
//! - *Each record once.* How many records were taken stands in the store, and every transaction that
//!   takes some moves it on. An import that was interrupted, by whatever, is given the same stream from
//!   the beginning, and passes over what it has.
//! - *No half instance runs.* An instance is paused until its last record is there. Priority messages
//!   pass a pause: send none to an instance that is being imported.
//! - *One at a time.* While an import is unfinished, no other stream is taken; one that will not go on
//!   is [abandoned](Admin::abandon_import).
//! - *Order.* Messages get new stamps, in the order of the stream; so do dead letters.

mod abandon;
mod step;
mod write;

use super::Admin;
use super::error::{AdminError, AdminErrorKind};
use super::record::{Body, FORMAT, Record, VERSION};
use crate::durable::{Work, value};
use crate::store::{Isolation, StoreError, TransactionExt, Tx};
pub use abandon::{ImportProgress, UnfinishedImport};
use serde::{Deserialize, Serialize};
use step::Current;
use write::Op;

/// How much one transaction takes.
const BATCH: usize = 1_000;
const BATCH_BYTES: usize = 1_000_000;

/// How to [import](Admin::import).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Allows a namespace that holds instances already. One that is in the stream too is refused all
    /// the same: kill it first.
    pub into_non_empty: bool,
}

/// What was imported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// How many records were taken, in this run and those before.
    pub records: u64,
    /// How many of them were passed over, because a run before has taken them.
    pub resumed: u64,
    /// How many instances were begun in this run.
    pub instances: u64,
    /// How many messages and dead letters came in this run.
    pub messages: u64,
}

/// An import under way. See [`Admin::import`].
#[derive(Debug)]
pub struct Import<'a> {
    admin: &'a Admin,
    options: ImportOptions,
    /// The export's id, once its first record is there.
    id: Option<String>,
    seen: u64,
    committed: u64,
    pending: Vec<Op>,
    bytes: usize,
    current: Option<Current>,
    ended: bool,
    report: Imported,
}

/// How far an import has come: the value of `("y")`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    id: String,
    records: u64,
    /// Kind and id of the instance of which records are to come. Left out by those who never said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within: Option<(String, String)>,
}

impl Admin {
    /// Imports a stream of records: [push](Import::push) them in their order, then
    /// [finish](Import::finish).
    #[must_use]
    pub fn import(&self, options: ImportOptions) -> Import<'_> {
        Import {
            admin: self,
            options,
            id: None,
            seen: 0,
            committed: 0,
            pending: Vec::new(),
            bytes: 0,
            current: None,
            ended: false,
            report: Imported::default(),
        }
    }
}

impl Import<'_> {
    /// Takes the next record. Records are written in batches; what was not written when the process
    /// ends is taken again by the next run.
    ///
    /// # Errors
    ///
    /// - [`Invalid`](super::AdminErrorKind::Invalid) for a record that does not belong here.
    /// - [`Refused`](super::AdminErrorKind::Refused) if the namespace, or the instance, is not empty,
    ///   or another import is unfinished: go on with that one, or
    ///   [abandon](Admin::abandon_import) it.
    /// - [`Corrupt`](super::AdminErrorKind::Corrupt) if the record of an unfinished import cannot be
    ///   read. It can be abandoned too.
    /// - Whatever the store answers.
    ///
    /// After an error begin anew, with the first record.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is an interruption: begin anew.
    pub async fn push(&mut self, record: Record) -> Result<(), AdminError> {
        if self.id.is_none() {
            return self.begin(record).await;
        }
        if self.ended {
            return Err(AdminError::invalid("a record follows the last one"));
        }
        let size = record.size();
        if !self.pending.is_empty() && self.bytes + size > BATCH_BYTES {
            self.flush().await?;
        }
        let op = self.step(record)?;
        self.seen += 1;
        if self.seen <= self.committed {
            return Ok(());
        }
        self.pending.extend(op);
        self.bytes += size;
        if self.pending.len() >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    /// Ends the import.
    ///
    /// # Errors
    ///
    /// [`Refused`](super::AdminErrorKind::Refused) if the stream has not come to its end; whatever
    /// the store answers.
    ///
    /// # Cancel safety
    ///
    /// As [`push`](Self::push).
    pub async fn finish(mut self) -> Result<Imported, AdminError> {
        if !self.ended {
            return Err(AdminError::refused(
                "the stream is cut off: its last record is missing",
            ));
        }
        if self.seen > self.committed {
            self.flush().await?;
        }
        let key = &self.admin.namespace.keys().import();
        let id = &self.id;
        self.admin
            .change(|tx| async move {
                match read_progress(&tx, key).await? {
                    // Whoever abandoned it and began another import goes on with that.
                    Some(stored) if Some(&stored.id) != id.as_ref() => Err(interfered()),
                    None => Ok(Work::Look(())),
                    Some(_) => {
                        tx.clear(key);
                        Ok(Work::Write(()))
                    }
                }
            })
            .await?;
        self.report.records = self.seen;
        Ok(self.report)
    }

    /// How many records a run before has taken.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        self.report.resumed
    }

    async fn begin(&mut self, record: Record) -> Result<(), AdminError> {
        let Body::Header {
            format,
            version,
            id,
            ..
        } = record.0
        else {
            return Err(AdminError::invalid("the stream begins with no header"));
        };
        if format != FORMAT || version == 0 || version > VERSION {
            return Err(AdminError::invalid(format!(
                "the stream is `{format}` of version {version}; up to {VERSION} is understood"
            )));
        }
        let keys = self.admin.namespace.keys();
        let (stored, is_empty) = self
            .admin
            .look(|tx| async move {
                let stored = tx.peek(&keys.import()).await?;
                let mut empty = tx
                    .is_empty(&keys.directory_of(None), Isolation::Snapshot)
                    .await?;
                for shard in 0..keys.shards() {
                    let instances = keys.instances_of(shard, None);
                    empty &= tx.is_empty(&instances, Isolation::Snapshot).await?;
                }
                Ok((stored, empty))
            })
            .await?;
        let progress: Option<Progress> = stored
            .map(|stored| value::decode(&keys.import(), &stored))
            .transpose()
            .map_err(|error| {
                AdminError::new(
                    AdminErrorKind::Corrupt,
                    "an import is unfinished, and how far it has come cannot be read: it can only be \
                     abandoned (`import --abandon`)",
                )
                .with_source(error)
            })?;
        match progress {
            Some(progress) if progress.id == id => {
                self.committed = progress.records;
                self.report.resumed = progress.records;
            }
            Some(_) => {
                return Err(AdminError::refused(
                    "the import of another stream is unfinished: go on with that one, or abandon it \
                     (`import --abandon`)",
                ));
            }
            None if !is_empty && !self.options.into_non_empty => {
                return Err(AdminError::refused("the namespace is not empty"));
            }
            None => {}
        }
        self.id = Some(id);
        self.seen = 1;
        Ok(())
    }

    /// Writes what is pending, and how far the import has come with it.
    async fn flush(&mut self) -> Result<(), AdminError> {
        let id = self.id.clone().unwrap_or_default();
        let (ops, admin) = (&self.pending, self.admin);
        let before = self.committed;
        let after = Progress {
            id,
            records: self.seen,
            within: self.current.as_ref().map(Current::name),
        };
        let (after, progress_key) = (&after, admin.namespace.keys().import());
        let progress_key = &progress_key;
        admin
            .change(|tx| async move {
                let stored = read_progress(&tx, progress_key).await?;
                let known = stored.as_ref().map_or(0, |stored| stored.records);
                if known != before || stored.is_some_and(|stored| stored.id != after.id) {
                    return Err(interfered());
                }
                // Before anything is written, so that a refusal leaves nothing.
                for op in ops {
                    if let Op::Begin(instance, ..) = op {
                        let all = admin.namespace.keys().instance(instance).all();
                        if !tx.is_empty(&all, Isolation::Serializable).await? {
                            return Err(AdminError::refused(format!(
                                "the instance {instance} is there already"
                            )));
                        }
                    }
                }
                admin.write_all(&tx, ops)?;
                tx.set(progress_key, &value::encode(after)?);
                Ok(Work::Write(()))
            })
            .await?;
        for op in &self.pending {
            self.report.instances += u64::from(matches!(op, Op::Begin(..)));
            self.report.messages += u64::from(matches!(op, Op::Message(..)));
        }
        self.committed = self.seen;
        self.pending.clear();
        self.bytes = 0;
        Ok(())
    }
}

async fn read_progress(tx: &Tx, key: &[u8]) -> Result<Option<Progress>, StoreError> {
    let stored = tx.read(key).await?;
    stored.map(|stored| value::decode(key, &stored)).transpose()
}

fn interfered() -> AdminError {
    AdminError::refused("another process imports at the same time, or has abandoned this import")
}

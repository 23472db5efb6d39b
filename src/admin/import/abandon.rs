//! Giving up an import that has not come to its end.
//!
//! Invariant: *only what was shown is given up*. An import that went on since it was looked at is not
//! abandoned, and one that goes on afterwards finds its record gone, and stops.

use super::Progress;
use crate::admin::Admin;
use crate::admin::error::AdminError;
use crate::admin::page::{Damage, or_damage};
use crate::durable::{Work, value};
use crate::id::InstanceId;
use crate::store::TransactionExt;
use bytes::Bytes;

/// An import that has not come to its end. See [`Admin::unfinished_import`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedImport {
    /// How far it has come, or why that cannot be read.
    pub progress: Result<ImportProgress, Damage>,
    /// The record as it is stored.
    stored: Bytes,
}

/// How far an import has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportProgress {
    /// The id of the export that is imported.
    pub id: String,
    /// How many of its records were taken.
    pub records: u64,
    /// The instance of which more records were to come. It is paused.
    pub within: Option<InstanceId>,
}

impl Admin {
    /// The import that has not come to its end, if there is one. Until it has, or is
    /// [abandoned](Self::abandon_import), no other stream can be imported.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn unfinished_import(&self) -> Result<Option<UnfinishedImport>, AdminError> {
        let key = self.namespace.keys().import();
        let stored = self.look(|tx| {
            let key = key.clone();
            async move { tx.peek(&key).await }
        });
        let Some(stored) = stored.await? else {
            return Ok(None);
        };
        let mut damaged = Vec::new();
        let progress = value::decode::<Progress>(&key, &stored);
        let progress = or_damage(progress, &key, &mut damaged)?;
        let progress = match (progress, damaged.pop()) {
            (Some(progress), _) => Ok(ImportProgress {
                id: progress.id,
                records: progress.records,
                within: progress
                    .within
                    .and_then(|(kind, id)| InstanceId::new(kind, id).ok()),
            }),
            (None, damage) => Err(damage.unwrap_or_else(|| Damage::foreign(key))),
        };
        Ok(Some(UnfinishedImport { progress, stored }))
    }

    /// Gives up an import that will not go on: because its stream is lost, or its record cannot be
    /// read. Nothing but that record is removed. What was imported stays; the instance that is there
    /// in part stays paused, to be [killed](Self::kill).
    ///
    /// # Errors
    ///
    /// - [`NotFound`](crate::admin::AdminErrorKind::NotFound) if no import is unfinished.
    /// - [`Refused`](crate::admin::AdminErrorKind::Refused) if it is not as it was found: it goes on.
    /// - Whatever the store answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the outcome unknown.
    pub async fn abandon_import(&self, found: &UnfinishedImport) -> Result<(), AdminError> {
        let key = self.namespace.keys().import();
        self.change(|tx| {
            let key = key.clone();
            async move {
                let Some(stored) = tx.read(&key).await? else {
                    return Err(AdminError::not_found("no import is unfinished"));
                };
                if stored != found.stored {
                    return Err(AdminError::refused(
                        "the import went on meanwhile, and is not abandoned",
                    ));
                }
                tx.clear(&key);
                Ok(Work::Write(()))
            }
        })
        .await
    }
}

//! Dead letters: looking at them, having them handled again, deleting them.

mod dispose;
mod listing;

use super::Admin;
use super::error::AdminError;
use super::page::{Cursor, Damage, Page, Place};
use super::views::MessageView;
use crate::durable::dead::DeadLetter;
use crate::durable::keys::Lane;
use crate::id::InstanceId;
use crate::store::Stamp;
use dispose::{Fate, Plan};

/// Which dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// Only those of instances of this kind.
    pub kind: Option<String>,
    /// Only those of this instance.
    pub instance: Option<InstanceId>,
    /// Only the one with this stamp.
    pub stamp: Option<Stamp>,
    /// Only those that were given up before this time, in milliseconds since 1970.
    pub dead_before_ms: Option<u64>,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct DeadLetterView {
    /// The instance that it was for.
    pub instance: InstanceId,
    /// The stamp that the message had, which names the letter.
    pub stamp: Stamp,
    /// What is known of it, or why it cannot be read: it can be deleted all the same.
    pub letter: Result<Letter, Damage>,
}

/// What is known of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The message.
    pub message: MessageView,
    /// The mailbox that it stood in.
    pub lane: Lane,
    /// The namespace's incarnation when it was pushed.
    pub incarnation: u32,
    /// What the last failure said.
    pub error: String,
    /// How many attempts failed.
    pub attempts: u32,
    /// When the first attempt failed, in milliseconds since 1970.
    pub first_failed_ms: u64,
    /// When it was given up, in milliseconds since 1970.
    pub dead_ms: u64,
}

impl From<&DeadLetter> for Letter {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            message: (&letter.message).into(),
            lane: letter.lane,
            incarnation: letter.incarnation,
            error: letter.error.clone(),
            attempts: letter.attempts,
            first_failed_ms: letter.first_failed_ms,
            dead_ms: letter.dead_ms,
        }
    }
}

/// What was done to dead letters, or would be.
#[derive(Debug, Clone, Default)]
pub struct DeadReport {
    /// How many were retried or deleted.
    pub letters: u64,
    /// How many stay because they cannot be read and so cannot be retried.
    pub unreadable: u64,
    /// The first 100 of them.
    pub shown: Vec<DeadLetterView>,
    /// What stays because it cannot be read: letters, and keys that are no letter's. The first 1,000.
    pub damaged: Vec<Damage>,
    /// Of a dry run: what it has chosen.
    plan: Plan,
}

impl Admin {
    /// Lists dead letters, those of an instance oldest first: about `limit`, and a megabyte.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn dead_letters(
        &self,
        filter: &DeadFilter,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetterView>, AdminError> {
        let limit = limit.clamp(1, super::MAX_PAGE);
        let begin = cursor.map(|cursor| &cursor.0);
        let at = begin.map(Place::instance).transpose()?.flatten();
        self.look(|tx| {
            let listing = self.listing(filter, begin, at.as_ref());
            async move { self.list(&tx, filter, listing, limit).await }
        })
        .await
    }

    /// One dead letter.
    ///
    /// # Errors
    ///
    /// [`NotFound`](super::AdminErrorKind::NotFound); whatever the store answers.
    pub async fn dead_letter(
        &self,
        instance: &InstanceId,
        stamp: Stamp,
    ) -> Result<DeadLetterView, AdminError> {
        let filter = DeadFilter {
            instance: Some(instance.clone()),
            stamp: Some(stamp),
            ..DeadFilter::default()
        };
        let page = self.dead_letters(&filter, None, 1).await?;
        page.items
            .into_iter()
            .next()
            .ok_or_else(|| AdminError::not_found(format!("{instance} has no dead letter {stamp}")))
    }

    /// Puts dead letters back into their mailboxes, behind what stands there and in their order, with
    /// no attempts counted. Their callers were told long ago and are told nothing more.
    ///
    /// Letters that come while this goes on are left alone.
    ///
    /// # Errors
    ///
    /// Whatever the store answers; what was done until then stays done.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the outcome of the last transaction unknown.
    pub async fn retry_dead(
        &self,
        filter: &DeadFilter,
        dry_run: bool,
    ) -> Result<DeadReport, AdminError> {
        self.dispose(filter, Fate::Retry, dry_run, None).await
    }

    /// Deletes dead letters, readable or not.
    ///
    /// # Errors
    ///
    /// As [`retry_dead`](Self::retry_dead).
    ///
    /// # Cancel safety
    ///
    /// As [`retry_dead`](Self::retry_dead).
    pub async fn purge_dead(
        &self,
        filter: &DeadFilter,
        dry_run: bool,
    ) -> Result<DeadReport, AdminError> {
        self.dispose(filter, Fate::Delete, dry_run, None).await
    }

    /// Does what a dry run of [`retry_dead`](Self::retry_dead) with the same filter has shown, and
    /// nothing else: of up to 10,000 letters those that it met, as far as they are still there; of
    /// more, those of messages that were pushed before it.
    ///
    /// # Errors
    ///
    /// [`Refused`](super::AdminErrorKind::Refused) if nothing of it is there any more; whatever the
    /// store answers.
    ///
    /// # Cancel safety
    ///
    /// As [`retry_dead`](Self::retry_dead).
    pub async fn retry_dead_planned(
        &self,
        filter: &DeadFilter,
        planned: &DeadReport,
    ) -> Result<DeadReport, AdminError> {
        self.dispose_planned(filter, Fate::Retry, planned).await
    }

    /// As [`retry_dead_planned`](Self::retry_dead_planned), for a dry run of
    /// [`purge_dead`](Self::purge_dead).
    ///
    /// # Errors
    ///
    /// As [`retry_dead_planned`](Self::retry_dead_planned).
    ///
    /// # Cancel safety
    ///
    /// As [`retry_dead`](Self::retry_dead).
    pub async fn purge_dead_planned(
        &self,
        filter: &DeadFilter,
        planned: &DeadReport,
    ) -> Result<DeadReport, AdminError> {
        self.dispose_planned(filter, Fate::Delete, planned).await
    }
}

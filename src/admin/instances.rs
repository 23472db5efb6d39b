//! Listing instances: who has what, and who does not progress.

mod candidates;
mod summary;

pub(super) use candidates::{MARKS, from_marks};
pub(super) use summary::summarize;

use super::error::AdminError;
use super::page::{Cursor, Damage, Page, Place};
use super::pause::PauseView;
use super::views::MessageView;
use super::{Admin, lock};
use crate::durable::Namespace;
use crate::durable::keys::SessionId;
use crate::id::InstanceId;
use crate::store::{CommitStamp, Isolation, Stamp, StoreError, TransactionExt, Tx};
use candidates::{DIRECTORY, from_directory, from_walk};
use futures_util::future::{join_all, try_join};
use std::time::Duration;

/// How many instances one transaction looks at: some ten reads each.
const PAGE: usize = 100;

/// How many of them at once.
const AT_ONCE: usize = 10;

/// Which instances to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceFilter {
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those that do not progress: with messages or a lock, and something that keeps them, be it
    /// failed attempts, a claim, a pause, or that the oldest message is older than this; or a lock that
    /// nobody holds any more, and nobody has taken over, was taken longer ago than this.
    pub stuck: Option<Duration>,
}

/// An instance at a moment.
#[derive(Debug, Clone)]
pub struct InstanceSummary {
    /// The instance.
    pub instance: InstanceId,
    /// How many messages both mailboxes hold.
    pub length: u64,
    /// The ordinary mailbox.
    pub ordinary: LaneSummary,
    /// The priority mailbox.
    pub priority: LaneSummary,
    /// The lock, if a message holds it. Its message is not read for the summary.
    pub lock: Option<lock::LockView>,
    /// Whether nobody holds the lock: its holder has given it up, or that one's session is gone. A
    /// node that serves the kind takes it over. One whose process is dead and whose session was not
    /// swept yet counts as held; [`nodes`](Admin::nodes) tells who lives.
    pub lock_abandoned: bool,
    /// The dead letters.
    pub dead_letters: DeadCount,
    /// The pause of the instance itself.
    pub paused: Option<PauseView>,
    /// The pause of its kind.
    pub kind_paused: Option<PauseView>,
    /// When its first state was written, in milliseconds since 1970; none if it has none yet.
    pub created_ms: Option<u64>,
    /// The schema number of the type that wrote the state; none if there is no state.
    pub schema: Option<u32>,
    /// The commit that changed the state last.
    pub changed: Option<CommitStamp>,
    /// Its ready mark: the commit that pushed to it last, or locked it; none if it has nothing to do.
    pub marked: Option<CommitStamp>,
    /// What of it cannot be read.
    pub damaged: Vec<Damage>,
}

/// A mailbox at a moment.
#[derive(Debug, Clone, Default)]
pub struct LaneSummary {
    /// The message at the head.
    pub oldest: Option<Oldest>,
    /// What became of attempts at it.
    pub attempts: Option<AttemptsView>,
}

/// The message at the head of a mailbox.
#[derive(Debug, Clone)]
pub struct Oldest {
    /// Its stamp.
    pub stamp: Stamp,
    /// The message; none if it cannot be read.
    pub message: Option<MessageView>,
}

/// What became of attempts at the head of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptsView {
    /// How many have failed.
    pub attempts: u32,
    /// When it is tried again, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// The session that is at it.
    pub claim: Option<SessionId>,
    /// What the last failure said.
    pub error: String,
    /// When the first attempt failed, in milliseconds since 1970.
    pub first_ms: u64,
}

/// How many dead letters there are, as far as was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeadCount {
    /// So many were counted.
    pub count: u64,
    /// Whether there are more.
    pub more: bool,
}

impl InstanceSummary {
    /// When the oldest message of either mailbox was sent, in milliseconds since 1970.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        let lanes = [&self.priority, &self.ordinary];
        let sent = lanes.iter().filter_map(|lane| lane.oldest.as_ref());
        sent.filter_map(|oldest| Some(oldest.message.as_ref()?.sent_ms))
            .min()
    }

    /// Whether it does not progress; see [`InstanceFilter::stuck`].
    #[must_use]
    pub fn is_stuck(&self, now_ms: u64, older_than: Duration) -> bool {
        let lanes = [&self.priority, &self.ordinary];
        let has_messages = lanes.iter().any(|lane| lane.oldest.is_some());
        // What cannot be read may be a lock, or stand before the messages.
        if !has_messages && self.lock.is_none() && self.damaged.is_empty() {
            return false;
        }
        let hindered = |lane: &&LaneSummary| {
            let attempts = lane.attempts.as_ref();
            attempts.is_some_and(|of| of.attempts > 0 || of.claim.is_some())
                || lane.oldest.as_ref().is_some_and(|of| of.message.is_none())
        };
        let age = u64::try_from(older_than.as_millis()).unwrap_or(u64::MAX);
        let is_old = |time: u64| now_ms.saturating_sub(time) > age;
        lanes.iter().any(hindered)
            || self.paused.is_some()
            || self.kind_paused.is_some()
            || self.lock.as_ref().is_some_and(|lock| lock.attempts > 0)
            || !self.damaged.is_empty()
            || self.oldest_ms().is_some_and(is_old)
            // With no message behind it, nothing else shows that nobody is at work.
            || self
                .lock
                .as_ref()
                .is_some_and(|lock| self.lock_abandoned && is_old(lock.taken_ms))
    }
}

impl Admin {
    /// Lists instances: first those of the directory, in the order of kind and id, then whoever has
    /// anything else in the store and no state yet. Those that are stuck are found by their ready
    /// marks, in the order of their shards.
    ///
    /// At most `limit` of them, or 100; begin without a cursor.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn instances(
        &self,
        filter: &InstanceFilter,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<InstanceSummary>, AdminError> {
        let limit = limit.clamp(1, PAGE);
        let now = self.now_ms();
        let begin = match (cursor, filter.stuck) {
            (Some(cursor), _) => cursor.0.clone(),
            (None, None) => Place::default(),
            (None, Some(_)) => Place::part(MARKS),
        };
        let namespace = &self.namespace;
        let mut page = self
            .look(|tx| {
                let (begin, filter) = (begin.clone(), filter.clone());
                async move {
                    let kind = filter.kind.as_deref();
                    let found = match begin.part {
                        DIRECTORY => from_directory(&tx, namespace, kind, &begin, limit).await?,
                        MARKS => from_marks(&tx, namespace, kind, &begin, limit).await?,
                        _ => from_walk(&tx, namespace, kind, &begin, limit).await?,
                    };
                    Ok(Page {
                        items: summarize_all(&tx, namespace, &found.instances).await?,
                        damaged: found.damaged,
                        next: found.next.map(Cursor),
                    })
                }
            })
            .await?;
        if let Some(age) = filter.stuck {
            page.items.retain(|summary| summary.is_stuck(now, age));
        }
        Ok(page)
    }

    /// One instance.
    ///
    /// # Errors
    ///
    /// [`NotFound`](super::AdminErrorKind::NotFound) if the store holds nothing of it; whatever the
    /// store answers.
    pub async fn instance(&self, instance: &InstanceId) -> Result<InstanceSummary, AdminError> {
        let namespace = &self.namespace;
        let found = self.look(|tx| async move {
            let keys = namespace.keys().instance(instance);
            let all = keys.all();
            let nothing = tx.is_empty(&all, Isolation::Snapshot);
            let (nothing, summary) = try_join(nothing, summarize(&tx, namespace, instance)).await?;
            let is_there = !nothing || summary.created_ms.is_some();
            Ok(is_there.then_some(summary))
        });
        found.await?.ok_or_else(|| absent(instance))
    }

    /// Some instances, at one moment: the first 100 of those that are named. Whoever looks at the
    /// same ones again and again compares what it sees. One that is not there is an empty one.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn instances_named(
        &self,
        instances: &[InstanceId],
    ) -> Result<Vec<InstanceSummary>, AdminError> {
        let namespace = &self.namespace;
        let named = instances.get(..PAGE).unwrap_or(instances);
        self.look(|tx| async move { summarize_all(&tx, namespace, named).await })
            .await
    }
}

async fn summarize_all(
    tx: &Tx,
    namespace: &Namespace,
    instances: &[InstanceId],
) -> Result<Vec<InstanceSummary>, StoreError> {
    let mut summaries = Vec::with_capacity(instances.len());
    for some in instances.chunks(AT_ONCE) {
        let some = some.iter().map(|of| summarize(tx, namespace, of));
        for summary in join_all(some).await {
            summaries.push(summary?);
        }
    }
    Ok(summaries)
}

fn absent(instance: &InstanceId) -> AdminError {
    AdminError::not_found(format!("there is nothing of the instance {instance}"))
}

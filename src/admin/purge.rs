//! Taking messages out of a mailbox.

mod batch;
mod plan;

use super::Admin;
use super::error::AdminError;
use super::mailbox::QueuedView;
use super::page::{Damage, MAX_DAMAGED};
use crate::durable::keys::{InstanceKeys, Lane};
use crate::durable::{Answer, Message, Namespace, Work, queue, reply};
use crate::id::InstanceId;
use crate::store::after;
use crate::store::{Isolation, KeyRange, Stamp, StoreError, TransactionExt, Tx};
use futures_util::future::try_join;
pub(super) use plan::MAX_PLANNED;
use plan::Plan;

/// How many of the messages a report shows.
const SHOWN: usize = 100;

/// Which messages of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// The one with this stamp.
    Stamp(Stamp),
    /// What stands at the head: the first message, or a key in its place that is no message's.
    Head,
    /// All that stands there when the purge begins.
    All,
    /// Of those, the ones that were sent before this time, in milliseconds since 1970 by the
    /// senders' clocks. A message that cannot be read has no such time and stays.
    SentBefore(u64),
}

/// What to [purge](Admin::purge).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purge {
    /// Which messages.
    pub selection: Selection,
    /// Of which mailbox; of both if none is named, but for the head, which is the ordinary one's.
    pub lane: Option<Lane>,
    /// Makes dead letters of them instead of deleting them. A message that cannot be read stays then.
    pub to_dead: bool,
    /// Only says what would be done.
    pub dry_run: bool,
}

impl Purge {
    /// Deletes the selected messages of both mailboxes.
    #[must_use]
    pub fn new(selection: Selection) -> Self {
        Self {
            selection,
            lane: None,
            to_dead: false,
            dry_run: false,
        }
    }
}

/// What a purge has done, or would do.
#[derive(Debug, Clone, Default)]
pub struct Purged {
    /// How many messages were taken out.
    pub messages: u64,
    /// How many callers were told.
    pub callers: u64,
    /// How many messages stay because they cannot be read, and so cannot become dead letters, or have
    /// no age.
    pub unreadable: u64,
    /// How many keys were removed that were no message's: nobody can read past them. They go with
    /// [all](Selection::All), and from the [head](Selection::Head), unless dead letters are wanted.
    pub foreign: u64,
    /// The messages that stay because they cannot be read, and the keys that are no message's, whether
    /// those were removed or not: the first 1,000.
    pub damaged: Vec<Damage>,
    /// The first 100 messages that were taken out.
    pub shown: Vec<QueuedView>,
    /// Of a dry run: what it has chosen.
    plan: Plan,
}

impl Admin {
    /// Takes messages out of an instance's mailboxes, and tells their callers that the message was
    /// killed, or is a dead letter. The instance goes on with what stands behind them.
    ///
    /// A message that is being handled meanwhile is either handled or purged, never both. A long
    /// purge is a sequence of transactions and may stop anywhere; purge again then.
    ///
    /// # Errors
    ///
    /// [`NotFound`](super::AdminErrorKind::NotFound) if no message has the stamp, or there is no
    /// head; whatever the store answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the outcome of the last transaction unknown.
    pub async fn purge(&self, instance: &InstanceId, purge: &Purge) -> Result<Purged, AdminError> {
        let keys = self.namespace.keys().instance(instance);
        let lanes = match (purge.lane, purge.selection) {
            (Some(lane), _) => vec![lane],
            (None, Selection::Head) => vec![Lane::Ordinary],
            (None, _) => vec![Lane::Priority, Lane::Ordinary],
        };
        let mut extents = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let extent = self.extent(&keys, lane, purge.selection).await?;
            extents.extend(extent.map(|range| (lane, range)));
        }
        let mut total = self.purge_within(&keys, &extents, purge, None).await?;
        if purge.dry_run && purge.selection != Selection::Head {
            total.plan.extents = extents;
        }
        let named = matches!(purge.selection, Selection::Stamp(_) | Selection::Head);
        if named && total.taken_out() + total.unreadable == 0 {
            return Err(AdminError::not_found(format!(
                "there is no such message in the mailbox of {instance}"
            )));
        }
        Ok(total)
    }

    /// Does what a dry run of the same purge has shown, and nothing else: of up to 10,000 messages
    /// those that it met, as far as they are still there; of more, what stands no further back than
    /// the last one that it met.
    ///
    /// # Errors
    ///
    /// [`Refused`](super::AdminErrorKind::Refused) if nothing of it is there any more; whatever the
    /// store answers.
    ///
    /// # Cancel safety
    ///
    /// As [`purge`](Self::purge).
    pub async fn purge_planned(
        &self,
        instance: &InstanceId,
        purge: &Purge,
        planned: &Purged,
    ) -> Result<Purged, AdminError> {
        let keys = self.namespace.keys().instance(instance);
        let purge = Purge {
            dry_run: false,
            ..*purge
        };
        let plan = &planned.plan;
        let total = self
            .purge_within(&keys, &plan.extents, &purge, Some(plan))
            .await?;
        match total.taken_out() {
            0 => Err(AdminError::refused(format!(
                "nothing of what was shown stands in the mailbox of {instance} any more"
            ))),
            _ => Ok(total),
        }
    }

    /// Goes through parts of the mailboxes.
    async fn purge_within(
        &self,
        keys: &InstanceKeys,
        extents: &[(Lane, KeyRange)],
        purge: &Purge,
        plan: Option<&Plan>,
    ) -> Result<Purged, AdminError> {
        let mut total = Purged::default();
        for (lane, range) in extents {
            let mut next = Some(range.clone());
            while let Some(range) = next.take() {
                let batch = self.batch(keys, *lane, range, purge, plan).await?;
                total.add(batch.purged);
                next = batch.more.then_some(batch.rest);
            }
        }
        if total.taken_out() > 0 && !purge.dry_run {
            self.settle(keys).await?;
        }
        Ok(total)
    }

    /// The part of the mailbox that the purge is about, as it stands now: what is pushed later is
    /// not, so that it comes to an end.
    async fn extent(
        &self,
        keys: &InstanceKeys,
        lane: Lane,
        selection: Selection,
    ) -> Result<Option<KeyRange>, AdminError> {
        let extent = self.look(|tx| async move {
            let all = keys.mailbox(lane);
            if let Selection::Stamp(stamp) = selection {
                let found = queue::find(&tx, keys, lane, stamp).await?;
                return Ok(found.map(|found| found.span));
            }
            let last = tx
                .get_range(all.read().limit(1).reverse().snapshot())
                .await?;
            let last = last.into_iter().next();
            Ok(last.map(|last| KeyRange::new(all.begin, after(&last.key))))
        });
        extent.await
    }

    /// Takes the mark and the length of an instance away that has nothing any more.
    pub(super) async fn settle(&self, keys: &InstanceKeys) -> Result<(), AdminError> {
        self.change(|tx| async move {
            if !is_idle(&tx, keys).await? {
                return Ok(Work::Look(()));
            }
            // Whoever pushes or locks meanwhile has changed what was read serializably.
            tx.clear(keys.ready());
            tx.clear(&keys.length());
            Ok(Work::Write(()))
        })
        .await
    }
}

/// Whether an instance has neither messages nor a lock, serializably.
pub(super) async fn is_idle(tx: &Tx, keys: &InstanceKeys) -> Result<bool, StoreError> {
    let empty = |lane| queue::mailbox_is_empty(tx, keys, lane, Isolation::Serializable);
    let mailboxes = try_join(empty(Lane::Ordinary), empty(Lane::Priority));
    let (mailboxes, lock) = try_join(mailboxes, tx.read(&keys.lock())).await?;
    Ok(mailboxes == (true, true) && lock.is_none())
}

/// Answers the caller of a message, if it has one.
pub(super) fn tell(
    tx: &Tx,
    namespace: &Namespace,
    message: &Message,
    answer: &Answer,
) -> Result<(), StoreError> {
    match message.call {
        Some(call) => reply::stage(tx, namespace.keys(), call, answer),
        None => Ok(()),
    }
}

impl Purged {
    fn taken_out(&self) -> u64 {
        self.messages + self.foreign
    }

    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.callers += other.callers;
        self.unreadable += other.unreadable;
        self.foreign += other.foreign;
        let room = SHOWN.saturating_sub(self.shown.len());
        self.shown.extend(other.shown.into_iter().take(room));
        self.plan.add(other.plan);
        let room = MAX_DAMAGED.saturating_sub(self.damaged.len());
        self.damaged.extend(other.damaged.into_iter().take(room));
    }
}

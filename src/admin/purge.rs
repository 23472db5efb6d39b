//! Taking messages out of a mailbox.

use super::Admin;
use super::error::AdminError;
use super::mailbox::{QueuedView, read_messages};
use crate::durable::dead::{self, DeadLetter};
use crate::durable::keys::{InstanceKeys, Lane};
use crate::durable::queue::{self, Queued};
use crate::durable::{Answer, Message, Namespace, Work, attempts, ready, reply};
use crate::id::InstanceId;
use crate::store::after;
use crate::store::{Isolation, KeyRange, Stamp, StoreError, StoreErrorKind, TransactionExt, Tx};
use futures_util::future::{try_join, try_join3};

/// How many rows and bytes of messages one transaction takes out: it also writes their answers, and
/// maybe their dead letters.
const BATCH_ROWS: usize = 500;
const BATCH_BYTES: usize = 1_000_000;

/// How many of the messages a report shows.
const SHOWN: usize = 100;

/// What a caller is told whose message was put aside.
const PUT_ASIDE: &str = "an operator has moved the message to the dead letters";

/// Which messages of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// The one with this stamp.
    Stamp(Stamp),
    /// The one at the head.
    Head,
    /// Those that stand there when the purge begins.
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
    /// How many messages stay because they cannot be read and so cannot become dead letters.
    pub unreadable: u64,
    /// The first 100 messages that were taken out.
    pub shown: Vec<QueuedView>,
}

/// One transaction's part.
struct Batch {
    purged: Purged,
    rest: KeyRange,
    more: bool,
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
        let mut total = Purged::default();
        for lane in lanes {
            let mut next = self.extent(&keys, lane, purge.selection).await?;
            while let Some(range) = next.take() {
                let batch = self.batch(&keys, lane, range, purge).await?;
                total.add(batch.purged);
                next = batch.more.then_some(batch.rest);
            }
        }
        let named = matches!(purge.selection, Selection::Stamp(_) | Selection::Head);
        if named && total.messages == 0 && total.unreadable == 0 {
            return Err(AdminError::not_found(format!(
                "there is no such message in the mailbox of {instance}"
            )));
        }
        if total.messages > 0 && !purge.dry_run {
            self.settle(&keys).await?;
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

    async fn batch(
        &self,
        keys: &InstanceKeys,
        lane: Lane,
        range: KeyRange,
        purge: &Purge,
    ) -> Result<Batch, AdminError> {
        let namespace = &self.namespace;
        let now = self.now_ms();
        let rows = match purge.selection {
            Selection::Head => 1,
            _ => BATCH_ROWS,
        };
        self.change(|tx| {
            let range = range.clone();
            async move {
                let head = read_messages(&tx, keys, lane, range, rows, BATCH_BYTES);
                let record = async { Ok(attempts::read(&tx, keys, lane).await) };
                let front = tx.get_range(keys.mailbox(lane).read().limit(1).snapshot());
                let ((head, _), record, front) = try_join3(head, record, front).await?;
                let record = match record {
                    Ok(record) => record,
                    Err(error) if error.kind() == StoreErrorKind::Corrupt => None,
                    Err(error) => return Err(error.into()),
                };
                let mut batch = Batch {
                    purged: Purged::default(),
                    more: head.more && purge.selection != Selection::Head,
                    rest: head.rest.clone(),
                };
                let runs = chosen(&head.messages, purge, &mut batch.purged);
                if runs.is_empty() || purge.dry_run {
                    return Ok(Work::Look(batch));
                }
                let is_front = |queued: &Queued| {
                    let front = front.first();
                    front.is_some_and(|front| queued.span.contains(&front.key))
                };
                for run in runs {
                    queue::pop(&tx, keys, run);
                    for queued in run {
                        let record = record.as_ref().filter(|of| of.stamp == queued.stamp);
                        if record.is_some() || is_front(queued) {
                            attempts::clear(&tx, keys, lane);
                        }
                        let letter = purge.to_dead.then_some((record, now));
                        put_aside(&tx, namespace, keys, queued, letter)?;
                    }
                }
                // Whoever waits for the head that is gone looks again.
                ready::set_mark(&tx, keys);
                ready::wake(&tx, namespace, keys.shard());
                Ok(Work::Write(batch))
            }
        })
        .await
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

/// The messages that are selected, in runs of neighbours; what they come to is added to the report.
fn chosen<'a>(messages: &'a [Queued], purge: &Purge, purged: &mut Purged) -> Vec<&'a [Queued]> {
    let is_chosen = |queued: &Queued| {
        let selected = match (purge.selection, &queued.message) {
            (Selection::SentBefore(time), Ok(message)) => message.sent_ms < time,
            (Selection::SentBefore(_), Err(_)) => false,
            _ => true,
        };
        selected && !(purge.to_dead && queued.message.is_err())
    };
    if purge.to_dead {
        let unreadable = messages.iter().filter(|queued| queued.message.is_err());
        purged.unreadable += count(unreadable.count());
    }
    let runs = messages.chunk_by(|a, b| is_chosen(a) == is_chosen(b));
    let runs: Vec<&[Queued]> = runs
        .filter(|run| run.first().is_some_and(is_chosen))
        .collect();
    for queued in runs.iter().copied().flatten() {
        purged.messages += 1;
        let call = queued.message.as_ref().ok().and_then(|of| of.call);
        purged.callers += u64::from(call.is_some());
        if purged.shown.len() < SHOWN {
            purged.shown.push(queued.into());
        }
    }
    runs
}

/// Tells the caller of a message that was taken out, and makes a dead letter of it if it is to be
/// one: with what is known of earlier attempts, at this time.
fn put_aside(
    tx: &Tx,
    namespace: &Namespace,
    keys: &InstanceKeys,
    queued: &Queued,
    letter: Option<(Option<&attempts::Attempts>, u64)>,
) -> Result<(), StoreError> {
    let Ok(message) = &queued.message else {
        return Ok(());
    };
    let Some((record, now)) = letter else {
        return tell(tx, namespace, message, &Answer::Killed);
    };
    let error = record.map(|record| record.error.clone());
    let letter = DeadLetter {
        message: message.clone(),
        lane: queued.lane,
        incarnation: queued.incarnation,
        error: error
            .filter(|of| !of.is_empty())
            .unwrap_or_else(|| PUT_ASIDE.to_owned()),
        attempts: record.map_or(0, |record| record.attempts),
        first_failed_ms: record.map_or(now, |record| record.first_ms),
        dead_ms: now,
    };
    dead::write(tx, keys, queued.stamp, &letter)?;
    tell(tx, namespace, message, &Answer::DeadLetter(letter.error))
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

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

impl Purged {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.callers += other.callers;
        self.unreadable += other.unreadable;
        let room = SHOWN.saturating_sub(self.shown.len());
        self.shown.extend(other.shown.into_iter().take(room));
    }
}

//! One transaction's part of a purge.

use super::{Plan, Purge, Purged, SHOWN, Selection, tell};
use crate::admin::Admin;
use crate::admin::error::AdminError;
use crate::admin::foreign::read_messages;
use crate::admin::mailbox::QueuedView;
use crate::durable::dead::{self, DeadLetter};
use crate::durable::keys::{InstanceKeys, Lane};
use crate::durable::queue::{self, Queued};
use crate::durable::{Answer, Namespace, Work, attempts, ready};
use crate::store::{KeyRange, StoreError, StoreErrorKind, TransactionExt, Tx, after};
use futures_util::future::try_join3;

/// How many rows and bytes of messages one transaction takes out: it also writes their answers, and
/// maybe their dead letters.
const BATCH_ROWS: usize = 500;
const BATCH_BYTES: usize = 1_000_000;

/// What a caller is told whose message was put aside.
const PUT_ASIDE: &str = "an operator has moved the message to the dead letters";

/// What one transaction has done.
pub(super) struct Batch {
    pub(super) purged: Purged,
    pub(super) rest: KeyRange,
    pub(super) more: bool,
}

impl Admin {
    /// Takes out what is selected of the beginning of a part of the mailbox.
    pub(super) async fn batch(
        &self,
        keys: &InstanceKeys,
        lane: Lane,
        range: KeyRange,
        purge: &Purge,
        plan: Option<&Plan>,
    ) -> Result<Batch, AdminError> {
        self.change_or_plan(purge.dry_run, |tx| {
            let range = range.clone();
            async move { self.take_out(&tx, keys, (lane, range), purge, plan).await }
        })
        .await
    }

    async fn take_out(
        &self,
        tx: &Tx,
        keys: &InstanceKeys,
        (lane, range): (Lane, KeyRange),
        purge: &Purge,
        plan: Option<&Plan>,
    ) -> Result<Work<Batch>, AdminError> {
        let (namespace, now) = (&self.namespace, self.now_ms());
        let only_head = purge.selection == Selection::Head;
        let rows = if only_head { 1 } else { BATCH_ROWS };
        let read = read_messages(tx, keys, lane, range, rows, BATCH_BYTES);
        let record = async { Ok(attempts::read(tx, keys, lane).await) };
        let front = tx.get_range(keys.mailbox(lane).read().limit(1).snapshot());
        let ((mut head, mut foreign), record, front) = try_join3(read, record, front).await?;
        let record = match record {
            Ok(record) => record,
            Err(error) if error.kind() == StoreErrorKind::Corrupt => None,
            Err(error) => return Err(error.into()),
        };
        if only_head && !foreign.is_empty() {
            // It stands before the message, which is not at the head.
            foreign.truncate(1);
            head.messages.clear();
        }
        let mut batch = Batch {
            purged: Purged::default(),
            more: head.more && !only_head,
            rest: head.rest.clone(),
        };
        let runs = chosen(&head.messages, purge, plan, &mut batch.purged);
        let foreign_too = only_head || purge.selection == Selection::All;
        let is_planned = |key: &[u8]| plan.is_none_or(|plan| plan.admits(key));
        let cleared = foreign
            .iter()
            .filter(|of| foreign_too && !purge.to_dead && is_planned(&of.key));
        batch.purged.foreign = count(cleared.clone().count());
        if purge.dry_run {
            let messages = runs.iter().copied().flatten().map(|of| of.span.clone());
            let keys = cleared
                .clone()
                .map(|of| KeyRange::new(of.key.clone(), after(&of.key)));
            for range in messages.chain(keys) {
                batch.purged.plan.note(range.begin.clone());
                if only_head {
                    // Alone, and not what stands at the head when it is done.
                    batch.purged.plan.extents.push((lane, range));
                }
            }
        }
        if (runs.is_empty() && batch.purged.foreign == 0) || purge.dry_run {
            batch.purged.damaged.extend(foreign);
            return Ok(Work::Look(batch));
        }
        for of in cleared {
            tx.add_read_conflict_key(&of.key);
            tx.clear(&of.key);
        }
        batch.purged.damaged.extend(foreign);
        let front = front.first().map(|row| &row.key);
        for run in runs {
            queue::pop(tx, keys, run);
            for queued in run {
                let record = record.as_ref().filter(|of| of.stamp == queued.stamp);
                if record.is_some() || front.is_some_and(|front| queued.span.contains(front)) {
                    attempts::clear(tx, keys, lane);
                }
                let letter = purge.to_dead.then_some((record, now));
                put_aside(tx, namespace, keys, queued, letter)?;
            }
        }
        // Whoever waits for the head that is gone looks again.
        ready::set_mark(tx, keys);
        ready::wake(tx, namespace, keys.shard());
        Ok(Work::Write(batch))
    }
}

/// The messages that are selected, in runs of neighbours; what they come to is added to the report.
fn chosen<'a>(
    messages: &'a [Queued],
    purge: &Purge,
    plan: Option<&Plan>,
    purged: &mut Purged,
) -> Vec<&'a [Queued]> {
    let is_chosen = |queued: &Queued| {
        let selected = match (purge.selection, &queued.message) {
            (Selection::SentBefore(time), Ok(message)) => message.sent_ms < time,
            (Selection::SentBefore(_), Err(_)) => false,
            _ => true,
        };
        let planned = plan.is_none_or(|plan| plan.admits(&queued.span.begin));
        selected && planned && !(purge.to_dead && queued.message.is_err())
    };
    // Neither a dead letter nor of any age.
    if purge.to_dead || matches!(purge.selection, Selection::SentBefore(_)) {
        let unreadable = messages.iter().map(QueuedView::from);
        let unreadable = unreadable.filter_map(|view| view.message.err());
        purged.damaged.extend(unreadable);
        purged.unreadable += count(purged.damaged.len());
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

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

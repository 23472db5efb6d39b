//! Mailboxes: pushing messages, reading the head, taking messages out.
//!
//! Invariants:
//!
//! - *Blind pushes.* A push reads nothing, so pushes conflict neither with each other nor with a pop
//!   of what stood before them: they land behind it.
//! - *Popped once.* Whoever takes messages out has a read conflict on their keys, added before it
//!   clears them (afterwards the store would drop it silently). So of two that take the same
//!   message, or of a pop and a purge out of its middle, one fails.
//! - *Order.* The keys are ordered by incarnation and stamp, which is the order of the commits, and
//!   within one commit by the order of the pushes.
//! - *The length* is the number of messages in both mailboxes, and absent at zero.

use super::chunk::{self, Layout, Limits, Record, Scanned};
use super::keys::{InstanceKeys, Lane};
use super::message::Message;
use super::namespace::Namespace;
use super::{ready, value};
use crate::id::InstanceId;
use crate::planted::{Bug, planted};
use crate::store::{
    Isolation, KeyRange, KeyValue, MAX_TRANSACTION_BYTES, Stamp, StoreError, StoreErrorKind,
    TransactionExt, Tx, after,
};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

/// What a push writes besides name and payload, for ids of ordinary length: the header's fields, the
/// length, the mark, the wake counter, and the conflicts that the store adds for each.
const PUSH_OVERHEAD: usize = 1_024;

/// What each further chunk adds: its key, and the conflict on it.
const CHUNK_OVERHEAD: usize = 384;

/// The largest message, in bytes as stored. It is below what a transaction takes, so that the one that
/// moves it elsewhere (to the dead letters, into a lock) has room for what goes with it.
pub(crate) const MAX_MESSAGE_BYTES: usize = 9_000_000;
const _: () = assert!(MAX_MESSAGE_BYTES + 1_000_000 <= MAX_TRANSACTION_BYTES);
const _: () = assert!(MAX_MESSAGE_BYTES < chunk::MAX_BYTES);

/// Pushes messages in one transaction. Only one of these may be used per transaction: it tells the
/// transaction's messages apart.
#[derive(Debug)]
pub(crate) struct Pushes<'a> {
    namespace: &'a Namespace,
    tx: &'a Tx,
    count: usize,
    marked: BTreeSet<InstanceId>,
    woken: BTreeSet<u32>,
}

impl<'a> Pushes<'a> {
    /// No messages yet.
    pub(crate) fn new(namespace: &'a Namespace, tx: &'a Tx) -> Self {
        Self {
            namespace,
            tx,
            count: 0,
            marked: BTreeSet::new(),
            woken: BTreeSet::new(),
        }
    }

    /// Puts a message at the end of a mailbox, marks the instance ready, and wakes its shard.
    ///
    /// The transaction can read neither the mailbox nor the mark any more.
    ///
    /// # Errors
    ///
    /// - [`TransactionTooLarge`](StoreErrorKind::TransactionTooLarge) if one transaction cannot tell
    ///   so many messages apart.
    /// - [`ValueTooLarge`](StoreErrorKind::ValueTooLarge) above [`MAX_MESSAGE_BYTES`].
    ///
    /// Nothing was written for this message then.
    pub(crate) fn push(
        &mut self,
        instance: &InstanceId,
        lane: Lane,
        message: &Message,
    ) -> Result<(), StoreError> {
        let place = match planted(Bug::UserVersionsRepeated) {
            true => 0,
            false => self.count,
        };
        let user = u16::try_from(place).map_err(|_| {
            StoreError::new(StoreErrorKind::TransactionTooLarge).with_context(format!(
                "{} messages are as many as one transaction can push",
                self.count
            ))
        })?;
        let (keys, incarnation) = (
            self.namespace.keys().instance(instance),
            self.namespace.incarnation(),
        );
        let encoded = value::encode(message)?;
        if encoded.len() > MAX_MESSAGE_BYTES {
            return Err(
                StoreError::new(StoreErrorKind::ValueTooLarge).with_context(format!(
                    "a message of {} bytes, at most {MAX_MESSAGE_BYTES} are allowed",
                    encoded.len()
                )),
            );
        }
        chunk::write_stamped(
            self.tx,
            |chunk| keys.push(lane, incarnation, user, chunk),
            &encoded,
        )?;
        self.count += 1;
        self.tx.add_i64(&keys.length(), 1);
        if !self.marked.contains(instance) {
            ready::set_mark(self.tx, &keys);
            self.marked.insert(instance.clone());
        }
        if self.woken.insert(keys.shard()) && !planted(Bug::PushWakesNobody) {
            ready::wake(self.tx, self.namespace, keys.shard());
        }
        Ok(())
    }

    /// How many messages were pushed.
    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

/// About how many bytes of a transaction's limit the push of a message takes, for ids of ordinary
/// length.
pub(crate) fn size_of(message: &Message) -> usize {
    let bytes = message.name.len() + message.payload.len();
    bytes + PUSH_OVERHEAD + (chunk::count(bytes) - 1) * CHUNK_OVERHEAD
}

/// A message that stands in a mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    /// Its mailbox.
    pub(crate) lane: Lane,
    /// The namespace's incarnation when it was pushed.
    pub(crate) incarnation: u32,
    /// Its place in the order.
    pub(crate) stamp: Stamp,
    /// The message, or why it cannot be read: it still has its place, and can be taken out.
    pub(crate) message: Result<Message, StoreError>,
    /// How many bytes it takes in the store, keys included.
    pub(crate) bytes: usize,
    /// Every key that it has, and no other message's.
    pub(crate) span: KeyRange,
}

/// The messages at the head of a mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The messages, in their order.
    pub(crate) messages: Vec<Queued>,
    /// Whether something stands behind them.
    pub(crate) more: bool,
    /// Where that stands, or will.
    pub(crate) rest: KeyRange,
}

/// Reads the head of a mailbox, without a conflict: whole messages only, of about `rows` rows and
/// `bytes` bytes at most, but one message, if there is one, whatever it takes.
///
/// The first read is issued at once.
///
/// # Errors
///
/// Those of the store; and [`Corrupt`](StoreErrorKind::Corrupt) if a key at the head is not one of a
/// message. Such a key further on ends the head before it.
pub(crate) fn read_head(
    tx: &Tx,
    instance: &InstanceKeys,
    lane: Lane,
    rows: usize,
    bytes: usize,
) -> impl Future<Output = Result<Head, StoreError>> + Send + 'static + use<> {
    let range = instance.mailbox(lane);
    read_from(tx, instance, lane, range, rows, bytes)
}

/// As [`read_head`], but of a part of the mailbox that begins where a message begins: a
/// [`Head::rest`], or [`since`] a stamp.
pub(crate) fn read_from(
    tx: &Tx,
    instance: &InstanceKeys,
    lane: Lane,
    range: KeyRange,
    rows: usize,
    bytes: usize,
) -> impl Future<Output = Result<Head, StoreError>> + Send + 'static + use<> {
    let layout = Mailbox::new(instance, lane);
    let limits = Limits { rows, bytes };
    let scanned = chunk::scan(tx, layout, range.clone(), limits);
    async move { Ok(Head::new(lane, range, scanned.await?)) }
}

/// As [`read_head`], for a caller that has read the first rows of the mailbox by snapshot: all of
/// them, unless `full`.
pub(crate) async fn head_of(
    tx: &Tx,
    instance: &InstanceKeys,
    lane: Lane,
    (rows, full): (Vec<KeyValue>, bool),
    limits: Limits,
) -> Result<Head, StoreError> {
    let (layout, range) = (Mailbox::new(instance, lane), instance.mailbox(lane));
    let scanned = chunk::scan_from(tx, layout, range.clone(), limits, rows, full);
    Ok(Head::new(lane, range, scanned.await?))
}

impl Head {
    fn new(lane: Lane, range: KeyRange, scanned: Scanned<(u32, Stamp)>) -> Self {
        let messages: Vec<Queued> = scanned
            .records
            .into_iter()
            .map(|record| Queued::new(lane, record))
            .collect();
        let begin = messages.last().map(|last| last.span.end.clone());
        Self {
            rest: KeyRange::new(begin.unwrap_or(range.begin), range.end),
            messages,
            more: scanned.more,
        }
    }
}

/// The part of a mailbox from the message with this place on.
pub(crate) fn since(
    instance: &InstanceKeys,
    lane: Lane,
    incarnation: u32,
    stamp: Stamp,
) -> KeyRange {
    let begin = instance.message_chunks(lane, incarnation, stamp).begin;
    KeyRange::new(begin, instance.mailbox(lane).end)
}

/// Looks for the message with this stamp, without a conflict, whatever incarnation it is of. Keys
/// that are no message's are passed over.
///
/// # Errors
///
/// Those of the store.
pub(crate) fn find(
    tx: &Tx,
    instance: &InstanceKeys,
    lane: Lane,
    stamp: Stamp,
) -> impl Future<Output = Result<Option<Queued>, StoreError>> + Send + 'static + use<> {
    let (tx, instance) = (Arc::clone(tx), instance.clone());
    async move {
        // From incarnation to incarnation: there are few, but nobody knows which.
        let mut rest = instance.mailbox(lane);
        loop {
            let first = tx.get_range(rest.read().snapshot().limit(1)).await?;
            let Some(first) = first.first() else {
                return Ok(None);
            };
            let Ok((incarnation, _, _)) = locate(&instance.mailbox(lane), &first.key) else {
                rest.begin = after(&first.key);
                continue;
            };
            let span = instance.message_chunks(lane, incarnation, stamp);
            let one = read_from(&tx, &instance, lane, span, 1, 0).await?;
            if let Some(found) = one.messages.into_iter().next() {
                return Ok(Some(found));
            }
            let Some(next) = incarnation.checked_add(1) else {
                return Ok(None);
            };
            let zero = Stamp::from_bytes([0; Stamp::LEN]);
            rest = since(&instance, lane, next, zero);
        }
    }
}

/// Takes messages out: consecutive ones of one mailbox, as they were read in this transaction.
///
/// The commit fails if another transaction has taken one of them meanwhile. Later pushes do no harm.
pub(crate) fn pop(tx: &Tx, instance: &InstanceKeys, popped: &[Queued]) {
    let (Some(first), Some(last)) = (popped.first(), popped.last()) else {
        return;
    };
    let span = KeyRange::new(first.span.begin.clone(), last.span.end.clone());
    // In this order: a conflict on what the transaction has already cleared would be dropped.
    if !planted(Bug::PopWithoutConflict) && !planted(Bug::ConflictAfterClear) {
        tx.add_read_conflict(&span);
    }
    tx.clear_range(&span);
    if planted(Bug::ConflictAfterClear) {
        tx.add_read_conflict(&span);
    }
    if planted(Bug::LengthNotAdjusted) {
        return;
    }
    let count = i64::try_from(popped.len()).unwrap_or(i64::MAX);
    tx.add_i64(&instance.length(), -count);
    tx.compare_and_clear(&instance.length(), &0_i64.to_le_bytes());
}

/// Makes the commit fail if anything was pushed to the instance, or taken out, since the
/// transaction's read version.
pub(crate) fn conflict_with_pushes(tx: &Tx, instance: &InstanceKeys) {
    for lane in [Lane::Ordinary, Lane::Priority] {
        tx.add_read_conflict(&instance.mailbox(lane));
    }
}

/// Puts a message that was taken out back into its place, under the stamp that it had. Whether that
/// was free; if not, nothing is written.
///
/// # Errors
///
/// As [`Pushes::push`]; whatever the store answers.
pub(crate) async fn put_back(
    tx: &Tx,
    namespace: &Namespace,
    instance: &InstanceKeys,
    lane: Lane,
    stamp: Stamp,
    message: &Message,
) -> Result<bool, StoreError> {
    let incarnation = namespace.incarnation();
    let span = instance.message_chunks(lane, incarnation, stamp);
    if !tx.is_empty(&span, Isolation::Serializable).await? {
        return Ok(false);
    }
    let encoded = value::encode(message)?;
    chunk::write(
        tx,
        |chunk| instance.message(lane, incarnation, stamp, chunk),
        &encoded,
    )?;
    tx.add_i64(&instance.length(), 1);
    Ok(true)
}

/// Whether a mailbox holds nothing; under serializable isolation the next push is a conflict.
pub(crate) fn mailbox_is_empty(
    tx: &Tx,
    instance: &InstanceKeys,
    lane: Lane,
    isolation: Isolation,
) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static + use<> {
    let mut read = instance.mailbox(lane).read().limit(1);
    read.isolation = isolation;
    let first = tx.get_range(read);
    async move { Ok(first.await?.is_empty()) }
}

/// How many messages both mailboxes hold, without a conflict.
pub(crate) fn length(
    tx: &Tx,
    instance: &InstanceKeys,
) -> impl Future<Output = Result<i64, StoreError>> + Send + 'static + use<> {
    let (tx, key) = (Arc::clone(tx), instance.length());
    async move { tx.read_i64(&key, Isolation::Snapshot).await }
}

/// The keys of one mailbox.
struct Mailbox {
    instance: InstanceKeys,
    lane: Lane,
    all: KeyRange,
}

impl Mailbox {
    fn new(instance: &InstanceKeys, lane: Lane) -> Self {
        Self {
            instance: instance.clone(),
            lane,
            all: instance.mailbox(lane),
        }
    }
}

impl Layout for Mailbox {
    type Id = (u32, Stamp);

    fn locate(&self, key: &[u8]) -> Result<(Self::Id, u32), StoreError> {
        let (incarnation, stamp, chunk) = locate(&self.all, key)?;
        Ok(((incarnation, stamp), chunk))
    }

    fn span(&self, (incarnation, stamp): &Self::Id) -> KeyRange {
        self.instance
            .message_chunks(self.lane, *incarnation, *stamp)
    }
}

/// The incarnation, stamp and chunk of a key in a mailbox.
fn locate(mailbox: &KeyRange, key: &[u8]) -> Result<(u32, Stamp, u32), StoreError> {
    InstanceKeys::place_in(mailbox, key)
        .ok_or_else(|| value::corrupt(key, "it is not the key of a message"))
}

impl Queued {
    fn new(lane: Lane, record: Record<(u32, Stamp)>) -> Self {
        let (incarnation, stamp) = record.id;
        let decode = |bytes: bytes::Bytes| value::decode(&record.span.begin, &bytes);
        Self {
            lane,
            incarnation,
            stamp,
            message: record.value.and_then(decode),
            bytes: record.bytes,
            span: record.span,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

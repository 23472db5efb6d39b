//! Peeking at mailboxes.

use super::Admin;
use super::error::AdminError;
use super::page::{Cursor, Damage, Page, Place};
use super::views::MessageView;
use crate::durable::keys::{InstanceKeys, Lane};
use crate::durable::queue::{self, Head, Queued};
use crate::id::InstanceId;
use crate::store::{KeyRange, Stamp, StoreError, StoreErrorKind, Tx, after};

/// How many bytes of messages a page holds, but for a single message that is larger.
const PAGE_BYTES: usize = 1_000_000;

/// How many keys that are no message's one read passes over.
const MAX_FOREIGN: usize = 100;

/// A message that stands in a mailbox.
#[derive(Debug, Clone)]
pub struct QueuedView {
    /// Its mailbox.
    pub lane: Lane,
    /// The namespace's incarnation when it was pushed.
    pub incarnation: u32,
    /// Its place in the order.
    pub stamp: Stamp,
    /// How many bytes it takes in the store, keys included.
    pub bytes: usize,
    /// The message, or why it cannot be read: it has its place all the same, and can be purged.
    pub message: Result<MessageView, Damage>,
}

impl From<&Queued> for QueuedView {
    fn from(queued: &Queued) -> Self {
        Self {
            lane: queued.lane,
            incarnation: queued.incarnation,
            stamp: queued.stamp,
            bytes: queued.bytes,
            message: match &queued.message {
                Ok(message) => Ok(message.into()),
                Err(error) => Err(Damage::new(queued.span.begin.clone(), error)),
            },
        }
    }
}

impl Admin {
    /// Peeks at a mailbox, head first: about `limit` messages and a megabyte.
    ///
    /// # Errors
    ///
    /// Whatever the store answers. An empty mailbox is an empty page.
    pub async fn mailbox(
        &self,
        instance: &InstanceId,
        lane: Lane,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<QueuedView>, AdminError> {
        let namespace = &self.namespace;
        let keys = namespace.keys().instance(instance);
        let range = match cursor {
            Some(cursor) => cursor.0.rest_of(keys.mailbox(lane)),
            None => keys.mailbox(lane),
        };
        let limit = limit.clamp(1, super::MAX_PAGE);
        let read = self.look(|tx| {
            let (keys, range) = (keys.clone(), range.clone());
            async move { read_messages(&tx, &keys, lane, range, limit, PAGE_BYTES).await }
        });
        let (head, damaged) = read.await?;
        Ok(Page {
            items: head.messages.iter().map(Into::into).collect(),
            damaged,
            next: head.more.then(|| {
                Cursor(Place {
                    key: head.rest.begin.to_vec(),
                    ..Place::default()
                })
            }),
        })
    }
}

/// Reads messages as [`queue::read_from`] does, but passes over keys that are no message's.
pub(super) async fn read_messages(
    tx: &Tx,
    keys: &InstanceKeys,
    lane: Lane,
    mut range: KeyRange,
    rows: usize,
    bytes: usize,
) -> Result<(Head, Vec<Damage>), StoreError> {
    let mut damaged = Vec::new();
    loop {
        let read = queue::read_from(tx, keys, lane, range.clone(), rows, bytes);
        let error = match read.await {
            Ok(head) => return Ok((head, damaged)),
            Err(error) if error.kind() == StoreErrorKind::Corrupt => error,
            Err(error) => return Err(error),
        };
        let first = tx.get_range(range.read().limit(1).snapshot()).await?;
        let Some(first) = first.into_iter().next() else {
            return Err(error);
        };
        range.begin = after(&first.key);
        damaged.push(Damage::new(first.key, &error));
        if damaged.len() >= MAX_FOREIGN {
            let head = Head {
                messages: Vec::new(),
                more: true,
                rest: range,
            };
            return Ok((head, damaged));
        }
    }
}

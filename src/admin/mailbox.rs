//! Peeking at mailboxes.

use super::Admin;
use super::error::AdminError;
use super::foreign::read_messages;
use super::page::{Cursor, Damage, Page, Place};
use super::views::MessageView;
use crate::durable::keys::Lane;
use crate::durable::queue::Queued;
use crate::id::InstanceId;
use crate::store::Stamp;

/// How many bytes of messages a page holds, but for a single message that is larger.
const PAGE_BYTES: usize = 1_000_000;

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
            next: head.more.then(|| Cursor(Place::key(&head.rest.begin))),
        })
    }
}

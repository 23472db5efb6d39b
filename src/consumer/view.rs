//! What a turn reads, all at one version and side by side.

use crate::durable::attempts::Attempts;
use crate::durable::keys::{InstanceKeys, Lane, SessionId};
use crate::durable::lock::Lock;
use crate::durable::overview::{self, Window};
use crate::durable::queue::Head;
use crate::durable::ready;
use crate::durable::state::StateVersion;
use crate::store::{StoreError, Tx};
use bytes::Bytes;
use futures_util::future::try_join;
use std::future::Future;

/// An instance as its turn finds it.
///
/// All but the mailbox and the mark are read serializably. The mailbox is read under snapshot
/// isolation, because a serializable read would collide with every push; what is popped gets a
/// conflict of its own.
#[derive(Debug)]
pub(super) struct View {
    pub(super) version: Option<StateVersion>,
    pub(super) lock: Option<Lock>,
    pub(super) paused: bool,
    pub(super) mark: Option<Bytes>,
    pub(super) priority: Line,
    pub(super) ordinary: Line,
}

/// A mailbox's head and what is known of it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) lane: Lane,
    pub(super) head: Head,
    pub(super) attempts: Option<Attempts>,
}

impl Line {
    /// Whether this process has claimed the head.
    pub(super) fn is_claimed_by(&self, session: SessionId) -> bool {
        let attempts = self.attempts.as_ref();
        attempts.is_some_and(|attempts| attempts.claim == Some(session))
    }
}

impl View {
    /// Begins all reads at once.
    pub(super) fn read(
        tx: &Tx,
        keys: &InstanceKeys,
        window: Window,
    ) -> impl Future<Output = Result<Self, StoreError>> + Send + 'static + use<> {
        let (overview, mark) = (overview::read(tx, keys, window), ready::read_mark(tx, keys));
        async move {
            let (overview, mark) = try_join(overview, mark).await?;
            let line = |lane, (head, attempts)| Line {
                lane,
                head,
                attempts,
            };
            Ok(Self {
                version: overview.version,
                lock: overview.lock,
                paused: overview.paused,
                mark,
                priority: line(Lane::Priority, overview.priority),
                ordinary: line(Lane::Ordinary, overview.ordinary),
            })
        }
    }
}

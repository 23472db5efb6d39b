//! What a turn reads, all at one version and side by side.

use crate::durable::attempts::{self, Attempts};
use crate::durable::keys::{InstanceKeys, Lane};
use crate::durable::lock::{self, Lock};
use crate::durable::queue::{self, Head};
use crate::durable::state::{self, StateVersion};
use crate::durable::{Namespace, pause, ready};
use crate::store::{StoreError, Tx};
use bytes::Bytes;
use futures_util::future::{try_join, try_join4};
use std::future::Future;

/// How much of the mailbox to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

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

impl View {
    /// Begins all reads at once.
    pub(super) fn read(
        tx: &Tx,
        namespace: &Namespace,
        keys: &InstanceKeys,
        window: Window,
    ) -> impl Future<Output = Result<Self, StoreError>> + Send + 'static + use<> {
        let head = |lane| queue::read_head(tx, namespace, keys, lane, window.rows, window.bytes);
        let switches = try_join4(
            state::read_version(tx, keys),
            lock::read_lock(tx, keys),
            pause::read(tx, keys),
            ready::read_mark(tx, keys),
        );
        let mailboxes = try_join4(
            attempts::read(tx, keys, Lane::Priority),
            attempts::read(tx, keys, Lane::Ordinary),
            head(Lane::Priority),
            head(Lane::Ordinary),
        );
        async move {
            let ((version, lock, paused, mark), (a_priority, a_ordinary, priority, ordinary)) =
                try_join(switches, mailboxes).await?;
            Ok(Self {
                version,
                lock,
                paused: paused.is_some(),
                mark,
                priority: Line {
                    lane: Lane::Priority,
                    head: priority,
                    attempts: a_priority,
                },
                ordinary: Line {
                    lane: Lane::Ordinary,
                    head: ordinary,
                    attempts: a_ordinary,
                },
            })
        }
    }
}

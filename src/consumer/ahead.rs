//! A turn's reads, begun before there is a message for it.
//!
//! A turn may read at a version that is known already: that of the commit of the turn before it, of
//! the push that it is for, or of the scan that found the instance. Then it needs no read version of
//! its own, and can read at once. Invariants:
//!
//! - *It reads.* Commits of one batch share a version, so what the turn before knew of the instance
//!   is not knowledge of this version. Nothing is taken from it but the number.
//! - *It is checked.* A message may have arrived after the version, so what the turn finds must not
//!   be acted on without a commit that conflicts with every change since: it always writes, and if it
//!   has messages from memory it has a conflict on the whole mailbox. A turn that would write nothing
//!   is run again at a fresh version.

use super::slots::Visible;
use super::view::View;
use crate::durable::Namespace;
use crate::durable::keys::InstanceKeys;
use crate::durable::overview::Window;
use crate::env::BoxFuture;
use crate::planted::{Bug, planted};
use crate::store::{StoreError, Tx, Version};
use futures_util::future::{MaybeDone, maybe_done, select};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// How long the reads are good for: less than the five seconds that a store can read back.
const GOOD_FOR: Duration = Duration::from_secs(4);

/// The reads of a turn that has not begun.
pub(super) struct Ahead {
    tx: Tx,
    view: Reads,
    version: Version,
    begun: Duration,
}

/// Reads under way, or done.
pub(super) type Reads = Pin<Box<MaybeDone<BoxFuture<'static, Result<View, StoreError>>>>>;

impl Ahead {
    /// Begins to read at a version.
    pub(super) fn begin(
        namespace: &Namespace,
        keys: &InstanceKeys,
        version: Version,
        window: Window,
        now: Duration,
    ) -> Option<Self> {
        let tx = namespace.database().store().begin().ok()?;
        let reader = match planted(Bug::ChainedUnread) {
            true => namespace.database().store().begin().ok()?,
            false => Arc::clone(&tx),
        };
        reader.set_read_version(version);
        if planted(Bug::ChainedUnread) {
            tx.set_read_version(version);
        }
        let view: BoxFuture<'static, _> = Box::pin(View::read(&reader, keys, window));
        Some(Self {
            tx,
            view: Box::pin(maybe_done(view)),
            version,
            begun: now,
        })
    }

    /// Whether the reads show what somebody looked for.
    pub(super) fn shows(&self, visible: Visible) -> bool {
        matches!(visible, Visible::From(version) if version <= self.version)
    }

    /// Waits for something else, going on with the reads meanwhile.
    pub(super) async fn meanwhile<T>(&mut self, other: impl Future<Output = T> + Unpin) -> T {
        use futures_util::future::Either;
        match select(other, &mut self.view).await {
            Either::Left((value, _)) => value,
            Either::Right(((), other)) => other.await,
        }
    }

    /// The transaction and its reads, unless they are too old by now.
    pub(super) fn take(self, now: Duration) -> Option<(Tx, Reads)> {
        (now.saturating_sub(self.begun) < GOOD_FOR).then_some((self.tx, self.view))
    }
}

/// What was read ahead.
pub(super) async fn finish(mut reads: Reads) -> Option<Result<View, StoreError>> {
    reads.as_mut().await;
    reads.as_mut().take_output()
}

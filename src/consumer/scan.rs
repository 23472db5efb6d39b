//! How a node learns what there is to do: it scans the ready marks of its shards, and waits at their
//! wake counters.
//!
//! No wake-up is lost: a watch is armed only in a read-only transaction that ends a scan of the whole
//! shard, and whose wake counter equals the one that the scan began with. Whatever the scan has seen is
//! being worked on, waits for room or is parked by then: a turn that begins after the look sees what
//! the look saw. A push after that changes the counter, and the watch fires. What is lost all the same, a
//! watch with its connection say, is found by a slow poll.

use super::Consumer;
use super::slots::{Look, Visible};
use crate::durable::presence::backoff;
use crate::durable::ready;
use crate::planted::{Bug, planted};
use crate::store::{KeyRange, StoreError, StoreFuture, TransactionExt};
use bytes::Bytes;
use futures_util::future::{Either, select, try_join};
use std::sync::Arc;
use std::time::Duration;

/// How many marks a transaction reads.
const PAGE: usize = 128;

/// How long a watch is trusted, give or take a quarter.
const POLL: Duration = Duration::from_secs(10);

/// The longest first wait after a failure of the store. It doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);

/// The longest wait after failures of the store.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// What a page of a scan came to.
enum Page {
    /// There is more behind it.
    More(KeyRange),
    /// It was the last one, and something was pushed meanwhile.
    Changed,
    /// It was the last one: wait for this.
    Quiet(StoreFuture<()>),
}

/// One scan of a shard, from its first page to its last.
struct Round {
    rest: KeyRange,
    /// The wake counter when the scan began.
    counter: Option<Option<Bytes>>,
}

impl Consumer {
    /// Scans a shard for ever. Ends when the consumer stops.
    pub(super) async fn scan(self: Arc<Self>, shard: u32) {
        let mut failures = 0_u32;
        let mut round = self.round(shard);
        while !self.is_stopping() {
            if !planted(Bug::ScanWithoutRoom) {
                self.wait_for_room().await;
            }
            // Before the page: what it finds is of this store or of the next.
            let reopened = self.reopened_signal();
            match self.page(shard, &mut round).await {
                Ok(Page::More(rest)) => round.rest = rest,
                Ok(Page::Changed) => round = self.round(shard),
                Ok(Page::Quiet(watch)) => {
                    let _ = select(Box::pin(self.wait_at(watch)), reopened).await;
                    round = self.round(shard);
                }
                Err(error) => {
                    tracing::debug!(shard, %error, "a scan failed");
                    failures = failures.saturating_add(1);
                    self.back_off(failures).await;
                    round = self.round(shard);
                    continue;
                }
            }
            failures = 0;
        }
    }

    fn round(&self, shard: u32) -> Round {
        Round {
            rest: self.presence.namespace().keys().ready_of(shard),
            counter: None,
        }
    }

    async fn page(self: &Arc<Self>, shard: u32, round: &mut Round) -> Result<Page, StoreError> {
        let namespace = self.presence.namespace();
        let tx = namespace.database().store().begin()?;
        let key = namespace.keys().wake(shard);
        let marks = ready::read_marks(&tx, namespace, round.rest.clone(), PAGE);
        let (marks, counter) = try_join(marks, tx.peek(&key)).await?;
        // Known by now, since something was read.
        let visible = Visible::From(tx.read_version().await?);
        let first = round.counter.get_or_insert_with(|| counter.clone());
        let is_unchanged = *first == counter;
        for key in &marks.undecodable {
            tracing::warn!(key = %key.escape_ascii(), "a ready mark cannot be read");
        }
        for (instance, mark) in marks.instances {
            self.look_at(&instance, &Look::Marked(mark), visible);
        }
        if let Some(rest) = marks.next {
            return Ok(Page::More(rest));
        }
        if !is_unchanged {
            return Ok(Page::Changed);
        }
        let tx = match planted(Bug::ScanWatchesLater) {
            true => namespace.database().store().begin()?,
            false => tx,
        };
        let watch = tx.watch(&key);
        tx.commit().await?;
        Ok(Page::Quiet(watch))
    }

    /// Waits until the watch fires, or fails, or a while has passed.
    async fn wait_at(&self, watch: StoreFuture<()>) {
        let quarter = POLL / 4;
        let jitter = Duration::from_millis(self.env.random() % (2 * quarter.as_millis() as u64));
        let poll = self.env.sleep(POLL - quarter + jitter);
        let woken = select(watch, select(poll, self.stopped_signal())).await;
        // A watch that ends with an error at once must not make the scan spin.
        if let Either::Left((Err(_), _)) = woken {
            self.back_off(1).await;
        }
    }

    async fn back_off(&self, failures: u32) {
        let env = self.env.as_ref();
        let wait = backoff(env, FIRST_BACKOFF, LONGEST_BACKOFF, failures);
        env.sleep(wait).await;
    }
}

//! Listing instances: who has what, and who does not progress.

use super::error::AdminError;
use super::mailbox::read_messages;
use super::page::{Cursor, Damage, Page, Place, or_damage};
use super::pause::PauseView;
use super::views::MessageView;
use super::walk::{Found, Walk};
use super::{Admin, lock};
use crate::durable::keys::{InstanceKeys, Lane, SessionId};
use crate::durable::{Namespace, attempts, dead, directory, pause, queue, ready, state};
use crate::id::InstanceId;
use crate::store::{CommitStamp, Isolation, Stamp, StoreError, StoreErrorKind, TransactionExt, Tx};
use futures_util::future::{join_all, try_join, try_join4};
use std::time::Duration;

/// How many instances one transaction looks at: some ten reads each.
const PAGE: usize = 100;

/// How many of them at once.
const AT_ONCE: usize = 10;

/// How many dead letters are counted before the count is called a lower bound.
const COUNTED_LETTERS: usize = 100;
const COUNTED_BYTES: usize = 200_000;

/// Which instances to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceFilter {
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those that do not progress: with messages or a lock, and something that keeps them, be it
    /// failed attempts, a claim, a pause, or that the oldest message is older than this.
    pub stuck: Option<Duration>,
}

/// An instance at a moment.
#[derive(Debug, Clone)]
pub struct InstanceSummary {
    /// The instance.
    pub instance: InstanceId,
    /// How many messages both mailboxes hold.
    pub length: u64,
    /// The ordinary mailbox.
    pub ordinary: LaneSummary,
    /// The priority mailbox.
    pub priority: LaneSummary,
    /// The lock, if a message holds it. Its message is not read for the summary.
    pub lock: Option<lock::LockView>,
    /// The dead letters.
    pub dead_letters: DeadCount,
    /// The pause of the instance itself.
    pub paused: Option<PauseView>,
    /// The pause of its kind.
    pub kind_paused: Option<PauseView>,
    /// When its first state was written, in milliseconds since 1970; none if it has none yet.
    pub created_ms: Option<u64>,
    /// The schema number of the type that wrote the state; none if there is no state.
    pub schema: Option<u32>,
    /// The commit that changed the state last.
    pub changed: Option<CommitStamp>,
    /// What of it cannot be read.
    pub damaged: Vec<Damage>,
}

/// A mailbox at a moment.
#[derive(Debug, Clone, Default)]
pub struct LaneSummary {
    /// The message at the head.
    pub oldest: Option<Oldest>,
    /// What became of attempts at it.
    pub attempts: Option<AttemptsView>,
}

/// The message at the head of a mailbox.
#[derive(Debug, Clone)]
pub struct Oldest {
    /// Its stamp.
    pub stamp: Stamp,
    /// The message; none if it cannot be read.
    pub message: Option<MessageView>,
}

/// What became of attempts at the head of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptsView {
    /// How many have failed.
    pub attempts: u32,
    /// When it is tried again, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// The session that is at it.
    pub claim: Option<SessionId>,
    /// What the last failure said.
    pub error: String,
    /// When the first attempt failed, in milliseconds since 1970.
    pub first_ms: u64,
}

/// How many dead letters there are, as far as was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeadCount {
    /// So many were counted.
    pub count: u64,
    /// Whether there are more.
    pub more: bool,
}

impl InstanceSummary {
    /// When the oldest message of either mailbox was sent, in milliseconds since 1970.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        let lanes = [&self.priority, &self.ordinary];
        let sent = lanes.iter().filter_map(|lane| lane.oldest.as_ref());
        sent.filter_map(|oldest| Some(oldest.message.as_ref()?.sent_ms))
            .min()
    }

    /// Whether it does not progress; see [`InstanceFilter::stuck`].
    #[must_use]
    pub fn is_stuck(&self, now_ms: u64, older_than: Duration) -> bool {
        let lanes = [&self.priority, &self.ordinary];
        let has_messages = lanes.iter().any(|lane| lane.oldest.is_some());
        if !has_messages && self.lock.is_none() {
            return false;
        }
        let hindered = |lane: &&LaneSummary| {
            let attempts = lane.attempts.as_ref();
            attempts.is_some_and(|of| of.attempts > 0 || of.claim.is_some())
                || lane.oldest.as_ref().is_some_and(|of| of.message.is_none())
        };
        let age = u64::try_from(older_than.as_millis()).unwrap_or(u64::MAX);
        lanes.iter().any(hindered)
            || self.paused.is_some()
            || self.kind_paused.is_some()
            || self.lock.as_ref().is_some_and(|lock| lock.attempts > 0)
            || !self.damaged.is_empty()
            || self
                .oldest_ms()
                .is_some_and(|sent| now_ms.saturating_sub(sent) > age)
    }
}

/// The parts of the listing.
const DIRECTORY: u8 = 0;
const WALK: u8 = 1;
const MARKS: u8 = 2;

/// Candidates of a page.
#[derive(Default)]
struct Candidates {
    instances: Vec<InstanceId>,
    damaged: Vec<Damage>,
    next: Option<Place>,
}

impl Admin {
    /// Lists instances: first those of the directory, in the order of kind and id, then whoever has
    /// anything else in the store and no state yet. Those that are stuck are found by their ready
    /// marks, in the order of their shards.
    ///
    /// At most `limit` of them, or 100; begin without a cursor.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn instances(
        &self,
        filter: &InstanceFilter,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<InstanceSummary>, AdminError> {
        let limit = limit.clamp(1, PAGE);
        let now = self.now_ms();
        let begin = match (cursor, filter.stuck) {
            (Some(cursor), _) => cursor.0.clone(),
            (None, None) => Place::default(),
            (None, Some(_)) => Place {
                part: MARKS,
                ..Place::default()
            },
        };
        let namespace = &self.namespace;
        let mut page = self
            .look(|tx| {
                let (begin, filter) = (begin.clone(), filter.clone());
                async move {
                    let kind = filter.kind.as_deref();
                    let found = match begin.part {
                        DIRECTORY => from_directory(&tx, namespace, kind, &begin, limit).await?,
                        MARKS => from_marks(&tx, namespace, kind, &begin, limit).await?,
                        _ => from_walk(&tx, namespace, kind, &begin, limit).await?,
                    };
                    let mut items = Vec::with_capacity(found.instances.len());
                    for some in found.instances.chunks(AT_ONCE) {
                        let some = some.iter().map(|of| summarize(&tx, namespace, of));
                        for summary in join_all(some).await {
                            items.push(summary?);
                        }
                    }
                    Ok(Page {
                        items,
                        damaged: found.damaged,
                        next: found.next.map(Cursor),
                    })
                }
            })
            .await?;
        if let Some(age) = filter.stuck {
            page.items.retain(|summary| summary.is_stuck(now, age));
        }
        Ok(page)
    }

    /// One instance.
    ///
    /// # Errors
    ///
    /// [`NotFound`](super::AdminErrorKind::NotFound) if the store holds nothing of it; whatever the
    /// store answers.
    pub async fn instance(&self, instance: &InstanceId) -> Result<InstanceSummary, AdminError> {
        let namespace = &self.namespace;
        let found = self.look(|tx| async move {
            let keys = namespace.keys().instance(instance);
            let all = keys.all();
            let nothing = tx.is_empty(&all, Isolation::Snapshot);
            let (nothing, summary) = try_join(nothing, summarize(&tx, namespace, instance)).await?;
            let is_there = !nothing || summary.created_ms.is_some();
            Ok(is_there.then_some(summary))
        });
        found.await?.ok_or_else(|| absent(instance))
    }
}

pub(super) fn absent(instance: &InstanceId) -> AdminError {
    AdminError::not_found(format!("there is nothing of the instance {instance}"))
}

async fn from_directory(
    tx: &Tx,
    namespace: &Namespace,
    kind: Option<&str>,
    begin: &Place,
    limit: usize,
) -> Result<Candidates, StoreError> {
    let range = begin.rest_of(namespace.keys().directory_of(kind));
    let page = directory::list(tx, namespace.keys(), range, limit).await?;
    let next = match page.next {
        Some(rest) => Place {
            key: rest.begin.to_vec(),
            ..begin.clone()
        },
        None => Walk::new(namespace.keys(), kind).place(WALK),
    };
    Ok(Candidates {
        instances: page.entries,
        damaged: page.undecodable.into_iter().map(Damage::foreign).collect(),
        next: Some(next),
    })
}

/// Those that the directory does not know.
async fn from_walk(
    tx: &Tx,
    namespace: &Namespace,
    kind: Option<&str>,
    begin: &Place,
    limit: usize,
) -> Result<Candidates, StoreError> {
    let mut walk = Walk::at(namespace.keys(), kind, begin);
    let mut found = Candidates::default();
    for _ in 0..limit {
        match walk.next(tx).await? {
            Some(Found::Instance(instance)) => {
                let entry = namespace.keys().directory(&instance);
                if tx.peek(&entry).await?.is_none() {
                    found.instances.push(instance);
                }
            }
            Some(Found::Foreign(key)) => found.damaged.push(Damage::foreign(key)),
            None => return Ok(found),
        }
    }
    found.next = Some(walk.place(WALK));
    Ok(found)
}

async fn from_marks(
    tx: &Tx,
    namespace: &Namespace,
    kind: Option<&str>,
    begin: &Place,
    limit: usize,
) -> Result<Candidates, StoreError> {
    let keys = namespace.keys();
    let mut found = Candidates::default();
    let mut place = begin.clone();
    while place.shard < keys.shards() {
        let left = limit - (found.instances.len() + found.damaged.len()).min(limit);
        if left == 0 {
            found.next = Some(place);
            return Ok(found);
        }
        let all = match kind {
            Some(kind) => keys.ready_of_kind(place.shard, kind),
            None => keys.ready_of(place.shard),
        };
        let marks = ready::read_marks(tx, namespace, place.rest_of(all), left).await?;
        found
            .instances
            .extend(marks.instances.into_iter().map(|(instance, _)| instance));
        let damaged = marks.undecodable.into_iter().map(Damage::foreign);
        found.damaged.extend(damaged);
        place = Place {
            part: MARKS,
            shard: place.shard + u32::from(marks.next.is_none()),
            key: marks
                .next
                .map(|rest| rest.begin.to_vec())
                .unwrap_or_default(),
            instance: None,
        };
    }
    Ok(found)
}

async fn summarize(
    tx: &Tx,
    namespace: &Namespace,
    instance: &InstanceId,
) -> Result<InstanceSummary, StoreError> {
    let keys = namespace.keys().instance(instance);
    let mut damaged = Vec::new();
    let lanes = try_join(
        lane(tx, &keys, Lane::Ordinary),
        lane(tx, &keys, Lane::Priority),
    );
    let length = async { Ok(queue::length(tx, &keys).await) };
    let lock_read = async { Ok(crate::durable::lock::read_lock(tx, &keys).await) };
    let pauses = async {
        let own = pause::read_at(tx, keys.paused()).await;
        Ok((own, pause::read_at(tx, keys.kind_paused().clone()).await))
    };
    let state = async {
        let version = state::read_version(tx, &keys).await;
        Ok((
            version,
            directory::read(tx, namespace.keys(), instance).await,
        ))
    };
    let letters = count_letters(tx, namespace, &keys);
    let first = try_join4(lanes, length, lock_read, pauses);
    let ((lanes, length, held, pauses), (state, letters)) =
        try_join(first, try_join(state, letters)).await?;
    let ((ordinary, of_ordinary), (priority, of_priority)) = lanes;
    damaged.extend(of_ordinary);
    damaged.extend(of_priority);
    let length = or_damage(length, &keys.length(), &mut damaged)?;
    let held = or_damage(held, &keys.lock(), &mut damaged)?;
    let paused = or_damage(pauses.0, &keys.paused(), &mut damaged)?;
    let kind_paused = or_damage(pauses.1, keys.kind_paused(), &mut damaged)?;
    let version = or_damage(state.0, &keys.version(), &mut damaged)?.flatten();
    let entry = namespace.keys().directory(instance);
    Ok(InstanceSummary {
        instance: instance.clone(),
        length: u64::try_from(length.unwrap_or(0)).unwrap_or(0),
        ordinary,
        priority,
        lock: held.flatten().map(|held| lock::LockView::new(&held)),
        dead_letters: letters,
        paused: paused.flatten().map(Into::into),
        kind_paused: kind_paused.flatten().map(Into::into),
        created_ms: or_damage(state.1, &entry, &mut damaged)?.flatten(),
        schema: version.map(|version| version.schema),
        changed: version.map(|version| version.stamp),
        damaged,
    })
}

async fn lane(
    tx: &Tx,
    keys: &InstanceKeys,
    lane: Lane,
) -> Result<(LaneSummary, Vec<Damage>), StoreError> {
    let record = async { Ok(attempts::read(tx, keys, lane).await) };
    let head = read_messages(tx, keys, lane, keys.mailbox(lane), 1, 0);
    let ((head, mut damaged), record) = try_join(head, record).await?;
    let record = or_damage(record, &keys.attempts(lane), &mut damaged)?.flatten();
    let first = head.messages.first();
    // At a head of another stamp the record says nothing.
    let about =
        |stamp: Stamp| move |of: &attempts::Attempts| of.stamp <= stamp && stamp <= of.until;
    let record = first.and_then(|first| record.filter(about(first.stamp)));
    if let Some(Err(error)) = first.map(|first| &first.message) {
        let key = first.map(|first| first.span.begin.clone());
        damaged.push(Damage::new(key.unwrap_or_default(), error));
    }
    let summary = LaneSummary {
        oldest: first.map(|first| Oldest {
            stamp: first.stamp,
            message: first.message.as_ref().ok().map(Into::into),
        }),
        attempts: record.map(|record| AttemptsView {
            attempts: record.attempts,
            not_before_ms: record.not_before_ms,
            claim: record.claim,
            error: record.error,
            first_ms: record.first_ms,
        }),
    };
    Ok((summary, damaged))
}

async fn count_letters(
    tx: &Tx,
    namespace: &Namespace,
    keys: &InstanceKeys,
) -> Result<DeadCount, StoreError> {
    // A key that is no letter's ends the count.
    let all = keys.dead_letters();
    match dead::list(tx, namespace, keys, all, COUNTED_LETTERS, COUNTED_BYTES).await {
        Ok(letters) => Ok(DeadCount {
            count: u64::try_from(letters.letters.len()).unwrap_or(u64::MAX),
            more: letters.next.is_some(),
        }),
        Err(error) if error.kind() == StoreErrorKind::Corrupt => Ok(DeadCount {
            count: 0,
            more: true,
        }),
        Err(error) => Err(error),
    }
}

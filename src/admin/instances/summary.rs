//! One instance at one moment.

use super::{AttemptsView, DeadCount, InstanceSummary, LaneSummary, Oldest};
use crate::admin::foreign::{read_letters, read_messages};
use crate::admin::lock::LockView;
use crate::admin::page::{Damage, or_damage};
use crate::durable::keys::{InstanceKeys, Lane};
use crate::durable::lock::Lock;
use crate::durable::{Namespace, attempts, directory, pause, queue, ready, state};
use crate::id::InstanceId;
use crate::store::{Stamp, StoreError, TransactionExt, Tx};
use futures_util::future::{try_join, try_join3, try_join4};

/// How many dead letters are counted before the count is called a lower bound.
const COUNTED_LETTERS: usize = 100;
const COUNTED_BYTES: usize = 200_000;
const COUNTING_READS: usize = 3;

pub(in crate::admin) async fn summarize(
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
    let mark = ready::read_mark(tx, &keys);
    let first = try_join4(lanes, length, lock_read, pauses);
    let ((lanes, length, held, pauses), (state, letters, mark)) =
        try_join(first, try_join3(state, letters, mark)).await?;
    let ((ordinary, of_ordinary), (priority, of_priority)) = lanes;
    damaged.extend(of_ordinary);
    damaged.extend(of_priority);
    let (letters, of_letters) = letters;
    damaged.extend(of_letters);
    let length = or_damage(length, &keys.length(), &mut damaged)?;
    let held = or_damage(held, &keys.lock(), &mut damaged)?.flatten();
    let lock_abandoned = match &held {
        Some(held) => is_abandoned(tx, namespace, held).await?,
        None => false,
    };
    let paused = or_damage(pauses.0, &keys.paused(), &mut damaged)?;
    let kind_paused = or_damage(pauses.1, keys.kind_paused(), &mut damaged)?;
    let version = or_damage(state.0, &keys.version(), &mut damaged)?.flatten();
    let entry = namespace.keys().directory(instance);
    let marked = mark.as_ref().and_then(|mark| ready::stamp_of(mark));
    if mark.is_some() && marked.is_none() {
        let what = "the value is no ready mark".to_owned();
        let key = keys.ready().clone();
        damaged.push(Damage { key, what });
    }
    Ok(InstanceSummary {
        instance: instance.clone(),
        length: u64::try_from(length.unwrap_or(0)).unwrap_or(0),
        ordinary,
        priority,
        lock: held.map(|held| LockView::new(&held)),
        lock_abandoned,
        dead_letters: letters,
        paused: paused.flatten().map(Into::into),
        kind_paused: kind_paused.flatten().map(Into::into),
        created_ms: or_damage(state.1, &entry, &mut damaged)?.flatten(),
        schema: version.map(|version| version.schema),
        changed: version.map(|version| version.stamp),
        marked,
        damaged,
    })
}

/// Whether nobody holds a lock any more.
async fn is_abandoned(tx: &Tx, namespace: &Namespace, held: &Lock) -> Result<bool, StoreError> {
    if held.is_given_up() {
        return Ok(true);
    }
    let holder = namespace.keys().session(held.session);
    Ok(tx.peek(&holder.heartbeat()).await?.is_none())
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

/// Counts letters, readable or not; what stands among them and is none is damage.
async fn count_letters(
    tx: &Tx,
    namespace: &Namespace,
    keys: &InstanceKeys,
) -> Result<(DeadCount, Vec<Damage>), StoreError> {
    let (mut count, mut damaged) = (0, Vec::new());
    let mut rest = Some(keys.dead_letters());
    // Foreign keys cut the letters into several reads.
    for _ in 0..COUNTING_READS {
        let left = COUNTED_LETTERS.saturating_sub(count);
        let Some(range) = rest.take_if(|_| left > 0) else {
            break;
        };
        let read = read_letters(tx, namespace, keys, range, left, COUNTED_BYTES);
        let (letters, foreign) = read.await?;
        count += letters.letters.len();
        damaged.extend(foreign);
        rest = letters.next;
    }
    let count = DeadCount {
        count: u64::try_from(count).unwrap_or(u64::MAX),
        more: rest.is_some(),
    };
    Ok((count, damaged))
}

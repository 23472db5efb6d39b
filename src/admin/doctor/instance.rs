//! The parts of one instance, compared at one moment.

use super::{Finding, FindingCode};
use crate::admin::page::what_is_wrong;
use crate::codec::Path;
use crate::durable::attempts::Attempts;
use crate::durable::keys::{InstanceKeys, Key, Lane, Part};
use crate::durable::{Namespace, attempts, lock, queue};
use crate::id::InstanceId;
use crate::store::{
    Isolation, KeyRange, Stamp, StoreError, StoreErrorKind, TransactionExt, Tx, after,
};

/// How many rows of a mailbox are counted in one transaction, which has five seconds.
pub(super) const MAX_ROWS: usize = 20_000;

/// How many rows are read at once: they may be of the largest size.
const ROWS: usize = 200;

/// A mailbox, counted.
pub(super) struct Counted {
    /// How many messages it holds; none if it is too long to be counted.
    pub(super) messages: Option<i64>,
    /// How many rows were read.
    pub(super) rows: usize,
    /// The first of them.
    pub(super) first: Option<Stamp>,
}

/// Compares the parts of an instance. Returns how many rows were read.
pub(super) async fn check(
    tx: &Tx,
    namespace: &Namespace,
    instance: &InstanceId,
    findings: &mut Vec<Finding>,
) -> Result<usize, StoreError> {
    let keys = namespace.keys().instance(instance);
    let mut add = |code, key, why: String| {
        findings.push(Finding::new(code, key, why).of(instance));
    };
    let isolation = Isolation::Snapshot;
    let ordinary = count(tx, namespace, &keys, Lane::Ordinary, isolation).await?;
    let priority = count(tx, namespace, &keys, Lane::Priority, isolation).await?;
    let length = queue::length(tx, &keys).await;
    if let Err(error) = &length {
        or_store(error)?;
    }
    match (ordinary.messages, priority.messages, length) {
        (Some(ordinary), Some(priority), length) => {
            let messages = ordinary.saturating_add(priority);
            // A length of nothing is absent.
            let stands = tx.peek(&keys.length()).await?.is_some();
            if length.as_ref().ok() != Some(&messages) || stands != (messages != 0) {
                let stored = length.map_or_else(|_| "damaged".to_owned(), |of| of.to_string());
                add(
                    FindingCode::WrongLength,
                    keys.length(),
                    format!(
                        "the length is {stored}, and {messages} is how many messages there are"
                    ),
                );
            }
        }
        (_, _, length) => {
            add(
                FindingCode::LengthNotChecked,
                keys.length(),
                format!("the mailboxes have more than {MAX_ROWS} rows, which were not counted"),
            );
            if let Err(error) = length {
                let code = FindingCode::UndecodableValue;
                add(code, keys.length(), what_is_wrong(&keys.length(), &error));
            }
        }
    }
    let locked = tx.peek(&keys.lock()).await?.is_some();
    if let Err(error) = lock::read_lock(tx, &keys).await {
        or_store(&error)?;
        add(
            FindingCode::UndecodableValue,
            keys.lock(),
            what_is_wrong(&keys.lock(), &error),
        );
    }
    let no_message = tx.is_empty(&keys.lock_message(), isolation).await?;
    if locked && no_message {
        add(
            FindingCode::LockWithoutMessage,
            keys.lock(),
            "the message that the lock is held for is missing: whoever takes the lock over has nothing \
             to run; break the lock and discard it"
                .to_owned(),
        );
    }
    if !locked && !no_message {
        add(
            FindingCode::MessageWithoutLock,
            keys.lock_message_chunk(0),
            "a message was under a lock that is not there: nobody will run it".to_owned(),
        );
    }
    let has_work = locked || ordinary.first.is_some() || priority.first.is_some();
    if has_work && tx.peek(keys.ready()).await?.is_none() {
        add(
            FindingCode::MissingMark,
            keys.ready().clone(),
            "the instance has messages or a lock, and no mark that shows it to nodes".to_owned(),
        );
    }
    for (lane, counted) in [(Lane::Ordinary, &ordinary), (Lane::Priority, &priority)] {
        let record = attempts::read(tx, &keys, lane).await;
        if let Err(error) = &record {
            or_store(error)?;
        }
        if let Ok(Some(record)) = record
            && !is_about(&record, counted.first)
        {
            add(
                FindingCode::StaleAttempts,
                keys.attempts(lane),
                format!(
                    "attempts are noted at message {}, which is not at the head",
                    record.stamp
                ),
            );
        }
    }
    let version = tx.peek(&keys.version()).await?.is_some();
    let root = [&keys.state().begin[..], Path::root().as_tuple()].concat();
    let has_root = tx.peek(&root).await?.is_some();
    let no_leaves = tx.is_empty(&keys.state(), isolation).await?;
    if !version && !no_leaves {
        add(
            FindingCode::LeavesWithoutVersion,
            keys.state().begin,
            "there are leaves of a state, and no version: the next turn would begin a new state \
             among them; kill the instance, or import it anew"
                .to_owned(),
        );
    }
    if version && !has_root {
        add(
            FindingCode::VersionWithoutLeaves,
            keys.version(),
            "the state has a version, and nothing at its root: its server cannot read it"
                .to_owned(),
        );
    }
    let entry = namespace.keys().directory(instance);
    if version && tx.peek(&entry).await?.is_none() {
        add(
            FindingCode::StateWithoutEntry,
            entry,
            "the instance has a state, and the directory does not list it".to_owned(),
        );
    }
    Ok(ordinary.rows + priority.rows)
}

/// Damage is a finding; another error of the store ends the check.
fn or_store(error: &StoreError) -> Result<(), StoreError> {
    match error.kind() {
        StoreErrorKind::Corrupt => Ok(()),
        _ => Err(error.clone()),
    }
}

/// Whether a record of attempts is about the message at the head.
pub(super) fn is_about(record: &Attempts, first: Option<Stamp>) -> bool {
    first.is_some_and(|first| record.stamp <= first && first <= record.until)
}

/// Counts the messages of a mailbox.
pub(super) async fn count(
    tx: &Tx,
    namespace: &Namespace,
    keys: &InstanceKeys,
    lane: Lane,
    isolation: Isolation,
) -> Result<Counted, StoreError> {
    let mut counted = Counted {
        messages: None,
        rows: 0,
        first: None,
    };
    let mut messages = 0;
    let mut last = None;
    let mut rest: KeyRange = keys.mailbox(lane);
    while counted.rows < MAX_ROWS {
        let mut read = rest.read().limit(ROWS);
        read.isolation = isolation;
        let page = tx.get_range(read).await?;
        let full = page.len() == ROWS;
        counted.rows += page.len();
        for row in page {
            if let Ok(Key::Instance {
                part: Part::Message {
                    incarnation, stamp, ..
                },
                ..
            }) = namespace.keys().decode(&row.key)
            {
                counted.first.get_or_insert(stamp);
                if last != Some((incarnation, stamp)) {
                    messages += 1;
                    last = Some((incarnation, stamp));
                }
            }
            rest.begin = after(&row.key);
        }
        if !full {
            counted.messages = Some(messages);
            return Ok(counted);
        }
    }
    Ok(counted)
}

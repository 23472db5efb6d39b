//! What a turn looks at before it does anything: all that is known of an instance, but its state.
//!
//! Invariants:
//!
//! - *One read.* What is known of the instance and the heads of its mailboxes stand side by side, so
//!   one range read answers for all of them: on a cluster a turn costs few requests, and in a file
//!   few searches.
//! - *Serializable where it decides.* The read itself is a snapshot read, because a push must not
//!   fail a turn. On what is known of the instance (attempts, lock, version, pause) there is a
//!   conflict over the whole range, so that also what is *absent* is checked.

use super::attempts::{self, Attempts};
use super::chunk::Limits;
use super::keys::{InstanceKeys, Lane};
use super::lock::{self, Lock};
use super::pause;
use super::queue::{self, Head};
use super::state::{self, StateVersion};
use super::value;
use crate::planted::{Bug, planted};
use crate::store::{KeyRange, KeyValue, StoreError, Tx, after};
use futures_util::future::try_join;
use std::future::Future;
use std::sync::Arc;

/// The most rows before the mailboxes: two records of attempts, the lock, the version, the pause, and
/// the length.
const ROWS_BEFORE: usize = 6;

/// How much of the mailboxes to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// The most rows of each.
    pub(crate) rows: usize,
    /// The most bytes of each.
    pub(crate) bytes: usize,
    /// The most rows of the first read. What is missing then takes another one.
    pub(crate) page: usize,
}

/// An instance, as it stands in the store.
#[derive(Debug)]
pub(crate) struct Overview {
    /// Of its state.
    pub(crate) version: Option<StateVersion>,
    /// Its lock, if it is held.
    pub(crate) lock: Option<Lock>,
    /// Whether it, or its kind, is paused.
    pub(crate) paused: bool,
    /// The priority messages, and what is known of the first.
    pub(crate) priority: (Head, Option<Attempts>),
    /// The ordinary messages, and what is known of the first.
    pub(crate) ordinary: (Head, Option<Attempts>),
}

/// Reads an instance. All reads are issued at once, unless a mailbox is longer than the first page.
///
/// # Errors
///
/// Those of the store; [`Corrupt`](crate::store::StoreErrorKind::Corrupt), naming the key, for foreign
/// bytes in any of it.
pub(crate) fn read(
    tx: &Tx,
    instance: &InstanceKeys,
    window: Window,
) -> impl Future<Output = Result<Overview, StoreError>> + Send + 'static + use<> {
    let limit = window.page.saturating_add(ROWS_BEFORE + 1);
    let page = tx.get_range(instance.overview().read().snapshot().limit(limit));
    conflict_with_what_decides(tx, instance);
    let kind_paused = pause::read_at(tx, instance.kind_paused().clone());
    let (tx, instance) = (Arc::clone(tx), instance.clone());
    async move {
        let (rows, kind_paused) = try_join(page, kind_paused).await?;
        let full = rows.len() >= limit;
        // Boxed: it is large, and part of every turn.
        let rest = Box::pin(read_rest(&tx, &instance, rows, full, window));
        let mut overview = rest.await?;
        overview.paused |= kind_paused.is_some();
        Ok(overview)
    }
}

fn conflict_with_what_decides(tx: &Tx, instance: &InstanceKeys) {
    let meta = instance.meta();
    if planted(Bug::VersionBySnapshot) {
        let version = instance.version();
        tx.add_read_conflict(&KeyRange::new(meta.begin, version.clone()));
        tx.add_read_conflict(&KeyRange::new(after(&version), meta.end));
    } else {
        tx.add_read_conflict(&meta);
    }
}

/// Takes the first page apart, and reads what it has not reached.
async fn read_rest(
    tx: &Tx,
    instance: &InstanceKeys,
    mut rows: Vec<KeyValue>,
    full: bool,
    window: Window,
) -> Result<Overview, StoreError> {
    let limits = Limits {
        rows: window.rows,
        bytes: window.bytes,
    };
    let mut split_at = |key: &[u8]| {
        let at = rows.partition_point(|row| row.key < key);
        rows.split_off(at)
    };
    let ordinary = split_at(&instance.mailbox(Lane::Ordinary).begin);
    let priority = split_at(&instance.mailbox(Lane::Priority).begin);
    // The page ended within the priority messages, or before them: nothing is known of the others.
    let within_priority = full && ordinary.is_empty();
    let ordinary = async {
        match within_priority {
            true => queue::read_head(tx, instance, Lane::Ordinary, limits.rows, limits.bytes).await,
            false => queue::head_of(tx, instance, Lane::Ordinary, (ordinary, full), limits).await,
        }
    };
    let priority = (priority, within_priority);
    let priority = queue::head_of(tx, instance, Lane::Priority, priority, limits);
    let (priority, ordinary) = try_join(priority, ordinary).await?;
    let mut overview = Overview {
        version: None,
        lock: None,
        paused: false,
        priority: (priority, None),
        ordinary: (ordinary, None),
    };
    for row in rows {
        overview.add(instance, &row)?;
    }
    Ok(overview)
}

impl Overview {
    /// Takes one of the rows before the mailboxes. What stands under other keys is not the turn's
    /// business, but an operator's.
    fn add(&mut self, instance: &InstanceKeys, row: &KeyValue) -> Result<(), StoreError> {
        let (key, stored) = (&row.key, &row.value);
        if *key == instance.version() {
            self.version = Some(state::decode_version(key, stored)?);
        } else if *key == instance.lock() {
            self.lock = Some(lock::decode(key, stored)?);
        } else if *key == instance.paused() {
            let _: pause::Paused = value::decode(key, stored)?;
            self.paused = true;
        } else if *key == instance.attempts(Lane::Priority) {
            self.priority.1 = Some(attempts::decode(key, stored)?);
        } else if *key == instance.attempts(Lane::Ordinary) {
            self.ordinary.1 = Some(attempts::decode(key, stored)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

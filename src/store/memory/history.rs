//! The store's content: the data at every version that can still be read, and the commits.

use super::tree::Tree;
use super::watches::{Watch, Watches};
use super::write_log::WriteLog;
use crate::store::buffer::{Effect, Mutation, RangeSet};
use crate::store::types::{CommitStamp, Committed, KeyRange, Version};
use crate::store::{MAX_TRANSACTION_AGE, StoreError, StoreErrorKind};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// The version of a store's first moment: above the window in which versions can be read, so that
/// small versions are too old from the beginning, as they are in a cluster.
const FIRST_VERSION: u64 = 10_000_000;

/// The version that belongs to an age of the store: like FoundationDB's, one per microsecond.
pub(super) fn version_at(age: Duration) -> Version {
    let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    Version(FIRST_VERSION.saturating_add(micros))
}

/// What a commit brings to the store.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) read_version: Version,
    pub(super) reads: RangeSet,
    pub(super) mutations: Vec<Mutation>,
    pub(super) watches: Vec<Watch>,
}

/// What becomes of a watch once the store's lock is released.
pub(super) type Completion = (Watch, Result<(), StoreError>);

/// The content of a store.
///
/// Invariant: `issued` is the largest version that anyone has been told, and every commit gets a
/// larger one. So what is visible at an issued version never changes.
#[derive(Debug)]
pub(super) struct History {
    /// The data after each commit version, in order. Never empty; the first is the newest that is
    /// not above the horizon, so every readable version has its data.
    snapshots: VecDeque<(Version, Tree)>,
    writes: WriteLog,
    issued: Version,
    /// The oldest version that can be read. Grows with the clock.
    horizon: Version,
    pub(super) watches: Watches,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            snapshots: VecDeque::from([(Version(0), Tree::default())]),
            writes: WriteLog::default(),
            issued: version_at(Duration::ZERO),
            horizon: Version(0),
            watches: Watches::default(),
        }
    }

    /// A version that includes every commit so far. `now` is the version of this moment.
    pub(super) fn read_version(&mut self, now: Version) -> Version {
        self.prune(now);
        self.issued = self.issued.max(now);
        self.issued
    }

    /// The data at `version`.
    pub(super) fn snapshot(&mut self, version: Version, now: Version) -> Result<Tree, StoreError> {
        self.prune(now);
        self.check_age(version)?;
        let later = self.snapshots.partition_point(|(at, _)| *at <= version);
        match later.checked_sub(1).and_then(|at| self.snapshots.get(at)) {
            Some((_, data)) => Ok(data.clone()),
            None => Err(too_old(version, "its data is no longer kept")),
        }
    }

    /// Commits a batch: all of it at one version, each member validated after those before it.
    ///
    /// As in FoundationDB, a member conflicts with an earlier one of the same batch if it read what
    /// that one wrote: its read version is older than the batch's.
    pub(super) fn commit(
        &mut self,
        batch: Vec<Submission>,
        now: Version,
        completions: &mut Vec<Completion>,
    ) -> Vec<Result<Committed, StoreError>> {
        self.prune(now);
        let version = now.max(Version(self.issued.0.saturating_add(1)));
        let mut data = self.newest();
        let (mut written, mut watches, mut results) = (Vec::new(), Vec::new(), Vec::new());
        let mut order = 0;
        for submission in batch {
            let result = self.validate(&submission).map(|()| {
                let stamp = CommitStamp::new(version, order);
                order = order.saturating_add(1);
                for mutation in &submission.mutations {
                    apply(&mut data, mutation, stamp);
                    let range = mutation.conflict_range(stamp);
                    self.writes.insert(&range, version);
                    written.push(range);
                }
                Committed { version, stamp }
            });
            match &result {
                Ok(_) => watches.extend(submission.watches),
                Err(error) => completions.extend(
                    submission
                        .watches
                        .into_iter()
                        .map(|watch| (watch, Err(error.clone()))),
                ),
            }
            results.push(result);
        }
        self.issued = version;
        self.snapshots.push_back((version, data.clone()));
        let mut changed = Vec::new();
        for range in &written {
            self.watches.take_changed(range, &data, &mut changed);
        }
        changed.extend(
            watches
                .into_iter()
                .filter_map(|watch| self.watches.arm(watch, &data)),
        );
        completions.extend(changed.into_iter().map(|watch| (watch, Ok(()))));
        results
    }

    /// Arms the watches of a transaction that wrote nothing.
    pub(super) fn arm(&mut self, watches: Vec<Watch>, completions: &mut Vec<Completion>) {
        let data = self.newest();
        completions.extend(
            watches
                .into_iter()
                .filter_map(|watch| self.watches.arm(watch, &data))
                .map(|watch| (watch, Ok(()))),
        );
    }

    fn validate(&self, submission: &Submission) -> Result<(), StoreError> {
        let version = submission.read_version;
        self.check_age(version)?;
        let everything = KeyRange::prefix(&[]);
        let changed = submission
            .reads
            .intersecting(&everything)
            .into_iter()
            .find(|range| self.writes.newest(range) > version);
        match changed {
            Some(range) => Err(
                StoreError::new(StoreErrorKind::Conflict).with_context(format!(
                    "a key of {range:?}, read at version {version}, was written since"
                )),
            ),
            None => Ok(()),
        }
    }

    fn check_age(&self, version: Version) -> Result<(), StoreError> {
        if version < self.horizon {
            Err(too_old(
                version,
                &format!("the oldest readable one is {}", self.horizon),
            ))
        } else if version > self.issued {
            Err(too_old(version, "it lies in the future"))
        } else {
            Ok(())
        }
    }

    /// Forgets what is too old to be read. Amortised: each commit is forgotten once.
    fn prune(&mut self, now: Version) {
        let window = u64::try_from(MAX_TRANSACTION_AGE.as_micros()).unwrap_or(u64::MAX);
        let horizon = Version(now.0.saturating_sub(window));
        self.horizon = self.horizon.max(horizon);
        while self
            .snapshots
            .get(1)
            .is_some_and(|(next, _)| *next <= self.horizon)
        {
            self.snapshots.pop_front();
        }
        self.writes.prune(self.horizon);
    }

    fn newest(&self) -> Tree {
        self.snapshots
            .back()
            .map(|(_, data)| data.clone())
            .unwrap_or_default()
    }

    /// How many snapshots, write regions and expiries are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.snapshots.len(), self.writes.len())
    }
}

fn apply(data: &mut Tree, mutation: &Mutation, stamp: CommitStamp) {
    let effect = mutation.effect(stamp, |key| Ok::<_, Infallible>(data.get(key).cloned()));
    match effect {
        Ok(Effect::Put(key, value)) => data.insert(key, value),
        Ok(Effect::Remove(range)) => data.remove(&range),
        Ok(Effect::Nothing) => {}
        Err(never) => match never {},
    }
}

fn too_old(version: Version, why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::TooOld)
        .with_context(format!("version {version} cannot be read: {why}"))
}

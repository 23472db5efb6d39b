//! Retrying dead letters, and deleting them.

use super::{DeadFilter, DeadLetterView, DeadReport};
use crate::admin::Admin;
use crate::admin::error::AdminError;
use crate::admin::page::MAX_DAMAGED;
use crate::admin::purge::MAX_PLANNED;
use crate::admin::state::nudge;
use crate::durable::queue::Pushes;
use crate::durable::{Message, Work, dead};
use crate::id::InstanceId;
use crate::store::{CommitStamp, Stamp, StoreErrorKind, Version};
use std::collections::BTreeSet;

/// How many letters one transaction retries or deletes.
const BATCH: usize = 200;

/// What to do with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Retry,
    Delete,
}

/// What a dry run has chosen.
///
/// A letter has the stamp of its message: one that came later may have an old one. So a bound alone
/// would admit what was not shown, and is taken only where there are too many to be named.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// The version at which it looked.
    until: Option<Version>,
    chosen: BTreeSet<(InstanceId, Stamp)>,
    /// Whether it has chosen more than is named.
    more: bool,
}

impl Plan {
    fn note(&mut self, view: &DeadLetterView) {
        match self.chosen.len() < MAX_PLANNED {
            true => drop(self.chosen.insert(name_of(view))),
            false => self.more = true,
        }
    }

    fn admits(&self, view: &DeadLetterView) -> bool {
        self.more || self.chosen.contains(&name_of(view))
    }
}

fn name_of(view: &DeadLetterView) -> (InstanceId, Stamp) {
    (view.instance.clone(), view.stamp)
}

/// What to do with which of them.
struct Disposal<'a> {
    fate: Fate,
    dry_run: bool,
    plan: Option<&'a Plan>,
}

impl Admin {
    pub(super) async fn dispose_planned(
        &self,
        filter: &DeadFilter,
        fate: Fate,
        planned: &DeadReport,
    ) -> Result<DeadReport, AdminError> {
        let done = self
            .dispose(filter, fate, false, Some(&planned.plan))
            .await?;
        match done.letters {
            0 => Err(AdminError::refused(
                "none of the dead letters that were shown is there any more",
            )),
            _ => Ok(done),
        }
    }

    pub(super) async fn dispose(
        &self,
        filter: &DeadFilter,
        fate: Fate,
        dry_run: bool,
        plan: Option<&Plan>,
    ) -> Result<DeadReport, AdminError> {
        // A letter that was retried and died again has a later stamp, and is not retried for ever.
        let until = match plan.and_then(|plan| plan.until) {
            Some(until) => until,
            None => {
                self.look(|tx| async move { tx.read_version().await })
                    .await?
            }
        };
        let now = self.namespace.incarnation();
        let disposal = Disposal {
            fate,
            dry_run,
            plan,
        };
        let mut report = DeadReport::default();
        report.plan.until = Some(until);
        let mut cursor = None;
        loop {
            let page = self.dead_letters(filter, cursor.as_ref(), BATCH).await?;
            let room = MAX_DAMAGED.saturating_sub(report.damaged.len());
            report.damaged.extend(page.damaged.into_iter().take(room));
            let due: Vec<DeadLetterView> = page
                .items
                .into_iter()
                .filter(|view| version_of(view.stamp) <= until || is_older(view, now))
                .collect();
            for group in due.chunk_by(|a, b| a.instance == b.instance) {
                self.dispose_of(group, &disposal, &mut report).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(report);
            }
        }
    }

    /// Disposes of letters of one instance, in one transaction.
    async fn dispose_of(
        &self,
        group: &[DeadLetterView],
        disposal: &Disposal<'_>,
        report: &mut DeadReport,
    ) -> Result<(), AdminError> {
        const SHOWN: usize = 100;
        let fate = disposal.fate;
        let retried = |view: &&DeadLetterView| fate == Fate::Delete || view.letter.is_ok();
        let planned = |view: &&DeadLetterView| disposal.plan.is_none_or(|plan| plan.admits(view));
        let chosen: Vec<&DeadLetterView> = group.iter().filter(retried).filter(planned).collect();
        let unreadable = group.iter().filter(|view| !retried(view)).count();
        report.unreadable += u64::try_from(unreadable).unwrap_or(u64::MAX);
        let stay = group.iter().filter(|view| !retried(view));
        let room = MAX_DAMAGED.saturating_sub(report.damaged.len());
        let stay = stay.filter_map(|view| view.letter.as_ref().err());
        report.damaged.extend(stay.take(room).cloned());
        let Some(instance) = chosen.first().map(|view| &view.instance) else {
            return Ok(());
        };
        let stamps: Vec<Stamp> = chosen.iter().map(|view| view.stamp).collect();
        let done = match disposal.dry_run {
            true => {
                chosen.iter().for_each(|view| report.plan.note(view));
                stamps
            }
            false => self.move_letters(instance, &stamps, fate).await?,
        };
        let done: Vec<&DeadLetterView> = chosen
            .into_iter()
            .filter(|view| done.contains(&view.stamp))
            .collect();
        report.letters += u64::try_from(done.len()).unwrap_or(u64::MAX);
        let room = SHOWN.saturating_sub(report.shown.len());
        report.shown.extend(done.into_iter().take(room).cloned());
        Ok(())
    }

    async fn move_letters(
        &self,
        instance: &InstanceId,
        stamps: &[Stamp],
        fate: Fate,
    ) -> Result<Vec<Stamp>, AdminError> {
        let namespace = &self.namespace;
        let keys = namespace.keys().instance(instance);
        self.change(|tx| {
            let keys = keys.clone();
            async move {
                let mut letters = Vec::new();
                for stamp in stamps {
                    match dead::read(&tx, &keys, *stamp).await {
                        Ok(None) => {}
                        Ok(Some(letter)) => letters.push((*stamp, Some(letter))),
                        Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                            letters.push((*stamp, None));
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                letters.retain(|(_, letter)| fate == Fate::Delete || letter.is_some());
                if letters.is_empty() {
                    return Ok(Work::Look(Vec::new()));
                }
                if fate == Fate::Retry {
                    // Before the pushes, which make the mark unreadable.
                    nudge(&tx, namespace, &keys).await?;
                }
                let mut pushes = Pushes::new(namespace, &tx);
                let mut done = Vec::with_capacity(letters.len());
                for (stamp, letter) in letters {
                    dead::remove(&tx, &keys, stamp);
                    if let (Fate::Retry, Some(letter)) = (fate, letter) {
                        let message = Message {
                            call: None,
                            failed: None,
                            ..letter.message
                        };
                        pushes.push(instance, letter.lane, &message)?;
                    }
                    done.push(stamp);
                }
                Ok(Work::Write(done))
            }
        })
        .await
    }
}

/// Whether a letter's stamp is of another store, which says nothing about this one's versions. What
/// cannot be read is never retried.
fn is_older(view: &DeadLetterView, incarnation: u32) -> bool {
    let letter = view.letter.as_ref();
    letter.map_or(true, |letter| letter.incarnation < incarnation)
}

fn version_of(stamp: Stamp) -> Version {
    let (commit, _) = stamp
        .as_bytes()
        .split_first_chunk()
        .unwrap_or((&[0; CommitStamp::LEN], &[]));
    CommitStamp::from_bytes(*commit).version()
}

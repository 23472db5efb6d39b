//! Checking every invariant of a namespace, and mending what is safe.
//!
//! The check is read-only and goes on in pages, each of them one transaction: what must agree with
//! each other (a mailbox and its length, say) is read in one, so nodes that work meanwhile cause no
//! finding. Three parts follow each other: every key and value for itself; every instance, its parts
//! compared; every ready mark and directory entry.
//!
//! Of sessions only those are findings that have no heartbeat and replies all the same; whether one
//! with a heartbeat lives no single look can tell, and nodes sweep the dead ones.

mod fix;
mod instance;
mod rows;

use super::Admin;
use super::error::AdminError;
use super::page::{Cursor, Page, Place};
use super::walk::{Found, Walk};
use crate::durable::{directory, ready, state};
use crate::id::InstanceId;
use crate::store::{KeyRange, StoreError, StoreErrorKind, Tx};
use bytes::Bytes;

/// How many instances, marks or entries one transaction checks.
const PAGE: usize = 50;

/// What is wrong, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingCode {
    /// A key that abide does not write, or under the number of another shard.
    ForeignKey,
    /// A value that cannot be read.
    UndecodableValue,
    /// A record that cannot be read, and that can be written anew without losing a message or a
    /// state: attempts, a directory entry, a ready mark, a wake counter.
    UndecodableRecord,
    /// A value of which chunks are missing.
    IncompleteChunks,
    /// Chunks without the first of their value.
    OrphanedChunks,
    /// A ready mark of an instance that has neither messages nor a lock.
    MarkOverNothing,
    /// Messages, or a lock, without a ready mark: no node will look at them.
    MissingMark,
    /// The mailbox's length is not the number of its messages.
    WrongLength,
    /// The mailbox is so long that its length was not checked.
    LengthNotChecked,
    /// A record of attempts at a message that is not at the head.
    StaleAttempts,
    /// State leaves without a version: the next turn would begin a new state among them.
    LeavesWithoutVersion,
    /// A version without a state's first leaf.
    VersionWithoutLeaves,
    /// A state that the directory does not list.
    StateWithoutEntry,
    /// A directory entry of an instance that has no state.
    EntryWithoutState,
    /// Replies for a session that is gone.
    RepliesOfAbsentSession,
    /// An import that has not come to its end.
    UnfinishedImport,
}

impl FindingCode {
    /// The name, as tools show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ForeignKey => "foreign-key",
            Self::UndecodableValue => "undecodable-value",
            Self::UndecodableRecord => "undecodable-record",
            Self::IncompleteChunks => "incomplete-chunks",
            Self::OrphanedChunks => "orphaned-chunks",
            Self::MarkOverNothing => "mark-over-nothing",
            Self::MissingMark => "missing-mark",
            Self::WrongLength => "wrong-length",
            Self::LengthNotChecked => "length-not-checked",
            Self::StaleAttempts => "stale-attempts",
            Self::LeavesWithoutVersion => "leaves-without-version",
            Self::VersionWithoutLeaves => "version-without-leaves",
            Self::StateWithoutEntry => "state-without-entry",
            Self::EntryWithoutState => "entry-without-state",
            Self::RepliesOfAbsentSession => "replies-of-absent-session",
            Self::UnfinishedImport => "unfinished-import",
        }
    }

    /// Whether [`Admin::fix`] mends it without losing anything.
    #[must_use]
    pub fn is_fixable(self) -> bool {
        matches!(
            self,
            Self::UndecodableRecord
                | Self::MarkOverNothing
                | Self::MissingMark
                | Self::WrongLength
                | Self::StaleAttempts
                | Self::StateWithoutEntry
                | Self::EntryWithoutState
                | Self::RepliesOfAbsentSession
        )
    }
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub code: FindingCode,
    /// The key that shows it.
    pub key: Bytes,
    /// Whose it is, where that is known.
    pub instance: Option<InstanceId>,
    /// What it means, and what to do, in a sentence.
    pub explanation: String,
}

impl Finding {
    fn new(code: FindingCode, key: impl Into<Bytes>, explanation: impl Into<String>) -> Self {
        Self {
            code,
            key: key.into(),
            instance: None,
            explanation: explanation.into(),
        }
    }

    fn of(self, instance: &InstanceId) -> Self {
        Self {
            instance: Some(instance.clone()),
            ..self
        }
    }

    /// Whether [`Admin::fix`] mends it.
    #[must_use]
    pub fn is_fixable(&self) -> bool {
        self.code.is_fixable()
    }
}

/// The parts of the check.
const ROWS: u8 = 0;
const INSTANCES: u8 = 1;
const MARKS: u8 = 2;
const ENTRIES: u8 = 3;

/// What a page of the check came to.
type Checked = (Vec<Finding>, Option<Place>);

impl Admin {
    /// Checks the next part of the namespace: begin without a cursor, go on until there is none.
    /// Pages may be empty. What is wrong is in [`Page::items`]; [`Page::damaged`] stays empty.
    ///
    /// A namespace of a newer layout, or without a readable description, cannot be
    /// [opened](Admin::open) in the first place.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn doctor(&self, cursor: Option<&Cursor>) -> Result<Page<Finding>, AdminError> {
        let begin = cursor.map(|cursor| cursor.0.clone()).unwrap_or_default();
        let checked = self.look(|tx| {
            let begin = begin.clone();
            async move {
                match begin.part {
                    ROWS => self.check_rows(&tx, &begin).await,
                    INSTANCES => self.check_instances(&tx, &begin).await,
                    MARKS => self.check_marks(&tx, &begin).await,
                    _ => self.check_entries(&tx, &begin).await,
                }
            }
        });
        let (items, next) = checked.await?;
        Ok(Page {
            items,
            damaged: Vec::new(),
            next: next.map(Cursor),
        })
    }

    async fn check_rows(&self, tx: &Tx, begin: &Place) -> Result<Checked, StoreError> {
        let (findings, rest) = rows::check(tx, &self.namespace, begin).await?;
        let next = match rest {
            Some(key) => Place {
                part: ROWS,
                key: key.to_vec(),
                ..Place::default()
            },
            None => Walk::new(self.namespace.keys(), None).place(INSTANCES),
        };
        Ok((findings, Some(next)))
    }

    async fn check_instances(&self, tx: &Tx, begin: &Place) -> Result<Checked, StoreError> {
        let mut walk = Walk::at(self.namespace.keys(), None, begin);
        let mut findings = Vec::new();
        // Instances with long mailboxes take long: the fewer of them in one transaction.
        let mut budget = instance::MAX_ROWS;
        for _ in 0..PAGE {
            match walk.next(tx).await? {
                Some(Found::Instance(found)) => {
                    let rows = instance::check(tx, &self.namespace, &found, &mut findings).await?;
                    budget = budget.saturating_sub(rows);
                }
                // The check of the rows has named it.
                Some(Found::Foreign(_)) => {}
                None => {
                    let next = Place {
                        part: MARKS,
                        ..Place::default()
                    };
                    return Ok((findings, Some(next)));
                }
            }
            if budget == 0 {
                break;
            }
        }
        Ok((findings, Some(walk.place(INSTANCES))))
    }

    async fn check_marks(&self, tx: &Tx, begin: &Place) -> Result<Checked, StoreError> {
        let keys = self.namespace.keys();
        if begin.shard >= keys.shards() {
            let next = Place {
                part: ENTRIES,
                ..Place::default()
            };
            return Ok((Vec::new(), Some(next)));
        }
        let range = begin.rest_of(keys.ready_of(begin.shard));
        let marks = ready::read_marks(tx, &self.namespace, range, PAGE).await?;
        let mut findings = Vec::new();
        for (marked, _) in &marks.instances {
            let of = keys.instance(marked);
            if super::purge::is_idle(tx, &of).await? {
                let finding = Finding::new(
                    FindingCode::MarkOverNothing,
                    of.ready().clone(),
                    "the instance is marked ready, and has neither messages nor a lock; nodes look \
                     at it in vain",
                );
                findings.push(finding.of(marked));
            }
        }
        let next = Place {
            part: MARKS,
            shard: begin.shard + u32::from(marks.next.is_none()),
            key: key_of(marks.next),
            instance: None,
        };
        Ok((findings, Some(next)))
    }

    async fn check_entries(&self, tx: &Tx, begin: &Place) -> Result<Checked, StoreError> {
        let keys = self.namespace.keys();
        let range = begin.rest_of(keys.directory_of(None));
        let page = directory::list(tx, keys, range, PAGE).await?;
        let mut findings = Vec::new();
        for entry in &page.entries {
            let of = keys.instance(entry);
            let version = state::read_version(tx, &of).await;
            match version {
                Ok(None) => {
                    let finding = Finding::new(
                        FindingCode::EntryWithoutState,
                        keys.directory(entry),
                        "the directory lists an instance that has no state",
                    );
                    findings.push(finding.of(entry));
                }
                Ok(Some(_)) => {}
                Err(error) if error.kind() == StoreErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        let next = page.next.map(|rest| Place {
            part: ENTRIES,
            key: rest.begin.to_vec(),
            ..Place::default()
        });
        Ok((findings, next))
    }
}

fn key_of(rest: Option<KeyRange>) -> Vec<u8> {
    rest.map(|rest| rest.begin.to_vec()).unwrap_or_default()
}

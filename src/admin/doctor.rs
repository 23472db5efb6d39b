//! Checking every invariant of a namespace, and mending what is safe.
//!
//! The check is read-only and goes on in pages, each of them one transaction: what must agree with
//! each other (a mailbox and its length, say) is read in one, so nodes that work meanwhile cause no
//! finding. Three parts follow each other: every key and value for itself; every instance, its parts
//! compared; every ready mark and directory entry.
//!
//! Of sessions only those are findings that have no heartbeat and something else all the same; whether one
//! with a heartbeat lives no single look can tell, and nodes sweep the dead ones.

mod finding;
mod fix;
mod instance;
mod rows;

use super::Admin;
use super::error::AdminError;
use super::page::{Cursor, Page, Place, what_is_wrong};
use super::walk::{Found, Walk};
use crate::durable::keys::Keys;
use crate::durable::{Namespace, directory, ready, state};
use crate::store::{Database, KeyRange, StoreError, StoreErrorKind, Tx};
pub use finding::{Finding, FindingCode};

/// How many instances, marks or entries one transaction checks.
const PAGE: usize = 50;

/// The parts of the check.
const ROWS: u8 = 0;
const INSTANCES: u8 = 1;
const MARKS: u8 = 2;
const ENTRIES: u8 = 3;

/// What a page of the check came to.
type Checked = (Vec<Finding>, Option<Place>);

impl Admin {
    /// Says why a namespace that is there cannot be [opened](Admin::open), if its own description is
    /// the reason. None of what that holds can be checked then.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn diagnose(
        database: &Database,
        namespace: &str,
    ) -> Result<Option<Finding>, AdminError> {
        let Err(error) = Namespace::find(database, namespace).await else {
            return Ok(None);
        };
        let code = match error.kind() {
            StoreErrorKind::Corrupt => FindingCode::UndecodableValue,
            StoreErrorKind::InvalidStore => FindingCode::OtherLayout,
            _ => return Err(error.into()),
        };
        // The description's key does not depend on the number of shards, which only that tells.
        let key = Keys::new(Keys::namespace_prefix(namespace), 1).meta();
        let text = what_is_wrong(&key, &error);
        Ok(Some(Finding::new(code, key, text)))
    }

    /// Checks the next part of the namespace: begin without a cursor, go on until there is none.
    /// Pages may be empty. What is wrong is in [`Page::items`]; [`Page::damaged`] stays empty.
    ///
    /// A namespace of another layout, or without a readable description, cannot be
    /// [opened](Admin::open) in the first place: see [`diagnose`](Admin::diagnose).
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
                    let next = Place::part(MARKS);
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
            let next = Place::part(ENTRIES);
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

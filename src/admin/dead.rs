//! Dead letters: looking at them, having them handled again, deleting them.

use super::Admin;
use super::error::AdminError;
use super::page::{Cursor, Damage, Page, Place};
use super::state::nudge;
use super::views::MessageView;
use super::walk::{Found, Walk};
use crate::durable::dead::{self, DeadLetter};
use crate::durable::keys::Lane;
use crate::durable::queue::Pushes;
use crate::durable::{Message, Work};
use crate::id::InstanceId;
use crate::store::{CommitStamp, KeyRange, Stamp, StoreError, StoreErrorKind, Tx, Version, after};

/// How many instances one transaction looks at for their letters.
const STEPS: usize = 200;

/// How many bytes of letters a page holds, but for a single one that is larger.
const PAGE_BYTES: usize = 1_000_000;

/// How many letters one transaction retries or deletes.
const BATCH: usize = 200;

/// Which dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// Only those of instances of this kind.
    pub kind: Option<String>,
    /// Only those of this instance.
    pub instance: Option<InstanceId>,
    /// Only the one with this stamp.
    pub stamp: Option<Stamp>,
    /// Only those that were given up before this time, in milliseconds since 1970.
    pub dead_before_ms: Option<u64>,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct DeadLetterView {
    /// The instance that it was for.
    pub instance: InstanceId,
    /// The stamp that the message had, which names the letter.
    pub stamp: Stamp,
    /// What is known of it, or why it cannot be read: it can be deleted all the same.
    pub letter: Result<Letter, Damage>,
}

/// What is known of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The message.
    pub message: MessageView,
    /// The mailbox that it stood in.
    pub lane: Lane,
    /// The namespace's incarnation when it was pushed.
    pub incarnation: u32,
    /// What the last failure said.
    pub error: String,
    /// How many attempts failed.
    pub attempts: u32,
    /// When the first attempt failed, in milliseconds since 1970.
    pub first_failed_ms: u64,
    /// When it was given up, in milliseconds since 1970.
    pub dead_ms: u64,
}

impl From<&DeadLetter> for Letter {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            message: (&letter.message).into(),
            lane: letter.lane,
            incarnation: letter.incarnation,
            error: letter.error.clone(),
            attempts: letter.attempts,
            first_failed_ms: letter.first_failed_ms,
            dead_ms: letter.dead_ms,
        }
    }
}

/// What was done to dead letters, or would be.
#[derive(Debug, Clone, Default)]
pub struct DeadReport {
    /// How many were retried or deleted.
    pub letters: u64,
    /// How many stay because they cannot be read and so cannot be retried.
    pub unreadable: u64,
    /// The first 100 of them.
    pub shown: Vec<DeadLetterView>,
}

/// What to do with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Retry,
    Delete,
}

/// A listing under way.
struct Listing {
    walk: Option<Walk>,
    current: Option<(InstanceId, KeyRange)>,
}

impl Admin {
    /// Lists dead letters, those of an instance oldest first: about `limit`, and a megabyte.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn dead_letters(
        &self,
        filter: &DeadFilter,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetterView>, AdminError> {
        let limit = limit.clamp(1, super::MAX_PAGE);
        let begin = cursor.map(|cursor| &cursor.0);
        let at = begin.map(Place::instance).transpose()?.flatten();
        self.look(|tx| {
            let listing = self.listing(filter, begin, at.as_ref());
            async move { self.list(&tx, filter, listing, limit).await }
        })
        .await
    }

    /// One dead letter.
    ///
    /// # Errors
    ///
    /// [`NotFound`](super::AdminErrorKind::NotFound); whatever the store answers.
    pub async fn dead_letter(
        &self,
        instance: &InstanceId,
        stamp: Stamp,
    ) -> Result<DeadLetterView, AdminError> {
        let filter = DeadFilter {
            instance: Some(instance.clone()),
            stamp: Some(stamp),
            ..DeadFilter::default()
        };
        let page = self.dead_letters(&filter, None, 1).await?;
        page.items
            .into_iter()
            .next()
            .ok_or_else(|| AdminError::not_found(format!("{instance} has no dead letter {stamp}")))
    }

    /// Puts dead letters back into their mailboxes, behind what stands there and in their order, with
    /// no attempts counted. Their callers were told long ago and are told nothing more.
    ///
    /// Letters that come while this goes on are left alone.
    ///
    /// # Errors
    ///
    /// Whatever the store answers; what was done until then stays done.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the outcome of the last transaction unknown.
    pub async fn retry_dead(
        &self,
        filter: &DeadFilter,
        dry_run: bool,
    ) -> Result<DeadReport, AdminError> {
        self.dispose(filter, Fate::Retry, dry_run).await
    }

    /// Deletes dead letters, readable or not.
    ///
    /// # Errors
    ///
    /// As [`retry_dead`](Self::retry_dead).
    ///
    /// # Cancel safety
    ///
    /// As [`retry_dead`](Self::retry_dead).
    pub async fn purge_dead(
        &self,
        filter: &DeadFilter,
        dry_run: bool,
    ) -> Result<DeadReport, AdminError> {
        self.dispose(filter, Fate::Delete, dry_run).await
    }

    fn listing(
        &self,
        filter: &DeadFilter,
        begin: Option<&Place>,
        at: Option<&InstanceId>,
    ) -> Listing {
        let keys = self.namespace.keys();
        let letters = |instance: &InstanceId| {
            let keys = keys.instance(instance);
            let all = match filter.stamp {
                Some(stamp) => KeyRange::new(
                    keys.dead_letter(stamp, 0),
                    after(&keys.dead_letter(stamp, u32::MAX)),
                ),
                None => keys.dead_letters(),
            };
            (instance.clone(), all)
        };
        if let Some(instance) = &filter.instance {
            let (instance, all) = letters(instance);
            let rest = begin.map_or_else(|| all.clone(), |begin| begin.rest_of(all.clone()));
            return Listing {
                walk: None,
                current: Some((instance, rest)),
            };
        }
        let kind = filter.kind.as_deref();
        let Some(begin) = begin else {
            return Listing {
                walk: Some(Walk::new(keys, kind)),
                current: None,
            };
        };
        let mut walk = Walk::at(keys, kind, begin);
        let current = at.map(|instance| {
            let (instance, all) = letters(instance);
            let behind = Place {
                key: keys.instance(&instance).all().end.to_vec(),
                ..begin.clone()
            };
            walk = Walk::at(keys, kind, &behind);
            (instance, begin.rest_of(all))
        });
        Listing {
            walk: Some(walk),
            current,
        }
    }

    async fn list(
        &self,
        tx: &Tx,
        filter: &DeadFilter,
        mut listing: Listing,
        limit: usize,
    ) -> Result<Page<DeadLetterView>, StoreError> {
        let namespace = &self.namespace;
        let mut page = Page {
            items: Vec::new(),
            damaged: Vec::new(),
            next: None,
        };
        let mut bytes = PAGE_BYTES;
        for _ in 0..STEPS {
            if page.items.len() + page.damaged.len() >= limit || bytes == 0 {
                break;
            }
            if let Some((instance, range)) = listing.current.take() {
                let keys = namespace.keys().instance(&instance);
                let rows = limit - page.items.len();
                let read = dead::list(tx, namespace, &keys, range.clone(), rows, bytes);
                let letters = match read.await {
                    Ok(letters) => letters,
                    Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                        let first = tx.get_range(range.read().limit(1).snapshot()).await?;
                        let Some(first) = first.into_iter().next() else {
                            return Err(error);
                        };
                        let rest = KeyRange::new(after(&first.key), range.end);
                        page.damaged.push(Damage::new(first.key, &error));
                        listing.current = Some((instance, rest));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let views = letters.letters.into_iter().map(|(stamp, letter)| {
                    let key = keys.dead_letter(stamp, 0);
                    DeadLetterView {
                        instance: instance.clone(),
                        stamp,
                        letter: match letter {
                            Ok(letter) => Ok((&letter).into()),
                            Err(error) => Err(Damage::new(key, &error)),
                        },
                    }
                });
                let before = page.items.len();
                page.items.extend(views.filter(|view| admits(filter, view)));
                if page.items.len() > before {
                    bytes /= 2;
                }
                listing.current = letters.next.map(|rest| (instance, rest));
                continue;
            }
            let found = match &mut listing.walk {
                Some(walk) => walk.next(tx).await?,
                None => None,
            };
            match found {
                Some(Found::Instance(instance)) => {
                    let range = namespace.keys().instance(&instance).dead_letters();
                    listing.current = Some((instance, range));
                }
                Some(Found::Foreign(key)) => page.damaged.push(Damage::foreign(key)),
                None => return Ok(page),
            }
        }
        let mut place = match &listing.walk {
            Some(walk) => walk.place(0),
            None if listing.current.is_none() => return Ok(page),
            None => Place::default(),
        };
        if let Some((instance, rest)) = &listing.current {
            place.key = rest.begin.to_vec();
            place.instance = Place::of(instance);
        }
        page.next = Some(Cursor(place));
        Ok(page)
    }

    async fn dispose(
        &self,
        filter: &DeadFilter,
        fate: Fate,
        dry_run: bool,
    ) -> Result<DeadReport, AdminError> {
        // A letter that was retried and died again has a later stamp, and is not retried for ever.
        let until = self
            .look(|tx| async move { tx.read_version().await })
            .await?;
        let mut report = DeadReport::default();
        let mut cursor = None;
        loop {
            let page = self.dead_letters(filter, cursor.as_ref(), BATCH).await?;
            let due: Vec<DeadLetterView> = page
                .items
                .into_iter()
                .filter(|view| version_of(view.stamp) <= until)
                .collect();
            for group in due.chunk_by(|a, b| a.instance == b.instance) {
                self.dispose_of(group, fate, dry_run, &mut report).await?;
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
        fate: Fate,
        dry_run: bool,
        report: &mut DeadReport,
    ) -> Result<(), AdminError> {
        const SHOWN: usize = 100;
        let retried = |view: &&DeadLetterView| fate == Fate::Delete || view.letter.is_ok();
        let chosen: Vec<&DeadLetterView> = group.iter().filter(retried).collect();
        report.unreadable += u64::try_from(group.len() - chosen.len()).unwrap_or(u64::MAX);
        let Some(instance) = chosen.first().map(|view| &view.instance) else {
            return Ok(());
        };
        let stamps: Vec<Stamp> = chosen.iter().map(|view| view.stamp).collect();
        let done = match dry_run {
            true => stamps,
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

fn admits(filter: &DeadFilter, view: &DeadLetterView) -> bool {
    let by_stamp = filter.stamp.is_none_or(|stamp| stamp == view.stamp);
    let by_age = match (filter.dead_before_ms, &view.letter) {
        (Some(time), Ok(letter)) => letter.dead_ms < time,
        (Some(_), Err(_)) => false,
        (None, _) => true,
    };
    let by_kind = filter
        .kind
        .as_deref()
        .is_none_or(|kind| kind == view.instance.kind());
    by_stamp && by_age && by_kind
}

fn version_of(stamp: Stamp) -> Version {
    let (commit, _) = stamp
        .as_bytes()
        .split_first_chunk()
        .unwrap_or((&[0; CommitStamp::LEN], &[]));
    CommitStamp::from_bytes(*commit).version()
}

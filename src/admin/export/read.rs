//! Reading what an instance has, a transaction's worth at a time.
//!
//! What fits in one transaction is of one moment. More is, too: every transaction looks whether what
//! shows that the instance [went on](fingerprint) is as it was, which covers the state, the lock and
//! the heads. An operator may move messages to the dead letters and back without touching those. So
//! the mailboxes, as far as they were read, and the dead letters are gone through once more at the end.
//! If the same keys come, then all of them stood there together when the first round ended: messages
//! and letters never change, and none comes back under a stamp that it had.

use crate::admin::Admin;
use crate::admin::foreign::{read_letters, read_messages};
use crate::admin::page::{Damage, Place, or_damage};
use crate::admin::record::Body;
use crate::durable::keys::{InstanceKeys, Lane};
use crate::durable::{Message, directory, lock, pause, state};
use crate::id::InstanceId;
use crate::store::{KeyRange, StoreError, TransactionExt, Tx};
use bytes::Bytes;
use futures_util::future::try_join;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How much one transaction reads of mailboxes and dead letters.
const ROWS: usize = 1_000;
const BYTES: usize = 2_000_000;

/// How many bytes of a state one transaction reads: what is below is of one moment however busy its
/// server is, and far below what five seconds allow.
const STATE_BYTES: usize = 8_000_000;

/// An instance of which not all was read.
#[derive(Debug, Clone)]
pub(super) struct Within {
    pub(super) instance: InstanceId,
    part: Part,
    rest: KeyRange,
    /// What tells whether it went on since its first part was read; nothing before that.
    seen: Vec<Option<Bytes>>,
    round: Round,
    /// Where the walk goes on behind it.
    pub(super) then: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    State,
    Mailbox(Lane),
    Letters,
}

/// A round through the mailboxes and the dead letters.
#[derive(Debug, Clone, Default)]
struct Round {
    /// Of the keys of all messages and letters, in their order.
    digest: u64,
    /// Where the mailboxes ended in the first round: what is pushed later is not exported.
    ends: Vec<(Lane, Bytes)>,
    /// What the first round came to, in the second one.
    expected: Option<u64>,
}

impl Round {
    fn is_second(&self) -> bool {
        self.expected.is_some()
    }

    fn met(&mut self, key: &[u8]) {
        self.digest = xxh3_64_with_seed(key, self.digest);
    }

    fn mailbox(&self, keys: &InstanceKeys, lane: Lane) -> KeyRange {
        let all = keys.mailbox(lane);
        let end = self.ends.iter().rev().find(|(of, _)| *of == lane);
        match end {
            Some((_, end)) => KeyRange::new(all.begin, end.clone()),
            None if self.is_second() => KeyRange::new(all.begin.clone(), all.begin),
            None => all,
        }
    }
}

impl Within {
    /// An instance of which nothing was read yet.
    pub(super) fn new(instance: InstanceId, all: KeyRange, then: Option<Place>) -> Self {
        Self {
            instance,
            part: Part::State,
            rest: all,
            seen: Vec::new(),
            round: Round::default(),
            then,
        }
    }
}

pub(super) enum Next {
    /// The instance went on meanwhile.
    Changed,
    More(Box<Within>),
    Whole,
}

/// What one transaction has read, and may still read.
struct Page {
    bodies: Vec<Body>,
    damaged: Vec<Damage>,
    rows: usize,
    bytes: usize,
}

impl Admin {
    pub(super) async fn read_on(
        &self,
        tx: &Tx,
        mut within: Within,
    ) -> Result<(Vec<Body>, Next, Vec<Damage>), StoreError> {
        let keys = self.namespace.keys().instance(&within.instance);
        let mut page = Page {
            bodies: Vec::new(),
            damaged: Vec::new(),
            rows: ROWS,
            bytes: BYTES,
        };
        let seen = fingerprint(tx, &keys).await?;
        let is_first = within.seen.is_empty();
        if is_first {
            self.read_head(tx, &within.instance, &keys, &mut page)
                .await?;
            within.seen = seen;
            within.rest = keys.state();
        } else if within.seen != seen {
            return Ok((Vec::new(), Next::Changed, Vec::new()));
        }
        while page.rows > 0 && page.bytes > 0 {
            let next = match within.part {
                Part::State => read_state(tx, &keys, &within, &mut page).await?,
                Part::Mailbox(lane) => {
                    read_mailbox(tx, &keys, lane, &mut within, &mut page).await?
                }
                Part::Letters => self.read_dead(tx, &keys, &mut within, &mut page).await?,
            };
            let part = match (next, within.part) {
                (Some(rest), _) => {
                    within.rest = rest;
                    continue;
                }
                (None, Part::State) => {
                    read_locked(tx, &keys, &mut page).await?;
                    Part::Mailbox(Lane::Priority)
                }
                (None, Part::Mailbox(Lane::Priority)) => Part::Mailbox(Lane::Ordinary),
                (None, Part::Mailbox(Lane::Ordinary)) => Part::Letters,
                (None, Part::Letters) => match within.round.expected {
                    Some(expected) if expected != within.round.digest => {
                        return Ok((Vec::new(), Next::Changed, Vec::new()));
                    }
                    None if !is_first => {
                        within.round.expected = Some(within.round.digest);
                        within.round.digest = 0;
                        Part::Mailbox(Lane::Priority)
                    }
                    Some(_) | None => {
                        page.bodies.push(Body::InstanceEnd);
                        return Ok((page.bodies, Next::Whole, page.damaged));
                    }
                },
            };
            within.rest = match part {
                Part::State => keys.state(),
                Part::Mailbox(lane) => within.round.mailbox(&keys, lane),
                Part::Letters => keys.dead_letters(),
            };
            within.part = part;
        }
        Ok((page.bodies, Next::More(Box::new(within)), page.damaged))
    }

    /// Who it is, and whether it is paused.
    async fn read_head(
        &self,
        tx: &Tx,
        instance: &InstanceId,
        keys: &InstanceKeys,
        page: &mut Page,
    ) -> Result<(), StoreError> {
        let (all, damaged) = (self.namespace.keys(), &mut page.damaged);
        let version = state::read_version(tx, keys).await;
        let version = or_damage(version, &keys.version(), damaged)?.flatten();
        let created = directory::read(tx, all, instance).await;
        let created = or_damage(created, &all.directory(instance), damaged)?.flatten();
        let paused = pause::read_at(tx, keys.paused()).await;
        let paused = or_damage(paused, &keys.paused(), damaged)?.flatten();
        page.bodies.push(Body::Instance {
            kind: instance.kind().to_owned(),
            id: instance.id().to_owned(),
            created_ms: created,
            schema: version.map(|version| version.schema),
        });
        page.bodies
            .extend(paused.map(|pause| Body::Paused { pause }));
        Ok(())
    }

    /// Reads dead letters on. What is left of them, if there is anything.
    async fn read_dead(
        &self,
        tx: &Tx,
        keys: &InstanceKeys,
        within: &mut Within,
        page: &mut Page,
    ) -> Result<Option<KeyRange>, StoreError> {
        let range = within.rest.clone();
        let read = read_letters(tx, &self.namespace, keys, range, page.rows, page.bytes);
        let (letters, foreign) = read.await?;
        page.rows = page.rows.saturating_sub(foreign.len());
        let is_second = within.round.is_second();
        let mut damaged = foreign;
        for (stamp, letter) in letters.letters {
            page.rows = page.rows.saturating_sub(1);
            let key = keys.dead_letter(stamp, 0);
            within.round.met(&key);
            if let Some(mut letter) = or_damage(letter, &key, &mut damaged)? {
                let bytes = letter.message.payload.len() + 200;
                page.bytes = page.bytes.saturating_sub(bytes);
                letter.message.call = None;
                page.bodies
                    .extend((!is_second).then_some(Body::Dead(letter)));
            }
        }
        if !is_second {
            page.damaged.extend(damaged);
        }
        Ok(letters.next)
    }
}

/// Reads the state on: its leaves, if it has a version that can be read.
async fn read_state(
    tx: &Tx,
    keys: &InstanceKeys,
    within: &Within,
    page: &mut Page,
) -> Result<Option<KeyRange>, StoreError> {
    let range = within.rest.clone();
    let ((leaves, damage), rest) = state::salvage_some(tx, keys, range, STATE_BYTES).await?;
    let damage = damage.into_iter();
    let damage = damage.map(|(key, error)| Damage::new(key, &error));
    page.damaged.extend(damage);
    let version = within.seen.first().and_then(Option::as_ref);
    if version.is_some_and(|version| state::decode_version(&keys.version(), version).is_ok()) {
        page.bodies
            .extend(leaves.into_iter().map(|(path, bytes)| Body::Leaf {
                path: path.as_tuple().to_vec(),
                bytes: bytes.to_vec(),
            }));
    }
    if rest.is_some() {
        page.bytes = 0;
    }
    Ok(rest)
}

/// Reads the message under the lock, which stands before all others of its mailbox.
async fn read_locked(tx: &Tx, keys: &InstanceKeys, page: &mut Page) -> Result<(), StoreError> {
    let held = lock::read_lock(tx, keys).await;
    if let Some(held) = or_damage(held, &keys.lock(), &mut page.damaged)?.flatten() {
        let message = lock::read_message(tx, keys).await;
        let message = or_damage(message, &keys.lock_message_chunk(0), &mut page.damaged)?;
        page.bodies
            .extend(message.map(|message| message_body(held.lane, message)));
    }
    Ok(())
}

/// Reads a mailbox on. What is left of it, if there is anything.
async fn read_mailbox(
    tx: &Tx,
    keys: &InstanceKeys,
    lane: Lane,
    within: &mut Within,
    page: &mut Page,
) -> Result<Option<KeyRange>, StoreError> {
    let range = within.rest.clone();
    let read = read_messages(tx, keys, lane, range, page.rows, page.bytes);
    let (head, foreign) = read.await?;
    let is_second = within.round.is_second();
    let mut damaged = foreign;
    for queued in head.messages {
        page.rows = page.rows.saturating_sub(1);
        page.bytes = page.bytes.saturating_sub(queued.bytes);
        within.round.met(&queued.span.begin);
        if !is_second {
            within.round.ends.retain(|(of, _)| *of != lane);
            within.round.ends.push((lane, queued.span.end));
        }
        let key = queued.span.begin;
        if let Some(message) = or_damage(queued.message, &key, &mut damaged)? {
            let body = message_body(lane, message);
            page.bodies.extend((!is_second).then_some(body));
        }
    }
    if !is_second {
        page.damaged.extend(damaged);
    }
    Ok(head.more.then_some(head.rest))
}

fn message_body(lane: Lane, message: Message) -> Body {
    Body::Message {
        lane,
        message: Message {
            call: None,
            ..message
        },
    }
}

/// What changes when an instance goes on: the state's version, the lock, and what stands at the heads.
/// The version comes first.
async fn fingerprint(tx: &Tx, keys: &InstanceKeys) -> Result<Vec<Option<Bytes>>, StoreError> {
    let (version, lock) = (tx.peek(&keys.version()), tx.peek(&keys.lock()));
    let (version, lock) = try_join(version, lock).await?;
    let mut seen = vec![version, lock];
    for lane in [Lane::Priority, Lane::Ordinary] {
        let first = keys.mailbox(lane).read().limit(1).snapshot();
        let first = tx.get_range(first).await?;
        seen.push(first.into_iter().next().map(|row| row.key));
    }
    Ok(seen)
}

//! Reading what an instance has, a transaction's worth at a time.

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

/// How much one transaction reads of mailboxes and dead letters.
const ROWS: usize = 1_000;
const BYTES: usize = 2_000_000;

/// An instance of which not all was read.
#[derive(Debug, Clone)]
pub(super) struct Within {
    pub(super) instance: InstanceId,
    pub(super) part: Part,
    pub(super) rest: KeyRange,
    /// What tells whether it went on since its first part was read.
    pub(super) seen: Vec<Option<Bytes>>,
    /// Where the walk goes on behind it.
    pub(super) then: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Mailbox(Lane),
    Letters,
}

impl Within {
    /// An instance of which nothing was read yet.
    pub(super) fn new(instance: InstanceId, all: KeyRange, then: Option<Place>) -> Self {
        Self {
            instance,
            part: Part::Mailbox(Lane::Priority),
            rest: all,
            seen: Vec::new(),
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

impl Admin {
    pub(super) async fn read_on(
        &self,
        tx: &Tx,
        mut within: Within,
    ) -> Result<(Vec<Body>, Next, Vec<Damage>), StoreError> {
        let namespace = &self.namespace;
        let keys = namespace.keys().instance(&within.instance);
        let (mut bodies, mut damaged) = (Vec::new(), Vec::new());
        let seen = fingerprint(tx, &keys).await?;
        if within.seen.is_empty() {
            bodies = self
                .read_head(tx, &within.instance, &keys, &mut damaged)
                .await?;
            within.seen = seen;
            within.rest = keys.mailbox(Lane::Priority);
        } else if within.seen != seen {
            return Ok((bodies, Next::Changed, damaged));
        }
        let (mut rows, mut bytes) = (ROWS, BYTES);
        while rows > 0 && bytes > 0 {
            let range = within.rest.clone();
            let next = match within.part {
                Part::Mailbox(lane) => {
                    let read = read_messages(tx, &keys, lane, range, rows, bytes);
                    let (head, foreign) = read.await?;
                    damaged.extend(foreign);
                    for queued in head.messages {
                        rows = rows.saturating_sub(1);
                        bytes = bytes.saturating_sub(queued.bytes);
                        let key = queued.span.begin.clone();
                        if let Some(message) = or_damage(queued.message, &key, &mut damaged)? {
                            bodies.push(message_body(lane, message));
                        }
                    }
                    head.more.then_some(head.rest)
                }
                Part::Letters => {
                    let read = read_letters(tx, namespace, &keys, range, rows, bytes);
                    let (letters, foreign) = read.await?;
                    rows = rows.saturating_sub(foreign.len());
                    damaged.extend(foreign);
                    for (stamp, letter) in letters.letters {
                        rows = rows.saturating_sub(1);
                        let key = keys.dead_letter(stamp, 0);
                        if let Some(mut letter) = or_damage(letter, &key, &mut damaged)? {
                            bytes = bytes.saturating_sub(letter.message.payload.len() + 200);
                            letter.message.call = None;
                            bodies.push(Body::Dead(letter));
                        }
                    }
                    letters.next
                }
            };
            match (next, within.part) {
                (Some(rest), _) => within.rest = rest,
                (None, Part::Mailbox(Lane::Priority)) => {
                    within.part = Part::Mailbox(Lane::Ordinary);
                    within.rest = keys.mailbox(Lane::Ordinary);
                }
                (None, Part::Mailbox(Lane::Ordinary)) => {
                    within.part = Part::Letters;
                    within.rest = keys.dead_letters();
                }
                (None, Part::Letters) => {
                    bodies.push(Body::InstanceEnd);
                    return Ok((bodies, Next::Whole, damaged));
                }
            }
        }
        Ok((bodies, Next::More(Box::new(within)), damaged))
    }

    /// All but the mailboxes and the dead letters.
    async fn read_head(
        &self,
        tx: &Tx,
        instance: &InstanceId,
        keys: &InstanceKeys,
        damaged: &mut Vec<Damage>,
    ) -> Result<Vec<Body>, StoreError> {
        let all = self.namespace.keys();
        let version = state::read_version(tx, keys).await;
        let version = or_damage(version, &keys.version(), damaged)?.flatten();
        let created = directory::read(tx, all, instance).await;
        let created = or_damage(created, &all.directory(instance), damaged)?.flatten();
        let paused = pause::read_at(tx, keys.paused()).await;
        let paused = or_damage(paused, &keys.paused(), damaged)?.flatten();
        let held = lock::read_lock(tx, keys).await;
        let held = or_damage(held, &keys.lock(), damaged)?.flatten();
        let mut bodies = vec![Body::Instance {
            kind: instance.kind().to_owned(),
            id: instance.id().to_owned(),
            created_ms: created,
            schema: version.map(|version| version.schema),
        }];
        bodies.extend(paused.map(|pause| Body::Paused { pause }));
        let (leaves, damage) = state::salvage(tx, keys).await?;
        let damage = damage
            .iter()
            .map(|(key, error)| Damage::new(key.clone(), error));
        damaged.extend(damage);
        if version.is_some() {
            bodies.extend(leaves.into_iter().map(|(path, bytes)| Body::Leaf {
                path: path.as_tuple().to_vec(),
                bytes: bytes.to_vec(),
            }));
        }
        if let Some(held) = held {
            let message = lock::read_message(tx, keys).await;
            let message = or_damage(message, &keys.lock_message_chunk(0), damaged)?;
            bodies.extend(message.map(|message| message_body(held.lane, message)));
        }
        Ok(bodies)
    }
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

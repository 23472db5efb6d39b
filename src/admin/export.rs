//! Writing a namespace, a kind or an instance as a stream of records.
//!
//! What an instance has is read in one transaction, and so is of one moment, if it is no more than
//! some megabytes. A larger one takes several, each of which looks whether the instance went on
//! meanwhile; if it did, the export ends with an error that says so: pause what is large. The state
//! is read whole, as its server does; the rest in pages.

use super::Admin;
use super::error::AdminError;
use super::mailbox::read_messages;
use super::page::{Damage, Place, or_damage};
use super::record::{Body, FORMAT, Record, VERSION};
use super::walk::{Found, Walk};
use crate::durable::keys::{InstanceKeys, Lane};
use crate::durable::{Message, dead, directory, lock, pause, state};
use crate::id::InstanceId;
use crate::store::{KeyRange, StoreError, StoreErrorKind, TransactionExt, Tx, after};
use bytes::Bytes;
use futures_util::future::try_join;

/// How much one transaction reads of mailboxes and dead letters.
const ROWS: usize = 1_000;
const BYTES: usize = 2_000_000;

/// How many instances without anything to export one transaction passes over.
const STEPS: usize = 200;

/// What to export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Namespace,
    /// The instances of a kind, and its pause.
    Kind(String),
    /// One instance.
    Instance(InstanceId),
}

/// An export under way. See [`Admin::export`].
#[derive(Debug)]
pub struct Export<'a> {
    admin: &'a Admin,
    scope: Scope,
    step: Step,
    records: u64,
    damaged: Vec<Damage>,
}

#[derive(Debug, Clone)]
enum Step {
    Header,
    Kinds,
    Walk(Place),
    Within(Box<Within>),
    End,
    Done,
}

/// An instance of which not all was read.
#[derive(Debug, Clone)]
struct Within {
    instance: InstanceId,
    part: Part,
    rest: KeyRange,
    /// What tells whether it went on since its first part was read.
    seen: Vec<Option<Bytes>>,
    /// Where the walk goes on behind it.
    then: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Mailbox(Lane),
    Letters,
}

impl Admin {
    /// Exports a part of the namespace: state, mailboxes in their order, dead letters and pauses. The
    /// [records](Record) can be [imported](Self::import) into any store.
    #[must_use]
    pub fn export(&self, scope: Scope) -> Export<'_> {
        Export {
            admin: self,
            scope,
            step: Step::Header,
            records: 0,
            damaged: Vec::new(),
        }
    }
}

impl Export<'_> {
    /// The next records; none at the end. Some megabytes at most, but for a state or a message that
    /// is larger.
    ///
    /// # Errors
    ///
    /// - [`NotFound`](super::AdminErrorKind::NotFound) if the instance is not there.
    /// - [`Refused`](super::AdminErrorKind::Refused) if an instance changed while it was exported.
    /// - Whatever the store answers; then this may be called again.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, AdminError> {
        let bodies = match self.step.clone() {
            Step::Header => {
                self.step = Step::Kinds;
                vec![self.header()]
            }
            Step::Kinds => {
                let kinds = self.kinds().await?;
                self.step = match &self.scope {
                    Scope::Instance(instance) => self.begin(instance.clone()).await?,
                    scope => {
                        Step::Walk(Walk::new(self.admin.namespace.keys(), scope.kind()).place(0))
                    }
                };
                kinds
            }
            Step::Walk(place) => self.walk(&place).await?,
            Step::Within(within) => self.within(*within).await?,
            Step::End => {
                self.step = Step::Done;
                vec![Body::End {
                    records: self.records,
                }]
            }
            Step::Done => return Ok(None),
        };
        self.records += u64::try_from(bodies.len()).unwrap_or(u64::MAX);
        Ok(Some(bodies.into_iter().map(Record).collect()))
    }

    /// What could not be read so far, and so is not among the records.
    #[must_use]
    pub fn damaged(&self) -> &[Damage] {
        &self.damaged
    }

    /// How many records there were so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    fn header(&self) -> Body {
        let env = self.admin.namespace.database().env();
        Body::Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            id: format!("{:016x}{:016x}", env.random(), env.random()),
            namespace: self
                .admin
                .namespace
                .keys()
                .all()
                .begin
                .escape_ascii()
                .to_string(),
            exported_ms: self.admin.now_ms(),
        }
    }

    async fn kinds(&mut self) -> Result<Vec<Body>, AdminError> {
        if let Scope::Instance(_) = self.scope {
            return Ok(Vec::new());
        }
        let (kinds, damaged) = self.admin.paused_kinds().await?;
        self.damaged.extend(damaged);
        let wanted = kinds
            .into_iter()
            .filter(|of| self.scope.kind().is_none_or(|kind| kind == of.kind));
        let kinds = wanted.map(|of| Body::KindPaused {
            kind: of.kind,
            pause: pause::Paused {
                since_ms: of.pause.since_ms,
                reason: of.pause.reason,
            },
        });
        Ok(kinds.collect())
    }

    async fn begin(&self, instance: InstanceId) -> Result<Step, AdminError> {
        self.admin.instance(&instance).await?;
        let rest = self.admin.namespace.keys().instance(&instance).all();
        Ok(Step::Within(Box::new(Within {
            instance,
            part: Part::Mailbox(Lane::Priority),
            rest,
            seen: Vec::new(),
            then: None,
        })))
    }

    /// Finds the next instance.
    async fn walk(&mut self, place: &Place) -> Result<Vec<Body>, AdminError> {
        let keys = self.admin.namespace.keys();
        let kind = self.scope.kind();
        let found = self.admin.look(|tx| async move {
            let mut walk = Walk::at(keys, kind, place);
            let mut damaged = Vec::new();
            for _ in 0..STEPS {
                match walk.next(&tx).await? {
                    Some(Found::Instance(found)) => {
                        return Ok((Some(found), Some(walk.place(0)), damaged));
                    }
                    Some(Found::Foreign(key)) => damaged.push(Damage::foreign(key)),
                    None => return Ok((None, None, damaged)),
                }
            }
            Ok((None, Some(walk.place(0)), damaged))
        });
        let (found, next, damaged) = found.await?;
        self.damaged.extend(damaged);
        self.step = match (found, next) {
            (Some(instance), then) => Step::Within(Box::new(Within {
                rest: keys.instance(&instance).all(),
                instance,
                part: Part::Mailbox(Lane::Priority),
                seen: Vec::new(),
                then,
            })),
            (None, Some(place)) => Step::Walk(place),
            (None, None) => Step::End,
        };
        Ok(Vec::new())
    }

    /// Reads on in an instance.
    async fn within(&mut self, within: Within) -> Result<Vec<Body>, AdminError> {
        let admin = self.admin;
        let read = admin.look(|tx| {
            let within = within.clone();
            async move { admin.read_on(&tx, within).await }
        });
        let (bodies, next, damaged) = read.await?;
        let (next, changed) = match next {
            Next::Changed => (None, true),
            Next::More(within) => (Some(within), false),
            Next::Whole => (None, false),
        };
        if changed {
            return Err(AdminError::refused(format!(
                "{} changed while it was exported; pause it first",
                within.instance
            )));
        }
        self.damaged.extend(damaged);
        self.step = match (next, within.then) {
            (Some(within), _) => Step::Within(within),
            (None, Some(place)) => Step::Walk(place),
            (None, None) => Step::End,
        };
        Ok(bodies)
    }
}

impl Scope {
    fn kind(&self) -> Option<&str> {
        match self {
            Self::Kind(kind) => Some(kind),
            Self::Namespace | Self::Instance(_) => None,
        }
    }
}

enum Next {
    /// The instance went on meanwhile.
    Changed,
    More(Box<Within>),
    Whole,
}

impl Admin {
    async fn read_on(
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
                    let read = dead::list(tx, namespace, &keys, range.clone(), rows, bytes).await;
                    let letters = match read {
                        Ok(letters) => letters,
                        Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                            let first = tx.get_range(range.read().limit(1).snapshot()).await?;
                            let Some(first) = first.into_iter().next() else {
                                return Err(error);
                            };
                            within.rest = KeyRange::new(after(&first.key), range.end);
                            damaged.push(Damage::new(first.key, &error));
                            rows = rows.saturating_sub(1);
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
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

//! The keys, and the only file that spells their bytes, but for the paths within a state, which the
//! [codec](crate::codec) spells.
//!
//! ```text
//! namespace prefix, then as a tuple
//!   ("m")                                          layout version, shard count, incarnation
//!   ("y")                                          how far an import has come
//!   ("z", kind)                                    pauses of whole kinds
//!   ("d", kind, id)                                the directory
//!   ("i", shard, kind, id, "l", chunk              the message under the lock
//!                          "m", "a", lane          attempts at a lane's head
//!                          "m", "l"                lock
//!                          "m", "v"                state stamp and schema
//!                          "m", "z"                paused
//!                          "n"                     mailbox length
//!                          "p"|"q", inc, stamp, chunk   priority messages and messages
//!                          "s", path…              state leaves
//!                          "x", stamp, chunk       dead letters
//!   ("r", shard, kind, id)                         ready marks
//!   ("w", shard)                                   wake counters
//!   ("c", session, "h")                            heartbeat
//!                  "w"                             reply wake
//!                  "r", call, chunk                replies
//!                  "o", lane                       outcome markers
//! ```
//!
//! The encoding is FoundationDB's tuple layer, so that every binding can read the keys; a prefix of
//! a tuple is a prefix of its bytes. `shard` scatters neighbouring instances and is the unit of
//! wake-up. What every turn reads of an instance, from the attempts to the mailboxes, stands side by
//! side, so that it is one read.

mod parse;

use crate::id::InstanceId;
use crate::store::{CommitStamp, KeyRange, Stamp};
use bytes::Bytes;
use foundationdb_tuple::{TuplePack, Versionstamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The two mailboxes of an instance. Priority messages go first, and pass a lock and a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Ordinary messages.
    Ordinary,
    /// Priority messages.
    Priority,
}

impl Lane {
    fn code(self) -> &'static str {
        match self {
            Self::Ordinary => "q",
            Self::Priority => "p",
        }
    }

    fn from_code(code: &str) -> Option<Self> {
        match code {
            "q" => Some(Self::Ordinary),
            "p" => Some(Self::Priority),
            _ => None,
        }
    }
}

/// A session's id: random, so that no two ever share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(#[serde(with = "serde_bytes")] [u8; Self::LEN]);

impl SessionId {
    /// Length in bytes.
    pub const LEN: usize = 16;

    /// A session id from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// A key of a namespace, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Key {
    /// The namespace's own description.
    Meta,
    /// How far an import has come.
    Import,
    /// The pause of a kind.
    KindPaused {
        /// The kind.
        kind: String,
    },
    /// The directory entry of an instance.
    Directory(InstanceId),
    /// Something of an instance.
    Instance {
        /// The shard that the key states; right only if it is the instance's.
        shard: u32,
        /// The instance.
        instance: InstanceId,
        /// What of it.
        part: Part,
    },
    /// The ready mark of an instance.
    Ready {
        /// The shard that the key states.
        shard: u32,
        /// The instance.
        instance: InstanceId,
    },
    /// The wake counter of a shard.
    Wake {
        /// The shard.
        shard: u32,
    },
    /// Something of a session.
    Session {
        /// The session.
        session: SessionId,
        /// What of it.
        part: SessionPart,
    },
}

/// What a key below an instance holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A chunk of a message.
    Message {
        /// Its mailbox.
        lane: Lane,
        /// The namespace's incarnation when it was pushed.
        incarnation: u32,
        /// Its place in the order.
        stamp: Stamp,
        /// Which chunk.
        chunk: u32,
    },
    /// The length of the mailbox.
    Length,
    /// A state leaf.
    State {
        /// The rest of the key: a path of the [codec](crate::codec), not looked into here.
        path: Bytes,
    },
    /// The state's stamp and schema.
    Version,
    /// The lock.
    Lock,
    /// A chunk of the message under the lock.
    LockMessage {
        /// Which chunk.
        chunk: u32,
    },
    /// The attempts at the head of a mailbox.
    Attempts {
        /// Its mailbox.
        lane: Lane,
    },
    /// A chunk of a dead letter.
    DeadLetter {
        /// The message's stamp.
        stamp: Stamp,
        /// Which chunk.
        chunk: u32,
    },
    /// The pause.
    Paused,
}

/// What a key below a session holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionPart {
    /// The heartbeat.
    Heartbeat,
    /// The counter that wakes the reply inbox.
    ReplyWake,
    /// A chunk of a reply.
    Reply {
        /// The call.
        call: u64,
        /// Which chunk.
        chunk: u32,
    },
    /// An outcome marker.
    Outcome {
        /// Its lane.
        lane: u32,
    },
}

/// Builds and reads the keys of one namespace.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: Bytes,
    shards: u32,
}

impl Keys {
    /// The keys below `prefix`, spread over `shards` shards (at least one).
    #[must_use]
    pub fn new(prefix: Bytes, shards: u32) -> Self {
        Self {
            prefix,
            shards: shards.max(1),
        }
    }

    /// The prefix of the namespace with this name: the tuple of the name.
    #[must_use]
    pub fn namespace_prefix(name: &str) -> Bytes {
        Writer::new(&[]).text(name).finish()
    }

    /// Every key of the namespace.
    #[must_use]
    pub fn all(&self) -> KeyRange {
        below(self.prefix.clone())
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// The shard of an instance: XXH3-64 of its encoded kind and id, modulo the number of shards.
    #[must_use]
    pub fn shard(&self, instance: &InstanceId) -> u32 {
        let encoded = Writer::new(&[])
            .text(instance.kind())
            .text(instance.id())
            .finish();
        let hash = xxhash_rust::xxh3::xxh3_64(&encoded) % u64::from(self.shards);
        // Below the number of shards, which is a u32.
        u32::try_from(hash).unwrap_or(0)
    }

    /// `("m")`
    #[must_use]
    pub fn meta(&self) -> Bytes {
        self.writer("m").finish()
    }

    /// `("y")`
    #[must_use]
    pub fn import(&self) -> Bytes {
        self.writer("y").finish()
    }

    /// `("z", kind)`
    #[must_use]
    pub fn kind_paused(&self, kind: &str) -> Bytes {
        self.writer("z").text(kind).finish()
    }

    /// The pauses of kinds.
    #[must_use]
    pub fn kinds_paused(&self) -> KeyRange {
        below(self.writer("z").finish())
    }

    /// `("d", kind, id)`
    #[must_use]
    pub fn directory(&self, instance: &InstanceId) -> Bytes {
        self.writer("d")
            .text(instance.kind())
            .text(instance.id())
            .finish()
    }

    /// Every directory entry, or those of one kind.
    #[must_use]
    pub fn directory_of(&self, kind: Option<&str>) -> KeyRange {
        let writer = self.writer("d");
        below(match kind {
            Some(kind) => writer.text(kind).finish(),
            None => writer.finish(),
        })
    }

    /// Everything of the instances of a shard, or of those of one kind.
    #[must_use]
    pub fn instances_of(&self, shard: u32, kind: Option<&str>) -> KeyRange {
        let writer = self.writer("i").number(u64::from(shard));
        below(match kind {
            Some(kind) => writer.text(kind).finish(),
            None => writer.finish(),
        })
    }

    /// The keys of one instance.
    #[must_use]
    pub fn instance(&self, instance: &InstanceId) -> InstanceKeys {
        self.instance_in(self.shard(instance), instance)
    }

    fn instance_in(&self, shard: u32, instance: &InstanceId) -> InstanceKeys {
        let prefix = self
            .writer("i")
            .number(u64::from(shard))
            .text(instance.kind())
            .text(instance.id())
            .finish();
        let ready = self.ready(shard, instance);
        InstanceKeys {
            prefix,
            ready,
            kind_paused: self.kind_paused(instance.kind()),
            shard,
        }
    }

    fn ready(&self, shard: u32, instance: &InstanceId) -> Bytes {
        self.writer("r")
            .number(u64::from(shard))
            .text(instance.kind())
            .text(instance.id())
            .finish()
    }

    /// The ready marks of a shard.
    #[must_use]
    pub fn ready_of(&self, shard: u32) -> KeyRange {
        below(self.writer("r").number(u64::from(shard)).finish())
    }

    /// The ready marks of the instances of a kind in a shard.
    #[must_use]
    pub fn ready_of_kind(&self, shard: u32, kind: &str) -> KeyRange {
        below(
            self.writer("r")
                .number(u64::from(shard))
                .text(kind)
                .finish(),
        )
    }

    /// `("w", shard)`
    #[must_use]
    pub fn wake(&self, shard: u32) -> Bytes {
        self.writer("w").number(u64::from(shard)).finish()
    }

    /// The keys of one session.
    #[must_use]
    pub fn session(&self, session: SessionId) -> SessionKeys {
        SessionKeys {
            prefix: self.writer("c").bytes(session.as_bytes()).finish(),
        }
    }

    /// Every key of every session.
    #[must_use]
    pub fn sessions(&self) -> KeyRange {
        below(self.writer("c").finish())
    }

    /// What `key` is.
    ///
    /// # Errors
    ///
    /// When the key is not one of this namespace, whatever its bytes.
    pub fn decode(&self, key: &[u8]) -> Result<Key, ForeignKey> {
        key.strip_prefix(self.prefix.as_ref())
            .and_then(|rest| foundationdb_tuple::unpack::<parse::Parsed>(rest).ok())
            .map(|parse::Parsed(key)| key)
            // A number can be spelled with leading zeros, which nobody here writes.
            .filter(|decoded| self.encode(decoded) == key)
            .ok_or_else(|| ForeignKey {
                key: Bytes::copy_from_slice(key),
            })
    }

    /// The bytes of a decoded key.
    fn encode(&self, key: &Key) -> Bytes {
        match key {
            Key::Meta => self.meta(),
            Key::Import => self.import(),
            Key::KindPaused { kind } => self.kind_paused(kind),
            Key::Directory(instance) => self.directory(instance),
            Key::Instance {
                shard,
                instance,
                part,
            } => self.instance_in(*shard, instance).encode(part),
            Key::Ready { shard, instance } => self.ready(*shard, instance),
            Key::Wake { shard } => self.wake(*shard),
            Key::Session { session, part } => self.session(*session).encode(part),
        }
    }

    fn writer(&self, group: &'static str) -> Writer {
        Writer::new(&self.prefix).text(group)
    }
}

/// A key that no part of abide writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key {key:?} is not one of this namespace")]
pub struct ForeignKey {
    key: Bytes,
}

/// The keys of one instance, sharing their prefix.
#[derive(Debug, Clone)]
pub struct InstanceKeys {
    prefix: Bytes,
    ready: Bytes,
    kind_paused: Bytes,
    shard: u32,
}

/// A key with room for a commit's stamp.
#[derive(Debug, Clone)]
pub struct StampedKey {
    /// The key, the stamp's ten bytes to be filled in by the commit.
    pub template: Bytes,
    /// Where those are.
    pub offset: usize,
}

impl InstanceKeys {
    /// The instance's shard.
    #[must_use]
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// Everything below the instance.
    #[must_use]
    pub fn all(&self) -> KeyRange {
        below(self.prefix.clone())
    }

    /// A mailbox.
    #[must_use]
    pub fn mailbox(&self, lane: Lane) -> KeyRange {
        below(self.part(lane.code()).finish())
    }

    /// A chunk of a message that stands in the mailbox.
    #[must_use]
    pub fn message(&self, lane: Lane, incarnation: u32, stamp: Stamp, chunk: u32) -> Bytes {
        self.part(lane.code())
            .number(u64::from(incarnation))
            .stamp(stamp)
            .number(u64::from(chunk))
            .finish()
    }

    /// Every chunk of a message that stands in the mailbox.
    #[must_use]
    pub fn message_chunks(&self, lane: Lane, incarnation: u32, stamp: Stamp) -> KeyRange {
        KeyRange::prefix(
            &self
                .part(lane.code())
                .number(u64::from(incarnation))
                .stamp(stamp)
                .finish(),
        )
    }

    /// The incarnation, stamp and chunk of a key in a mailbox; none if it is no message's.
    ///
    /// The same as [`Keys::decode`], but without looking again at what all keys of a mailbox share.
    #[must_use]
    pub fn place_in(mailbox: &KeyRange, key: &[u8]) -> Option<(u32, Stamp, u32)> {
        let rest = key.strip_prefix(mailbox.begin.as_ref())?;
        let parse::Place(incarnation, stamp, chunk) = foundationdb_tuple::unpack(rest).ok()?;
        let spelled = Writer::new(&[])
            .number(u64::from(incarnation))
            .stamp(stamp)
            .number(u64::from(chunk))
            .finish();
        (spelled == rest).then_some((incarnation, stamp, chunk))
    }

    /// A chunk of a message to be pushed, the `user`-th of its transaction.
    #[must_use]
    pub fn push(&self, lane: Lane, incarnation: u32, user: u16, chunk: u32) -> StampedKey {
        let before = self.part(lane.code()).number(u64::from(incarnation));
        // The code byte of a versionstamp element comes first.
        let offset = before.bytes.len() + 1;
        let stamp = CommitStamp::from_bytes([0; CommitStamp::LEN]).with_user(user);
        let template = before.stamp(stamp).number(u64::from(chunk)).finish();
        StampedKey { template, offset }
    }

    /// `(…, "n")`
    #[must_use]
    pub fn length(&self) -> Bytes {
        self.part("n").finish()
    }

    /// Every state leaf.
    #[must_use]
    pub fn state(&self) -> KeyRange {
        below(self.part("s").finish())
    }

    /// What is known of the instance besides its messages and its state: `(…, "m", …)`.
    #[must_use]
    pub fn meta(&self) -> KeyRange {
        below(self.part("m").finish())
    }

    /// All that a turn reads: what is known of the instance, and its mailboxes.
    #[must_use]
    pub fn overview(&self) -> KeyRange {
        KeyRange::new(self.meta().begin, self.mailbox(Lane::Ordinary).end)
    }

    /// `(…, "m", "v")`
    #[must_use]
    pub fn version(&self) -> Bytes {
        self.part("m").text("v").finish()
    }

    /// `(…, "m", "l")`
    #[must_use]
    pub fn lock(&self) -> Bytes {
        self.part("m").text("l").finish()
    }

    /// Every chunk of the message under the lock.
    #[must_use]
    pub fn lock_message(&self) -> KeyRange {
        below(self.part("l").finish())
    }

    /// A chunk of the message under the lock.
    #[must_use]
    pub fn lock_message_chunk(&self, chunk: u32) -> Bytes {
        self.part("l").number(u64::from(chunk)).finish()
    }

    /// `(…, "m", "a", lane)`
    #[must_use]
    pub fn attempts(&self, lane: Lane) -> Bytes {
        self.part("m").text("a").text(lane.code()).finish()
    }

    /// Every dead letter.
    #[must_use]
    pub fn dead_letters(&self) -> KeyRange {
        below(self.part("x").finish())
    }

    /// A chunk of a dead letter.
    #[must_use]
    pub fn dead_letter(&self, stamp: Stamp, chunk: u32) -> Bytes {
        self.part("x")
            .stamp(stamp)
            .number(u64::from(chunk))
            .finish()
    }

    /// A chunk of a dead letter whose stamp is to be that of the commit which writes it.
    #[must_use]
    pub fn new_dead_letter(&self, user: u16, chunk: u32) -> StampedKey {
        let before = self.part("x");
        // The code byte of a versionstamp element comes first.
        let offset = before.bytes.len() + 1;
        let stamp = CommitStamp::from_bytes([0; CommitStamp::LEN]).with_user(user);
        let template = before.stamp(stamp).number(u64::from(chunk)).finish();
        StampedKey { template, offset }
    }

    /// `(…, "m", "z")`
    #[must_use]
    pub fn paused(&self) -> Bytes {
        self.part("m").text("z").finish()
    }

    /// The pause of the instance's kind, `("z", kind)`.
    #[must_use]
    pub fn kind_paused(&self) -> &Bytes {
        &self.kind_paused
    }

    /// The ready mark, `("r", shard, kind, id)`.
    #[must_use]
    pub fn ready(&self) -> &Bytes {
        &self.ready
    }

    fn part(&self, part: &'static str) -> Writer {
        Writer::new(&self.prefix).text(part)
    }

    fn encode(&self, part: &Part) -> Bytes {
        match part {
            Part::Message {
                lane,
                incarnation,
                stamp,
                chunk,
            } => self.message(*lane, *incarnation, *stamp, *chunk),
            Part::Length => self.length(),
            Part::State { path } => [&self.state().begin[..], path].concat().into(),
            Part::Version => self.version(),
            Part::Lock => self.lock(),
            Part::LockMessage { chunk } => self.lock_message_chunk(*chunk),
            Part::Attempts { lane } => self.attempts(*lane),
            Part::DeadLetter { stamp, chunk } => self.dead_letter(*stamp, *chunk),
            Part::Paused => self.paused(),
        }
    }
}

/// The keys of one session.
#[derive(Debug, Clone)]
pub struct SessionKeys {
    prefix: Bytes,
}

impl SessionKeys {
    /// Everything below the session.
    #[must_use]
    pub fn all(&self) -> KeyRange {
        below(self.prefix.clone())
    }

    /// `(…, "h")`
    #[must_use]
    pub fn heartbeat(&self) -> Bytes {
        Writer::new(&self.prefix).text("h").finish()
    }

    /// `(…, "w")`
    #[must_use]
    pub fn reply_wake(&self) -> Bytes {
        Writer::new(&self.prefix).text("w").finish()
    }

    /// Every reply.
    #[must_use]
    pub fn replies(&self) -> KeyRange {
        below(Writer::new(&self.prefix).text("r").finish())
    }

    /// Every chunk of the reply to a call.
    #[must_use]
    pub fn reply_chunks(&self, call: u64) -> KeyRange {
        below(Writer::new(&self.prefix).text("r").number(call).finish())
    }

    /// A chunk of the reply to a call.
    #[must_use]
    pub fn reply(&self, call: u64, chunk: u32) -> Bytes {
        Writer::new(&self.prefix)
            .text("r")
            .number(call)
            .number(u64::from(chunk))
            .finish()
    }

    /// Every outcome marker.
    #[must_use]
    pub fn outcomes(&self) -> KeyRange {
        below(Writer::new(&self.prefix).text("o").finish())
    }

    /// `(…, "o", lane)`
    #[must_use]
    pub fn outcome(&self, lane: u32) -> Bytes {
        Writer::new(&self.prefix)
            .text("o")
            .number(u64::from(lane))
            .finish()
    }

    fn encode(&self, part: &SessionPart) -> Bytes {
        match part {
            SessionPart::Heartbeat => self.heartbeat(),
            SessionPart::ReplyWake => self.reply_wake(),
            SessionPart::Reply { call, chunk } => self.reply(*call, *chunk),
            SessionPart::Outcome { lane } => self.outcome(*lane),
        }
    }
}

/// The keys whose tuple begins with the elements of `prefix` and goes on.
///
/// Not every key whose *bytes* begin with the prefix: the text `a\0b` is written as `a`, then an
/// escaped zero, and so begins with the bytes of the text `a`. The escape is `0xff`, and no element
/// begins with that byte.
fn below(prefix: Bytes) -> KeyRange {
    let end = [&prefix[..], &[0xff]].concat();
    KeyRange::new(prefix, end)
}

/// Appends tuple elements.
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Room for most keys without growing.
    const CAPACITY: usize = 96;

    fn new(prefix: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(prefix.len() + Self::CAPACITY);
        bytes.extend_from_slice(prefix);
        Self { bytes }
    }

    fn element<T: TuplePack>(mut self, element: &T) -> Self {
        // The stamps here are never the incomplete one, so there is no offset to report.
        let _ = element.pack_into_vec(&mut self.bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.element(&text)
    }

    fn number(self, number: u64) -> Self {
        self.element(&number)
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        self.element(&foundationdb_tuple::Bytes::from(bytes))
    }

    fn stamp(self, stamp: Stamp) -> Self {
        self.element(&Versionstamp::from(*stamp.as_bytes()))
    }

    fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests;

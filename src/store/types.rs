//! The plain values that cross the store's traits.

use bytes::Bytes;
use std::fmt;

/// A point in the store's history. Versions grow with every commit, by arbitrary steps; several
/// commits may share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The ten bytes that a commit puts into its versionstamped keys and values: the commit's version
/// and its place among the commits of that version, both big-endian.
///
/// No two commits of a store share one, and their order is the order of the commits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitStamp([u8; Self::LEN]);

impl CommitStamp {
    /// Length in bytes.
    pub const LEN: usize = 10;

    /// A stamp from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The stamp of the commit that is number `order` of `version`.
    #[must_use]
    pub fn new(version: Version, order: u16) -> Self {
        let mut bytes = [0; Self::LEN];
        let (high, low) = bytes.split_at_mut(8);
        high.copy_from_slice(&version.0.to_be_bytes());
        low.copy_from_slice(&order.to_be_bytes());
        Self(bytes)
    }

    /// The bytes, as they appear in keys and values.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The version of the commit.
    #[must_use]
    pub fn version(&self) -> Version {
        let (version, _) = self.0.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        Version(u64::from_be_bytes(*version))
    }

    /// The stamp of one of the things that this commit wrote: see [`Stamp`].
    #[must_use]
    pub fn with_user(self, user: u16) -> Stamp {
        let mut bytes = [0; Stamp::LEN];
        let (commit, order) = bytes.split_at_mut(Self::LEN);
        commit.copy_from_slice(&self.0);
        order.copy_from_slice(&user.to_be_bytes());
        Stamp(bytes)
    }
}

impl fmt::Display for CommitStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CommitStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommitStamp({self})")
    }
}

/// A [`CommitStamp`] and a *user version*, which tells apart what one commit wrote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp([u8; Self::LEN]);

impl Stamp {
    /// Length in bytes.
    pub const LEN: usize = 12;

    /// A stamp from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, as they appear in keys and values.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stamp({self})")
    }
}

/// What a commit that wrote something returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The version at which the writes became visible.
    pub version: Version,
    /// What replaced the placeholders of versionstamped keys and values.
    pub stamp: CommitStamp,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// The keys from `begin` on and below `end`, in byte order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key of the range.
    pub begin: Bytes,
    /// The first key behind the range.
    pub end: Bytes,
}

impl KeyRange {
    /// The keys from `begin` on and below `end`.
    #[must_use]
    pub fn new(begin: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self {
            begin: begin.into(),
            end: end.into(),
        }
    }

    /// The one key `key`.
    #[must_use]
    pub fn single(key: &[u8]) -> Self {
        Self::new(Bytes::copy_from_slice(key), after(key))
    }

    /// The keys that begin with `prefix`. The empty prefix means the whole user key space.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let end = match prefix.iter().rposition(|byte| *byte != 0xff) {
            Some(last) => prefix
                .iter()
                .take(last)
                .copied()
                .chain(prefix.get(last).map(|byte| byte + 1))
                .collect::<Vec<u8>>()
                .into(),
            None => Bytes::from_static(USER_SPACE_END),
        };
        Self::new(Bytes::copy_from_slice(prefix), end)
    }

    /// Whether no key can be in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.begin >= self.end
    }

    /// Whether `key` is in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.begin.as_ref() <= key && key < self.end.as_ref()
    }

    /// Whether some key is in both ranges.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        self.begin < other.end && other.begin < self.end && !self.is_empty() && !other.is_empty()
    }

    /// A serializable, unlimited, ascending read of this range, to be refined.
    #[must_use]
    pub fn read(&self) -> RangeRead {
        RangeRead {
            range: self.clone(),
            limit: usize::MAX,
            reverse: false,
            isolation: Isolation::Serializable,
        }
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}..{:?}", self.begin, self.end)
    }
}

/// The first key behind `key`: `key` followed by a zero byte.
#[must_use]
pub fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// The end of the user key space: every key is below the single byte `0xff`.
pub const USER_SPACE_END: &[u8] = &[0xff];

/// Whether a read takes part in conflict detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// The commit fails if another transaction changed what was read.
    Serializable,
    /// The same view of the data, but later changes to it do not fail the commit.
    Snapshot,
}

/// A read of a range: which keys, how many of them, from which end, and whether it can conflict.
#[derive(Debug, Clone)]
pub struct RangeRead {
    /// The keys to read.
    pub range: KeyRange,
    /// Read no more than this many pairs.
    pub limit: usize,
    /// Begin with the last key and go down.
    pub reverse: bool,
    /// Whether later changes fail the commit.
    pub isolation: Isolation,
}

impl RangeRead {
    /// Reads at most `limit` pairs.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Reads from the end of the range downward.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Reads without a conflict.
    #[must_use]
    pub fn snapshot(mut self) -> Self {
        self.isolation = Isolation::Snapshot;
        self
    }
}

//! What a transaction read, and whether it would read the same now.

use super::super::{KeyRange, KeyValue, StoreError};
use super::db::Db;
use super::watch::PendingWatch;
use bytes::Bytes;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The conflicts of a transaction: stored content as of its snapshot.
///
/// Comparing content is strict serializability: if every serializable read returns at the commit
/// what it returned at the snapshot, the transaction might as well have run wholly at its commit.
///
/// Of ranges only a digest is kept, so that reading much, page by page, takes no memory. It is
/// SipHash under a random key that never leaves the process: two contents agree by chance once in
/// 2^64, and nobody can choose them so.
#[derive(Debug, Default)]
pub(super) struct ReadSet {
    points: Vec<(Bytes, Option<Bytes>)>,
    ranges: Vec<SeenRange>,
    /// Ranges whose content is to be looked at only if it comes to matter: in most commits it does
    /// not, because nothing was committed since the snapshot.
    unread: Vec<KeyRange>,
    digests: RandomState,
    /// Watches whose key was read, to be armed by the commit.
    pub(super) watches: Vec<PendingWatch>,
    /// Why a conflict could not be recorded. The commit cannot be checked then.
    pub(super) failed: Option<StoreError>,
}

impl ReadSet {
    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ranges.is_empty() && self.unread.is_empty()
    }

    pub(super) fn add_point(&mut self, key: Bytes, value: Option<Bytes>) {
        self.points.push((key, value));
    }

    /// Adds parts of a range read; `rows` are the stored pairs it saw, in the order of the read.
    pub(super) fn add_parts(&mut self, parts: Vec<KeyRange>, rows: &[KeyValue], reverse: bool) {
        for range in parts {
            let seen = rows.iter().filter(|row| range.contains(&row.key));
            let digest = seen.fold(self.digest(), Digest::add).finish();
            self.ranges.push(SeenRange {
                range,
                reverse,
                digest,
            });
        }
    }

    /// Adds ranges for the sake of the conflict alone.
    pub(super) fn add_unread(&mut self, ranges: Vec<KeyRange>) {
        self.unread.extend(ranges);
    }

    /// Reads on the snapshot what was not read yet.
    pub(super) fn read_rest(&mut self, snapshot: &Db) -> Result<(), StoreError> {
        for range in std::mem::take(&mut self.unread) {
            let (range, reverse) = (range, false);
            let digest = self.digest_now(snapshot, &range, reverse)?;
            self.ranges.push(SeenRange {
                range,
                reverse,
                digest,
            });
        }
        Ok(())
    }

    /// The keys that count towards the size of the transaction.
    pub(super) fn conflict_ranges(&self) -> impl Iterator<Item = KeyRange> {
        let points = self.points.iter().map(|(key, _)| KeyRange::single(key));
        let ranges = self.ranges.iter().map(|seen| seen.range.clone());
        points.chain(ranges).chain(self.unread.iter().cloned())
    }

    /// Whether `db` holds now what this transaction read; all of it [was read](Self::read_rest).
    pub(super) fn still_holds(&self, db: &Db) -> Result<bool, StoreError> {
        for (key, value) in &self.points {
            if db.get(key)? != *value {
                return Ok(false);
            }
        }
        for seen in &self.ranges {
            if self.digest_now(db, &seen.range, seen.reverse)? != seen.digest {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn digest(&self) -> Digest<impl Hasher + use<>> {
        Digest {
            hasher: self.digests.build_hasher(),
        }
    }

    fn digest_now(&self, db: &Db, range: &KeyRange, reverse: bool) -> Result<u64, StoreError> {
        let mut digest = self.digest();
        db.scan(range, reverse, |rows| {
            for row in rows {
                digest = digest.add(&row?);
            }
            Ok(digest.finish())
        })
    }
}

/// A range that was read, and what was in it.
#[derive(Debug)]
struct SeenRange {
    range: KeyRange,
    reverse: bool,
    digest: u64,
}

/// The digest of a sequence of pairs.
struct Digest<H> {
    hasher: H,
}

impl<H: Hasher> Digest<H> {
    fn add(mut self, row: &KeyValue) -> Self {
        // With their lengths, so that no two sequences are the same bytes.
        for part in [&row.key, &row.value] {
            self.hasher.write_usize(part.len());
            self.hasher.write(part);
        }
        self
    }

    fn finish(self) -> u64 {
        self.hasher.finish()
    }
}

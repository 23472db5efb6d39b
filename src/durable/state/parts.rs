//! Reading a part of a state.
//!
//! All of it by snapshot, as the rest: covered by the [version](super::read_version).

use super::{BELOW_END, Loading, chunk, corrupt};
use crate::codec::Leaves;
use crate::codec::Path;
use crate::codec::collection::{BEHIND, Stretch, Want};
use crate::codec::lazy::Found;
use crate::durable::keys::InstanceKeys;
use crate::store::{Isolation, KeyRange, KeyValue, MAX_KEY_BYTES, StoreError, TransactionExt, Tx};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Behind a leaf and its chunks, before what is below it.
const BELOW_BEGIN: u8 = 0x01;

/// How many rows the first page of a part holds at least: an entry may be several.
const FIRST_PAGE: usize = 16;

/// How many rows a page of a part holds at most.
const LAST_PAGE: usize = 1_024;

/// Reads all leaves but those below `lazy`, which are [deferred](Leaves::defer). Where that is not
/// possible it reads them too.
///
/// # Errors
///
/// As those of [`load`](super::load).
pub(crate) fn load_lazily(
    tx: &Tx,
    keys: &InstanceKeys,
    lazy: &[Path],
) -> impl Future<Output = Result<Leaves, StoreError>> + Send + use<> {
    let tx = Arc::clone(tx);
    let all = keys.state();
    let lazy = lazy.to_vec();
    async move {
        let prefix = all.begin.clone();
        if lazy.is_empty() {
            return read(&tx, &prefix, &all).await;
        }
        let mut ranges = Vec::with_capacity(lazy.len() + 1);
        let mut from = prefix.clone();
        for path in &lazy {
            let below = below(&prefix, path);
            ranges.push(KeyRange::new(from, below.begin));
            from = below.end;
        }
        ranges.push(KeyRange::new(from, all.end));
        let ranges = ranges.iter();
        let parts = try_join_all(ranges.map(|range| read(&tx, &prefix, range))).await?;
        let mut leaves: Leaves = parts.into_iter().flatten().collect();
        for path in &lazy {
            if !leaves.defer(path) {
                let part = read(&tx, &prefix, &below(&prefix, path)).await?;
                for (path, leaf) in part {
                    leaves.insert(path, leaf);
                }
            }
        }
        Ok(leaves)
    }
}

/// What lies below a path.
fn below(prefix: &[u8], path: &Path) -> KeyRange {
    let key = [prefix, path.as_tuple()].concat();
    let end = [&*key, &[BELOW_END]].concat();
    let begin = [&*key, &[BELOW_BEGIN]].concat();
    KeyRange::new(begin, end)
}

/// Reads the leaves of a range, which must not cut one in two.
pub(super) fn read(
    tx: &Tx,
    prefix: &Bytes,
    range: &KeyRange,
) -> impl Future<Output = Result<Leaves, StoreError>> + Send + use<> {
    let (tx, range) = (Arc::clone(tx), range.clone());
    let mut loading = Loading::new(prefix);
    async move {
        let mut outcome = Ok(());
        let pages = tx.for_each_page(&range, Isolation::Snapshot, |page| {
            outcome = page.into_iter().try_for_each(|row| loading.add(row));
            match outcome {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        pages.await?;
        outcome?;
        loading.finish()
    }
}

/// Entries that were read, and what they cost.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) found: Found,
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

/// Reads what is wanted, up to its limit and until `most` bytes have come; at least one entry. Of what
/// the first page holds beyond the limit nothing is thrown away: the next entries are often wanted next.
///
/// # Errors
///
/// As those of [`load`](super::load).
pub(crate) fn load_part(
    tx: &Tx,
    keys: &InstanceKeys,
    want: Want,
    most: usize,
) -> impl Future<Output = Result<Part, StoreError>> + Send + use<> {
    let tx = Arc::clone(tx);
    let prefix = keys.state().begin;
    async move {
        let base: Bytes = [&*prefix, want.collection.as_tuple()].concat().into();
        let all = below(&prefix, &want.collection);
        let Stretch { from, mut to } = want.stretch;
        let begin = match from.is_empty() {
            true => all.begin,
            false => bound(&base, &from),
        };
        let end = match &to {
            Some(to) => bound(&base, to),
            None => all.end,
        };
        let mut rest = KeyRange::new(begin, end);
        // Nothing is known of the rows yet: they may be as large as rows can be.
        let safe = (most / chunk::CHUNK_BYTES).clamp(FIRST_PAGE, LAST_PAGE);
        let mut size = want.limit.saturating_add(1).clamp(FIRST_PAGE, safe);
        let mut loading = Loading::new(&prefix);
        let mut reading = Reading::new(base);
        let mut is_first = true;
        'pages: while rest.begin < rest.end {
            let page = tx.get_range(rest.read().limit(size).snapshot()).await?;
            let full = page.len() == size;
            // More of the last one may be on the next page.
            let cut = match is_first && full {
                true => reading.last_of(&page)?,
                false => None,
            };
            let before = reading.bytes;
            for row in page {
                if !reading.goes_on(&row.key) {
                    let key = reading.entry_of(&row.key)?;
                    let is_whole = is_first && cut.as_ref() != Some(&key);
                    if (reading.entries >= want.limit && !is_whole)
                        || (reading.entries > 0 && reading.bytes > most)
                    {
                        to = Some(key);
                        break 'pages;
                    }
                    reading.begin(&key);
                }
                reading.bytes += row.key.len() + row.value.len();
                rest.begin = [&*row.key, &[0]].concat().into();
                loading.add(row)?;
            }
            if !full {
                break;
            }
            is_first = false;
            if (reading.bytes - before) * 2 <= most {
                size = (size * 2).min(LAST_PAGE);
            }
        }
        let found = Found {
            collection: want.collection,
            stretch: Stretch { from, to },
            leaves: loading.finish()?.into_iter().collect(),
        };
        Ok(Part {
            found,
            entries: reading.entries,
            bytes: reading.bytes,
        })
    }
}

/// A point as a bound of what is stored. One too long for a key is cut: what is stored is shorter, and
/// stands on the same side of it.
fn bound(base: &[u8], point: &[u8]) -> Bytes {
    let mut bound = [base, point].concat();
    bound.truncate(MAX_KEY_BYTES + 1);
    bound.into()
}

/// Where a walk over entries is.
struct Reading {
    /// What precedes the entries' keys.
    base: Bytes,
    /// The key of the entry that is being read; nothing before the first one.
    entry: Bytes,
    entries: usize,
    bytes: usize,
}

impl Reading {
    fn new(base: Bytes) -> Self {
        Self {
            base,
            entry: Bytes::new(),
            entries: 0,
            bytes: 0,
        }
    }

    /// Whether a row belongs to the entry that is being read.
    fn goes_on(&self, row: &[u8]) -> bool {
        let rest = row.strip_prefix(&*self.entry);
        !self.entry.is_empty() && rest.is_some_and(|rest| rest.first() != Some(&BEHIND))
    }

    /// The first element below the collection, of an entry's first row.
    fn entry_of(&self, row: &[u8]) -> Result<Vec<u8>, StoreError> {
        let path = row.strip_prefix(&*self.base).unwrap_or_default();
        let path = Path::from_tuple(path)
            .map_err(|error| corrupt(row, "the key is no leaf's").with_source(error))?;
        let first = path.elements().next();
        let first = first.ok_or_else(|| corrupt(row, "the key is no entry's"))?;
        Ok(Path::root().child(first).as_tuple().to_vec())
    }

    /// The last entry that begins on a page.
    fn last_of(&self, page: &[KeyValue]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut ahead = Self::new(self.base.clone());
        let mut last = None;
        for row in page {
            if !ahead.goes_on(&row.key) {
                let key = ahead.entry_of(&row.key)?;
                ahead.begin(&key);
                last = Some(key);
            }
        }
        Ok(last)
    }

    fn begin(&mut self, key: &[u8]) {
        self.entry = [&*self.base, key].concat().into();
        self.entries += 1;
    }
}

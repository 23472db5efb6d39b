//! The state of an instance: its leaves, one key each, and its version.
//!
//! Invariants:
//!
//! - *The version covers the leaves.* Whoever writes a leaf writes `v` in the same transaction. So a
//!   transaction that read `v` serializably may read the leaves by snapshot, and may use leaves
//!   that it kept if `v` still holds the stamp that it kept with them.
//! - *What changed is written, nothing else.* A leaf that became another is one write, or one for
//!   each of its chunks. Nothing is cleared that was not there, but for what was written unread.
//! - *A leaf's length says how many chunks it has in the store.* So whoever knows the leaves knows
//!   which chunks a shorter one leaves behind.
//!
//! A leaf lies under its path below `s`; its second and further chunks lie under the path, a nil and
//! the chunk's number. No element of a path is nil, and none sorts before it: the chunks
//! stand directly behind the leaf, before what is below it, and go when the subtree is cleared.
//! `v`'s format byte is that of the leaves too, which have none of their own.
//!
//! Not all of a state need be read: see [`parts`].

mod parts;

use super::chunk::{self, Assembler};
use super::keys::InstanceKeys;
use super::value::corrupt;
use crate::codec::{Change, Leaves, Path};
use crate::planted::{Bug, planted};
use crate::store::{
    CommitStamp, Isolation, KeyRange, KeyValue, MAX_KEY_BYTES, StoreError, Tx, after,
};
use bytes::Bytes;
pub(crate) use parts::{load_lazily, load_part};
use std::future::Future;

/// The format of the version's value and of the leaves.
const FORMAT: u8 = 1;

/// Where the stamp stands in the version's value: behind the format and the schema.
const STAMP_AT: usize = 5;

/// The tuple layer's nil, between the path of a leaf and the number of a chunk.
const CHUNKS: u8 = 0x00;

/// What the tuple layer begins no element with, and what follows a zero inside a text: the end of
/// everything below a key.
const BELOW_END: u8 = 0xff;

/// How many rows of a state are salvaged at once: more while they come to no more than so many bytes.
const SALVAGED_AT_FIRST: usize = 100;
const SALVAGED_AT_LAST: usize = 1_600;
const SALVAGED_BYTES: usize = 1_000_000;

/// Which state is stored, and by which version of its type it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateVersion {
    /// The commit that changed the state last.
    pub(crate) stamp: CommitStamp,
    /// The schema number of the type that it wrote.
    pub(crate) schema: u32,
}

/// Reads the version, serializably. There is none if the instance has no state.
///
/// # Errors
///
/// [`Corrupt`](crate::store::StoreErrorKind::Corrupt), naming the key; whatever the store answers.
pub(crate) fn read_version(
    tx: &Tx,
    keys: &InstanceKeys,
) -> impl Future<Output = Result<Option<StateVersion>, StoreError>> + Send + use<> {
    let key = keys.version();
    let isolation = match planted(Bug::VersionBySnapshot) {
        true => Isolation::Snapshot,
        false => Isolation::Serializable,
    };
    let value = tx.get(&key, isolation);
    async move {
        let value = value.await?;
        value.map(|value| decode_version(&key, &value)).transpose()
    }
}

/// Reads all leaves, by snapshot: covered by the [version](read_version), which the caller reads.
///
/// # Errors
///
/// [`Corrupt`](crate::store::StoreErrorKind::Corrupt), naming the key, for a key that is no path, a
/// path that is too deep, or chunks that are no value; whatever the store answers.
pub(crate) fn load(
    tx: &Tx,
    keys: &InstanceKeys,
) -> impl Future<Output = Result<Leaves, StoreError>> + Send + use<> {
    let all = keys.state();
    parts::read(tx, &all.begin, &all)
}

/// What can be read of a state, and the keys of what cannot.
type Salvaged = (Leaves, Vec<(Bytes, StoreError)>);

/// The keys of what is stored at a path and below it.
pub(crate) fn tree(keys: &InstanceKeys, path: &Path) -> KeyRange {
    let all = keys.state();
    match path.as_tuple() {
        [] => all,
        path => {
            let key = [&all.begin[..], path].concat();
            KeyRange::new(key.clone(), with(&key, BELOW_END))
        }
    }
}

/// As [`load`], but passes over what is damaged, and says what that was: for whoever looks at a
/// state that its server cannot read. Of a part of the state that begins where a leaf begins.
///
/// # Errors
///
/// Whatever the store answers.
pub(crate) async fn salvage(
    tx: &Tx,
    keys: &InstanceKeys,
    range: KeyRange,
) -> Result<Salvaged, StoreError> {
    let (salvaged, _) = salvage_some(tx, keys, range, usize::MAX).await?;
    Ok(salvaged)
}

/// As [`salvage`], but about so many bytes, and what is left to be read then: whole leaves, and at
/// least one.
///
/// # Errors
///
/// Whatever the store answers.
pub(crate) async fn salvage_some(
    tx: &Tx,
    keys: &InstanceKeys,
    range: KeyRange,
    most: usize,
) -> Result<(Salvaged, Option<KeyRange>), StoreError> {
    let mut loading = Loading::new(&keys.state().begin);
    let (mut damage, mut read) = (Vec::new(), 0);
    // Nothing is known of the rows yet: they may be as large as rows can be.
    let mut size = SALVAGED_AT_FIRST;
    let mut rest = range.clone();
    loop {
        let page = tx.get_range(rest.read().limit(size).snapshot()).await?;
        let full = page.len() >= size;
        let before = read;
        for row in page {
            read += row.key.len() + row.value.len();
            rest.begin = after(&row.key);
            loading.salvage(row, &mut damage);
        }
        if !full {
            loading.give_up(&mut damage);
            return Ok(((loading.leaves, damage), None));
        }
        if read - before <= SALVAGED_BYTES {
            size = (size * 2).min(SALVAGED_AT_LAST);
        }
        // The leaf that the part begins with comes to its end first.
        let is_first = |open: &Open| open.key == range.begin;
        if read >= most && !loading.open.as_ref().is_some_and(is_first) {
            break;
        }
    }
    // A leaf that is cut is read again, whole.
    if let Some(open) = loading.open.take() {
        rest.begin = open.key;
    }
    Ok(((loading.leaves, damage), Some(rest)))
}

/// As [`salvage`], but reads only so many rows. Whether more follow; a leaf that the end of the rows
/// cuts is among those.
///
/// # Errors
///
/// Whatever the store answers.
pub(crate) fn salvage_head(
    tx: &Tx,
    keys: &InstanceKeys,
    rows: usize,
) -> impl Future<Output = Result<(Salvaged, bool), StoreError>> + Send + use<> {
    let rows = rows.max(1);
    let range = keys.state();
    let page = tx.get_range(range.read().limit(rows).snapshot());
    async move {
        let mut loading = Loading {
            prefix: range.begin.clone(),
            leaves: Leaves::new(),
            open: None,
        };
        let mut damage = Vec::new();
        let page = page.await?;
        let more = page.len() >= rows;
        for row in page {
            loading.salvage(row, &mut damage);
        }
        if !more {
            loading.give_up(&mut damage);
        }
        Ok(((loading.leaves, damage), more))
    }
}

/// Writes what changed, and the version.
///
/// `changes` are a [diff](crate::codec::diff) from `base`, the leaves that are stored.
///
/// # Errors
///
/// [`ValueTooLarge`](crate::store::StoreErrorKind::ValueTooLarge) for a leaf that no transaction
/// could hold; part of the changes are then in the transaction, which must not be committed.
pub(crate) fn write(
    tx: &Tx,
    keys: &InstanceKeys,
    changes: &[Change],
    base: &Leaves,
    schema: u32,
) -> Result<(), StoreError> {
    let prefix = keys.state().begin;
    let mut cleared: Option<&Path> = None;
    for change in changes {
        let path = change.path();
        let key = [&prefix[..], path.as_tuple()].concat();
        if key.len() > MAX_KEY_BYTES && !matches!(change, Change::Set(..)) {
            // Nothing is stored there. What was removed unread may have any key.
            continue;
        }
        // A diff is in the order of the paths, so only the tree cleared last can hold this one.
        let gone = cleared.is_some_and(|tree| tree.contains(path));
        let stored = base.get(path).filter(|_| !gone);
        match change {
            Change::Set(_, bytes) => set(tx, &key, stored, bytes)?,
            Change::Clear(_) => clear(tx, &key, stored),
            Change::ClearTree(_) => {
                tx.clear_range(&KeyRange::new(key.clone(), with(&key, BELOW_END)));
                cleared = Some(path);
            }
        }
    }
    touch(tx, keys, schema);
    Ok(())
}

/// Writes the version alone: of a state without leaves, or to make every cached state stale.
pub(crate) fn touch(tx: &Tx, keys: &InstanceKeys, schema: u32) {
    let mut template = vec![FORMAT];
    template.extend_from_slice(&schema.to_be_bytes());
    template.extend_from_slice(&[0; CommitStamp::LEN]);
    tx.set_versionstamped_value(&keys.version(), &template, STAMP_AT);
}

/// Removes the leaves and the version.
pub(crate) fn delete(tx: &Tx, keys: &InstanceKeys) {
    tx.clear_range(&keys.state());
    tx.clear(&keys.version());
}

/// Reads a state's version.
///
/// # Errors
///
/// [`Corrupt`](crate::store::StoreErrorKind::Corrupt), naming the key.
pub(crate) fn decode_version(key: &[u8], value: &[u8]) -> Result<StateVersion, StoreError> {
    let fields = match value.split_first() {
        Some((&FORMAT, fields)) => fields,
        Some((format, _)) => {
            let what = format!("the state has the unknown format {format}");
            return Err(corrupt(key, &what));
        }
        None => return Err(corrupt(key, "the value is empty")),
    };
    fields
        .split_first_chunk()
        .and_then(|(schema, stamp)| {
            Some(StateVersion {
                stamp: CommitStamp::from_bytes(stamp.try_into().ok()?),
                schema: u32::from_be_bytes(*schema),
            })
        })
        .ok_or_else(|| corrupt(key, "the value is not as long as a state's version"))
}

/// Writes a leaf, and clears what a longer one left behind it.
fn set(tx: &Tx, key: &[u8], stored: Option<&Bytes>, bytes: &[u8]) -> Result<(), StoreError> {
    chunk::write(tx, |number| chunk_key(key, number), bytes)?;
    let chunks = chunk::count(bytes.len());
    if stored.is_some_and(|stored| chunk::count(stored.len()) > chunks) {
        // Not above the number of chunks of a leaf that was written.
        let first = u32::try_from(chunks).unwrap_or(u32::MAX);
        tx.clear_range(&KeyRange::new(chunk_key(key, first), with(key, CHUNKS + 1)));
    }
    Ok(())
}

fn clear(tx: &Tx, key: &[u8], stored: Option<&Bytes>) {
    if stored.is_some_and(|stored| chunk::count(stored.len()) > 1) {
        tx.clear_range(&KeyRange::new(key.to_vec(), with(key, CHUNKS + 1)));
    } else {
        tx.clear(key);
    }
}

/// The key of a leaf's chunk; the first lies under the leaf's own.
fn chunk_key(leaf: &[u8], number: u32) -> Bytes {
    if number == 0 {
        return Bytes::copy_from_slice(leaf);
    }
    // A path of one number is that number as the tuple layer writes it.
    let number = Path::root().child(u64::from(number));
    [leaf, &[CHUNKS], number.as_tuple()].concat().into()
}

fn with(key: &[u8], byte: u8) -> Vec<u8> {
    [key, &[byte]].concat()
}

/// Leaves under way from the store, in the order of their keys.
struct Loading {
    /// What precedes the paths in the keys.
    prefix: Bytes,
    leaves: Leaves,
    /// A leaf of which chunks are still to come.
    open: Option<Open>,
}

struct Open {
    key: Bytes,
    path: Path,
    chunks: u32,
    value: Assembler,
}

impl Loading {
    fn new(prefix: &Bytes) -> Self {
        Self {
            prefix: prefix.clone(),
            leaves: Leaves::new(),
            open: None,
        }
    }

    fn add(&mut self, row: KeyValue) -> Result<(), StoreError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open {
                path: self.path(&row.key)?,
                key: row.key.clone(),
                chunks: 0,
                value: Assembler::default(),
            },
        };
        if row.key != chunk_key(&open.key, open.chunks) {
            // Says how many chunks are missing.
            return open.value.finish(&open.key).map(drop);
        }
        open.value.add(&row.key, open.chunks, row.value)?;
        open.chunks += 1;
        if open.value.missing() > 0 {
            self.open = Some(open);
            return Ok(());
        }
        let leaf = open.value.finish(&open.key)?;
        // Its length must tell what there is to be cleared when it changes.
        if u32::try_from(chunk::count(leaf.len())) != Ok(open.chunks) {
            return Err(corrupt(&open.key, "the leaf is cut at other places"));
        }
        self.leaves.insert(open.path, leaf);
        Ok(())
    }

    /// Adds a row if it fits, and notes what does not.
    fn salvage(&mut self, row: KeyValue, damage: &mut Vec<(Bytes, StoreError)>) {
        let goes_on = |open: &Open| row.key == chunk_key(&open.key, open.chunks);
        if self.open.as_ref().is_some_and(|open| !goes_on(open)) {
            self.give_up(damage);
        }
        let key = row.key.clone();
        if let Err(error) = self.add(row) {
            damage.push((key, error));
        }
    }

    /// Notes a leaf whose last chunks never came.
    fn give_up(&mut self, damage: &mut Vec<(Bytes, StoreError)>) {
        if let Some(open) = self.open.take()
            && let Err(error) = open.value.finish(&open.key)
        {
            damage.push((open.key, error));
        }
    }

    fn path(&self, key: &[u8]) -> Result<Path, StoreError> {
        let path = key.strip_prefix(&self.prefix[..]).unwrap_or_default();
        Path::from_tuple(path)
            .map_err(|error| corrupt(key, "the key is no leaf's").with_source(error))
    }

    fn finish(self) -> Result<Leaves, StoreError> {
        if let Some(open) = self.open {
            open.value.finish(&open.key)?;
        }
        Ok(self.leaves)
    }
}

#[cfg(test)]
mod tests;

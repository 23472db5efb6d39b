//! What must be written so that the store holds other leaves.

use super::leaves::{Leaves, kind_of};
use super::path::Path;
use bytes::Bytes;
use std::iter::Peekable;

/// One write. Apply the changes of a diff in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets the leaf.
    Set(Path, Bytes),
    /// Removes the leaf, which has nothing below it.
    Clear(Path),
    /// Removes the leaf and all leaves below it: in the store, the key and the range from the key
    /// with `0x00` appended to the key with `0xff` appended.
    ClearTree(Path),
}

impl Change {
    /// The path that is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Set(path, _) | Self::Clear(path) | Self::ClearTree(path) => path,
        }
    }
}

/// The writes that turn `base`, the leaves actually stored, into `new`.
///
/// A leaf whose bytes are the same is not written. A container that vanished is one change, however
/// much was in it; one whose kind changed (a map where a struct was) is cleared and written afresh.
#[must_use]
pub fn diff(base: &Leaves, new: &Leaves) -> Vec<Change> {
    diff_of(base.iter(), new.iter())
}

/// As [`diff`], of leaves that come in the order of their paths.
pub(super) fn diff_of<'l>(
    base: impl Iterator<Item = (&'l Path, &'l Bytes)>,
    new: impl Iterator<Item = (&'l Path, &'l Bytes)>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut old = base.peekable();
    let mut new = new.peekable();
    loop {
        match (old.peek().copied(), new.peek().copied()) {
            (None, None) => return changes,
            (Some((path, _)), next) if next.is_none_or(|(next, _)| path < next) => {
                old.next();
                let has_successor = next.is_some_and(|(next, _)| path.contains(next));
                if !has_successor && skip_below(&mut old, path) {
                    changes.push(Change::ClearTree(path.clone()));
                } else {
                    changes.push(Change::Clear(path.clone()));
                }
            }
            (Some((path, before)), Some((next, after))) if path == next => {
                old.next();
                new.next();
                if before == after {
                    continue;
                }
                if kind_of(before) != kind_of(after) && skip_below(&mut old, path) {
                    changes.push(Change::ClearTree(path.clone()));
                }
                changes.push(Change::Set(path.clone(), after.clone()));
            }
            (_, Some((path, bytes))) => {
                new.next();
                changes.push(Change::Set(path.clone(), bytes.clone()));
            }
            // A leaf that is not before the next new one, without a next new one, does not exist.
            (Some(_), None) => return changes,
        }
    }
}

/// Passes over the leaves below `path`. Says whether there were any.
fn skip_below<'l>(
    leaves: &mut Peekable<impl Iterator<Item = (&'l Path, &'l Bytes)>>,
    path: &Path,
) -> bool {
    let mut any = false;
    while leaves.next_if(|(below, _)| path.contains(below)).is_some() {
        any = true;
    }
    any
}

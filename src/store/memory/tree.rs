//! An ordered map whose copies cost nothing: the data at one version.
//!
//! A treap with shared nodes. A copy shares every node; a change copies only the nodes on its path
//! that some other copy still shares. So the store keeps one whole map per version, a read needs no
//! lock and meets no tombstones, and forgetting a version is dropping its map.

use crate::store::types::{KeyRange, KeyValue};
use bytes::Bytes;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

type Link = Option<Arc<Node>>;

#[derive(Debug, Clone)]
struct Node {
    row: KeyValue,
    /// Parents have the larger one. Taken from the key, so that equal contents have equal shapes
    /// and an existing key is always met before a place to insert it.
    priority: u64,
    left: Link,
    right: Link,
}

/// The map.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    root: Link,
}

impl Tree {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let mut link = &self.root;
        while let Some(node) = link {
            link = match key.cmp(&node.row.key) {
                std::cmp::Ordering::Less => &node.left,
                std::cmp::Ordering::Equal => return Some(&node.row.value),
                std::cmp::Ordering::Greater => &node.right,
            };
        }
        None
    }

    pub(super) fn insert(&mut self, key: Bytes, value: Bytes) {
        let mut hasher = DefaultHasher::new();
        hasher.write(&key);
        put(
            &mut self.root,
            Node {
                row: KeyValue { key, value },
                priority: hasher.finish(),
                left: None,
                right: None,
            },
        );
    }

    pub(super) fn remove(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        let (below, rest) = split(self.root.take(), &range.begin);
        let (_, above) = split(rest, &range.end);
        self.root = join(below, above);
    }

    /// The pairs of a range, in order or in reverse order.
    pub(super) fn rows<'a>(&'a self, range: &'a KeyRange, reverse: bool) -> Rows<'a> {
        let mut rows = Rows {
            path: Vec::new(),
            range,
            reverse,
        };
        rows.descend(&self.root);
        rows
    }
}

fn put(link: &mut Link, new: Node) {
    match link {
        Some(node) if node.row.key == new.row.key => Arc::make_mut(node).row = new.row,
        Some(node) if node.priority >= new.priority => {
            let node = Arc::make_mut(node);
            if new.row.key < node.row.key {
                put(&mut node.left, new);
            } else {
                put(&mut node.right, new);
            }
        }
        _ => {
            let (left, right) = split(link.take(), &new.row.key);
            *link = Some(Arc::new(Node { left, right, ..new }));
        }
    }
}

/// The keys below `at`, and the others.
fn split(link: Link, at: &[u8]) -> (Link, Link) {
    let Some(mut shared) = link else {
        return (None, None);
    };
    let node = Arc::make_mut(&mut shared);
    if node.row.key.as_ref() < at {
        let (below, above) = split(node.right.take(), at);
        node.right = below;
        (Some(shared), above)
    } else {
        let (below, above) = split(node.left.take(), at);
        node.left = above;
        (below, Some(shared))
    }
}

/// Puts two trees together, all keys of the first being below those of the second.
fn join(below: Link, above: Link) -> Link {
    match (below, above) {
        (None, one) | (one, None) => one,
        (Some(mut low), Some(mut high)) => {
            if low.priority >= high.priority {
                let node = Arc::make_mut(&mut low);
                node.right = join(node.right.take(), Some(high));
                Some(low)
            } else {
                let node = Arc::make_mut(&mut high);
                node.left = join(Some(low), node.left.take());
                Some(high)
            }
        }
    }
}

/// The pairs of a range of a [`Tree`].
#[derive(Debug)]
pub(super) struct Rows<'a> {
    /// The nodes that are still to be returned and whose farther sides are still to be walked; the
    /// next one is the last.
    path: Vec<&'a Node>,
    range: &'a KeyRange,
    reverse: bool,
}

impl<'a> Rows<'a> {
    fn descend(&mut self, mut link: &'a Link) {
        while let Some(node) = link {
            let (not_before_begin, nearer, farther) = if self.reverse {
                (node.row.key < self.range.end, &node.right, &node.left)
            } else {
                (node.row.key >= self.range.begin, &node.left, &node.right)
            };
            link = if not_before_begin {
                self.path.push(node);
                nearer
            } else {
                farther
            };
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = KeyValue;

    fn next(&mut self) -> Option<KeyValue> {
        let node = self.path.pop()?;
        if !self.range.contains(&node.row.key) {
            self.path.clear();
            return None;
        }
        self.descend(if self.reverse {
            &node.left
        } else {
            &node.right
        });
        Some(node.row.clone())
    }
}

//! An ordered tree whose copies cost nothing, and that tells how two copies differ.
//!
//! A treap with shared nodes. A copy shares every node; a change copies those nodes on its path that
//! some other copy still shares. What two trees share is the same in both, so to compare them only
//! the rest has to be walked: for each change some nodes, as many as the tree is deep.
//!
//! Invariants:
//!
//! - *The shape follows from the elements.* Priorities are taken from the places, so within a process
//!   trees of equal places have equal shapes, however they came about. That keeps what two copies
//!   share where it is in both. From process to process shapes differ, and with them the order in
//!   which [differences](Tree::differences) are shown.
//! - *Nobody chooses the shape.* Priorities are of a hash with a random key, so a tree is about as deep
//!   as the logarithm of its size, whatever its keys: functions that go down a tree may recurse.

use std::cmp::Ordering;
use std::sync::Arc;

/// An element of a tree: where it stands.
pub(super) trait Placed {
    /// The order of the elements. Two of equal places are never in a tree together.
    fn order(&self, other: &Self) -> Ordering;

    /// A hash of the place.
    fn priority(&self) -> u64;
}

/// What is shown a place where two trees differ: what stood there, and what stands there now.
type Show<'s, E, X> = dyn FnMut(Option<&E>, Option<&E>) -> Result<(), X> + 's;

type Link<E> = Option<Arc<Node<E>>>;

#[derive(Debug)]
struct Node<E> {
    element: Arc<E>,
    /// Parents have the larger one.
    priority: u64,
    /// How many elements there are from here down.
    size: usize,
    left: Link<E>,
    right: Link<E>,
}

impl<E> Clone for Node<E> {
    fn clone(&self) -> Self {
        Self {
            element: Arc::clone(&self.element),
            priority: self.priority,
            size: self.size,
            left: self.left.clone(),
            right: self.right.clone(),
        }
    }
}

impl<E> Node<E> {
    fn count(&mut self) {
        self.size = 1 + size(&self.left) + size(&self.right);
    }
}

fn size<E>(link: &Link<E>) -> usize {
    link.as_ref().map_or(0, |node| node.size)
}

/// The tree.
#[derive(Debug)]
pub(super) struct Tree<E> {
    root: Link<E>,
}

impl<E> Clone for Tree<E> {
    fn clone(&self) -> Self {
        Self {
            root: self.root.clone(),
        }
    }
}

impl<E> Default for Tree<E> {
    fn default() -> Self {
        Self { root: None }
    }
}

impl<E: Placed> Tree<E> {
    pub(super) fn len(&self) -> usize {
        size(&self.root)
    }

    /// The element that stands where `at` says `Equal`; it tells the order of what it is given and
    /// what is looked for.
    pub(super) fn get(&self, at: impl Fn(&E) -> Ordering) -> Option<&E> {
        let mut link = &self.root;
        while let Some(node) = link {
            link = match at(&node.element) {
                Ordering::Greater => &node.left,
                Ordering::Equal => return Some(&node.element),
                Ordering::Less => &node.right,
            };
        }
        None
    }

    /// How many elements stand before the place that `at` tells.
    pub(super) fn rank(&self, at: impl Fn(&E) -> Ordering) -> usize {
        let mut link = &self.root;
        let mut before = 0;
        while let Some(node) = link {
            link = match at(&node.element) {
                Ordering::Less => {
                    before += 1 + size(&node.left);
                    &node.right
                }
                Ordering::Equal | Ordering::Greater => &node.left,
            };
        }
        before
    }

    /// The element with so many before it.
    pub(super) fn nth(&self, mut position: usize) -> Option<&E> {
        let mut link = &self.root;
        while let Some(node) = link {
            let before = size(&node.left);
            link = match position.cmp(&before) {
                Ordering::Less => &node.left,
                Ordering::Equal => return Some(&node.element),
                Ordering::Greater => {
                    position -= before + 1;
                    &node.right
                }
            };
        }
        None
    }

    /// As [`get`](Self::get), for a change. The element is then another one than that of all copies.
    pub(super) fn get_mut(&mut self, at: impl Fn(&E) -> Ordering) -> Option<&mut Arc<E>> {
        // Without this a miss would copy a path for nothing.
        self.get(&at)?;
        let mut link = &mut self.root;
        while let Some(node) = link {
            let node = Arc::make_mut(node);
            link = match at(&node.element) {
                Ordering::Greater => &mut node.left,
                Ordering::Equal => return Some(&mut node.element),
                Ordering::Less => &mut node.right,
            };
        }
        None
    }

    /// Puts an element in its place; returns the one that stood there.
    pub(super) fn insert(&mut self, element: E) -> Option<Arc<E>> {
        if let Some(stood) = self.get_mut(|other| other.order(&element)) {
            return Some(std::mem::replace(stood, Arc::new(element)));
        }
        let priority = element.priority();
        let element = Arc::new(element);
        let place = Arc::clone(&element);
        reach(
            &mut self.root,
            &|other: &E| other.order(&place),
            priority,
            1,
            || element,
        );
        None
    }

    /// The element of a place, to change it; that of `missing` if there is none yet. `at` tells the
    /// order of an element and the place, `priority` is the place's hash.
    pub(super) fn entry(
        &mut self,
        at: impl Fn(&E) -> Ordering,
        priority: u64,
        missing: impl FnOnce() -> E,
    ) -> &mut Arc<E> {
        let more = usize::from(self.get(&at).is_none());
        reach(&mut self.root, &at, priority, more, || Arc::new(missing()))
    }

    pub(super) fn remove(&mut self, at: impl Fn(&E) -> Ordering) -> Option<Arc<E>> {
        self.get(&at)?;
        take(&mut self.root, &at)
    }

    /// How many elements there are on the longest way down.
    #[cfg(test)]
    pub(super) fn depth(&self) -> usize {
        let mut level: Vec<&Arc<Node<E>>> = self.root.iter().collect();
        let mut depth = 0;
        while !level.is_empty() {
            depth += 1;
            level = level
                .into_iter()
                .flat_map(|node| [&node.left, &node.right].into_iter().flatten())
                .collect();
        }
        depth
    }

    pub(super) fn iter(&self) -> Iter<'_, E> {
        let mut iter = Iter {
            path: Vec::new(),
            left: self.len(),
        };
        iter.descend(&self.root);
        iter
    }

    /// Shows each place where two trees differ, with what stands there: before, and now. Not in
    /// order.
    ///
    /// # Errors
    ///
    /// The first of `show`, which ends the walk.
    pub(super) fn differences<X>(&self, before: &Self, show: &mut Show<'_, E, X>) -> Result<(), X> {
        differences(&before.root, &self.root, show)
    }
}

/// The element of a place, or the one put there. `more` is one if there is none.
///
/// One that is there is met on the way: all above it have a priority as high, or a higher one.
fn reach<'l, E: Placed>(
    link: &'l mut Link<E>,
    at: &impl Fn(&E) -> Ordering,
    priority: u64,
    more: usize,
    missing: impl FnOnce() -> Arc<E>,
) -> &'l mut Arc<E> {
    match link.take() {
        Some(node) if node.priority >= priority => {
            let node = Arc::make_mut(link.insert(node));
            node.size += more;
            match at(&node.element) {
                Ordering::Greater => reach(&mut node.left, at, priority, more, missing),
                Ordering::Equal => &mut node.element,
                Ordering::Less => reach(&mut node.right, at, priority, more, missing),
            }
        }
        below => {
            let (left, _, right) = split(below, at);
            let node = link.insert(Arc::new(Node {
                size: 1 + size(&left) + size(&right),
                element: missing(),
                priority,
                left,
                right,
            }));
            &mut Arc::make_mut(node).element
        }
    }
}

fn take<E: Placed>(link: &mut Link<E>, at: &impl Fn(&E) -> Ordering) -> Option<Arc<E>> {
    let node = Arc::make_mut(link.as_mut()?);
    let taken = match at(&node.element) {
        Ordering::Equal => {
            let element = Arc::clone(&node.element);
            *link = join(node.left.take(), node.right.take());
            return Some(element);
        }
        Ordering::Greater => take(&mut node.left, at),
        Ordering::Less => take(&mut node.right, at),
    };
    node.count();
    taken
}

type Split<E> = (Link<E>, Option<Arc<E>>, Link<E>);

/// What stands before a place, there, and behind it.
fn split<E>(link: Link<E>, at: &dyn Fn(&E) -> Ordering) -> Split<E> {
    let Some(mut shared) = link else {
        return (None, None, None);
    };
    match at(&shared.element) {
        Ordering::Equal => {
            let node = Arc::unwrap_or_clone(shared);
            (node.left, Some(node.element), node.right)
        }
        Ordering::Less => {
            let node = Arc::make_mut(&mut shared);
            let (below, found, above) = split(node.right.take(), at);
            node.right = below;
            node.count();
            (Some(shared), found, above)
        }
        Ordering::Greater => {
            let node = Arc::make_mut(&mut shared);
            let (below, found, above) = split(node.left.take(), at);
            node.left = above;
            node.count();
            (below, found, Some(shared))
        }
    }
}

/// Puts two trees together, all places of the first being before those of the second.
fn join<E>(below: Link<E>, above: Link<E>) -> Link<E> {
    match (below, above) {
        (None, one) | (one, None) => one,
        (Some(mut low), Some(mut high)) => {
            if low.priority >= high.priority {
                let node = Arc::make_mut(&mut low);
                node.right = join(node.right.take(), Some(high));
                node.count();
                Some(low)
            } else {
                let node = Arc::make_mut(&mut high);
                node.left = join(Some(low), node.left.take());
                node.count();
                Some(high)
            }
        }
    }
}

fn differences<E: Placed, X>(
    before: &Link<E>,
    now: &Link<E>,
    show: &mut Show<'_, E, X>,
) -> Result<(), X> {
    match (before, now) {
        (None, None) => Ok(()),
        (Some(old), Some(new)) if Arc::ptr_eq(old, new) => Ok(()),
        (Some(old), Some(new)) if old.element.order(&new.element).is_eq() => {
            differences(&old.left, &new.left, show)?;
            if !Arc::ptr_eq(&old.element, &new.element) {
                show(Some(&old.element), Some(&new.element))?;
            }
            differences(&old.right, &new.right, show)
        }
        (Some(old), None) => {
            differences(&old.left, &None, show)?;
            show(Some(&old.element), None)?;
            differences(&old.right, &None, show)
        }
        (Some(old), Some(new)) if old.priority >= new.priority => {
            let at = |other: &E| other.order(&old.element);
            let (below, found, above) = split(now.clone(), &at);
            differences(&old.left, &below, show)?;
            if !found
                .as_ref()
                .is_some_and(|found| Arc::ptr_eq(found, &old.element))
            {
                show(Some(&old.element), found.as_deref())?;
            }
            differences(&old.right, &above, show)
        }
        (_, Some(new)) => {
            let at = |other: &E| other.order(&new.element);
            let (below, found, above) = split(before.clone(), &at);
            differences(&below, &new.left, show)?;
            if !found
                .as_ref()
                .is_some_and(|found| Arc::ptr_eq(found, &new.element))
            {
                show(found.as_deref(), Some(&new.element))?;
            }
            differences(&above, &new.right, show)
        }
    }
}

/// The elements of a [`Tree`], in order.
#[derive(Debug)]
pub(super) struct Iter<'a, E> {
    /// The nodes that are still to be returned and whose right sides are still to be walked; the
    /// next one is the last.
    path: Vec<&'a Node<E>>,
    left: usize,
}

impl<'a, E> Iter<'a, E> {
    fn descend(&mut self, mut link: &'a Link<E>) {
        while let Some(node) = link {
            self.path.push(node);
            link = &node.left;
        }
    }
}

impl<E> Clone for Iter<'_, E> {
    fn clone(&self) -> Self {
        Self {
            path: self.path.clone(),
            left: self.left,
        }
    }
}

impl<'a, E> Iterator for Iter<'a, E> {
    type Item = &'a E;

    fn next(&mut self) -> Option<&'a E> {
        let node = self.path.pop()?;
        self.descend(&node.right);
        self.left -= 1;
        Some(&node.element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<E> ExactSizeIterator for Iter<'_, E> {}

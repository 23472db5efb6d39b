//! Where a leaf lies: a sequence of names and numbers, kept as the tuple layer would encode it.
//!
//! A [`Path`] *is* its tuple encoding, so the order of paths is the order of the keys they become,
//! and a subtree is a range. Elements are strings (type code `0x02`) and integers (`0x0c` to
//! `0x1c`), nothing else: every other type code, nil (`0x00`) and bytes (`0x01`) say, is free for
//! chunk markers below a path.

use super::error::{CodecError, CodecErrorKind};
use std::borrow::Cow;
use std::fmt;

const STRING: u8 = 0x02;
/// The type code of zero; `n` bytes of a positive number are `0x14 + n`, of a negative `0x14 - n`.
const ZERO: u8 = 0x14;
/// Behind a zero byte inside a string. No type code is as large, which is what keeps the subtree of
/// `"a"` apart from the string `"a\0"`.
const ESCAPE: u8 = 0xff;

/// One element of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathElement<'a> {
    /// The name of a field, a string key of a map, or the id of a list's item.
    Str(Cow<'a, str>),
    /// An integer key of a map.
    Int(PathInt),
}

/// An integer key: any `i64` or `u64`. The two share one number line, as they do in the tuple layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathInt(i128);

impl PathInt {
    /// The number, if it is within the range of `i64` or of `u64`.
    pub(super) fn new(value: i128) -> Option<Self> {
        (i128::from(i64::MIN)..=i128::from(u64::MAX))
            .contains(&value)
            .then_some(Self(value))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> i128 {
        self.0
    }
}

impl From<i64> for PathInt {
    fn from(value: i64) -> Self {
        Self(value.into())
    }
}

impl From<u64> for PathInt {
    fn from(value: u64) -> Self {
        Self(value.into())
    }
}

impl<'a> From<&'a str> for PathElement<'a> {
    fn from(value: &'a str) -> Self {
        Self::Str(value.into())
    }
}

impl From<i64> for PathElement<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value.into())
    }
}

impl From<u64> for PathElement<'_> {
    fn from(value: u64) -> Self {
        Self::Int(value.into())
    }
}

/// The place of a leaf within a state. Paths order as the keys that they become.
///
/// ```
/// use abide::codec::Path;
///
/// let orders = Path::root().child("orders");
/// assert!(orders < orders.child(7_u64) && orders.child(7_u64) < orders.child(8_u64));
/// assert!(orders.contains(&orders.child(7_u64)));
/// assert_eq!(Path::from_tuple(orders.as_tuple())?, orders);
/// # Ok::<(), abide::codec::CodecError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Box<[u8]>);

impl Path {
    /// The place of the state itself.
    #[must_use]
    pub fn root() -> Self {
        Self(Box::default())
    }

    /// The path that `bytes`, the tuple encoding of its elements, spell.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](CodecErrorKind::Corrupt) if they are anything but canonically encoded strings
    /// and integers, or more of them than [`MAX_DEPTH`](super::MAX_DEPTH).
    pub fn from_tuple(bytes: &[u8]) -> Result<Self, CodecError> {
        let corrupt = || {
            CodecError::new(
                CodecErrorKind::Corrupt,
                format!("{bytes:02x?} are not the elements of a path"),
            )
        };
        let mut canonical = PathBuf::default();
        let mut rest = bytes;
        let mut depth = 0;
        while !rest.is_empty() {
            let (element, tail) = split(rest).ok_or_else(corrupt)?;
            canonical.push(&element);
            rest = tail;
            depth += 1;
            if depth > super::MAX_DEPTH {
                return Err(CodecError::new(
                    CodecErrorKind::Corrupt,
                    format!("a path of more than {} elements", super::MAX_DEPTH),
                ));
            }
        }
        // A number with leading zeros would be a second name for the same element.
        if canonical.0 != bytes {
            return Err(corrupt());
        }
        Ok(canonical.to_path())
    }

    /// The tuple encoding of the elements, one behind the other. Appended to the encoding of other
    /// elements it gives the encoding of the longer tuple.
    #[must_use]
    pub fn as_tuple(&self) -> &[u8] {
        &self.0
    }

    /// This path with one element more.
    #[must_use]
    pub fn child<'a>(&self, element: impl Into<PathElement<'a>>) -> Self {
        let mut longer = PathBuf(self.0.to_vec());
        longer.push(&element.into());
        longer.to_path()
    }

    /// The path that leads from here where `other` leads from the root.
    pub(super) fn join(&self, other: &Self) -> Self {
        Self([&*self.0, &*other.0].concat().into())
    }

    /// The path that leads to `other` from here, if that lies here or below.
    pub(super) fn strip(&self, other: &Self) -> Option<Self> {
        let rest = other.0.strip_prefix(&*self.0)?;
        (rest.first() != Some(&ESCAPE)).then(|| Self(rest.into()))
    }

    /// Behind all paths that lie below this one, and before all others that follow. No path itself.
    pub(super) fn end(&self) -> Self {
        Self([&*self.0, &[ESCAPE]].concat().into())
    }

    /// Whether `other` is this path or lies below it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other
            .0
            .strip_prefix(&*self.0)
            .is_some_and(|rest| rest.first() != Some(&ESCAPE))
    }

    /// The elements, from the root down.
    pub fn elements(&self) -> impl Iterator<Item = PathElement<'_>> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (element, tail) = split(rest)?;
            rest = tail;
            Some(element)
        })
    }

    /// The last element of `child`, if it is one element longer than this path.
    pub(super) fn element_of<'p>(&self, child: &'p Self) -> Option<PathElement<'p>> {
        let rest = child.0.strip_prefix(&*self.0)?;
        split(rest).and_then(|(element, rest)| rest.is_empty().then_some(element))
    }

    pub(super) fn steps(&self) -> Vec<Step> {
        self.elements().map(Step::from).collect()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::from("state");
        for step in self.steps() {
            step.render(&mut text);
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

/// A path under construction, so that a walk needs one buffer and not one allocation per level.
#[derive(Debug, Default)]
pub(super) struct PathBuf(Vec<u8>);

impl PathBuf {
    pub(super) fn push(&mut self, element: &PathElement<'_>) {
        match element {
            PathElement::Str(text) => self.push_str(text),
            PathElement::Int(number) => self.push_int(*number),
        }
    }

    /// Adds a step; one that no path has is left out.
    pub(super) fn push_step(&mut self, step: &Step) {
        match step {
            Step::Str(name) => self.push_str(name),
            Step::Int(number) => self.push_int(*number),
            Step::Other(_) | Step::Index(_) => {}
        }
    }

    pub(super) fn push_str(&mut self, text: &str) {
        self.0.push(STRING);
        for &byte in text.as_bytes() {
            self.0.push(byte);
            if byte == 0 {
                self.0.push(ESCAPE);
            }
        }
        self.0.push(0);
    }

    fn push_int(&mut self, number: PathInt) {
        // The magnitude of an `i64` or a `u64` fits 64 bits.
        #[allow(
            clippy::cast_possible_truncation,
            reason = "bounded by PathInt's range"
        )]
        let magnitude = number.0.unsigned_abs() as u64;
        let skip = (magnitude.leading_zeros() / 8) as usize;
        #[allow(clippy::cast_possible_truncation, reason = "at most eight")]
        let length = (8 - skip) as u8;
        if number.0 < 0 {
            // The complement makes larger magnitudes sort first.
            self.0.push(ZERO - length);
            let bytes = (!magnitude).to_be_bytes();
            self.0.extend(bytes.iter().skip(skip));
        } else {
            self.0.push(ZERO + length);
            let bytes = magnitude.to_be_bytes();
            self.0.extend(bytes.iter().skip(skip));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    pub(super) fn to_path(&self) -> Path {
        Path(self.0.as_slice().into())
    }
}

/// The first element and what follows it; `None` for anything that is no element.
fn split(bytes: &[u8]) -> Option<(PathElement<'_>, &[u8])> {
    let (&code, rest) = bytes.split_first()?;
    if code == STRING {
        return split_str(rest);
    }
    let length = usize::from(code.abs_diff(ZERO));
    if length > 8 {
        return None;
    }
    let (digits, rest) = rest.split_at_checked(length)?;
    let number = digits
        .iter()
        .fold(0_u64, |number, &digit| number << 8 | u64::from(digit));
    let value = if code < ZERO {
        let mask = u64::MAX >> (64 - 8 * length);
        -i128::from(!number & mask)
    } else {
        i128::from(number)
    };
    Some((PathElement::Int(PathInt::new(value)?), rest))
}

fn split_str(bytes: &[u8]) -> Option<(PathElement<'_>, &[u8])> {
    let mut unescaped = Vec::new();
    let mut rest = bytes;
    loop {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (piece, tail) = rest.split_at_checked(end)?;
        let tail = tail.get(1..)?;
        if tail.first() != Some(&ESCAPE) {
            let text = if unescaped.is_empty() {
                Cow::Borrowed(std::str::from_utf8(piece).ok()?)
            } else {
                unescaped.extend_from_slice(piece);
                Cow::Owned(String::from_utf8(unescaped).ok()?)
            };
            return Some((PathElement::Str(text), tail));
        }
        unescaped.extend_from_slice(piece);
        unescaped.push(0);
        rest = tail.get(1..)?;
    }
}

/// A step from a container to what it contains, also where that is inside one leaf.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Step {
    /// A field, a string key, an item's id, a variant.
    Str(Box<str>),
    Int(PathInt),
    /// A key of any other type, as MessagePack.
    Other(Box<[u8]>),
    /// A position in a tuple or in a list without ids.
    Index(usize),
}

impl Step {
    pub(super) fn render(&self, out: &mut String) {
        use fmt::Write as _;
        let plain =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Str(name) if plain(name) => write!(out, ".{name}"),
            Self::Str(name) => write!(out, "[{name:?}]"),
            Self::Int(number) => write!(out, "[{}]", number.0),
            Self::Other(bytes) => write!(out, "[{bytes:02x?}]"),
            Self::Index(index) => write!(out, "[#{index}]"),
        };
    }
}

impl From<PathElement<'_>> for Step {
    fn from(element: PathElement<'_>) -> Self {
        match element {
            PathElement::Str(text) => Self::Str(text.into()),
            PathElement::Int(number) => Self::Int(number),
        }
    }
}

impl From<&str> for Step {
    fn from(text: &str) -> Self {
        Self::Str(text.into())
    }
}

#[cfg(test)]
mod tests;

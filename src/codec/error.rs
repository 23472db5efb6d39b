//! What the codec answers instead of a value: the kind to act on, and where in the state it is.

use super::path::Step;
use std::fmt;

/// What went wrong, as far as the caller's next step depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CodecErrorKind {
    /// The value has no faithful encoding: it would come back as another one (`Some(None)`), or not
    /// at all (a `u128` inside an internally tagged enum). Change the type.
    Refused,
    /// The value is nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    TooDeep,
    /// Two entries of a map, or two fields of a struct, are written under the same name.
    DuplicateKey,
    /// The type's own `Serialize` failed.
    Serialize,
    /// The bytes are sound but do not fit the type: a missing field, another type, an unknown
    /// variant. A newer or an older version of the type may read them.
    Mismatch,
    /// The bytes are not what the codec writes.
    Corrupt,
    /// The text is not JSON, or not the JSON form of a [`Value`](super::Value).
    Json,
    /// There are no leaves: no state was ever written.
    Missing,
}

impl fmt::Display for CodecErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "the value cannot be stored faithfully",
            Self::TooDeep => "the value is nested too deeply",
            Self::DuplicateKey => "a name is used twice",
            Self::Serialize => "the value does not serialize",
            Self::Mismatch => "the stored value does not fit the type",
            Self::Corrupt => "the stored bytes are corrupt",
            Self::Json => "the JSON text is not understood",
            Self::Missing => "there is no stored value",
        })
    }
}

/// An error of the codec: a [kind](CodecErrorKind) to act on, the path of the value it is about, and
/// a sentence for people.
///
/// What serde reads through a buffer of its own (below a flattened field, a tagged or an untagged
/// enum) is named by the path of the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: CodecErrorKind,
    message: String,
    /// From the value up to the root, because errors are told where they are on their way out.
    steps: Vec<Step>,
}

impl CodecError {
    pub(crate) fn new(kind: CodecErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            steps: Vec::new(),
        }))
    }

    /// The same error, seen from one container further out.
    pub(super) fn at(mut self, step: Step) -> Self {
        self.0.steps.push(step);
        self
    }

    /// The same error at a path that is known as a whole.
    pub(crate) fn at_path(mut self, path: &super::Path) -> Self {
        self.0.steps.extend(path.steps().into_iter().rev());
        self
    }

    pub(super) fn with_kind(mut self, kind: CodecErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What the caller can act on.
    #[must_use]
    pub fn kind(&self) -> CodecErrorKind {
        self.0.kind
    }

    /// Where it is, from the state down: `state.orders["a b"][7].price`.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = String::from("state");
        for step in self.0.steps.iter().rev() {
            step.render(&mut path);
        }
        path
    }

    /// What exactly is wrong there.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.kind(), self.path(), self.message())
    }
}

impl std::error::Error for CodecError {}

impl serde::ser::Error for CodecError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(CodecErrorKind::Serialize, message.to_string())
    }
}

impl serde::de::Error for CodecError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(CodecErrorKind::Mismatch, message.to_string())
    }
}

//! What an operation answers instead of a result.

use crate::codec::CodecError;
use crate::durable::SessionError;
use crate::id::InvalidInstanceId;
use crate::store::{StoreError, StoreErrorKind};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What went wrong, as far as the operator's next step depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AdminErrorKind {
    /// What was named is not there.
    NotFound,
    /// It would break something. Nothing was changed.
    Refused,
    /// The request itself is wrong: a name that is none, a value that cannot be read. Nothing was
    /// changed.
    Invalid,
    /// What the operation needs is damaged in the store. [`doctor`](super::Admin::doctor) tells more.
    Corrupt,
    /// The store cannot be reached now. Nothing was changed by the step that failed.
    Unavailable,
    /// Whether the last step landed cannot be found out. Look before doing it again.
    OutcomeUnknown,
    /// The store failed in a way that a retry does not mend, or is of another version of this crate.
    Failed,
}

impl fmt::Display for AdminErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Corrupt => "the store holds something unexpected",
            Self::Unavailable => "the store is unavailable",
            Self::OutcomeUnknown => "the outcome is unknown",
            Self::Failed => "the store failed",
        })
    }
}

/// An error of an operation: a [kind](AdminErrorKind) to act on, a sentence for people, and the
/// error behind it as the [source](StdError::source).
///
/// One that stands for an error of the store says what that says, and has its source.
///
/// Cloning is cheap; the source is shared.
#[derive(Debug, Clone)]
pub struct AdminError {
    kind: AdminErrorKind,
    message: Option<Arc<str>>,
    source: Option<Source>,
}

#[derive(Debug, Clone)]
enum Source {
    Store(StoreError),
    Session(SessionError),
    Other(Arc<dyn StdError + Send + Sync>),
}

impl AdminError {
    pub(super) fn new(kind: AdminErrorKind, message: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            message: Some(message.into()),
            source: None,
        }
    }

    pub(super) fn not_found(message: impl Into<Arc<str>>) -> Self {
        Self::new(AdminErrorKind::NotFound, message)
    }

    pub(super) fn refused(message: impl Into<Arc<str>>) -> Self {
        Self::new(AdminErrorKind::Refused, message)
    }

    pub(super) fn invalid(message: impl Into<Arc<str>>) -> Self {
        Self::new(AdminErrorKind::Invalid, message)
    }

    pub(super) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Source::Other(Arc::new(source)));
        self
    }

    /// What the caller can act on.
    #[must_use]
    pub fn kind(&self) -> AdminErrorKind {
        self.kind
    }

    /// The error of the store that this one stands for, or this one back.
    pub(super) fn into_store(self) -> Result<StoreError, Self> {
        match self.source {
            Some(Source::Store(error)) => Ok(error),
            _ => Err(self),
        }
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.message, &self.source) {
            (Some(message), _) => write!(f, "{}: {message}", self.kind),
            (None, Some(Source::Store(error))) => error.fmt(f),
            (None, _) => self.kind.fmt(f),
        }
    }
}

impl StdError for AdminError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self.source.as_ref()? {
            Source::Store(error) => error.source(),
            Source::Session(error) => Some(error),
            Source::Other(error) => Some(error.as_ref()),
        }
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        let kind = match error.kind() {
            StoreErrorKind::Conflict
            | StoreErrorKind::TooOld
            | StoreErrorKind::Unavailable
            | StoreErrorKind::Locked => AdminErrorKind::Unavailable,
            StoreErrorKind::MaybeCommitted => AdminErrorKind::OutcomeUnknown,
            StoreErrorKind::Corrupt => AdminErrorKind::Corrupt,
            StoreErrorKind::InvalidCall => AdminErrorKind::Invalid,
            _ => AdminErrorKind::Failed,
        };
        Self {
            kind,
            message: None,
            source: Some(Source::Store(error)),
        }
    }
}

impl From<SessionError> for AdminError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Store(error) => error.into(),
            gone @ SessionError::SessionGone => Self {
                kind: AdminErrorKind::OutcomeUnknown,
                message: None,
                source: Some(Source::Session(gone)),
            },
        }
    }
}

impl From<CodecError> for AdminError {
    fn from(error: CodecError) -> Self {
        Self {
            kind: AdminErrorKind::Invalid,
            message: None,
            source: Some(Source::Other(Arc::new(error))),
        }
    }
}

impl From<InvalidInstanceId> for AdminError {
    fn from(error: InvalidInstanceId) -> Self {
        Self {
            kind: AdminErrorKind::Invalid,
            message: None,
            source: Some(Source::Other(Arc::new(error))),
        }
    }
}

//! What a store can answer instead of a result, told apart by what the caller can do about it.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, as far as the caller's next step depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Another transaction changed what this one read. Nothing was committed; run it again.
    Conflict,
    /// The read version is too old (or, rarely, too new) to be read. Nothing was committed; run the
    /// transaction again from a fresh version.
    TooOld,
    /// The store cannot serve the request now. Nothing was committed; try again later.
    Unavailable,
    /// The commit may or may not have happened, and may even happen later. Only a durable marker
    /// tells (see the crate's documents on outcome markers).
    MaybeCommitted,
    /// The store is locked by its operator (a restore or a switch-over). Nothing was committed.
    Locked,
    /// A key is longer than [`MAX_KEY_BYTES`](crate::store::MAX_KEY_BYTES).
    KeyTooLarge,
    /// A value is longer than [`MAX_VALUE_BYTES`](crate::store::MAX_VALUE_BYTES).
    ValueTooLarge,
    /// The transaction affects more than
    /// [`MAX_TRANSACTION_BYTES`](crate::store::MAX_TRANSACTION_BYTES).
    TransactionTooLarge,
    /// A read touched what the same transaction wrote at a versionstamped key or value, which is
    /// known only after the commit. Read first, write afterwards.
    Unreadable,
    /// The call itself is wrong: an inverted range, a key outside the user key space, an offset
    /// beyond its template, a transaction used after its commit. Mend the caller.
    InvalidCall,
    /// The address of the store is wrong, or what is there is not a store, or one of a newer version
    /// of this crate.
    InvalidStore,
    /// The store holds bytes that this crate does not write.
    Corrupt,
    /// The store failed in a way that a retry does not mend (a full disk, a read-only file).
    Failed,
}

impl StoreErrorKind {
    /// Whether running the transaction again, unchanged, is safe and may succeed.
    ///
    /// Never true of [`MaybeCommitted`](StoreErrorKind::MaybeCommitted): a second run could apply
    /// the change twice.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Conflict | Self::TooOld | Self::Unavailable | Self::Locked
        )
    }
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conflict => "the transaction conflicts with another one",
            Self::TooOld => "the transaction's read version is not readable any more",
            Self::Unavailable => "the store is unavailable",
            Self::MaybeCommitted => "the commit's outcome is unknown",
            Self::Locked => "the store is locked",
            Self::KeyTooLarge => "a key is too large",
            Self::ValueTooLarge => "a value is too large",
            Self::TransactionTooLarge => "the transaction is too large",
            Self::Unreadable => "a read touched a versionstamped write of its own transaction",
            Self::InvalidCall => "the store was called wrongly",
            Self::InvalidStore => "the store cannot be opened",
            Self::Corrupt => "the store holds something unexpected",
            Self::Failed => "the store failed",
        })
    }
}

/// An error of a store: a [kind](StoreErrorKind) to act on, a sentence for people, and the backend's
/// own error as the [source](StdError::source).
///
/// Cloning is cheap; the source is shared.
#[derive(Debug, Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    key: Option<bytes::Bytes>,
    context: Option<std::sync::Arc<str>>,
    source: Option<std::sync::Arc<dyn StdError + Send + Sync>>,
}

impl StoreError {
    /// An error of this kind, with nothing more to say.
    #[must_use]
    pub fn new(kind: StoreErrorKind) -> Self {
        Self {
            kind,
            key: None,
            context: None,
            source: None,
        }
    }

    /// Adds a sentence that names the thing and what to do about it.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into().into());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(std::sync::Arc::new(source));
        self
    }

    /// Remembers the key that it is about.
    pub(crate) fn at(mut self, key: &[u8]) -> Self {
        self.key = Some(bytes::Bytes::copy_from_slice(key));
        self
    }

    /// The key that it is about, if it is about a single one.
    pub(crate) fn key(&self) -> Option<&bytes::Bytes> {
        self.key.as_ref()
    }

    /// The sentence, without the kind.
    pub(crate) fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// Says what the error is about, before the sentence that is there.
    pub(crate) fn about(mut self, what: &str) -> Self {
        self.context = Some(match self.context.take() {
            Some(context) => format!("{what}: {context}").into(),
            None => what.into(),
        });
        self
    }

    /// What the caller can act on.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether running the transaction again is safe and may succeed; see
    /// [`StoreErrorKind::is_retryable`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }

    /// Whether the transaction may have been committed.
    #[must_use]
    pub fn is_maybe_committed(&self) -> bool {
        self.kind == StoreErrorKind::MaybeCommitted
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.context {
            Some(context) => write!(f, "{}: {context}", self.kind),
            None => self.kind.fmt(f),
        }
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<StoreErrorKind> for StoreError {
    fn from(kind: StoreErrorKind) -> Self {
        Self::new(kind)
    }
}

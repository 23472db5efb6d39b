//! What the doctor finds, by name.

use crate::id::InstanceId;
use bytes::Bytes;

/// What is wrong, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingCode {
    /// A key that abide does not write, or under the number of another shard.
    ForeignKey,
    /// A value that cannot be read.
    UndecodableValue,
    /// A record that cannot be read, and that can be written anew without losing a message or a
    /// state: attempts, a directory entry, a ready mark, a wake counter.
    UndecodableRecord,
    /// A value of which chunks are missing.
    IncompleteChunks,
    /// Chunks without the first of their value.
    OrphanedChunks,
    /// A ready mark of an instance that has neither messages nor a lock.
    MarkOverNothing,
    /// Messages, or a lock, without a ready mark: no node will look at them.
    MissingMark,
    /// The mailbox's length is not the number of its messages.
    WrongLength,
    /// The mailbox is so long that its length was not checked.
    LengthNotChecked,
    /// A record of attempts at a message that is not at the head.
    StaleAttempts,
    /// State leaves without a version: the next turn would begin a new state among them.
    LeavesWithoutVersion,
    /// A version without a state's first leaf.
    VersionWithoutLeaves,
    /// A state that the directory does not list.
    StateWithoutEntry,
    /// A directory entry of an instance that has no state.
    EntryWithoutState,
    /// A message under no lock: nobody would ever look at it, and the next lock would write over it.
    MessageWithoutLock,
    /// A lock without the message that it is held for: whoever takes it over has nothing to run.
    LockWithoutMessage,
    /// Replies for a session that is gone.
    RepliesOfAbsentSession,
    /// Outcome markers, or the wake counter of its replies, of a session that is gone.
    RemainsOfAbsentSession,
    /// An import that has not come to its end.
    UnfinishedImport,
    /// The namespace is of a layout that this version of the crate does not read.
    OtherLayout,
}

impl FindingCode {
    /// The name, as tools show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ForeignKey => "foreign-key",
            Self::UndecodableValue => "undecodable-value",
            Self::UndecodableRecord => "undecodable-record",
            Self::IncompleteChunks => "incomplete-chunks",
            Self::OrphanedChunks => "orphaned-chunks",
            Self::MarkOverNothing => "mark-over-nothing",
            Self::MissingMark => "missing-mark",
            Self::WrongLength => "wrong-length",
            Self::LengthNotChecked => "length-not-checked",
            Self::StaleAttempts => "stale-attempts",
            Self::LeavesWithoutVersion => "leaves-without-version",
            Self::VersionWithoutLeaves => "version-without-leaves",
            Self::StateWithoutEntry => "state-without-entry",
            Self::EntryWithoutState => "entry-without-state",
            Self::MessageWithoutLock => "message-without-lock",
            Self::LockWithoutMessage => "lock-without-message",
            Self::RepliesOfAbsentSession => "replies-of-absent-session",
            Self::RemainsOfAbsentSession => "remains-of-absent-session",
            Self::UnfinishedImport => "unfinished-import",
            Self::OtherLayout => "other-layout",
        }
    }

    /// Whether [`Admin::fix`](crate::admin::Admin::fix) mends it without losing anything.
    #[must_use]
    pub fn is_fixable(self) -> bool {
        matches!(
            self,
            Self::UndecodableRecord
                | Self::MarkOverNothing
                | Self::MissingMark
                | Self::WrongLength
                | Self::StaleAttempts
                | Self::StateWithoutEntry
                | Self::EntryWithoutState
                | Self::MessageWithoutLock
                | Self::RepliesOfAbsentSession
                | Self::RemainsOfAbsentSession
        )
    }
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub code: FindingCode,
    /// The key that shows it.
    pub key: Bytes,
    /// Whose it is, where that is known.
    pub instance: Option<InstanceId>,
    /// What it means, and what to do, in a sentence.
    pub explanation: String,
}

impl Finding {
    pub(super) fn new(
        code: FindingCode,
        key: impl Into<Bytes>,
        explanation: impl Into<String>,
    ) -> Self {
        Self {
            code,
            key: key.into(),
            instance: None,
            explanation: explanation.into(),
        }
    }

    pub(super) fn of(self, instance: &InstanceId) -> Self {
        Self {
            instance: Some(instance.clone()),
            ..self
        }
    }

    /// Whether [`Admin::fix`](crate::admin::Admin::fix) mends it.
    #[must_use]
    pub fn is_fixable(&self) -> bool {
        self.code.is_fixable()
    }
}

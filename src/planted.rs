//! Mistakes at the subtle places, planted by the tests that must find them.
//!
//! Each is one condition where the code could easily have been written wrong. Without the feature
//! `testing` the condition is a constant, and nothing of it is left in the build.

/// A mistake that a test can plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "testing", non_exhaustive)]
#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, unreachable_pub, reason = "only tests plant")
)]
pub enum Bug {
    /// A pop has no read conflict on the messages it removes.
    PopWithoutConflict,
    /// A pop adds its read conflict after the clear, where the store drops it.
    ConflictAfterClear,
    /// The length is not adjusted when messages are popped.
    LengthNotAdjusted,
    /// Whoever removes a head leaves its record of attempts behind.
    AttemptsLeftBehind,
    /// The messages of one transaction all get the same user version.
    UserVersionsRepeated,
    /// A push does not bump its shard's wake counter.
    PushWakesNobody,
    /// The ready mark is cleared whatever its value.
    MarkClearedBlindly,
    /// The ready mark is cleared although a lock is held.
    MarkClearedWhileLocked,
    /// A state in memory is taken for the committed one, whatever its version.
    StaleCacheAccepted,
    /// The state's version is read without a conflict.
    VersionBySnapshot,
    /// A chained turn acts on reads that its own transaction does not vouch for.
    ChainedUnread,
    /// A chained turn with messages from memory has no conflict on the mailbox.
    ChainedWithoutMailboxConflict,
    /// A query is answered from what was read before it came.
    QueryFromPrefetch,
    /// A turn that was woken reads at a version before the wake.
    WakeReadOlder,
    /// The scan arms its watch in another transaction than the one that looked.
    ScanWatchesLater,
    /// The inbox arms its watch in another transaction than the one that looked.
    InboxWatchesLater,
    /// An unknown outcome counts as a failure: the work is simply done again.
    UnknownAsFailure,
    /// An unknown outcome counts as a success.
    UnknownAsSuccess,
    /// An attempt has no conflict on the marker, so a late one lands beside its retry.
    NoMarkerConflict,
    /// A blind attempt's commit obtains its read version late.
    BlindUnpinned,
    /// After an unknown outcome the work goes on under another lane's marker.
    WorkMovesLane,
    /// A reply is staged in a transaction of its own.
    ReplyStagedApart,
    /// A caller in the same process is answered before the commit.
    AnswerBeforeCommit,
    /// Effects run before the commit.
    EffectsBeforeCommit,
    /// The state in memory is changed before the commit.
    CacheBeforeCommit,
    /// The token of a lock is not compared.
    LockTokenUnchecked,
    /// A lock's age is judged by the wall clock.
    LeaseByWallClock,
    /// A lock is judged by observations that are far apart.
    LeaseByFewObservations,
    /// Messages from memory come before those that stand in the mailbox.
    InlineBeforeMailbox,
    /// A claim is not given back by whoever does not run the message.
    ClaimNotReleased,
    /// A failure is counted against the first message of the batch instead of the one that failed.
    WrongMessageBlamed,
    /// What a handler did before it failed stays in the state.
    PartialStateKept,
    /// What a handler did before it refused stays in the state.
    RejectedStateKept,
    /// A kill deletes without looking whether a message has come meanwhile.
    KillDoesNotLook,
    /// A session is judged by observations that are far apart.
    SweepAfterOutage,
    /// A scan reads marks although there is no room for more work.
    ScanWithoutRoom,
    /// A turn has a watch, which is a read that pushes conflict with.
    TurnWatches,
    /// A state or a name that a node does not know counts against the message.
    UnfitCounts,
    /// No mistake but a loss that must do no harm: notifications within a process do not arrive.
    NotificationsLost,
}

#[cfg(feature = "testing")]
mod current {
    use super::Bug;
    use std::cell::Cell;

    std::thread_local! {
        static CURRENT: Cell<Option<Bug>> = const { Cell::new(None) };
        static DEAF: Cell<bool> = const { Cell::new(false) };
    }

    impl Bug {
        /// Every mistake that shows in what the simulation checks: not those that only cost time or
        /// attempts, and not what must do no harm.
        pub const ALL: [Self; 34] = [
            Self::PopWithoutConflict,
            Self::ConflictAfterClear,
            Self::LengthNotAdjusted,
            Self::AttemptsLeftBehind,
            Self::UserVersionsRepeated,
            Self::PushWakesNobody,
            Self::MarkClearedBlindly,
            Self::MarkClearedWhileLocked,
            Self::StaleCacheAccepted,
            Self::VersionBySnapshot,
            Self::ChainedUnread,
            Self::ChainedWithoutMailboxConflict,
            Self::QueryFromPrefetch,
            Self::ScanWatchesLater,
            Self::InboxWatchesLater,
            Self::UnknownAsFailure,
            Self::UnknownAsSuccess,
            Self::NoMarkerConflict,
            Self::BlindUnpinned,
            Self::WorkMovesLane,
            Self::ReplyStagedApart,
            Self::AnswerBeforeCommit,
            Self::EffectsBeforeCommit,
            Self::CacheBeforeCommit,
            Self::LockTokenUnchecked,
            Self::LeaseByWallClock,
            Self::LeaseByFewObservations,
            Self::InlineBeforeMailbox,
            Self::ClaimNotReleased,
            Self::WrongMessageBlamed,
            Self::PartialStateKept,
            Self::RejectedStateKept,
            Self::KillDoesNotLook,
            Self::SweepAfterOutage,
        ];
    }

    /// Plants a mistake for whatever runs on this thread, or none. Returns what was planted before.
    pub fn plant(bug: Option<Bug>) -> Option<Bug> {
        CURRENT.replace(bug)
    }

    /// Loses all notifications within the processes that run on this thread, whatever else is planted,
    /// until told otherwise. Returns whether they were lost before.
    pub fn lose_notifications(lost: bool) -> bool {
        DEAF.replace(lost)
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        CURRENT.get() == Some(bug) || bug == Bug::NotificationsLost && DEAF.get()
    }
}

#[cfg(feature = "testing")]
pub(crate) use current::planted;
#[cfg(feature = "testing")]
pub use current::{lose_notifications, plant};

/// Nothing is ever planted in what is shipped.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

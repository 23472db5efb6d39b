//! The conformance suite: what every store must do, as tests.
//!
//! A backend is checked by one macro, which expands to one `#[test]` per case, each on a fresh
//! store:
//!
//! ```
//! use abide::env::BoxFuture;
//! use abide::store::MemoryStore;
//! use abide::testing::conformance::{Fixture, Opened};
//! use std::sync::Arc;
//!
//! struct Memory;
//!
//! impl Fixture for Memory {
//!     fn open(&self) -> BoxFuture<'_, Option<Opened>> {
//!         Box::pin(async { Some(Opened::new(Arc::new(MemoryStore::new()))) })
//!     }
//! }
//!
//! abide::store_conformance!(Memory);
//! ```
//!
//! A store that several processes can open is also checked with every transaction in a process of
//! its own, so that no shortcut through shared memory can pass: see
//! [`store_conformance_across_processes!`](crate::store_conformance_across_processes).
//!
//! Like any test, a case panics when the store is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests: a panic is how they report"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the cases run under tokio, beside whatever threads a store has"
)]

mod atomics;
mod conflicts;
mod harness;
mod limits;
mod outcomes;
mod random;
mod ranges;
mod reads;
mod remote;
mod stamps;
mod versions;
mod watches;

pub use harness::{CaseName, Fixture, Opened, run, run_across_processes};
pub use remote::serve_worker;

use harness::Case;

/// The one list of cases. Each is a function of the module it stands under; a function that is
/// missing here is dead code, which the compiler reports.
///
/// The groups are expanded by the callback: `local` cases run within one process, `concurrent` ones
/// also with every transaction in a process of its own.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_cases {
    ($callback:path $(, $argument:tt)*) => {
        $callback! {
            [$($argument)*]
            local {
                reads {
                    a_missing_key_reads_as_none,
                    a_transaction_reads_its_own_sets,
                    a_transaction_reads_its_own_clears,
                    a_transaction_reads_its_own_cleared_ranges,
                    a_transaction_reads_its_own_additions,
                    a_transaction_reads_its_own_compare_and_clears,
                    a_set_after_a_clear_is_read,
                    snapshot_reads_see_own_writes,
                    reads_do_not_see_what_is_committed_later,
                    many_reads_of_one_transaction_run_at_once,
                    empty_keys_and_values_are_kept,
                    an_uncommitted_transaction_leaves_nothing,
                    a_commit_applies_all_writes_together,
                    a_transaction_can_be_spawned,
                }
                ranges {
                    keys_are_ordered_by_bytes,
                    a_range_is_limited_from_its_begin,
                    a_reversed_range_is_limited_from_its_end,
                    own_writes_are_merged_into_ranges,
                    own_writes_are_merged_into_limited_and_reversed_ranges,
                    an_empty_range_and_a_limit_of_zero_read_nothing,
                    clear_range_excludes_its_end,
                    a_hundred_thousand_keys_are_read_whole_and_by_page,
                }
                atomics {
                    add_to_a_missing_key_sets_it,
                    add_carries_and_wraps,
                    add_takes_the_length_of_its_operand,
                    several_additions_in_one_transaction_accumulate,
                    compare_and_clear_removes_only_an_equal_value,
                    compare_and_clear_sees_the_operations_before_it,
                    compare_and_clear_then_a_stamped_value_leaves_the_stamp,
                }
                stamps {
                    a_stamped_key_holds_the_stamp_of_its_commit,
                    a_stamped_value_holds_the_stamp_of_its_commit,
                    a_stamp_goes_where_its_offset_says,
                    user_versions_keep_the_keys_of_one_commit_apart,
                    an_offset_without_room_fails_the_commit,
                    a_range_over_an_own_stamped_key_is_unreadable,
                    an_own_stamped_value_is_unreadable,
                    an_unreadable_read_fails_the_transaction_whatever_is_written_meanwhile,
                    stamps_increase_from_commit_to_commit,
                }
                versions {
                    a_read_version_stays_the_same,
                    a_read_version_includes_acknowledged_commits,
                    a_read_only_commit_returns_nothing,
                    a_commit_version_is_above_its_read_version,
                    a_chosen_version_shows_exactly_that_version_or_is_too_old,
                    the_version_of_the_newest_commit_can_be_chosen,
                    a_version_that_never_was_cannot_be_read,
                    a_version_chosen_after_a_read_fails_the_transaction,
                    a_transaction_is_used_up_by_its_commit,
                }
                conflicts {
                    a_read_of_an_own_set_does_not_conflict,
                    a_conflict_added_after_the_clear_is_dropped,
                    a_read_only_transaction_is_not_checked,
                    an_empty_read_does_not_conflict,
                }
                limits {
                    the_longest_key_is_kept_and_a_longer_one_refused,
                    the_longest_value_is_kept_and_a_longer_one_refused,
                    a_transaction_below_the_limit_commits_and_one_above_does_not,
                    operands_are_limited_as_values_are,
                    conflicts_count_towards_the_size_of_a_transaction,
                    an_old_transaction_is_too_old,
                    keys_of_the_store_itself_are_refused,
                    an_inverted_range_is_refused,
                }
                watches {
                    a_watch_does_not_fire_before_a_change,
                    a_watch_does_not_fire_on_the_transactions_own_write,
                    a_watch_of_an_own_write_fires_on_the_next_change,
                    a_watch_of_an_uncommitted_transaction_ends_with_an_error,
                    dropped_watches_do_not_disturb_others,
                    ten_thousand_watches_fire,
                }
                outcomes {
                    the_marker_recipe_applies_a_change_once_whatever_the_outcomes,
                }
            }
            concurrent {
                conflicts {
                    a_lost_update_is_prevented,
                    a_write_skew_is_prevented,
                    a_phantom_is_prevented,
                    a_phantom_in_a_reversed_range_is_prevented,
                    a_missing_key_that_appears_conflicts,
                    a_cleared_key_conflicts_with_its_readers,
                    a_cleared_range_conflicts_with_readers_inside_it,
                    a_snapshot_read_does_not_conflict,
                    a_snapshot_range_does_not_conflict,
                    a_full_limited_read_conflicts_up_to_its_last_key,
                    a_full_limited_read_does_not_conflict_behind_its_last_key,
                    a_short_limited_read_conflicts_to_the_end,
                    a_full_reversed_read_conflicts_down_to_its_last_key,
                    a_full_reversed_read_does_not_conflict_below_its_last_key,
                    blind_sets_of_one_key_do_not_conflict,
                    additions_to_one_key_do_not_conflict,
                    stamped_values_of_one_key_do_not_conflict,
                    a_stamped_value_conflicts_with_readers_of_its_key,
                    a_stamped_key_conflicts_with_readers_of_its_range,
                    a_read_of_an_added_key_conflicts,
                    an_explicit_conflict_on_a_key_counts,
                    an_explicit_conflict_on_a_range_counts,
                    an_explicit_conflict_added_before_a_clear_counts,
                    two_poppers_of_one_head_do_not_both_commit,
                    pushes_behind_a_popped_head_do_not_conflict,
                }
                stamps {
                    stamped_pushes_do_not_conflict_and_come_in_commit_order,
                }
                versions {
                    a_commit_is_seen_by_whoever_begins_after_it,
                    writes_are_invisible_until_the_commit,
                }
                watches {
                    a_watch_fires_after_a_later_commit,
                    a_watch_fires_when_its_key_is_cleared,
                    a_watch_fires_when_its_key_is_created,
                    a_watch_fires_on_a_stamped_value_and_on_an_addition,
                    a_watch_sees_a_change_between_its_read_and_its_commit,
                }
                outcomes {
                    a_contended_counter_is_exact,
                }
                random {
                    random_transactions_equal_a_serial_replay_in_stamp_order,
                }
            }
        }
    };
}

/// Expands to one `#[test]` per case, each on what the fixture opens.
///
/// Use it once per module; the argument is an expression that makes a
/// [`Fixture`](crate::testing::conformance::Fixture).
#[macro_export]
macro_rules! store_conformance {
    ($fixture:expr) => {
        $crate::__store_cases!($crate::__store_tests, ($fixture));
    };
}

/// As [`store_conformance!`], for the cases in which transactions compete, with every transaction
/// in a process of its own. The fixture must state a [URL](crate::testing::conformance::Opened::with_url).
///
/// Adds one test named `worker`, which is the other processes: they run the test binary again.
#[macro_export]
macro_rules! store_conformance_across_processes {
    ($fixture:expr) => {
        $crate::__store_cases!($crate::__store_process_tests, ($fixture));

        #[test]
        fn worker() {
            $crate::testing::conformance::serve_worker();
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_tests {
    ([($fixture:expr)] local { $($m:ident { $($case:ident,)* })* } concurrent { $($n:ident { $($other:ident,)* })* }) => {
        $($(
            #[test]
            fn $case() {
                $crate::testing::conformance::run(stringify!($case), &$fixture);
            }
        )*)*
        $($(
            #[test]
            fn $other() {
                $crate::testing::conformance::run(stringify!($other), &$fixture);
            }
        )*)*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_process_tests {
    ([($fixture:expr)] local { $($m:ident { $($case:ident,)* })* } concurrent { $($n:ident { $($other:ident,)* })* }) => {
        $($(
            #[test]
            fn $other() {
                let worker = concat!(module_path!(), "::worker");
                $crate::testing::conformance::run_across_processes(
                    stringify!($other), &$fixture, worker,
                );
            }
        )*)*
    };
}

macro_rules! table {
    ([] local { $($m:ident { $($case:ident,)* })* } concurrent { $($n:ident { $($other:ident,)* })* }) => {
        /// Every case, by name.
        const CASES: &[(CaseName, Case)] = &[
            $($((stringify!($case), |space| Box::pin($m::$case(space))),)*)*
            $($((stringify!($other), |space| Box::pin($n::$other(space))),)*)*
        ];
    };
}

__store_cases!(table);

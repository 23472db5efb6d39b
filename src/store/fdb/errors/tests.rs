use super::*;
use StoreErrorKind as Kind;
use std::error::Error;

fn error(code: i32) -> FdbError {
    FdbError::from_code(code)
}

/// Every code that FoundationDB's source defines lies below.
const CODES: std::ops::Range<i32> = 1..5_000;

#[test]
fn what_the_client_calls_maybe_committed_is_just_that_after_a_commit() {
    let codes: Vec<i32> = CODES
        .filter(|code| error(*code).is_maybe_committed())
        .collect();
    assert_eq!(codes, [1021, 1039]);
    for code in codes {
        assert_eq!(committing(error(code), true).kind(), Kind::MaybeCommitted);
    }
}

#[test]
fn what_the_client_calls_retryable_and_not_committed_is_retryable() {
    for code in CODES.filter(|code| error(*code).is_retryable_not_committed()) {
        assert!(committing(error(code), true).is_retryable(), "code {code}");
        assert!(reading(error(code)).is_retryable(), "code {code}");
    }
}

#[test]
fn a_commit_that_was_cut_off_has_an_unknown_outcome() {
    // Timed out, cancelled, broken promise, internal error, a code of the future.
    for code in [1031, 1025, 1101, 1100, 4100, 4999] {
        assert_eq!(
            committing(error(code), true).kind(),
            Kind::MaybeCommitted,
            "code {code}"
        );
    }
}

#[test]
fn without_writes_no_outcome_is_unknown() {
    for code in CODES {
        assert_ne!(committing(error(code), false).kind(), Kind::MaybeCommitted);
        assert_ne!(reading(error(code)).kind(), Kind::MaybeCommitted);
    }
}

#[test]
fn the_codes_of_the_contract_have_their_kinds() {
    let expected = [
        (1020, Kind::Conflict),
        (1007, Kind::TooOld),
        (1009, Kind::TooOld),
        (1036, Kind::Unreadable),
        (1037, Kind::Unavailable),
        (1038, Kind::Locked),
        (1213, Kind::Unavailable),
        (2101, Kind::TransactionTooLarge),
        (2102, Kind::KeyTooLarge),
        (2103, Kind::ValueTooLarge),
        (2000, Kind::InvalidCall),
        (2004, Kind::InvalidCall),
        (2005, Kind::InvalidCall),
        (2017, Kind::InvalidCall),
        (2104, Kind::InvalidStore),
        (2203, Kind::InvalidStore),
    ];
    for (code, kind) in expected {
        assert_eq!(committing(error(code), true).kind(), kind, "code {code}");
        assert_eq!(reading(error(code)).kind(), kind, "code {code}");
    }
}

#[test]
fn a_watch_that_fails_says_look_again() {
    for code in [1020, 1021, 1025, 1029, 1032, 1038, 4100] {
        assert_eq!(
            watching(error(code)).kind(),
            Kind::Unavailable,
            "code {code}"
        );
    }
}

#[test]
fn the_source_names_the_code_and_the_message_does_not_repeat_it() {
    let error = reading(error(1007));
    let source = error.source().expect("a source").to_string();
    assert!(source.starts_with("FoundationDB error 1007: "), "{source}");
    assert!(!error.to_string().contains(&source));
}

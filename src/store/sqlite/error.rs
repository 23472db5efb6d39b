//! From SQLite's errors to the store's.

use super::super::{StoreError, StoreErrorKind};
use rusqlite::{Error, ErrorCode};
use std::path::Path;

/// What an error of SQLite means to the caller, given that nothing was committed.
///
/// A failed `COMMIT` is judged by the writer instead: there "nothing was committed" is the question.
pub(super) fn translate(path: &Path, doing: &str, error: Error) -> StoreError {
    let (kind, advice) = meaning(&error);
    StoreError::new(kind)
        .with_context(format!("{doing} `{}`: {advice}", path.display()))
        .with_source(error)
}

/// As [`translate`], while the file is being opened: what is wrong then is the address.
pub(super) fn translate_open(path: &Path, error: Error) -> StoreError {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "the file is not an SQLite database; name another file",
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "the file or its directory cannot be opened for writing; check the path and permissions"
        }
        Some(ErrorCode::ReadOnly) => "the file is read-only; make it and its directory writable",
        _ => return translate(path, "opening", error),
    };
    refuse(path, advice).with_source(error)
}

/// The address of a store is wrong.
pub(super) fn refuse(path: &Path, advice: &str) -> StoreError {
    StoreError::new(StoreErrorKind::InvalidStore)
        .with_context(format!("`{}`: {advice}", path.display()))
}

/// The transaction outlived its snapshot.
pub(super) fn too_old() -> StoreError {
    StoreError::new(StoreErrorKind::TooOld)
        .with_context("the transaction is older than 5 s; begin a new one and keep it shorter")
}

/// The transaction's snapshot was taken away before its time.
pub(super) fn withdrawn() -> StoreError {
    StoreError::new(StoreErrorKind::TooOld)
        .with_context("its snapshot kept the write-ahead log from being emptied; run it again")
}

/// The store's threads are gone, so nobody will answer.
pub(super) fn closed() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable).with_context("the store was closed")
}

/// The one use of a transaction is over.
pub(super) fn used() -> StoreError {
    StoreError::new(StoreErrorKind::InvalidCall)
        .with_context("the transaction was already committed; begin a new one")
}

/// The kind, and what to do.
pub(super) fn meaning(error: &Error) -> (StoreErrorKind, &'static str) {
    use StoreErrorKind::{Corrupt, Failed, Unavailable};
    match error {
        Error::InvalidColumnType(..)
        | Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::QueryReturnedNoRows => {
            return (
                Corrupt,
                "it holds bytes this crate never wrote; restore a backup",
            );
        }
        _ => {}
    }
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => (Unavailable, "another process holds its lock; try again"),
        Some(ErrorCode::CannotOpen) => (
            Unavailable,
            "it cannot be opened now; raise the limit of open files, or put the file back",
        ),
        Some(ErrorCode::OutOfMemory) => (Unavailable, "out of memory; try again with less"),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TooBig) => {
            (Corrupt, "the file is damaged; restore a backup")
        }
        Some(ErrorCode::DiskFull) => (Failed, "the disk is full; free some space"),
        Some(ErrorCode::ReadOnly) => (Failed, "the file became read-only; make it writable"),
        Some(ErrorCode::SystemIoFailure) => (Failed, "the disk failed; check it"),
        _ => (Failed, "SQLite refused"),
    }
}

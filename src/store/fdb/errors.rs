//! From the client's error codes to what a caller can do.
//!
//! The same code means different things at different moments: a read that was cut off says nothing
//! about writes, a commit that was cut off may have been applied. Hence one function per moment.

use crate::store::{StoreError, StoreErrorKind};
use foundationdb::FdbError;
use std::fmt;

/// The client's error, kept as the source. Says the code, which is what FoundationDB's
/// documentation is searched by.
struct ClientError(FdbError);

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "FoundationDB error {}: {}",
            self.0.code(),
            self.0.message()
        )
    }
}

impl fmt::Debug for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ClientError {}

/// An error of anything but a commit: nothing was committed.
pub(super) fn reading(error: FdbError) -> StoreError {
    let (kind, advice) = meaning(error);
    let (kind, advice) = match kind {
        // A read has no outcome to be unknown: the cluster changed under it.
        StoreErrorKind::MaybeCommitted => (StoreErrorKind::Unavailable, "read again"),
        kind => (kind, advice),
    };
    with(kind, advice, error)
}

/// An error of a watch: it will not fire, so look again. The client also passes the error of a
/// failed commit to the transaction's watches, whose kind the commit itself reports.
pub(super) fn watching(error: FdbError) -> StoreError {
    let advice = match error.code() {
        1029 => "the storage server has too many watches: look again, and poll slowly",
        1032 => "this store has too many watches: drop some, or watch fewer keys",
        1025 | 1101 => "its transaction was dropped before it was committed",
        _ => "the watch ended before the key changed: look again",
    };
    with(StoreErrorKind::Unavailable, advice, error)
}

/// An error of a commit; `wrote` says whether the transaction had writes.
///
/// The client counts two codes as unknown outcomes. Besides them it can fail a commit that it has
/// already sent with a code that proves nothing (cancelled, timed out, an internal error): only an
/// error that says that nothing was committed is taken to mean so.
pub(super) fn committing(error: FdbError, wrote: bool) -> StoreError {
    if !wrote {
        return reading(error);
    }
    let (kind, advice) = meaning(error);
    let certain = error.is_retryable_not_committed()
        || !matches!(kind, StoreErrorKind::Unavailable | StoreErrorKind::Failed);
    if certain {
        with(kind, advice, error)
    } else {
        unknown_outcome(error)
    }
}

/// The client failed to answer for a commit that was sent.
pub(super) fn unknown_outcome(error: FdbError) -> StoreError {
    with(StoreErrorKind::MaybeCommitted, UNKNOWN, error)
}

/// An error while a store is opened; `name` is what was opened.
pub(super) fn opening(error: FdbError, name: &str) -> StoreError {
    let (kind, advice) = match error.code() {
        1031 => return super::unreachable_cluster(name).with_source(ClientError(error)),
        2006 | 2007 | 2022 => (
            StoreErrorKind::InvalidStore,
            "check the environment variables `FDB_NETWORK_OPTION_*`",
        ),
        _ => meaning(error),
    };
    StoreError::new(kind)
        .with_context(format!("`{name}`: {advice}"))
        .with_source(ClientError(error))
}

fn with(kind: StoreErrorKind, advice: &str, error: FdbError) -> StoreError {
    StoreError::new(kind)
        .with_context(advice)
        .with_source(ClientError(error))
}

const UNKNOWN: &str = "read a marker that the transaction wrote to learn what happened";
const TOO_BIG: &str = "the cluster's client refused it";

/// What a code means and what to do, whatever was going on.
fn meaning(error: FdbError) -> (StoreErrorKind, &'static str) {
    use StoreErrorKind as Kind;
    match error.code() {
        1007 => (
            Kind::TooOld,
            "begin again: a transaction may read and commit for 5 s",
        ),
        1009 => (
            Kind::TooOld,
            "begin again: the cluster has not reached that version",
        ),
        2011 => (Kind::TooOld, "begin again: a version is a positive number"),
        1020 => (Kind::Conflict, "begin again"),
        1021 | 1039 => (Kind::MaybeCommitted, UNKNOWN),
        1025 | 1101 => (
            Kind::Unavailable,
            "the transaction was dropped meanwhile: begin again",
        ),
        1031 => (Kind::Unavailable, "the cluster did not answer in time"),
        1036 => (Kind::Unreadable, "read first, write afterwards"),
        1037 => (
            Kind::Unavailable,
            "a storage server lags behind: try again later",
        ),
        1038 => (
            Kind::Locked,
            "wait until the restore or switch-over is over",
        ),
        1029 | 1032 => (Kind::Unavailable, "there are too many watches"),
        1042 | 1078 => (Kind::Unavailable, "the cluster is overloaded: slow down"),
        1051 | 1213 | 1223 => (Kind::Unavailable, "the cluster throttles: slow down"),
        2101 => (Kind::TransactionTooLarge, TOO_BIG),
        2102 => (Kind::KeyTooLarge, TOO_BIG),
        2103 => (Kind::ValueTooLarge, TOO_BIG),
        2010 => (
            Kind::InvalidCall,
            "the read version is fixed by the first read",
        ),
        2017 => (
            Kind::InvalidCall,
            "the transaction was used during its commit",
        ),
        2000..=2099 | 2210 => (Kind::InvalidCall, "this is a mistake in the caller"),
        1515 => (Kind::InvalidStore, "there is no such cluster file"),
        1510..=1522 => (Kind::InvalidStore, "the cluster file cannot be read"),
        2104 => (
            Kind::InvalidStore,
            "a cluster file reads `description:id@host:port,...`",
        ),
        2100 | 2125 => (
            Kind::InvalidStore,
            "install the client library of the cluster's version",
        ),
        2107 => (
            Kind::InvalidStore,
            "check the certificates that `FDB_TLS_*` name",
        ),
        2123 | 2124 => (Kind::InvalidStore, "check the external client libraries"),
        2130..=2144 => (
            Kind::InvalidStore,
            "use a cluster whose `tenant_mode` is not `required`",
        ),
        2200..=2204 => (Kind::InvalidStore, "install `libfdb_c` 7.3 or newer"),
        _ if error.is_maybe_committed() => (Kind::MaybeCommitted, UNKNOWN),
        _ if error.is_retryable() => (Kind::Unavailable, "try again later"),
        _ => (Kind::Failed, "see FoundationDB's trace logs for the cause"),
    }
}

#[cfg(test)]
mod tests;

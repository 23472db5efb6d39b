//! The command `abide`, run as its users run it, on a store that a node works on meanwhile.
//!
//! Everything runs on SQLite, and with the feature `fdb` on FoundationDB: there it does nothing,
//! loudly, without a server, and fails without one if `ABIDE_REQUIRE_FDB` is 1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "also the helpers of a test fail by panicking, and their time is the real one"
)]

#[macro_use]
mod support;

mod bad_bytes;
mod golden;
mod mending;
mod moving;
#[cfg(unix)]
mod top;
mod usage;

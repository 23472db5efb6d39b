//! The command `abide`, run as its users run it, on a store that a node works on meanwhile.
//!
//! What depends on the store runs on SQLite, and with the feature `fdb` on FoundationDB too; a server
//! for that is found, or missed, as everywhere ([`abide::testing::fdb`]).

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
#[cfg(unix)]
mod terminal;
mod till;

#[cfg(unix)]
mod asking;
mod bad_bytes;
mod golden;
mod mending;
mod moving;
mod planted;
#[cfg(unix)]
mod top;
mod usage;

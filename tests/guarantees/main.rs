//! The guarantees of `docs`, one module each, and what the server must do besides, on every store.
//!
//! A test named `g01_…` to `g10_…` fails if that guarantee is broken. Each runs on memory and on
//! SQLite, and with the feature `fdb` on FoundationDB: there it does nothing, loudly, without a
//! server, and fails without one if `ABIDE_REQUIRE_FDB` is 1. Everything runs in real time, on the
//! threads of real nodes.

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

mod acknowledged;
mod bad_bytes;
mod behaviours;
mod caches;
mod callers;
mod effects;
mod exactly_once;
mod failures;
mod idle;
mod leaks;
mod locks;
mod order;
#[cfg(all(unix, feature = "sqlite"))]
mod processes;
mod supervised;
mod wake_ups;

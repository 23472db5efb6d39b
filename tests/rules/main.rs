//! The rules that the guarantees rest on, one by one, on real nodes over a store in memory, in virtual
//! time.
//!
//! A test of a rule shows that it holds, and where it can, that it would fail without: the mistake
//! that breaks the rule is planted, and the same scenario has to find it. `docs::rules` lists them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cloned_ref_to_slice_refs,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "also the helpers of a test fail by panicking"
)]

mod blame;
mod commits;
mod listed;
mod locks;
mod order;
mod outage;
mod restored;
mod stops;
mod support;
mod swap;
mod trace;
mod wake;

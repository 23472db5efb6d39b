//! How abide works and how to extend it, in prose.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("rules.md")]
pub mod rules {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("cli.md")]
pub mod cli {}

#[doc = include_str!("observability.md")]
pub mod observability {}

#[doc = include_str!("writing-a-store.md")]
pub mod writing_a_store {}

#[doc = include_str!("foundationdb.md")]
pub mod foundationdb {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("testing.md")]
pub mod testing {}

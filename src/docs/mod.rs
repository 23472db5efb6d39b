//! How abide works and how to extend it, in prose.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("writing-a-store.md")]
pub mod writing_a_store {}

#[doc = include_str!("foundationdb.md")]
pub mod foundationdb {}

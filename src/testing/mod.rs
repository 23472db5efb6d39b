//! What tests need: the store's conformance suite, injected faults, a simulated environment, and a
//! cluster to test against.

pub mod conformance;
pub mod faults;
#[cfg(feature = "fdb")]
pub mod fdb;
pub mod sim;

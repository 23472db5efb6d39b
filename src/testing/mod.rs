//! What tests need: the store's conformance suite, injected faults, a simulated environment, and a
//! cluster to test against.

pub mod conformance;
pub mod faults;
pub mod sim;

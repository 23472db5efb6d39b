//! What tests need: the store's conformance suite, injected faults, a simulated environment, a
//! cluster to test against, and a harness for handlers.

pub mod conformance;
pub mod faults;
#[cfg(feature = "fdb")]
pub mod fdb;
#[doc(hidden)]
pub mod fuzzing;
pub mod harness;
pub mod sim;

pub use crate::planted::{Bug, lose_notifications, plant};

//! Durable GenServers: state and mailbox in a strictly serializable store.

pub mod codec;
pub mod durable;
pub mod env;
mod id;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use id::{InstanceId, InvalidInstanceId, MAX_ID_BYTES, MAX_KIND_BYTES};

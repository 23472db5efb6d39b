//! Durable GenServers: state and mailbox in a strictly serializable store.

pub mod codec;
pub mod env;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

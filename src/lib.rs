//! Durable GenServers: state and mailbox in a strictly serializable store.
//!
//! What stands so far is the foundation: [`store`] has the traits, the backends and the retry loop,
//! [`durable`] the namespaces, and the sessions that run work exactly once, [`codec`] the states as
//! they are stored, [`docs`] the prose.
//!
//! ```
//! use abide::env::TokioEnv;
//! use abide::store::{self, Database, StoreError, TransactionExt};
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), StoreError> {
//! let db = Database::new(store::open("memory:").await?, Arc::new(TokioEnv::current()));
//! let greeting = db
//!     .run(|attempt| async move {
//!         attempt.tx().set(b"greeting", b"hello");
//!         attempt.tx().read(b"greeting").await
//!     })
//!     .await?;
//! assert_eq!(greeting.value.as_deref(), Some(&b"hello"[..]));
//! # Ok(()) }
//! ```

pub mod codec;
pub mod docs;
pub mod durable;
pub mod env;
mod id;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use id::{InstanceId, InvalidInstanceId, MAX_ID_BYTES, MAX_KIND_BYTES};

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

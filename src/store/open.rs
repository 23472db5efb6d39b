//! From a store's URL to the store.

use super::{MemoryStore, Store, StoreError, StoreErrorKind};
use std::sync::Arc;

/// Opens the store that `url` names: `memory:`, `sqlite:PATH`, `fdb:` or `fdb:CLUSTER_FILE`.
///
/// `memory:` is a new, empty store each time. `sqlite:` creates the file if its directory exists.
/// `fdb:` without a path finds the cluster file as FoundationDB's own tools do.
///
/// # Errors
///
/// [`InvalidStore`](StoreErrorKind::InvalidStore) when the URL names no backend of this build, or
/// what it names is not a store; [`Unavailable`](StoreErrorKind::Unavailable) when a cluster does
/// not answer within ten seconds. Nothing is left behind by a failed call.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    let Some((scheme, path)) = url.split_once(':') else {
        return Err(unknown(url));
    };
    match scheme {
        "memory" if path.is_empty() => Ok(Arc::new(MemoryStore::new())),
        "memory" => Err(invalid(url, "a memory store has no path: use `memory:`")),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Arc::new(super::SqliteStore::open(path).await?)),
        #[cfg(not(feature = "sqlite"))]
        "sqlite" => Err(invalid(url, "this build lacks the feature `sqlite`")),
        #[cfg(feature = "fdb")]
        "fdb" => Ok(Arc::new(super::FdbStore::open(path).await?)),
        #[cfg(not(feature = "fdb"))]
        "fdb" => Err(invalid(url, "this build lacks the feature `fdb`")),
        _ => Err(unknown(url)),
    }
}

fn unknown(url: &str) -> StoreError {
    invalid(
        url,
        "the known forms are `sqlite:PATH`, `fdb:`, `fdb:CLUSTER_FILE`, `memory:`",
    )
}

fn invalid(url: &str, advice: &str) -> StoreError {
    StoreError::new(StoreErrorKind::InvalidStore).with_context(format!("`{url}`: {advice}"))
}

//! Conveniences over [`Transaction`], for every backend at once.

use super::{Isolation, KeyRange, KeyValue, StoreError, StoreErrorKind, Transaction, after};
use bytes::Bytes;
use std::future::Future;

/// How many pairs a page of [`TransactionExt::for_each_page`] holds: large enough that a page costs
/// more than its round trip, small enough to bound memory with values of the largest size.
const PAGE: usize = 256;

/// Conveniences over [`Transaction`].
pub trait TransactionExt: Transaction {
    /// Reads one key, serializably.
    fn read(
        &self,
        key: &[u8],
    ) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send + 'static {
        self.get(key, Isolation::Serializable)
    }

    /// Reads one key without a conflict.
    fn peek(
        &self,
        key: &[u8],
    ) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send + 'static {
        self.get(key, Isolation::Snapshot)
    }

    /// Adds `delta` to the 64-bit counter at `key`; see [`Transaction::add`].
    fn add_i64(&self, key: &[u8], delta: i64) {
        self.add(key, &delta.to_le_bytes());
    }

    /// Reads a 64-bit counter; a missing one is zero.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](StoreErrorKind::Corrupt) if the value is not eight bytes long.
    fn read_i64(
        &self,
        key: &[u8],
        isolation: Isolation,
    ) -> impl Future<Output = Result<i64, StoreError>> + Send + 'static {
        let value = self.get(key, isolation);
        let name = Bytes::copy_from_slice(key);
        async move {
            let Some(value) = value.await? else {
                return Ok(0);
            };
            let bytes: [u8; 8] = value.as_ref().try_into().map_err(|_| {
                StoreError::new(StoreErrorKind::Corrupt).with_context(format!(
                    "the counter {name:?} is {} bytes long instead of 8",
                    value.len()
                ))
            })?;
            Ok(i64::from_le_bytes(bytes))
        }
    }

    /// Makes the commit fail if another transaction changes `key`; see
    /// [`Transaction::add_read_conflict`].
    fn add_read_conflict_key(&self, key: &[u8]) {
        self.add_read_conflict(&KeyRange::single(key));
    }

    /// Whether a range holds no key.
    fn is_empty(
        &self,
        range: &KeyRange,
        isolation: Isolation,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static {
        let mut read = range.read().limit(1);
        read.isolation = isolation;
        let first = self.get_range(read);
        async move { Ok(first.await?.is_empty()) }
    }

    /// Reads a range in ascending pages, so that no more than one page is in memory at a time.
    ///
    /// All pages are of one version and so must be read within the life of the transaction; the
    /// walk ends early when `visit` returns [`Break`](std::ops::ControlFlow::Break).
    ///
    /// # Errors
    ///
    /// Those of [`Transaction::get_range`].
    fn for_each_page<F>(
        &self,
        range: &KeyRange,
        isolation: Isolation,
        mut visit: F,
    ) -> impl Future<Output = Result<(), StoreError>> + Send
    where
        F: FnMut(Vec<KeyValue>) -> std::ops::ControlFlow<()> + Send,
    {
        let mut rest = range.clone();
        async move {
            loop {
                let mut read = rest.read().limit(PAGE);
                read.isolation = isolation;
                let page = self.get_range(read).await?;
                let full = page.len() == PAGE;
                if let Some(last) = page.last() {
                    rest.begin = after(&last.key);
                    if visit(page).is_break() {
                        return Ok(());
                    }
                }
                if !full {
                    return Ok(());
                }
            }
        }
    }
}

impl<T: Transaction + ?Sized> TransactionExt for T {}

//! References for callers that are not asynchronous.

use super::courier::CallError;
use super::reference::Ref;
use super::traits::{Message, Protocol};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};

/// A [`Ref`] whose methods wait on the thread; [`block_on`] is for what else there is to wait for. The
/// node behind it works on its own threads.
///
/// Never use it inside an asynchronous task, an effect or a hook: it holds up whatever else that
/// thread was to do, and on a runtime with one thread it waits for itself.
pub struct BlockingRef<P: Protocol> {
    inner: Ref<P>,
}

impl<P: Protocol> BlockingRef<P> {
    pub(super) fn new(inner: Ref<P>) -> Self {
        Self { inner }
    }

    /// See [`Ref::call`].
    ///
    /// # Errors
    ///
    /// See [`Ref::call`].
    pub fn call<M: Message<P>>(&self, message: M) -> Result<M::Reply, CallError> {
        block_on(self.inner.call(message))
    }

    /// See [`Ref::query`].
    ///
    /// # Errors
    ///
    /// See [`Ref::query`].
    pub fn query<M: Message<P>>(&self, message: M) -> Result<M::Reply, CallError> {
        block_on(self.inner.query(message))
    }

    /// See [`Ref::cast`].
    ///
    /// # Errors
    ///
    /// See [`Ref::cast`].
    pub fn cast<M: Message<P>>(&self, message: M) -> Result<(), CallError> {
        block_on(self.inner.cast(message))
    }

    /// See [`Ref::cast_all`].
    ///
    /// # Errors
    ///
    /// See [`Ref::cast_all`].
    pub fn cast_all<M: Message<P>>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<(), CallError> {
        block_on(self.inner.cast_all(messages))
    }

    /// See [`Ref::kill`].
    ///
    /// # Errors
    ///
    /// See [`Ref::kill`].
    pub fn kill(&self) -> Result<(), CallError> {
        block_on(self.inner.kill())
    }

    /// See [`Ref::reset`].
    ///
    /// # Errors
    ///
    /// See [`Ref::reset`].
    pub fn reset(&self) -> Result<(), CallError> {
        block_on(self.inner.reset())
    }
}

impl<P: Protocol> Clone for BlockingRef<P> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<P: Protocol> fmt::Debug for BlockingRef<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockingRef").field(&self.inner).finish()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, which waits until it is done: for programs that are not asynchronous.
///
/// Whatever a node, a store or a reference returns needs no runtime around it, because nodes work on
/// threads of their own. Futures of other crates may need theirs.
///
/// Never use it inside an asynchronous task, an effect or a hook: it holds up whatever else that
/// thread was to do, and on a runtime with one thread it waits for itself.
///
/// # Examples
///
/// ```
/// use abide::{Node, block_on};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), abide::StartError> {
/// let node = block_on(Node::builder("memory:").start())?;
/// // Calls are made through `node.server::<P>(id).blocking()`.
/// assert!(block_on(node.shutdown(Duration::from_secs(5))));
/// # Ok(()) }
/// ```
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

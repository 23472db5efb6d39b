//! Panics of abide's own code. They are mistakes, and must not be silent: a background task that is
//! gone would be missed by nobody but those who wait for what it should do.

use futures_util::FutureExt;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Told of what must not stay silent.
#[derive(Clone)]
pub(crate) struct Reports(Arc<dyn Fn(String) + Send + Sync>);

impl Reports {
    pub(crate) fn new(to: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(Arc::new(to))
    }

    pub(crate) fn report(&self, what: String) {
        tracing::error!(%what, "a background task of the node ended");
        (self.0)(what);
    }

    /// Runs a task to its end, or to its panic, which is reported. Whether it came to its end; if not,
    /// what it worked on may be half done, and only what is changed in single steps is whole.
    pub(crate) async fn guard(
        &self,
        what: impl FnOnce() -> String + Send,
        task: impl Future<Output = ()> + Send,
    ) -> bool {
        let ended = AssertUnwindSafe(task).catch_unwind().await;
        if ended.is_err() {
            self.report(format!("{} panicked", what()));
        }
        ended.is_ok()
    }
}

impl Default for Reports {
    /// To nobody but the log.
    fn default() -> Self {
        Self::new(drop)
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports").finish_non_exhaustive()
    }
}

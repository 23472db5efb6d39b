//! What of a client can be set.

use crate::reports::Reports;
use crate::trace::Tracer;
use std::time::Duration;

/// What of a client can be set.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How many pushes may be in flight at once, for different instances.
    pub(crate) streams: usize,
    /// How long a push is tried while the store is away.
    pub(crate) push_for: Duration,
    /// How many bytes of messages may wait for their push before senders wait.
    pub(crate) waiting_bytes: usize,
    /// How many messages may wait for their push before senders wait.
    pub(crate) waiting_messages: usize,
    /// What says where a message comes from.
    pub(crate) tracer: Tracer,
    /// Told of what must not stay silent.
    pub(crate) reports: Reports,
}

impl Default for Options {
    /// Eight streams: what a single store needs to be busy, at little cost to the size of batches.
    /// 30 s, longer than a recovery of the store takes. 64 MB and 100 000 messages, which bound the
    /// process's memory.
    fn default() -> Self {
        Self {
            streams: 8,
            push_for: Duration::from_secs(30),
            waiting_bytes: 64_000_000,
            waiting_messages: 100_000,
            tracer: Tracer::default(),
            reports: Reports::default(),
        }
    }
}

//! Waiting for those who were answered together to ask again, together.
//!
//! Callers that wait for the same commit are answered at once, and many of them go on with the next
//! call or message. Whoever begins the next batch with the first of them leaves the others to the batch
//! after it: two halves then take turns, and each waits for two commits. A batch that waits for the
//! others is twice as large, at hardly more than the price of one.
//!
//! Nothing is waited for after a batch of one: a lone message is never held up. And as there are no
//! timers as short as this, the wait is for the other tasks and not for time: it ends when all have
//! come, or when none came while this task was put off so many times.

use std::future::poll_fn;
use std::task::Poll;

/// How many times in a row the others may run without one of the awaited coming: those that do
/// come are runnable already, and need to be run once.
const YIELDS: u32 = 32;

/// Lets other tasks run until `count` is `expected`, or does not rise any more.
///
/// # Cancel safety
///
/// Nothing is lost: this only waits.
pub(crate) async fn gather(expected: usize, count: impl Fn() -> usize) {
    let mut seen = count();
    let mut yields = 0;
    while seen < expected && yields < YIELDS {
        yield_once().await;
        yields += 1;
        let now = count();
        if now != seen {
            (seen, yields) = (now, 0);
        }
    }
}

/// Puts the task behind all others that can run, the one that it woke last among them.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::testing::sim::Sim;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn it_waits_for_all_who_can_run_and_for_nobody_else() {
        for (comers, expected, seen) in [(5, 5, 5), (3, 5, 3), (0, 5, 0), (5, 0, 0)] {
            let sim = Sim::new(7);
            let env: Arc<dyn Env> = sim.env();
            let come = Arc::new(AtomicUsize::new(0));
            let gathered = sim.block_on({
                let (env, come) = (Arc::clone(&env), Arc::clone(&come));
                async move {
                    for _ in 0..comers {
                        let come = Arc::clone(&come);
                        env.spawn(Box::pin(async move {
                            come.fetch_add(1, Ordering::SeqCst);
                        }));
                    }
                    gather(expected, || come.load(Ordering::SeqCst)).await;
                    come.load(Ordering::SeqCst)
                }
            });
            assert_eq!(gathered.unwrap(), seen, "{comers} of {expected}");
        }
    }
}

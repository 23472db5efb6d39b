//! Ctrl-C in a command that leaves something behind if it simply ends.

use crate::Failure;
use abide::env::{Env, TokioEnv};
use futures_util::future::{Either, select};
use std::pin::pin;
use std::time::Duration;

/// How long a command has after Ctrl-C: it may wait for input that never comes, and hear nothing else.
const GRACE: Duration = Duration::from_secs(2);

/// Does the work, or up to Ctrl-C as much of it as is done by then. Whoever called closes what it opened.
pub(crate) async fn or(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let env = TokioEnv::current();
    let grace = env.clone();
    env.spawn(Box::pin(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            grace.sleep(GRACE).await;
            std::process::exit(Failure::INTERRUPTED.into());
        }
    }));
    let interrupted = pin!(tokio::signal::ctrl_c());
    match select(pin!(work), interrupted).await {
        Either::Left((done, _)) => done,
        Either::Right((Ok(()), _)) => Err(Failure::interrupted()),
        // Nothing tells of signals here.
        Either::Right((Err(_), work)) => work.await,
    }
}

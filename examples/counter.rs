//! A durable counter: the quickstart.
//!
//! You will see it count to three. Run it again and it goes on from there: the count is in
//! `counter.db`, not in the process. Kill it at any moment, and no count that it showed is lost.
//!
//!     cargo run --example counter
//!     cargo run --example counter -- --store memory:     (forgets)
//!     cargo run --example counter -- --store fdb:        (with the feature `fdb`)

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program, not the library"
)]

use abide::Node;
use abide::server::{Context, Failure, Handle, Message, Outcome, Protocol, ReadContext};
use abide::server::{Routes, Server};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

/// What callers need to know: the kind, and its messages.
struct Counting;

impl Protocol for Counting {
    const KIND: &'static str = "counter";
}

/// Adds so much, and replies with the count.
#[derive(Serialize, Deserialize)]
struct Add(u64);

impl Message<Counting> for Add {
    const NAME: &'static str = "add";
    type Reply = u64;
}

/// The server. Its state is durable; the struct itself is not.
struct Counter;

impl Server for Counter {
    type Protocol = Counting;
    type State = u64;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<u64, Failure> {
        Ok(0)
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Add>()
    }
}

impl Handle<Add> for Counter {
    fn handle(
        &self,
        count: &mut u64,
        Add(more): Add,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        *count += more;
        Ok(Outcome::Reply(*count))
    }
}

async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    let node = Node::builder(url).serve(Counter).start().await?;
    let visits = node.server::<Counting>("visits");
    for _ in 0..3 {
        println!("{}", visits.call(Add(1)).await?);
    }
    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(url) = store_url(std::env::args().skip(1)) else {
        eprintln!("usage: counter [--store URL]");
        return ExitCode::from(2);
    };
    match run(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn store_url(mut arguments: impl Iterator<Item = String>) -> Option<String> {
    match (
        arguments.next().as_deref(),
        arguments.next(),
        arguments.next(),
    ) {
        (None, ..) => Some("sqlite:counter.db".to_owned()),
        (Some("--store"), Some(url), None) => Some(url),
        _ => None,
    }
}

fn complain(error: &dyn Error) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}

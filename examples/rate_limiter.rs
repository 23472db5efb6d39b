//! A rate limiter for a whole cluster: one token bucket that everybody asks.
//!
//! You will see 20 callers on two nodes ask one bucket for permits for two seconds. The bucket holds
//! ten tokens and gets fifty a second, so that about 110 are granted, however many ask. The program
//! fails if more are granted than the bucket can have had.
//!
//!     cargo run --example rate_limiter
//!     cargo run --example rate_limiter -- --store fdb:        (with the feature `fdb`)

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program, not the library"
)]

use abide::Node;
use abide::server::{CallError, Context, Failure, Handle, Message, Outcome, Protocol, ReadContext};
use abide::server::{Ref, Routes, Server};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const BURST: f64 = 10.0;
const PER_SECOND: f64 = 50.0;
const CALLERS: usize = 20;
const FOR: Duration = Duration::from_secs(2);

struct Limiting;

impl Protocol for Limiting {
    const KIND: &'static str = "limiter";
}

/// Asks for a permit.
#[derive(Serialize, Deserialize)]
struct Take;

impl Message<Limiting> for Take {
    const NAME: &'static str = "take";
    type Reply = Permit;
}

#[derive(Serialize, Deserialize)]
enum Permit {
    Granted,
    /// There will be a token in so many milliseconds, if nobody else takes it.
    RetryAfter(u64),
}

#[derive(Serialize, Deserialize)]
struct Bucket {
    tokens: f64,
    /// When the tokens were counted, in milliseconds since 1970.
    at_ms: u64,
}

/// What is not durable: the configuration. Every node has the same.
struct Limiter {
    burst: f64,
    per_second: f64,
}

impl Server for Limiter {
    type Protocol = Limiting;
    type State = Bucket;

    fn init(&self, cx: &ReadContext<'_>) -> Result<Bucket, Failure> {
        Ok(Bucket {
            tokens: self.burst,
            at_ms: millis(cx.now()),
        })
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Take>()
    }
}

impl Handle<Take> for Limiter {
    fn handle(
        &self,
        bucket: &mut Bucket,
        Take: Take,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<Permit>, Failure> {
        // The time of the turn, not the clock. Another node's clock may be behind the one that
        // counted last; then no time has passed.
        let now = millis(cx.now()).max(bucket.at_ms);
        let seconds = (now - bucket.at_ms) as f64 / 1000.0;
        let tokens = (bucket.tokens + seconds * self.per_second).min(self.burst);
        if tokens < 1.0 {
            // Nothing changed, so nothing is written.
            let wait = (1.0 - tokens) / self.per_second * 1000.0;
            return Ok(Outcome::Reply(Permit::RetryAfter(wait.ceil() as u64)));
        }
        *bucket = Bucket {
            tokens: tokens - 1.0,
            at_ms: now,
        };
        Ok(Outcome::Reply(Permit::Granted))
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    let store = abide::store::open(url).await?;
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let node = Node::builder_on(Arc::clone(&store)).serve(Limiter {
            burst: BURST,
            per_second: PER_SECOND,
        });
        nodes.push(node.start().await?);
    }

    let began = Instant::now();
    let callers: Vec<_> = nodes
        .iter()
        .cycle()
        .take(CALLERS)
        .map(|node| node.server("api").timeout(Duration::from_secs(30)))
        .map(|limiter| tokio::spawn(ask(limiter, began)))
        .collect();
    let (mut granted, mut refused) = (0_u32, 0_u32);
    for caller in callers {
        let (caller_granted, caller_refused) = caller.await??;
        granted += caller_granted;
        refused += caller_refused;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{granted} permits granted and {refused} refused in {seconds:.1} s");
    for node in nodes {
        node.shutdown(Duration::from_secs(5)).await;
    }

    let most = BURST + PER_SECOND * seconds;
    if f64::from(granted) > most.ceil() {
        return Err(format!("the bucket cannot have had more than {most:.0}").into());
    }
    Ok(())
}

/// Asks again and again. How often it was granted, and how often refused.
async fn ask(limiter: Ref<Limiting>, began: Instant) -> Result<(u32, u32), CallError> {
    let (mut granted, mut refused) = (0, 0);
    while began.elapsed() < FOR {
        match limiter.call(Take).await? {
            Permit::Granted => granted += 1,
            Permit::RetryAfter(wait) => {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
        }
    }
    Ok((granted, refused))
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(url) = store_url(std::env::args().skip(1)) else {
        eprintln!("usage: rate_limiter [--store URL]");
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
        (None, ..) => Some("sqlite:rate_limiter.db".to_owned()),
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

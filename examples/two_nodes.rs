//! Two nodes on one store, one of which is killed: nothing is lost, and nothing counts twice.
//!
//! You will see a producer process cast 2000 messages to eight tallies that two consumer processes
//! serve. When a third of the messages have been handled, one consumer is killed with signal 9 (it
//! gets no chance to say anything), and the other goes on. Each message carries its number; in the
//! end every tally has counted each of its messages once, in the order in which they were sent. The
//! program fails if one has not.
//!
//! The processes share nothing but the store: here, a SQLite file.
//!
//!     cargo run --example two_nodes
//!     cargo run --example two_nodes -- --store fdb:        (with the feature `fdb`)

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program, not the library"
)]

use abide::Node;
use abide::server::{CallError, Context, Failure, Handle, Message, Outcome, Protocol, Query};
use abide::server::{ReadContext, Ref, Routes, Server};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::error::Error;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TALLIES: u64 = 8;
const MESSAGES: u64 = 250;

struct Tallying;

impl Protocol for Tallying {
    const KIND: &'static str = "tally";
}

/// Counts a message. The numbers that a tally gets are 1, 2, 3 and so on.
#[derive(Serialize, Deserialize)]
struct Count {
    number: u64,
}

impl Message<Tallying> for Count {
    const NAME: &'static str = "count";
    type Reply = ();
}

/// Asks for the tally as it stands.
#[derive(Serialize, Deserialize)]
struct Show;

impl Message<Tallying> for Show {
    const NAME: &'static str = "show";
    type Reply = Tally;
}

#[derive(Default, Clone, Serialize, Deserialize)]
struct Tally {
    count: u64,
    last: u64,
    /// How many messages did not have the number that was due.
    wrong: u64,
    /// How many messages each consumer has handled.
    by: BTreeMap<String, u64>,
}

struct Consumer {
    name: String,
}

impl Server for Consumer {
    type Protocol = Tallying;
    type State = Tally;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Tally, Failure> {
        Ok(Tally::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Count>().query::<Show>()
    }
}

impl Handle<Count> for Consumer {
    fn handle(
        &self,
        tally: &mut Tally,
        Count { number }: Count,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<()>, Failure> {
        tally.wrong += u64::from(number != tally.last + 1);
        tally.last = number;
        tally.count += 1;
        *tally.by.entry(self.name.clone()).or_default() += 1;
        Ok(Outcome::done())
    }
}

impl Query<Show> for Consumer {
    fn query(&self, tally: &Tally, Show: Show, _cx: &ReadContext<'_>) -> Result<Tally, Failure> {
        Ok(tally.clone())
    }
}

/// A tally of this run: a new one, so that what an earlier run left behind does not matter.
fn tally(node: &Node, run: &str, number: u64) -> Ref<Tallying> {
    node.server(format!("{run}-{number}"))
}

/// The process that you start: it starts the others, kills one, and looks at what comes out.
async fn supervise(url: &str) -> Result<(), Box<dyn Error>> {
    if url.starts_with("memory:") {
        return Err("several processes cannot share a store in memory".into());
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let run = format!("{}-{}", since.as_millis(), std::process::id());
    // It serves nothing: what it asks travels to one of the consumers.
    let node = Node::builder(url).start().await?;

    let mut first = Process::start(["consumer", "first", url])?;
    let mut second = Process::start(["consumer", "second", url])?;
    println!(
        "two consumers run: processes {} and {}",
        first.id(),
        second.id()
    );
    let began = Instant::now();
    let mut producer = Process::start(["producer", &run, url])?;

    let sent = TALLIES * MESSAGES;
    let handled = until_counted(&node, &run, sent / 3).await?;
    first.kill()?;
    println!(
        "killed process {} after {handled} of {sent} messages",
        first.id()
    );
    until_counted(&node, &run, sent).await?;
    println!(
        "all {sent} were handled after {:.1} s",
        began.elapsed().as_secs_f64()
    );

    // Time for a message that counts twice to show itself.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (mut is_right, mut by) = (true, BTreeMap::<String, u64>::new());
    for number in 0..TALLIES {
        let tally = tally(&node, &run, number).query(Show).await?;
        is_right &= (tally.count, tally.last, tally.wrong) == (MESSAGES, MESSAGES, 0);
        for (name, count) in tally.by {
            *by.entry(name).or_default() += count;
        }
    }
    for (name, count) in by {
        println!("the {name} consumer handled {count}");
    }
    producer.end()?;
    second.end()?;
    node.shutdown(Duration::from_secs(5)).await;
    if !is_right {
        return Err("a tally has not counted each of its messages once and in order".into());
    }
    println!("each exactly once, and in order");
    Ok(())
}

/// Waits until so many messages were handled.
async fn until_counted(node: &Node, run: &str, count: u64) -> Result<u64, Box<dyn Error>> {
    let began = Instant::now();
    loop {
        let mut handled = 0;
        for number in 0..TALLIES {
            let tally = tally(node, run, number).timeout(Duration::from_secs(30));
            handled += tally.query(Show).await?.count;
        }
        if handled >= count {
            return Ok(handled);
        }
        if began.elapsed() > Duration::from_secs(60) {
            return Err(format!("{handled} of {count} messages were handled in a minute").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Sends each tally its messages, one after the other. Each is durable when the next is sent.
async fn produce(run: String, url: &str) -> Result<(), Box<dyn Error>> {
    let node = Node::builder(url).start().await?;
    let senders: Vec<_> = (0..TALLIES)
        .map(|number| tally(&node, &run, number))
        .map(|tally| {
            tokio::spawn(async move {
                for number in 1..=MESSAGES {
                    tally.cast(Count { number }).await?;
                }
                Ok::<_, CallError>(())
            })
        })
        .collect();
    for sender in senders {
        sender.await??;
    }
    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Serves until the process that started it lets go, or dies.
async fn consume(name: String, url: &str) -> Result<(), Box<dyn Error>> {
    let node = Node::builder(url).serve(Consumer { name }).start().await?;
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
        .await??;
    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// This program in a process of its own.
struct Process(Child);

impl Process {
    fn start<const N: usize>(arguments: [&str; N]) -> std::io::Result<Self> {
        Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .map(Self)
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    /// Signal 9.
    fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }

    /// Lets it come to its end, and waits for that.
    fn end(&mut self) -> Result<(), String> {
        drop(self.0.stdin.take());
        match self.0.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("process {} ended: {status}", self.id())),
            Err(error) => Err(format!("process {} is lost: {error}", self.id())),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match arguments.as_slice() {
        [] => supervise("sqlite:two_nodes.db").await,
        ["--store", url] => supervise(url).await,
        ["producer", run, url] => produce((*run).to_owned(), url).await,
        ["consumer", name, url] => consume((*name).to_owned(), url).await,
        _ => {
            eprintln!("usage: two_nodes [--store URL]");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error.as_ref());
            ExitCode::FAILURE
        }
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

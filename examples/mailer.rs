//! A side effect outside the transaction, under a lock: at least once, also when a process dies.
//!
//! You will see a first process take the lock, write a mail into `mailer.outbox`, and stall before
//! it can say so; it is killed with signal 9. A second process sees the lock stand still for its
//! lease, a second here, takes over, and sends the mail again. The outbox has the mail twice, under
//! the same key, by which a mail server would drop the second; the state counts it once. Each line also
//! has the lock's fencing token, which grew: had the first process only stood still, a server that keeps
//! the largest token would refuse what it sends late. The program fails if it does not come out like
//! that.
//!
//!     cargo run --example mailer
//!     cargo run --example mailer -- --store fdb:        (with the feature `fdb`)

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program, not the library"
)]

use abide::server::{Context, Failure, Handle, LockContext, Locked, Message, Outcome, Protocol};
use abide::server::{Query, ReadContext, Routes, Server};
use abide::{KindOptions, Node};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const OUTBOX: &str = "mailer.outbox";
const LEASE: Duration = Duration::from_secs(1);

struct Mailing;

impl Protocol for Mailing {
    const KIND: &'static str = "mailer";
}

/// Sends a mail. The reply says how many have been sent, and at which attempt this one was.
#[derive(Serialize, Deserialize)]
struct SendMail {
    to: String,
}

impl Message<Mailing> for SendMail {
    const NAME: &'static str = "send";
    type Reply = (u64, u32);
}

/// How many mails have been sent.
#[derive(Serialize, Deserialize)]
struct Sent;

impl Message<Mailing> for Sent {
    const NAME: &'static str = "sent";
    type Reply = u64;
}

#[derive(Serialize, Deserialize)]
struct Mailbox {
    sent: u64,
}

struct Mailer {
    name: String,
    /// Stalls once the mail is out.
    stalls: bool,
}

impl Server for Mailer {
    type Protocol = Mailing;
    type State = Mailbox;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Mailbox, Failure> {
        Ok(Mailbox { sent: 0 })
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.locked::<SendMail>().query::<Sent>()
    }
}

impl Handle<SendMail> for Mailer {
    /// In a transaction, so it must not send anything itself.
    fn handle(
        &self,
        _mailbox: &mut Mailbox,
        mail: SendMail,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<(u64, u32)>, Failure> {
        match mail.to.contains('@') {
            true => Ok(Outcome::Lock),
            false => Err(Failure::reject("that is no address")),
        }
    }
}

impl Locked<SendMail> for Mailer {
    /// The attempt.
    type Output = u32;

    /// Outside of any transaction. Whatever it did before a crash, it does again.
    async fn run(
        &self,
        _mailbox: Mailbox,
        mail: SendMail,
        cx: LockContext,
    ) -> Result<u32, Failure> {
        // The same in each attempt: what a mail server needs to recognize the second one. A call
        // from a node that serves the kind has no stamp; there is none in this program.
        let key = cx
            .stamp()
            .ok_or_else(|| Failure::reject("call from another node"))?;
        let mut outbox = OpenOptions::new().create(true).append(true).open(OUTBOX)?;
        // Larger with each taking of the lock: by it the other side tells who holds the lock now from
        // who has lost it and does not know.
        let token = cx.fencing_token();
        let line = format!(
            "{key} to {} by {}, attempt {}, token {token}\n",
            mail.to,
            self.name,
            cx.attempt()
        );
        outbox.write_all(line.as_bytes())?;
        if self.stalls {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        Ok(cx.attempt())
    }

    /// In a transaction again, with the state as it is now.
    fn close(
        &self,
        mailbox: &mut Mailbox,
        _mail: SendMail,
        attempt: u32,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<(u64, u32)>, Failure> {
        mailbox.sent += 1;
        Ok(Outcome::Reply((mailbox.sent, attempt)))
    }
}

impl Query<Sent> for Mailer {
    fn query(&self, mailbox: &Mailbox, Sent: Sent, _cx: &ReadContext<'_>) -> Result<u64, Failure> {
        Ok(mailbox.sent)
    }
}

/// The process that you start: it starts two others, and kills the one that holds the lock.
async fn supervise(url: &str) -> Result<(), Box<dyn Error>> {
    if url.starts_with("memory:") {
        return Err("several processes cannot share a store in memory".into());
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let to = format!("reader-{}@example.org", since.as_millis());
    let node = Node::builder(url).start().await?;
    // An instance of this run's own, so that an earlier run that was killed is not in the way.
    let mailer = node
        .server::<Mailing>(to.as_str())
        .timeout(Duration::from_secs(30));

    let mut first = Process::start(["mailer", "first", url])?;
    let mail = SendMail { to: to.clone() };
    let reply = tokio::spawn(mailer.call(mail));
    until_written(&to).await?;
    println!("the first process has sent the mail, and holds the lock");
    let mut second = Process::start(["mailer", "second", url])?;
    first.kill()?;
    let killed = Instant::now();
    println!("killed it; the lock's lease is {} s", LEASE.as_secs());
    let (sent, attempt) = reply.await??;
    println!(
        "the second process took over: reply {:.1} s after the kill, at attempt {attempt}",
        killed.elapsed().as_secs_f64()
    );
    let counted = mailer.query(Sent).await?;
    second.end()?;
    node.shutdown(Duration::from_secs(5)).await;

    let lines = written(&to)?;
    println!("{OUTBOX}:");
    for line in &lines {
        println!("  {line}");
    }
    println!("the state counts {counted}");
    let keys = lines.iter().map(|line| line.split(' ').next());
    let mut keys: Vec<_> = keys.collect();
    keys.dedup();
    if (lines.len(), keys.len(), sent, counted, attempt) != (2, 1, 1, 1, 2) {
        return Err("the mail should be out twice, under one key, and counted once".into());
    }
    let tokens = lines.iter().filter_map(|line| line.split(' ').next_back());
    let tokens: Result<Vec<u128>, _> = tokens.map(str::parse).collect();
    if !tokens?.is_sorted_by(|first, second| first < second) {
        return Err("the fencing token should grow with each taking of the lock".into());
    }
    Ok(())
}

/// Waits until the mail is in the outbox.
async fn until_written(to: &str) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    while written(to)?.is_empty() {
        if began.elapsed() > Duration::from_secs(20) {
            return Err("the mail was not sent within 20 seconds".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// What the outbox has for an address.
fn written(to: &str) -> std::io::Result<Vec<String>> {
    let outbox = match fs::read_to_string(OUTBOX) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        outbox => outbox?,
    };
    let lines = outbox.lines().filter(|line| line.contains(to));
    Ok(lines.map(str::to_owned).collect())
}

/// Serves until the process that started it lets go, or dies.
async fn serve(name: &str, url: &str) -> Result<(), Box<dyn Error>> {
    let mailer = Mailer {
        name: name.to_owned(),
        stalls: name == "first",
    };
    let node = Node::builder(url)
        .serve_with(mailer, KindOptions::default().lease(LEASE))
        .start()
        .await?;
    println!("serving");
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
        .await??;
    node.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// This program in a process of its own.
struct Process(Child);

impl Process {
    /// Starts it, and waits until it serves.
    fn start<const N: usize>(arguments: [&str; N]) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the process has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        match line.trim() {
            "serving" => Ok(Self(child)),
            _ => Err("the process does not serve".into()),
        }
    }

    /// Signal 9.
    fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }

    /// Lets it come to its end, and waits for that.
    fn end(&mut self) -> Result<(), Box<dyn Error>> {
        drop(self.0.stdin.take());
        match self.0.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("process {} ended: {status}", self.0.id()).into()),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match arguments.as_slice() {
        [] => supervise("sqlite:mailer.db").await,
        ["--store", url] => supervise(url).await,
        ["mailer", name, url] => serve(name, url).await,
        _ => {
            eprintln!("usage: mailer [--store URL]");
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

//! Calls between two processes: this one calls, another one, started from the same program, serves.

use crate::Bench;
use crate::cases::{call_each, instances, sending, warm};
use crate::counting::{Counting, Counts, Tally};
use crate::drive::Measured;
use crate::floor;
use crate::servers::{Add, Counter};
use abide::Node;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Makes a process the server.
pub const SERVE: &str = "--serve";

pub async fn calls(bench: &Bench, namespace: &str, callers: u64) -> Result<Measured, &'static str> {
    if bench.url.starts_with("memory:") {
        return Err("a memory store belongs to one process");
    }
    let mut server = Server::start(bench, namespace);
    let node = sending(bench, namespace).await;
    let refs = instances(&node, 1);
    refs[0].call(Add::ONE).await.unwrap();
    let load = call_each(refs, callers);
    warm(bench, callers, load.clone()).await;
    let before = server.tally() + bench.counts.tally();
    let measured = floor::beside(bench, callers, load).await;
    let tally = server.tally() + bench.counts.tally() - before;
    node.shutdown(Duration::from_secs(60)).await;
    Ok(Measured { tally, ..measured })
}

struct Server {
    process: Child,
    // An `Option` to be dropped before the process is waited for.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Server {
    fn start(bench: &Bench, namespace: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([SERVE, &bench.url, namespace])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut server = Self {
            input: process.stdin.take(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
        };
        // It serves once it answers.
        server.tally();
        server
    }

    fn tally(&mut self) -> Tally {
        let input = self.input.as_mut().expect("a running server");
        writeln!(input, "tally").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

/// The other process: answers each line of its input with its counters, and ends with it.
pub async fn serve(url: &str, namespace: &str) {
    let counts = Arc::new(Counts::default());
    let store = abide::store::open(url).await.unwrap();
    let store = Counting::new(store, Arc::clone(&counts));
    let builder = Node::builder_on(Arc::new(store)).namespace(namespace);
    let node = builder.serve(Counter::default()).start().await.unwrap();
    let answering = tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lines() {
            if line.is_err() {
                break;
            }
            println!("{}", serde_json::to_string(&counts.tally()).unwrap());
            std::io::stdout().flush().unwrap();
        }
    });
    answering.await.unwrap();
    node.shutdown(Duration::from_secs(10)).await;
}

//! The other process: a node that serves, sends, or both, until its standard input ends.

use crate::journal::{Journal, Outcome};
use crate::locks::Locks;
use crate::tally::{Act, BUSY, Forward, Note, Op, Stumble, Tallies, Tallying, Total, Work};
use abide::server::{Batch, CallError, CallErrorKind};
use abide::{KindOptions, Node};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) const URL: &str = "ABIDE_CHAOS_STORE";
pub(crate) const JOURNAL: &str = "ABIDE_CHAOS_JOURNAL";
pub(crate) const NUMBER: &str = "ABIDE_CHAOS_PROCESS";
pub(crate) const SERVES: &str = "ABIDE_CHAOS_SERVES";
pub(crate) const LANES: &str = "ABIDE_CHAOS_LANES";
/// Set where runs under locks are written down.
pub(crate) const LOCKS: &str = "ABIDE_CHAOS_LOCKS";

pub(crate) const NAMESPACE: &str = "chaos";

/// How many lanes a process may have.
const MAX_LANES: u64 = 100;

/// The lease is short, so that processes are stopped for longer; unless runs are watched: then nobody
/// who lives may be taken for dead, on however busy a machine. Nothing here fails for good, but each
/// death of a process counts as an attempt.
pub(crate) fn options(is_watched: bool) -> KindOptions {
    KindOptions::default()
        .attempts(10_000)
        .backoff(Duration::from_millis(20), Duration::from_millis(200))
        .lease(Duration::from_secs(if is_watched { 6 } else { 1 }))
}

pub(crate) async fn pause(duration: Duration) {
    let pending = std::future::pending::<()>();
    tokio::time::timeout(duration, pending).await.unwrap_err();
}

/// Plays the other process of a test, if this is one.
pub(crate) fn plays_the_other() -> bool {
    let Ok(url) = std::env::var(URL) else {
        return false;
    };
    let number = |name| -> u64 { std::env::var(name).unwrap().parse().unwrap() };
    let journal = PathBuf::from(std::env::var_os(JOURNAL).unwrap());
    let (serves, lanes) = (number(SERVES) == 1, number(LANES));
    assert!(lanes <= MAX_LANES);
    let locks = std::env::var_os(LOCKS).map(PathBuf::from);
    let locks = locks.map(|path| Arc::new(Locks::open(&path, number(NUMBER))));
    let first = number(NUMBER) * MAX_LANES + if locks.is_some() { BUSY } else { 0 };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let node = start(&url, serves, locks).await;
        let journal = Arc::new(Journal::create(&journal));
        let ends = Arc::new(AtomicBool::new(false));
        let lanes: Vec<_> = (first..first + lanes)
            .map(|lane| {
                let (journal, ends) = (Arc::clone(&journal), Arc::clone(&ends));
                tokio::spawn(send(node.clone(), lane, journal, ends))
            })
            .collect();
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
            .await
            .unwrap()
            .unwrap();
        ends.store(true, Ordering::SeqCst);
        for lane in lanes {
            lane.await.unwrap();
        }
        assert_eq!(node.failure(), None);
        assert!(
            node.shutdown(Duration::from_secs(60)).await,
            "it does not shut down"
        );
    });
    true
}

/// Starts the node, and goes on trying: the store may be away, or its writer stopped.
pub(crate) async fn start(url: &str, serves: bool, locks: Option<Arc<Locks>>) -> Node {
    let began = Instant::now();
    loop {
        let builder = Node::builder(url).namespace(NAMESPACE).threads(2);
        let builder = if serves {
            let tallies = Tallies {
                locks: locks.clone(),
            };
            builder.serve_with(tallies, options(locks.is_some()))
        } else {
            builder
        };
        match builder.start().await {
            Ok(node) => return node,
            Err(error) => {
                assert!(
                    began.elapsed() < Duration::from_secs(100),
                    "it does not start: {error:?}"
                );
                pause(Duration::from_millis(200)).await;
            }
        }
    }
}

/// One lane: an operation after the other, each when the outcome of the one before is known.
async fn send(node: Node, lane: u64, journal: Arc<Journal>, ends: Arc<AtomicBool>) {
    let mut number = 0;
    while !ends.load(Ordering::SeqCst) {
        number += 1;
        let op = Op { lane, number };
        journal.sending(op);
        let outcome = match perform(&node, op).await {
            Ok(reply) => Outcome::Acknowledged(reply),
            Err(error) => match error.kind() {
                CallErrorKind::TimedOut | CallErrorKind::OutcomeUnknown => Outcome::Unknown,
                CallErrorKind::Unavailable => Outcome::Refused,
                _ => panic!("{op:?}: {error:?}"),
            },
        };
        journal.ended(op, outcome);
        if let Outcome::Acknowledged(reply @ 1..) = outcome
            && op.number.is_multiple_of(8)
        {
            look_back(&node, op, reply).await;
        }
        if outcome == Outcome::Refused {
            pause(Duration::from_millis(50)).await;
        }
    }
}

/// A query that begins after a call was answered sees what the call has done, wherever it is answered.
async fn look_back(node: &Node, op: Op, reply: u64) {
    let asked = node.server::<Tallying>(op.receivers().remove(0));
    let asked = asked.timeout(Duration::from_secs(30)).query(Total).await;
    match asked {
        Ok(total) => assert!(total >= reply, "{op:?} was the {reply}th of {total}"),
        Err(error) => assert!(
            matches!(
                error.kind(),
                CallErrorKind::TimedOut
                    | CallErrorKind::OutcomeUnknown
                    | CallErrorKind::Unavailable
            ),
            "{op:?}: {error:?}"
        ),
    }
}

async fn perform(node: &Node, op: Op) -> Result<u64, CallError> {
    let server = |id: String| node.server::<Tallying>(id).timeout(Duration::from_secs(30));
    let home = server(op.home());
    match op.act() {
        Act::Cast => home.cast(Note(op)).await.map(|()| 0),
        Act::Call => home.call(Note(op)).await,
        Act::Pair => {
            let partner = server(op.partner());
            let batch = Batch::new().cast(&home, Note(op)).cast(&partner, Note(op));
            batch.send().await.map(|()| 0)
        }
        Act::Forward => home.call(Forward(op)).await,
        Act::Stumble => home.call(Stumble(op)).await,
        Act::Work => server(op.receivers().remove(0)).call(Work(op)).await,
    }
}

//! A call between two processes without abide: the commits, watches and reads that no way through the
//! store can do without, and nothing else. What a call needs more is abide's.
//!
//! The caller commits a question, which fires a watch of the other process. That one looks, reads what a
//! turn reads at the version of its look, and commits the answer, which fires a watch of the caller; and
//! the caller reads it.

use crate::Bench;
use crate::drive::Measured;
use crate::floor;
use abide::store::{Isolation, Store, StoreError, Tx, Version};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

/// Makes a process the one that answers.
pub const ECHO: &str = "--echo";

const QUESTION: &[u8] = b"abide load question";
const ANSWER: &[u8] = b"abide load answer";

pub async fn calls(bench: &Bench) -> Result<Measured, &'static str> {
    if bench.url.starts_with("memory:") {
        return Err("a memory store belongs to one process");
    }
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([ECHO, &bench.url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It answers once it has said so.
    let mut output = BufReader::new(process.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    let began = Instant::now();
    let store = Arc::clone(&bench.raw);
    let measured = floor::beside(bench, 1, move |_, round| {
        let store = Arc::clone(&store);
        let value = (began.elapsed().as_nanos() as u64 ^ round).to_le_bytes();
        async move { while ask(&store, &value).await.is_err() {} }
    })
    .await;
    // The end of its input is its end.
    drop(process.stdin.take());
    process.wait().unwrap();
    Ok(measured)
}

async fn ask(store: &Arc<dyn Store>, question: &[u8]) -> Result<(), StoreError> {
    let mut look = look(store, ANSWER).await?;
    let tx = store.begin()?;
    tx.set(QUESTION, question);
    tx.commit().await?;
    while look.value.as_deref() != Some(question) {
        look.changed.await?;
        look = self::look(store, ANSWER).await?;
    }
    Ok(())
}

/// A value, the version at which it was that, and its next change.
struct Look {
    value: Option<Vec<u8>>,
    version: Version,
    changed: abide::store::StoreFuture<()>,
}

async fn look(store: &Arc<dyn Store>, key: &[u8]) -> Result<Look, StoreError> {
    let tx = store.begin()?;
    let value = tx.get(key, Isolation::Serializable).await?;
    let version = tx.read_version().await?;
    let changed = tx.watch(key);
    tx.commit().await?;
    Ok(Look {
        value: value.map(|value| value.to_vec()),
        version,
        changed,
    })
}

/// The other process, until the end of its input.
pub async fn answer(url: &str) {
    let store = abide::store::open(url).await.unwrap();
    let answering = tokio::spawn(async move {
        let mut known = None;
        println!("ready");
        loop {
            // Too old, after the pause in which the floor is measured, or in the other's way: again.
            let _ = answer_next(&store, &mut known).await;
        }
    });
    let input = tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop));
    input.await.unwrap();
    answering.abort();
}

async fn answer_next(
    store: &Arc<dyn Store>,
    known: &mut Option<Vec<u8>>,
) -> Result<(), StoreError> {
    let look = look(store, QUESTION).await?;
    if look.value == *known {
        return look.changed.await;
    }
    let tx: Tx = store.begin()?;
    if store.read_versions_cost() {
        tx.set_read_version(look.version);
    }
    if let Some(question) = &look.value {
        floor::bare_turn_reads(&tx, 0).await?;
        tx.set(ANSWER, question);
        floor::bare_turn_writes(&tx, 0, question);
        tx.commit().await?;
    }
    *known = look.value;
    Ok(())
}

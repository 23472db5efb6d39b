//! Transactions that survive: run this again and it goes on counting.
//!
//! You will see the number of this run, then eight tasks adding to one key a hundred times each,
//! all at once, then the exact total over all runs so far.
//!
//!     cargo run --example visits
//!     cargo run --example visits -- --store fdb:      (with the feature `fdb`)

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program, not the library"
)]

use abide::env::TokioEnv;
use abide::store::{self, Database, Isolation, StoreError, TransactionExt};
use std::process::ExitCode;
use std::sync::Arc;

const VISITS: &[u8] = b"visits";
const TOTAL: &[u8] = b"total";

#[tokio::main]
async fn main() -> ExitCode {
    let Some(url) = store_url(std::env::args().skip(1)) else {
        eprintln!("usage: visits [--store URL]");
        return ExitCode::from(2);
    };
    match visit(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn store_url(mut args: impl Iterator<Item = String>) -> Option<String> {
    match (args.next().as_deref(), args.next(), args.next()) {
        (None, ..) => Some("sqlite:visits.db".to_owned()),
        (Some("--store"), Some(url), None) => Some(url),
        _ => None,
    }
}

async fn visit(url: &str) -> Result<(), StoreError> {
    let db = Database::new(store::open(url).await?, Arc::new(TokioEnv::current()));

    let visits = db
        .run(|attempt| async move { increment(&attempt, VISITS).await })
        .await?;
    println!("visit number {}", visits.value);

    let tasks: Vec<_> = (0..8)
        .map(|_| tokio::spawn(add_a_hundred(db.clone())))
        .collect();
    for task in tasks {
        task.await.expect("the task ran to its end")?;
    }

    let total = db
        .run(|attempt| async move { attempt.tx().read_i64(TOTAL, Isolation::Serializable).await })
        .await?;
    println!("the tasks of all visits have added {}", total.value);
    Ok(())
}

/// Adds one, a hundred times, reading what it adds to: every other task is a rival each time.
async fn add_a_hundred(db: Database) -> Result<(), StoreError> {
    for _ in 0..100 {
        db.run(|attempt| async move { increment(&attempt, TOTAL).await })
            .await?;
    }
    Ok(())
}

async fn increment(attempt: &store::Attempt, key: &[u8]) -> Result<i64, StoreError> {
    let tx = attempt.tx();
    let value = tx.read_i64(key, Isolation::Serializable).await? + 1;
    tx.set(key, &value.to_le_bytes());
    Ok(value)
}

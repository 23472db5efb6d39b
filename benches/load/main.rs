//! What a durable server costs, as multiples of what the store itself costs.
//!
//! ```text
//! cargo bench --bench load -- --store sqlite:/disk/to/measure/bench.db
//! cargo bench --bench load -- --store memory: --seconds 1 --case call_sequential --json
//! ```
//!
//! The *floor* is a commit of one small key through the same backend without abide, one at a time,
//! its value new each time. It is measured anew with each case, in turns with it (a drain has one
//! before and one after it), and the case's ratios are to that: the absolute times of a shared
//! machine mean little.
//!
//! Every case works in a namespace of its own, which is cleared afterwards. Handlers, producers and
//! the floor run in this process; the cases with two processes start this program again as the
//! server.
//!
//! # Fields of `--json`
//!
//! One object per line and case; a figure that a case does not have is `null`.
//!
//! | field | meaning |
//! |---|---|
//! | `case`, `store` | the case's name; the store's URL |
//! | `skipped` | why the case was not measured; then only the two fields above stand beside it |
//! | `messages`, `seconds` | how many messages were measured, and in what time |
//! | `rate` | messages per second |
//! | `p50_us`, `p99_us` | what one took, in microseconds: a call until its reply, a cast until it is durable |
//! | `commits_per_message`, `keys_per_message`, `bytes_per_message` | successful commits that wrote; keys and ranges they wrote; bytes of those keys and values |
//! | `reads_per_message` | reads of keys and ranges, watches not counted |
//! | `conflicts` | commits that failed |
//! | `floor_rate`, `floor_p50_us` | the floor, one commit at a time |
//! | `floor64_rate` | the floor, 64 commits at once |
//! | `rate_x_floor`, `rate_x_floor64`, `p50_x_floor` | the case, divided by the floor |
//! | `versus`, `versus_ratio` | another case, and this one's p50 (states) or rate (instances) divided by its |
//! | `target`, `met` | what this backend must reach in this case, and whether it did |
//! | `idle_reads_per_second`, `idle_cpu_percent`, `rss_mb` | of a node that serves all the instances, none of them with work (`many_*`) |

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_debug_implementations,
    missing_docs,
    reason = "a benchmark reads clocks, prints, and has nobody to report errors to"
)]

mod arguments;
mod cases;
mod counting;
mod drive;
mod echo;
mod floor;
mod many;
mod processes;
mod report;
mod servers;

use arguments::{Arguments, Invocation};
use counting::{Counting, Counts};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// What all cases share.
pub struct Bench {
    pub url: String,
    /// The store as it is, for the floor.
    pub raw: Arc<dyn abide::store::Store>,
    /// The store behind the counters, for abide.
    pub store: Arc<dyn abide::store::Store>,
    pub counts: Arc<Counts>,
    pub time: Duration,
    pub queued: u64,
    pub instances: u64,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    match arguments::parse(std::env::args().skip(1).collect()) {
        Ok(Invocation::Measure(arguments)) => runtime.block_on(measure(arguments)),
        Ok(Invocation::Serve { url, namespace }) => {
            runtime.block_on(processes::serve(&url, &namespace));
        }
        Ok(Invocation::Echo { url }) => runtime.block_on(echo::answer(&url)),
        // `cargo test` runs benchmarks too, and wants to know whether they start.
        Ok(Invocation::Nothing) => println!("nothing measured: run it with `cargo bench`"),
        Err(wrong) => {
            eprintln!("{wrong}\n{}", arguments::usage());
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

async fn measure(arguments: Arguments) {
    let directory = tempfile::tempdir().unwrap();
    let url = arguments.store.unwrap_or_else(|| {
        let path = directory.path().join("load.db");
        format!("sqlite:{}", path.display())
    });
    let raw = match abide::store::open(&url).await {
        Ok(store) => store,
        Err(error) => {
            eprintln!("the store cannot be used: {error}");
            std::process::exit(1);
        }
    };
    let counts = Arc::new(Counts::default());
    let bench = Bench {
        url,
        store: Arc::new(Counting::new(Arc::clone(&raw), Arc::clone(&counts))),
        raw,
        counts,
        time: arguments.time,
        queued: arguments.queued,
        instances: arguments.instances,
    };
    let mut report = report::Report::new(&bench.url, arguments.json);
    let mut before = floor::one(&bench).await;
    let together = floor::together(&bench).await;
    report.floors(&before, &together);
    for case in cases::NAMES {
        if !arguments.cases.is_empty() && !arguments.cases.iter().any(|wanted| wanted == case) {
            continue;
        }
        let measured = cases::run(&bench, case).await;
        let after = floor::one(&bench).await;
        report.case(case, measured, [&before, &after]);
        before = after;
    }
}

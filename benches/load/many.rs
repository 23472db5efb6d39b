//! What instances cost that have nothing to do.

use crate::Bench;
use crate::cases::{call_each, counted, instances, serving};
use crate::drive::{Idle, Measured, each};
use crate::servers::{Add, Counter};
use std::time::{Duration, Instant};

/// How many of the instances have work.
const BUSY: u64 = 64;

/// 64 callers on 64 instances, while `count` of them are in the store.
pub async fn run(bench: &Bench, namespace: &str, count: u64) -> Measured {
    let node = serving(bench, namespace, Counter::default()).await;
    let refs = instances(&node, count);
    each(256, count, move |number| {
        let call = refs[number as usize].call(Add::ONE);
        async move {
            call.await.unwrap();
        }
    })
    .await;
    node.shutdown(Duration::from_secs(60)).await;

    // A node that has not seen the idle ones, as after a restart.
    let node = serving(bench, namespace, Counter::default()).await;
    let idle = idle(bench).await;
    let refs = instances(&node, BUSY);
    let measured = counted(bench, BUSY, call_each(refs, BUSY)).await;
    node.shutdown(Duration::from_secs(60)).await;
    Measured {
        idle: Some(idle),
        ..measured
    }
}

/// What happens while nobody asks for anything.
async fn idle(bench: &Bench) -> Idle {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (reads, cpu, began) = (bench.counts.tally().reads, cpu_time(), Instant::now());
    tokio::time::sleep(bench.time).await;
    let seconds = began.elapsed().as_secs_f64();
    Idle {
        reads_per_second: (bench.counts.tally().reads - reads) as f64 / seconds,
        cpu_percent: cpu_time().saturating_sub(cpu).as_secs_f64() / seconds * 100.0,
        rss_mb: resident_mb(),
    }
}

/// What the kernel counts for the threads of this process; nothing where it does not say.
fn cpu_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .map(Duration::from_nanos)
        .sum()
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kilobytes.map_or(f64::NAN, |kilobytes: f64| kilobytes / 1024.0)
}

//! Load: tasks that do one thing after another until the time is up, or a number of times.

use crate::counting::Tally;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a case measured.
#[derive(Debug, Default)]
pub struct Measured {
    pub messages: u64,
    pub elapsed: Duration,
    /// What each message took, in no order; empty where that means nothing.
    pub latencies: Vec<Duration>,
    pub tally: Tally,
    /// The floor, measured in between.
    pub floor: Option<Box<Measured>>,
    pub idle: Option<Idle>,
}

/// What a node costs that has nothing to do.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    pub reads_per_second: f64,
    pub cpu_percent: f64,
    pub rss_mb: f64,
}

impl Measured {
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }

    /// Takes in what was measured of the same thing at another time.
    pub fn absorb(&mut self, mut other: Self) {
        self.messages += other.messages;
        self.elapsed += other.elapsed;
        self.latencies.append(&mut other.latencies);
    }

    /// The latency below which `share` of all lie.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * share) as usize;
        sorted.get(at).copied()
    }
}

/// Runs `one(task, round)` in `tasks` tasks for `time`.
pub async fn drive<F, T>(tasks: u64, time: Duration, one: F) -> Measured
where
    F: Fn(u64, u64) -> T + Clone + Send + 'static,
    T: Future<Output = ()> + Send,
{
    let began = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let one = one.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut last = Instant::now();
                for round in 0.. {
                    if last.duration_since(began) >= time {
                        break;
                    }
                    one(task, round).await;
                    let now = Instant::now();
                    latencies.push(now.duration_since(last));
                    last = now;
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in running {
        latencies.append(&mut task.await.unwrap());
    }
    Measured {
        messages: latencies.len() as u64,
        elapsed: began.elapsed(),
        latencies,
        ..Measured::default()
    }
}

/// Runs `one` for each number below `count`, `tasks` at a time.
pub async fn each<F, T>(tasks: u64, count: u64, one: F)
where
    F: Fn(u64) -> T + Clone + Send + 'static,
    T: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicU64::new(0));
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (one, next) = (one.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= count {
                        break;
                    }
                    one(number).await;
                }
            })
        })
        .collect();
    for task in running {
        task.await.unwrap();
    }
}

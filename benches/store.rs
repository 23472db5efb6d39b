//! What the SQLite backend costs: group commit, and watches across processes.
//!
//! `cargo bench --bench store` prints a table, `cargo bench --bench store -- --json` one JSON
//! object. Takes about 25 seconds. The file lies in the directory for temporary files; set `TMPDIR`
//! to measure another disk.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark reads clocks, prints, and has nobody to report errors to"
)]

use abide::store::{SqliteStore, Store, TransactionExt};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const COMMITTERS: usize = 64;
const COMMIT_PHASE: Duration = Duration::from_millis(1500);
const CPU_PHASE: Duration = Duration::from_millis(2000);
const CHANGES: u64 = 300;
const KEY: &[u8] = b"watched";
const MANY: u64 = 1_000;
const MANY_CHANGES: u64 = 50;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    if let [_, flag, path] = arguments.as_slice()
        && flag == "--watcher"
    {
        return runtime.block_on(watcher(path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bench.db");
    let path = path.to_str().unwrap();
    let mut figures: Vec<(&str, f64, &str)> = Vec::new();
    runtime.block_on(async {
        let store = SqliteStore::open(path).await.unwrap();
        for (one, many, ratio, reads) in [
            ("blind_1", "blind_64", "blind_ratio", false),
            ("read_write_1", "read_write_64", "read_write_ratio", true),
        ] {
            let alone = commits_per_second(&store, 1, reads).await;
            let together = commits_per_second(&store, COMMITTERS, reads).await;
            figures.push((one, alone, "commits/s"));
            figures.push((many, together, "commits/s"));
            figures.push((ratio, together / alone, "x (64 committers to 1)"));
        }
        watches(&store, path, &mut figures).await;
    });
    print(
        &figures,
        arguments.iter().any(|argument| argument == "--json"),
    );
}

fn print(figures: &[(&str, f64, &str)], as_json: bool) {
    if as_json {
        let fields = figures
            .iter()
            .map(|(name, value, _)| format!("\"{name}\":{value:.3}"));
        println!("{{{}}}", fields.collect::<Vec<_>>().join(","));
        return;
    }
    for (name, value, unit) in figures {
        println!("{name:>22} {value:>12.2}  {unit}");
    }
}

/// Every commit changes its key's value: rewriting identical bytes can skip the disk.
async fn commits_per_second(store: &SqliteStore, committers: usize, reads: bool) -> f64 {
    let began = Instant::now();
    let tasks: Vec<_> = (0..committers)
        .map(|number| {
            let (store, key) = (store.clone(), format!("committer {number}"));
            tokio::spawn(async move {
                let mut count = 0_u64;
                while began.elapsed() < COMMIT_PHASE {
                    let tx = store.begin().unwrap();
                    let before = if reads {
                        tx.read_i64(key.as_bytes(), abide::store::Isolation::Serializable)
                            .await
                            .unwrap()
                    } else {
                        i64::try_from(began.elapsed().as_nanos()).unwrap()
                    };
                    tx.set(key.as_bytes(), &(before + 1).to_le_bytes());
                    tx.commit().await.unwrap().expect("it wrote");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await.unwrap();
    }
    f64::from(u32::try_from(total).unwrap()) / began.elapsed().as_secs_f64()
}

/// This process writes, another one watches.
async fn watches(
    store: &SqliteStore,
    path: &str,
    figures: &mut Vec<(&'static str, f64, &'static str)>,
) {
    let mut child = Watcher::start(path.as_ref());
    let idle = child.figure();
    let waiting = child.figure();
    child.line();
    let mut acknowledged = Vec::new();
    for change in 1..=CHANGES {
        // At any moment of the other side's period, and after it has armed its watch again.
        let jitter = Duration::from_micros(change * 7_919 % 10_000);
        tokio::time::sleep(Duration::from_millis(6) + jitter).await;
        let tx = store.begin().unwrap();
        tx.set(KEY, &change.to_le_bytes());
        tx.commit().await.unwrap();
        acknowledged.push(wall_clock());
    }
    let (latencies, busy) = child.latencies(&acknowledged);
    child.line();
    let acknowledged = foreign_commits(store).await;
    let (many_latencies, many_busy) = child.latencies(&acknowledged);
    child.0.wait().unwrap();
    let at = |share: usize| percentile(&latencies, share);
    figures.push((
        "watch_seen",
        latencies.len() as f64,
        "changes by another process, of 300",
    ));
    figures.push((
        "watch_p50",
        at(50),
        "ms from acknowledged commit to fired watch",
    ));
    figures.push(("watch_p99", at(99), "ms"));
    figures.push(("cpu_idle", idle, "% of a core, nothing watched"));
    figures.push(("cpu_waiting", waiting, "% of a core, one watch, no changes"));
    figures.push((
        "cpu_firing",
        busy,
        "% of a core, firing and arming ~80 times a second",
    ));
    figures.push((
        "many_watches_p50",
        percentile(&many_latencies, 50),
        "ms, 1000 watches, another process commits all the time",
    ));
    figures.push(("many_watches_p99", percentile(&many_latencies, 99), "ms"));
    figures.push(("cpu_many_watches", many_busy, "% of a core, the same"));
}

fn percentile(sorted: &[f64], share: usize) -> f64 {
    let at = sorted.len() * share / 100;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Commits some 150 times a second what nobody watches, and now and then what somebody does.
/// Returns when the latter were acknowledged.
async fn foreign_commits(store: &SqliteStore) -> Vec<u128> {
    let mut acknowledged = Vec::new();
    for round in 0_u64.. {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let change = (round % 16 == 15).then_some(round / 16);
        if change == Some(MANY_CHANGES) {
            break;
        }
        let tx = store.begin().unwrap();
        tx.set(b"unwatched", &round.to_le_bytes());
        if let Some(change) = change {
            tx.set(&many_key(change), b"changed");
        }
        tx.commit().await.unwrap();
        if change.is_some() {
            acknowledged.push(wall_clock());
        }
    }
    acknowledged
}

fn many_key(number: u64) -> Vec<u8> {
    format!("many {number:06}").into_bytes()
}

struct Watcher(Child, BufReader<std::process::ChildStdout>);

impl Watcher {
    fn start(path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--watcher")
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads when each change was seen, up to the CPU use that follows: the sorted delays in
    /// milliseconds, and the CPU use.
    fn latencies(&mut self, acknowledged: &[u128]) -> (Vec<f64>, f64) {
        let mut latencies: Vec<f64> = Vec::new();
        let busy = loop {
            let line = self.line();
            let fields: Vec<&str> = line.split(' ').collect();
            let [change, fired] = fields.as_slice() else {
                break line.parse().unwrap();
            };
            let change: usize = change.parse().unwrap();
            let acknowledged = acknowledged
                .get(change - 1)
                .expect("a change that was made");
            let fired: u128 = fired.parse().unwrap();
            latencies.push((fired as f64 - *acknowledged as f64) / 1e6);
        };
        latencies.sort_by(f64::total_cmp);
        (latencies, busy)
    }

    fn figure(&mut self) -> f64 {
        self.line().parse().unwrap()
    }
}

/// The other process: tells its CPU use idle, waiting and firing, and when each change was seen.
async fn watcher(path: &str) {
    let store = SqliteStore::open(path).await.unwrap();
    // The thread that opened it ends, and with it what the kernel counts for it.
    tokio::time::sleep(Duration::from_millis(100)).await;
    say(&cpu_share(tokio::time::sleep(CPU_PHASE)).await);
    let armed = store.begin().unwrap();
    let unchanged = armed.watch(KEY);
    armed.commit().await.unwrap();
    say(&cpu_share(tokio::time::sleep(CPU_PHASE)).await);
    drop(unchanged);
    let busy = cpu_share(async {
        let mut seen = 0;
        let mut is_first = true;
        while seen < CHANGES {
            let tx = store.begin().unwrap();
            let (value, watch) = (tx.peek(KEY), tx.watch(KEY));
            let value = value.await.unwrap();
            tx.commit().await.unwrap();
            seen = value.map_or(0, |value| {
                u64::from_le_bytes(value.as_ref().try_into().unwrap())
            });
            if std::mem::replace(&mut is_first, false) {
                say(&"armed");
            } else {
                FIRED.with(|fired| say(&format!("{seen} {}", fired.get())));
            }
            if seen < CHANGES {
                watch.await.unwrap();
                FIRED.with(|fired| fired.set(wall_clock()));
            }
        }
    })
    .await;
    say(&busy);
    watch_many(&store).await;
}

/// Holds many watches until those of them that will change have fired.
async fn watch_many(store: &SqliteStore) {
    let tx = store.begin().unwrap();
    let mut watches: Vec<_> = (0..MANY).map(|key| tx.watch(&many_key(key))).collect();
    tx.commit().await.unwrap();
    let changing = watches.drain(..usize::try_from(MANY_CHANGES).unwrap());
    let changing: Vec<_> = changing
        .map(|watch| {
            tokio::spawn(async move {
                watch.await.unwrap();
                wall_clock()
            })
        })
        .collect();
    say(&"armed");
    let mut fired = Vec::new();
    let busy = cpu_share(async {
        for task in changing {
            fired.push(task.await.unwrap());
        }
    })
    .await;
    for (number, fired) in (1..).zip(fired) {
        say(&format!("{number} {fired}"));
    }
    say(&busy);
}

thread_local! {
    /// When the watch fired last; the task is the runtime's root, which stays on its thread.
    static FIRED: std::cell::Cell<u128> = const { std::cell::Cell::new(0) };
}

fn say(what: &dyn std::fmt::Display) {
    println!("{what}");
    std::io::stdout().flush().unwrap();
}

/// The share of a core that this process uses while `work` runs, in percent.
async fn cpu_share(work: impl Future<Output = ()>) -> f64 {
    let (cpu, began) = (cpu_time(), Instant::now());
    work.await;
    (cpu_time() - cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0
}

/// What the kernel counts for the threads of this process, in nanoseconds.
fn cpu_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux counts CPU time here");
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .map(Duration::from_nanos)
        .sum()
}

fn wall_clock() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos()
}

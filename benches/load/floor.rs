//! The floor: what the store costs without abide.
//!
//! Beside it stand *bare turns*: the reads and writes of a call's turn, and nothing else. What a case
//! needs more than they do is abide's; what they need themselves is the store's.

use crate::Bench;
use crate::drive::{Measured, drive};
use abide::store::{CommitStamp, Committed, Isolation, KeyRange, StoreError, Tx, Version};
use futures_util::future::try_join3;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a case and the floor take turns: often enough to share the weather, seldom enough that
/// the ends of the turns, when not all tasks are busy any more, do not count.
const SLICES: u32 = 5;

/// Commits of one small key, one at a time.
pub async fn one(bench: &Bench) -> Measured {
    let time = (bench.time / 3).max(Duration::from_millis(200));
    commits(bench, 1, time).await
}

/// The same, 64 at once, each to a key of its own.
pub async fn together(bench: &Bench) -> Measured {
    commits(bench, 64, bench.time).await
}

/// `load` and the floor in turns, so that what else the machine does falls on both.
pub async fn beside<F, T>(bench: &Bench, tasks: u64, load: F) -> Measured
where
    F: Fn(u64, u64) -> T + Clone + Send + 'static,
    T: Future<Output = ()> + Send,
{
    let (mut measured, mut floor) = (Measured::default(), Measured::default());
    for slice in 0..SLICES {
        floor.absorb(commits(bench, 1, bench.time / SLICES / 3).await);
        let load = load.clone();
        // Rounds begin anew in each slice, and no slice is to repeat another one.
        let first = u64::from(slice) * 1_000_003;
        let load = move |task, round| load(task, first + round);
        measured.absorb(drive(tasks, bench.time / SLICES, load).await);
    }
    measured.floor = Some(Box::new(floor));
    measured
}

/// What a call's turn reads and writes, done by so many tasks, each with an instance of its own.
pub async fn bare_turns(bench: &Bench, tasks: u64) -> Measured {
    // A task's last commit, at whose version it reads where a fresh one would cost something.
    let versions: Arc<Vec<AtomicU64>> = Arc::new((0..tasks).map(|_| AtomicU64::new(0)).collect());
    let store = Arc::clone(&bench.raw);
    let began = Instant::now();
    beside(bench, tasks, move |task, round| {
        let (store, versions) = (Arc::clone(&store), Arc::clone(&versions));
        let value = (began.elapsed().as_nanos() as u64 ^ round).to_le_bytes();
        async move {
            let version = &versions[usize::try_from(task).unwrap()];
            loop {
                let tx = store.begin().unwrap();
                let known = version.load(Ordering::Relaxed);
                if store.read_versions_cost() && known > 0 {
                    tx.set_read_version(Version(known));
                }
                match bare_turn(&tx, task, &value).await {
                    Ok(committed) => break version.store(committed.version.0, Ordering::Relaxed),
                    // Too old, after the pause in which the floor is measured.
                    Err(_) => version.store(0, Ordering::Relaxed),
                }
            }
        }
    })
    .await
}

async fn bare_turn(tx: &Tx, task: u64, value: &[u8]) -> Result<Committed, StoreError> {
    bare_turn_reads(tx, task).await?;
    bare_turn_writes(tx, task, value);
    Ok(tx.commit().await?.expect("it wrote"))
}

fn turn_key(task: u64, part: &str) -> Vec<u8> {
    format!("abide load turn {task} {part}").into_bytes()
}

pub async fn bare_turn_reads(tx: &Tx, task: u64) -> Result<(), StoreError> {
    let known = KeyRange::new(turn_key(task, "a"), turn_key(task, "z"));
    let page = tx.get_range(known.read().snapshot().limit(8));
    tx.add_read_conflict(&known);
    let mark = tx.get(
        format!("abide load mark {task}").as_bytes(),
        Isolation::Snapshot,
    );
    let pause = tx.get(b"abide load pause", Isolation::Serializable);
    try_join3(page, mark, pause).await?;
    Ok(())
}

pub fn bare_turn_writes(tx: &Tx, task: u64, value: &[u8]) {
    let marker = format!("abide load marker {task}");
    tx.add_read_conflict(&KeyRange::single(marker.as_bytes()));
    tx.set(&turn_key(task, "state"), value);
    let stamped = [0; CommitStamp::LEN];
    tx.set_versionstamped_value(&turn_key(task, "version"), &stamped, 0);
    tx.set_versionstamped_value(marker.as_bytes(), &stamped, 0);
}

async fn commits(bench: &Bench, writers: u64, time: Duration) -> Measured {
    let store = Arc::clone(&bench.raw);
    let began = Instant::now();
    drive(writers, time, move |writer, round| {
        let store = Arc::clone(&store);
        // Rewriting identical bytes can skip the disk.
        let value = (began.elapsed().as_nanos() as u64 ^ round).to_le_bytes();
        async move {
            let tx = store.begin().unwrap();
            tx.set(format!("abide load floor {writer}").as_bytes(), &value);
            tx.commit().await.unwrap().expect("it wrote");
        }
    })
    .await
}

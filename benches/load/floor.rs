//! The floor: what the store costs without abide.

use crate::Bench;
use crate::drive::{Measured, drive};
use std::sync::Arc;
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

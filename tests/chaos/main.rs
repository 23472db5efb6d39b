//! Real processes on one store that are killed with `kill -9`, stopped and continued at random, and
//! what must hold all the same: nothing acknowledged is lost, nothing happens twice, a batch is whole
//! or not there, and at rest nothing is left over.
//!
//! Each operation has a number of its own, which the server keeps in its state, and the process that
//! sends it writes to a journal before it sends and after it knows the outcome. At the end the
//! journals are held against the states; see [`check`]. Runs under locks are written down too, where
//! they are what a test is about; see [`locks`].
//!
//! | variable | what |
//! |---|---|
//! | `ABIDE_LONG=1` | 100 000 operations instead of 5 000, a minute of chaos instead of seconds, stops that are longer than a session lives |
//! | `ABIDE_CHAOS_SEED` | which processes are hit when; printed by each run |
//!
//! With the feature `fdb` the same happens on FoundationDB, whose server is killed and restarted too;
//! without a server these tests do nothing, loudly, or fail if `ABIDE_REQUIRE_FDB` is 1.

#![cfg(all(unix, feature = "sqlite"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "also the helpers of a test fail by panicking, and their time is the real one"
)]

mod check;
mod crew;
mod journal;
mod locks;
mod tally;
mod worker;

use crew::{Crew, Part, Place};
use rand::RngExt;
use std::time::{Duration, Instant};

/// Serves and sends.
const BOTH: Part = Part {
    serves: true,
    lanes: 12,
};

fn is_long() -> bool {
    std::env::var_os("ABIDE_LONG").is_some_and(|value| value == "1")
}

fn millis(crew: &mut Crew, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(crew.random.random_range(range))
}

#[test]
fn four_processes_drive_calls_and_casts_through_kills_and_the_total_is_exact() {
    const NAME: &str = "four_processes_drive_calls_and_casts_through_kills_and_the_total_is_exact";
    if worker::plays_the_other() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = Place::sqlite(directory.path());
    kills(NAME, &place, if is_long() { 100_000 } else { 5_000 });
}

/// For how long one process is spared: somebody has to live for longer than a minute to see that
/// another one has died, and only then goes on what that one has claimed.
const SPARED: u64 = 100;

/// Four processes send, and serve each other, until so many operations are acknowledged; all the time
/// one of them is killed and replaced, but for the one that is spared just now.
fn kills(test: &str, place: &Place, operations: u64) {
    let began = Instant::now();
    let mut crew = Crew::start(test, place, &[BOTH; 4]);
    let mut next = Duration::from_millis(700);
    loop {
        crew.watch();
        let acknowledged = crew.ended();
        if acknowledged >= operations && crew.acknowledged() >= operations {
            break;
        }
        assert!(
            began.elapsed()
                < Duration::from_secs(90) + Duration::from_millis(20) * operations as u32,
            "only {acknowledged} of {operations} were acknowledged"
        );
        if began.elapsed() >= next {
            let spared = (began.elapsed().as_secs() / SPARED) as usize;
            let victim = (spared + crew.random.random_range(1..4)) % 4;
            crew.kill_and_replace(victim);
            next = began.elapsed() + millis(&mut crew, 500..if is_long() { 10_000 } else { 3_000 });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = began.elapsed();
    crew.finish();
    println!("{operations} were acknowledged after {sent:.1?}");
    check::at_rest(place, &crew, is_long());
}

#[test]
fn processes_that_are_killed_stopped_and_continued_at_random_lose_and_double_nothing() {
    const NAME: &str =
        "processes_that_are_killed_stopped_and_continued_at_random_lose_and_double_nothing";
    if worker::plays_the_other() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = Place::sqlite(directory.path());
    chaos(NAME, &place, |_| {});
}

#[test]
fn no_lock_is_ever_held_twice_by_processes_that_are_killed() {
    const NAME: &str = "no_lock_is_ever_held_twice_by_processes_that_are_killed";
    if worker::plays_the_other() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = Place::sqlite(directory.path()).with_locks();
    locked(NAME, &place);
}

/// Processes that mostly work under locks, killed and stopped, but for less than a lease: so nobody who
/// lives is taken for dead, and nobody works where another one is at work.
fn locked(test: &str, place: &Place) {
    let time = Duration::from_secs(if is_long() { 80 } else { 15 });
    let began = Instant::now();
    let mut crew = Crew::start(test, place, &[BOTH; 4]);
    let mut next = Duration::from_millis(1_500);
    while began.elapsed() < time {
        crew.watch();
        if began.elapsed() >= next {
            let victim = crew.random.random_range(0..4);
            match crew.random.random_range(0..3) {
                0 => {
                    let pause = millis(&mut crew, 20..700);
                    crew.stop(victim, pause);
                }
                _ => crew.kill_and_replace(victim),
            }
            next = began.elapsed() + millis(&mut crew, 300..2_500);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    crew.finish();
    check::at_rest(place, &crew, is_long());
    let (entered, died) = locks::check(place.locks.as_ref().unwrap());
    println!("{entered} runs under locks, one at a time; {died} of them died");
    assert!(entered > 50, "only {entered} runs under locks");
}

/// Servers, senders and processes that do both, hit at random; `meanwhile` is called all the time.
fn chaos(test: &str, place: &Place, mut meanwhile: impl FnMut(Duration)) {
    const PARTS: [Part; 6] = [
        BOTH,
        BOTH,
        Part {
            serves: true,
            lanes: 0,
        },
        Part {
            serves: true,
            lanes: 0,
        },
        Part {
            serves: false,
            lanes: 8,
        },
        Part {
            serves: false,
            lanes: 8,
        },
    ];
    let time = Duration::from_secs(if is_long() { 80 } else { 10 });
    let began = Instant::now();
    let mut crew = Crew::start(test, place, &PARTS);
    if is_long() {
        // So long that others take them for dead, sweep their sessions and do their work; one that
        // serves, one that sends.
        std::thread::sleep(Duration::from_secs(2));
        crew.stop_without_the_stores_lock(0, Duration::from_secs(70));
        crew.stop_without_the_stores_lock(4, Duration::from_secs(70));
    }
    let mut next = began.elapsed() + Duration::from_millis(500);
    while began.elapsed() < time {
        crew.watch();
        meanwhile(began.elapsed());
        if began.elapsed() >= next {
            let victim = crew.random.random_range(0..PARTS.len());
            match crew.random.random_range(0..10) {
                0..=2 => crew.kill_and_replace(victim),
                // Up to more than the lease.
                _ => {
                    let pause = millis(&mut crew, 20..2_500);
                    crew.stop(victim, pause);
                }
            }
            next = began.elapsed() + millis(&mut crew, 50..700);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    crew.finish();
    check::at_rest(place, &crew, is_long());
}

/// The same on a cluster whose only server is killed and started again.
#[cfg(feature = "fdb")]
mod fdb {
    use super::{Place, chaos, is_long, kills, worker};
    use abide::testing::fdb::{Engine, TestCluster};
    use std::time::{Duration, Instant};

    /// A throw-away cluster, if there can be one.
    fn cluster() -> Option<TestCluster> {
        TestCluster::get()?;
        Some(TestCluster::start(Engine::Ssd).unwrap())
    }

    #[test]
    fn foundationdb_four_processes_through_kills_and_the_total_is_exact() {
        const NAME: &str = "fdb::foundationdb_four_processes_through_kills_and_the_total_is_exact";
        if worker::plays_the_other() {
            return;
        }
        let Some(cluster) = cluster() else { return };
        let directory = tempfile::tempdir().unwrap();
        let place = Place::url(directory.path(), cluster.url());
        kills(NAME, &place, if is_long() { 100_000 } else { 5_000 });
    }

    #[test]
    fn foundationdb_chaos_with_its_server_killed_loses_and_doubles_nothing() {
        const NAME: &str =
            "fdb::foundationdb_chaos_with_its_server_killed_loses_and_doubles_nothing";
        if worker::plays_the_other() {
            return;
        }
        let Some(cluster) = cluster() else { return };
        let directory = tempfile::tempdir().unwrap();
        let place = Place::url(directory.path(), cluster.url());
        let mut restarts = 0;
        let began = Instant::now();
        chaos(NAME, &place, |elapsed| {
            if elapsed > Duration::from_secs(3 + 12 * restarts) {
                restarts += 1;
                cluster.kill().unwrap();
                std::thread::sleep(Duration::from_millis(300));
                cluster.restart().unwrap();
            }
        });
        println!("{restarts} restarts of the server, {:.1?}", began.elapsed());
    }

    #[test]
    fn foundationdb_chaos_with_faults_of_its_client_loses_and_doubles_nothing() {
        const NAME: &str =
            "fdb::foundationdb_chaos_with_faults_of_its_client_loses_and_doubles_nothing";
        if worker::plays_the_other() {
            return;
        }
        let Some(cluster) = cluster() else { return };
        let directory = tempfile::tempdir().unwrap();
        let place = Place::url(directory.path(), cluster.url()).with_client_faults();
        chaos(NAME, &place, |_| {});
    }
}

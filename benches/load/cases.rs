//! The cases, but for those with many instances and with two processes.

use crate::Bench;
use crate::drive::{Measured, drive, each};
use crate::servers::{Add, Counter, Counting, Entries, Fill, Guarded, Keeping, Put, Table, Total};
use crate::{echo, floor, many, processes};
use abide::Node;
use abide::collections::{LazyMap, Map};
use abide::durable::Namespace;
use abide::env::{BoxFuture, TokioEnv};
use abide::server::Ref;
use abide::store::{Database, RetryPolicy, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// In the order in which they run.
pub const NAMES: &[&str] = &[
    "bare_turn",
    "bare_turn_64",
    "bare_two_processes",
    "call_sequential",
    "call_two_processes",
    "call_two_processes_64",
    "call_64_one",
    "call_64_64",
    "call_64_10000",
    "cast_64_one",
    "cast_64_64",
    "cast_64x16_one",
    "cast_64x16_64",
    "drain_one",
    "drain_64",
    "query_sequential",
    "query_64_one",
    "lock_sequential",
    "state_10",
    "state_1000",
    "state_100000",
    "map_10",
    "map_1000",
    "map_100000",
    "lazy_10",
    "lazy_1000",
    "lazy_100000",
    "many_100",
    "many_idle",
];

/// Outlasts what a loaded machine does to a single call.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many casts one transaction queues for the drain cases.
const QUEUED_AT_ONCE: u64 = 500;

/// How many entries one message makes: their rows fit one transaction.
const FILLED_AT_ONCE: u64 = 10_000;

/// Measures a case, or tells why not.
pub async fn run(bench: &Bench, case: &str) -> Result<Measured, &'static str> {
    let namespace = fresh_name(case);
    let measured = match case {
        "bare_turn" => floor::bare_turns(bench, 1).await,
        "bare_turn_64" => floor::bare_turns(bench, 64).await,
        "bare_two_processes" => echo::calls(bench).await?,
        "call_sequential" => calls(bench, &namespace, 1, 1).await,
        "call_two_processes" => processes::calls(bench, &namespace, 1).await?,
        "call_two_processes_64" => processes::calls(bench, &namespace, 64).await?,
        "call_64_one" => calls(bench, &namespace, 64, 1).await,
        "call_64_64" => calls(bench, &namespace, 64, 64).await,
        "call_64_10000" => calls(bench, &namespace, 64, 10_000).await,
        "cast_64_one" => casts(bench, &namespace, 64, 1).await,
        "cast_64_64" => casts(bench, &namespace, 64, 64).await,
        "cast_64x16_one" => casts(bench, &namespace, 64 * 16, 1).await,
        "cast_64x16_64" => casts(bench, &namespace, 64 * 16, 64).await,
        "drain_one" => drain(bench, &namespace, 1).await,
        "drain_64" => drain(bench, &namespace, 64).await,
        "query_sequential" => queries(bench, &namespace, 1).await,
        "query_64_one" => queries(bench, &namespace, 64).await,
        "lock_sequential" => locks(bench, &namespace).await,
        "state_10" => states(bench, &namespace, plain, 10).await,
        "state_1000" => states(bench, &namespace, plain, 1_000).await,
        "state_100000" => states(bench, &namespace, plain, 100_000).await,
        "map_10" => states(bench, &namespace, tracked, 10).await,
        "map_1000" => states(bench, &namespace, tracked, 1_000).await,
        "map_100000" => states(bench, &namespace, tracked, 100_000).await,
        "lazy_10" => states(bench, &namespace, lazy, 10).await,
        "lazy_1000" => states(bench, &namespace, lazy, 1_000).await,
        "lazy_100000" => states(bench, &namespace, lazy, 100_000).await,
        "many_100" => many::run(bench, &namespace, 100).await,
        "many_idle" => many::run(bench, &namespace, bench.instances).await,
        _ => Err("there is no such case")?,
    };
    clear(bench, &namespace).await;
    Ok(measured)
}

/// A namespace that no earlier run has left anything in.
fn fresh_name(case: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("load {case} {}", now.as_nanos())
}

/// Removes what a case has left. What fails here harms no figure.
async fn clear(bench: &Bench, namespace: &str) {
    let db = Database::new(Arc::clone(&bench.raw), Arc::new(TokioEnv::current()));
    let Ok(namespace) = Namespace::open(&db, namespace).await else {
        return;
    };
    let all = namespace.keys().all();
    let cleared = db.run_with(RetryPolicy::retry_unknown(), |attempt| {
        attempt.tx().clear_range(&all);
        async { Ok::<_, StoreError>(()) }
    });
    let _ = cleared.await;
}

/// A node that serves counters.
pub async fn serving(bench: &Bench, namespace: &str, counter: Counter) -> Node {
    let builder = Node::builder_on(Arc::clone(&bench.store)).namespace(namespace);
    let builder = builder.runtime(tokio::runtime::Handle::current());
    builder.serve(counter).start().await.unwrap()
}

/// A node that serves nothing.
pub async fn sending(bench: &Bench, namespace: &str) -> Node {
    let builder = Node::builder_on(Arc::clone(&bench.store)).namespace(namespace);
    let builder = builder.runtime(tokio::runtime::Handle::current());
    builder.start().await.unwrap()
}

pub fn instances(node: &Node, count: u64) -> Arc<Vec<Ref<Counting>>> {
    let one = |number: u64| {
        node.server::<Counting>(number.to_string())
            .timeout(PATIENCE)
    };
    Arc::new((0..count).map(one).collect())
}

/// What `load` measures, once it has run warm, with what passed through the store meanwhile.
pub async fn counted<F, T>(bench: &Bench, tasks: u64, load: F) -> Measured
where
    F: Fn(u64, u64) -> T + Clone + Send + 'static,
    T: Future<Output = ()> + Send,
{
    warm(bench, tasks, load.clone()).await;
    let before = bench.counts.tally();
    let measured = floor::beside(bench, tasks, load).await;
    Measured {
        tally: bench.counts.tally() - before,
        ..measured
    }
}

pub async fn warm<F, T>(bench: &Bench, tasks: u64, load: F)
where
    F: Fn(u64, u64) -> T + Clone + Send + 'static,
    T: Future<Output = ()> + Send,
{
    drive(tasks, bench.time / 5, load).await;
}

/// One call after another from each of `callers`.
pub fn call_each(
    refs: Arc<Vec<Ref<Counting>>>,
    callers: u64,
) -> impl Fn(u64, u64) -> BoxFuture<'static, ()> + Clone + Send + 'static {
    move |caller, round| {
        let called = (caller + round * callers) % refs.len() as u64;
        let call = refs[called as usize].call(Add::ONE);
        Box::pin(async move {
            call.await.unwrap();
        })
    }
}

async fn calls(bench: &Bench, namespace: &str, callers: u64, count: u64) -> Measured {
    let node = serving(bench, namespace, Counter::default()).await;
    let refs = instances(&node, count);
    // The first message of an instance costs more: it makes the instance.
    let made = Arc::clone(&refs);
    each(256, count, move |number| {
        let call = made[number as usize].call(Add::ONE);
        async move {
            call.await.unwrap();
        }
    })
    .await;
    let measured = counted(bench, callers, call_each(refs, callers)).await;
    node.shutdown(PATIENCE).await;
    measured
}

/// Casts by a node that serves nothing; nobody handles them.
async fn casts(bench: &Bench, namespace: &str, producers: u64, count: u64) -> Measured {
    let node = sending(bench, namespace).await;
    let refs = instances(&node, count);
    let measured = counted(bench, producers, move |producer, _| {
        let cast = refs[(producer % refs.len() as u64) as usize].cast(Add::ONE);
        async move { cast.await.unwrap() }
    })
    .await;
    node.shutdown(PATIENCE).await;
    measured
}

/// Queues casts, then measures from the start of a serving node until the last one is handled.
async fn drain(bench: &Bench, namespace: &str, count: u64) -> Measured {
    let node = sending(bench, namespace).await;
    let refs = instances(&node, count);
    let of_each = (bench.queued / count).max(1);
    each(count, count, move |number| {
        let server = refs[number as usize].clone();
        async move {
            for from in (0..of_each).step_by(QUEUED_AT_ONCE as usize) {
                let to = (from + QUEUED_AT_ONCE).min(of_each);
                let adds = (from..to).map(|at| Add {
                    more: 1,
                    last: at + 1 == of_each,
                });
                server.cast_all(adds).await.unwrap();
            }
        }
    })
    .await;
    node.shutdown(PATIENCE).await;

    let counter = Counter::default();
    let before = bench.counts.tally();
    let began = Instant::now();
    let node = serving(bench, namespace, counter.clone()).await;
    let refs = instances(&node, count);
    // An effect can be lost, at a hiccup of the store; the totals then tell.
    let mut asked = Instant::now();
    while counter.drained() < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if asked.elapsed() > Duration::from_secs(20) {
            if total(&refs).await == of_each * count {
                break;
            }
            asked = Instant::now();
        }
    }
    let elapsed = began.elapsed();
    let tally = bench.counts.tally() - before;
    assert_eq!(total(&refs).await, of_each * count, "each exactly once");
    node.shutdown(PATIENCE).await;
    Measured {
        messages: of_each * count,
        elapsed,
        tally,
        ..Measured::default()
    }
}

async fn total(refs: &[Ref<Counting>]) -> u64 {
    let mut total = 0;
    for server in refs {
        total += server.query(Total).await.unwrap();
    }
    total
}

async fn queries(bench: &Bench, namespace: &str, callers: u64) -> Measured {
    let node = serving(bench, namespace, Counter::default()).await;
    let server = instances(&node, 1)[0].clone();
    server.call(Add::ONE).await.unwrap();
    let measured = counted(bench, callers, move |_, _| {
        let query = server.query(Total);
        async move {
            query.await.unwrap();
        }
    })
    .await;
    node.shutdown(PATIENCE).await;
    measured
}

/// Calls that take the lock, run, and close it.
async fn locks(bench: &Bench, namespace: &str) -> Measured {
    let node = serving(bench, namespace, Counter::default()).await;
    let server = instances(&node, 1)[0].clone();
    server.call(Add::ONE).await.unwrap();
    let measured = counted(bench, 1, move |_, _| {
        let call = server.call(Guarded);
        async move {
            call.await.unwrap();
        }
    })
    .await;
    node.shutdown(PATIENCE).await;
    measured
}

/// A table that is written by comparing encodings.
fn plain() -> Table<BTreeMap<u64, u64>> {
    Table::new()
}

/// A table in a collection that knows what was touched.
fn tracked() -> Table<Map<u64, u64>> {
    Table::new()
}

/// A table in a collection that loads nothing of itself. What is put is not read.
fn lazy() -> Table<LazyMap<u64, u64>> {
    Table::new()
}

/// Each call changes one of `entries`.
async fn states<E: Entries>(
    bench: &Bench,
    namespace: &str,
    table: fn() -> Table<E>,
    entries: u64,
) -> Measured {
    let serving = async || {
        let builder = Node::builder_on(Arc::clone(&bench.store)).namespace(namespace);
        let builder = builder.runtime(tokio::runtime::Handle::current());
        builder.serve(table()).start().await.unwrap()
    };
    let node = serving().await;
    let server = node.server::<Keeping>("one").timeout(PATIENCE);
    for from in (0..entries).step_by(FILLED_AT_ONCE as usize) {
        let to = (from + FILLED_AT_ONCE).min(entries);
        server.call(Fill { from, to }).await.unwrap();
    }
    // What was written is in memory, of a lazy map too; of one that was there before nothing is.
    node.shutdown(PATIENCE).await;
    let node = serving().await;
    let server = node.server::<Keeping>("one").timeout(PATIENCE);
    let began = Instant::now();
    let measured = counted(bench, 1, move |_, round| {
        // Far from the last one, and of a new value each time.
        let key = round.wrapping_mul(7_919) % entries;
        let value = began.elapsed().as_nanos() as u64 ^ round;
        let call = server.call(Put { key, value });
        async move { call.await.unwrap() }
    })
    .await;
    node.shutdown(PATIENCE).await;
    measured
}

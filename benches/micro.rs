//! What the parts cost in memory: the codec by the size of a state, the packing of keys, and one
//! turn of a node on a `memory` store.
//!
//! `cargo bench --bench micro`, or with a filter: `cargo bench --bench micro -- codec`.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a benchmark has nobody to report errors to"
)]

#[path = "load/servers.rs"]
#[allow(dead_code, reason = "shared with the load benchmark")]
mod servers;

use abide::codec::{self, Ignored, Leaves};
use abide::durable::keys::{Keys, Lane};
use abide::store::{CommitStamp, MemoryStore, Version};
use abide::{InstanceId, Node};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};
use servers::{Add, Counter, Counting, Total};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A state of the usual kind: some fields, and a table that grows.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Account {
    owner: String,
    balance: i64,
    entries: BTreeMap<u64, Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    text: String,
    amount: i64,
}

fn account(entries: u64) -> Account {
    let entry = |number: u64| Entry {
        text: format!("entry {number}"),
        amount: i64::try_from(number).unwrap(),
    };
    Account {
        owner: "Ada Lovelace".to_owned(),
        balance: 1_815,
        entries: (0..entries).map(|number| (number, entry(number))).collect(),
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    for entries in [0, 1_000, 100_000] {
        let state = account(entries);
        let stored = codec::encode(&state, &Leaves::new(), &Ignored::none()).unwrap();
        let mut changed = state.clone();
        changed.balance += 1;
        let next = codec::encode(&changed, &stored.leaves, &stored.ignored).unwrap();
        group.throughput(Throughput::Elements(entries + 1));
        if entries > 1_000 {
            group
                .sample_size(10)
                .measurement_time(Duration::from_secs(5));
        }
        group.bench_function(BenchmarkId::new("encode", entries), |bencher| {
            bencher.iter(|| codec::encode(&changed, &stored.leaves, &stored.ignored).unwrap());
        });
        group.bench_function(BenchmarkId::new("diff", entries), |bencher| {
            bencher.iter(|| codec::diff(black_box(&stored.leaves), &next.leaves));
        });
        group.bench_function(BenchmarkId::new("decode", entries), |bencher| {
            bencher.iter(|| codec::decode::<Account>(black_box(&stored.leaves)).unwrap());
        });
        group.bench_function(BenchmarkId::new("clone_leaves", entries), |bencher| {
            bencher.iter(|| black_box(&stored.leaves).clone());
        });
    }
    group.finish();
    let add = || Add {
        more: 1,
        last: false,
    };
    let payload = codec::to_payload(&add()).unwrap();
    criterion.bench_function("payload/encode", |bencher| {
        bencher.iter(|| codec::to_payload(black_box(&add())).unwrap());
    });
    criterion.bench_function("payload/decode", |bencher| {
        bencher.iter(|| codec::from_payload::<Add>(black_box(&payload)).unwrap());
    });
}

fn keys(criterion: &mut Criterion) {
    let keys = Keys::new(Keys::namespace_prefix("shop"), 64);
    let instance = InstanceId::new("account", "6ba7b810-9dad-11d1").unwrap();
    let of_instance = keys.instance(&instance);
    let stamp = CommitStamp::new(Version(1 << 40), 3).with_user(7);
    let message = of_instance.message(Lane::Ordinary, 0, stamp, 0);
    criterion.bench_function("keys/of_an_instance", |bencher| {
        bencher.iter(|| keys.instance(black_box(&instance)));
    });
    criterion.bench_function("keys/message", |bencher| {
        bencher.iter(|| of_instance.message(Lane::Ordinary, 0, black_box(stamp), 0));
    });
    criterion.bench_function("keys/push", |bencher| {
        bencher.iter(|| of_instance.push(Lane::Ordinary, 0, black_box(7), 0));
    });
    criterion.bench_function("keys/decode", |bencher| {
        bencher.iter(|| keys.decode(black_box(&message)).unwrap());
    });
}

/// Through a whole node, where a commit costs next to nothing: what remains is abide.
fn turns(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let builder = Node::builder_on(Arc::new(MemoryStore::new()));
    let node = runtime
        .block_on(builder.serve(Counter::default()).start())
        .unwrap();
    let server = node.server::<Counting>("one");
    criterion.bench_function("turn/call", |bencher| {
        bencher.iter_custom(|count| {
            runtime.block_on(async {
                let began = Instant::now();
                for _ in 0..count {
                    server.call(Add::ONE).await.unwrap();
                }
                began.elapsed()
            })
        });
    });
    criterion.bench_function("turn/query", |bencher| {
        bencher.iter_custom(|count| {
            runtime.block_on(async {
                let began = Instant::now();
                for _ in 0..count {
                    server.query(Total).await.unwrap();
                }
                began.elapsed()
            })
        });
    });
    runtime.block_on(node.shutdown(Duration::from_secs(5)));
}

criterion_group!(benches, codec, keys, turns);
criterion_main!(benches);

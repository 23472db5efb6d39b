//! Durable collections behind a real node: undone with their message, kept with their commit, and
//! as fast with many entries as with few.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test, which measures"
)]

use abide::Node;
use abide::collections::Map;
use abide::server::{Context, Failure, Handle, Message, Outcome, Protocol, ReadContext};
use abide::server::{Routes, Server};
use abide::store::Store;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Stock;

impl Protocol for Stock {
    const KIND: &'static str = "stock";
}

#[derive(Serialize, Deserialize)]
enum Do {
    Fill(u64),
    Add(u64, u32),
    Reject(u64),
    Sum(Vec<u64>),
}

impl Message<Stock> for Do {
    const NAME: &'static str = "do";
    type Reply = Vec<Option<u32>>;
}

#[derive(Default, Serialize, Deserialize)]
struct Shelves {
    amounts: Map<u64, u32>,
    calls: u32,
}

struct Keeper;

impl Server for Keeper {
    type Protocol = Stock;
    type State = Shelves;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Shelves, Failure> {
        Ok(Shelves::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Do>()
    }
}

impl Handle<Do> for Keeper {
    fn handle(
        &self,
        state: &mut Shelves,
        message: Do,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<Vec<Option<u32>>>, Failure> {
        state.calls += 1;
        match message {
            Do::Fill(count) => {
                let next = state.amounts.len() as u64;
                state
                    .amounts
                    .extend((next..next + count).map(|key| (key, 0)));
            }
            Do::Add(key, more) => *state.amounts.entry(key, || 0) += more,
            Do::Reject(key) => {
                *state.amounts.entry(key, || 0) += 1_000;
                state.amounts.remove(&(key + 1));
                state.amounts.insert(key + 2, 7);
                return Err(Failure::reject("changed my mind"));
            }
            Do::Sum(keys) => {
                let values = keys.iter().map(|key| state.amounts.get(key).copied());
                return Ok(Outcome::Reply(values.collect()));
            }
        }
        Ok(Outcome::Reply(Vec::new()))
    }
}

#[test]
fn a_map_is_a_map_to_other_formats() {
    let shelves = Shelves {
        amounts: Map::from_iter([(7, 1), (8, 2)]),
        calls: 3,
    };
    let json = serde_json::to_string(&shelves).unwrap();
    assert_eq!(json, r#"{"amounts":{"7":1,"8":2},"calls":3}"#);
    let again: Shelves = serde_json::from_str(&json).unwrap();
    assert_eq!(again.amounts, shelves.amounts);
}

fn store() -> Arc<dyn Store> {
    Arc::new(abide::store::MemoryStore::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_message_undoes_what_it_did_to_a_collection() {
    let store = store();
    let node = Node::builder_on(Arc::clone(&store))
        .serve(Keeper)
        .start()
        .await
        .unwrap();
    let stock = node.server::<Stock>("one");
    stock.call(Do::Fill(10)).await.unwrap();
    stock.call(Do::Add(3, 5)).await.unwrap();
    assert!(stock.call(Do::Reject(3)).await.is_err());
    // In one batch with others, and on its own.
    let (first, second, third) = tokio::join!(
        stock.call(Do::Add(4, 1)),
        stock.call(Do::Reject(3)),
        stock.call(Do::Add(4, 1)),
    );
    assert!(first.is_ok() && second.is_err() && third.is_ok());
    let expected = [Some(5), Some(2), Some(0), None];
    let asked = || Do::Sum(vec![3, 4, 5, 10]);
    assert_eq!(stock.call(asked()).await.unwrap(), expected);
    assert!(node.shutdown(Duration::from_secs(5)).await);
    let node = Node::builder_on(store).serve(Keeper).start().await.unwrap();
    let stored = node.server::<Stock>("one").call(asked()).await.unwrap();
    assert_eq!(stored, expected, "what is stored is what was in memory");
    node.shutdown(Duration::from_secs(5)).await;
}

/// Run it alone, in release: `cargo test --release --test collections_node -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_change_costs_as_much_among_many_entries_as_among_few() {
    let node = Node::builder_on(store())
        .serve(Keeper)
        .start()
        .await
        .unwrap();
    let mut medians = Vec::new();
    for entries in [10_u64, 1_000, 100_000] {
        let stock = node.server::<Stock>(format!("of-{entries}"));
        let mut left = entries;
        while left > 0 {
            let more = left.min(5_000);
            stock.call(Do::Fill(more)).await.unwrap();
            left -= more;
        }
        let mut times = Vec::new();
        for call in 0..2_000_u64 {
            let began = Instant::now();
            stock
                .call(Do::Add(call * 7_919 % entries, 1))
                .await
                .unwrap();
            times.push(began.elapsed());
        }
        let mut undone = Vec::new();
        for call in 0..200_u64 {
            let began = Instant::now();
            stock.call(Do::Reject(call % entries)).await.unwrap_err();
            undone.push(began.elapsed());
        }
        times.sort();
        undone.sort();
        let (median, late) = (times[1_000], times[1_980]);
        #[allow(clippy::print_stderr, reason = "a measurement")]
        {
            eprintln!(
                "{entries} entries: call p50 {median:?}, p99 {late:?}; rejected p50 {:?}",
                undone[100]
            );
        }
        medians.push(median);
    }
    assert!(medians[2] <= medians[0] * 2, "{medians:?}");
    node.shutdown(Duration::from_secs(5)).await;
}

//! An operator at work beside running nodes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which clippy takes for other code"
)]

mod check;
mod edits;
mod moving;
mod operate;
mod planned;

use abide::admin::{Admin, Finding};
use abide::durable::keys::Lane;
use abide::server::{
    Context, Failure, Handle, LockContext, Locked, Message, Outcome, Outgoing, Protocol, Query,
    ReadContext, Ref, Routes, Server,
};
use abide::store::{Database, MemoryStore, Store};
use abide::testing::sim::{Node as Process, Sim};
use abide::{InstanceId, KindOptions, Node, Poison, codec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Logging;

impl Protocol for Logging {
    const KIND: &'static str = "log";
}

/// Notes a number; 13 is poison for a strict server.
#[derive(Serialize, Deserialize)]
pub(crate) struct Put(pub(crate) u64);

impl Message<Logging> for Put {
    const NAME: &'static str = "put";
    type Reply = u64;
}

#[derive(Serialize, Deserialize)]
pub(crate) struct All;

impl Message<Logging> for All {
    const NAME: &'static str = "all";
    type Reply = Vec<u64>;
}

/// Notes a number under the lock; a strict server never comes to its end.
#[derive(Serialize, Deserialize)]
pub(crate) struct Slow(pub(crate) u64);

impl Message<Logging> for Slow {
    const NAME: &'static str = "slow";
    type Reply = u64;
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) limit: u64,
    pub(crate) entries: Vec<u64>,
    pub(crate) seen: BTreeMap<String, u64>,
    /// Stored item by item.
    pub(crate) rows: Vec<Row>,
    pub(crate) shelves: BTreeMap<String, Shelf>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) number: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Shelf {
    pub(crate) count: u64,
    pub(crate) label: String,
}

pub(crate) struct Log {
    pub(crate) strict: bool,
}

impl Server for Log {
    type Protocol = Logging;
    type State = State;

    fn init(&self, cx: &ReadContext<'_>) -> Result<State, Failure> {
        let _ = cx;
        Ok(State {
            name: "log".to_owned(),
            limit: 1_000,
            ..State::default()
        })
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Put>().query::<All>().locked::<Slow>()
    }
}

impl Handle<Put> for Log {
    fn handle(
        &self,
        state: &mut State,
        Put(number): Put,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        if number == 13 && self.strict {
            return Err(Failure::fail("thirteen"));
        }
        if number > state.limit {
            return Err(Failure::reject("too much"));
        }
        state.entries.push(number);
        *state.seen.entry(format!("n{number}")).or_default() += 1;
        let id = format!("r{number}");
        if number < 10 && state.rows.iter().all(|row| row.id != id) {
            state.rows.push(Row { id, number });
            let shelf = Shelf {
                count: number,
                label: "shelf".to_owned(),
            };
            state.shelves.insert(format!("s{number}"), shelf);
        }
        Ok(Outcome::Reply(number))
    }
}

impl Query<All> for Log {
    fn query(&self, state: &State, _all: All, _cx: &ReadContext<'_>) -> Result<Vec<u64>, Failure> {
        Ok(state.entries.clone())
    }
}

impl Handle<Slow> for Log {
    fn handle(
        &self,
        _state: &mut State,
        _slow: Slow,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Lock)
    }
}

impl Locked<Slow> for Log {
    type Output = u64;

    async fn run(&self, _state: State, slow: Slow, _cx: LockContext) -> Result<u64, Failure> {
        if self.strict {
            std::future::pending::<()>().await;
        }
        Ok(slow.0)
    }

    fn close(
        &self,
        state: &mut State,
        _slow: Slow,
        output: u64,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        state.entries.push(output);
        Ok(Outcome::Reply(output))
    }
}

/// A store, a simulation around it, and an operator.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) store: MemoryStore,
    pub(crate) admin: Arc<Admin>,
}

pub(crate) const NAMESPACE: &str = "test";

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let store = MemoryStore::with_env(sim.env());
        let database = Database::new(Arc::new(store.clone()), sim.env());
        let admin = sim
            .block_on(async move { Admin::create(&database, NAMESPACE).await.unwrap() })
            .unwrap();
        Self {
            sim,
            store,
            admin: Arc::new(admin),
        }
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.sim.block_on(work).unwrap()
    }

    /// A node that serves the log.
    pub(crate) fn serve(&self, name: &str, strict: bool, poison: Poison) -> Node {
        self.serve_in(&self.sim.node(name), strict, poison)
    }

    /// A node that serves the log, in a process that may crash.
    pub(crate) fn serve_in(&self, process: &Process, strict: bool, poison: Poison) -> Node {
        let options = KindOptions::default()
            .poison(poison)
            .backoff(secs(1), secs(1))
            .attempts(2);
        let builder = Node::builder_on(Arc::new(self.store.clone()))
            .env(process.env())
            .namespace(NAMESPACE)
            .serve_with(Log { strict }, options);
        self.run(async move { builder.start().await.unwrap() })
    }

    /// A node that only sends.
    pub(crate) fn sender(&self) -> Node {
        let builder = Node::builder_on(Arc::new(self.store.clone()))
            .env(self.sim.node("sender").env())
            .namespace(NAMESPACE);
        self.run(async move { builder.start().await.unwrap() })
    }

    pub(crate) fn stop(&self, node: &Node) {
        assert!(self.run(node.shutdown(secs(20))));
    }

    pub(crate) fn sleep(&self, time: Duration) {
        let env = self.sim.env();
        self.run(async move { env.sleep(time).await });
    }

    /// Everything the doctor finds.
    pub(crate) fn doctor(&self) -> Vec<Finding> {
        let admin = Arc::clone(&self.admin);
        self.run(async move {
            let (mut findings, mut cursor) = (Vec::new(), None);
            loop {
                let page = admin.doctor(cursor.as_ref()).await.unwrap();
                findings.extend(page.items);
                cursor = page.next;
                if cursor.is_none() {
                    return findings;
                }
            }
        })
    }

    /// Writes raw bytes behind everybody's back.
    pub(crate) fn plant(&self, rows: &[(&[u8], &[u8])]) {
        let tx = self.store.begin().unwrap();
        for (key, value) in rows {
            tx.set(key, value);
        }
        self.run(async move { tx.commit().await.unwrap() });
    }
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn log(id: &str) -> InstanceId {
    InstanceId::new("log", id).unwrap()
}

pub(crate) fn put(id: &str, number: u64) -> Outgoing {
    Outgoing {
        instance: log(id),
        name: "put".into(),
        payload: codec::to_payload(&Put(number)).unwrap(),
        lane: Lane::Ordinary,
        query: false,
        trace: None,
    }
}

pub(crate) fn reference(node: &Node, id: &str) -> Ref<Logging> {
    node.server::<Logging>(id.to_owned())
}

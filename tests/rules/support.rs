//! Processes of a simulation over one store, and a server whose every step is noted.

use abide::admin::Admin;
use abide::durable::Namespace;
use abide::durable::keys::SessionId;
use abide::env::Env;
use abide::server::{
    Activation, Context, DeadLetterNotice, Failure, Handle, LockContext, Locked, Message, Outcome,
    Protocol, Query, ReadContext, Ref, Routes, Server,
};
use abide::store::{Database, MemoryStore, Store};
use abide::testing::faults::FaultyStore;
use abide::testing::sim::{self, Sim};
use abide::testing::{Bug, plant};
use abide::{InstanceId, KindOptions, Node, NodeBuilder};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const NAMESPACE: &str = "rules";

/// The lease of locks, much longer than a renewal takes.
pub(crate) const LEASE: Duration = secs(30);

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What happened in the processes, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    /// Where the first note that begins so stands among all of them.
    pub(crate) fn place(&self, beginning: &str) -> Option<usize> {
        let notes = self.0.lock().unwrap();
        notes.iter().position(|note| note.starts_with(beginning))
    }

    /// The notes that begin so, without their beginning.
    pub(crate) fn of(&self, beginning: &str) -> Vec<String> {
        let notes = self.0.lock().unwrap();
        let notes = notes.iter().filter_map(|note| note.strip_prefix(beginning));
        notes.map(str::to_owned).collect()
    }
}

#[derive(Debug)]
pub(crate) struct Desks;

impl Protocol for Desks {
    const KIND: &'static str = "desk";
}

macro_rules! messages {
    ($($name:ident { $($field:ident: $type:ty),* } -> $reply:ty;)*) => {
        $(
            #[derive(Debug, Clone, Serialize, Deserialize)]
            pub(crate) struct $name {
                $(pub(crate) $field: $type),*
            }

            impl Message<Desks> for $name {
                const NAME: &'static str = stringify!($name);
                type Reply = $reply;
            }
        )*
    };
}

messages! {
    // Appends a number, with an effect that notes it. Replies how many there are.
    Put { n: u64 } -> u64;
    // The numbers; a query.
    All {} -> Vec<u64>;
    // Appends a number after so much time under the lock; fails up to an attempt.
    Work { n: u64, time: Duration, fails: u32 } -> u64;
    // Fails up to an attempt, then appends.
    Fail { n: u64, times: u32 } -> u64;
    // Sends the number on: from the handler, or from its effect.
    Relay { n: u64, to: String, later: bool } -> u64;
}

/// A message whose name no server knows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stranger {}

impl Message<Desks> for Stranger {
    const NAME: &'static str = "Stranger";
    type Reply = u64;
}

/// Schema 1 of the server, or a later one.
pub(crate) struct Desk<const SCHEMA: u32> {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) notes: Notes,
    pub(crate) process: &'static str,
}

impl<const N: u32> Desk<N> {
    fn saw(&self, what: &str, cx: &Context<'_, Self>) {
        let trace = cx.trace().map(|trace| format!(" {trace}"));
        self.notes.note(format!(
            "{} {what} attempt {}{}",
            cx.instance().id(),
            cx.attempt(),
            trace.unwrap_or_default()
        ));
    }
}

impl<const N: u32> Server for Desk<N> {
    type Protocol = Desks;
    type State = Vec<u64>;
    const SCHEMA: u32 = N;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Vec<u64>, Failure> {
        Ok(Vec::new())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes
            .handle::<Put>()
            .query::<All>()
            .locked::<Work>()
            .handle::<Fail>()
            .handle::<Relay>()
    }

    fn activated(&self, instance: &InstanceId, _state: &Vec<u64>, cause: Activation) {
        self.notes
            .note(format!("activated {} {cause:?}", instance.id()));
    }

    fn dead_letter(&self, notice: &DeadLetterNotice) {
        let trace = notice.trace.map(|trace| format!(" {trace}"));
        self.notes.note(format!(
            "dead {} {}{}",
            notice.name,
            notice.attempts,
            trace.unwrap_or_default()
        ));
    }
}

type Handled = Result<Outcome<u64>, Failure>;

fn append(numbers: &mut Vec<u64>, n: u64) -> Handled {
    numbers.push(n);
    Ok(Outcome::Reply(numbers.len() as u64))
}

impl<const N: u32> Handle<Put> for Desk<N> {
    fn handle(&self, numbers: &mut Vec<u64>, put: Put, cx: &mut Context<'_, Self>) -> Handled {
        self.saw(&format!("put {}", put.n), cx);
        let notes = self.notes.clone();
        cx.after_commit(move |_| notes.note(format!("effect {}", put.n)));
        append(numbers, put.n)
    }
}

impl<const N: u32> Query<All> for Desk<N> {
    fn query(&self, all: &Vec<u64>, _: All, _: &ReadContext<'_>) -> Result<Vec<u64>, Failure> {
        Ok(all.clone())
    }
}

impl<const N: u32> Handle<Fail> for Desk<N> {
    fn handle(&self, numbers: &mut Vec<u64>, fail: Fail, cx: &mut Context<'_, Self>) -> Handled {
        self.saw(&format!("fail {}", fail.n), cx);
        match cx.attempt() <= fail.times {
            true => Err(Failure::fail("as planned")),
            false => append(numbers, fail.n),
        }
    }
}

impl<const N: u32> Handle<Relay> for Desk<N> {
    fn handle(&self, numbers: &mut Vec<u64>, relay: Relay, cx: &mut Context<'_, Self>) -> Handled {
        self.saw(&format!("relay {}", relay.n), cx);
        let (n, env) = (relay.n, Arc::clone(&self.env));
        match relay.later {
            false => cx.cast::<Desks>(relay.to, Put { n })?,
            true => cx.after_commit(move |after| {
                let cast = after.server::<Desks>(relay.to).cast(Put { n });
                env.spawn(Box::pin(async move { drop(cast.await) }));
            }),
        }
        append(numbers, n)
    }
}

impl<const N: u32> Handle<Work> for Desk<N> {
    fn handle(&self, _: &mut Vec<u64>, _: Work, _: &mut Context<'_, Self>) -> Handled {
        Ok(Outcome::Lock)
    }
}

impl<const N: u32> Locked<Work> for Desk<N> {
    type Output = ();

    async fn run(&self, _: Vec<u64>, work: Work, cx: LockContext) -> Result<(), Failure> {
        let attempt = cx.attempt();
        self.notes
            .note(format!("token {} {}", work.n, cx.fencing_token()));
        let trace = cx.trace().map(|trace| format!(" {trace}"));
        self.notes.note(format!(
            "ran {} attempt {attempt} by {}{}",
            work.n,
            self.process,
            trace.unwrap_or_default()
        ));
        let _held = Held {
            notes: self.notes.clone(),
            what: format!("{} by {}", work.n, self.process),
        };
        if attempt <= work.fails {
            return Err(Failure::fail("as planned"));
        }
        self.env.sleep(work.time).await;
        Ok(())
    }

    fn close(
        &self,
        numbers: &mut Vec<u64>,
        work: Work,
        (): (),
        _: &mut Context<'_, Self>,
    ) -> Handled {
        append(numbers, work.n)
    }
}

/// What a run holds for as long as it lasts; its end is noted.
struct Held {
    notes: Notes,
    what: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.notes.note(format!("left {}", self.what));
    }
}

/// A process with its connection to the store.
pub(crate) struct Process {
    pub(crate) machine: sim::Node,
    pub(crate) store: FaultyStore,
    pub(crate) node: Node,
}

impl Process {
    pub(crate) fn desk(&self, id: &str) -> Ref<Desks> {
        self.node.server::<Desks>(id).timeout(secs(3_600))
    }

    /// Like a power failure.
    pub(crate) fn crash(self) {
        self.machine.crash();
    }
}

/// One run.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) cluster: Arc<dyn Store>,
    pub(crate) notes: Notes,
    pub(crate) options: KindOptions,
    seed: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let sim = Sim::new(seed).with_time_limit(secs(4 * 3_600));
        let cluster: Arc<dyn Store> = Arc::new(MemoryStore::with_env(sim.env()));
        Self::on(sim, cluster, seed)
    }

    /// A run on a store whose commits share versions, and whose read versions cost something. A batch
    /// of commits gathers for up to so long.
    pub(crate) fn with_batches(seed: u64, longest: Duration) -> Self {
        let sim = Sim::new(seed).with_time_limit(secs(4 * 3_600));
        let cluster: Arc<dyn Store> = Arc::new(MemoryStore::with_batches(sim.env(), longest));
        Self::on(sim, cluster, seed)
    }

    pub(crate) fn on(sim: Sim, cluster: Arc<dyn Store>, seed: u64) -> Self {
        let world = Self {
            sim,
            cluster,
            notes: Notes::default(),
            options: KindOptions::default()
                .attempts(3)
                .backoff(secs(1), secs(2))
                .lease(LEASE),
            seed,
        };
        // One shard, so that its scan sees all instances.
        let database = world.database();
        let opened = Namespace::open_with_shards(&database, NAMESPACE, 1);
        world.run(opened).unwrap();
        world
    }

    pub(crate) fn database(&self) -> Database {
        Database::new(Arc::clone(&self.cluster), self.sim.env())
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.sim.block_on(work).unwrap()
    }

    pub(crate) fn rest(&self, time: Duration) {
        self.sim.run_for(time).unwrap();
    }

    pub(crate) fn connection(&self) -> FaultyStore {
        FaultyStore::new(Arc::clone(&self.cluster), self.sim.env(), self.seed)
    }

    pub(crate) fn serve(&self, name: &'static str) -> Process {
        self.serve_as::<1>(name)
    }

    pub(crate) fn serve_as<const SCHEMA: u32>(&self, name: &'static str) -> Process {
        let (notes, options) = (self.notes.clone(), self.options.clone());
        self.start(name, move |builder, env| {
            let desk = Desk::<SCHEMA> {
                env,
                notes,
                process: name,
            };
            builder.serve_with(desk, options)
        })
    }

    /// A process that only sends.
    pub(crate) fn sender(&self, name: &'static str) -> Process {
        self.start(name, |builder, _| builder)
    }

    pub(crate) fn start(
        &self,
        name: &'static str,
        build: impl FnOnce(NodeBuilder, Arc<dyn Env>) -> NodeBuilder,
    ) -> Process {
        let (machine, store) = (self.sim.node(name), self.connection());
        let builder = Node::builder_on(Arc::new(store.clone()))
            .namespace(NAMESPACE)
            .push_for(secs(600))
            .env(machine.env());
        let started = machine.run(build(builder, machine.env()).start());
        let node = self.run(started).unwrap().unwrap();
        Process {
            machine,
            store,
            node,
        }
    }

    pub(crate) fn stop(&self, process: &Process) {
        let node = process.node.clone();
        let ended = process.machine.run(async move {
            assert_eq!(node.failure(), None);
            node.shutdown(secs(30)).await
        });
        assert_eq!(self.run(ended), Some(true), "it did not stop in time");
    }

    /// Begins something whose end the run goes on without.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Promise<T> {
        let slot = Arc::new(Mutex::new(None));
        let filled = Arc::clone(&slot);
        self.sim.env().spawn(Box::pin(async move {
            let value = work.await;
            *filled.lock().unwrap() = Some(value);
        }));
        Promise(slot)
    }

    pub(crate) fn admin(&self) -> Admin {
        let database = self.database();
        self.run(async move { Admin::open(&database, NAMESPACE).await })
            .unwrap()
    }

    /// The sessions that are there.
    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        let page = self.run(self.admin().sessions(None, 100)).unwrap();
        let sessions = page.items.into_iter();
        sessions.map(|session| session.session).collect()
    }

    pub(crate) fn put(&self, process: &Process, id: &str, n: u64) -> u64 {
        self.run(process.desk(id).call(Put { n })).unwrap()
    }

    pub(crate) fn all(&self, process: &Process, id: &str) -> Vec<u64> {
        self.run(process.desk(id).query(All {})).unwrap()
    }
}

/// The end of something that was begun.
pub(crate) struct Promise<T>(Arc<Mutex<Option<T>>>);

impl<T> Promise<T> {
    pub(crate) fn is_kept(&self) -> bool {
        self.0.lock().unwrap().is_some()
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap().take()
    }
}

pub(crate) fn instance(id: &str) -> InstanceId {
    InstanceId::new("desk", id).unwrap()
}

/// A scenario holds, with each seed, and does not with at least one of them once the mistake is
/// planted: so the scenario would find it. What it says then contains `breach`: a panic for any other
/// reason, of abide's own code say, does not show that the rule is looked after.
pub(crate) fn holds_only_without(bug: Bug, seeds: u64, breach: &str, scenario: impl Fn(u64)) {
    for seed in 0..seeds {
        scenario(seed);
    }
    let mut others = Vec::new();
    let found = (0..seeds).any(|seed| {
        plant(Some(bug));
        let ran = catch_unwind(AssertUnwindSafe(|| scenario(seed)));
        plant(None);
        let said = ran.err().map(|panic| said(panic.as_ref()));
        let is_it = said.as_ref().is_some_and(|said| said.contains(breach));
        others.extend(said);
        is_it
    });
    assert!(
        found,
        "{bug:?} is not found in {seeds} seeds by {breach:?}, but by {others:#?}"
    );
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_default()
}

//! The processes of a run over one store, what they send, and what they are told.

use crate::server::{Act, Append, Tallies, Tally, Work};
use abide::admin::{Admin, AdminError, Cursor, DeadFilter, Finding};
use abide::durable::Namespace;
use abide::server::{Batch, CallErrorKind};
use abide::store::{Database, Isolation, KeyValue, MemoryStore, TransactionExt};
use abide::testing::faults::{Faults, FaultyStore};
use abide::testing::sim::{self, Sim};
use abide::{InstanceId, KindOptions, Node};
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const NAMESPACE: &str = "crash";

/// Longer than anything takes, the sweep of a dead session and the end of its lease included.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long an operation is watched before its process is ended, and a node may take to shut down.
pub(crate) const WATCHED: Duration = Duration::from_secs(40);

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn instance(id: &str) -> InstanceId {
    InstanceId::new("tally", id).unwrap()
}

/// What was told of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is in the mailbox.
    Accepted,
    /// It was applied, at this place.
    Placed(u64),
    Failed(CallErrorKind),
}

/// An operation that was sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) op: u64,
    pub(crate) to: &'static str,
    /// Whether the process that sent it lives to the end.
    pub(crate) by_living: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    Cast(Act),
    Call(Act),
    Work,
}

#[derive(Debug, Default)]
pub(crate) struct Notes {
    told: Mutex<Vec<(u64, Told)>>,
    /// How an operator's work ended, once it has.
    worked: Mutex<Option<Result<(), String>>>,
}

impl Notes {
    pub(crate) fn tell(&self, op: u64, told: Told) {
        self.told.lock().unwrap().push((op, told));
    }

    pub(crate) fn end_work(&self, ended: Result<(), String>) {
        *self.worked.lock().unwrap() = Some(ended);
    }
}

/// A process with its node.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) machine: sim::Node,
    pub(crate) node: Node,
}

pub(crate) struct World {
    pub(crate) sim: Sim,
    cluster: Arc<MemoryStore>,
    pub(crate) namespace: Namespace,
    pub(crate) notes: Arc<Notes>,
    /// A connection to which nothing happens.
    pub(crate) healthy: FaultyStore,
    /// Serves nothing, and lives from the beginning to the end, or to when it is dismissed.
    pub(crate) sender: Process,
    is_sender_gone: Cell<bool>,
    /// What else lives to the end.
    pub(crate) others: RefCell<Vec<Process>>,
    sent: RefCell<Vec<Sent>>,
    /// What a case keeps for its end.
    pub(crate) kept: RefCell<Vec<abide::admin::Record>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let sim = Sim::new(11);
        let cluster = Arc::new(MemoryStore::with_env(sim.env()));
        let database = Database::new(Arc::clone(&cluster) as _, sim.env());
        let opened = Namespace::open_with_shards(&database, NAMESPACE, 1);
        let namespace = sim.block_on(opened).unwrap().unwrap();
        let healthy = connection(&sim, &cluster);
        let sender = process(&sim, "sender", &healthy, None);
        Self {
            healthy,
            sender,
            is_sender_gone: Cell::new(false),
            sim,
            cluster,
            namespace,
            notes: Arc::default(),
            others: RefCell::default(),
            sent: RefCell::default(),
            kept: RefCell::default(),
        }
    }

    pub(crate) fn connection(&self) -> FaultyStore {
        connection(&self.sim, &self.cluster)
    }

    /// A process on a connection; it serves, harshly or not, or does not.
    pub(crate) fn process(
        &self,
        name: &str,
        store: &FaultyStore,
        is_harsh: Option<bool>,
    ) -> Process {
        process(&self.sim, name, store, is_harsh)
    }

    /// A process that serves on the healthy connection.
    pub(crate) fn serve(&self, name: &str, is_harsh: bool) -> Process {
        self.process(name, &self.healthy, Some(is_harsh))
    }

    pub(crate) fn rest(&self, duration: Duration) {
        self.sim.run_for(duration).unwrap();
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.sim.block_on(work).unwrap()
    }

    /// Shuts a process down in order; whether it did.
    pub(crate) fn stop(&self, process: &Process) -> bool {
        let node = process.node.clone();
        let ended = process
            .machine
            .run(async move { node.shutdown(WATCHED).await });
        self.run(ended) == Some(true)
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::of(self.namespace.clone())
    }

    /// Does an operator's work, by one that nothing happens to.
    pub(crate) fn operate<T>(&self, work: impl AsyncFnOnce(&Admin) -> Result<T, AdminError>) -> T {
        self.run(async {
            let admin = self.admin();
            let worked = work(&admin).await;
            admin.close().await.unwrap();
            worked.unwrap()
        })
    }

    /// Sends an operation, by the sender.
    pub(crate) fn send(&self, op: u64, to: &'static str, what: What) {
        self.send_from(&self.sender, op, to, what, true);
    }

    pub(crate) fn send_from(
        &self,
        from: &Process,
        op: u64,
        to: &'static str,
        what: What,
        by_living: bool,
    ) {
        self.sent.borrow_mut().push(Sent { op, to, by_living });
        let (notes, node) = (Arc::clone(&self.notes), from.node.clone());
        from.machine.env().spawn(Box::pin(async move {
            let server = node.server::<Tally>(to).timeout(PATIENCE);
            let ended = match what {
                What::Cast(act) => match server.cast(Append { op, act }).await {
                    Ok(()) => Ok(Told::Accepted),
                    Err(error) => Err(error),
                },
                What::Call(act) => server.call(Append { op, act }).await.map(Told::Placed),
                What::Work => server.call(Work { op }).await.map(Told::Placed),
            };
            notes.tell(op, ended.unwrap_or_else(|error| Told::Failed(error.kind())));
        }));
    }

    /// Sends casts in one atomic batch, by a process that may not live.
    pub(crate) fn send_batch(&self, from: &Process, ops: &[(u64, &'static str)]) {
        for (op, to) in ops {
            self.sent.borrow_mut().push(Sent {
                op: *op,
                to,
                by_living: false,
            });
        }
        let (notes, node, ops) = (Arc::clone(&self.notes), from.node.clone(), ops.to_vec());
        from.machine.env().spawn(Box::pin(async move {
            let mut batch = Batch::new();
            for (op, to) in &ops {
                let act = Act::Plain;
                batch = batch.cast(&node.server::<Tally>(*to), Append { op: *op, act });
            }
            let ended = batch.send().await;
            for (op, _) in ops {
                notes.tell(
                    op,
                    match &ended {
                        Ok(()) => Told::Accepted,
                        Err(error) => Told::Failed(error.kind()),
                    },
                );
            }
        }));
    }

    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.sent.borrow().clone()
    }

    pub(crate) fn told(&self) -> Vec<(u64, Told)> {
        self.notes.told.lock().unwrap().clone()
    }

    /// What was sent and told so far is asked of nobody.
    pub(crate) fn forget(&self) {
        self.sent.borrow_mut().clear();
        self.notes.told.lock().unwrap().clear();
    }

    /// Whether an operator's work has ended.
    pub(crate) fn has_worked(&self) -> bool {
        self.notes.worked.lock().unwrap().is_some()
    }

    /// Whether an operator's work has ended well.
    pub(crate) fn is_done(&self) -> bool {
        matches!(*self.notes.worked.lock().unwrap(), Some(Ok(())))
    }

    /// What went wrong with an operator's work.
    pub(crate) fn trouble(&self) -> Option<String> {
        let worked = self.notes.worked.lock().unwrap();
        worked.as_ref()?.as_ref().err().cloned()
    }

    /// The numbers in dead letters, sorted.
    pub(crate) fn letters(&self) -> Vec<u64> {
        let admin = self.admin();
        let page = self.run(admin.dead_letters(&DeadFilter::default(), None, 100));
        let page = page.unwrap();
        assert!(page.damaged.is_empty() && page.next.is_none());
        let mut ops: Vec<u64> = page
            .items
            .into_iter()
            .map(|view| {
                let message = view.letter.unwrap().message.value().unwrap();
                match message.to_typed::<Append>() {
                    Ok(append) => append.op,
                    Err(_) => message.to_typed::<Work>().unwrap().op,
                }
            })
            .collect();
        ops.sort_unstable();
        ops
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.run(findings(&self.admin())).unwrap()
    }

    /// Shuts the sender down, unless it is already.
    pub(crate) fn dismiss_sender(&self) {
        if !self.is_sender_gone.replace(true) {
            assert!(self.stop(&self.sender), "the sender does not shut down");
        }
    }

    /// Every key and value of the namespace.
    pub(crate) fn contents(&self) -> Vec<KeyValue> {
        self.run(async {
            let tx = self.namespace.database().store().begin().unwrap();
            let mut all = Vec::new();
            let range = self.namespace.keys().all();
            tx.for_each_page(&range, Isolation::Snapshot, |page| {
                all.extend(page);
                ControlFlow::Continue(())
            })
            .await
            .unwrap();
            all
        })
    }
}

/// All that the doctor finds.
pub(crate) async fn findings(admin: &Admin) -> Result<Vec<Finding>, AdminError> {
    let (mut findings, mut cursor): (_, Option<Cursor>) = (Vec::new(), None);
    loop {
        let page = admin.doctor(cursor.as_ref()).await?;
        findings.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(findings);
        }
    }
}

fn connection(sim: &Sim, cluster: &Arc<MemoryStore>) -> FaultyStore {
    let store = FaultyStore::new(Arc::clone(cluster) as _, sim.env(), 5);
    store.set_faults(Faults {
        late_by: secs(3),
        ..Faults::none()
    });
    store
}

fn process(sim: &Sim, name: &str, store: &FaultyStore, is_harsh: Option<bool>) -> Process {
    let machine = sim.node(name);
    let mut builder = Node::builder_on(Arc::new(store.clone()))
        .namespace(NAMESPACE)
        .env(machine.env());
    if let Some(is_harsh) = is_harsh {
        let options = KindOptions::default().attempts(2);
        let tallies = Tallies {
            env: machine.env(),
            is_harsh,
        };
        builder = builder.serve_with(tallies, options);
    }
    let started = sim.block_on(machine.run(builder.start()));
    let node = started.unwrap().unwrap().unwrap();
    Process { machine, node }
}

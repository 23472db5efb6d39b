//! Each operation is crashed at each of its steps in the store, in every way that a commit can be
//! overtaken by a crash; then another process comes, and everything must be as if the operation had
//! happened once or not at all. And each of its commits once ends with an unknown outcome, of every
//! kind, in a process that lives: then everything must be as if nothing had gone wrong, and every caller
//! must be told so.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "also the helpers of a test fail by panicking"
)]

use abide::admin::{Admin, Purge, Selection};
use abide::durable::Namespace;
use abide::durable::keys::{Key, Part};
use abide::env::Env;
use abide::server::{
    CallErrorKind, Context, Failure, Handle, LockContext, Locked, Message, Outcome, Protocol,
    Query, ReadContext, Routes, Server,
};
use abide::store::{Database, Isolation, KeyValue, MemoryStore, TransactionExt};
use abide::testing::faults::{CommitFate, CrashMode, Faults, FaultyStore};
use abide::testing::sim::{self, Sim};
use abide::{InstanceId, KindOptions, Node};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const NAMESPACE: &str = "crash";
const INSTANCE: &str = "one";

/// Longer than anything takes, the sweep of a dead session and the end of its lease included.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long an operation is watched before its process is ended.
const WATCHED: Duration = Duration::from_secs(40);

#[derive(Debug)]
struct Tally;

impl Protocol for Tally {
    const KIND: &'static str = "tally";
}

/// Appends a number; or fails whenever it is tried.
#[derive(Debug, Serialize, Deserialize)]
struct Append {
    op: u64,
    fails: bool,
}

/// Appends a number after some work under the lock.
#[derive(Debug, Serialize, Deserialize)]
struct Work(u64);

#[derive(Debug, Serialize, Deserialize)]
struct Whole;

impl Message<Tally> for Append {
    const NAME: &'static str = "append";
    type Reply = u64;
}

impl Message<Tally> for Work {
    const NAME: &'static str = "work";
    type Reply = u64;
}

impl Message<Tally> for Whole {
    const NAME: &'static str = "whole";
    type Reply = Vec<u64>;
}

struct Tallies(Arc<dyn Env>);

impl Server for Tallies {
    type Protocol = Tally;
    type State = Vec<u64>;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Vec<u64>, Failure> {
        Ok(Vec::new())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Append>().locked::<Work>().query::<Whole>()
    }
}

fn append(log: &mut Vec<u64>, op: u64) -> Outcome<u64> {
    log.push(op);
    Outcome::Reply(log.len() as u64)
}

impl Handle<Append> for Tallies {
    fn handle(
        &self,
        log: &mut Vec<u64>,
        Append { op, fails }: Append,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        let outcome = append(log, op);
        match fails {
            true => Err(Failure::fail("as planned")),
            false => Ok(outcome),
        }
    }
}

impl Handle<Work> for Tallies {
    fn handle(
        &self,
        _log: &mut Vec<u64>,
        _work: Work,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Lock)
    }
}

impl Locked<Work> for Tallies {
    type Output = ();

    /// Long enough for a renewal of the lock.
    async fn run(&self, _log: Vec<u64>, _work: Work, _cx: LockContext) -> Result<(), Failure> {
        self.0.sleep(Duration::from_secs(12)).await;
        Ok(())
    }

    fn close(
        &self,
        log: &mut Vec<u64>,
        Work(op): Work,
        (): (),
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(append(log, op))
    }
}

impl Query<Whole> for Tallies {
    fn query(&self, log: &Vec<u64>, _: Whole, _: &ReadContext<'_>) -> Result<Vec<u64>, Failure> {
        Ok(log.clone())
    }
}

/// What is crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Push,
    /// A turn of messages from the mailbox, with a reply to another process.
    Turn,
    /// Calls that skip the mailbox.
    Inline,
    /// Taking, renewing and closing a lock.
    Lock,
    DeadLetter,
    Kill,
    Reset,
    Purge,
}

/// What goes wrong, with which step.
#[derive(Debug, Clone, Copy)]
enum Injury {
    Crash(u64, CrashMode),
    /// The process lives, and does not learn what became of the commit.
    Unknown(u64, CommitFate),
}

/// What was told of the operations of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// It is in the mailbox.
    Accepted,
    /// It was applied, at this place.
    Placed(u64),
    Failed(CallErrorKind),
}

#[derive(Debug, Default)]
struct Notes {
    told: Mutex<Vec<(u64, Told)>>,
    /// The operator's work ended well.
    is_done: Mutex<bool>,
}

impl Notes {
    fn tell(&self, op: u64, told: Told) {
        self.told.lock().unwrap().push((op, told));
    }
}

/// A run's processes.
struct World {
    sim: Sim,
    cluster: Arc<MemoryStore>,
    namespace: Namespace,
    notes: Arc<Notes>,
}

impl World {
    fn new() -> Self {
        let sim = Sim::new(11);
        let cluster = Arc::new(MemoryStore::with_env(sim.env()));
        let database = Database::new(Arc::clone(&cluster) as _, sim.env());
        let opened = Namespace::open_with_shards(&database, NAMESPACE, 1);
        let namespace = sim.block_on(opened).unwrap().unwrap();
        Self {
            sim,
            cluster,
            namespace,
            notes: Arc::default(),
        }
    }

    fn connection(&self) -> FaultyStore {
        let store = FaultyStore::new(Arc::clone(&self.cluster) as _, self.sim.env(), 5);
        store.set_faults(Faults {
            late_by: Duration::from_secs(3),
            ..Faults::none()
        });
        store
    }

    fn process(&self, name: &str, store: &FaultyStore, serves: bool) -> (sim::Node, Node) {
        let machine = self.sim.node(name);
        let mut builder = Node::builder_on(Arc::new(store.clone()))
            .namespace(NAMESPACE)
            .env(machine.env());
        if serves {
            let options = KindOptions::default().attempts(2);
            builder = builder.serve_with(Tallies(machine.env()), options);
        }
        let started = self.sim.block_on(machine.run(builder.start()));
        (machine, started.unwrap().unwrap().unwrap())
    }

    fn rest(&self, duration: Duration) {
        self.sim.run_for(duration).unwrap();
    }

    fn send(&self, from: (&sim::Node, &Node), op: u64, what: What) {
        let (notes, node) = (Arc::clone(&self.notes), from.1.clone());
        from.0.env().spawn(Box::pin(async move {
            let server = node.server::<Tally>(INSTANCE).timeout(PATIENCE);
            let ended = match what {
                What::Cast => match server.cast(Append { op, fails: false }).await {
                    Ok(()) => Ok(Told::Accepted),
                    Err(error) => Err(error),
                },
                What::Call => server
                    .call(Append { op, fails: false })
                    .await
                    .map(Told::Placed),
                What::Fail => server
                    .call(Append { op, fails: true })
                    .await
                    .map(Told::Placed),
                What::Work => server.call(Work(op)).await.map(Told::Placed),
            };
            notes.tell(op, ended.unwrap_or_else(|error| Told::Failed(error.kind())));
        }));
    }
}

#[derive(Debug, Clone, Copy)]
enum What {
    Cast,
    Call,
    Fail,
    Work,
}

/// The steps of an operation, and which of them are commits.
struct Steps {
    count: u64,
    commits: BTreeSet<u64>,
}

/// Runs an operation; with an injury, if one is given. What it does in the store.
fn run(operation: Operation, injury: Option<Injury>) -> Steps {
    let world = World::new();
    let healthy = world.connection();
    let (machine, sender) = world.process("sender", &healthy, false);
    let serves = matches!(
        operation,
        Operation::Turn | Operation::Inline | Operation::Lock | Operation::DeadLetter
    );
    // What stands there before: messages that nobody has handled, or a state.
    match operation {
        Operation::Kill | Operation::Purge => {
            for op in 1..=3 {
                world.send((&machine, &sender), op, What::Call);
            }
            world.rest(Duration::from_secs(1));
        }
        Operation::Reset => {
            let (first, node) = world.process("first", &healthy, true);
            world.send((&first, &node), 1, What::Call);
            world.rest(Duration::from_secs(1));
            let ended = first.run(async move { node.shutdown(WATCHED).await });
            world.sim.block_on(ended).unwrap();
        }
        _ => {}
    }
    let store = world.connection();
    let (victim_machine, victim) = world.process("victim", &store, serves);
    world.rest(Duration::from_secs(1));
    let before = store.steps();
    let commits = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&commits);
    store.set_trace(move |event| {
        if event.operation == "commit" && event.step > before {
            seen.lock().unwrap().insert(event.step - before);
        }
    });
    match injury {
        Some(Injury::Crash(step, mode)) => store.crash_at(before + step, mode),
        Some(Injury::Unknown(step, fate)) => store.unknown_at(before + step, fate),
        None => {}
    }
    let begun = world.sim.now();
    begin(
        &world,
        operation,
        (&machine, &sender),
        (&victim_machine, &victim),
    );
    let expected = match operation {
        Operation::Push | Operation::Turn | Operation::Inline => 7,
        _ => 1,
    };
    let is_over = || {
        let told = world.notes.told.lock().unwrap().len();
        match operation {
            Operation::Kill | Operation::Purge | Operation::Reset => {
                *world.notes.is_done.lock().unwrap()
            }
            _ => told >= expected,
        }
    };
    while !is_over() && !store.has_crashed() && world.sim.now() < begun + WATCHED {
        world.rest(Duration::from_millis(20));
    }
    let count = store.steps() - before;
    if let Some(Injury::Crash(..)) = injury {
        // It may notice for a moment that its connection is gone.
        world.rest(Duration::from_millis(500));
    } else {
        assert!(is_over(), "{operation:?} does not end, with {injury:?}");
        let told = world.notes.told.lock().unwrap().clone();
        for (op, told) in told {
            let is_known = !matches!(told, Told::Failed(CallErrorKind::OutcomeUnknown));
            assert!(is_known, "{operation:?} with {injury:?}: {op} was {told:?}");
        }
    }
    if let Some(Injury::Unknown(..)) = injury {
        let ended = victim_machine.run(async move { victim.shutdown(WATCHED).await });
        let ended = world.sim.block_on(ended).unwrap();
        assert_eq!(ended, Some(true), "{operation:?} with {injury:?}");
    }
    victim_machine.crash();
    recover(&world, operation, &healthy, (&machine, &sender), injury);
    let commits = commits.lock().unwrap().clone();
    Steps { count, commits }
}

fn begin(
    world: &World,
    operation: Operation,
    sender: (&sim::Node, &Node),
    victim: (&sim::Node, &Node),
) {
    let notes = Arc::clone(&world.notes);
    let node = victim.1.clone();
    match operation {
        Operation::Push | Operation::Inline | Operation::Turn => {
            let from = if operation == Operation::Turn {
                sender
            } else {
                victim
            };
            for op in 11..=17 {
                let what = match operation {
                    Operation::Push => What::Cast,
                    Operation::Turn if op < 14 => What::Cast,
                    _ => What::Call,
                };
                world.send(from, op, what);
            }
        }
        Operation::Lock => world.send(sender, 11, What::Work),
        Operation::DeadLetter => world.send(sender, 11, What::Fail),
        Operation::Kill => victim.0.env().spawn(Box::pin(async move {
            let killed = node.server::<Tally>(INSTANCE).kill().await;
            *notes.is_done.lock().unwrap() = killed.is_ok();
        })),
        Operation::Reset => victim.0.env().spawn(Box::pin(async move {
            let reset = node.server::<Tally>(INSTANCE).reset().await;
            *notes.is_done.lock().unwrap() = reset.is_ok();
        })),
        Operation::Purge => victim.0.env().spawn(Box::pin(async move {
            let admin = Admin::of(node.namespace().clone());
            let instance = InstanceId::new("tally", INSTANCE).unwrap();
            let purged = admin.purge(&instance, &Purge::new(Selection::All)).await;
            *notes.is_done.lock().unwrap() = purged.is_ok();
            let _ = admin.close().await;
        })),
    }
}

/// Another process comes and everything ends; then the invariants hold.
fn recover(
    world: &World,
    operation: Operation,
    healthy: &FaultyStore,
    sender: (&sim::Node, &Node),
    injury: Option<Injury>,
) {
    let case = format!("{operation:?} with {injury:?}");
    let was_done = *world.notes.is_done.lock().unwrap();
    // A late commit lands, or not, before anyone asks.
    world.rest(Duration::from_secs(4));
    let (heir, node) = world.process("heir", healthy, true);
    if operation == Operation::Kill {
        let again = node.clone();
        let killed = heir.run(async move { again.server::<Tally>(INSTANCE).kill().await });
        world.sim.block_on(killed).unwrap().unwrap().unwrap();
    }
    world.rest(Duration::from_secs(200));
    let asked = node.clone();
    let log = heir.run(async move { asked.server::<Tally>(INSTANCE).query(Whole).await });
    let log = world.sim.block_on(log).unwrap().unwrap();
    let log = log.unwrap_or_else(|error| panic!("{case}: {error:?}"));
    world.rest(Duration::from_secs(5));
    for (machine, node) in [(&heir, &node), sender] {
        let node = node.clone();
        let ended = machine.run(async move { node.shutdown(WATCHED).await });
        assert_eq!(world.sim.block_on(ended).unwrap(), Some(true), "{case}");
    }
    let all = world.sim.block_on(contents(&world.namespace)).unwrap();
    let dead = check_leaks(&world.namespace, &all, &case);
    let told = world.notes.told.lock().unwrap().clone();
    for op in 1..=20 {
        let places: Vec<u64> = (1..)
            .zip(&log)
            .filter(|(_, known)| **known == op)
            .map(|(place, _)| place)
            .collect();
        assert!(places.len() <= 1, "{case}: {op} stands at {places:?}");
        let Some((_, told)) = told.iter().find(|(known, _)| *known == op) else {
            continue;
        };
        let is_right = match told {
            Told::Accepted => places.len() == 1,
            // What was there before a kill or a reset went with it.
            Told::Placed(_) if matches!(operation, Operation::Reset | Operation::Kill) => true,
            Told::Placed(place) => places == [*place],
            Told::Failed(CallErrorKind::DeadLetter) => places.is_empty() && dead == 1,
            Told::Failed(CallErrorKind::Killed) => places.is_empty(),
            Told::Failed(CallErrorKind::TimedOut) => false,
            Told::Failed(_) => true,
        };
        assert!(
            is_right,
            "{case}: {op} was {told:?}, and stands at {places:?}"
        );
    }
    match operation {
        Operation::Kill => assert!(log.is_empty(), "{case}"),
        Operation::Reset | Operation::Purge if was_done => assert!(log.is_empty(), "{case}"),
        Operation::Reset => assert!(log.is_empty() || log == [1], "{case}: {log:?}"),
        // A process that lives waits for these: it hears of them.
        Operation::Turn => assert_eq!(told.len(), 7, "{case}"),
        Operation::Lock => assert_eq!(told, [(11, Told::Placed(1))], "{case}"),
        Operation::DeadLetter => {
            let letter = Told::Failed(CallErrorKind::DeadLetter);
            assert_eq!(told, [(11, letter)], "{case}");
        }
        Operation::Push | Operation::Inline | Operation::Purge => {}
    }
    if matches!(operation, Operation::Kill | Operation::Purge) {
        assert_eq!(told.len(), 3, "{case}: somebody waits for ever");
    }
}

async fn contents(namespace: &Namespace) -> Vec<KeyValue> {
    let tx = namespace.database().store().begin().unwrap();
    let mut all = Vec::new();
    tx.for_each_page(&namespace.keys().all(), Isolation::Snapshot, |page| {
        all.extend(page);
        ControlFlow::Continue(())
    })
    .await
    .unwrap();
    all
}

/// Nothing is left but states and dead letters. How many of those there are.
fn check_leaks(namespace: &Namespace, all: &[KeyValue], case: &str) -> usize {
    let mut letters = 0;
    for pair in all {
        match namespace.keys().decode(&pair.key).unwrap() {
            Key::Meta | Key::Wake { .. } | Key::Directory(_) => {}
            Key::Instance {
                part: Part::State { .. } | Part::Version,
                ..
            } => {}
            Key::Instance {
                part: Part::DeadLetter { chunk: 0, .. },
                ..
            } => letters += 1,
            left => panic!("{case}: {left:?} is left"),
        }
    }
    letters
}

fn injure_everywhere(operation: Operation) {
    let steps = run(operation, None);
    assert!(steps.count > 0);
    let mut runs = 1;
    for step in 1..=steps.count {
        let modes = match steps.commits.contains(&step) {
            true => &CrashMode::ALL[..],
            // What is no commit fails in one way.
            false => &CrashMode::ALL[..1],
        };
        for mode in modes {
            run(operation, Some(Injury::Crash(step, *mode)));
            runs += 1;
        }
        if steps.commits.contains(&step) {
            for fate in [
                CommitFate::NotApplied,
                CommitFate::Applied,
                CommitFate::Late,
            ] {
                run(operation, Some(Injury::Unknown(step, fate)));
                runs += 1;
            }
        }
    }
    assert!(runs > 5, "{operation:?} has only {} steps", steps.count);
}

#[test]
fn a_push_may_crash_or_learn_no_outcome_at_every_step() {
    injure_everywhere(Operation::Push);
}

#[test]
fn a_turn_may_crash_or_learn_no_outcome_at_every_step() {
    injure_everywhere(Operation::Turn);
}

#[test]
fn an_inline_call_may_crash_or_learn_no_outcome_at_every_step() {
    injure_everywhere(Operation::Inline);
}

#[test]
fn a_lock_may_crash_or_learn_no_outcome_at_every_step() {
    injure_everywhere(Operation::Lock);
}

#[test]
fn a_dead_letter_may_crash_or_learn_no_outcome_at_every_step() {
    injure_everywhere(Operation::DeadLetter);
}

#[test]
fn a_kill_may_crash_or_learn_no_outcome_at_every_step() {
    injure_everywhere(Operation::Kill);
}

#[test]
fn a_reset_may_crash_or_learn_no_outcome_at_every_step() {
    injure_everywhere(Operation::Reset);
}

#[test]
fn a_purge_may_crash_or_learn_no_outcome_at_every_step() {
    injure_everywhere(Operation::Purge);
}

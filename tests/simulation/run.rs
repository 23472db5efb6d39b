//! One run, from a seed to its verdict.

use crate::ledger::{Contents, Ledger, Whole};
use crate::notes::Detail;
use crate::rest::{Verdict, audit, contents, diagnose, unrest};
use crate::settings::Settings;
use crate::world::World;
use abide::testing::sim::Sim;
use abide::testing::{Bug, lose_notifications, plant};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
    pub(crate) log: Vec<String>,
    /// A digest of the schedule.
    pub(crate) fingerprint: u64,
    pub(crate) operations: usize,
}

/// How long the system may take to come to rest, beside what runs under locks: a dead session is swept
/// after a minute, a lock is taken over after its lease, and an attempt follows the other by up to half
/// a minute.
const REST: Duration = Duration::from_secs(20 * 60);

/// How late a commit may land that was under way when the faults ended.
const LATEST_COMMIT: Duration = Duration::from_secs(130);

/// The longest that a last question may take.
const ANSWER: Duration = Duration::from_secs(60);

/// A run with a mistake in abide's code, or with none.
pub(crate) fn run_with(seed: u64, bug: Option<Bug>) -> Report {
    plant(bug);
    let report = run(seed, Detail::None);
    plant(None);
    report
}

pub(crate) fn run(seed: u64, detail: Detail) -> Report {
    let sim = Sim::new(seed);
    let settings = Settings::of(seed);
    let world = sim
        .block_on(World::new(settings, sim.env(), detail))
        .unwrap();
    if world.settings.is_steady() {
        world.notes.be_strict();
    }
    lose_notifications(world.settings.is_deaf);
    world.notes.say(|| format!("{:?}", world.settings));
    let ran = catch_unwind(AssertUnwindSafe(|| sim.block_on(drive(&sim, &world))));
    match ran {
        Ok(Ok(())) => {}
        Ok(Err(error)) => world.notes.violation(error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            world
                .notes
                .violation(format!("panicked: {}", text.unwrap_or("?")));
        }
    }
    lose_notifications(false);
    Report {
        violations: world.notes.violations(),
        log: world.notes.log(),
        fingerprint: sim.fingerprint(),
        operations: world.notes.operations().len(),
    }
}

async fn drive(sim: &Sim, world: &Arc<World>) {
    let watched = Arc::clone(world);
    world
        .env
        .spawn(Box::pin(async move { watch(&watched).await }));
    disturb(sim, world).await;
    world.heal(sim).await;
    let healed = world.env.now();
    if !clients_leave(world, healed).await || !purged(world).await {
        return;
    }
    if !come_to_rest(world, healed).await {
        return;
    }
    let late = (healed + LATEST_COMMIT).saturating_sub(world.env.now());
    world.env.sleep(late).await;
    let Some(books) = ask(world).await else {
        return;
    };
    if !come_to_rest(world, world.env.now()).await {
        return;
    }
    world.end().await;
    let all = contents(world).await;
    for left in unrest(world, &all, 0) {
        world.notes.violation(format!("left in the store: {left}"));
    }
    for finding in diagnose(world).await {
        world.notes.violation(format!("the doctor: {finding:?}"));
    }
    Verdict::new(world, &books, &all).check();
}

/// Runs the clients, and what disturbs them, for as long as it was decided.
async fn disturb(sim: &Sim, world: &Arc<World>) {
    let until = world.env.now() + world.settings.active;
    let gap = u64::try_from(world.settings.gap.as_millis()).unwrap();
    world.fill(sim);
    while world.env.now() < until {
        let rest = until.saturating_sub(world.env.now());
        let wait = Duration::from_millis(world.env.random() % (gap + 1));
        world.env.sleep(wait.min(rest)).await;
        if world.env.now() < until {
            world.fill(sim);
            let havoc = &world.settings.havoc;
            if let Some(choice) = (world.env.random() as usize).checked_rem(havoc.len()) {
                world.disturb(havoc[choice]);
            }
        }
    }
}

/// How often the store is looked at while clients work, on average.
const AUDITS: u32 = 30;

/// Looks at the store now and then while everything is under way.
async fn watch(world: &World) {
    let longest = world.settings.active * 2 / AUDITS;
    while world.is_active() {
        let wait = world.env.random() % (longest.as_micros() as u64 + 1);
        world.env.sleep(Duration::from_micros(wait)).await;
        if let Some(finding) = audit(world).await.first() {
            world.notes.violation(format!("meanwhile: {finding:?}"));
            return;
        }
    }
}

async fn clients_leave(world: &World, since: Duration) -> bool {
    while world.clients.load(Ordering::SeqCst) > 0 {
        if world.env.now() > since + REST {
            let open = world.notes.operations().into_iter();
            let open: Vec<_> = open.filter(|operation| operation.end.is_none()).collect();
            world
                .notes
                .violation(format!("clients wait for ever, for some of {open:?}"));
            return false;
        }
        world.env.sleep(Duration::from_secs(1)).await;
    }
    true
}

/// Kills the instances that were only there to be killed.
async fn purged(world: &World) -> bool {
    let nodes = world.nodes();
    for instance in world.settings.mortal_names() {
        let node = &nodes[world.env.random() as usize % nodes.len()];
        let killed = node.server::<Ledger>(instance.clone()).kill().await;
        if let Err(error) = killed {
            world
                .notes
                .violation(format!("{instance} cannot be killed: {error:?}"));
            return false;
        }
    }
    true
}

async fn come_to_rest(world: &World, since: Duration) -> bool {
    loop {
        let all = contents(world).await;
        let mut wrong = unrest(world, &all, world.nodes().len());
        for node in world.nodes() {
            let parked = node.parked().into_iter();
            wrong.extend(parked.map(|(instance, why)| format!("{instance} is parked: {why}")));
        }
        if wrong.is_empty() {
            return true;
        }
        if world.env.now() > since + REST + world.asked_for() {
            for wrong in wrong {
                world
                    .notes
                    .violation(format!("does not come to rest: {wrong}"));
            }
            return false;
        }
        world.env.sleep(Duration::from_secs(5)).await;
    }
}

/// Asks every node for every book: they all say the same.
async fn ask(world: &World) -> Option<BTreeMap<String, Contents>> {
    let mut books: BTreeMap<String, Contents> = BTreeMap::new();
    for instance in world.settings.lasting_names() {
        for node in world.nodes() {
            let server = node.server::<Ledger>(instance.clone()).timeout(ANSWER);
            let book = match server.query(Whole).await {
                Ok(book) => book,
                Err(error) => {
                    world
                        .notes
                        .violation(format!("{instance} does not answer: {error:?}"));
                    return None;
                }
            };
            match books.get(&instance) {
                Some(known) if *known != book => world.notes.violation(format!(
                    "two nodes disagree on {instance}: {known:?}, {book:?}"
                )),
                _ => drop(books.insert(instance.clone(), book)),
            }
        }
    }
    Some(books)
}

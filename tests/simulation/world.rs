//! The processes of a run over one store, and what happens to them.

use crate::clients::Client;
use crate::ledger::Books;
use crate::notes::{Detail, Notes};
use crate::settings::{Havoc, LEASE, Settings};
use abide::Node;
use abide::durable::Namespace;
use abide::env::Env;
use abide::store::{Database, MemoryStore};
use abide::testing::faults::{Event, Faults, FaultyStore, Outage};
use abide::testing::lose_notifications;
use abide::testing::sim::{self, Sim};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The namespace of all nodes.
const NAMESPACE: &str = "sim";

/// How long a node is given to shut down in an orderly way.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// A place for a process: its present one.
pub(crate) struct Slot {
    pub(crate) process: usize,
    pub(crate) sim: sim::Node,
    pub(crate) store: FaultyStore,
    /// None until it has started.
    pub(crate) node: Option<Node>,
    /// It is being shut down.
    is_leaving: bool,
    /// Until when the store is away for it. Outages may overlap; the last one to end ends them.
    away_until: Duration,
}

/// What may cost a message an attempt although it has no fault of its own.
struct Harm {
    /// Messages that were sent later have not met it.
    until: Duration,
    /// How many attempts of one message at most.
    attempts: u32,
    /// Only a message that runs under a lock.
    only_locks: bool,
}

/// How long others watch a heartbeat or a lock at least before they take it for dead: a process that is
/// held up for longer may be taken for dead several times, each time with another message.
const WATCHED: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) notes: Arc<Notes>,
    /// How many clients there are now.
    pub(crate) clients: Arc<AtomicUsize>,
    pub(crate) namespace: Namespace,
    cluster: Arc<MemoryStore>,
    slots: Mutex<Vec<Option<Slot>>>,
    processes: AtomicUsize,
    is_active: AtomicBool,
    /// What may have cost a message an attempt.
    harms: Mutex<Vec<Harm>>,
    /// When the last pause ends.
    paused_until: Mutex<Duration>,
    /// How long the runs under locks last that clients have asked for, one after the other.
    asked_for: Mutex<Duration>,
}

/// The longest part of a step that is told.
const TOLD: usize = 160;

/// A step in the store, for people.
fn told(process: usize, step: &Event) -> String {
    let short = |text: &str| text.chars().take(TOLD).collect::<String>();
    let (number, operation) = (step.step, step.operation);
    let (subject, outcome) = (short(&step.subject), short(&step.outcome));
    format!("        process {process} #{number} {operation} {subject}: {outcome}")
}

impl World {
    pub(crate) async fn new(settings: Settings, env: Arc<dyn Env>, detail: Detail) -> Arc<Self> {
        let cluster = Arc::new(match settings.batches {
            Some(longest) => MemoryStore::with_batches(Arc::clone(&env), longest),
            None => MemoryStore::with_env(Arc::clone(&env)),
        });
        let database = Database::new(Arc::clone(&cluster) as _, Arc::clone(&env));
        let namespace = Namespace::open_with_shards(&database, NAMESPACE, settings.shards)
            .await
            .unwrap();
        let places = settings.servers + settings.senders;
        Arc::new(Self {
            notes: Notes::new(Arc::clone(&env), LEASE, detail),
            env,
            clients: Arc::default(),
            namespace,
            cluster,
            slots: Mutex::new((0..places).map(|_| None).collect()),
            processes: AtomicUsize::new(0),
            is_active: AtomicBool::new(true),
            harms: Mutex::default(),
            paused_until: Mutex::default(),
            asked_for: Mutex::default(),
            settings,
        })
    }

    pub(crate) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::SeqCst)
    }

    /// A client asks for runs under a lock that last so long together.
    pub(crate) fn ask_for(&self, runs: Duration) {
        *self.asked_for.lock().unwrap() += runs;
    }

    /// How long it takes at most until nobody runs under a lock any more. No process may die meanwhile.
    pub(crate) fn asked_for(&self) -> Duration {
        *self.asked_for.lock().unwrap()
    }

    /// How many attempts a message that was sent at `since` may have lost for no fault of its own.
    pub(crate) fn excuses(&self, since: Duration, is_lock: bool) -> u32 {
        let harms = self.harms.lock().unwrap();
        let met = harms
            .iter()
            .filter(|harm| harm.until >= since && (is_lock || !harm.only_locks));
        met.map(|harm| harm.attempts).sum()
    }

    /// A process dies.
    fn died(&self) {
        self.harm(Duration::ZERO, false);
    }

    /// What is under way in some process is held up for so long from now on. However short that is:
    /// one may come right behind the other.
    pub(crate) fn harm(&self, duration: Duration, only_locks: bool) {
        let times = duration.as_secs() / WATCHED.as_secs();
        self.harms.lock().unwrap().push(Harm {
            until: self.env.now() + duration,
            attempts: 1 + u32::try_from(times).unwrap(),
            only_locks,
        });
    }

    /// Whether all places have a process that has started.
    fn is_complete(&self) -> bool {
        let slots = self.slots.lock().unwrap();
        let here = |slot: &Slot| slot.node.is_some() && !slot.is_leaving;
        slots.iter().all(|slot| slot.as_ref().is_some_and(here))
    }

    /// The nodes that have started, servers first.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.peers().into_iter().map(|(_, node)| node).collect()
    }

    /// The nodes that have started, servers first, each with the number of its process.
    pub(crate) fn peers(&self) -> Vec<(usize, Node)> {
        let slots = self.slots.lock().unwrap();
        let slots = slots.iter().flatten().filter(|slot| !slot.is_leaving);
        let peers = slots.map(|slot| Some((slot.process, slot.node.clone()?)));
        peers.flatten().collect()
    }

    /// Starts a process in an empty place.
    pub(crate) fn start(self: &Arc<Self>, sim: &Sim, place: usize) {
        let process = self.processes.fetch_add(1, Ordering::SeqCst);
        let machine = sim.node(&format!("process {process}"));
        let seed = self.env.random();
        let store = FaultyStore::new(Arc::clone(&self.cluster) as _, Arc::clone(&self.env), seed);
        store.set_faults(match self.is_active() {
            true => self.settings.faults_at(place),
            false => Faults::none(),
        });
        if self.notes.detail == Detail::Steps {
            let notes = Arc::clone(&self.notes);
            store.set_trace(move |step| notes.say(|| told(process, &step)));
        }
        self.notes
            .say(|| format!("process {process} starts in place {place}"));
        self.slots.lock().unwrap()[place] = Some(Slot {
            process,
            sim: machine.clone(),
            store: store.clone(),
            node: None,
            is_leaving: false,
            away_until: Duration::ZERO,
        });
        let (world, env) = (Arc::clone(self), machine.env());
        machine
            .env()
            .spawn(Box::pin(world.live(place, process, store, env)));
    }

    /// A process's life: it starts its node, and clients in it.
    async fn live(
        self: Arc<Self>,
        place: usize,
        process: usize,
        store: FaultyStore,
        env: Arc<dyn Env>,
    ) {
        let node = loop {
            let mut builder = Node::builder_on(Arc::new(store.clone()))
                .namespace(NAMESPACE)
                .env(Arc::clone(&env));
            if place < self.settings.servers {
                let books = Books {
                    notes: Arc::clone(&self.notes),
                    env: Arc::clone(&env),
                    process,
                };
                builder = builder.serve_with(books, self.settings.options.clone());
            }
            match builder.start().await {
                Ok(node) => break node,
                Err(error) => {
                    self.notes
                        .say(|| format!("process {process} cannot start: {error}"));
                    env.sleep(Duration::from_secs(1)).await;
                }
            }
        };
        self.notes.say(|| format!("process {process} has started"));
        if let Some(slot) = &mut self.slots.lock().unwrap()[place]
            && slot.process == process
        {
            slot.node = Some(node.clone());
        }
        while self.settings.begins_together() && !self.is_complete() {
            self.env.sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..self.settings.clients {
            let client = Client::new(Arc::clone(&self), node.clone(), process, Arc::clone(&env));
            env.spawn(Box::pin(client.run()));
        }
    }

    /// Starts what is missing.
    pub(crate) fn fill(self: &Arc<Self>, sim: &Sim) {
        let empty: Vec<usize> = {
            let slots = self.slots.lock().unwrap();
            let places = slots.iter().enumerate();
            places
                .filter(|(_, slot)| slot.is_none())
                .map(|(place, _)| place)
                .collect()
        };
        for place in empty {
            self.start(sim, place);
        }
    }

    /// Disturbs the run in one way.
    pub(crate) fn disturb(self: &Arc<Self>, havoc: Havoc) {
        let place = self.below(self.slots.lock().unwrap().len() as u64) as usize;
        self.notes.say(|| format!("{havoc:?} at place {place}"));
        match havoc {
            Havoc::Crash => self.crash(place),
            Havoc::Restart => self.leave(place),
            Havoc::Pause => self.pause(place, Duration::from_millis(self.below(15_000))),
            Havoc::LongPause => self.pause(place, Duration::from_secs(30 + self.below(120))),
            Havoc::Slow => self.slow(place),
            Havoc::Outage => self.outage(place),
            Havoc::Clock => {
                let seconds = self.below(200_000) as i64 - 100_000;
                self.with(place, |slot| slot.sim.shift_wall_clock(seconds));
            }
            Havoc::Purge => self.purge(),
            Havoc::Break => self.break_lock(),
            Havoc::Deaf => {
                let is_deaf = self.below(2) == 0;
                lose_notifications(is_deaf);
                self.notes.say(|| format!("    deaf: {is_deaf}"));
            }
        }
    }

    pub(crate) fn below(&self, end: u64) -> u64 {
        self.env.random() % end
    }

    fn with<T>(&self, place: usize, act: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let mut slots = self.slots.lock().unwrap();
        slots.get_mut(place).and_then(Option::as_mut).map(act)
    }

    fn crash(&self, place: usize) {
        let slot = self.slots.lock().unwrap()[place].take();
        if let Some(slot) = slot {
            self.died();
            self.note_failure(&slot);
            slot.sim.crash();
        }
    }

    /// A node whose background tasks panicked goes on, but it is a mistake of abide's.
    fn note_failure(&self, slot: &Slot) {
        if let Some(failure) = slot.node.as_ref().and_then(Node::failure) {
            self.notes
                .violation(format!("process {} failed: {failure}", slot.process));
        }
    }

    /// Shuts a node down, and ends its process.
    fn leave(self: &Arc<Self>, place: usize) {
        let leaving = self.with(place, |slot| {
            let node = slot.node.clone().filter(|_| !slot.is_leaving)?;
            slot.is_leaving = true;
            Some((slot.sim.clone(), node, slot.process))
        });
        let Some((machine, node, process)) = leaving.flatten() else {
            return;
        };
        let world = Arc::clone(self);
        self.env.spawn(Box::pin(async move {
            let ended = machine
                .run(async move { node.shutdown(SHUTDOWN).await })
                .await;
            world
                .notes
                .say(|| format!("process {process} is shut down: {ended:?}"));
            let slot = {
                let mut slots = world.slots.lock().unwrap();
                match &slots[place] {
                    Some(slot) if slot.process == process => slots[place].take(),
                    _ => None,
                }
            };
            // An orderly end gives every claim back. Only work under a lock loses an attempt by it: what
            // it did may have been done. One that ran out of time is a death.
            match ended {
                Some(true) => world.harm(Duration::ZERO, true),
                _ => world.died(),
            }
            if let Some(slot) = slot {
                world.note_failure(&slot);
                slot.sim.crash();
            }
        }));
    }

    fn pause(&self, place: usize, duration: Duration) {
        self.notes.say(|| format!("    for {duration:?}"));
        self.harm(duration, false);
        let mut until = self.paused_until.lock().unwrap();
        *until = (*until).max(self.env.now() + duration);
        self.with(place, |slot| {
            slot.sim.pause(duration);
            self.notes.hold_up(slot.process, duration);
        });
    }

    fn slow(self: &Arc<Self>, place: usize) {
        let factor = 1.0 + self.below(20) as f64;
        let duration = Duration::from_secs(self.below(60));
        // A sleep that begins while it is slow goes on being long.
        let longest = duration + LEASE.mul_f64(factor);
        self.harm(longest, false);
        let Some((machine, process)) = self.with(place, |slot| {
            slot.sim.slow(factor);
            self.notes.hold_up(slot.process, longest);
            (slot.sim.clone(), slot.process)
        }) else {
            return;
        };
        let world = Arc::clone(self);
        self.env.spawn(Box::pin(async move {
            world.env.sleep(duration).await;
            machine.slow(1.0);
            world
                .notes
                .say(|| format!("process {process} is as fast as before"));
        }));
    }

    fn outage(self: &Arc<Self>, place: usize) {
        // No kind: the database is locked, as it is while another one takes its place.
        let kind = match self.below(5) {
            0 | 1 => Some(Outage::Refuse),
            2 | 3 => Some(Outage::Hang),
            _ => None,
        };
        let is_long = self.settings.has_long_outages();
        let duration = Duration::from_millis(match self.below(3) {
            0 | 1 if is_long => 30_000 + self.below(200_000),
            0 => self.below(5_000),
            1 => self.below(60_000),
            _ => self.below(240_000),
        });
        let everywhere = is_long || self.below(2) == 0;
        self.notes
            .say(|| format!("    {kind:?} for {duration:?}, everywhere: {everywhere}"));
        // What happens to all of them makes nobody look dead, as long as nobody comes anew.
        let is_fair = everywhere && self.settings.is_steady();
        if !is_long {
            // Whoever never learned that it had taken a lock takes it over from itself, which counts.
            self.harm(duration, is_fair);
        }
        let until = self.env.now() + duration;
        for (index, slot) in self.slots.lock().unwrap().iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            if everywhere || index == place {
                match kind {
                    Some(kind) => slot.store.set_outage(Some(kind)),
                    None => slot.store.set_locked(true),
                }
                slot.away_until = slot.away_until.max(until);
                if !is_fair {
                    self.notes.hold_up(slot.process, duration);
                }
            }
        }
        let world = Arc::clone(self);
        self.env.spawn(Box::pin(async move {
            world.env.sleep(duration).await;
            world.come_back();
        }));
    }

    /// The store is there again for those for whom no other outage goes on.
    fn come_back(&self) {
        let now = self.env.now();
        for slot in self.slots.lock().unwrap().iter().flatten() {
            if slot.away_until <= now {
                slot.store.set_outage(None);
                slot.store.set_locked(false);
            }
        }
        self.notes.say(|| "an outage is over".to_owned());
    }

    /// Ends all that goes wrong, and the clients' work.
    pub(crate) async fn heal(self: &Arc<Self>, sim: &Sim) {
        self.notes.say(|| "everything is healed".to_owned());
        self.is_active.store(false, Ordering::SeqCst);
        lose_notifications(self.settings.is_deaf);
        for slot in self.slots.lock().unwrap().iter().flatten() {
            slot.store.set_faults(Faults::none());
            slot.store.set_outage(None);
            slot.store.set_locked(false);
            slot.sim.slow(1.0);
        }
        let until = *self.paused_until.lock().unwrap();
        self.env.sleep(until.saturating_sub(self.env.now())).await;
        loop {
            self.fill(sim);
            if self.is_complete() {
                return;
            }
            self.env.sleep(Duration::from_secs(1)).await;
        }
    }

    /// Shuts all nodes down, and says what does not end as it should.
    pub(crate) async fn end(self: &Arc<Self>) {
        let slots = std::mem::take(&mut *self.slots.lock().unwrap());
        for slot in slots.into_iter().flatten() {
            let Some(node) = slot.node.clone() else {
                continue;
            };
            for (instance, why) in node.parked() {
                self.notes.violation(format!(
                    "process {} still parks {instance}: {why}",
                    slot.process
                ));
            }
            let ended = slot
                .sim
                .run(async move { node.shutdown(SHUTDOWN).await })
                .await;
            if ended != Some(true) {
                self.notes.violation(format!(
                    "process {} did not shut down in time",
                    slot.process
                ));
            }
            self.note_failure(&slot);
            slot.sim.crash();
        }
    }
}

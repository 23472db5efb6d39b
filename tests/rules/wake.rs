//! Finding work: scans that read only what there is room for, and watches that no turn has.

use crate::support::{Put, World, holds_only_without, ms, secs};
use abide::durable::keys::Keys;
use abide::store::{
    Committed, Isolation, KeyRange, KeyValue, MemoryStore, RangeRead, Store, StoreError,
    StoreErrorKind, StoreFuture, Transaction, Tx, Version,
};
use abide::testing::faults::Faults;
use abide::testing::sim::Sim;
use abide::testing::{Bug, plant};
use bytes::Bytes;
use std::sync::{Arc, Mutex};

/// What a transaction has done so far.
#[derive(Debug, Default, Clone)]
struct Deeds {
    ranges: Vec<Bytes>,
    watched: bool,
    wrote: bool,
    /// Its commit was refused because of what others had written.
    conflicted: bool,
}

/// A store that remembers what each of its transactions did.
#[derive(Debug, Clone)]
struct Observed {
    inner: Arc<dyn Store>,
    transactions: Arc<Mutex<Vec<Arc<Mutex<Deeds>>>>>,
}

impl Observed {
    fn deeds(&self) -> Vec<Deeds> {
        let transactions = self.transactions.lock().unwrap();
        let deeds = transactions.iter();
        deeds.map(|deeds| deeds.lock().unwrap().clone()).collect()
    }
}

impl Store for Observed {
    fn begin(&self) -> Result<Tx, StoreError> {
        let deeds = Arc::new(Mutex::new(Deeds::default()));
        self.transactions.lock().unwrap().push(Arc::clone(&deeds));
        Ok(Arc::new(Observing(self.inner.begin()?, deeds)))
    }

    fn read_versions_cost(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Observing(Tx, Arc<Mutex<Deeds>>);

impl Observing {
    fn wrote(&self) -> &Tx {
        self.1.lock().unwrap().wrote = true;
        &self.0
    }
}

impl Transaction for Observing {
    fn get(&self, key: &[u8], isolation: Isolation) -> StoreFuture<Option<Bytes>> {
        self.0.get(key, isolation)
    }

    fn get_range(&self, read: RangeRead) -> StoreFuture<Vec<KeyValue>> {
        self.1.lock().unwrap().ranges.push(read.range.begin.clone());
        self.0.get_range(read)
    }

    fn set(&self, key: &[u8], value: &[u8]) {
        self.wrote().set(key, value);
    }

    fn clear(&self, key: &[u8]) {
        self.wrote().clear(key);
    }

    fn clear_range(&self, range: &KeyRange) {
        self.wrote().clear_range(range);
    }

    fn add(&self, key: &[u8], operand: &[u8]) {
        self.wrote().add(key, operand);
    }

    fn compare_and_clear(&self, key: &[u8], expected: &[u8]) {
        self.wrote().compare_and_clear(key, expected);
    }

    fn set_versionstamped_key(&self, template: &[u8], offset: usize, value: &[u8]) {
        self.wrote().set_versionstamped_key(template, offset, value);
    }

    fn set_versionstamped_value(&self, key: &[u8], template: &[u8], offset: usize) {
        self.wrote().set_versionstamped_value(key, template, offset);
    }

    fn add_read_conflict(&self, range: &KeyRange) {
        self.0.add_read_conflict(range);
    }

    fn read_version(&self) -> StoreFuture<Version> {
        self.0.read_version()
    }

    fn set_read_version(&self, version: Version) {
        self.0.set_read_version(version);
    }

    fn watch(&self, key: &[u8]) -> StoreFuture<()> {
        self.1.lock().unwrap().watched = true;
        self.0.watch(key)
    }

    fn commit(&self) -> StoreFuture<Option<Committed>> {
        let (commit, deeds) = (self.0.commit(), Arc::clone(&self.1));
        Box::pin(async move {
            let committed = commit.await;
            if let Err(error) = &committed {
                deeds.lock().unwrap().conflicted = error.kind() == StoreErrorKind::Conflict;
            }
            committed
        })
    }
}

fn observed(seed: u64) -> (World, Observed) {
    let sim = Sim::new(seed).with_time_limit(secs(3_600));
    let store = Observed {
        inner: Arc::new(MemoryStore::with_env(sim.env())),
        transactions: Arc::default(),
    };
    (World::on(sim, Arc::new(store.clone()), seed), store)
}

/// A transaction that writes, and one that reads an instance's state or mailbox, has no watch: it
/// would be a read that every push conflicts with.
fn no_turn_watches(seed: u64) {
    let (world, store) = observed(seed);
    let (server, sender) = (world.serve("server"), world.sender("sender"));
    for n in 0..20 {
        world.put(&sender, &format!("desk {}", n % 4), n);
        world.put(&server, "inline", n);
        world.rest(ms(n * 10));
    }
    world.rest(secs(30));
    let deeds = store.deeds();
    let watched = deeds.iter().filter(|deeds| deeds.watched);
    assert!(watched.clone().count() > 0);
    for deeds in watched {
        assert!(!deeds.wrote, "a watch in a turn: {deeds:?}");
    }
    world.stop(&server);
    world.stop(&sender);
}

#[test]
fn a_watch_is_never_armed_in_a_turn() {
    holds_only_without(Bug::TurnWatches, 2, "a watch in a turn", no_turn_watches);
}

/// Many more instances have messages than a node works on at once, and its turns take their time: it
/// reads no more of their marks than it needs.
fn scans_wait_for_room(seed: u64) {
    let (mut world, store) = observed(seed);
    world.options = world.options.clone().concurrency(4);
    let sender = world.sender("sender");
    for n in 0..600 {
        let desk = sender.desk(&format!("desk {n}"));
        world.run(desk.cast(Put { n })).unwrap();
    }
    let server = world.start("server", |builder, env| {
        let desk = crate::support::Desk::<1> {
            env,
            notes: world.notes.clone(),
            process: "server",
        };
        builder.serve_with(desk, world.options.clone())
    });
    server.store.set_faults(Faults {
        delay: 1.0,
        delay_by: ms(100),
        ..Faults::none()
    });
    let begun = store.deeds().len();
    world.rest(secs(2));
    let keys = Keys::new(Keys::namespace_prefix(crate::support::NAMESPACE), 1);
    let marks = keys.ready_of(0);
    let deeds = store.deeds().split_off(begun);
    let pages = deeds.iter().flat_map(|deeds| &deeds.ranges);
    let pages = pages.filter(|begin| **begin >= marks.begin && **begin < marks.end);
    let (pages, handled) = (pages.count(), world.notes.of("desk ").len());
    assert!(handled > 0 && handled < 150, "{handled} are handled");
    assert!(pages <= 2, "{pages} pages of marks were read");
    // In the end all are handled.
    server.store.set_faults(Faults::none());
    world.rest(secs(60));
    assert_eq!(world.notes.of("desk ").len(), 600);
    world.stop(&server);
    world.stop(&sender);
}

#[test]
fn a_node_scans_only_while_it_has_room() {
    holds_only_without(
        Bug::ScanWithoutRoom,
        2,
        "pages of marks were read",
        scans_wait_for_room,
    );
}

/// A push comes at any moment of a turn that leaves nothing else behind, and the server hears of it only
/// when that turn is over: then the mark is all that there is to be found.
fn no_push_is_passed_over(seed: u64) {
    let world = World::new(seed);
    let (server, sender) = (world.serve("server"), world.sender("sender"));
    server.store.set_faults(Faults {
        delay: 0.7,
        delay_by: ms(9),
        late_watch: 1.0,
        watch_delay_by: ms(30),
        ..Faults::none()
    });
    for round in 0..40 {
        for n in 0..2 {
            let put = Put { n: round * 2 + n };
            world.run(sender.desk("one").cast(put)).unwrap();
            world.rest(ms(round));
        }
        // Longer than a poll waits: it finds a mark, but nothing finds a message without one.
        world.rest(secs(20));
        let handled = world.notes.of("effect ").len() as u64;
        assert_eq!(handled, (round + 1) * 2, "a push was passed over");
    }
    let findings = world.run(world.admin().doctor(None)).unwrap().items;
    assert!(findings.is_empty(), "{findings:?}");
    server.store.set_faults(Faults::none());
    world.stop(&server);
    world.stop(&sender);
}

#[test]
fn a_mark_goes_only_if_it_is_what_the_turn_read() {
    holds_only_without(
        Bug::MarkClearedBlindly,
        4,
        "a push was passed over",
        no_push_is_passed_over,
    );
}

/// A process calls its own instance again and again, while others push to it: how many commits were
/// refused.
fn conflicts_beside_pushes() -> usize {
    let mut conflicts = 0;
    for seed in 0..10 {
        let (world, store) = observed(seed);
        let (server, sender) = (world.serve("server"), world.sender("sender"));
        let slow = Faults {
            delay: 0.5,
            delay_by: ms(4),
            ..Faults::none()
        };
        for process in [&server, &sender] {
            process.store.set_faults(slow.clone());
        }
        let mut ends = Vec::new();
        for n in 0..100 {
            let desk = server.desk("one");
            ends.push(world.spawn(async move { desk.call(Put { n }).await.map(drop) }));
            if n % 4 == 0 {
                let desk = sender.desk("one");
                ends.push(world.spawn(async move { desk.cast(Put { n: 1_000 + n }).await }));
            }
            world.rest(ms(n % 3));
        }
        world.rest(secs(30));
        for end in ends {
            end.take().expect("it has ended").unwrap();
        }
        let deeds = store.deeds();
        conflicts += deeds.iter().filter(|deeds| deeds.conflicted).count();
        for process in [&server, &sender] {
            process.store.set_faults(Faults::none());
            world.stop(process);
        }
    }
    conflicts
}

/// What was read before a wake-up is known to be old. A turn that acts on it does no harm, because its
/// commit is refused, but it does its work in vain.
#[test]
fn a_turn_that_was_woken_reads_anew() {
    let anew = conflicts_beside_pushes();
    plant(Some(Bug::WakeReadOlder));
    let older = conflicts_beside_pushes();
    plant(None);
    assert!(anew * 2 < older, "{anew} conflicts, {older} with old reads");
}

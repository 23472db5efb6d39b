//! Another process comes and everything ends; then what must always be true is.

use crate::cases::Case;
use crate::server::{Contents, ONE, OTHER, Tally, Whole};
use crate::world::{Process, Sent, Told, World, secs};
use abide::durable::keys::{Key, Part};
use abide::server::CallErrorKind;

/// What came of a run.
pub(crate) struct After<'r> {
    run: &'r str,
    /// Whether the operator was told that the work was done.
    pub(crate) was_done: bool,
    pub(crate) one: Contents,
    pub(crate) other: Contents,
    /// The numbers in dead letters.
    pub(crate) letters: Vec<u64>,
    pub(crate) told: Vec<(u64, Told)>,
}

impl After<'_> {
    pub(crate) fn must(&self, holds: bool, otherwise: &str) {
        let Self {
            run,
            one,
            other,
            letters,
            told,
            ..
        } = self;
        assert!(
            holds,
            "{run}: {otherwise}: {one:?}, {other:?}, dead {letters:?}, told {told:?}"
        );
    }
}

pub(crate) fn recover(world: &World, case: &Case, run: &str) {
    let was_done = world.is_done();
    // A late commit lands, or not, before anyone asks.
    world.rest(secs(4));
    (case.mend)(world);
    let heir = world.serve("heir", case.heir_is_harsh);
    world.rest(secs(200));
    let one = ask(world, &heir, ONE, run);
    let other = ask(world, &heir, OTHER, run);
    world.rest(secs(5));
    assert_eq!(world.findings(), [], "{run}: the doctor finds something");
    let letters = world.letters();
    for process in [&heir].into_iter().chain(world.others.borrow().iter()) {
        assert_eq!(process.node.failure(), None, "{run}");
        assert!(world.stop(process), "{run}: it does not shut down");
    }
    world.dismiss_sender();
    check_leaks(world, run);
    let after = After {
        run,
        was_done,
        one,
        other,
        letters,
        told: world.told(),
    };
    for sent in world.sent() {
        check_sent(&after, &sent, case.loses);
    }
    for log in [&after.one.log, &after.other.log] {
        let mut different = log.clone();
        different.sort_unstable();
        different.dedup();
        after.must(different.len() == log.len(), "something was applied twice");
    }
    after.must(
        after.one.owed == 0 && after.other.owed == 0,
        "an answer is owed",
    );
    (case.check)(&after);
}

fn ask(world: &World, heir: &Process, id: &'static str, run: &str) -> Contents {
    let node = heir.node.clone();
    let asked = heir
        .machine
        .run(async move { node.server::<Tally>(id).query(Whole).await });
    let contents = world.run(asked).unwrap();
    contents.unwrap_or_else(|error| panic!("{run}: {error:?}"))
}

/// What became of a message is what its sender was told; and he was told if he lives.
fn check_sent(after: &After<'_>, sent: &Sent, loses: bool) {
    let log = match sent.to {
        ONE => &after.one.log,
        _ => &after.other.log,
    };
    let places = (1..).zip(log).filter(|(_, op)| **op == sent.op);
    let places: Vec<u64> = places.map(|(place, _)| place).collect();
    let dead = after.letters.iter().filter(|op| **op == sent.op).count();
    after.must(places.len() + dead <= 1, "one is there twice");
    let mut told = after.told.iter().filter(|(op, _)| *op == sent.op);
    let is_right = match told.next().map(|(_, told)| told) {
        None => !sent.by_living,
        Some(Told::Accepted) => loses || places.len() + dead == 1,
        Some(Told::Placed(place)) => loses || places == [*place],
        Some(Told::Failed(kind)) => match kind {
            CallErrorKind::DeadLetter => dead == 1,
            CallErrorKind::Killed => loses && places.len() + dead == 0,
            CallErrorKind::Unavailable => places.len() + dead == 0,
            // Whoever asks lives for longer than anything takes.
            CallErrorKind::TimedOut => false,
            _ => true,
        },
    };
    after.must(is_right, &format!("{sent:?} was told something else"));
}

/// Nothing is left but states and dead letters.
fn check_leaks(world: &World, run: &str) {
    for pair in world.contents() {
        let key = world.namespace.keys().decode(&pair.key).unwrap();
        let stays = match &key {
            Key::Meta | Key::Wake { .. } | Key::Directory(_) => true,
            Key::Instance { part, .. } => matches!(
                part,
                Part::State { .. } | Part::Version | Part::DeadLetter { .. }
            ),
            _ => false,
        };
        assert!(stays, "{run}: {key:?} is left");
    }
}

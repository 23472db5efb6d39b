//! What the store holds once everything is at rest, and what the history must agree with.

use crate::ledger::{Contents, ENDOWMENT, shelves_of};
use crate::notes::{Answer, How, Operation, is_mortal, name};
use crate::order::check_order;
use crate::world::World;
use abide::admin::{Admin, Finding, FindingCode};
use abide::durable::keys::{Key, Part, SessionPart};
use abide::server::CallErrorKind;
use abide::store::{KeyValue, TransactionExt};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

/// How many attempts a message has.
pub(crate) const ATTEMPTS: u32 = 5;

/// How long an operation takes at most where nothing holds it up: less than any poll.
const SOON: Duration = Duration::from_millis(3_500);

/// Every key of the namespace.
pub(crate) async fn contents(world: &World) -> Vec<KeyValue> {
    let tx = world.namespace.database().store().begin().unwrap();
    let mut all = Vec::new();
    tx.for_each_page(
        &world.namespace.keys().all(),
        abide::store::Isolation::Snapshot,
        |page| {
            all.extend(page);
            ControlFlow::Continue(())
        },
    )
    .await
    .unwrap();
    all
}

/// The keys that should not be there when nothing is under way and `sessions` nodes live.
pub(crate) fn unrest(world: &World, all: &[KeyValue], sessions: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut living = BTreeSet::new();
    for pair in all {
        let key = match world.namespace.keys().decode(&pair.key) {
            Ok(key) => key,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        let is_fine = match &key {
            Key::Meta | Key::Wake { .. } => true,
            Key::Directory(instance) => !is_mortal(instance.id()),
            Key::Instance { instance, part, .. } => {
                !is_mortal(instance.id())
                    && matches!(
                        part,
                        Part::State { .. } | Part::Version | Part::DeadLetter { .. }
                    )
            }
            Key::Session { session, part } => {
                living.insert(*session);
                !matches!(part, SessionPart::Reply { .. })
            }
            _ => false,
        };
        if !is_fine {
            wrong.push(format!("{key:?}"));
        }
    }
    if living.len() > sessions {
        wrong.push(format!("{} sessions of {sessions} nodes", living.len()));
    }
    wrong
}

/// What abide's own check finds wrong.
pub(crate) async fn diagnose(world: &World) -> Vec<Finding> {
    let admin = Admin::of(world.namespace.clone());
    let mut findings = Vec::new();
    let mut cursor = None;
    loop {
        let page = admin.doctor(cursor.as_ref()).await.unwrap();
        findings.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return findings;
        }
    }
}

/// What must hold at every moment, and does not: each instance is looked at in one transaction. A mark
/// may stand over nothing, and replies may come for a session that was swept, until somebody looks.
pub(crate) async fn audit(world: &World) -> Vec<Finding> {
    let mut findings = diagnose(world).await;
    findings.retain(|finding| {
        !matches!(
            finding.code,
            FindingCode::MarkOverNothing
                | FindingCode::RepliesOfAbsentSession
                | FindingCode::RemainsOfAbsentSession
        )
    });
    findings
}

/// The dead letters: of which instance, and what stands in them.
fn dead_letters(world: &World, all: &[KeyValue]) -> Vec<(String, Vec<u8>)> {
    let mut letters: BTreeMap<_, Vec<u8>> = BTreeMap::new();
    for pair in all {
        if let Ok(Key::Instance {
            instance,
            part: Part::DeadLetter { stamp, .. },
            ..
        }) = world.namespace.keys().decode(&pair.key)
        {
            let letter = letters.entry((instance, stamp)).or_default();
            letter.extend_from_slice(&pair.value);
        }
    }
    let letters = letters.into_iter();
    letters
        .map(|((instance, _), letter)| (instance.id().to_owned(), letter))
        .collect()
}

/// How often each operation's number stands in dead letters, as MessagePack spells it.
fn count_dead(letters: &[(String, Vec<u8>)]) -> BTreeMap<u64, usize> {
    let mut dead = BTreeMap::new();
    for (_, letter) in letters {
        let numbers = letter.windows(9).filter_map(|part| match part {
            [0xCF, number @ ..] => Some(u64::from_be_bytes(number.try_into().unwrap())),
            _ => None,
        });
        for op in numbers.collect::<BTreeSet<u64>>() {
            *dead.entry(op).or_default() += 1;
        }
    }
    dead
}

/// Holds the history of a run against what came of it.
pub(crate) struct Verdict<'a> {
    world: &'a World,
    books: &'a BTreeMap<String, Contents>,
    operations: Vec<Operation>,
    letters: Vec<(String, Vec<u8>)>,
    /// In how many dead letters an operation stands.
    dead: BTreeMap<u64, usize>,
    /// Where each entry of a log stands: the instance, and the place counted from one.
    places: BTreeMap<u64, Vec<(&'a str, u64)>>,
}

impl<'a> Verdict<'a> {
    pub(crate) fn new(
        world: &'a World,
        books: &'a BTreeMap<String, Contents>,
        all: &[KeyValue],
    ) -> Self {
        let mut places: BTreeMap<u64, Vec<(&str, u64)>> = BTreeMap::new();
        for (instance, book) in books {
            for (index, op) in book.log.iter().enumerate() {
                let place = (instance.as_str(), index as u64 + 1);
                places.entry(*op).or_default().push(place);
            }
        }
        let letters = dead_letters(world, all);
        Self {
            world,
            books,
            operations: world.notes.operations(),
            dead: count_dead(&letters),
            letters,
            places,
        }
    }

    pub(crate) fn check(&self) {
        for operation in &self.operations {
            if !is_mortal(&operation.instance) {
                self.check_operation(operation);
            }
        }
        self.check_effects();
        self.check_haste();
        self.check_attempts();
        self.check_closings();
        self.check_money();
        for (instance, book) in self.books {
            self.check_order(instance, book);
            self.check_removed(instance);
            if book.shelves != shelves_of(&book.log) {
                self.wrong(format!(
                    "{instance}: the log is not what stands on its shelves: {book:?}"
                ));
            }
        }
    }

    fn wrong(&self, what: String) {
        self.world.notes.violation(what);
    }

    fn places(&self, op: u64) -> &[(&'a str, u64)] {
        self.places.get(&op).map_or(&[], Vec::as_slice)
    }

    fn dead(&self, op: u64) -> usize {
        self.dead.get(&op).copied().unwrap_or_default()
    }

    /// What became of an operation is what its client was told.
    fn check_operation(&self, operation: &Operation) {
        let Operation { op, instance, .. } = operation;
        let places = self.places(*op);
        let dead = self.dead(*op);
        let what = || {
            format!(
                "{} {:?} to {instance} ended with {:?}: it stands at {places:?} and in {dead} dead letters",
                name(*op),
                operation.how,
                operation.end
            )
        };
        if places.len() + dead > 1 || places.iter().any(|(at, _)| at != instance) {
            self.wrong(what());
        }
        let removed = self.world.notes.removed(instance);
        if dead > 0 && removed.buried == 0 && !self.may_die(operation) {
            self.wrong(format!("{}, for no reason", what()));
        }
        let is_right = match &operation.end {
            None => true,
            Some((_, Ok(Answer::Acknowledged))) => {
                operation.may_reject || removed.deleted > 0 || places.len() + dead == 1
            }
            Some((_, Ok(Answer::Place(place)))) => {
                dead == 0 && places.iter().any(|(_, at)| at == place)
            }
            Some((_, Ok(Answer::Length(_)))) if operation.how == How::Query => true,
            Some((_, Ok(Answer::Length(_) | Answer::Refused))) => {
                operation.may_reject && places.len() + dead == 0
            }
            Some((_, Err(kind))) => match kind {
                CallErrorKind::TimedOut | CallErrorKind::OutcomeUnknown => true,
                CallErrorKind::Unavailable => places.len() + dead == 0,
                CallErrorKind::DeadLetter => {
                    places.is_empty() && (dead == 1 || operation.how == How::Query)
                }
                CallErrorKind::Killed => removed.deleted > 0 && places.len() + dead == 0,
                _ => false,
            },
        };
        if !is_right {
            self.wrong(what());
        }
        if let Some((to, _)) = &operation.sends {
            let sent = self.places(op + 1);
            let dead = self.dead(op + 1);
            let is_right = sent.len() + dead == places.len() || self.is_removed(operation);
            if !is_right || sent.iter().any(|(at, _)| at != to) {
                self.wrong(format!(
                    "{}, but its message to {to} at {sent:?} and in {dead} dead letters",
                    what()
                ));
            }
        }
    }

    /// Whether the message that an operation's handler sent was taken out by an operator.
    fn is_removed(&self, operation: &Operation) -> bool {
        let Some((to, _)) = &operation.sends else {
            return false;
        };
        let sent = operation.op + 1;
        self.places(operation.op).len() == 1
            && self.places(sent).len() + self.dead(sent) == 0
            && self.world.notes.removed(to).deleted > 0
    }

    /// Whether a message may have become a dead letter by itself.
    fn may_die(&self, operation: &Operation) -> bool {
        operation.is_flawed || self.excuses(operation) >= ATTEMPTS
    }

    /// What operators deleted is what is missing, and nothing else is: none of it was applied.
    ///
    /// Who was told that his message was deleted, the casts that were acknowledged and are nowhere, and
    /// the messages of handlers that are nowhere: all of these were deleted. Those of which nobody knows
    /// what became of them may have been.
    fn check_removed(&self, instance: &str) {
        let removed = self.world.notes.removed(instance);
        let (mut missing, mut perhaps, mut buried) = (0, 0, 0);
        for operation in &self.operations {
            let sends_here = operation
                .sends
                .as_ref()
                .is_some_and(|(to, _)| to == instance);
            missing += u64::from(sends_here && self.is_removed(operation));
            if operation.instance != instance {
                continue;
            }
            let dead = self.dead(operation.op);
            buried += u64::from(dead > 0 && !self.may_die(operation));
            if self.places(operation.op).len() + dead > 0 {
                continue;
            }
            match &operation.end {
                Some((_, Err(CallErrorKind::Killed))) => missing += 1,
                Some((_, Ok(Answer::Acknowledged))) if !operation.may_reject => missing += 1,
                None | Some((_, Ok(Answer::Acknowledged))) => perhaps += 1,
                Some((_, Err(CallErrorKind::TimedOut | CallErrorKind::OutcomeUnknown))) => {
                    perhaps += 1;
                }
                _ => {}
            }
        }
        let letters = self.letters.iter().filter(|(of, _)| of == instance);
        let letters = letters.count() as u64;
        if removed.deleted < missing || missing + perhaps < removed.deleted {
            self.wrong(format!(
                "of {instance} {removed:?}, and {missing} are missing, and perhaps {perhaps} more"
            ));
        }
        if removed.buried < buried || letters < removed.buried {
            self.wrong(format!(
                "of {instance} {removed:?}, and there are {letters} dead letters, {buried} of them \
                 for no other reason"
            ));
        }
    }

    /// Effects run at most once, and only after a commit.
    fn check_effects(&self) {
        for (op, effects) in self.world.notes.effects() {
            let places = self.places(op);
            let is_wrong = effects.len() > 1
                || effects.iter().any(|effect| {
                    let is_there =
                        |at: &(&str, u64)| at.0 == effect.instance && Some(at.1) == effect.place;
                    !is_mortal(&effect.instance) && !places.iter().any(is_there)
                });
            if is_wrong {
                self.wrong(format!(
                    "{} stands at {places:?}, and had the effects {effects:?}",
                    name(op)
                ));
            }
        }
    }

    /// Where nothing holds them up, operations end soon, and casts have their effects soon.
    fn check_haste(&self) {
        if !self.world.settings.is_brisk {
            return;
        }
        let effects = self.world.notes.effects();
        for operation in &self.operations {
            let ended = operation.end_at.unwrap_or(Duration::MAX);
            let effect = effects
                .get(&operation.op)
                .and_then(|effects| effects.first());
            let last = effect.map_or(ended, |effect| effect.at.max(ended));
            let took = last.saturating_sub(operation.begin_at);
            // The token of a later answer goes with the state that is killed, or waits for a message
            // that is taken away.
            let is_lossy = is_mortal(&operation.instance) || {
                let removed = self.world.notes.removed(&operation.instance);
                removed.deleted + removed.buried > 0
            };
            let may_be_lost = is_lossy && operation.sends.is_some();
            if took > SOON && !may_be_lost {
                self.wrong(format!("{operation:?} took {took:?}"));
            }
        }
    }

    /// How often an operation may have been tried in vain for no fault of its own.
    fn excuses(&self, operation: &Operation) -> u32 {
        self.world.excuses(operation.begin_at, operation.is_locked)
    }

    /// No message is tried again that has no fault of its own, but for what happened to processes
    /// since it was sent.
    fn check_attempts(&self) {
        let repeated = self.world.notes.repeated();
        for operation in &self.operations {
            let attempt = repeated.get(&operation.op).copied().unwrap_or(1);
            let excuses = self.excuses(operation);
            if attempt > 1 + excuses {
                self.wrong(format!(
                    "{} was tried for the {attempt}th time, with {excuses} excuses",
                    name(operation.op)
                ));
            }
        }
    }

    /// What closed a lock was the last run under it: none that was fenced.
    fn check_closings(&self) {
        let last = self.world.notes.last_runs();
        for (instance, book) in self.books {
            for (op, run) in &book.closings {
                if last.get(op).is_some_and(|last| last > run) {
                    self.wrong(format!(
                        "the lock of {instance} for {} was closed by run {run}, the last run was {:?}",
                        name(*op),
                        last.get(op)
                    ));
                }
            }
            let removed = self.world.notes.removed(instance);
            let owed = book.owed.iter();
            // Their messages were taken away.
            let owed: Vec<_> = owed
                .filter(|op| removed.deleted == 0 || !self.places(*op + 1).is_empty())
                .filter(|op| self.dead(*op + 1) == 0)
                .collect();
            if !owed.is_empty() {
                self.wrong(format!("{instance} still owes answers to {owed:?}"));
            }
        }
    }

    fn check_money(&self) {
        let lost: i64 = self
            .operations
            .iter()
            .filter_map(|operation| {
                let (_, amount) = operation.sends.as_ref()?;
                let is_dead = self.dead(operation.op + 1) > 0;
                (is_dead || self.is_removed(operation)).then_some(*amount)
            })
            .sum();
        let balances: i64 = self.books.values().map(|book| book.balance).sum();
        let all = ENDOWMENT * self.books.len() as i64;
        if balances + lost != all {
            self.wrong(format!(
                "there was {all}, there is {balances}, with what is dead or deleted went {lost}"
            ));
        }
    }

    /// The log's order agrees with real time.
    fn check_order(&self, instance: &str, book: &Contents) {
        let operations = self.operations.iter();
        let here = operations.filter(|operation| operation.instance == instance);
        let placed = here.map(|operation| {
            let place = self.places(operation.op).first();
            (operation, place.map(|(_, place)| *place))
        });
        let is_open = self.world.settings.is_flawless();
        for wrong in check_order(placed, book.log.len() as u64, is_open) {
            self.wrong(format!("in {instance} {wrong}"));
        }
    }
}

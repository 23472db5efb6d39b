//! What the store holds once everything is at rest, and what the history must agree with.

use crate::ledger::{Contents, ENDOWMENT};
use crate::notes::{Answer, How, Operation, is_mortal, name};
use crate::order::{Span, contradiction};
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
            FindingCode::MarkOverNothing | FindingCode::RepliesOfAbsentSession
        )
    });
    findings
}

/// The operations whose messages are dead letters.
fn dead_letters(world: &World, all: &[KeyValue]) -> Vec<Vec<u8>> {
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
    letters.into_values().collect()
}

/// How often an operation's number stands in dead letters, as MessagePack spells it.
fn count_dead(letters: &[Vec<u8>], op: u64) -> usize {
    let mut spelled = vec![0xCF];
    spelled.extend_from_slice(&op.to_be_bytes());
    let holds = |letter: &&Vec<u8>| letter.windows(spelled.len()).any(|part| part == spelled);
    letters.iter().filter(holds).count()
}

/// Holds the history of a run against what came of it.
pub(crate) struct Verdict<'a> {
    world: &'a World,
    books: &'a BTreeMap<String, Contents>,
    operations: Vec<Operation>,
    letters: Vec<Vec<u8>>,
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
        Self {
            world,
            books,
            operations: world.notes.operations(),
            letters: dead_letters(world, all),
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
        }
    }

    fn wrong(&self, what: String) {
        self.world.notes.violation(what);
    }

    fn places(&self, op: u64) -> &[(&'a str, u64)] {
        self.places.get(&op).map_or(&[], Vec::as_slice)
    }

    /// What became of an operation is what its client was told.
    fn check_operation(&self, operation: &Operation) {
        let Operation { op, instance, .. } = operation;
        let places = self.places(*op);
        let dead = count_dead(&self.letters, *op);
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
        if dead > 0 && !operation.is_flawed && self.excuses(operation) < ATTEMPTS {
            self.wrong(format!("{}, for no reason", what()));
        }
        let is_right = match &operation.end {
            None => true,
            Some((_, Ok(Answer::Acknowledged))) => operation.may_reject || places.len() + dead == 1,
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
                _ => false,
            },
        };
        if !is_right {
            self.wrong(what());
        }
        if let Some((to, _)) = &operation.sends {
            let sent = self.places(op + 1);
            let dead = count_dead(&self.letters, op + 1);
            let is_right = sent.len() + dead == places.len() && sent.iter().all(|(at, _)| at == to);
            if !is_right {
                self.wrong(format!(
                    "{}, but its message to {to} at {sent:?} and in {dead} dead letters",
                    what()
                ));
            }
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
            // The token of a later answer goes with the state that is killed.
            let may_be_lost = is_mortal(&operation.instance) && operation.sends.is_some();
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
            if !book.owed.is_empty() {
                self.wrong(format!("{instance} still owes answers to {:?}", book.owed));
            }
        }
    }

    fn check_money(&self) {
        let lost: i64 = self
            .operations
            .iter()
            .filter_map(|operation| {
                let (_, amount) = operation.sends.as_ref()?;
                (count_dead(&self.letters, operation.op + 1) > 0).then_some(*amount)
            })
            .sum();
        let balances: i64 = self.books.values().map(|book| book.balance).sum();
        let all = ENDOWMENT * self.books.len() as i64;
        if balances + lost != all {
            self.wrong(format!(
                "there was {all}, there is {balances}, dead letters hold {lost}"
            ));
        }
    }

    /// The log's order agrees with real time.
    fn check_order(&self, instance: &str, book: &Contents) {
        // By place in the log; what only looked comes behind the entry that it saw last.
        let mut events: Vec<((u64, u8, u64), &Operation)> = Vec::new();
        for operation in &self.operations {
            if operation.instance != instance {
                continue;
            }
            if let Some((_, place)) = self.places(operation.op).first() {
                events.push(((*place, 0, 0), operation));
            } else if let Some((_, Ok(Answer::Length(length)))) = operation.end {
                events.push(((length, 1, operation.begin), operation));
                if length > book.log.len() as u64 {
                    self.wrong(format!("{} saw a log of {length}", name(operation.op)));
                }
            }
        }
        events.sort_by_key(|(place, _)| *place);
        let ended = |operation: &Operation| match operation.end {
            Some((end, Ok(_))) => Some(end),
            _ => None,
        };
        // A query is answered beside a mailbox that is blocked, by a lock, a back-off or the claim of
        // another process, and so passes the casts in it. Where none of these can be, it may not.
        let is_open = self.world.settings.is_flawless();
        let in_line = |operation: &Operation| is_open || operation.how != How::Query;
        type Choice<'c> = (&'c str, &'c dyn Fn(&Operation) -> bool, bool);
        let choices: [Choice<'_>; 3] = [
            (
                "ordinary operations",
                &|operation| !operation.is_priority && in_line(operation),
                true,
            ),
            (
                "priority operations",
                &|operation| operation.is_priority && in_line(operation),
                true,
            ),
            // An acknowledged cast may be passed by the other lane; what was answered may not.
            ("calls", &|_| true, false),
        ];
        for (what, is_chosen, casts) in choices {
            let chosen: Vec<&Operation> = events
                .iter()
                .map(|(_, operation)| *operation)
                .filter(|operation| is_chosen(operation))
                .collect();
            let spans: Vec<Span> = chosen
                .iter()
                .map(|operation| Span {
                    begin: operation.begin,
                    end: ended(operation).filter(|_| casts || operation.how != How::Cast),
                })
                .collect();
            if let Some((before, behind)) = contradiction(&spans) {
                self.wrong(format!(
                    "the order of {what} in {instance}: {:?} took effect before {:?}",
                    chosen[before], chosen[behind]
                ));
            }
        }
    }
}

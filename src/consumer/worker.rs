//! An instance's worker: one turn after the other, for as long as there is something to do.
//!
//! A turn decides and stages; the worker commits it through the lane, and then, and only then, lets
//! the rest of the process know: it keeps the new state, answers callers, runs the effects.

use super::Consumer;
use super::ahead::{Ahead, Reads};
use super::claims::Reservation;
use super::kinds::Kind;
use super::lazy;
use super::plan::{Parked, Unfits};
use super::slots::{Look, Memory, Rest, Taken, Verdict, Visible};
use super::turn::{Blame, Blamed, Cache, Cached, Next, Scene, Turn, turn};
use crate::durable::keys::InstanceKeys;
use crate::durable::overview::Window;
use crate::durable::state::StateVersion;
use crate::durable::{Lane, Session, SessionError, Work};
use crate::gather::{gather, yield_once};
use crate::id::InstanceId;
use crate::planted::{Bug, planted};
use crate::server::Effect;
use crate::server::{Activation, Deactivation};
use crate::store::{Committed, StoreErrorKind, Tx, Version};
use futures_util::future::select;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::Instrument;

/// How long a turn is tried before its instance makes room for others.
const TURN_TIME: Duration = Duration::from_secs(30);

/// After how many turns a worker lets another instance have its place, if one waits.
const TURNS_IN_A_ROW: u32 = 16;

/// How long an instance waits when the store does not answer.
pub(super) const AWAY: Duration = Duration::from_secs(1);

/// How many rows of a mailbox a turn reads at most: as many as there are messages in the largest
/// batch by default.
const MAX_ROWS: usize = 1_000;

/// How many rows are read at first of a mailbox of which nothing is known: were they all as large as
/// a row can be, it would still be no more than one transaction may write.
const FIRST_PAGE: usize = 64;

/// The worker of one instance.
pub(super) struct Worker {
    consumer: Arc<Consumer>,
    kind: Arc<Kind>,
    instance: InstanceId,
    keys: InstanceKeys,
    lane: Option<Lane>,
    /// The right to the claim that the last turn has left in the store.
    claim: Option<Reservation>,
    /// The reads of the next turn.
    ahead: Option<Ahead>,
    /// How long the last attempt of the last turn was in handlers.
    in_handlers: Duration,
    /// The first message that it was about.
    first: Option<Blamed>,
}

impl Consumer {
    /// Starts the worker of an instance. If it is known from which version on its work can be seen,
    /// the first turn reads there, at once.
    pub(super) fn work(
        self: &Arc<Self>,
        kind: &Arc<Kind>,
        instance: InstanceId,
        memory: Box<Memory>,
        visible: Option<Visible>,
    ) {
        let mut worker = Worker {
            keys: self.presence.namespace().keys().instance(&instance),
            consumer: Arc::clone(self),
            kind: Arc::clone(kind),
            instance,
            lane: None,
            claim: None,
            ahead: None,
            in_handlers: Duration::ZERO,
            first: None,
        };
        if let Some(Visible::From(version)) = visible {
            worker.read_ahead(&memory, version);
        }
        self.workers.fetch_add(1, Ordering::SeqCst);
        self.env.spawn(Box::pin(worker.guarded(memory)));
    }
}

impl Worker {
    /// Runs the worker. A panic in abide's own code must neither be silent nor leave the instance
    /// without a worker for ever.
    async fn guarded(mut self, memory: Box<Memory>) {
        let (reports, instance) = (self.consumer.reports.clone(), self.instance.clone());
        let what = || format!("the worker of {instance}");
        if !reports.guard(what, self.run(memory)).await {
            self.kind.slots().recover(&self.instance);
        }
        self.consumer.workers.fetch_sub(1, Ordering::SeqCst);
    }

    async fn run(&mut self, mut memory: Box<Memory>) {
        let mut turns = 0;
        loop {
            let (rest, again) = self.one_turn(&mut memory).await;
            turns += 1;
            if matches!(rest, Rest::Idle) {
                self.linger().await;
            }
            let verdict =
                self.kind
                    .slots()
                    .end(&self.instance, memory, rest, turns >= TURNS_IN_A_ROW);
            self.set_timer(again);
            match verdict {
                Verdict::Continue(mine) => {
                    memory = mine;
                    // Whom this turn has answered last is run by this thread alone, and must not wait
                    // for the handlers of the next one.
                    yield_once().await;
                }
                Verdict::End {
                    next,
                    evicted,
                    turned_away,
                } => {
                    if self.claim.is_some() {
                        self.let_go().await;
                    }
                    for inline in turned_away {
                        self.consumer.callers.turned_away(inline);
                    }
                    self.consumer.has_room();
                    self.consumer
                        .deactivated(&self.kind, evicted, Deactivation::Evicted);
                    if let Some((instance, memory)) = next {
                        self.consumer.work(&self.kind, instance, memory, None);
                    }
                    return;
                }
            }
        }
    }

    /// One turn, from what waits in memory to what is to be done next.
    async fn one_turn(&mut self, memory: &mut Memory) -> (Rest, Option<Duration>) {
        let most = match memory.single {
            true => 1,
            false => self.kind.options.batch_messages,
        };
        let taken = self.kind.slots().begin(&self.instance, most);
        self.forget_another_store(memory);
        let together = taken.inline.len();
        let session = self.consumer.presence.session();
        let mut lane = match self.lane.take() {
            Some(lane) if lane.is_of(&session) => lane,
            _ => session.lane(),
        };
        let result = self.commit(&mut lane, &session, memory, &taken).await;
        self.lane = Some(lane);
        match result {
            Ok((turn, commit)) => {
                let waiting = self.kind.slots().count_inline(&self.instance);
                let (rest, again) = self.landed(memory, taken, turn, commit);
                self.look_ahead(memory, &rest, together > 0, commit);
                if together > 1 && !matches!(rest, Rest::Parked(..)) {
                    let expected = together.saturating_add(waiting).min(most);
                    gather(expected, || self.kind.slots().count_inline(&self.instance)).await;
                }
                (rest, again)
            }
            Err(error) => self.failed(memory, taken, &session, error).await,
        }
    }

    /// Of a store that was restored, or that another one took the place of, nothing is known but what
    /// it says itself. A lock whose run has not ended is compared by its token anyway.
    fn forget_another_store(&mut self, memory: &mut Memory) {
        let epoch = self.consumer.presence.epoch();
        if memory.epoch != epoch {
            self.ahead = None;
            let known = std::mem::take(memory);
            (memory.epoch, memory.holding) = (epoch, known.holding);
            let state = known.cache.map(|cache| (self.instance.clone(), cache));
            let states = state.into_iter().collect();
            self.consumer
                .deactivated(&self.kind, states, Deactivation::Superseded);
        }
    }

    /// Begins to read for the next turn, if there will be one soon: more is to be done, or calls
    /// come one after the other.
    fn look_ahead(
        &mut self,
        memory: &Memory,
        rest: &Rest,
        had_inline: bool,
        commit: Option<Committed>,
    ) {
        let soon = match rest {
            Rest::Again => true,
            Rest::Idle => had_inline,
            Rest::Parked(..) => false,
        };
        self.ahead = None;
        if let Some(commit) = commit.filter(|_| soon) {
            self.read_ahead(memory, commit.version);
        }
    }

    /// Begins to read for the next turn at a version, where that is worth it.
    fn read_ahead(&mut self, memory: &Memory, version: Version) {
        let namespace = self.consumer.presence.namespace();
        if namespace.database().store().read_versions_cost() {
            let (window, now) = (self.window(memory), self.consumer.env.now());
            self.ahead = Ahead::begin(namespace, &self.keys, version, window, now);
        }
    }

    /// Stays for a moment, if the last turn was about a call: the next one often follows at once.
    async fn linger(&mut self) {
        let Some(ahead) = &mut self.ahead else {
            return;
        };
        let woken = self.kind.slots().linger(&self.instance);
        if let Some(woken) = woken {
            let moment = self.consumer.env.sleep(LINGER);
            ahead.meanwhile(select(woken, moment)).await;
        }
    }

    /// What was read ahead, if it is of use for what is to be done: not for messages that may have
    /// been pushed since, nor for queries, which write nothing.
    fn take_ahead(&mut self, taken: &Taken) -> Option<(Tx, Reads)> {
        let ahead = self.ahead.take()?;
        let asks = taken.inline.iter().all(|inline| inline.message.query)
            && !planted(Bug::QueryFromPrefetch);
        // Others push: with messages from memory, which stand behind all that is pushed, such a turn
        // would often be in vain.
        let may_miss = taken
            .looked
            .is_some_and(|visible| !ahead.shows(visible) || !taken.inline.is_empty());
        if (may_miss && !planted(Bug::WakeReadOlder)) || (asks && !taken.inline.is_empty()) {
            return None;
        }
        ahead.take(self.consumer.env.now())
    }

    async fn commit(
        &mut self,
        lane: &mut Lane,
        session: &Arc<Session>,
        memory: &mut Memory,
        taken: &Taken,
    ) -> Result<(Turn, Option<Committed>), SessionError> {
        let consumer = Arc::clone(&self.consumer);
        let cache = Mutex::new(memory.cache.take());
        let lock_seen = Mutex::new(memory.lock_seen.take());
        let claimers = Mutex::new(std::mem::take(&mut memory.claimers));
        let reservation = Mutex::new(self.claim.take());
        let (first, ahead) = self.take_ahead(taken).unzip();
        let scene = Scene {
            namespace: session.namespace(),
            env: consumer.env.as_ref(),
            callers: consumer.callers.as_ref(),
            kind: &self.kind,
            instance: &self.instance,
            keys: &self.keys,
            session: session.id(),
            cache: &cache,
            inline: &taken.inline,
            impatient: taken.impatient,
            closing: taken.closing.as_ref(),
            holding: memory.holding,
            lock_seen: &lock_seen,
            claimers: &claimers,
            waited: memory.waiting_for.map(|(stamp, failures, since)| {
                (stamp, failures, consumer.env.now().saturating_sub(since))
            }),
            unfit: &memory.unfit,
            suspect_until: consumer.suspect_until(),
            claims: &consumer.claims,
            reservation: &reservation,
            single: memory.single,
            blame: memory.blame.as_ref(),
            first: Mutex::default(),
            window: self.window(memory),
            chained: first.is_some(),
            ahead: Mutex::new(ahead),
            in_handlers: Mutex::default(),
        };
        let span = tracing::debug_span!(
            "abide.turn",
            kind = self.instance.kind(),
            id = self.instance.id(),
            messages = tracing::field::Empty,
            attempts = tracing::field::Empty,
            conflicts = tracing::field::Empty,
        );
        let began = consumer.env.now();
        let result = lane
            .run_work(TURN_TIME, first, |tx, attempt| {
                span.record("attempts", attempt + 1);
                // Boxed: it is large, and is moved several times on its way into the retry loop.
                let decided = Box::pin(turn(&scene, tx, attempt));
                let (consumer, kind, cache) = (&consumer, &self.kind, &cache);
                async move { Ok(tell_early(consumer, kind, cache, decided.await?)) }
            })
            .instrument(span.clone())
            .await;
        if let Ok((turn, commit)) = &result {
            span.record("messages", turn.handled);
            let took = consumer.env.now().saturating_sub(began);
            super::metrics::turn(self.instance.kind(), turn, commit.is_some(), took);
        }
        self.in_handlers = scene
            .in_handlers
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        self.first = scene
            .first
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        memory.cache = cache.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.claim = reservation
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        memory.claimers = claimers
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        memory.lock_seen = lock_seen
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        result
    }

    /// Ends the claims of a worker that does not go on: the process stops, say. Its session is about
    /// to go, and that must not look like a death.
    async fn let_go(&mut self) {
        let session = self.consumer.presence.session();
        let consumer = Arc::clone(&self.consumer);
        let (cache, lock_seen) = (Mutex::default(), Mutex::default());
        let claimers = Mutex::default();
        let unfit = Unfits::default();
        let reservation = Mutex::default();
        let scene = Scene {
            namespace: session.namespace(),
            env: consumer.env.as_ref(),
            callers: consumer.callers.as_ref(),
            kind: &self.kind,
            instance: &self.instance,
            keys: &self.keys,
            session: session.id(),
            cache: &cache,
            inline: &[],
            impatient: false,
            closing: None,
            holding: None,
            lock_seen: &lock_seen,
            claimers: &claimers,
            waited: None,
            unfit: &unfit,
            suspect_until: consumer.suspect_until(),
            claims: &consumer.claims,
            reservation: &reservation,
            single: true,
            blame: None,
            first: Mutex::default(),
            window: Window {
                rows: 1,
                bytes: 1,
                page: 1,
            },
            chained: false,
            ahead: Mutex::default(),
            in_handlers: Mutex::default(),
        };
        let mut lane = session.lane();
        let ended = lane
            .run_work(LET_GO_TIME, None, |tx, _| scene.let_go(tx))
            .await;
        if let Err(error) = ended {
            tracing::warn!(instance = %self.instance, %error, "a claim is left behind");
        }
        self.claim = None;
    }

    /// As many rows as make a batch, if they are as large as those before.
    fn window(&self, memory: &Memory) -> Window {
        let options = &self.kind.options;
        let fit = memory
            .row_bytes
            .map_or(MAX_ROWS, |bytes| options.batch_bytes / bytes.max(1));
        let rows = fit.clamp(1, options.batch_messages.max(1));
        Window {
            rows,
            bytes: options.batch_bytes,
            page: match memory.row_bytes {
                Some(_) => rows.saturating_add(1).min(MAX_ROWS),
                None => rows.saturating_add(1).min(FIRST_PAGE),
            },
        }
    }

    /// What the rest of the process gets to know of a turn that has landed.
    fn landed(
        &mut self,
        memory: &mut Memory,
        taken: Taken,
        mut turn: Turn,
        commit: Option<Committed>,
    ) -> (Rest, Option<Duration>) {
        // A turn that was about something else leaves the claim in the store, and so the duty to end it.
        if turn.claimed == Some(false) {
            self.claim = None;
        }
        if let Some(cached) = turn.cache.take() {
            // The old state's hold on the leaves must go before they are changed, or else they would
            // be copied.
            memory.cache = None;
            memory.cache = self.cache(cached, commit);
            self.activated(memory, turn.activation);
        }
        let is_answering = !turn.answers.is_empty();
        for (call, answer) in turn.answers.drain(..) {
            self.consumer.callers.answer(call, answer);
        }
        if is_answering && (!turn.effects.is_empty() || turn.stopped || !turn.died.is_empty()) {
            // A thread keeps the task that it has woken last for itself, and user code is about to run
            // on this one. Let that be a task that nobody waits for.
            self.consumer.env.spawn(Box::pin(async {}));
        }
        self.run_effects(memory, std::mem::take(&mut turn.effects));
        lazy::forget(&self.kind, self.consumer.env.as_ref(), &mut memory.cache);
        self.tell_others(&turn, commit);
        // The run that ended may be of a lock that was broken, while another one goes on here.
        let ended = taken.closing.as_ref().map(|closing| closing.token);
        if turn.closed && (ended.is_none() || ended == memory.holding) {
            memory.holding = None;
        }
        if let Some(under) = turn.under_lock.take() {
            let token = under.token.or(commit.map(|commit| commit.stamp));
            if let Some(token) = token {
                memory.holding = Some(token);
                let leaves = memory.cache.as_ref().map(|cache| Arc::clone(&cache.leaves));
                self.consumer
                    .run_locked(&self.kind, &self.instance, token, under, leaves);
            }
        }
        if turn.stopped {
            let state = memory.cache.take();
            let stopped = state.map(|cache| (self.instance.clone(), cache));
            let stopped = stopped.into_iter().collect();
            self.consumer
                .deactivated(&self.kind, stopped, Deactivation::Stopped);
        }
        let left: Vec<_> = {
            let mut left = Vec::with_capacity(turn.left.len());
            for (index, inline) in taken.inline.into_iter().enumerate() {
                if turn.left.contains(&index) {
                    left.push(inline);
                }
            }
            left
        };
        let closing = taken.closing.filter(|_| !turn.closed);
        self.kind.slots().put_back(&self.instance, left, closing);
        self.remember(memory, &mut turn)
    }

    /// What the next turn needs to know of this one.
    fn remember(&mut self, memory: &mut Memory, turn: &mut Turn) -> (Rest, Option<Duration>) {
        let now = self.consumer.env.now();
        memory.waiting_for = turn
            .waiting_for
            .map(|(stamp, failures)| match memory.waiting_for {
                Some(known) if (known.0, known.1) == (stamp, failures) => known,
                _ => (stamp, failures, now),
            });
        memory.row_bytes = turn.row_bytes.or(memory.row_bytes);
        if !turn.blame_waits {
            memory.blame = None;
        }
        memory.single = false;
        for (lane, unfit) in turn.unfit.drain(..) {
            memory.unfit.remember(lane, unfit);
        }
        match std::mem::take(&mut turn.next) {
            Next::Again => (Rest::Again, None),
            Next::Idle => (Rest::Idle, None),
            Next::Park(reason, again) => (Rest::Parked(reason, turn.mark.clone()), again),
            Next::Single => {
                memory.single = true;
                (Rest::Again, None)
            }
            Next::Blame(blame) => {
                memory.blame = Some(blame);
                (Rest::Again, None)
            }
        }
    }

    /// A state for the next turn. One that was written has the commit's stamp for its version.
    fn cache(&self, cached: Cached, commit: Option<Committed>) -> Option<Cache> {
        let version = cached.version.or_else(|| {
            Some(StateVersion {
                stamp: commit?.stamp,
                schema: self.kind.behaviour.schema(),
            })
        })?;
        let mut leaves = cached.leaves;
        if let Some(update) = cached.update {
            update.land(Arc::make_mut(&mut leaves));
        }
        Some(Cache {
            version,
            leaves,
            ignored: cached.ignored,
            state: Some(cached.state),
            activation: None,
        })
    }

    fn activated(&self, memory: &Memory, cause: Option<Activation>) {
        if let Some(cause) = cause
            && let Some(state) = memory.cache.as_ref().and_then(|cache| cache.state.as_ref())
        {
            self.consumer
                .activated(&self.kind, &self.instance, state, cause);
        }
    }

    /// Runs the effects of a turn, in order, until one halts the rest of them.
    fn run_effects(&self, memory: &Memory, effects: Vec<Effect>) {
        let Some(state) = memory.cache.as_ref().and_then(|cache| cache.state.as_ref()) else {
            return;
        };
        if !effects.is_empty() {
            self.consumer.run_effects(&self.kind, state, effects);
        }
    }

    fn tell_others(&self, turn: &Turn, commit: Option<Committed>) {
        if turn.pushed_inline || turn.answered_later {
            self.consumer.callers.await_stored_reply();
        }
        if let Some(commit) = commit {
            for instance in &turn.pushed_to {
                if *instance != self.instance {
                    self.consumer
                        .look_at(instance, &Look::Now, Visible::From(commit.version));
                }
            }
        }
        for died in &turn.died {
            self.consumer.dead_letter(&self.kind, &self.instance, died);
        }
    }

    /// A turn whose transaction could not be committed.
    async fn failed(
        &mut self,
        memory: &mut Memory,
        taken: Taken,
        session: &Arc<Session>,
        error: SessionError,
    ) -> (Rest, Option<Duration>) {
        let alone = memory.single;
        // One message only; and if it was one already, its failure is counted.
        let first = self.first.take();
        let retry = |memory: &mut Memory, error: String| {
            memory.blame = first.filter(|_| alone).map(|whom| Blame { whom, error });
            memory.single = memory.blame.is_none();
            match alone && memory.single {
                // It was about no message at all.
                true => away(),
                false => (Rest::Again, None),
            }
        };
        let (inline, outcome) = match &error {
            SessionError::SessionGone => {
                self.lane = None;
                self.lose(&taken);
                // Opening a new one also ends the calls of the old one.
                if let Err(error) = self.consumer.presence.renew(session).await {
                    tracing::warn!(%error, "a new session cannot be opened yet");
                }
                (Vec::new(), (Rest::Again, None))
            }
            SessionError::Store(store) => match store.kind() {
                StoreErrorKind::MaybeCommitted => {
                    self.lose(&taken);
                    (Vec::new(), away())
                }
                // The batch or its one message is too large for any transaction.
                StoreErrorKind::TransactionTooLarge
                | StoreErrorKind::ValueTooLarge
                | StoreErrorKind::KeyTooLarge => (taken.inline, retry(memory, store.to_string())),
                // Each attempt took longer than a transaction lives, though no handler took longer than it
                // may. If that was not their time, it was the store's, which hung say, and is nobody's
                // fault.
                StoreErrorKind::TooOld if alone && self.in_handlers < SLOW => {
                    (taken.inline, away())
                }
                StoreErrorKind::TooOld => {
                    let error = "it takes longer than a transaction lives".to_owned();
                    (taken.inline, retry(memory, error))
                }
                StoreErrorKind::Corrupt => {
                    let reason = Parked::UnreadableMessage(store.to_string());
                    let parked = Rest::Parked(reason, super::turn::Mark::Own);
                    (taken.inline, (parked, Some(UNREADABLE_RECHECK)))
                }
                _ => (taken.inline, away()),
            },
        };
        tracing::debug!(instance = %self.instance, %error, "a turn was not committed");
        self.kind
            .slots()
            .put_back(&self.instance, inline, taken.closing);
        outcome
    }

    /// What became of these messages will never be known.
    fn lose(&self, taken: &Taken) {
        for inline in &taken.inline {
            if let Some(call) = inline.message.call {
                self.consumer
                    .callers
                    .lost(call, "the outcome of its turn cannot be found out");
            }
        }
    }

    fn set_timer(&self, again: Option<Duration>) {
        let Some(wait) = again else {
            return;
        };
        let at = self.consumer.env.now().saturating_add(wait);
        if self.kind.slots().set_timer(&self.instance, at) {
            self.consumer
                .look_later(&self.kind, &self.instance, wait, at);
        }
    }
}

/// How long a worker stays that has nothing to do: longer than a caller takes to call again.
const LINGER: Duration = Duration::from_millis(2);

/// How long handlers must have taken to be why a transaction became too old: nearly half its life.
const SLOW: Duration = Duration::from_secs(2);

/// How long the end of a worker's claims is tried.
const LET_GO_TIME: Duration = Duration::from_secs(5);

/// How long an instance waits whose mailbox cannot be read, for an operator to mend it.
const UNREADABLE_RECHECK: Duration = Duration::from_secs(10);

/// The turn as it is. A planted mistake lets something out of it before the commit.
fn tell_early(
    consumer: &Consumer,
    kind: &Kind,
    cache: &Mutex<Option<Cache>>,
    mut decided: Work<Turn>,
) -> Work<Turn> {
    let (Work::Write(turn) | Work::Look(turn)) = &mut decided;
    if planted(Bug::AnswerBeforeCommit) {
        for (call, answer) in turn.answers.drain(..) {
            consumer.callers.answer(call, answer);
        }
    }
    if planted(Bug::EffectsBeforeCommit)
        && let Some(cached) = &turn.cache
    {
        let effects = std::mem::take(&mut turn.effects);
        consumer.run_effects(kind, &cached.state, effects);
    }
    if planted(Bug::CacheBeforeCommit)
        && let Some(known) = cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        && let Some(cached) = turn.cache.take()
    {
        known.state = Some(cached.state);
    }
    decided
}

fn away() -> (Rest, Option<Duration>) {
    let parked = Rest::Parked(Parked::StoreAway, super::turn::Mark::Own);
    (parked, Some(AWAY))
}

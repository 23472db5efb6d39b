//! What the view knows and shows: changed by samples and keys alone, so that tests can say what
//! comes of which.

use super::rates::{Watched, push};
use super::sample::{NAMED, Opened, Round, Sample, Wanted};
use abide::InstanceId;
use abide::durable::keys::SessionId;
use abide::store::Stamp;
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The most instances that are remembered.
const WATCHED: usize = 400;

/// What the rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Messages,
    Growth,
    Handled,
    Lag,
    Attempts,
    Dead,
    Name,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Messages => Self::Growth,
            Self::Growth => Self::Handled,
            Self::Handled => Self::Lag,
            Self::Lag => Self::Attempts,
            Self::Attempts => Self::Dead,
            Self::Dead => Self::Name,
            Self::Name => Self::Messages,
        }
    }
}

/// What is to be done to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Deletes one message, or all.
    Purge(InstanceId, Option<Stamp>),
    /// Deletes a dead letter.
    Forget(InstanceId, Stamp),
    /// Puts a dead letter back, or all of them.
    Retry(InstanceId, Option<Stamp>),
}

/// What the loop is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Take a sample now.
    Refresh,
    /// Do it, now that it was confirmed.
    Act(Action),
}

/// An instance that is open.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) instance: InstanceId,
    /// None until the first sample of it.
    pub(super) shown: Option<Opened>,
    /// Which of its messages and dead letters.
    pub(super) selected: usize,
}

/// What was done, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) is_bad: bool,
}

/// The view.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// What is looked at: the store, the namespace, and a kind.
    pub(super) title: String,
    pub(super) every: Duration,
    pub(super) colour: bool,
    pub(super) watched: BTreeMap<InstanceId, Watched>,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) typing: bool,
    pub(super) selected: Option<InstanceId>,
    pub(super) open: Option<Open>,
    /// What waits for a yes.
    pub(super) asking: Option<Action>,
    pub(super) notice: Option<Notice>,
    pub(super) is_over: bool,
    /// Of the last sample.
    pub(super) at: Duration,
    pub(super) now_ms: u64,
    pub(super) samples: u64,
    pub(super) damaged: usize,
    pub(super) damage: Option<String>,
    /// Why there was none since.
    pub(super) outage: Option<String>,
    /// The round that ended last, and the messages that rounds found.
    pub(super) round: Option<Round>,
    pub(super) backlog: VecDeque<u64>,
    /// What each process had done, and how much all of them do in a second.
    attempts: Vec<(SessionId, u64)>,
    pub(super) work: Option<f64>,
    pub(super) works: VecDeque<u64>,
}

impl Model {
    pub(super) fn new(title: String, every: Duration, colour: bool) -> Self {
        Self {
            title,
            every,
            colour,
            watched: BTreeMap::new(),
            sort: Sort::Messages,
            reversed: false,
            filter: String::new(),
            typing: false,
            selected: None,
            open: None,
            asking: None,
            notice: None,
            is_over: false,
            at: Duration::ZERO,
            now_ms: 0,
            samples: 0,
            damaged: 0,
            damage: None,
            outage: None,
            round: None,
            backlog: VecDeque::new(),
            attempts: Vec::new(),
            work: None,
            works: VecDeque::new(),
        }
    }

    /// What the next sample must show.
    pub(super) fn wanted(&self) -> Wanted {
        let mut instances: Vec<InstanceId> = self.selected.iter().cloned().collect();
        instances.extend(self.open.as_ref().map(|open| open.instance.clone()));
        // Who types the whole name of an instance finds it, however many there are.
        let named = self.filter.split_once('/');
        instances.extend(named.and_then(|(kind, id)| InstanceId::new(kind, id).ok()));
        let rows = self.rows();
        let rows = rows.iter().map(|row| row.seen.instance.clone());
        // Half of the room stays for the fullest of those that are not shown yet.
        instances.extend(rows.take(NAMED / 2));
        let mut known = std::collections::BTreeSet::new();
        instances.retain(|instance| known.insert(instance.clone()));
        Wanted {
            instances,
            open: self.open.as_ref().map(|open| open.instance.clone()),
        }
    }

    /// Takes in a sample, or why there is none.
    pub(super) fn take(&mut self, sample: Result<Sample, String>) {
        let sample = match sample {
            Ok(sample) => sample,
            Err(outage) => {
                self.outage = Some(outage);
                return;
            }
        };
        self.outage = None;
        self.samples += 1;
        self.count_work(&sample);
        self.at = sample.at;
        self.now_ms = sample.now_ms;
        self.damaged = sample.damaged;
        self.damage = sample.damage;
        for seen in sample.seen {
            if !seen.is_there {
                self.watched.remove(&seen.instance);
            } else if let Some(watched) = self.watched.get_mut(&seen.instance) {
                watched.update(seen, sample.at);
            } else {
                let watched = Watched::new(seen, sample.at);
                self.watched.insert(watched.seen.instance.clone(), watched);
            }
        }
        for watched in self.watched.values_mut() {
            watched.expire(sample.at);
        }
        if let Some(round) = sample.round {
            self.round = Some(round);
            push(&mut self.backlog, round.messages);
        }
        if let (Some(open), Some(opened)) = (&mut self.open, sample.open)
            && open.instance == opened.instance
        {
            open.selected = open.selected.min(opened.entries.len().saturating_sub(1));
            open.shown = Some(opened);
        }
        self.forget();
        self.keep_selected();
    }

    /// How much the processes that were there before have done since.
    fn count_work(&mut self, sample: &Sample) {
        let time = sample.at.saturating_sub(self.at).as_secs_f64();
        let before = std::mem::replace(&mut self.attempts, sample.attempts.clone());
        if self.samples < 2 || time <= 0.0 {
            return;
        }
        let done = sample.attempts.iter().map(|(session, attempts)| {
            let earlier = before.iter().find(|(of, _)| of == session);
            earlier.map_or(0, |(_, earlier)| attempts.saturating_sub(*earlier))
        });
        #[allow(clippy::cast_precision_loss, reason = "a figure to look at")]
        let work = done.sum::<u64>() as f64 / time;
        self.work = Some(work);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a figure to look at, not negative"
        )]
        push(&mut self.works, work.ceil() as u64);
    }

    /// Keeps the memory bounded: who has least to show goes.
    fn forget(&mut self) {
        let excess = self.watched.len().saturating_sub(WATCHED);
        if excess == 0 {
            return;
        }
        let mut all: Vec<&Watched> = self.watched.values().collect();
        all.sort_by_key(|of| {
            let seen = &of.seen;
            (seen.messages, seen.attempts, seen.dead, of.at)
        });
        let kept = self.wanted().instances;
        let all = all.into_iter().map(|of| of.seen.instance.clone());
        let gone: Vec<InstanceId> = all.filter(|of| !kept.contains(of)).take(excess).collect();
        for instance in gone {
            self.watched.remove(&instance);
        }
    }

    /// The rows in their order.
    pub(super) fn rows(&self) -> Vec<&Watched> {
        let filter = self.filter.to_lowercase();
        let matches = |of: &&Watched| {
            let name = of.seen.instance.to_string().to_lowercase();
            name.contains(&filter) || of.seen.remarks.to_lowercase().contains(&filter)
        };
        let mut rows: Vec<&Watched> = self.watched.values().filter(matches).collect();
        // The most first; equal ones by name, so that nothing jumps.
        rows.sort_by(|a, b| match self.reversed {
            false => self.compare(a, b),
            true => self.compare(b, a),
        });
        rows
    }

    fn compare(&self, a: &Watched, b: &Watched) -> Ordering {
        let rates = |a: Option<f64>, b: Option<f64>| {
            let rate = |rate: Option<f64>| rate.unwrap_or(f64::NEG_INFINITY);
            rate(b).total_cmp(&rate(a))
        };
        let (of_a, of_b) = (&a.seen, &b.seen);
        match self.sort {
            Sort::Messages => of_b.messages.cmp(&of_a.messages),
            Sort::Growth => rates(a.growth, b.growth),
            Sort::Handled => rates(a.handled, b.handled),
            // The oldest first; who has no messages last.
            Sort::Lag => {
                let sent = |of: Option<u64>| of.unwrap_or(u64::MAX);
                sent(of_a.oldest_ms).cmp(&sent(of_b.oldest_ms))
            }
            Sort::Attempts => of_b.attempts.cmp(&of_a.attempts),
            Sort::Dead => of_b.dead.cmp(&of_a.dead),
            Sort::Name => Ordering::Equal,
        }
        .then_with(|| of_a.instance.cmp(&of_b.instance))
    }

    /// The row that is selected stays so wherever it goes; if it is gone, the first one is.
    pub(super) fn keep_selected(&mut self) {
        let rows = self.rows();
        let is_there = |of: &InstanceId| rows.iter().any(|row| row.seen.instance == *of);
        let selected = self.selected.clone().filter(is_there);
        let first = rows.first().map(|row| row.seen.instance.clone());
        self.selected = selected.or(first);
    }

    /// Selects another row.
    pub(super) fn select(&mut self, step: isize) {
        if let Some(open) = &mut self.open {
            let entries = open.shown.as_ref().map_or(0, |shown| shown.entries.len());
            open.selected = moved(open.selected, step, entries);
            return;
        }
        let rows = self.rows();
        let at = rows
            .iter()
            .position(|row| Some(&row.seen.instance) == self.selected.as_ref());
        let at = moved(at.unwrap_or(0), step, rows.len());
        self.selected = rows.get(at).map(|row| row.seen.instance.clone());
    }

    /// How many processes there are.
    pub(super) fn processes(&self) -> usize {
        self.attempts.len()
    }

    /// Tells what became of an action.
    pub(super) fn acted(&mut self, outcome: Result<String, String>) {
        let is_bad = outcome.is_err();
        let (Ok(text) | Err(text)) = outcome;
        self.notice = Some(Notice { text, is_bad });
    }
}

fn moved(at: usize, step: isize, count: usize) -> usize {
    at.saturating_add_signed(step).min(count.saturating_sub(1))
}

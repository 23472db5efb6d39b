//! Looking at the store, again and again: a bounded part of it each time.
//!
//! A refresh reads
//!
//! - a page of ready marks with the lengths of the mailboxes, going round all that have work,
//! - whole summaries of the instances that the view asks for, and of the fullest of that page,
//! - a few instances more, going round all there are, so that idle ones and dead letters are found,
//! - how much the processes have done,
//! - of the instance that is open, the beginnings of its state, its mailbox and its dead letters.
//!
//! So its cost depends on none of how many instances, messages or leaves there are; only the time
//! until something is found does.

use crate::instances::{attempts, remarks};
use crate::output::{age, clean};
use crate::{lock, views};
use abide::InstanceId;
use abide::admin::{
    Admin, AdminError, AdminErrorKind, Cursor, DeadFilter, DeadLetterView, InstanceFilter,
    InstanceSummary, QueuedView,
};
use abide::durable::keys::{Lane, SessionId};
use abide::store::{CommitStamp, Stamp};
use std::time::Duration;

/// How many marks a refresh looks at.
const MARKS: usize = 500;

/// How many instances it summarizes because they were asked for or are full.
pub(super) const NAMED: usize = 80;

/// How many it summarizes by going round.
const ROUND: usize = 20;

/// How much is read of an open instance.
const LEAVES: usize = 100;
const MESSAGES: usize = 25;
const LETTERS: usize = 25;

/// What one look at an instance showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) instance: InstanceId,
    /// Whether anything of it is stored.
    pub(super) is_there: bool,
    pub(super) messages: u64,
    /// The stamp of the oldest message.
    pub(super) head: Option<Stamp>,
    pub(super) oldest_ms: Option<u64>,
    /// The commit that pushed last.
    pub(super) marked: Option<CommitStamp>,
    /// The commit that changed the state last.
    pub(super) changed: Option<CommitStamp>,
    pub(super) attempts: u32,
    pub(super) locked_ms: Option<u64>,
    pub(super) dead: u64,
    pub(super) more_dead: bool,
    pub(super) remarks: String,
}

impl Seen {
    fn new(summary: &InstanceSummary) -> Self {
        let heads = [&summary.priority, &summary.ordinary];
        let heads = heads.iter().filter_map(|lane| lane.oldest.as_ref());
        let head = heads.map(|oldest| oldest.stamp).min();
        let dead = summary.dead_letters;
        Self {
            instance: summary.instance.clone(),
            is_there: summary.created_ms.is_some()
                || summary.schema.is_some()
                || summary.length > 0
                || head.is_some()
                || summary.lock.is_some()
                || dead.count > 0
                || dead.more
                || summary.paused.is_some()
                || !summary.damaged.is_empty(),
            messages: summary.length,
            head,
            oldest_ms: summary.oldest_ms(),
            marked: summary.marked,
            changed: summary.changed,
            attempts: attempts(summary),
            locked_ms: summary.lock.as_ref().map(|lock| lock.taken_ms),
            dead: dead.count,
            more_dead: dead.more,
            remarks: remarks(summary),
        }
    }
}

/// All instances that had something to do when a round went by them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) instances: u64,
    pub(super) messages: u64,
    /// How many refreshes it took.
    pub(super) refreshes: u64,
}

/// What one refresh has found.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// When it was taken, by a clock that only goes forward.
    pub(super) at: Duration,
    /// When it was taken, in milliseconds since 1970.
    pub(super) now_ms: u64,
    pub(super) seen: Vec<Seen>,
    /// The round that ended with this refresh.
    pub(super) round: Option<Round>,
    /// How much each process has done since it began.
    pub(super) attempts: Vec<(SessionId, u64)>,
    pub(super) open: Option<Opened>,
    /// How many things could not be read, and the first of them.
    pub(super) damaged: usize,
    pub(super) damage: Option<String>,
}

/// An instance, looked at closely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) instance: InstanceId,
    /// A line for each leaf.
    pub(super) state: Vec<String>,
    pub(super) more_state: bool,
    pub(super) lock: Vec<String>,
    /// Messages and dead letters.
    pub(super) entries: Vec<Entry>,
    pub(super) more_messages: bool,
    pub(super) more_letters: bool,
    /// What of it cannot be read.
    pub(super) damaged: Vec<String>,
}

/// A message or a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    pub(super) is_letter: bool,
    pub(super) line: String,
}

/// What the view shows, and so wants to see again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) instances: Vec<InstanceId>,
    pub(super) open: Option<InstanceId>,
}

/// Goes round the namespace.
#[derive(Debug)]
pub(super) struct Sampler {
    filter: InstanceFilter,
    marks: Option<Cursor>,
    round: Round,
    listing: Option<Cursor>,
}

impl Sampler {
    pub(super) fn new(kind: Option<String>) -> Self {
        Self {
            filter: InstanceFilter { kind, stuck: None },
            marks: None,
            round: Round::default(),
            listing: None,
        }
    }

    /// Takes the next sample.
    pub(super) async fn look(
        &mut self,
        admin: &Admin,
        wanted: &Wanted,
    ) -> Result<Sample, AdminError> {
        let env = admin.namespace().database().env();
        let mut sample = Sample::default();
        let mut names = wanted.instances.clone();
        names.truncate(NAMED);
        self.marks(admin, &mut sample, &mut names).await?;
        // Together, because their numbers are to be of about one time.
        sample.at = env.now();
        sample.now_ms = admin.now_ms();
        for summary in admin.instances_named(&names).await? {
            sample.add(&summary);
        }
        let page = admin.instances(&self.filter, self.listing.as_ref(), ROUND);
        let page = page.await?;
        self.listing = page.next;
        sample.damaged(page.damaged.iter().map(ToString::to_string));
        for summary in &page.items {
            if !names.contains(&summary.instance) {
                sample.add(summary);
            }
        }
        let activity = admin.activity().await?;
        sample.damaged(activity.damaged.iter().map(ToString::to_string));
        let attempts = activity.items.iter();
        sample.attempts = attempts.map(|of| (of.session, of.attempts)).collect();
        if let Some(instance) = &wanted.open {
            sample.open = Some(open(admin, instance).await?);
        }
        Ok(sample)
    }

    /// Looks at the next marks, and adds the fullest of these instances to the names.
    async fn marks(
        &mut self,
        admin: &Admin,
        sample: &mut Sample,
        names: &mut Vec<InstanceId>,
    ) -> Result<(), AdminError> {
        let kind = self.filter.kind.as_deref();
        let mut page = admin.backlog(kind, self.marks.as_ref(), MARKS).await?;
        sample.damaged(page.damaged.iter().map(ToString::to_string));
        self.round.refreshes += 1;
        self.round.instances += u64::try_from(page.items.len()).unwrap_or(u64::MAX);
        self.round.messages += page.items.iter().map(|of| of.length).sum::<u64>();
        self.marks = page.next;
        if self.marks.is_none() {
            sample.round = Some(std::mem::take(&mut self.round));
        }
        page.items.sort_by_key(|of| std::cmp::Reverse(of.length));
        for of in page.items {
            if names.len() >= NAMED {
                break;
            }
            if !names.contains(&of.instance) {
                names.push(of.instance);
            }
        }
        Ok(())
    }
}

impl Sample {
    fn add(&mut self, summary: &InstanceSummary) {
        self.damaged(summary.damaged.iter().map(ToString::to_string));
        self.seen.push(Seen::new(summary));
    }

    fn damaged(&mut self, damaged: impl Iterator<Item = String>) {
        for damage in damaged {
            self.damaged += 1;
            self.damage.get_or_insert_with(|| clean(&damage));
        }
    }
}

/// Looks closely at an instance. What cannot be read of it hides nothing else.
async fn open(admin: &Admin, instance: &InstanceId) -> Result<Opened, AdminError> {
    let now = admin.now_ms();
    let (state, more_state) = admin.state_head(instance, LEAVES).await?;
    let mut opened = Opened {
        instance: instance.clone(),
        state: Vec::new(),
        more_state,
        lock: Vec::new(),
        entries: Vec::new(),
        more_messages: false,
        more_letters: false,
        damaged: state.damaged.iter().map(ToString::to_string).collect(),
    };
    for (path, value) in crate::state::shown(&state) {
        opened.state.push(clean(&format!("{path} = {value}")));
    }
    match admin.lock(instance).await {
        Ok(Some(held)) => opened.lock = lock::lines(instance, &held, now),
        Ok(None) => {}
        Err(error) if error.kind() == AdminErrorKind::Corrupt => {
            opened.damaged.push(crate::failure::chain(&error));
        }
        Err(error) => return Err(error),
    }
    for lane in [Lane::Priority, Lane::Ordinary] {
        let page = admin.mailbox(instance, lane, None, MESSAGES).await?;
        opened.more_messages |= page.next.is_some();
        let damaged = page.damaged.iter().map(ToString::to_string);
        opened.damaged.extend(damaged);
        opened
            .entries
            .extend(page.items.iter().map(|of| message(of, now)));
    }
    let filter = DeadFilter {
        instance: Some(instance.clone()),
        ..DeadFilter::default()
    };
    let page = admin.dead_letters(&filter, None, LETTERS).await?;
    opened.more_letters = page.next.is_some();
    let damaged = page.damaged.iter().map(ToString::to_string);
    opened.damaged.extend(damaged);
    opened
        .entries
        .extend(page.items.iter().map(|of| letter(of, now)));
    for damage in &mut opened.damaged {
        *damage = clean(damage);
    }
    Ok(opened)
}

fn message(queued: &QueuedView, now: u64) -> Entry {
    let lane = views::lane(queued.lane);
    let line = match &queued.message {
        Ok(message) => format!(
            "{lane:8}  {:>4}  {:5}  {}  {}",
            age(now, message.sent_ms),
            views::mode(message),
            message.name,
            views::payload(message)
        ),
        Err(damage) => format!("{lane:8}  damaged: {damage}"),
    };
    Entry {
        stamp: queued.stamp,
        is_letter: false,
        line: clean(&line),
    }
}

fn letter(view: &DeadLetterView, now: u64) -> Entry {
    let line = match &view.letter {
        Ok(letter) => format!(
            "dead      {:>4}  {:5}  {}  {}  {}",
            age(now, letter.dead_ms),
            views::mode(&letter.message),
            letter.message.name,
            views::payload(&letter.message),
            letter.error
        ),
        Err(damage) => format!("dead      damaged: {damage}"),
    };
    Entry {
        stamp: view.stamp,
        is_letter: true,
        line: clean(&line),
    }
}

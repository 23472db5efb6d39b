//! The server: a tally of the operations that were applied, each by its sender's lane and number.

use crate::locks::Locks;
use abide::server::{
    Context, Failure, Handle, LockContext, Locked, Message, Outcome, Protocol, Query, ReadContext,
    Routes, Server,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How many instances there are beside [`DESK`].
const INSTANCES: u64 = 12;

/// The instance that works under its lock.
const DESK: &str = "desk";

/// Lanes from this one on mostly work under locks.
pub(crate) const BUSY: u64 = 1_000_000;

/// How many desks those have.
const DESKS: u64 = 3;

#[derive(Debug)]
pub(crate) struct Tallying;

impl Protocol for Tallying {
    const KIND: &'static str = "tally";
}

/// One operation: which lane of which process sent it, and its number there, from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Op {
    pub(crate) lane: u64,
    pub(crate) number: u64,
}

/// What an operation does; its number decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// A cast to the lane's home.
    Cast,
    /// A call of the lane's home.
    Call,
    /// One atomic batch for the home and its partner.
    Pair,
    /// A call of the home, whose handler casts to the partner.
    Forward,
    /// A call of the home, whose handler fails or panics at first.
    Stumble,
    /// A call of a desk, that works under its lock.
    Work,
}

impl Op {
    pub(crate) fn act(self) -> Act {
        let mixed = (self.lane << 20 ^ self.number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match (mixed >> 32) % 200 {
            0 => Act::Work,
            3 => Act::Stumble,
            1..=150 if self.lane >= BUSY => Act::Work,
            1..=24 => Act::Pair,
            25..=48 => Act::Forward,
            49..=110 => Act::Call,
            _ => Act::Cast,
        }
    }

    /// The instances that are to know of it.
    pub(crate) fn receivers(self) -> Vec<String> {
        match self.act() {
            Act::Cast | Act::Call | Act::Stumble => vec![self.home()],
            Act::Pair | Act::Forward => vec![self.home(), self.partner()],
            Act::Work if self.lane >= BUSY => vec![format!("{DESK}{}", self.number % DESKS)],
            Act::Work => vec![DESK.to_owned()],
        }
    }

    pub(crate) fn home(self) -> String {
        format!("i{}", self.lane % INSTANCES)
    }

    pub(crate) fn partner(self) -> String {
        format!("i{}", (self.lane + 1) % INSTANCES)
    }
}

/// All instances.
pub(crate) fn instances() -> impl Iterator<Item = String> {
    let numbered = (0..INSTANCES).map(|number| format!("i{number}"));
    let desks = (0..DESKS).map(|number| format!("{DESK}{number}"));
    numbered.chain(desks).chain([DESK.to_owned()])
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note(pub(crate) Op);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Forward(pub(crate) Op);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stumble(pub(crate) Op);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work(pub(crate) Op);

/// How many operations were applied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Total;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Whole;

impl Message<Tallying> for Note {
    const NAME: &'static str = "note";
    type Reply = u64;
}

impl Message<Tallying> for Forward {
    const NAME: &'static str = "forward";
    type Reply = u64;
}

impl Message<Tallying> for Stumble {
    const NAME: &'static str = "stumble";
    type Reply = u64;
}

impl Message<Tallying> for Total {
    const NAME: &'static str = "total";
    type Reply = u64;
}

impl Message<Tallying> for Work {
    const NAME: &'static str = "work";
    type Reply = u64;
}

impl Message<Tallying> for Whole {
    const NAME: &'static str = "whole";
    type Reply = Tally;
}

/// The state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// How many operations were applied, which is also the reply of the last of them.
    pub(crate) total: u64,
    /// The numbers that were applied, as ranges with both ends.
    pub(crate) applied: BTreeMap<u64, Vec<(u64, u64)>>,
    /// Those that were applied again.
    pub(crate) doubled: Vec<Op>,
    /// Those that were applied after a later one of their lane.
    pub(crate) late: Vec<Op>,
}

impl Tally {
    fn apply(&mut self, op: Op) -> u64 {
        self.total += 1;
        let ranges = self.applied.entry(op.lane).or_default();
        let at = ranges.partition_point(|(_, last)| *last < op.number);
        if ranges.get(at).is_some_and(|(first, _)| *first <= op.number) {
            self.doubled.push(op);
            return self.total;
        }
        if at < ranges.len() {
            self.late.push(op);
            ranges.insert(at, (op.number, op.number));
        } else {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == op.number => *last = op.number,
                _ => ranges.push((op.number, op.number)),
            }
        }
        self.total
    }

    pub(crate) fn has(&self, op: Op) -> bool {
        self.applied.get(&op.lane).is_some_and(|ranges| {
            let at = ranges.partition_point(|(_, last)| *last < op.number);
            ranges.get(at).is_some_and(|(first, _)| *first <= op.number)
        })
    }

    /// How many different operations were applied.
    pub(crate) fn different(&self) -> u64 {
        let ranges = self.applied.values().flatten();
        ranges.map(|(first, last)| last - first + 1).sum()
    }
}

#[derive(Debug)]
pub(crate) struct Tallies {
    /// Where runs under locks are written down; none where nobody looks.
    pub(crate) locks: Option<Arc<Locks>>,
}

impl Server for Tallies {
    type Protocol = Tallying;
    type State = Tally;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Tally, Failure> {
        Ok(Tally::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes
            .handle::<Note>()
            .handle::<Forward>()
            .handle::<Stumble>()
            .locked::<Work>()
            .query::<Whole>()
            .query::<Total>()
    }
}

impl Handle<Note> for Tallies {
    fn handle(
        &self,
        tally: &mut Tally,
        Note(op): Note,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Reply(tally.apply(op)))
    }
}

impl Handle<Forward> for Tallies {
    fn handle(
        &self,
        tally: &mut Tally,
        Forward(op): Forward,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        cx.cast::<Tallying>(op.partner(), Note(op))?;
        Ok(Outcome::Reply(tally.apply(op)))
    }
}

impl Handle<Stumble> for Tallies {
    fn handle(
        &self,
        tally: &mut Tally,
        Stumble(op): Stumble,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        // What it has changed by then must not stay.
        let total = tally.apply(op);
        match cx.attempt() {
            1 => Err(Failure::fail("planned")),
            // Unwinds without the message that a panic prints.
            2 if op.number.is_multiple_of(2) => std::panic::resume_unwind(Box::new("planned")),
            _ => Ok(Outcome::Reply(total)),
        }
    }
}

impl Handle<Work> for Tallies {
    fn handle(
        &self,
        _tally: &mut Tally,
        _work: Work,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Lock)
    }
}

impl Locked<Work> for Tallies {
    type Output = ();

    async fn run(&self, _tally: Tally, Work(op): Work, cx: LockContext) -> Result<(), Failure> {
        let locks = self.locks.as_ref();
        let _running = locks.map(|locks| Locks::enter(locks, cx.instance().id()));
        // Long enough that some are killed or stopped in the middle of it.
        let unit = if op.lane >= BUSY { 10 } else { 1 };
        crate::worker::pause(Duration::from_millis(unit * (1 + op.number % 8))).await;
        Ok(())
    }

    fn close(
        &self,
        tally: &mut Tally,
        Work(op): Work,
        (): (),
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Reply(tally.apply(op)))
    }
}

impl Query<Total> for Tallies {
    fn query(&self, tally: &Tally, _: Total, _: &ReadContext<'_>) -> Result<u64, Failure> {
        Ok(tally.total)
    }
}

impl Query<Whole> for Tallies {
    fn query(&self, tally: &Tally, _: Whole, _: &ReadContext<'_>) -> Result<Tally, Failure> {
        Ok(tally.clone())
    }
}

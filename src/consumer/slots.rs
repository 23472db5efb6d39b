//! What this process knows of the instances of a kind: which of them are being worked on, which wait
//! for room, which are parked, and which messages wait in memory. Pure: no store, no tasks.
//!
//! Invariants:
//!
//! - *One worker.* An instance has at most one worker in this process: whoever gets its [`Memory`]
//!   is it, and the slot is empty until it is given back.
//! - *No wake-up is lost.* A look at an instance that has a worker sets its flag, and a worker gives
//!   the memory back only together with the decision that the flag is down and nothing waits.

use super::claims::Claimers;
use super::plan::{LockSeen, Parked, Unfits};
use super::turn::{Blame, Cache, Closing, Mark};
use crate::id::InstanceId;
use crate::store::{CommitStamp, Stamp, Version};
use crate::wake::Inline;
use bytes::Bytes;
use futures_channel::oneshot;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

/// How many messages may wait in memory for one instance; more go to the mailbox.
const MAX_INLINE: usize = 4_096;

/// After how many turns the messages that wait in memory go to the mailbox instead.
const PATIENCE: u32 = 3;

/// What the worker of an instance knows from turn to turn.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) cache: Option<Cache>,
    /// The token of the lock under which a message runs in this process.
    pub(super) holding: Option<CommitStamp>,
    pub(super) lock_seen: Option<LockSeen>,
    pub(super) claimers: Claimers,
    pub(super) unfit: Unfits,
    /// How often the store had become another one when the rest of this was learned.
    pub(super) epoch: u64,
    /// The failure whose back-off is being waited for, and since when.
    pub(super) waiting_for: Option<(Stamp, u32, Duration)>,
    pub(super) single: bool,
    /// The failure that the next turn is to count.
    pub(super) blame: Option<Blame>,
    /// How large the mailbox's rows are.
    pub(super) row_bytes: Option<usize>,
}

#[derive(Debug)]
struct Slot {
    /// None while a worker has it.
    memory: Option<Box<Memory>>,
    /// Waits for room.
    queued: bool,
    /// Somebody looked while the worker was at it.
    again: bool,
    /// The mark that the scan saw last. A turn has looked at the instance since.
    mark: Option<Bytes>,
    /// Somebody has looked since the last turn began, and that turn may not have seen it.
    looked: Option<Visible>,
    /// Wakes the worker, which has nothing to do and stays for a moment.
    lingering: Option<oneshot::Sender<()>>,
    inline: VecDeque<Inline>,
    /// For how many turns the first of them have waited.
    waited: u32,
    /// The ends of locks' runs. There are several when a lock was broken, its message was run anew
    /// here, and both runs ended before a turn came: none may take the place of another.
    closings: VecDeque<Closing>,
    parked: Option<(Parked, Option<Bytes>)>,
    timer: Option<Duration>,
    /// Its place among the idle ones.
    idle_since: Option<u64>,
}

/// Why somebody looks at an instance.
#[derive(Debug, Clone)]
pub(super) enum Look {
    /// Its ready mark was seen, with this value.
    Marked(Bytes),
    /// Something has happened to it.
    Now,
}

/// At which versions of the store that can be seen for which somebody looks at an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Visible {
    /// From this one on.
    From(Version),
    /// At those that are obtained from now on.
    Now,
}

/// What a worker takes up at the beginning of a turn.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) inline: Vec<Inline>,
    pub(super) impatient: bool,
    pub(super) closing: Option<Closing>,
    /// Somebody has looked since the turn before began: the store may hold something new.
    pub(super) looked: Option<Visible>,
}

/// How a worker's turn ended, for the table.
#[derive(Debug)]
pub(super) enum Rest {
    /// It wants to go on at once.
    Again,
    /// There is nothing to do.
    Idle,
    /// Nothing can be done.
    Parked(Parked, Mark),
}

/// What the table makes of it.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Go on.
    Continue(Box<Memory>),
    /// End.
    End {
        /// Begin to work on this one.
        next: Option<(InstanceId, Box<Memory>)>,
        /// What leaves memory.
        evicted: Vec<(InstanceId, Cache)>,
        /// Messages that no turn will come to, because the process stops.
        turned_away: Vec<Inline>,
    },
}

/// The table.
#[derive(Debug)]
pub(super) struct Slots {
    slots: HashMap<InstanceId, Slot>,
    running: usize,
    most_running: usize,
    waiting: VecDeque<InstanceId>,
    /// The idle ones with a state in memory, the one that has been idle longest first.
    idle: BTreeMap<u64, InstanceId>,
    most_idle: usize,
    clock: u64,
    stopping: bool,
}

impl Slots {
    pub(super) fn new(most_running: usize, most_idle: usize) -> Self {
        Self {
            slots: HashMap::new(),
            running: 0,
            most_running,
            waiting: VecDeque::new(),
            idle: BTreeMap::new(),
            most_idle,
            clock: 0,
            stopping: false,
        }
    }

    /// Looks at an instance, of which there may be something new to see. Returns its memory if the
    /// caller is to start its worker.
    pub(super) fn look(
        &mut self,
        instance: &InstanceId,
        look: &Look,
        visible: Visible,
    ) -> Option<Box<Memory>> {
        if self.stopping {
            return None;
        }
        let slot = self.slots.entry(instance.clone()).or_default();
        if let Look::Marked(mark) = look {
            let seen = slot.mark.replace(mark.clone());
            if let Some((_, known)) = &slot.parked
                && (known.as_ref() == Some(mark) || seen.as_ref() == Some(mark))
            {
                return None;
            }
        }
        slot.looked = slot.looked.max(Some(visible));
        self.start(instance)
    }

    /// Puts a message into memory for the instance's next turn.
    pub(super) fn offer(&mut self, inline: Inline) -> Result<Option<Box<Memory>>, Inline> {
        if self.stopping {
            return Err(inline);
        }
        let instance = inline.instance.clone();
        let slot = self.slots.entry(instance.clone()).or_default();
        let is_blocked = slot.parked.is_some() && !inline.message.query;
        if is_blocked || slot.inline.len() >= MAX_INLINE {
            return Err(inline);
        }
        slot.inline.push_back(inline);
        Ok(self.start(&instance))
    }

    /// Hands over the end of a lock's run.
    pub(super) fn close(&mut self, instance: &InstanceId, closing: Closing) -> Option<Box<Memory>> {
        let slot = self.slots.entry(instance.clone()).or_default();
        slot.closings.push_back(closing);
        self.start(instance)
    }

    fn start(&mut self, instance: &InstanceId) -> Option<Box<Memory>> {
        let slot = self.slots.get_mut(instance)?;
        if slot.memory.is_none() || slot.queued {
            slot.again = true;
            if let Some(worker) = slot.lingering.take() {
                // It may be about to leave; then it sees the flag.
                let _ = worker.send(());
            }
            return None;
        }
        if self.running >= self.most_running {
            slot.queued = true;
            self.waiting.push_back(instance.clone());
            return None;
        }
        self.running += 1;
        if let Some(place) = slot.idle_since.take() {
            self.idle.remove(&place);
        }
        slot.memory.take()
    }

    /// The beginning of a worker's turn.
    pub(super) fn begin(&mut self, instance: &InstanceId, most: usize) -> Taken {
        let Some(slot) = self.slots.get_mut(instance) else {
            return Taken::default();
        };
        let looked = std::mem::take(&mut slot.looked);
        slot.again = false;
        slot.lingering = None;
        slot.parked = None;
        let count = slot.inline.len().min(most);
        Taken {
            inline: slot.inline.drain(..count).collect(),
            impatient: slot.waited >= PATIENCE,
            closing: slot.closings.pop_front(),
            looked,
        }
    }

    /// How many messages wait in memory for an instance.
    pub(super) fn count_inline(&self, instance: &InstanceId) -> usize {
        self.slots.get(instance).map_or(0, |slot| slot.inline.len())
    }

    /// Lets a worker that has nothing to do stay for a moment: the next message finds it at hand, and
    /// ahead with its reads. Nothing if there is something to do, or if others wait for its place.
    pub(super) fn linger(&mut self, instance: &InstanceId) -> Option<oneshot::Receiver<()>> {
        if self.stopping || !self.waiting.is_empty() {
            return None;
        }
        let slot = self.slots.get_mut(instance)?;
        if slot.again || !slot.inline.is_empty() || !slot.closings.is_empty() {
            return None;
        }
        let (wake, woken) = oneshot::channel();
        slot.lingering = Some(wake);
        Some(woken)
    }

    /// Gives messages back that the turn did not get to, and the closing if it was not dealt with.
    pub(super) fn put_back(
        &mut self,
        instance: &InstanceId,
        inline: Vec<Inline>,
        closing: Option<Closing>,
    ) {
        let Some(slot) = self.slots.get_mut(instance) else {
            return;
        };
        slot.waited = if inline.is_empty() {
            0
        } else {
            slot.waited + 1
        };
        for inline in inline.into_iter().rev() {
            slot.inline.push_front(inline);
        }
        if let Some(closing) = closing {
            slot.closings.push_front(closing);
        }
    }

    /// The end of a worker's turn. `yields`: let another instance have its turn if one waits.
    pub(super) fn end(
        &mut self,
        instance: &InstanceId,
        memory: Box<Memory>,
        rest: Rest,
        yields: bool,
    ) -> Verdict {
        let stopping = self.stopping;
        let crowded = yields && !self.waiting.is_empty();
        let Some(slot) = self.slots.get_mut(instance) else {
            self.running = self.running.saturating_sub(1);
            return Verdict::End {
                next: None,
                evicted: Vec::new(),
                turned_away: Vec::new(),
            };
        };
        let has_inline = !slot.inline.is_empty();
        let wants_more = match &rest {
            Rest::Again => true,
            // The end of a run that waits for a state to become readable would be tried without a pause.
            Rest::Parked(Parked::NewerSchema(_) | Parked::UnreadableState(_), _) => {
                slot.again || has_inline
            }
            Rest::Idle | Rest::Parked(..) => slot.again || has_inline || !slot.closings.is_empty(),
        };
        if wants_more && !stopping && !crowded {
            return Verdict::Continue(memory);
        }
        if let Rest::Parked(reason, mark) = rest {
            let mark = match mark {
                Mark::Seen(mark) => mark,
                Mark::Own => None,
            };
            slot.parked = Some((reason, mark));
        }
        if wants_more && !stopping {
            slot.queued = true;
            self.waiting.push_back(instance.clone());
        }
        let turned_away = match stopping {
            true => slot.inline.drain(..).collect(),
            false => Vec::new(),
        };
        let has_state = memory.cache.is_some();
        let may_go = !slot.queued && !has_state && slot.is_empty() && memory.holding.is_none();
        slot.memory = Some(memory);
        if may_go {
            self.slots.remove(instance);
        } else if has_state && !slot.queued {
            self.clock += 1;
            slot.idle_since = Some(self.clock);
            self.idle.insert(self.clock, instance.clone());
        }
        self.running = self.running.saturating_sub(1);
        Verdict::End {
            next: self.next_waiting(),
            evicted: self.evict(),
            turned_away,
        }
    }

    fn next_waiting(&mut self) -> Option<(InstanceId, Box<Memory>)> {
        if self.stopping {
            return None;
        }
        while let Some(instance) = self.waiting.pop_front() {
            let Some(slot) = self.slots.get_mut(&instance) else {
                continue;
            };
            slot.queued = false;
            if let Some(memory) = slot.memory.take() {
                self.running += 1;
                if let Some(place) = slot.idle_since.take() {
                    self.idle.remove(&place);
                }
                return Some((instance, memory));
            }
        }
        None
    }

    /// Takes the states of those that have been idle longest out of memory.
    fn evict(&mut self) -> Vec<(InstanceId, Cache)> {
        let mut evicted = Vec::new();
        while self.idle.len() > self.most_idle {
            let Some((_, instance)) = self.idle.pop_first() else {
                break;
            };
            let Some(slot) = self.slots.get_mut(&instance) else {
                continue;
            };
            slot.idle_since = None;
            let memory = slot.memory.as_mut();
            let holds = memory
                .as_ref()
                .is_some_and(|memory| memory.holding.is_some());
            let cache = memory.and_then(|memory| memory.cache.take());
            if slot.is_empty() && !slot.queued && !holds {
                self.slots.remove(&instance);
            }
            evicted.extend(cache.map(|cache| (instance, cache)));
        }
        evicted
    }

    /// Sets a timer for an instance. Whether there is none yet that fires as early.
    pub(super) fn set_timer(&mut self, instance: &InstanceId, at: Duration) -> bool {
        let Some(slot) = self.slots.get_mut(instance) else {
            return false;
        };
        if slot.timer.is_some_and(|earlier| earlier <= at) {
            return false;
        }
        slot.timer = Some(at);
        true
    }

    /// A timer fired. Whether it is the one that counts.
    pub(super) fn timer_fired(&mut self, instance: &InstanceId, at: Duration) -> bool {
        self.slots.get_mut(instance).is_some_and(|slot| {
            let counts = slot.timer == Some(at);
            if counts {
                slot.timer = None;
            }
            counts
        })
    }

    /// Whether there is no room for more work.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= self.most_running
    }

    /// A worker ended without giving the memory back. The instance begins anew.
    pub(super) fn recover(&mut self, instance: &InstanceId) {
        self.running = self.running.saturating_sub(1);
        if let Some(slot) = self.slots.get_mut(instance) {
            slot.memory = Some(Box::default());
        }
    }

    /// Begins no more work. Returns the messages that wait in memory, and the states.
    pub(super) fn stop(&mut self) -> (Vec<Inline>, Vec<(InstanceId, Cache)>) {
        self.stopping = true;
        self.waiting.clear();
        let mut inline = Vec::new();
        let mut states = Vec::new();
        // In an order of its own: what follows is the same however the table is laid out.
        let mut slots: Vec<_> = self.slots.iter_mut().collect();
        slots.sort_by_key(|(instance, _)| *instance);
        for (instance, slot) in slots {
            inline.extend(slot.inline.drain(..));
            let cache = slot.memory.as_mut().and_then(|memory| memory.cache.take());
            states.extend(cache.map(|cache| (instance.clone(), cache)));
        }
        (inline, states)
    }

    /// The instances that cannot be worked on, and why.
    pub(super) fn parked(&self) -> Vec<(InstanceId, Parked)> {
        let parked = self.slots.iter();
        let mut parked: Vec<_> = parked
            .filter_map(|(instance, slot)| Some((instance.clone(), slot.parked.clone()?.0)))
            .collect();
        parked.sort_by(|(one, _), (other, _)| one.cmp(other));
        parked
    }

    /// Nothing is parked any more, because why it was is of the past. Returns what was.
    pub(super) fn unpark(&mut self) -> Vec<InstanceId> {
        let mut unparked = Vec::new();
        for (instance, slot) in &mut self.slots {
            slot.mark = None;
            if slot.parked.take().is_some() {
                unparked.push(instance.clone());
            }
        }
        // In an order of its own, however the table is laid out.
        unparked.sort();
        unparked
    }

    /// The instance's lock is not held by this process any more.
    pub(super) fn forget_lock(&mut self, instance: &InstanceId, token: CommitStamp) {
        let memory = self
            .slots
            .get_mut(instance)
            .and_then(|slot| slot.memory.as_mut());
        if let Some(memory) = memory
            && memory.holding == Some(token)
        {
            memory.holding = None;
        }
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            memory: Some(Box::default()),
            queued: false,
            again: false,
            mark: None,
            looked: None,
            lingering: None,
            inline: VecDeque::new(),
            waited: 0,
            closings: VecDeque::new(),
            parked: None,
            timer: None,
            idle_since: None,
        }
    }
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.inline.is_empty()
            && self.closings.is_empty()
            && self.parked.is_none()
            && self.timer.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::Message;
    use std::sync::Arc;

    fn closing(number: u8) -> Closing {
        Closing {
            token: CommitStamp::from_bytes([number; CommitStamp::LEN]),
            message: Arc::new(Message {
                name: "work".into(),
                payload: Bytes::new(),
                call: None,
                query: false,
                sender: None,
                sent_ms: 0,
                trace: None,
                failed: None,
                deadline_ms: None,
                idempotency_key: None,
            }),
            stamp: None,
            attempt: 1,
            result: Ok(Bytes::new()),
        }
    }

    /// A turn of an instance that leaves its state in memory. What goes for it.
    fn works(slots: &mut Slots, id: &str) -> Vec<String> {
        let instance = InstanceId::new("kind", id).unwrap();
        let mut memory = slots.look(&instance, &Look::Now, Visible::Now).unwrap();
        slots.begin(&instance, 1);
        memory.cache = Some(Cache {
            version: crate::durable::state::StateVersion {
                stamp: CommitStamp::from_bytes([1; CommitStamp::LEN]),
                schema: 1,
            },
            leaves: Arc::default(),
            ignored: crate::codec::Ignored::none(),
            state: None,
            activation: None,
        });
        match slots.end(&instance, memory, Rest::Idle, false) {
            Verdict::End { evicted, .. } => evicted
                .into_iter()
                .map(|(instance, _)| instance.id().to_owned())
                .collect(),
            Verdict::Continue(_) => panic!("there is nothing to go on with"),
        }
    }

    #[test]
    fn those_that_have_been_idle_longest_leave_the_memory_first() {
        let mut slots = Slots::new(8, 3);
        for id in ["a", "b", "c"] {
            assert!(works(&mut slots, id).is_empty(), "there is room for {id}");
        }
        // Those that came first have worked again since.
        assert!(works(&mut slots, "a").is_empty());
        assert!(works(&mut slots, "b").is_empty());
        assert_eq!(works(&mut slots, "d"), ["c"]);
        assert_eq!(works(&mut slots, "e"), ["a"]);
        // One that is evicted and comes back is the newest.
        assert_eq!(works(&mut slots, "a"), ["b"]);
        assert_eq!(works(&mut slots, "f"), ["d"]);
    }

    #[test]
    fn the_end_of_a_run_that_no_state_takes_up_waits_for_the_timer() {
        let instance = InstanceId::new("kind", "id").unwrap();
        let mut slots = Slots::new(1, 1);
        let memory = slots.close(&instance, closing(1)).expect("it is free");
        let first = slots.begin(&instance, 1).closing;
        slots.put_back(&instance, Vec::new(), first);
        let reason = Parked::NewerSchema(7);
        let rest = Rest::Parked(reason, Mark::Own);
        let verdict = slots.end(&instance, memory, rest, false);
        assert!(matches!(verdict, Verdict::End { .. }), "{verdict:?}");
        let woken = slots.look(&instance, &Look::Now, Visible::Now);
        assert!(woken.is_some());
        assert!(slots.begin(&instance, 1).closing.is_some());
    }

    #[test]
    fn the_end_of_one_run_does_not_take_the_place_of_another() {
        let instance = InstanceId::new("kind", "id").unwrap();
        let mut slots = Slots::new(1, 1);
        let memory = slots.close(&instance, closing(1)).expect("it is free");
        assert!(slots.close(&instance, closing(2)).is_none());
        let first = slots.begin(&instance, 1).closing.unwrap();
        assert_eq!(first.token, closing(1).token);
        // The turn was about something else.
        slots.put_back(&instance, Vec::new(), Some(first));
        assert_eq!(
            slots.begin(&instance, 1).closing.unwrap().token,
            closing(1).token
        );
        let verdict = slots.end(&instance, memory, Rest::Idle, false);
        assert!(matches!(verdict, Verdict::Continue(_)), "another waits");
        assert_eq!(
            slots.begin(&instance, 1).closing.unwrap().token,
            closing(2).token
        );
    }
}

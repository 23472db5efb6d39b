//! A server that does whatever the tests need, and a probe that sees from outside what it did.

use abide::InstanceId;
use abide::server::{
    Activation, Context, Deactivation, DeadLetterNotice, Failure, Flow, Handle, Later, LockContext,
    Locked, Message, Outcome, Protocol, Query, ReadContext, Routes, Server,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) struct Acting;

impl Protocol for Acting {
    const KIND: &'static str = "actor";
}

macro_rules! messages {
    ($($name:ident { $($field:ident: $type:ty),* } -> $reply:ty;)*) => {
        $(
            #[derive(Debug, Clone, Serialize, Deserialize)]
            pub(crate) struct $name {
                $(pub(crate) $field: $type),*
            }

            impl Message<Acting> for $name {
                const NAME: &'static str = stringify!($name);
                type Reply = $reply;
            }
        )*
    };
}

messages! {
    // Adds, and replies the sum.
    Add { n: u64 } -> u64;
    // Adds here and sends the same to another instance.
    AddBoth { n: u64, other: String } -> u64;
    // Appends a line, and replies how many there are.
    Append { text: String } -> u64;
    // The lines; a query.
    Lines {} -> Vec<String>;
    // The sum; a query.
    Sum {} -> u64;
    // Replies that many bytes.
    Blob { len: usize, byte: u8 } -> ByteBuf;
    // Keeps bytes in the state.
    Keep { data: ByteBuf } -> u64;
    // What is kept; a query.
    Kept {} -> ByteBuf;
    // Changes everything and comes to grief in the first `times` attempts; then appends the text.
    Trouble { how: How, times: u32, text: String } -> u64;
    // Changes everything and refuses.
    Refuse { why: String } -> u64;
    // Takes its time.
    Sleep { ms: u64 } -> u64;
    // Appends `name` begun, runs under the lock, appends `name` done.
    Work { name: String, how: Labour } -> u64;
    // Is answered by the next `Answer`.
    Ask {} -> String;
    Answer { text: String } -> u64;
    // Adds one, with an effect that notes the label and the sum it sees.
    Note { label: String, then: Then } -> u64;
    // A name that no server routes.
    Foreign {} -> u64;
}

/// In which way a handler comes to grief.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum How {
    Fail,
    Panic,
    Slow { ms: u64 },
    Recurse,
    Abort,
}

/// What a run under the lock does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Labour {
    /// Takes so long.
    Take {
        ms: u64,
    },
    /// Waits for the probe's gate in the first attempt, and does nothing in later ones.
    Gate,
    /// Fails that often.
    Fail {
        times: u32,
    },
    Refuse,
    Panic,
}

/// What else a message with an effect does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Then {
    Reply,
    Halt,
    Stop,
    FailFirst {
        times: u32,
    },
    /// Also has an effect when the lock is closed.
    Lock,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Desk {
    sum: u64,
    lines: Vec<String>,
    kept: ByteBuf,
    asked: Vec<Later<String>>,
}

/// What happened in one node, seen from outside.
#[derive(Debug)]
pub(crate) struct Probe {
    notes: Mutex<Vec<String>>,
    /// How many runs may still pass the gate.
    open_for: AtomicUsize,
}

impl Probe {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            notes: Mutex::default(),
            open_for: AtomicUsize::new(0),
        })
    }

    pub(crate) fn note(&self, what: impl Into<String>) {
        self.notes.lock().unwrap().push(what.into());
    }

    /// Lets that many runs end that wait at the gate.
    pub(crate) fn open_gate(&self, runs: usize) {
        self.open_for.fetch_add(runs, Ordering::SeqCst);
    }

    async fn pass_gate(&self) {
        let less = |open: usize| open.checked_sub(1);
        while self
            .open_for
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_err()
        {
            super::pause(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap().clone()
    }

    /// The notes that begin so, without their beginning.
    pub(crate) fn of(&self, beginning: &str) -> Vec<String> {
        let notes = self.notes();
        let notes = notes.iter().filter_map(|note| note.strip_prefix(beginning));
        notes.map(str::to_owned).collect()
    }
}

pub(crate) struct Actor {
    pub(crate) probe: Arc<Probe>,
}

impl Server for Actor {
    type Protocol = Acting;
    type State = Desk;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Desk, Failure> {
        Ok(Desk::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes
            .handle::<Add>()
            .handle::<AddBoth>()
            .handle::<Append>()
            .query::<Lines>()
            .query::<Sum>()
            .handle::<Blob>()
            .handle::<Keep>()
            .query::<Kept>()
            .handle::<Trouble>()
            .handle::<Refuse>()
            .handle::<Sleep>()
            .locked::<Work>()
            .handle::<Ask>()
            .handle::<Answer>()
            .locked::<Note>()
    }

    fn activated(&self, instance: &InstanceId, _state: &Desk, cause: Activation) {
        self.probe
            .note(format!("activated {} {cause:?}", instance.id()));
    }

    fn deactivated(&self, instance: &InstanceId, _state: &Desk, cause: Deactivation) {
        self.probe
            .note(format!("deactivated {} {cause:?}", instance.id()));
    }

    fn dead_letter(&self, notice: &DeadLetterNotice) {
        self.probe.note(format!(
            "dead {} {} {}",
            notice.instance.id(),
            notice.attempts,
            notice.error
        ));
    }
}

type Handled<T> = Result<Outcome<T>, Failure>;

impl Handle<Add> for Actor {
    fn handle(&self, desk: &mut Desk, add: Add, _cx: &mut Context<'_, Self>) -> Handled<u64> {
        desk.sum += add.n;
        Ok(Outcome::Reply(desk.sum))
    }
}

impl Handle<AddBoth> for Actor {
    fn handle(&self, desk: &mut Desk, add: AddBoth, cx: &mut Context<'_, Self>) -> Handled<u64> {
        desk.sum += add.n;
        cx.cast::<Acting>(add.other, Add { n: add.n })?;
        Ok(Outcome::Reply(desk.sum))
    }
}

impl Handle<Append> for Actor {
    fn handle(&self, desk: &mut Desk, line: Append, _cx: &mut Context<'_, Self>) -> Handled<u64> {
        desk.lines.push(line.text);
        Ok(Outcome::Reply(desk.lines.len() as u64))
    }
}

impl Query<Lines> for Actor {
    fn query(
        &self,
        desk: &Desk,
        _message: Lines,
        _cx: &ReadContext<'_>,
    ) -> Result<Vec<String>, Failure> {
        Ok(desk.lines.clone())
    }
}

impl Query<Sum> for Actor {
    fn query(&self, desk: &Desk, _message: Sum, _cx: &ReadContext<'_>) -> Result<u64, Failure> {
        Ok(desk.sum)
    }
}

impl Handle<Blob> for Actor {
    fn handle(&self, _: &mut Desk, blob: Blob, _cx: &mut Context<'_, Self>) -> Handled<ByteBuf> {
        Ok(Outcome::Reply(ByteBuf::from(vec![blob.byte; blob.len])))
    }
}

impl Handle<Keep> for Actor {
    fn handle(&self, desk: &mut Desk, keep: Keep, _cx: &mut Context<'_, Self>) -> Handled<u64> {
        desk.kept = keep.data;
        Ok(Outcome::Reply(desk.kept.len() as u64))
    }
}

impl Query<Kept> for Actor {
    fn query(&self, desk: &Desk, _: Kept, _cx: &ReadContext<'_>) -> Result<ByteBuf, Failure> {
        Ok(desk.kept.clone())
    }
}

impl Handle<Trouble> for Actor {
    fn handle(
        &self,
        desk: &mut Desk,
        trouble: Trouble,
        cx: &mut Context<'_, Self>,
    ) -> Handled<u64> {
        self.probe
            .note(format!("tried {} {}", trouble.text, cx.attempt()));
        if cx.attempt() <= trouble.times {
            desk.sum += 1_000_000;
            desk.lines.push("never to be seen".to_owned());
            cx.cast::<Acting>("bystander", Add { n: 1_000_000 })?;
            let probe = Arc::clone(&self.probe);
            cx.after_commit(move |_| probe.note("effect of a failure"));
            match trouble.how {
                How::Fail => return Err(Failure::fail(format!("failed: {}", trouble.text))),
                How::Panic => panic!("panicked: {}", trouble.text),
                How::Slow { ms } => std::thread::sleep(Duration::from_millis(ms)),
                How::Recurse => desk.sum += without_end(1),
                How::Abort => std::process::abort(),
            }
            return Ok(Outcome::Reply(0));
        }
        desk.lines.push(trouble.text);
        Ok(Outcome::Reply(desk.lines.len() as u64))
    }
}

/// Ends the process: the stack does not grow for ever.
fn without_end(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 64]);
    if here[0] == u64::MAX {
        return 0;
    }
    without_end(here[1] + 1) + std::hint::black_box(here[2])
}

impl Handle<Refuse> for Actor {
    fn handle(&self, desk: &mut Desk, refuse: Refuse, cx: &mut Context<'_, Self>) -> Handled<u64> {
        desk.sum += 1_000_000;
        desk.lines.push("never to be seen".to_owned());
        let probe = Arc::clone(&self.probe);
        cx.after_commit(move |_| probe.note("effect of a failure"));
        Err(Failure::reject(refuse.why))
    }
}

impl Handle<Sleep> for Actor {
    fn handle(&self, desk: &mut Desk, sleep: Sleep, _cx: &mut Context<'_, Self>) -> Handled<u64> {
        std::thread::sleep(Duration::from_millis(sleep.ms));
        Ok(Outcome::Reply(desk.sum))
    }
}

impl Handle<Work> for Actor {
    fn handle(&self, desk: &mut Desk, work: Work, _cx: &mut Context<'_, Self>) -> Handled<u64> {
        desk.lines.push(format!("{} begun", work.name));
        Ok(Outcome::Lock)
    }
}

impl Locked<Work> for Actor {
    type Output = u32;

    async fn run(&self, state: Desk, work: Work, cx: LockContext) -> Result<u32, Failure> {
        self.probe
            .note(format!("ran {} {}", work.name, cx.attempt()));
        assert!(
            state.lines.contains(&format!("{} begun", work.name)),
            "what the handler changed is committed before the run"
        );
        match work.how {
            Labour::Take { ms } => super::pause(Duration::from_millis(ms)).await,
            Labour::Gate if cx.attempt() == 1 => {
                self.probe.pass_gate().await;
            }
            Labour::Fail { times } if cx.attempt() <= times => {
                return Err(Failure::fail(format!("failed: {}", work.name)));
            }
            Labour::Refuse => return Err(Failure::reject(format!("refused: {}", work.name))),
            Labour::Panic => panic!("panicked: {}", work.name),
            Labour::Gate | Labour::Fail { .. } => {}
        }
        Ok(cx.attempt())
    }

    fn close(
        &self,
        desk: &mut Desk,
        work: Work,
        attempt: u32,
        _cx: &mut Context<'_, Self>,
    ) -> Handled<u64> {
        desk.lines.push(format!("{} done {attempt}", work.name));
        Ok(Outcome::Reply(desk.sum))
    }
}

impl Handle<Ask> for Actor {
    fn handle(&self, desk: &mut Desk, _ask: Ask, cx: &mut Context<'_, Self>) -> Handled<String> {
        let (token, outcome) = cx.later();
        desk.asked.push(token);
        Ok(outcome)
    }
}

impl Handle<Answer> for Actor {
    fn handle(&self, desk: &mut Desk, answer: Answer, cx: &mut Context<'_, Self>) -> Handled<u64> {
        let answered = desk.asked.len() as u64;
        for token in desk.asked.drain(..) {
            cx.answer(token, answer.text.clone())?;
        }
        Ok(Outcome::Reply(answered))
    }
}

impl Actor {
    /// An effect that notes what it sees, and flows on or halts.
    fn noting(&self, label: String, flow: Flow, cx: &mut Context<'_, Self>) {
        let probe = Arc::clone(&self.probe);
        cx.after_commit(move |after| {
            probe.note(format!("effect {label} {}", after.state().sum));
            flow
        });
    }
}

impl Handle<Note> for Actor {
    fn handle(&self, desk: &mut Desk, note: Note, cx: &mut Context<'_, Self>) -> Handled<u64> {
        desk.sum += 1;
        let flow = if note.then == Then::Halt {
            Flow::Halt
        } else {
            Flow::Continue
        };
        self.noting(note.label, flow, cx);
        match note.then {
            Then::Reply | Then::Halt => Ok(Outcome::Reply(desk.sum)),
            Then::Stop => Ok(Outcome::Stop(desk.sum)),
            Then::Lock => Ok(Outcome::Lock),
            Then::FailFirst { times } if cx.attempt() <= times => Err(Failure::fail("not yet")),
            Then::FailFirst { .. } => Ok(Outcome::Reply(desk.sum)),
        }
    }
}

impl Locked<Note> for Actor {
    type Output = ();

    async fn run(&self, _state: Desk, _note: Note, _cx: LockContext) -> Result<(), Failure> {
        Ok(())
    }

    fn close(
        &self,
        desk: &mut Desk,
        note: Note,
        (): (),
        cx: &mut Context<'_, Self>,
    ) -> Handled<u64> {
        desk.sum += 1;
        self.noting(format!("{} closed", note.label), Flow::Continue, cx);
        Ok(Outcome::Reply(desk.sum))
    }
}

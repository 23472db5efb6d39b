use super::*;
use crate::durable::keys::{Lane, SessionId};
use crate::durable::message::CallId;
use crate::server::{
    CallError, CallErrorKind, FailureKind, Flow, Handle, Later, LockContext, Locked,
    MAX_FAILURE_BYTES, Message, Outcome, Outgoing, Query,
};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

struct Desk;

impl Protocol for Desk {
    const KIND: &'static str = "desk";
}

/// One message that does whatever a test asks for.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
enum Do {
    Add(u32),
    Reject,
    Fail(String),
    Panic,
    Lock,
    Stop,
    Wait,
    Answer,
    Send(String),
    Effects,
}

macro_rules! message {
    ($type:ty, $name:literal, $reply:ty) => {
        impl Message<Desk> for $type {
            const NAME: &'static str = $name;
            type Reply = $reply;
        }
    };
}

#[derive(Serialize, Deserialize)]
struct Read;

#[derive(Serialize, Deserialize)]
struct Work(Do);

message!(Do, "do", u32);
message!(Read, "read", u32);
message!(Work, "work", u32);

#[derive(Serialize, Deserialize, Default)]
struct State {
    sum: u32,
    waiting: Vec<Later<u32>>,
    last: Option<Later<u32>>,
}

#[derive(Default, Clone)]
struct Clerk {
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server for Clerk {
    type Protocol = Desk;
    type State = State;
    const SCHEMA: u32 = 3;

    fn init(&self, cx: &ReadContext<'_>) -> Result<State, Failure> {
        match cx.instance().id() {
            "refused" => Err(Failure::reject("no such desk")),
            "broken" => panic!("no desk at all"),
            _ => Ok(State::default()),
        }
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Do>().query::<Read>().locked::<Work>()
    }

    fn dead_letter(&self, _notice: &DeadLetterNotice) {
        panic!("nobody may notice");
    }
}

impl Handle<Do> for Clerk {
    fn handle(
        &self,
        state: &mut State,
        message: Do,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u32>, Failure> {
        state.sum += 1;
        cx.cast::<Desk>("log", Read)?;
        match message {
            Do::Add(more) => state.sum += more - 1,
            Do::Reject => return Err(Failure::reject("not today")),
            Do::Fail(text) => {
                text.parse::<u32>()?;
            }
            Do::Panic => panic!("lost the {}", "stamp"),
            Do::Lock => return Ok(Outcome::Lock),
            Do::Stop => return Ok(Outcome::Stop(state.sum)),
            Do::Wait => {
                let (token, outcome) = cx.later();
                state.last = Some(token.clone());
                state.waiting.push(token);
                return Ok(outcome);
            }
            Do::Answer => {
                for token in state.waiting.drain(..) {
                    cx.answer(token, state.sum)?;
                }
            }
            Do::Send(id) => cx.cast_priority::<Desk>(id, Do::Add(7))?,
            Do::Effects => {
                let seen = Arc::clone(&self.seen);
                cx.after_commit(move |after| {
                    let text = format!("{} {}", after.instance(), after.state().sum);
                    seen.lock().unwrap().push(text);
                });
                cx.after_commit(|_| Flow::Halt);
                cx.after_commit(|_| -> Flow { panic!("an effect") });
            }
        }
        Ok(state.sum.into())
    }
}

impl Query<Read> for Clerk {
    fn query(&self, state: &State, _: Read, _: &ReadContext<'_>) -> Result<u32, Failure> {
        Ok(state.sum)
    }
}

impl Handle<Work> for Clerk {
    fn handle(
        &self,
        _: &mut State,
        _: Work,
        _: &mut Context<'_, Self>,
    ) -> Result<Outcome<u32>, Failure> {
        Ok(Outcome::Lock)
    }
}

impl Locked<Work> for Clerk {
    type Output = u32;

    async fn run(&self, state: State, Work(what): Work, cx: LockContext) -> Result<u32, Failure> {
        match what {
            Do::Panic => panic!("at work"),
            Do::Reject => Err(Failure::reject("no work")),
            Do::Send(id) => {
                cx.server::<Desk>(id).cast(Do::Stop).await?;
                Ok(0)
            }
            _ => Ok(state.sum * 10),
        }
    }

    fn close(
        &self,
        state: &mut State,
        Work(what): Work,
        output: u32,
        _: &mut Context<'_, Self>,
    ) -> Result<Outcome<u32>, Failure> {
        state.sum += output;
        match what {
            Do::Lock => Ok(Outcome::Lock),
            _ => Ok(Outcome::Reply(state.sum)),
        }
    }
}

#[derive(Debug, Default)]
struct Nowhere(Mutex<Vec<Outgoing>>);

impl Courier for Nowhere {
    fn cast(&self, batch: Vec<Outgoing>) -> BoxFuture<'static, Result<(), CallError>> {
        self.0.lock().unwrap().extend(batch);
        Box::pin(async { Err(CallErrorKind::Unavailable.into()) })
    }
    fn call(&self, message: Outgoing, _: Duration) -> BoxFuture<'static, Result<Bytes, CallError>> {
        self.0.lock().unwrap().push(message);
        Box::pin(async { Ok(Bytes::from_static(b"\x07")) })
    }
    fn kill(&self, _: InstanceId) -> BoxFuture<'static, Result<(), CallError>> {
        Box::pin(async { Ok(()) })
    }
    fn reset(&self, _: InstanceId) -> BoxFuture<'static, Result<(), CallError>> {
        Box::pin(async { Ok(()) })
    }
}

fn facts(id: &str, call: Option<u64>) -> Facts {
    let session = SessionId::from_bytes([1; SessionId::LEN]);
    Facts {
        instance: InstanceId::new("desk", id).unwrap(),
        stamp: None,
        now: SystemTime::UNIX_EPOCH,
        attempt: 1,
        call: call.map(|call| CallId { session, call }),
        trace: None,
        here: None,
        fence: 0,
    }
}

fn desk() -> (Arc<dyn Behaviour>, Held) {
    let behaviour = erase(Clerk::default()).unwrap();
    let held = behaviour.init(&facts("one", None)).unwrap();
    (behaviour, held)
}

fn payload(message: &impl Serialize) -> Bytes {
    codec::to_payload(message).unwrap()
}

fn apply(what: &Do) -> Applied {
    let (behaviour, mut held) = desk();
    behaviour.handle(&mut held, "do", &payload(what), &facts("one", Some(1)))
}

fn run(what: &Do, courier: Arc<dyn Courier>) -> Result<Bytes, Failure> {
    let (behaviour, mut held) = desk();
    held.downcast_mut::<State>().unwrap().sum = 4;
    let message = payload(&Work(what.clone()));
    let work = behaviour.run(held, "work".into(), message, facts("one", None), courier);
    work.now_or_never().unwrap()
}

#[test]
fn rejections_failures_and_panics_are_told_apart_and_leave_nothing_behind() {
    for (what, kind, text) in [
        (Do::Reject, FailureKind::Reject, "not today"),
        (Do::Fail("x".into()), FailureKind::Fail, "invalid digit"),
        (Do::Panic, FailureKind::Fail, "panicked: lost the stamp"),
    ] {
        let applied = apply(&what);
        let failure = applied.outcome.unwrap_err();
        assert_eq!(failure.kind(), kind);
        assert!(failure.message().contains(text), "{failure}");
        assert!(applied.sends.is_empty());
    }
}

#[test]
fn a_failure_keeps_a_bounded_text_with_the_errors_sources() {
    let long = Failure::fail("é".repeat(MAX_FAILURE_BYTES) + "x");
    assert_eq!(long.message().len(), MAX_FAILURE_BYTES);
    let odd = Failure::fail(String::from("x") + &"é".repeat(MAX_FAILURE_BYTES));
    assert_eq!(odd.message().len(), MAX_FAILURE_BYTES - 1);
    let source = std::io::Error::other("the disk is full");
    let error = CallError::new(CallErrorKind::Failed).with_source(source);
    assert_eq!(
        Failure::from(error).message(),
        "the store failed: the disk is full"
    );
}

#[test]
fn a_first_state_can_be_refused_and_its_panic_is_a_failure() {
    let (behaviour, _) = desk();
    let refused = behaviour.init(&facts("refused", None)).unwrap_err();
    assert_eq!(refused, Failure::reject("no such desk"));
    let broken = behaviour.init(&facts("broken", None)).unwrap_err();
    assert_eq!(broken, Failure::fail("panicked: no desk at all"));
}

#[test]
fn a_payload_that_does_not_decode_is_rejected_for_a_caller_and_a_failed_cast() {
    let (behaviour, mut held) = desk();
    for (call, kind) in [(Some(1), FailureKind::Reject), (None, FailureKind::Fail)] {
        for bad in [&b"\xc1"[..], b"", b"\xa5never"] {
            let facts = facts("one", call);
            let applied = behaviour.handle(&mut held, "do", bad, &facts);
            let failure = applied.outcome.unwrap_err();
            assert_eq!(failure.kind(), kind);
            assert!(failure.message().contains("`do`"), "{failure}");
        }
    }
    let bad = behaviour.query(&held, "read", b"\xc1", &facts("one", None));
    assert_eq!(bad.unwrap_err().kind(), FailureKind::Reject);
}

#[test]
fn an_unknown_message_has_no_route() {
    let (behaviour, mut held) = desk();
    assert_eq!(behaviour.route("do"), Some(Route::Handle));
    assert_eq!(behaviour.route("read"), Some(Route::Query));
    assert_eq!(behaviour.route("work"), Some(Route::Locked));
    assert_eq!(behaviour.route("undo"), None);
    let applied = behaviour.handle(&mut held, "undo", b"\xc0", &facts("one", Some(1)));
    assert_eq!(applied.outcome.unwrap_err().kind(), FailureKind::Fail);
}

#[test]
fn casts_carry_their_receiver_and_lane() {
    let applied = apply(&Do::Send("two".into()));
    let to = |id, lane, message: &Do| {
        Outgoing::new::<Desk, Do>(InstanceId::new("desk", id).unwrap(), lane, message).unwrap()
    };
    let log = InstanceId::new("desk", "log").unwrap();
    let log = Outgoing::new::<Desk, Read>(log, Lane::Ordinary, &Read).unwrap();
    assert_eq!(applied.sends, [log, to("two", Lane::Priority, &Do::Add(7))]);
    let invalid = apply(&Do::Send(String::new()));
    assert_eq!(invalid.outcome.unwrap_err().kind(), FailureKind::Fail);
}

#[test]
fn a_token_survives_in_the_state_and_answers_its_call_only() {
    let (behaviour, mut held) = desk();
    for call in [Some(5), None, Some(6)] {
        let waited = behaviour.handle(&mut held, "do", &payload(&Do::Wait), &facts("one", call));
        assert_eq!(waited.outcome, Ok(Decided::Later));
    }
    let stored = behaviour
        .encode(&held, &Leaves::new(), &Ignored::none())
        .unwrap();
    let mut leaves = Leaves::new();
    stored.land(&mut leaves);
    let (mut held, ignored) = behaviour.decode(&mut leaves).unwrap();
    assert!(ignored.is_empty());
    let answered = behaviour.handle(&mut held, "do", &payload(&Do::Answer), &facts("one", None));
    let calls: Vec<u64> = answered.answers.iter().map(|(call, _)| call.call).collect();
    assert_eq!(calls, [5, 6]);
    assert!(answered.answers.iter().all(|(_, reply)| reply[..] == [4]));
}

#[test]
fn effects_see_the_committed_state_and_halt_the_rest() {
    let clerk = Clerk::default();
    let behaviour = erase(clerk.clone()).unwrap();
    let facts = facts("one", None);
    let mut held = behaviour.init(&facts).unwrap();
    let applied = behaviour.handle(&mut held, "do", &payload(&Do::Effects), &facts);
    behaviour.handle(&mut held, "do", &payload(&Do::Add(4)), &facts);
    let courier: Arc<dyn Courier> = Arc::new(Nowhere::default());
    let flows: Vec<Flow> = applied
        .effects
        .into_iter()
        .map(|effect| effect(&held, &courier))
        .collect();
    assert_eq!(flows, [Flow::Continue, Flow::Halt, Flow::Halt]);
    assert_eq!(*clerk.seen.lock().unwrap(), ["desk/one 5"]);
}

#[test]
fn only_messages_routed_as_locked_may_lock_and_closing_may_not() {
    let (behaviour, mut held) = desk();
    let facts = facts("one", Some(1));
    assert_eq!(
        apply(&Do::Lock).outcome.unwrap_err().kind(),
        FailureKind::Fail
    );
    let work = |what| payload(&Work(what));
    let taken = behaviour.handle(&mut held, "work", &work(Do::Stop), &facts);
    assert_eq!(taken.outcome, Ok(Decided::Lock));
    let again = behaviour.close(&mut held, "work", &work(Do::Lock), &[1], &facts);
    assert_eq!(again.outcome.unwrap_err().kind(), FailureKind::Fail);
    let closed = behaviour.close(&mut held, "work", &work(Do::Stop), &[2], &facts);
    assert!(matches!(closed.outcome, Ok(Decided::Reply(_))));
    let other = behaviour.close(&mut held, "do", &payload(&Do::Stop), &[2], &facts);
    assert_eq!(other.outcome.unwrap_err().kind(), FailureKind::Fail);
}

#[test]
fn work_under_a_lock_gives_its_output_or_its_failure() {
    let nowhere = Arc::new(Nowhere::default());
    let run = |what: Do| run(&what, Arc::clone(&nowhere) as Arc<dyn Courier>);
    assert_eq!(run(Do::Stop), Ok(Bytes::from_static(&[40])));
    assert_eq!(run(Do::Reject), Err(Failure::reject("no work")));
    assert_eq!(run(Do::Panic), Err(Failure::fail("panicked: at work")));
    let unsent = run(Do::Send("two".into())).unwrap_err();
    assert_eq!(unsent.message(), "the server cannot be reached now");
    assert_eq!(nowhere.0.lock().unwrap().len(), 1);
}

#[test]
fn a_query_changes_nothing_in_whichever_way_it_comes() {
    let (behaviour, mut held) = desk();
    let facts = facts("one", Some(1));
    let read = payload(&Read);
    let answer = behaviour.query(&held, "read", &read, &facts);
    assert_eq!(answer, Ok(Bytes::from_static(&[0])));
    let called = behaviour.handle(&mut held, "read", &read, &facts);
    assert_eq!(called.outcome, Ok(Decided::Reply(Bytes::from_static(&[0]))));
    let other = behaviour.query(&held, "do", &payload(&Do::Stop), &facts);
    assert_eq!(other.unwrap_err().kind(), FailureKind::Reject);
}

#[test]
fn a_hook_that_panics_is_nobodys_failure() {
    let (behaviour, held) = desk();
    let instance = InstanceId::new("desk", "one").unwrap();
    behaviour.activated(&instance, &held, Activation::Loaded);
    behaviour.deactivated(&instance, &held, Deactivation::Evicted);
    behaviour.dead_letter(&DeadLetterNotice {
        instance,
        name: "do".into(),
        payload: Bytes::new(),
        stamp: None,
        error: "failed".into(),
        attempts: 5,
        trace: None,
    });
}

struct Twice;

impl Server for Twice {
    type Protocol = Desk;
    type State = u32;
    fn init(&self, _: &ReadContext<'_>) -> Result<u32, Failure> {
        Ok(0)
    }
    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.query::<Read>().query::<Read>()
    }
}

impl Query<Read> for Twice {
    fn query(&self, state: &u32, _: Read, _: &ReadContext<'_>) -> Result<u32, Failure> {
        Ok(*state)
    }
}

#[test]
fn a_message_that_is_routed_twice_is_refused() {
    let error = erase(Twice).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the message `read` of kind `desk` is routed twice"
    );
}

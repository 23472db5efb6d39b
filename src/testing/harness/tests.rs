use super::*;
use crate::durable::keys::Lane;
use crate::server::{Context, Handle, Later, LockContext, ReadContext, Routes};
use futures_util::FutureExt;
use serde::Deserialize;
use std::collections::BTreeMap;

struct Ticketing;

impl Protocol for Ticketing {
    const KIND: &'static str = "tickets";
}

#[derive(Serialize, Deserialize)]
struct Queue(String);

#[derive(Serialize, Deserialize)]
struct Serve;

#[derive(Serialize, Deserialize)]
struct Waiting;

#[derive(Serialize, Deserialize)]
struct Charge(u32);

impl Message<Ticketing> for Queue {
    const NAME: &'static str = "queue";
    type Reply = u32;
}

impl Message<Ticketing> for Serve {
    const NAME: &'static str = "serve";
    type Reply = ();
}

impl Message<Ticketing> for Waiting {
    const NAME: &'static str = "waiting";
    type Reply = usize;
}

impl Message<Ticketing> for Charge {
    const NAME: &'static str = "charge";
    type Reply = u32;
}

#[derive(Serialize, Deserialize, Default)]
struct State {
    paid: u32,
    waiting: BTreeMap<String, Later<u32>>,
}

struct Tickets;

impl Server for Tickets {
    type Protocol = Ticketing;
    type State = State;

    fn init(&self, _: &ReadContext<'_>) -> Result<State, Failure> {
        Ok(State::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        let routes = routes.handle::<Queue>().handle::<Serve>();
        routes.query::<Waiting>().locked::<Charge>()
    }
}

impl Handle<Queue> for Tickets {
    fn handle(
        &self,
        state: &mut State,
        Queue(name): Queue,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u32>, Failure> {
        let (token, outcome) = cx.later();
        if state.waiting.insert(name, token).is_some() {
            return Err(Failure::reject("already waiting"));
        }
        Ok(outcome)
    }
}

impl Handle<Serve> for Tickets {
    fn handle(
        &self,
        state: &mut State,
        _: Serve,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<()>, Failure> {
        if let Some((name, token)) = state.waiting.pop_first() {
            cx.answer(token, 7)?;
            cx.cast::<Ticketing>(name, Charge(7))?;
            cx.after_commit(|after| {
                let cast = after.server::<Ticketing>("audit").cast(Charge(0));
                cast.now_or_never();
            });
        }
        Ok(Outcome::done())
    }
}

impl Query<Waiting> for Tickets {
    fn query(&self, state: &State, _: Waiting, _: &ReadContext<'_>) -> Result<usize, Failure> {
        Ok(state.waiting.len())
    }
}

impl Handle<Charge> for Tickets {
    fn handle(
        &self,
        _: &mut State,
        _: Charge,
        _: &mut Context<'_, Self>,
    ) -> Result<Outcome<u32>, Failure> {
        Ok(Outcome::Lock)
    }
}

impl Locked<Charge> for Tickets {
    type Output = u32;

    async fn run(
        &self,
        state: State,
        Charge(price): Charge,
        cx: LockContext,
    ) -> Result<u32, Failure> {
        if cx.fencing_token() > 1 && cx.stamp().is_none() {
            return Err(Failure::fail(
                "a message that stood in a mailbox has a stamp",
            ));
        }
        Ok(state.paid + price * u32::try_from(cx.fencing_token()).unwrap())
    }

    fn close(
        &self,
        state: &mut State,
        _: Charge,
        paid: u32,
        _: &mut Context<'_, Self>,
    ) -> Result<Outcome<u32>, Failure> {
        state.paid = paid;
        Ok(Outcome::Reply(paid))
    }
}

#[test]
fn a_message_shows_its_answers_sends_changes_and_effects() {
    let mut tickets = Harness::new(Tickets).unwrap();
    assert_eq!(
        tickets.call(Queue("ada".into())).outcome,
        Ok(Outcome::Later)
    );
    let second = tickets.call(Queue("bob".into()));
    assert_eq!(second.changes.len(), 1);
    assert_eq!(tickets.query(Waiting), Ok(2));

    let served = tickets.cast(Serve);
    assert_eq!(served.outcome, Ok(Outcome::done()));
    assert_eq!(served.answers.len(), 1);
    assert_eq!(served.answers[0].call, 1);
    assert_eq!(served.answers[0].reply::<u32>(), Ok(7));
    let ada = InstanceId::new("tickets", "ada").unwrap();
    let charge = Outgoing::new::<Ticketing, _>(ada, Lane::Ordinary, &Charge(7)).unwrap();
    assert_eq!(served.sends, [charge]);
    assert!(matches!(served.changes[..], [Change::Clear(_)]));

    assert_eq!(served.effects.len(), 1);
    assert_eq!(tickets.run_effects(served.effects), Ok(1));
    assert_eq!(tickets.carried()[0].instance.id(), "audit");
}

#[test]
fn a_test_says_what_stamp_and_fencing_token_a_run_has() {
    let mut tickets = Harness::new(Tickets).unwrap();
    tickets.set_fencing_token(3);
    let ran = tickets.run(Charge(5)).now_or_never().unwrap();
    assert!(ran.is_err(), "{ran:?}");
    tickets.set_stamp(Some(Stamp::from_bytes([1; Stamp::LEN])));
    assert_eq!(tickets.run(Charge(5)).now_or_never().unwrap(), Ok(15));
}

#[test]
fn a_failure_changes_nothing() {
    let mut tickets = Harness::new(Tickets).unwrap();
    let _ = tickets.call(Queue("ada".into()));
    let refused = tickets.call(Queue("ada".into()));
    assert_eq!(refused.outcome, Err(Failure::reject("already waiting")));
    assert!(refused.changes.is_empty() && refused.effects.is_empty());
    // The first call is still the one that is answered.
    assert_eq!(tickets.cast(Serve).answers[0].call, 1);
}

#[test]
fn a_locked_message_runs_and_closes() {
    let state = State {
        paid: 3,
        ..State::default()
    };
    let mut tickets = Harness::new(Tickets).unwrap().with_state(&state).unwrap();
    assert_eq!(tickets.call(Charge(4)).outcome, Ok(Outcome::Lock));
    let paid = tickets.run(Charge(4)).now_or_never().unwrap().unwrap();
    assert_eq!(
        tickets.close(Charge(4), paid).outcome,
        Ok(Outcome::Reply(7))
    );
    assert_eq!(tickets.state().unwrap().paid, 7);
}

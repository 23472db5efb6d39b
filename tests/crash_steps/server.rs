//! The server that the operations are about: a log of numbers, work under a lock, messages to others,
//! answers that come later.

use abide::env::Env;
use abide::server::{
    Context, Failure, Handle, Later, LockContext, Locked, Message, Outcome, Protocol, Query,
    ReadContext, Routes, Server,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Most of what happens here.
pub(crate) const ONE: &str = "one";

/// What handlers and batches send to.
pub(crate) const OTHER: &str = "other";

/// The number of a message that a handler sends: that of its cause, and this much more.
pub(crate) const SENT: u64 = 100;

#[derive(Debug)]
pub(crate) struct Tally;

impl Protocol for Tally {
    const KIND: &'static str = "tally";
}

/// What beside appending its number a message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    Plain,
    /// Fails wherever the server is [harsh](Tallies::is_harsh).
    Fail,
    /// Sends a message to the other instance.
    Forward,
    /// Is answered by a message that it sends to its own instance.
    Later,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Append {
    pub(crate) op: u64,
    pub(crate) act: Act,
}

/// Answers an earlier message.
#[derive(Debug, Serialize, Deserialize)]
struct Settle {
    op: u64,
}

/// Appends a number after some work under the lock.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) op: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Whole;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) log: Vec<u64>,
    /// What only operators change.
    pub(crate) note: u64,
    pub(crate) owed: usize,
}

impl Message<Tally> for Append {
    const NAME: &'static str = "append";
    type Reply = u64;
}

impl Message<Tally> for Settle {
    const NAME: &'static str = "settle";
    type Reply = ();
}

impl Message<Tally> for Work {
    const NAME: &'static str = "work";
    type Reply = u64;
}

impl Message<Tally> for Whole {
    const NAME: &'static str = "whole";
    type Reply = Contents;
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Book {
    log: Vec<u64>,
    note: u64,
    owed: Vec<(u64, u64, Later<u64>)>,
}

impl Book {
    fn append(&mut self, op: u64) -> u64 {
        self.log.push(op);
        self.log.len() as u64
    }
}

pub(crate) struct Tallies {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) is_harsh: bool,
}

impl Server for Tallies {
    type Protocol = Tally;
    type State = Book;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Book, Failure> {
        Ok(Book::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes
            .handle::<Append>()
            .handle::<Settle>()
            .locked::<Work>()
            .query::<Whole>()
    }
}

impl Handle<Append> for Tallies {
    fn handle(
        &self,
        book: &mut Book,
        Append { op, act }: Append,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        let place = book.append(op);
        match act {
            Act::Fail if self.is_harsh => return Err(Failure::fail("as planned")),
            Act::Plain | Act::Fail => {}
            Act::Forward => {
                let sent = Append {
                    op: op + SENT,
                    act: Act::Plain,
                };
                cx.cast::<Tally>(OTHER, sent)?;
            }
            Act::Later => {
                let (token, outcome) = cx.later();
                book.owed.push((op, place, token));
                let id = cx.instance().id().to_owned();
                cx.cast::<Tally>(id, Settle { op })?;
                return Ok(outcome);
            }
        }
        Ok(Outcome::Reply(place))
    }
}

impl Handle<Settle> for Tallies {
    fn handle(
        &self,
        book: &mut Book,
        Settle { op }: Settle,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<()>, Failure> {
        book.append(op + SENT);
        if let Some(owed) = book.owed.iter().position(|(owed, ..)| *owed == op) {
            let (_, place, token) = book.owed.remove(owed);
            cx.answer(token, place)?;
        }
        Ok(Outcome::done())
    }
}

impl Handle<Work> for Tallies {
    fn handle(
        &self,
        _book: &mut Book,
        _work: Work,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Lock)
    }
}

impl Locked<Work> for Tallies {
    type Output = ();

    /// Long enough for a renewal of the lock.
    async fn run(&self, _book: Book, _work: Work, _cx: LockContext) -> Result<(), Failure> {
        self.env.sleep(Duration::from_secs(12)).await;
        Ok(())
    }

    fn close(
        &self,
        book: &mut Book,
        Work { op }: Work,
        (): (),
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Reply(book.append(op)))
    }
}

impl Query<Whole> for Tallies {
    fn query(&self, book: &Book, _: Whole, _: &ReadContext<'_>) -> Result<Contents, Failure> {
        Ok(Contents {
            log: book.log.clone(),
            note: book.note,
            owed: book.owed.len(),
        })
    }
}

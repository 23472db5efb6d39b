//! The server that the simulation works on: a log of operations, an account, a lock.
//!
//! Every operation that counts appends its number to the log, so that the log is the order in which
//! operations were applied, and the reply of each is its place.

use crate::notes::{Notes, OP_STEP};
use abide::collections::LazyMap;
use abide::env::Env;
use abide::server::{
    Context, DeadLetterNotice, Failure, Handle, Later, LockContext, Locked, Message, Outcome,
    Protocol, Query, ReadContext, Routes, Server,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What an account begins with.
pub(crate) const ENDOWMENT: i64 = 100;

#[derive(Debug)]
pub(crate) struct Ledger;

impl Protocol for Ledger {
    const KIND: &'static str = "ledger";
}

/// What beside appending an operation is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    /// Nothing.
    Plain,
    /// Be refused, after it has changed the state.
    Reject,
    /// Fail up to this attempt, after it has changed the state.
    Fail(u32),
    /// Panic up to this attempt, after it has changed the state.
    Panic(u32),
    /// Be answered by the handler of another message, which it sends to its own instance.
    Later,
    /// Deactivate the instance.
    Stop,
    /// Send money to another account.
    Transfer { to: String, amount: i64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Append {
    pub(crate) op: u64,
    pub(crate) act: Act,
}

/// Answers the operation that sent it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Settle {
    op: u64,
}

/// Money that has arrived.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Deposit {
    op: u64,
    amount: i64,
}

/// Work under the lock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) op: u64,
    pub(crate) millis: u64,
    /// Up to which attempt the work fails.
    pub(crate) fails: u32,
    pub(crate) rejects: bool,
}

/// How long the log is, and its last entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Look;

/// All of the state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Whole;

/// What stands on a shelf: all the log says of some operations, written down once more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shelf {
    /// How many of them were applied.
    count: u64,
    /// The last of them.
    last: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) log: Vec<u64>,
    pub(crate) balance: i64,
    pub(crate) owed: Vec<u64>,
    pub(crate) closings: Vec<(u64, u64)>,
    pub(crate) shelves: BTreeMap<u64, Shelf>,
}

impl Message<Ledger> for Append {
    const NAME: &'static str = "append";
    type Reply = u64;
}

impl Message<Ledger> for Settle {
    const NAME: &'static str = "settle";
    type Reply = ();
}

impl Message<Ledger> for Deposit {
    const NAME: &'static str = "deposit";
    type Reply = ();
}

impl Message<Ledger> for Work {
    const NAME: &'static str = "work";
    type Reply = u64;
}

impl Message<Ledger> for Look {
    const NAME: &'static str = "look";
    type Reply = u64;
}

impl Message<Ledger> for Whole {
    const NAME: &'static str = "whole";
    type Reply = Contents;
}

/// The state.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Book {
    log: Vec<u64>,
    balance: i64,
    /// Who is still to be answered, and with what.
    owed: Vec<(u64, u64, Later<u64>)>,
    /// Which run of a message under the lock was the one that counted.
    closings: Vec<(u64, u64)>,
    /// The log once more, by shelves. Each is read when it is asked for, in a round of its own: what it
    /// says must be of the same state as the log, which is always there.
    shelves: LazyMap<u64, Shelf>,
}

/// How many shelves there are.
const SHELVES: u64 = 6;

/// Where an operation stands, and the message that its handler sends.
fn shelf_of(op: u64) -> u64 {
    (op / OP_STEP) % SHELVES
}

/// What a log says of its shelves.
pub(crate) fn shelves_of(log: &[u64]) -> BTreeMap<u64, Shelf> {
    let mut shelves = BTreeMap::<u64, Shelf>::new();
    for op in log {
        let shelf = shelves.entry(shelf_of(*op)).or_default();
        shelf.count += 1;
        shelf.last = *op;
    }
    shelves
}

/// The server in one process.
pub(crate) struct Books {
    pub(crate) notes: Arc<Notes>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) process: usize,
}

impl Server for Books {
    type Protocol = Ledger;
    type State = Book;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Book, Failure> {
        Ok(Book {
            log: Vec::new(),
            balance: ENDOWMENT,
            owed: Vec::new(),
            closings: Vec::new(),
            shelves: LazyMap::new(),
        })
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes
            .handle::<Append>()
            .handle::<Settle>()
            .handle::<Deposit>()
            .locked::<Work>()
            .query::<Look>()
            .query::<Whole>()
    }

    fn dead_letter(&self, notice: &DeadLetterNotice) {
        self.notes.say(|| format!("dead: {notice:?}"));
    }
}

impl Books {
    /// Appends an operation; its place, counted from one.
    fn append(&self, book: &mut Book, op: u64) -> Result<u64, Failure> {
        self.look_at(book, shelf_of(op))?;
        let shelf = book.shelves.entry(shelf_of(op), Shelf::default)?;
        shelf.count += 1;
        shelf.last = op;
        book.log.push(op);
        Ok(book.log.len() as u64)
    }

    /// A shelf holds what the log says, in whatever run of a handler, even if it counts for nothing.
    fn look_at(&self, book: &Book, shelf: u64) -> Result<(), Failure> {
        let seen = book.shelves.get(&shelf)?.copied();
        let told = book.log.iter().filter(|op| shelf_of(**op) == shelf);
        let told = told.fold(None, |shelf: Option<Shelf>, op| {
            Some(Shelf {
                count: shelf.map_or(0, |shelf| shelf.count) + 1,
                last: *op,
            })
        });
        if seen != told {
            self.notes.violation(format!(
                "shelf {shelf} holds {seen:?}, and the log says {told:?}"
            ));
        }
        Ok(())
    }

    /// Has the operation written down once its commit is known.
    fn promise(&self, cx: &mut Context<'_, Self>, op: u64) {
        let notes = Arc::clone(&self.notes);
        cx.after_commit(move |after| {
            let place = after.state().log.iter().position(|entry| *entry == op);
            notes.effect(
                after.instance().id(),
                op,
                place.map(|place| place as u64 + 1),
            );
        });
    }
}

impl Handle<Append> for Books {
    fn handle(
        &self,
        book: &mut Book,
        Append { op, act }: Append,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        let before = book.log.len();
        if !matches!(act, Act::Fail(_) | Act::Panic(_)) {
            self.notes.attempt(op, cx.attempt());
        }
        let place = self.append(book, op)?;
        self.promise(cx, op);
        match act {
            Act::Plain => Ok(Outcome::Reply(place)),
            Act::Stop => Ok(Outcome::Stop(place)),
            Act::Reject => {
                book.balance -= 1;
                book.shelves.remove(&shelf_of(op));
                Err(Failure::reject(before.to_string()))
            }
            Act::Fail(until) if cx.attempt() <= until => Err(Failure::fail("planned")),
            // Unwinds without the message that a panic prints.
            Act::Panic(until) if cx.attempt() <= until => {
                book.balance -= 1;
                book.shelves.insert(shelf_of(op) + 1, Shelf::default());
                std::panic::resume_unwind(Box::new("planned"))
            }
            Act::Fail(_) | Act::Panic(_) => Ok(Outcome::Reply(place)),
            Act::Later => {
                let (token, outcome) = cx.later();
                book.owed.push((op, place, token));
                let id = cx.instance().id().to_owned();
                cx.cast::<Ledger>(id, Settle { op: op + 1 })?;
                Ok(outcome)
            }
            Act::Transfer { to, amount } => {
                if book.balance < amount {
                    return Err(Failure::reject(before.to_string()));
                }
                book.balance -= amount;
                cx.cast::<Ledger>(to, Deposit { op: op + 1, amount })?;
                Ok(Outcome::Reply(place))
            }
        }
    }
}

impl Handle<Settle> for Books {
    fn handle(
        &self,
        book: &mut Book,
        Settle { op }: Settle,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<()>, Failure> {
        self.append(book, op)?;
        self.promise(cx, op);
        let owed = book.owed.iter().position(|(owed, ..)| *owed + 1 == op);
        if let Some(owed) = owed {
            let (_, place, token) = book.owed.remove(owed);
            cx.answer(token, place)?;
        }
        Ok(Outcome::done())
    }
}

impl Handle<Deposit> for Books {
    fn handle(
        &self,
        book: &mut Book,
        Deposit { op, amount }: Deposit,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<()>, Failure> {
        self.append(book, op)?;
        self.promise(cx, op);
        book.balance += amount;
        Ok(Outcome::done())
    }
}

impl Handle<Work> for Books {
    fn handle(
        &self,
        _book: &mut Book,
        _message: Work,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Lock)
    }
}

impl Locked<Work> for Books {
    /// The number of the run.
    type Output = u64;

    async fn run(&self, _book: Book, work: Work, cx: LockContext) -> Result<u64, Failure> {
        if work.fails == 0 {
            self.notes.attempt(work.op, cx.attempt());
        }
        let run = Notes::enter(&self.notes, cx.instance().id(), work.op, self.process);
        self.env.sleep(Duration::from_millis(work.millis)).await;
        if work.rejects {
            return Err(Failure::reject("planned"));
        }
        if cx.attempt() <= work.fails {
            return Err(Failure::fail("planned"));
        }
        Ok(run.number())
    }

    fn close(
        &self,
        book: &mut Book,
        work: Work,
        run: u64,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        book.closings.push((work.op, run));
        let place = self.append(book, work.op)?;
        self.promise(cx, work.op);
        Ok(Outcome::Reply(place))
    }
}

impl Query<Look> for Books {
    /// Asks for the shelf of the last operation, or for several in a row.
    fn query(&self, book: &Book, _: Look, _: &ReadContext<'_>) -> Result<u64, Failure> {
        let length = book.log.len() as u64;
        let shelf = book.log.last().map_or(0, |last| shelf_of(*last));
        if length.is_multiple_of(3) {
            let seen = book.shelves.range::<u64, _>(shelf.., 2)?;
            let told = shelves_of(&book.log);
            let told = told.range(shelf..).take(2);
            if !told.eq(seen.iter().copied()) {
                self.notes
                    .violation(format!("from {shelf} on stand {seen:?}"));
            }
        } else {
            self.look_at(book, shelf)?;
        }
        Ok(length)
    }
}

impl Query<Whole> for Books {
    fn query(&self, book: &Book, _: Whole, _: &ReadContext<'_>) -> Result<Contents, Failure> {
        Ok(Contents {
            log: book.log.clone(),
            balance: book.balance,
            owed: book.owed.iter().map(|(op, ..)| *op).collect(),
            closings: book.closings.clone(),
            shelves: book
                .shelves
                .range::<u64, _>(.., SHELVES as usize + 1)?
                .into_iter()
                .map(|(shelf, holds)| (*shelf, *holds))
                .collect(),
        })
    }
}

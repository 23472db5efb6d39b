//! A bank whose transfers go from account to account as messages.
//!
//! You will see 800 transfers between ten accounts, started by 16 tasks on two nodes at once; some
//! are rejected because the balance is too low. A transfer takes the amount from one account and
//! casts it to the other *in one transaction*, so that it is in an account or on its way at every
//! moment. In the end the accounts are asked, and all the money is there. Run it again, also after
//! killing it in the middle: it still is. (A run that comes after one that was killed may have to
//! wait for 20 seconds until the dead process is known to be dead.) The program fails if money is
//! missing.
//!
//!     cargo run --example bank
//!     cargo run --example bank -- --store fdb:        (with the feature `fdb`)

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program, not the library"
)]

use abide::Node;
use abide::server::{CallError, ReadContext, Ref, Routes, Server};
use abide::server::{CallErrorKind, Context, Failure, Handle, Message, Outcome, Protocol, Query};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ACCOUNTS: u64 = 10;
const OPENING: u64 = 100;
const TASKS: u64 = 16;
const TRANSFERS: u64 = 50;
/// Longer than it takes until a process that died is known to be dead.
const PATIENCE: Duration = Duration::from_secs(100);

struct Banking;

impl Protocol for Banking {
    const KIND: &'static str = "account";
}

/// Puts the first money into a new account; does nothing to one that has had it.
#[derive(Serialize, Deserialize)]
struct Open;

impl Message<Banking> for Open {
    const NAME: &'static str = "open";
    type Reply = ();
}

/// Sends money to another account. Rejected if the balance is too low.
#[derive(Serialize, Deserialize)]
struct Transfer {
    to: String,
    amount: u64,
}

impl Message<Banking> for Transfer {
    const NAME: &'static str = "transfer";
    type Reply = ();
}

/// What a transfer sends to the receiving account.
#[derive(Serialize, Deserialize)]
struct Credit {
    amount: u64,
}

impl Message<Banking> for Credit {
    const NAME: &'static str = "credit";
    type Reply = ();
}

/// Asks for the account as it stands.
#[derive(Serialize, Deserialize)]
struct Statement;

impl Message<Banking> for Statement {
    const NAME: &'static str = "statement";
    type Reply = Account;
}

/// An account: what the server keeps, and what a statement shows.
#[derive(Default, Clone, Serialize, Deserialize)]
struct Account {
    is_open: bool,
    balance: u64,
    /// How many transfers have left it, and how many have come.
    sent: u64,
    received: u64,
}

struct Bank;

impl Server for Bank {
    type Protocol = Banking;
    type State = Account;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Account, Failure> {
        Ok(Account::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes
            .handle::<Open>()
            .handle::<Transfer>()
            .handle::<Credit>()
            .query::<Statement>()
    }
}

impl Handle<Open> for Bank {
    fn handle(
        &self,
        account: &mut Account,
        Open: Open,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<()>, Failure> {
        if !account.is_open {
            account.is_open = true;
            account.balance += OPENING;
        }
        Ok(Outcome::done())
    }
}

impl Handle<Transfer> for Bank {
    fn handle(
        &self,
        account: &mut Account,
        Transfer { to, amount }: Transfer,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<()>, Failure> {
        account.balance = account
            .balance
            .checked_sub(amount)
            .ok_or_else(|| Failure::reject("the balance is too low"))?;
        account.sent += 1;
        // Sent if this change is committed, with it, and not otherwise.
        cx.cast::<Banking>(to, Credit { amount })?;
        Ok(Outcome::done())
    }
}

impl Handle<Credit> for Bank {
    fn handle(
        &self,
        account: &mut Account,
        Credit { amount }: Credit,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<()>, Failure> {
        account.balance += amount;
        account.received += 1;
        Ok(Outcome::done())
    }
}

impl Query<Statement> for Bank {
    fn query(
        &self,
        account: &Account,
        Statement: Statement,
        _cx: &ReadContext<'_>,
    ) -> Result<Account, Failure> {
        Ok(account.clone())
    }
}

/// The accounts' sum.
#[derive(Default)]
struct Books {
    money: u64,
    sent: u64,
    received: u64,
}

async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    let store = abide::store::open(url).await?;
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let node = Node::builder_on(Arc::clone(&store)).serve(Bank);
        nodes.push(node.start().await?);
    }
    let [first, ..] = nodes.as_slice() else {
        return Err("there are two nodes".into());
    };
    for number in 0..ACCOUNTS {
        account(first, number).call(Open).await?;
    }

    let began = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .zip(nodes.iter().cycle())
        .map(|(task, node)| tokio::spawn(transfer(node.clone(), task)))
        .collect();
    let (mut done, mut rejected) = (0, 0);
    for task in tasks {
        let (task_done, task_rejected) = task.await??;
        done += task_done;
        rejected += task_rejected;
    }
    println!(
        "{done} transfers done and {rejected} rejected in {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let books = settled(first).await?;
    println!(
        "{} credits of {} transfers have arrived, over all runs; the accounts hold {}",
        books.received, books.sent, books.money
    );
    for node in nodes {
        node.shutdown(Duration::from_secs(5)).await;
    }
    if books.money != ACCOUNTS * OPENING || books.received != books.sent {
        return Err(format!("there should be {}", ACCOUNTS * OPENING).into());
    }
    Ok(())
}

fn name(number: u64) -> String {
    format!("account-{number}")
}

fn account(node: &Node, number: u64) -> Ref<Banking> {
    node.server(name(number)).timeout(PATIENCE)
}

/// Starts transfers one after the other. How many were done, and how many rejected.
async fn transfer(node: Node, task: u64) -> Result<(u64, u64), CallError> {
    let (mut done, mut rejected) = (0, 0);
    let mut dice = task;
    for _ in 0..TRANSFERS {
        // Any numbers will do, as long as they scatter.
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let from = (dice >> 40) % ACCOUNTS;
        let to = (from + 1 + (dice >> 50) % (ACCOUNTS - 1)) % ACCOUNTS;
        let order = Transfer {
            to: name(to),
            amount: 1 + (dice >> 32) % 60,
        };
        match account(&node, from).call(order).await {
            Ok(()) => done += 1,
            Err(error) if error.kind() == CallErrorKind::Rejected => rejected += 1,
            Err(error) => return Err(error),
        }
    }
    Ok((done, rejected))
}

/// Asks the accounts until no transfer is on its way any more, or that takes too long. No new ones
/// are being started, so once the numbers agree nothing moves.
async fn settled(node: &Node) -> Result<Books, Box<dyn Error>> {
    let began = Instant::now();
    loop {
        let mut books = Books::default();
        for number in 0..ACCOUNTS {
            let account = node
                .server::<Banking>(name(number))
                .query(Statement)
                .await?;
            books.money += account.balance;
            books.sent += account.sent;
            books.received += account.received;
        }
        if books.sent == books.received || began.elapsed() > PATIENCE {
            return Ok(books);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(url) = store_url(std::env::args().skip(1)) else {
        eprintln!("usage: bank [--store URL]");
        return ExitCode::from(2);
    };
    match run(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn store_url(mut arguments: impl Iterator<Item = String>) -> Option<String> {
    match (
        arguments.next().as_deref(),
        arguments.next(),
        arguments.next(),
    ) {
        (None, ..) => Some("sqlite:bank.db".to_owned()),
        (Some("--store"), Some(url), None) => Some(url),
        _ => None,
    }
}

fn complain(error: &dyn Error) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}

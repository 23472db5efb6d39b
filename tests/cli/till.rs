//! A server to operate on.

use abide::server::{
    Context, Failure, Handle, LockContext, Locked, Message, Outcome, Protocol, Query, ReadContext,
    Routes, Server,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) struct Tilling;

impl Protocol for Tilling {
    const KIND: &'static str = "till";
}

/// Adds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Add {
    pub(crate) n: u64,
}

impl Message<Tilling> for Add {
    const NAME: &'static str = "add";
    type Reply = u64;
}

/// Adds, unless the handler is broken.
#[derive(Serialize, Deserialize)]
pub(crate) struct Risky {
    pub(crate) n: u64,
}

impl Message<Tilling> for Risky {
    const NAME: &'static str = "risky";
    type Reply = u64;
}

/// Holds the lock for long.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hold {}

impl Message<Tilling> for Hold {
    const NAME: &'static str = "hold";
    type Reply = u64;
}

/// Asks for the sum.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sum {}

impl Message<Tilling> for Sum {
    const NAME: &'static str = "sum";
    type Reply = u64;
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Drawer {
    sum: u64,
    added: Vec<u64>,
    owner: String,
    notes: BTreeMap<String, u64>,
}

/// A till, of which one version is broken.
pub(crate) struct Till {
    pub(crate) broken: bool,
}

impl Server for Till {
    type Protocol = Tilling;
    type State = Drawer;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Drawer, Failure> {
        Ok(Drawer {
            owner: "anna".to_owned(),
            notes: BTreeMap::from([("float".to_owned(), 100)]),
            ..Drawer::default()
        })
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes
            .handle::<Add>()
            .handle::<Risky>()
            .locked::<Hold>()
            .query::<Sum>()
    }
}

impl Drawer {
    fn add(&mut self, n: u64) -> Result<Outcome<u64>, Failure> {
        self.sum += n;
        self.added.push(n);
        Ok(Outcome::Reply(self.sum))
    }
}

impl Handle<Add> for Till {
    fn handle(
        &self,
        drawer: &mut Drawer,
        Add { n }: Add,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        drawer.add(n)
    }
}

impl Handle<Risky> for Till {
    fn handle(
        &self,
        drawer: &mut Drawer,
        Risky { n }: Risky,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        match self.broken {
            true => Err(Failure::fail("the scale is broken")),
            false => drawer.add(n),
        }
    }
}

impl Handle<Hold> for Till {
    fn handle(
        &self,
        _drawer: &mut Drawer,
        _hold: Hold,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Lock)
    }
}

impl Locked<Hold> for Till {
    type Output = ();

    async fn run(&self, _: Drawer, _hold: Hold, _cx: LockContext) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_secs(600)).await;
        Ok(())
    }

    fn close(
        &self,
        drawer: &mut Drawer,
        _hold: Hold,
        _output: (),
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Reply(drawer.sum))
    }
}

impl Query<Sum> for Till {
    fn query(&self, drawer: &Drawer, _sum: Sum, _cx: &ReadContext<'_>) -> Result<u64, Failure> {
        Ok(drawer.sum)
    }
}

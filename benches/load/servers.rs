//! The servers under load: their handlers do next to nothing, so that what is measured is abide.

use abide::collections::{LazyMap, Map};
use abide::server::{
    Context, Failure, Handle, LockContext, Locked, Message, Outcome, Protocol, Query, ReadContext,
    Routes, Server,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that grows.
pub struct Counting;

impl Protocol for Counting {
    const KIND: &'static str = "counter";
}

#[derive(Serialize, Deserialize)]
pub struct Add {
    pub more: u64,
    /// Nothing is queued behind it: tell when it is handled.
    pub last: bool,
}

impl Add {
    pub const ONE: Self = Self {
        more: 1,
        last: false,
    };
}

impl Message<Counting> for Add {
    const NAME: &'static str = "add";
    type Reply = u64;
}

#[derive(Serialize, Deserialize)]
pub struct Total;

impl Message<Counting> for Total {
    const NAME: &'static str = "total";
    type Reply = u64;
}

/// Adds one under the lock.
#[derive(Serialize, Deserialize)]
pub struct Guarded;

impl Message<Counting> for Guarded {
    const NAME: &'static str = "guarded";
    type Reply = u64;
}

/// Clones share the count of what was [last](Add::last).
#[derive(Clone, Default)]
pub struct Counter {
    drained: Arc<AtomicU64>,
}

impl Counter {
    /// How many instances have handled their last message.
    pub fn drained(&self) -> u64 {
        self.drained.load(Ordering::SeqCst)
    }
}

impl Server for Counter {
    type Protocol = Counting;
    type State = u64;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<u64, Failure> {
        Ok(0)
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Add>().query::<Total>().locked::<Guarded>()
    }
}

impl Handle<Add> for Counter {
    fn handle(
        &self,
        count: &mut u64,
        add: Add,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        *count += add.more;
        if add.last {
            let drained = Arc::clone(&self.drained);
            cx.after_commit(move |_| {
                drained.fetch_add(1, Ordering::SeqCst);
            });
        }
        Ok(Outcome::Reply(*count))
    }
}

impl Query<Total> for Counter {
    fn query(&self, count: &u64, _: Total, _cx: &ReadContext<'_>) -> Result<u64, Failure> {
        Ok(*count)
    }
}

impl Handle<Guarded> for Counter {
    fn handle(
        &self,
        _count: &mut u64,
        _: Guarded,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Lock)
    }
}

impl Locked<Guarded> for Counter {
    type Output = u64;

    async fn run(&self, _count: u64, _: Guarded, _cx: LockContext) -> Result<u64, Failure> {
        Ok(1)
    }

    fn close(
        &self,
        count: &mut u64,
        _: Guarded,
        more: u64,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        *count += more;
        Ok(Outcome::Reply(*count))
    }
}

/// A table of many entries.
pub struct Keeping;

impl Protocol for Keeping {
    const KIND: &'static str = "table";
}

#[derive(Serialize, Deserialize)]
pub struct Put {
    pub key: u64,
    pub value: u64,
}

impl Message<Keeping> for Put {
    const NAME: &'static str = "put";
    type Reply = ();
}

/// Makes the entries from `from` on and below `to`.
#[derive(Serialize, Deserialize)]
pub struct Fill {
    pub from: u64,
    pub to: u64,
}

impl Message<Keeping> for Fill {
    const NAME: &'static str = "fill";
    type Reply = ();
}

/// What keeps the entries of a table.
pub trait Entries: Serialize + DeserializeOwned + Clone + Default + Send + Sync + 'static {
    fn put(&mut self, key: u64, value: u64);
}

impl Entries for BTreeMap<u64, u64> {
    fn put(&mut self, key: u64, value: u64) {
        self.insert(key, value);
    }
}

/// A collection that knows what was touched.
impl Entries for Map<u64, u64> {
    fn put(&mut self, key: u64, value: u64) {
        self.insert(key, value);
    }
}

/// A collection that loads nothing of itself.
impl Entries for LazyMap<u64, u64> {
    fn put(&mut self, key: u64, value: u64) {
        self.insert(key, value);
    }
}

pub struct Table<E>(PhantomData<fn() -> E>);

impl<E> Table<E> {
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E: Entries> Server for Table<E> {
    type Protocol = Keeping;
    type State = E;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<E, Failure> {
        Ok(E::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Put>().handle::<Fill>()
    }
}

impl<E: Entries> Handle<Put> for Table<E> {
    fn handle(
        &self,
        table: &mut E,
        put: Put,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<()>, Failure> {
        table.put(put.key, put.value);
        Ok(Outcome::done())
    }
}

impl<E: Entries> Handle<Fill> for Table<E> {
    fn handle(
        &self,
        table: &mut E,
        fill: Fill,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<()>, Failure> {
        for key in fill.from..fill.to {
            table.put(key, 0);
        }
        Ok(Outcome::done())
    }
}

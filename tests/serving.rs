//! What a served kind may take for granted of its node: what its handlers are told, what comes through
//! references without types, its place beside other kinds, and versions of itself beside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "also the helpers of a test fail by panicking, and their time is the real one"
)]

use abide::codec::Value;
use abide::server::{
    AnyRef, Context, Failure, Handle, Message, Outcome, Protocol, Query, ReadContext, Ref, Routes,
    Server,
};
use abide::store::{MemoryStore, Stamp, Store};
use abide::{InstanceId, KindOptions, Node, StartError};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

fn options() -> KindOptions {
    KindOptions::default()
        .attempts(2)
        .backoff(Duration::from_millis(10), Duration::from_millis(20))
}

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        assert_eq!(node.failure(), None);
        assert!(node.shutdown(Duration::from_secs(10)).await);
    }
}

struct Clerks;

impl Protocol for Clerks {
    const KIND: &'static str = "clerk";
}

struct Books;

impl Protocol for Books {
    const KIND: &'static str = "book";
}

/// Notes what its handler is told, and enters a line into the book of the same name.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tell {
    text: String,
    fails: u32,
}

impl Message<Clerks> for Tell {
    const NAME: &'static str = "Tell";
    type Reply = u64;
}

/// Appends a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Enter {
    line: String,
}

impl Message<Books> for Enter {
    const NAME: &'static str = "Enter";
    type Reply = u64;
}

/// The lines; a query.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lines {}

impl Message<Books> for Lines {
    const NAME: &'static str = "Lines";
    type Reply = Vec<String>;
}

/// What a handler was told.
#[derive(Debug, Clone)]
struct Told {
    text: String,
    instance: InstanceId,
    is_call: bool,
    stamp: Option<Stamp>,
    now: SystemTime,
    attempt: u32,
}

struct Clerk(Arc<Mutex<Vec<Told>>>);

impl Server for Clerk {
    type Protocol = Clerks;
    type State = u64;

    fn init(&self, _: &ReadContext<'_>) -> Result<u64, Failure> {
        Ok(0)
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Tell>()
    }
}

impl Handle<Tell> for Clerk {
    fn handle(
        &self,
        told: &mut u64,
        tell: Tell,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        self.0.lock().unwrap().push(Told {
            text: tell.text.clone(),
            instance: cx.instance().clone(),
            is_call: cx.is_call(),
            stamp: cx.stamp(),
            now: cx.now(),
            attempt: cx.attempt(),
        });
        if cx.attempt() <= tell.fails {
            return Err(Failure::fail("as it was asked to"));
        }
        cx.cast::<Books>(cx.instance().id().to_owned(), Enter { line: tell.text })?;
        *told += 1;
        Ok(Outcome::Reply(*told))
    }
}

struct Book;

impl Server for Book {
    type Protocol = Books;
    type State = Vec<String>;

    fn init(&self, _: &ReadContext<'_>) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Enter>().query::<Lines>()
    }
}

impl Handle<Enter> for Book {
    fn handle(
        &self,
        lines: &mut Vec<String>,
        enter: Enter,
        _: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        lines.push(enter.line);
        Ok(Outcome::Reply(lines.len() as u64))
    }
}

impl Query<Lines> for Book {
    fn query(
        &self,
        lines: &Vec<String>,
        _: Lines,
        _: &ReadContext<'_>,
    ) -> Result<Vec<String>, Failure> {
        Ok(lines.clone())
    }
}

fn tell(text: &str) -> Tell {
    Tell {
        text: text.to_owned(),
        fails: 0,
    }
}

async fn lines_of(node: &Node, book: &str, count: usize) -> Vec<String> {
    let book: Ref<Books> = node.server(book);
    for _ in 0..1_000 {
        let lines = book.query(Lines {}).await.unwrap();
        if lines.len() >= count {
            return lines;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there are never {count} lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_cannot_be_served_twice_by_one_node() {
    let clerk = || Clerk(Arc::default());
    let builder = Node::builder_on(store()).serve(clerk()).serve(Book);
    let started = builder.serve_with(clerk(), options()).start().await;
    match started {
        Err(StartError::DuplicateKind(kind)) => assert_eq!(kind, "clerk"),
        other => panic!("{other:?}"),
    }
}

/// Instances of the same name, of which one sends to the other, and each with a state of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_serves_several_kinds() {
    let store = store();
    let node = Node::builder_on(Arc::clone(&store))
        .serve_with(Clerk(Arc::default()), options())
        .serve_with(Book, options())
        .start()
        .await
        .unwrap();
    let producer = Node::builder_on(store).start().await.unwrap();
    for (number, from) in [&node, &producer, &node, &producer].into_iter().enumerate() {
        let clerk: Ref<Clerks> = from.server("one");
        let number = number as u64;
        let told = clerk.call(tell(&format!("line {number}"))).await.unwrap();
        assert_eq!(told, number + 1);
    }
    let written = lines_of(&producer, "one", 4).await;
    assert_eq!(written, ["line 0", "line 1", "line 2", "line 3"]);
    let book: Ref<Books> = node.server("one");
    let line = "by hand".to_owned();
    assert_eq!(book.call(Enter { line }).await.unwrap(), 5);
    // The end of one is not the end of the other.
    producer.server::<Clerks>("one").kill().await.unwrap();
    assert_eq!(
        node.server::<Clerks>("one").call(tell("x")).await.unwrap(),
        1
    );
    assert_eq!(lines_of(&node, "one", 6).await.len(), 6);
    stop([producer, node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_is_told_what_it_handles() {
    let (store, seen) = (store(), Arc::<Mutex<Vec<Told>>>::default());
    let node = Node::builder_on(Arc::clone(&store))
        .serve_with(Clerk(Arc::clone(&seen)), options())
        .serve_with(Book, options())
        .start()
        .await
        .unwrap();
    let producer = Node::builder_on(store).start().await.unwrap();
    let began = SystemTime::now();
    let (inline, pushed): (Ref<Clerks>, Ref<Clerks>) = (node.server("a"), producer.server("a"));
    inline.call(tell("inline")).await.unwrap();
    pushed.cast(tell("cast")).await.unwrap();
    let twice = Tell {
        text: "twice".to_owned(),
        fails: 1,
    };
    pushed.call(twice).await.unwrap();
    let ended = SystemTime::now();
    let seen = seen.lock().unwrap().clone();
    let of = |text: &str| {
        let runs = seen.iter().filter(|told| told.text == text);
        runs.cloned().collect::<Vec<_>>()
    };
    for told in &seen {
        assert_eq!(told.instance, InstanceId::new("clerk", "a").unwrap());
        // The clocks of this test are one clock, which is read with the turn.
        let ms = Duration::from_millis(1);
        assert!(began <= told.now + ms && told.now <= ended + ms, "{told:?}");
        assert_eq!(told.is_call, told.text != "cast");
    }
    assert!(of("inline").iter().all(|told| told.stamp.is_none()));
    let (cast, twice) = (of("cast"), of("twice"));
    let stamp = cast[0].stamp.expect("it stood in the mailbox");
    assert!(cast.iter().all(|told| told.stamp == Some(stamp)));
    let later = twice[0].stamp.expect("it stood in the mailbox");
    assert!(later > stamp, "the stamps are the order");
    assert!(twice.iter().all(|told| told.stamp == Some(later)));
    let mut attempts: Vec<u32> = twice.iter().map(|told| told.attempt).collect();
    attempts.dedup();
    assert_eq!(attempts, [1, 2]);
    stop([producer, node]).await;
}

struct Boxes;

impl Protocol for Boxes {
    const KIND: &'static str = "box";
}

/// Everything that JSON has no word for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Odd {
    bytes: ByteBuf,
    nan: f64,
    single: f32,
    huge: u128,
    low: i128,
    numbered: BTreeMap<i64, String>,
    paired: BTreeMap<(i8, bool), u128>,
    dollar: BTreeMap<String, Option<()>>,
}

impl Odd {
    fn new() -> Self {
        Self {
            bytes: ByteBuf::from(vec![0, 255, 0xc1, 10]),
            nan: f64::from_bits(0x7ff8_0000_0000_00ab),
            single: f32::NEG_INFINITY,
            huge: u128::MAX,
            low: i128::MIN,
            numbered: BTreeMap::from([(-1, "minus".to_owned()), (i64::MAX, "most".to_owned())]),
            paired: BTreeMap::from([((-1, true), 1), ((1, false), u128::MAX - 1)]),
            dollar: BTreeMap::from([("$bytes".to_owned(), None)]),
        }
    }

    /// Comparable, NaN included.
    fn payload(&self) -> Value {
        Value::from_typed(self).unwrap()
    }
}

/// Puts something in, and gets back what was in there.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Swap {
    odd: Odd,
}

impl Message<Boxes> for Swap {
    const NAME: &'static str = "Swap";
    type Reply = Odd;
}

/// What is in there; a query.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Look {}

impl Message<Boxes> for Look {
    const NAME: &'static str = "Look";
    type Reply = Odd;
}

struct Chest;

impl Server for Chest {
    type Protocol = Boxes;
    type State = Odd;

    fn init(&self, _: &ReadContext<'_>) -> Result<Odd, Failure> {
        Ok(Odd::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Swap>().query::<Look>()
    }
}

impl Handle<Swap> for Chest {
    fn handle(
        &self,
        kept: &mut Odd,
        swap: Swap,
        _: &mut Context<'_, Self>,
    ) -> Result<Outcome<Odd>, Failure> {
        Ok(Outcome::Reply(std::mem::replace(kept, swap.odd)))
    }
}

impl Query<Look> for Chest {
    fn query(&self, kept: &Odd, _: Look, _: &ReadContext<'_>) -> Result<Odd, Failure> {
        Ok(kept.clone())
    }
}

/// From JSON text to a typed handler, its state, and back to JSON text, on both ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_json_has_no_word_for_goes_through_a_reference_without_types() {
    let store = store();
    let node = Node::builder_on(Arc::clone(&store))
        .serve_with(Chest, options())
        .start()
        .await
        .unwrap();
    let producer = Node::builder_on(store).start().await.unwrap();
    let odd = Odd::new();
    for (number, from) in [&node, &producer].into_iter().enumerate() {
        let id = InstanceId::new("box", format!("box {number}")).unwrap();
        let chest = AnyRef::new(from.courier(), id.clone());
        let swap = Value::from_typed(&Swap { odd: odd.clone() }).unwrap();
        let text = swap.to_json().unwrap();
        for form in ["$bytes", "$float", "$f32", "$int", "$map"] {
            assert!(text.contains(form), "{form} is not in {text}");
        }
        let swap = Value::from_json(&text).unwrap();
        let before = chest.call("Swap", &swap).await.unwrap();
        assert_eq!(before, Odd::default().payload());
        let looked = chest.query("Look", &Value::Map(Vec::new())).await.unwrap();
        assert_eq!(looked, odd.payload());
        let again = Value::from_json(&looked.to_json().unwrap()).unwrap();
        assert_eq!(again, odd.payload());
        // The handler got it as what it is.
        let typed = node.server::<Boxes>(id.id()).query(Look {}).await.unwrap();
        assert_eq!(typed.nan.to_bits(), odd.nan.to_bits());
        assert_eq!((typed.huge, typed.low), (u128::MAX, i128::MIN));
        assert_eq!(
            (&typed.numbered, &typed.paired),
            (&odd.numbered, &odd.paired)
        );
        // Through the mailbox, whatever serves the instance.
        chest.cast("Swap", &swap).await.unwrap();
        let after = chest.call("Swap", &swap).await.unwrap();
        assert_eq!(after, odd.payload());
    }
    stop([producer, node]).await;
}

struct Shops;

impl Protocol for Shops {
    const KIND: &'static str = "shop";
}

/// Sells so many, or fails.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sell {
    count: u64,
    fails: bool,
}

impl Message<Shops> for Sell {
    const NAME: &'static str = "Sell";
    type Reply = u64;
}

/// A later version's: writes down a note.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remark {
    note: String,
}

impl Message<Shops> for Remark {
    const NAME: &'static str = "Remark";
    type Reply = Newer;
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Older {
    sold: u64,
    by_day: BTreeMap<String, OlderDay>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct OlderDay {
    sold: u64,
}

/// With fields that the older one does not know, in the state and in its entries.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Newer {
    sold: u64,
    #[serde(default)]
    notes: Vec<String>,
    #[serde(default)]
    owner: Option<String>,
    by_day: BTreeMap<String, NewerDay>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct NewerDay {
    sold: u64,
    #[serde(default)]
    weather: String,
}

const TODAY: &str = "today";

struct OldShop;

impl Server for OldShop {
    type Protocol = Shops;
    type State = Older;

    fn init(&self, _: &ReadContext<'_>) -> Result<Older, Failure> {
        Ok(Older::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Sell>()
    }
}

impl Handle<Sell> for OldShop {
    fn handle(
        &self,
        shop: &mut Older,
        sell: Sell,
        _: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        shop.sold += sell.count;
        shop.by_day.entry(TODAY.to_owned()).or_default().sold += sell.count;
        match sell.fails {
            true => panic!("sold out"),
            false => Ok(Outcome::Reply(shop.sold)),
        }
    }
}

struct NewShop;

impl Server for NewShop {
    type Protocol = Shops;
    type State = Newer;

    fn init(&self, _: &ReadContext<'_>) -> Result<Newer, Failure> {
        Ok(Newer::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Remark>()
    }
}

impl Handle<Remark> for NewShop {
    fn handle(
        &self,
        shop: &mut Newer,
        remark: Remark,
        _: &mut Context<'_, Self>,
    ) -> Result<Outcome<Newer>, Failure> {
        shop.owner = Some("the newer one".to_owned());
        let today = shop.by_day.entry(TODAY.to_owned()).or_default();
        if today.weather.is_empty() {
            today.weather.clone_from(&remark.note);
        }
        shop.notes.push(remark.note);
        Ok(Outcome::Reply(shop.clone()))
    }
}

/// The batch is undone and its first part run again, on a state of which the node knows only a part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_message_in_a_batch_of_an_older_node_loses_no_field_of_a_newer_state() {
    let store = store();
    let newer = async || {
        let builder = Node::builder_on(Arc::clone(&store));
        builder
            .serve_with(NewShop, options())
            .start()
            .await
            .unwrap()
    };
    let node = newer().await;
    let remark = |note: &str| Remark {
        note: note.to_owned(),
    };
    let shop: Ref<Shops> = node.server("one");
    shop.call(remark("rain")).await.unwrap();
    stop([node]).await;

    // A batch, of which the third fails for good.
    let producer = Node::builder_on(Arc::clone(&store)).start().await.unwrap();
    let shop: Ref<Shops> = producer.server("one");
    let sell = |count, fails| Sell { count, fails };
    let batch = [(1, false), (2, false), (100, true), (4, false)];
    shop.cast_all(batch.map(|(count, fails)| sell(count, fails)))
        .await
        .unwrap();
    let builder = Node::builder_on(Arc::clone(&store));
    let older = builder
        .serve_with(OldShop, options())
        .start()
        .await
        .unwrap();
    assert_eq!(shop.call(sell(8, false)).await.unwrap(), 15);
    // And inline, in company.
    let inline: Ref<Shops> = older.server("one");
    let calls = [(16, false), (100, true), (32, false)]
        .map(|(count, fails)| tokio::spawn(inline.call(sell(count, fails))));
    let mut ends = Vec::new();
    for call in calls {
        ends.push(call.await.unwrap().is_ok());
    }
    assert_eq!(ends, [true, false, true]);
    stop([older]).await;

    let node = newer().await;
    let shop = node
        .server::<Shops>("one")
        .call(remark("sun"))
        .await
        .unwrap();
    let today = NewerDay {
        sold: 63,
        weather: "rain".to_owned(),
    };
    let kept = Newer {
        sold: 63,
        notes: vec!["rain".to_owned(), "sun".to_owned()],
        owner: Some("the newer one".to_owned()),
        by_day: BTreeMap::from([(TODAY.to_owned(), today)]),
    };
    assert_eq!(shop, kept);
    stop([producer, node]).await;
}

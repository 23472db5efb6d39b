//! Maps with keys that somebody else chose, and with values of some size.

use crate::{Place, memory, stop};
use abide::collections::{LazyMap, NotLoaded};
use abide::server::{
    CallErrorKind, Context, Failure, Handle, Message, Outcome, Protocol, Query, ReadContext,
    Routes, Server,
};
use abide::{KindOptions, Node};
use futures_util::future::join_all;
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

struct Naming;

impl Protocol for Naming {
    const KIND: &'static str = "names";
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Do {
    Look(String),
    /// The first number from a key on.
    From(String),
    Put(String, u64),
    Remove(String),
    Take(String),
    /// Puts texts of a size under the keys of a range.
    Fill(u64, u64, usize),
    /// How long the texts are together.
    Length(u64),
}

impl Message<Naming> for Do {
    const NAME: &'static str = "do";
    type Reply = Option<u64>;
}

#[derive(Debug, Serialize, Deserialize)]
struct Ask(Do);

impl Message<Naming> for Ask {
    const NAME: &'static str = "ask";
    type Reply = Option<u64>;
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Names {
    numbers: LazyMap<String, u64>,
    texts: LazyMap<u64, Text>,
}

/// How many texts are in memory.
static TEXTS: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Text(String);

impl Text {
    fn new(text: String) -> Self {
        TEXTS.fetch_add(1, SeqCst);
        Self(text)
    }
}

impl Clone for Text {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        TEXTS.fetch_sub(1, SeqCst);
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

fn perform(names: &mut Names, message: Do) -> Result<Option<u64>, NotLoaded> {
    let numbers = &mut names.numbers;
    Ok(match message {
        Do::Look(name) => numbers.get(&name)?.copied(),
        Do::From(name) => {
            let page = numbers.range::<String, _>(name.., 1)?;
            page.first().map(|(_, number)| **number)
        }
        Do::Put(name, number) => {
            numbers.insert(name, number);
            None
        }
        Do::Remove(name) => {
            numbers.remove(name.as_str());
            None
        }
        Do::Take(name) => numbers.take(name.as_str())?,
        Do::Fill(from, to, size) => {
            let texts = (from..to).map(|key| (key, Text::new("x".repeat(size))));
            names.texts.extend(texts);
            None
        }
        Do::Length(keys) => {
            let keys: Vec<u64> = (0..keys).collect();
            names.texts.load(&keys)?;
            let texts = keys.iter().map(|key| names.texts.get(key));
            let texts: Vec<Option<&Text>> = texts.collect::<Result<_, _>>()?;
            let length: usize = texts.into_iter().flatten().map(|text| text.0.len()).sum();
            Some(u64::try_from(length).unwrap())
        }
    })
}

struct Register;

impl Server for Register {
    type Protocol = Naming;
    type State = Names;

    fn init(&self, _: &ReadContext<'_>) -> Result<Names, Failure> {
        Ok(Names::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Do>().query::<Ask>()
    }
}

impl Handle<Do> for Register {
    fn handle(
        &self,
        names: &mut Names,
        message: Do,
        _: &mut Context<'_, Self>,
    ) -> Result<Outcome<Option<u64>>, Failure> {
        Ok(Outcome::Reply(perform(names, message)?))
    }
}

impl Query<Ask> for Register {
    fn query(
        &self,
        names: &Names,
        Ask(message): Ask,
        _: &ReadContext<'_>,
    ) -> Result<Option<u64>, Failure> {
        Ok(perform(&mut names.clone(), message)?)
    }
}

async fn serving(place: &Place) -> Node {
    let options = KindOptions::default()
        .attempts(1)
        .backoff(Duration::from_millis(20), Duration::from_millis(40));
    let node = place.node().serve_with(Register, options);
    node.start().await.unwrap()
}

/// No store holds an entry under such a key, so there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_too_long_to_be_stored_is_one_without_an_entry() {
    ask_for_long_keys(Place::of(&memory())).await;
}

#[cfg(feature = "fdb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_too_long_to_be_stored_in_a_cluster_is_one_without_an_entry() {
    if let Some(place) = Place::fdb("long keys").await {
        ask_for_long_keys(place).await;
    }
}

async fn ask_for_long_keys(place: Place) {
    for length in [9_000, 9_980, 10_000, 30_000] {
        let long = || "k".repeat(length);
        let node = serving(&place).await;
        let names = node.server::<Naming>("one");
        names.call(Do::Put("a".into(), 1)).await.unwrap();
        names.call(Do::Put("z".into(), 2)).await.unwrap();
        stop(node).await;
        let node = serving(&place).await;
        let names = node.server::<Naming>("one");
        let messages = [
            Do::Look(long()),
            Do::Look("a".into()),
            Do::From(long()),
            Do::Remove(long()),
            Do::Take(long() + "l"),
            Do::Look("z".into()),
        ];
        let expected = [None, Some(1), Some(2), None, None, Some(2)];
        let asked = names.query(Ask(Do::Look(long() + "?"))).await;
        assert_eq!(asked.unwrap(), None, "{length}");
        // All in one batch, and each was tried only once.
        let replies = join_all(messages.map(|message| names.call(message))).await;
        for (reply, expected) in replies.into_iter().zip(expected) {
            assert_eq!(reply.unwrap(), expected, "{length}");
        }
        stop(node).await;
    }
    let node = serving(&place).await;
    let names = node.server::<Naming>("one");
    let (put, before, behind) = tokio::join!(
        names.call(Do::Put("k".repeat(30_000), 3)),
        names.call(Do::Look("a".into())),
        names.call(Do::Look("z".into())),
    );
    assert_eq!(put.unwrap_err().kind(), CallErrorKind::DeadLetter);
    assert_eq!((before.unwrap(), behind.unwrap()), (Some(1), Some(2)));
    stop(node).await;
}

/// The next message may never come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_has_nothing_to_do_does_not_keep_much_of_what_it_has_loaded() {
    let place = Place::of(&memory());
    let node = serving(&place).await;
    let names = node.server::<Naming>("one");
    for from in (0..100).step_by(10) {
        names.call(Do::Fill(from, from + 10, 99_000)).await.unwrap();
    }
    // What was written is forgotten as well as what was read.
    for ask in [None, Some(Do::Length(100))] {
        match ask {
            Some(ask) => assert_eq!(names.query(Ask(ask)).await.unwrap(), Some(9_900_000)),
            None => drop(names.call(Do::Look("a".into())).await.unwrap()),
        }
        let mut tries = 0;
        while TEXTS.load(SeqCst) > 40 {
            tries += 1;
            assert!(tries < 100, "{} texts are in memory", TEXTS.load(SeqCst));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    names.call(Do::Put("a".into(), 1)).await.unwrap();
    let length = names.call(Do::Length(100)).await.unwrap();
    assert_eq!(length, Some(9_900_000));
    stop(node).await;
}

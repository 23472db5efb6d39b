//! What a process shows of itself while it runs: the spans, the events and the numbers that
//! `src/docs/observability.md` names.
//!
//! Subscribers and recorders are the whole process's, so these tests have one to themselves, and each
//! looks at an instance of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "also the helpers of a test fail by panicking, and their time is the real one"
)]

use abide::server::{
    CallErrorKind, Context, Failure, Handle, LockContext, Locked, Message, Outcome, Protocol,
    ReadContext, Routes, Server,
};
use abide::store::MemoryStore;
use abide::{KindOptions, Node};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level};

type Fields = BTreeMap<String, String>;

/// A span or an event.
#[derive(Debug, Clone)]
struct Seen {
    /// Of an event its text.
    name: String,
    level: Level,
    fields: Fields,
}

impl Seen {
    fn has(&self, fields: &[(&str, &str)]) -> bool {
        fields
            .iter()
            .all(|(name, value)| self.fields.get(*name).is_some_and(|known| known == value))
    }
}

/// Keeps every span and every event of abide's.
#[derive(Debug, Default)]
struct Log {
    spans: Mutex<Vec<Seen>>,
    events: Mutex<Vec<Seen>>,
}

struct Reading<'a>(&'a mut Fields);

impl Visit for Reading<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

struct Subscriber(Arc<Log>);

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("abide")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::new();
        span.record(&mut Reading(&mut fields));
        let mut spans = self.0.spans.lock().unwrap();
        spans.push(Seen {
            name: span.metadata().name().to_owned(),
            level: *span.metadata().level(),
            fields,
        });
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut spans = self.0.spans.lock().unwrap();
        let seen = &mut spans[span.into_u64() as usize - 1];
        values.record(&mut Reading(&mut seen.fields));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Reading(&mut fields));
        self.0.events.lock().unwrap().push(Seen {
            name: fields.remove("message").unwrap_or_default(),
            level: *event.metadata().level(),
            fields,
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Keeps every number: counters by their sum, histograms by what was recorded.
#[derive(Debug, Default)]
struct Numbers {
    counters: Mutex<BTreeMap<String, Arc<Count>>>,
    histograms: Mutex<BTreeMap<String, Arc<Values>>>,
}

#[derive(Debug, Default)]
struct Count(AtomicU64);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::SeqCst);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
struct Values(Mutex<Vec<f64>>);

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

struct Recording(Arc<Numbers>);

impl Recorder for Recording {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.0.counters.lock().unwrap();
        let count = counters.entry(named(key)).or_default();
        Counter::from_arc(Arc::clone(count))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut histograms = self.0.histograms.lock().unwrap();
        let values = histograms.entry(named(key)).or_default();
        Histogram::from_arc(Arc::clone(values))
    }
}

/// A metric's name with its labels in order.
fn named(key: &Key) -> String {
    let mut labels: Vec<String> = key
        .labels()
        .map(|label| format!("{}={}", label.key(), label.value()))
        .collect();
    labels.sort();
    format!("{}{{{}}}", key.name(), labels.join(","))
}

impl Numbers {
    fn count(&self, name: &str) -> u64 {
        let counters = self.counters.lock().unwrap();
        let count = counters.get(name);
        count.map_or(0, |count| count.0.load(Ordering::SeqCst))
    }

    fn values(&self, name: &str) -> Vec<f64> {
        let histograms = self.histograms.lock().unwrap();
        let values = histograms.get(name);
        values.map_or_else(Vec::new, |values| values.0.lock().unwrap().clone())
    }
}

/// What this process shows.
struct Shown {
    log: Arc<Log>,
    numbers: Arc<Numbers>,
}

impl Shown {
    fn get() -> &'static Self {
        static SHOWN: OnceLock<Shown> = OnceLock::new();
        SHOWN.get_or_init(|| {
            let (log, numbers) = (Arc::<Log>::default(), Arc::<Numbers>::default());
            tracing::subscriber::set_global_default(Subscriber(Arc::clone(&log))).unwrap();
            metrics::set_global_recorder(Recording(Arc::clone(&numbers)))
                .map_err(|_| "there is a recorder already")
                .unwrap();
            Self { log, numbers }
        })
    }

    fn spans(&self, name: &str, fields: &[(&str, &str)]) -> Vec<Seen> {
        let spans = self.log.spans.lock().unwrap();
        let spans = spans.iter();
        spans
            .filter(|seen| seen.name == name && seen.has(fields))
            .cloned()
            .collect()
    }

    fn events(&self, level: Level, fields: &[(&str, &str)]) -> Vec<Seen> {
        let events = self.log.events.lock().unwrap();
        let events = events.iter();
        events
            .filter(|seen| seen.level == level && seen.has(fields))
            .cloned()
            .collect()
    }
}

macro_rules! kinds {
    ($($protocol:ident $server:ident $kind:literal;)*) => {
        $(
            #[derive(Debug)]
            struct $protocol;

            impl Protocol for $protocol {
                const KIND: &'static str = $kind;
            }

            impl Message<$protocol> for Take {
                const NAME: &'static str = "Take";
                type Reply = u64;
            }

            impl Message<$protocol> for Lock {
                const NAME: &'static str = "Lock";
                type Reply = u64;
            }

            struct $server;

            impl Server for $server {
                type Protocol = $protocol;
                type State = u64;

                fn init(&self, _: &ReadContext<'_>) -> Result<u64, Failure> {
                    Ok(0)
                }

                fn routes(routes: Routes<Self>) -> Routes<Self> {
                    routes.handle::<Take>().locked::<Lock>()
                }
            }

            impl Handle<Take> for $server {
                fn handle(
                    &self,
                    taken: &mut u64,
                    take: Take,
                    _: &mut Context<'_, Self>,
                ) -> Result<Outcome<u64>, Failure> {
                    std::thread::sleep(Duration::from_millis(take.ms));
                    if take.fails {
                        return Err(Failure::fail("as it was asked to"));
                    }
                    *taken += 1;
                    Ok(Outcome::Reply(*taken))
                }
            }

            impl Handle<Lock> for $server {
                fn handle(
                    &self,
                    _: &mut u64,
                    _: Lock,
                    _: &mut Context<'_, Self>,
                ) -> Result<Outcome<u64>, Failure> {
                    Ok(Outcome::Lock)
                }
            }

            impl Locked<Lock> for $server {
                type Output = ();

                async fn run(&self, _: u64, _: Lock, _: LockContext) -> Result<(), Failure> {
                    Ok(())
                }

                fn close(
                    &self,
                    taken: &mut u64,
                    _: Lock,
                    (): (),
                    _: &mut Context<'_, Self>,
                ) -> Result<Outcome<u64>, Failure> {
                    Ok(Outcome::Reply(*taken))
                }
            }
        )*
    };
}

/// Takes its time, then counts or fails.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Take {
    ms: u64,
    fails: bool,
}

/// Runs under the lock.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lock {}

kinds! {
    Tills Till "till";
    Sloths Sloth "sloth";
}

const QUICK: Take = Take {
    ms: 0,
    fails: false,
};

fn options() -> KindOptions {
    KindOptions::default()
        .attempts(2)
        .backoff(Duration::from_millis(10), Duration::from_millis(20))
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Inline and pushed, handled and failed, under a lock and not: everything is counted, and what
/// happens has its span with its fields.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_and_numbers_tell_what_happens() {
    let shown = Shown::get();
    let store = Arc::new(MemoryStore::new());
    let node = Node::builder_on(Arc::clone(&store) as _)
        .serve_with(Till, options())
        .start()
        .await
        .unwrap();
    let producer = Node::builder_on(store).start().await.unwrap();
    let far = Duration::from_secs(20);
    let inline = node.server::<Tills>("one").timeout(far);
    let pushed = producer.server::<Tills>("one").timeout(far);
    assert_eq!(inline.call(QUICK).await.unwrap(), 1);
    assert_eq!(pushed.call(QUICK).await.unwrap(), 2);
    inline.call(Lock {}).await.unwrap();
    let fails = Take { ms: 0, fails: true };
    let error = pushed.call(fails).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::DeadLetter);
    assert!(producer.shutdown(Duration::from_secs(5)).await);
    assert!(node.shutdown(Duration::from_secs(5)).await);

    let one = [("kind", "till"), ("id", "one")];
    let turns = shown.spans("abide.turn", &one);
    assert!(turns.iter().all(|turn| turn.level == Level::DEBUG));
    assert!(
        turns.iter().any(|turn| turn.has(&[("messages", "1")])),
        "{turns:?}"
    );
    assert!(
        turns
            .iter()
            .all(|turn| turn.fields.contains_key("attempts"))
    );
    let push = shown.spans("abide.push", &[("kind", "till"), ("batch", "1")]);
    assert!(push.len() >= 2, "{push:?}");
    for push in &push {
        assert_eq!(push.level, Level::INFO);
        assert!(push.has(&[("attempts", "1")]), "{push:?}");
        assert!(push.fields["bytes"].parse::<u64>().unwrap() > 0);
    }
    let lock = shown.spans("abide.lock", &one);
    assert_eq!(lock.len(), 1);
    assert!(
        lock[0].has(&[("message", "Lock"), ("attempt", "1")]),
        "{lock:?}"
    );
    let runs = shown.spans("abide.message", &[("message", "Take"), ("attempt", "2")]);
    assert_eq!(runs.len(), 1, "the failed message's second attempt");
    let dead = [
        ("name", "Take"),
        ("attempts", "2"),
        ("error", "as it was asked to"),
    ];
    assert_eq!(shown.events(Level::WARN, &dead).len(), 1);

    let numbers = &shown.numbers;
    assert_eq!(numbers.count("abide_messages_failed_total{kind=till}"), 2);
    assert_eq!(numbers.count("abide_dead_letters_total{kind=till}"), 1);
    // Both of `Take`, the taking of the lock and its end.
    assert_eq!(numbers.count("abide_messages_handled_total{kind=till}"), 4);
    let turns = numbers.count("abide_turns_total{kind=till}");
    let handled = numbers.values("abide_turn_messages{kind=till}");
    assert_eq!(handled.len() as u64, turns);
    assert_eq!(handled.iter().sum::<f64>(), 4.0);
    assert_eq!(
        numbers.values("abide_turn_seconds{kind=till}").len() as u64,
        turns
    );
    assert!(numbers.count("abide_calls_total{outcome=ok,path=inline}") >= 2);
    assert!(numbers.count("abide_calls_total{outcome=ok,path=pushed}") >= 1);
    assert_eq!(
        numbers.count("abide_calls_total{outcome=dead_letter,path=pushed}"),
        1
    );
    assert!(numbers.count("abide_pushes_total{outcome=ok}") >= 2);
    let sizes = numbers.values("abide_push_batch_size{}");
    assert!(sizes.len() >= 2 && sizes.iter().all(|size| *size >= 1.0));
    assert!(numbers.values("abide_call_seconds{}").len() >= 4);
    assert!(numbers.values("abide_push_seconds{}").len() >= 2);
    assert!(
        numbers
            .values("abide_push_bytes{}")
            .iter()
            .all(|bytes| *bytes > 0.0)
    );
}

/// It has not failed yet, and one that never ends never will.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_takes_too_long_is_told_of_while_it_runs() {
    let shown = Shown::get();
    let node = Node::builder("memory:")
        .threads(1)
        .serve_with(Sloth, options().attempts(1))
        .start()
        .await
        .unwrap();
    let slow = Take {
        ms: 7_500,
        fails: false,
    };
    let one = node
        .server::<Sloths>("one")
        .timeout(Duration::from_secs(20));
    let call = tokio::spawn(async move { one.call(slow).await });
    let warned = || {
        let names = [("kind", "sloth"), ("id", "one"), ("name", "Take")];
        let warned = shown.events(Level::WARN, &names);
        let runs = |seen: &Seen| seen.name.contains("still runs");
        warned.into_iter().filter(runs).collect::<Vec<_>>()
    };
    eventually("it is told of", || !warned().is_empty()).await;
    assert!(!call.is_finished(), "it was told of when it was over");
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::DeadLetter);
    assert_eq!(warned().len(), 1, "once is enough: {:?}", warned());
    assert!(node.shutdown(Duration::from_secs(5)).await);
}

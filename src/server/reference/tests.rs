use super::*;
use crate::codec::Value;
use crate::env::BoxFuture;
use crate::server::{AnyRef, Batch};
use bytes::Bytes;
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;

struct Counting;

impl Protocol for Counting {
    const KIND: &'static str = "counter";
}

#[derive(Serialize, Deserialize)]
struct Add(u32);

impl Message<Counting> for Add {
    const NAME: &'static str = "add";
    type Reply = u32;
}

/// Takes what it gets, and answers from another thread.
#[derive(Debug, Default)]
struct Threads(Mutex<Vec<Vec<Outgoing>>>);

fn later<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, CallError>> {
    let (sender, receiver) = futures_channel::oneshot::channel();
    std::thread::spawn(move || sender.send(value).ok());
    Box::pin(receiver.map(|got| got.map_err(|_| CallErrorKind::Unavailable.into())))
}

impl Courier for Threads {
    fn cast(&self, batch: Vec<Outgoing>) -> BoxFuture<'static, Result<(), CallError>> {
        self.0.lock().unwrap().push(batch);
        later(())
    }
    fn call(&self, message: Outgoing, _: Duration) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let reply = if message.query {
            b"\xa5seven"
        } else {
            &b"\x07"[..]
        };
        later(Bytes::from_static(reply))
    }
    fn kill(&self, _: InstanceId) -> BoxFuture<'static, Result<(), CallError>> {
        later(())
    }
    fn reset(&self, _: InstanceId) -> BoxFuture<'static, Result<(), CallError>> {
        later(())
    }
}

fn threads() -> (Arc<Threads>, Ref<Counting>) {
    let threads = Arc::new(Threads::default());
    let courier = Arc::clone(&threads) as Arc<dyn Courier>;
    (threads, Ref::new(courier, "one"))
}

#[test]
fn a_reference_is_shared_freely() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let (_, counter) = threads();
    shared(&counter);
    shared(&counter.blocking());
}

#[test]
fn a_blocking_reference_waits_for_its_thread() {
    let (_, counter) = threads();
    let counter = counter.blocking();
    assert_eq!(counter.call(Add(1)).unwrap(), 7);
    counter.cast(Add(1)).unwrap();
    counter.kill().unwrap();
    counter.reset().unwrap();
    let unread = counter.query(Add(1)).unwrap_err();
    assert_eq!(unread.kind(), CallErrorKind::Decode);
}

#[test]
fn a_batch_is_handed_over_as_one() {
    let (sent, counter) = threads();
    counter.blocking().cast_all([Add(1), Add(2)]).unwrap();
    let batch = Batch::new()
        .cast(&counter, Add(3))
        .cast(&counter.clone().priority(), Add(4));
    let (_, elsewhere) = threads();
    drop(batch.send().now_or_never());
    let lanes: Vec<Vec<Lane>> = sent
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|batch| batch.iter().map(|outgoing| outgoing.lane).collect())
        .collect();
    let (ordinary, priority) = (Lane::Ordinary, Lane::Priority);
    assert_eq!(lanes, [[ordinary, ordinary], [ordinary, priority]]);
    let mixed = Batch::new().cast(&counter, Add(1)).cast(&elsewhere, Add(1));
    let error = mixed.send().now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Invalid);
}

#[test]
fn a_wrong_id_shows_with_the_first_use() {
    let (sent, counter) = threads();
    let nobody: Ref<Counting> = Ref::new(Arc::clone(counter.courier()), "");
    let error = nobody.blocking().call(Add(1)).unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Invalid);
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(
        nobody.blocking().kill().unwrap_err().kind(),
        CallErrorKind::Invalid
    );
    assert!(sent.0.lock().unwrap().is_empty());
}

#[test]
fn an_untyped_reference_speaks_in_values() {
    let (sent, counter) = threads();
    let one = InstanceId::new("counter", "one").unwrap();
    let any = AnyRef::new(Arc::clone(counter.courier()), one).priority();
    let message = Value::from_typed(&Add(2)).unwrap();
    drop(any.cast("add", &message).now_or_never());
    drop(counter.priority().cast(Add(2)).now_or_never());
    let sent = sent.0.lock().unwrap();
    assert_eq!(sent[0], sent[1]);
}

#[test]
fn an_untyped_reference_sends_several_at_once_and_joins_batches() {
    let sent = Arc::new(Threads::default());
    let counter: Ref<Counting> = Ref::new(Arc::clone(&sent) as Arc<dyn Courier>, "one");
    let one = InstanceId::new("counter", "one").unwrap();
    let any = AnyRef::new(Arc::clone(counter.courier()), one);
    let (first, second) = (
        Value::from_typed(&Add(1)).unwrap(),
        Value::from_typed(&Add(2)).unwrap(),
    );
    drop(
        any.cast_all([("add", &first), ("add", &second)])
            .now_or_never(),
    );
    drop(counter.cast_all([Add(1), Add(2)]).now_or_never());
    let batch = Batch::new()
        .cast(&counter, Add(1))
        .cast_any(&any, "add", &second);
    drop(batch.send().now_or_never());
    let sent = sent.0.lock().unwrap();
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[0].len(), 2);
    assert!(sent.iter().all(|batch| *batch == sent[0]));
}

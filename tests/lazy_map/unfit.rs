//! What is stored and cannot be read is no message's fault: nothing is counted, and once it is mended
//! everything goes on.

use crate::counted::CountedStore;
use crate::shelf::{Copy, Do, Keeper, Shelving};
use crate::states::LazyShelf;
use crate::{Place, memory, serving, stop};
use abide::Node;
use abide::store::{KeyRange, KeyValue, Store};
use bytes::Bytes;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// Longer than all back-offs together, and than the lease.
const A_WHILE: Duration = Duration::from_millis(1_500);

async fn rows(store: &Arc<dyn Store>) -> Vec<KeyValue> {
    let tx = store.begin().unwrap();
    let all = KeyRange::new(&b""[..], &b"\xff"[..]);
    tx.get_range(all.read()).await.unwrap()
}

async fn put(store: &Arc<dyn Store>, rows: &[KeyValue]) {
    let tx = store.begin().unwrap();
    for row in rows {
        tx.set(&row.key, &row.value);
    }
    tx.commit().await.unwrap();
}

/// The one row whose key ends so.
async fn row(store: &Arc<dyn Store>, end: &[u8]) -> KeyValue {
    let rows = rows(store).await;
    let mut found = rows.into_iter().filter(|row| row.key.ends_with(end));
    let row = found.next().unwrap();
    assert!(found.next().is_none());
    row
}

/// Puts a number where a text was; returns what was there.
async fn damaged(store: &Arc<dyn Store>, key: u8) -> KeyValue {
    let text = row(store, &[b"texts\0", &[0x15, key][..]].concat()).await;
    let number = row(store, b"turns\0").await;
    let value = number.value;
    let key = text.key.clone();
    put(store, &[KeyValue { key, value }]).await;
    text
}

/// The state's version as it is, and as if a later version of the server had written it.
async fn versions(store: &Arc<dyn Store>) -> [KeyValue; 2] {
    let version = row(store, b"\x02v\0").await;
    let mut newer = version.value.to_vec();
    newer[4] += 1;
    let newer = KeyValue {
        key: version.key.clone(),
        value: Bytes::from(newer),
    };
    [version, newer]
}

/// A store with ten short texts.
async fn filled() -> Arc<dyn Store> {
    let store = memory();
    let node = serving(&store, Keeper::<LazyShelf>::new()).await;
    let fill = node.server::<Shelving>("one").call(Do::Fill(0, 10, 3));
    fill.await.unwrap();
    stop(node).await;
    store
}

type Copying = tokio::task::JoinHandle<Result<Vec<Option<String>>, abide::server::CallError>>;

fn copying(node: &Node, from: u64, to: u64) -> Copying {
    let shelf = node
        .server::<Shelving>("one")
        .timeout(Duration::from_secs(60));
    let prepared = true;
    tokio::spawn(async move { shelf.call(Copy { from, to, prepared }).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_read_under_a_lock_counts_for_nothing() {
    let store = filled().await;
    let text = damaged(&store, 7).await;
    let node = serving(&store, Keeper::<LazyShelf>::new()).await;
    let copied = copying(&node, 7, 20);
    tokio::time::sleep(A_WHILE).await;
    assert!(!copied.is_finished(), "{:?}", copied.await);
    put(&store, &[text]).await;
    assert_eq!(copied.await.unwrap().unwrap(), [Some("xxx".into())]);
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_state_under_a_lock_counts_for_nothing() {
    let store = filled().await;
    let text = damaged(&store, 7).await;
    let caller = Place::of(&store).node().start().await.unwrap();
    let first = serving(&store, Keeper::<LazyShelf>::new()).await;
    let copied = copying(&caller, 7, 20);
    tokio::time::sleep(A_WHILE).await;
    stop(first).await;
    // Between the first holder and the second one, a newer node has changed the state.
    let [version, newer] = versions(&store).await;
    put(&store, &[text, newer]).await;
    let second = serving(&store, Keeper::<LazyShelf>::new()).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(!copied.is_finished(), "{:?}", copied.await);
    put(&store, &[version]).await;
    assert_eq!(copied.await.unwrap().unwrap(), [Some("xxx".into())]);
    stop(second).await;
    stop(caller).await;
}

/// The run is over, and its end asks for what cannot be read: the lock is kept all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_run_waits_for_an_entry_that_cannot_be_read() {
    let store = filled().await;
    let text = damaged(&store, 7).await;
    let counted = CountedStore::new(&store);
    let through: Arc<dyn Store> = Arc::new(counted.clone());
    let nodes = [
        serving(&through, Keeper::<LazyShelf>::new()).await,
        serving(&through, Keeper::<LazyShelf>::new()).await,
    ];
    let copied = copying(&nodes[0], 1, 7);
    tokio::time::sleep(A_WHILE * 2).await;
    assert!(!copied.is_finished(), "{:?}", copied.await);
    let tally = counted.take();
    assert!(tally.rows < 100, "it is tried now and then: {tally:?}");
    put(&store, &[text]).await;
    assert_eq!(copied.await.unwrap().unwrap(), [Some("xxxxxx".into())]);
    for node in nodes {
        stop(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_read_holds_up_nothing_before_whoever_asks_for_it() {
    let store = filled().await;
    damaged(&store, 7).await;
    let caller = Place::of(&store).node().start().await.unwrap();
    let shelf = caller.server::<Shelving>("one");
    let shelf = shelf.timeout(Duration::from_secs(60));
    // They stand in the mailbox in this order, before anybody is there to take them as one batch.
    let append = |key: u64| {
        let call = shelf.call(Do::Append(vec![key], "!".into()));
        tokio::spawn(tokio::time::timeout(A_WHILE * 5, call))
    };
    let calls: Vec<_> = (0..60).map(|call| append(call % 6)).collect();
    tokio::time::sleep(A_WHILE).await;
    let bad = append(7);
    tokio::time::sleep(A_WHILE).await;
    let node = serving(&store, Keeper::<LazyShelf>::new()).await;
    for reply in join_all(calls).await {
        let reply = reply.unwrap().expect("none of them waits for the last one");
        assert!(reply.unwrap()[0].as_ref().unwrap().starts_with("xxx!"));
    }
    assert!(bad.await.unwrap().is_err(), "it waits for the entry");
    stop(node).await;
    stop(caller).await;
}

//! Lazy maps under locks, and in effects.

use crate::shelf::{Ask, Copy, Do, Keeper, Notes, Shelving};
use crate::states::{LazyShelf, PlainShelf};
use crate::{Place, memory, serving, stop};
use abide::server::CallErrorKind;
use abide::testing::harness::Harness;

fn copy(from: u64, to: u64, prepared: bool) -> Copy {
    Copy { from, to, prepared }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_under_a_lock_has_what_it_prepared_and_its_end_has_all() {
    prepared_and_closed(Place::of(&memory())).await;
}

#[cfg(feature = "fdb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_under_a_lock_has_what_it_prepared_in_a_cluster_too() {
    if let Some(place) = Place::fdb("prepared").await {
        prepared_and_closed(place).await;
    }
}

async fn prepared_and_closed(place: Place) {
    let node = place.serving(Keeper::<LazyShelf>::new()).await;
    let shelf = node.server::<Shelving>("one");
    shelf.call(Do::Fill(0, 1_000, 3)).await.unwrap();
    stop(node).await;
    let node = place.serving(Keeper::<LazyShelf>::new()).await;
    let shelf = node.server::<Shelving>("one");
    let copied = shelf.call(copy(7, 900, true)).await.unwrap();
    assert_eq!(copied, [Some("xxxxxx".into())]);
    let copied = shelf.call(copy(7_000, 901, true)).await.unwrap();
    assert_eq!(copied, [Some("xxx".into())], "there is no such entry");
    // What happens to be in memory is nothing to rely on.
    let unprepared = shelf.call(copy(7, 902, false)).await.unwrap_err();
    assert_eq!(unprepared.kind(), CallErrorKind::DeadLetter);
    assert!(
        unprepared.message().contains("lazy map"),
        "{}",
        unprepared.message()
    );
    let read = shelf.query(Ask(vec![900, 901, 902])).await.unwrap();
    let texts = ["xxxxxx", "xxx", "xxx"].map(|text| Some(text.to_owned()));
    assert_eq!(read, texts);
    stop(node).await;
}

#[tokio::test]
async fn the_harness_prepares_as_a_node_does() {
    let mut lazy = Harness::new(Keeper::<LazyShelf>::new()).unwrap();
    let mut plain = Harness::new(Keeper::<PlainShelf>::new()).unwrap();
    for message in [
        Do::Fill(0, 5, 2),
        Do::Append(vec![1, 9], "!".into()),
        Do::Reject(Box::new(Do::Clear)),
        Do::Take(2),
        Do::Remove(3),
        Do::Page(0, 3),
    ] {
        let (one, other) = (lazy.call(message.clone()), plain.call(message));
        assert_eq!(one.outcome, other.outcome);
        assert_eq!(one.changes, other.changes);
    }
    let output = lazy.run(copy(1, 4, true)).await.unwrap();
    assert_eq!(output.as_deref(), Some("xx!"));
    let closed = lazy.close(copy(1, 4, true), output);
    assert_eq!(closed.changes.len(), 2);
    assert!(closed.outcome.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_has_what_its_message_had() {
    let store = memory();
    let node = serving(&store, Keeper::<LazyShelf>::new()).await;
    let shelf = node.server::<Shelving>("one");
    shelf.call(Do::Fill(0, 100, 1)).await.unwrap();
    stop(node).await;
    let notes = Notes::default();
    let node = serving(&store, Keeper::<LazyShelf>::noting(&notes)).await;
    let shelf = node.server::<Shelving>("one");
    let append = Do::Append(vec![5], "!".into());
    let effect = Do::Effect(Box::new(append), vec![5, 6]);
    shelf.call(effect).await.unwrap();
    shelf.call(Do::Get(vec![])).await.unwrap();
    let seen = notes.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], Ok(Some("x!".into())));
    assert!(seen[1].is_err(), "nobody had asked for it");
    stop(node).await;
}

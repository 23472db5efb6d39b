//! What is read: what was asked for, and not the map.

use crate::counted::{CountedStore, Tally};
use crate::shelf::{Ask, Do, Keeper, Notes, Shelving};
use crate::states::LazyShelf;
use crate::{Place, memory, serving, stop};
use abide::Node;
use abide::server::{Activation, CallErrorKind, Ref};
use abide::store::Store;
use futures_util::future::join_all;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

async fn filled(store: &Arc<dyn Store>, entries: u64, size: usize) {
    let node = serving(store, Keeper::<LazyShelf>::new()).await;
    let shelf = node.server::<Shelving>("one");
    let page = (2_000_000 / (size as u64 + 100)).min(5_000);
    for from in (0..entries).step_by(usize::try_from(page).unwrap()) {
        let to = (from + page).min(entries);
        shelf.call(Do::Fill(from, to, size)).await.unwrap();
    }
    stop(node).await;
}

async fn counted(store: &Arc<dyn Store>, notes: &Notes) -> (Node, Ref<Shelving>, CountedStore) {
    let counted = CountedStore::new(store);
    let through: Arc<dyn Store> = Arc::new(counted.clone());
    let node = serving(&through, Keeper::<LazyShelf>::noting(notes)).await;
    let shelf = node
        .server::<Shelving>("one")
        .timeout(Duration::from_secs(60));
    (node, shelf, counted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_entry_of_a_hundred_thousand_is_read_alone() {
    let store = memory();
    filled(&store, 100_000, 10).await;
    let (node, shelf, counted) = counted(&store, &Notes::default()).await;
    let text = format!("{}!", "x".repeat(10));
    let replies = shelf.call(Do::Append(vec![77_777], "!".into())).await;
    assert_eq!(replies.unwrap(), [Some(text.clone())]);
    // The map's marker, and the entry.
    let tally = counted.take();
    assert!(tally.rows <= 2 && tally.ranges <= 2, "{tally:?}");
    assert_eq!(tally.writes, 1);
    // From memory now.
    shelf
        .call(Do::Append(vec![77_777], "!".into()))
        .await
        .unwrap();
    let (rows, ranges, writes) = (0, 0, 1);
    assert_eq!(
        counted.take(),
        Tally {
            rows,
            ranges,
            writes
        }
    );
    // What is not there is known, too, once it was asked for.
    for _ in 0..2 {
        let missing = shelf.query(Ask(vec![500_000])).await.unwrap();
        assert_eq!(missing, [None]);
    }
    assert_eq!(counted.take().rows, 0);
    // A page reads about a page.
    let page = shelf.call(Do::Page(50_000, 100)).await.unwrap();
    assert_eq!(page.len(), 100);
    let tally = counted.take();
    assert!(tally.rows <= 200 && tally.ranges <= 2, "{tally:?}");
    shelf.call(Do::Page(50_010, 80)).await.unwrap();
    assert_eq!(counted.take().rows, 0, "it is within the page before");
    // Of what is written or removed unread nothing is read, and nothing else is written.
    shelf.call(Do::Put(99_999, "new".into())).await.unwrap();
    shelf.call(Do::Remove(3)).await.unwrap();
    let tally = counted.take();
    assert_eq!(tally.rows, 0);
    assert!(tally.writes <= 3, "{tally:?}");
    let read = shelf.query(Ask(vec![3, 99_999, 77_777])).await.unwrap();
    assert_eq!(read, [None, Some("new".into()), Some(format!("{text}!"))]);
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_asks_in_few_rounds() {
    let store = memory();
    filled(&store, 20_000, 10).await;
    let notes = Notes::default();
    let (node, shelf, counted) = counted(&store, &notes).await;
    let calls = (0..200_u64).map(|call| shelf.call(Do::Append(vec![call * 97], "!".into())));
    for reply in join_all(calls).await {
        assert_eq!(reply.unwrap(), [Some(format!("{}!", "x".repeat(10)))]);
    }
    let tally = counted.take();
    assert!(tally.rows <= 400, "each is read once, about: {tally:?}");
    assert!(tally.writes <= 220, "{tally:?}");
    let runs = notes.runs.load(SeqCst);
    assert!(runs <= 1_000, "each is run some times: {runs}");
    stop(node).await;
}

/// A handler is run until nothing is missing, also if it hides that something is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_result_rests_on_what_was_missing() {
    let store = memory();
    filled(&store, 100, 1).await;
    let (node, shelf, _) = counted(&store, &Notes::default()).await;
    let reply = shelf.call(Do::Careless(7)).await.unwrap();
    assert_eq!(reply, [Some("x".into())]);
    let reply = shelf.call(Do::Careless(700)).await.unwrap();
    assert_eq!(reply, [None]);
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_asks_for_too_much_fails_and_harms_no_other() {
    let store = memory();
    filled(&store, 12_000, 1).await;
    let (node, shelf, counted) = counted(&store, &Notes::default()).await;
    let too_many = shelf.call(Do::Page(0, usize::MAX));
    let too_many_rounds = shelf.call(Do::Follow(0, 150));
    let others = join_all((0..20_u64).map(|key| shelf.call(Do::Append(vec![key], "!".into()))));
    let (too_many, too_many_rounds, others) = tokio::join!(too_many, too_many_rounds, others);
    for failed in [too_many, too_many_rounds] {
        // In its second attempt it may find in memory what the first one has read.
        if let Err(error) = failed {
            assert_eq!(error.kind(), CallErrorKind::DeadLetter);
            assert!(error.message().contains("lazy maps"), "{}", error.message());
        }
    }
    for reply in others {
        assert_eq!(reply.unwrap(), [Some("x!".into())]);
    }
    // A query that asks for too much is answered, too.
    let failed = shelf.query(Ask((0..12_000).rev().collect())).await;
    assert!(failed.is_err() || failed.is_ok_and(|texts| texts.len() == 12_000));
    assert!(counted.take().rows < 200_000);
    // What is too much for one batch is not too much for its messages one by one.
    let pages = (0..10_u64).map(|page| shelf.call(Do::Page(page * 1_000, 3_000)));
    for page in join_all(pages).await {
        assert_eq!(page.unwrap().len(), 3_000);
    }
    stop(node).await;
}

/// A batch ends before the message that asks for too much, without what that had begun to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_message_did_before_it_asked_for_too_much_is_undone() {
    let store = memory();
    // More than a message may load, and than a node keeps.
    filled(&store, 12_000, 400).await;
    let (node, shelf, _) = counted(&store, &Notes::default()).await;
    for round in 0..3_u64 {
        let append = |key| shelf.call(Do::Append(vec![round * 100 + key], "!".into()));
        let too_much = shelf.call(Do::All(vec![
            Do::Put(11_000, "wrong".into()),
            Do::Append(vec![11_001], "wrong".into()),
            Do::Page(0, usize::MAX),
        ]));
        let (before, failed, behind) = tokio::join!(
            join_all((0..20).map(append)),
            too_much,
            join_all((20..40).map(append)),
        );
        assert_eq!(failed.unwrap_err().kind(), CallErrorKind::DeadLetter);
        let text = "x".repeat(400);
        for reply in before.into_iter().chain(behind) {
            assert_eq!(reply.unwrap(), [Some(format!("{text}!"))]);
        }
        let read = shelf.query(Ask(vec![11_000, 11_001])).await.unwrap();
        assert_eq!(read, [Some(text.clone()), Some(text)]);
    }
    stop(node).await;
}

/// What was loaded is dropped when it has become too much, and nobody can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_forgets_what_it_has_loaded_when_that_becomes_too_much() {
    let store = memory();
    let size = 50_000;
    filled(&store, 200, size).await;
    let notes = Notes::default();
    let (node, shelf, counted) = counted(&store, &notes).await;
    for round in 1..=3_usize {
        for key in 0..200_u64 {
            let text = shelf.call(Do::Append(vec![key], "!".into())).await.unwrap();
            let text = text[0].as_ref().unwrap();
            assert_eq!(text.len(), size + round);
            // And what is undone now is undone in what was loaded since.
            if key % 50 == 0 {
                let undone = Do::Reject(Box::new(Do::Append(vec![key], "?".into())));
                shelf.call(undone).await.unwrap_err();
            }
        }
        // More than fits: each round has to read all of it again, and not much more than that.
        let tally = counted.take();
        assert!((200..=500).contains(&tally.rows), "{tally:?}");
    }
    assert_eq!(*notes.activations.lock().unwrap(), [Activation::Loaded]);
    assert_eq!(notes.deactivations.load(SeqCst), 0);
    // What fits stays.
    for key in 0..10_u64 {
        shelf.call(Do::Append(vec![key], "!".into())).await.unwrap();
    }
    counted.take();
    for key in 0..10_u64 {
        shelf.call(Do::Append(vec![key], "!".into())).await.unwrap();
    }
    let tally = counted.take();
    assert!(tally.rows <= 11, "{tally:?}");
    stop(node).await;
}

/// Nothing but clears: what was removed unread is known to be gone, and that takes memory, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_not_there_are_forgotten_too() {
    let store = memory();
    filled(&store, 10, 1).await;
    let notes = Notes::default();
    let (node, shelf, _) = counted(&store, &notes).await;
    for from in (0..60_000_u64).step_by(2_000) {
        let keys: Vec<u64> = (from + 1_000..from + 3_000).collect();
        let missing = shelf.query(Ask(keys)).await.unwrap();
        assert!(missing.iter().all(Option::is_none));
    }
    assert_eq!(shelf.query(Ask(vec![3])).await.unwrap(), [Some("x".into())]);
    assert_eq!(*notes.activations.lock().unwrap(), [Activation::Loaded]);
    stop(node).await;
}

/// Each asks for what is first once the one before it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_slow_messages_that_ask_one_after_the_other_is_not_run_over_and_over() {
    let store = memory();
    filled(&store, 2_000, 1).await;
    for (calls, millis) in [(60, 15), (300, 0)] {
        let notes = Notes::default();
        let (node, shelf, counted) = counted(&store, &notes).await;
        let first = shelf.call(Do::Page(0, 1)).await.unwrap();
        let first = first[0].as_ref().unwrap().strip_suffix(" x").unwrap();
        let first: u64 = first.parse().unwrap();
        counted.take();
        let popped = join_all((0..calls).map(|_| shelf.call(Do::Pop(millis)))).await;
        for (key, reply) in (first..).zip(popped) {
            assert_eq!(reply.unwrap(), [Some(format!("{key} x"))]);
        }
        let runs = notes.runs.load(SeqCst);
        let tally = counted.take();
        match millis {
            // Once to ask, once to be done, and once for each time a batch ended before them.
            15 => assert!(runs <= 6 * calls, "{runs} runs"),
            // One round brings a page.
            _ => assert!(tally.ranges <= 50, "{tally:?}"),
        }
        stop(node).await;
    }
}

/// A range needs no more rounds, and loads no more, if much of it is known in pieces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_which_pieces_are_known_is_read_in_one_round() {
    read_a_range_after_pieces(Place::of(&memory())).await;
}

#[cfg(feature = "fdb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_which_pieces_are_known_is_read_in_one_round_from_a_cluster() {
    if let Some(place) = Place::fdb("ranges").await {
        read_a_range_after_pieces(place).await;
    }
}

async fn read_a_range_after_pieces(place: Place) {
    let notes = Notes::default();
    let node = place.serving(Keeper::<LazyShelf>::noting(&notes)).await;
    let shelf = node.server::<Shelving>("one");
    for from in [0, 3_000, 6_000] {
        shelf.call(Do::Fill(from, from + 3_000, 1)).await.unwrap();
    }
    stop(node).await;
    let node = place.serving(Keeper::<LazyShelf>::noting(&notes)).await;
    let shelf = node.server::<Shelving>("one");
    for piece in 0..150_u64 {
        let page = shelf.call(Do::Page(piece * 60, 1)).await.unwrap();
        assert_eq!(page, [Some(format!("{} x", piece * 60))]);
    }
    let runs = notes.runs.load(SeqCst);
    let page = shelf.call(Do::Page(0, usize::MAX)).await.unwrap();
    assert_eq!(page.len(), 9_000);
    assert!(notes.runs.load(SeqCst) <= runs + 3);
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_behind_many_entries_that_were_removed_unread_is_read_in_one_round() {
    let store = memory();
    filled(&store, 9_000, 1).await;
    let notes = Notes::default();
    let (node, shelf, _) = counted(&store, &notes).await;
    let removals = (0..6_000).map(Do::Remove);
    let all = removals.chain([Do::Page(0, 10)]).collect();
    let page = shelf.call(Do::All(all)).await.unwrap();
    let expected: Vec<_> = (6_000..6_010).map(|key| Some(format!("{key} x"))).collect();
    assert_eq!(page, expected);
    assert!(notes.runs.load(SeqCst) <= 3);
    stop(node).await;
}

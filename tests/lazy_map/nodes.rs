//! Several nodes, several versions of the server, undone messages: always the same map.

use crate::counted::is_text;
use crate::shelf::{Ask, Do, Keeper, Shelving, Texts, perform};
use crate::states::{ConvertedShelf, LazyShelf, PlainShelf, Shelf};
use crate::{Place, memory, serving, stop};
use abide::Node;
use abide::server::{CallErrorKind, Ref};
use abide::store::{self, KeyRange, Store};
use futures_util::future::join_all;
use std::sync::Arc;

fn shelf(node: &Node) -> Ref<Shelving> {
    node.server("one")
}

/// The same numbers each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }
}

fn any(numbers: &mut Numbers) -> Do {
    let key = numbers.below(40);
    let inner = |numbers: &mut Numbers| Box::new(any(numbers));
    match numbers.below(24) {
        0..4 => Do::Append(
            (0..numbers.below(4)).map(|_| numbers.below(40)).collect(),
            "+".into(),
        ),
        4..7 => Do::Put(key, numbers.below(9).to_string()),
        7 => Do::Put(key, "long".repeat(50_000)),
        8..11 => Do::Get((0..numbers.below(5)).map(|_| numbers.below(40)).collect()),
        11..14 => Do::Page(key, usize::try_from(numbers.below(9)).unwrap()),
        14..17 => Do::Remove(key),
        17 => Do::Take(key),
        18 if numbers.below(4) == 0 => Do::Clear,
        19 => Do::Fill(key, key + 5, 3),
        20 => Do::Reject(inner(numbers)),
        21 => Do::Careless(key),
        _ => Do::Append(vec![key], "-".into()),
    }
}

async fn agree(shelf: &Ref<Shelving>, model: &mut PlainShelf, message: Do) {
    let mut tried = model.clone();
    let expected = perform(&mut tried, &message);
    let found = shelf.call(message.clone()).await;
    match expected {
        Ok(texts) => {
            assert_eq!(found.unwrap(), texts, "{message:?}");
            *model = tried;
        }
        Err(_) => assert_eq!(found.unwrap_err().kind(), CallErrorKind::Rejected),
    }
}

async fn all(shelf: &Ref<Shelving>) -> Texts {
    shelf.call(Do::Page(0, 1_000)).await.unwrap()
}

async fn run_everywhere(places: [Place; 2], steps: u64) {
    let mut nodes = [
        places[0].serving(Keeper::<LazyShelf>::new()).await,
        places[1].serving(Keeper::<LazyShelf>::new()).await,
    ];
    let mut numbers = Numbers(7);
    let mut model = PlainShelf::default();
    for step in 0..steps {
        let node = usize::try_from(numbers.below(8) / 6).unwrap();
        agree(&shelf(&nodes[node]), &mut model, any(&mut numbers)).await;
        if step % 61 == 60 {
            let begun = places[node].serving(Keeper::<LazyShelf>::new()).await;
            stop(std::mem::replace(&mut nodes[node], begun)).await;
        }
    }
    let expected: Texts = perform(&mut model, &Do::Page(0, 1_000)).unwrap();
    for node in nodes {
        assert_eq!(all(&shelf(&node)).await, expected);
        stop(node).await;
    }
    // The next version of the server has a plain map.
    let plain = places[0].serving(Keeper::<PlainShelf>::new()).await;
    assert_eq!(all(&shelf(&plain)).await, expected);
    stop(plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_and_restarts_show_one_map() {
    let place = Place::of(&memory());
    run_everywhere([place.clone(), place], 1_000).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_and_restarts_show_one_map_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("store.db").display());
    let (one, other) = (store::open(&url).await, store::open(&url).await);
    let places = [one, other].map(|store| Place::of(&store.unwrap()));
    run_everywhere(places, 200).await;
}

#[cfg(feature = "fdb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_and_restarts_show_one_map_in_a_cluster() {
    if let Some(place) = Place::fdb("one map").await {
        run_everywhere([place.clone(), place], 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_at_once_lose_no_change() {
    let store = memory();
    let nodes = [
        serving(&store, Keeper::<LazyShelf>::new()).await,
        serving(&store, Keeper::<LazyShelf>::new()).await,
    ];
    shelf(&nodes[0]).call(Do::Fill(0, 50, 0)).await.unwrap();
    let work = (0..8_u64).map(|task| {
        let shelf = shelf(&nodes[usize::try_from(task % 2).unwrap()]);
        tokio::spawn(async move {
            for step in 0..25_u64 {
                let keys = vec![(task * 7 + step * 3) % 60, (task + step) % 60 + 100];
                shelf.call(Do::Append(keys, "+".into())).await.unwrap();
            }
        })
    });
    for task in join_all(work).await {
        task.unwrap();
    }
    for node in &nodes {
        let texts = all(&shelf(node)).await.into_iter().flatten();
        let added: usize = texts.map(|text| text.matches('+').count()).sum();
        assert_eq!(added, 8 * 25 * 2);
    }
    for node in nodes {
        stop(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_undone_message_did_is_undone_however_it_ended() {
    let store = memory();
    let mut node = serving(&store, Keeper::<LazyShelf>::new()).await;
    shelf(&node).call(Do::Fill(0, 100, 1)).await.unwrap();
    let expected = all(&shelf(&node)).await;
    for warm in [false, true] {
        if !warm {
            stop(node).await;
            node = serving(&store, Keeper::<LazyShelf>::new()).await;
        }
        let shelf = shelf(&node);
        let changes = || {
            vec![
                Do::Append(vec![3, 300], "!".into()),
                Do::Put(4, "?".into()),
                Do::Remove(5),
                Do::Take(6),
                Do::Page(0, 20),
                Do::Clear,
                Do::Fill(90, 120, 2),
            ]
        };
        for change in changes() {
            let change = Box::new(change);
            let rejected = shelf.call(Do::Reject(change.clone())).await.unwrap_err();
            assert_eq!(rejected.kind(), CallErrorKind::Rejected);
            for ended in [Do::Fail(change.clone()), Do::Panic(change)] {
                // In the midst of others, which are run again without it.
                let (put, ended, get) = tokio::join!(
                    shelf.call(Do::Put(50, "x".into())),
                    shelf.call(ended),
                    shelf.call(Do::Append(vec![51], String::new())),
                );
                assert!(put.is_ok());
                assert_eq!(ended.unwrap_err().kind(), CallErrorKind::DeadLetter);
                assert_eq!(get.unwrap(), [Some("x".into())]);
            }
            assert_eq!(all(&shelf).await, expected);
        }
    }
    stop(node).await;
}

/// Exchanges the versions of a server whose map is plain, lazy, plain again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_and_lazy_maps_follow_each_other() {
    async fn version<S: Shelf>(
        store: &Arc<dyn Store>,
        numbers: &mut Numbers,
        model: &mut PlainShelf,
    ) {
        let node = serving(store, Keeper::<S>::new()).await;
        let shelf = shelf(&node);
        for _ in 0..60 {
            agree(&shelf, model, any(numbers)).await;
        }
        let expected = perform(model, &Do::Page(0, 1_000)).unwrap();
        assert_eq!(all(&shelf).await, expected);
        stop(node).await;
    }
    let store = memory();
    let (mut numbers, mut model) = (Numbers(11), PlainShelf::default());
    for _ in 0..3 {
        version::<PlainShelf>(&store, &mut numbers, &mut model).await;
        version::<LazyShelf>(&store, &mut numbers, &mut model).await;
        version::<ConvertedShelf>(&store, &mut numbers, &mut model).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_entries_are_read_and_replaced_whole() {
    let store = memory();
    let long = |letter: &str| letter.repeat(300_000);
    let node = serving(&store, Keeper::<LazyShelf>::new()).await;
    for key in 0..4_u64 {
        shelf(&node).call(Do::Put(key, long("a"))).await.unwrap();
    }
    stop(node).await;
    let node = serving(&store, Keeper::<LazyShelf>::new()).await;
    let shelf = shelf(&node);
    // Unread: nobody knows how many pieces it is in.
    shelf.call(Do::Put(0, "short".into())).await.unwrap();
    shelf.call(Do::Remove(1)).await.unwrap();
    let appended = shelf.call(Do::Append(vec![2], long("b"))).await.unwrap();
    assert_eq!(appended, [Some(long("a") + &long("b"))]);
    shelf.call(Do::Put(2, "short".into())).await.unwrap();
    let expected = [
        Some("short".into()),
        None,
        Some("short".into()),
        Some(long("a")),
    ];
    assert_eq!(shelf.query(Ask((0..4).collect())).await.unwrap(), expected);
    stop(node).await;
    let plain = serving(&store, Keeper::<PlainShelf>::new()).await;
    let read = plain
        .server::<Shelving>("one")
        .query(Ask((0..4).collect()))
        .await;
    assert_eq!(read.unwrap(), expected);
    stop(plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_and_a_kill_leave_nothing_of_a_map_on_any_node() {
    let store = memory();
    let nodes = [
        serving(&store, Keeper::<LazyShelf>::new()).await,
        serving(&store, Keeper::<LazyShelf>::new()).await,
    ];
    for kill in [false, true] {
        shelf(&nodes[0]).call(Do::Fill(0, 300, 5)).await.unwrap();
        for node in &nodes {
            let read = shelf(node).query(Ask(vec![7])).await.unwrap();
            assert_eq!(read, [Some("xxxxx".into())]);
        }
        match kill {
            true => shelf(&nodes[0]).kill().await.unwrap(),
            false => shelf(&nodes[0]).reset().await.unwrap(),
        }
        let tx = store.begin().unwrap();
        let rows = tx
            .get_range(KeyRange::new(&b""[..], &b"\xff"[..]).read())
            .await
            .unwrap();
        assert!(!rows.iter().any(|row| is_text(&row.key)));
        if !kill {
            for node in nodes.iter().rev() {
                let read = shelf(node).query(Ask(vec![7, 299])).await.unwrap();
                assert_eq!(read, [None, None]);
                assert_eq!(all(&shelf(node)).await, Texts::new());
            }
        }
    }
    for node in nodes {
        stop(node).await;
    }
}

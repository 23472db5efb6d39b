//! G5: no handler sees a cached state that is not the committed one.

use crate::support::{Add, Append, Keep, Kept, Lines, NodeExt, Probe, Sum, World, eventually};
use serde_bytes::ByteBuf;

on_each_store!(
    g05_two_nodes_that_take_turns_see_each_others_changes,
    g05_two_nodes_at_once_lose_no_change,
    g05_a_query_sees_what_another_node_committed,
    g05_a_reset_and_a_kill_invalidate_every_cache,
    a_state_survives_restarts_and_is_loaded_then,
    idle_instances_leave_the_cache_and_come_back,
    the_hooks_are_told_why_a_state_comes_and_goes,
);

async fn g05_two_nodes_that_take_turns_see_each_others_changes(world: World) {
    let probe = Probe::new();
    let (a, b) = (
        world.serving(&probe).await,
        world.serving(&Probe::new()).await,
    );
    for round in 0..15_u64 {
        let big = ByteBuf::from(vec![round as u8; 1_000 + 20_000 * (round as usize % 7)]);
        assert_eq!(
            a.actor("till").call(Add { n: 1 }).await.unwrap(),
            2 * round + 1
        );
        b.actor("till")
            .call(Keep { data: big.clone() })
            .await
            .unwrap();
        assert_eq!(
            b.actor("till").call(Add { n: 1 }).await.unwrap(),
            2 * round + 2
        );
        let text = round.to_string();
        assert_eq!(
            a.actor("till").call(Append { text }).await.unwrap(),
            round + 1
        );
        assert_eq!(a.actor("till").query(Kept {}).await.unwrap(), big);
    }
    a.stop().await;
    b.stop().await;
}

async fn g05_two_nodes_at_once_lose_no_change(world: World) {
    let (a, b) = (
        world.serving(&Probe::new()).await,
        world.serving(&Probe::new()).await,
    );
    let tasks: Vec<_> = (0..6)
        .map(|task| {
            let till = if task % 2 == 0 {
                a.actor("till")
            } else {
                b.actor("till")
            };
            tokio::spawn(async move {
                let mut sums = Vec::new();
                for _ in 0..15 {
                    sums.push(till.call(Add { n: 1 }).await.unwrap());
                }
                sums
            })
        })
        .collect();
    let mut sums = Vec::new();
    for task in tasks {
        sums.extend(task.await.unwrap());
    }
    sums.sort_unstable();
    assert_eq!(sums, (1..=90).collect::<Vec<_>>());
    a.stop().await;
    b.stop().await;
}

async fn g05_a_query_sees_what_another_node_committed(world: World) {
    let (a, b) = (
        world.serving(&Probe::new()).await,
        world.serving(&Probe::new()).await,
    );
    let producer = world.producer().await;
    for number in 1..=15 {
        a.actor("till").call(Add { n: 1 }).await.unwrap();
        assert_eq!(b.actor("till").query(Sum {}).await.unwrap(), number);
        assert_eq!(producer.actor("till").query(Sum {}).await.unwrap(), number);
    }
    a.stop().await;
    b.stop().await;
    producer.stop().await;
}

async fn g05_a_reset_and_a_kill_invalidate_every_cache(world: World) {
    let (a, b) = (
        world.serving(&Probe::new()).await,
        world.serving(&Probe::new()).await,
    );
    let producer = world.producer().await;
    for round in 0..4 {
        a.actor("till").call(Add { n: 5 }).await.unwrap();
        assert_eq!(b.actor("till").call(Add { n: 5 }).await.unwrap(), 10);
        match round % 2 {
            0 => producer.actor("till").reset().await.unwrap(),
            _ => b.actor("till").kill().await.unwrap(),
        }
        assert_eq!(a.sum("till").await, 0);
        assert_eq!(b.sum("till").await, 0);
    }
    assert_eq!(a.actor("till").call(Add { n: 1 }).await.unwrap(), 1);
    a.stop().await;
    b.stop().await;
    producer.stop().await;
}

async fn a_state_survives_restarts_and_is_loaded_then(world: World) {
    let data = ByteBuf::from((0..400_000_u32).map(|byte| byte as u8).collect::<Vec<_>>());
    for round in 1..=3_u64 {
        let probe = Probe::new();
        let node = world.serving(&probe).await;
        assert_eq!(node.actor("till").call(Add { n: 1 }).await.unwrap(), round);
        if round == 1 {
            node.actor("till")
                .call(Keep { data: data.clone() })
                .await
                .unwrap();
        }
        assert_eq!(node.actor("till").query(Kept {}).await.unwrap(), data);
        node.stop().await;
        let cause = if round == 1 { "Created" } else { "Loaded" };
        assert_eq!(probe.of("activated till "), [cause]);
        assert_eq!(probe.of("deactivated till "), ["Shutdown"]);
    }
}

async fn idle_instances_leave_the_cache_and_come_back(world: World) {
    let probe = Probe::new();
    let node = world.serving_with(&probe, World::options().cached(2)).await;
    for round in 1..=3 {
        for till in ["a", "b", "c", "d"] {
            assert_eq!(node.actor(till).call(Add { n: 1 }).await.unwrap(), round);
        }
    }
    // An instance that has just worked is not idle yet.
    eventually("one leaves", async || {
        for till in ["a", "b", "c", "d"] {
            assert_eq!(node.sum(till).await, 3);
        }
        !probe.of("deactivated a Evicted").is_empty()
    })
    .await;
    assert!(node.actor("a").query(Lines {}).await.unwrap().is_empty());
    eventually("it is loaded", async || {
        !probe.of("activated a Loaded").is_empty()
    })
    .await;
    node.stop().await;
}

/// What each hook is told, in order, of an instance that two nodes work on by turns, and that is removed
/// in the end.
async fn the_hooks_are_told_why_a_state_comes_and_goes(world: World) {
    let (here, there) = (Probe::new(), Probe::new());
    let a = world.serving(&here).await;
    let b = world.serving(&there).await;
    let producer = world.producer().await;
    a.actor("till").call(Add { n: 1 }).await.unwrap();
    b.actor("till").call(Add { n: 1 }).await.unwrap();
    assert_eq!(a.actor("till").call(Add { n: 1 }).await.unwrap(), 3);
    let since = |probe: &Probe, count: usize| {
        let notes = probe.notes().into_iter();
        let notes = notes.filter(|note| note.contains("activated till "));
        notes.skip(count).collect::<Vec<_>>()
    };
    let known = [
        "activated till Created",
        "deactivated till Superseded",
        "activated till Reloaded",
    ];
    assert_eq!(since(&here, 0), known);
    assert_eq!(since(&there, 0), ["activated till Loaded"]);
    // Whichever of them handles the kill has nothing to say; the next message finds that it is gone.
    producer.actor("till").kill().await.unwrap();
    assert_eq!(a.actor("till").call(Add { n: 1 }).await.unwrap(), 1);
    assert_eq!(
        since(&here, known.len()),
        ["deactivated till Removed", "activated till Created"]
    );
    producer.actor("till").reset().await.unwrap();
    assert_eq!(a.actor("till").call(Add { n: 1 }).await.unwrap(), 1);
    assert_eq!(
        since(&here, known.len() + 2),
        ["deactivated till Removed", "activated till Created"]
    );
    producer.stop().await;
    a.stop().await;
    b.stop().await;
}

//! G2: messages of one instance apply in the order in which their pushes committed, inline ones in
//! between; calls and queries are linearizable.

use crate::support::{Add, Append, NodeExt, Probe, Sum, World};
use abide::Node;
use std::time::Instant;

on_each_store!(
    g02_acknowledged_before_begun_applies_first_inline_or_pushed,
    g02_a_call_applies_after_the_casts_that_were_acknowledged,
    g02_a_batch_of_casts_keeps_its_order_and_stays_together,
    g02_calls_and_queries_of_two_nodes_are_linearizable,
);

fn line(number: usize) -> Append {
    Append {
        text: number.to_string(),
    }
}

fn numbers(lines: &[String]) -> Vec<usize> {
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

async fn g02_acknowledged_before_begun_applies_first_inline_or_pushed(world: World) {
    const ROUNDS: usize = 12;
    let (serving, other, producer) = three(&world).await;
    let mut count = 0;
    for round in 0..ROUNDS {
        for (node, cast) in [
            (&serving, false),
            (&producer, true),
            (&serving, false),
            (&other, true),
            (&serving, true),
            (&other, false),
            (&producer, round % 2 == 0),
        ] {
            let actor = node.actor("scroll");
            match cast {
                true => actor.cast(line(count)).await.unwrap(),
                false => {
                    let length = actor.call(line(count)).await.unwrap();
                    assert_eq!(length, count as u64 + 1, "everything before was applied");
                }
            }
            count += 1;
        }
    }
    producer.actor("scroll").call(line(count)).await.unwrap();
    let expected: Vec<usize> = (0..=count).collect();
    assert_eq!(numbers(&serving.lines("scroll").await), expected);
    stop([serving, other, producer]).await;
}

async fn g02_a_call_applies_after_the_casts_that_were_acknowledged(world: World) {
    let (serving, other, producer) = three(&world).await;
    for round in 1..=8_u64 {
        // More than one batch, so that the call comes while the mailbox is being worked off.
        let adds = (0..300).map(|_| Add { n: 1 });
        producer.actor("till").cast_all(adds).await.unwrap();
        let node = if round % 2 == 0 { &serving } else { &other };
        let sum = node.actor("till").call(Add { n: 0 }).await.unwrap();
        assert_eq!(sum, round * 300);
    }
    stop([serving, other, producer]).await;
}

async fn g02_a_batch_of_casts_keeps_its_order_and_stays_together(world: World) {
    const BATCHES: usize = 6;
    const SIZE: usize = 20;
    let (serving, other, producer) = three(&world).await;
    let tasks: Vec<_> = [&serving, &other, &producer]
        .into_iter()
        .enumerate()
        .map(|(writer, node)| {
            let actor = node.actor("scroll");
            tokio::spawn(async move {
                for batch in 0..BATCHES {
                    let first = (writer * BATCHES + batch) * SIZE;
                    actor
                        .cast_all((first..first + SIZE).map(line))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    serving.actor("scroll").call(Add { n: 0 }).await.unwrap();
    let lines = numbers(&serving.lines("scroll").await);
    assert_eq!(lines.len(), 3 * BATCHES * SIZE);
    let mut last = [None; 3];
    for batch in lines.chunks(SIZE) {
        let first = batch[0];
        assert_eq!(first % SIZE, 0);
        assert_eq!(batch, (first..first + SIZE).collect::<Vec<_>>());
        let writer = first / SIZE / BATCHES;
        assert!(
            last[writer] < Some(first),
            "{writer} wrote {first} after {last:?}"
        );
        last[writer] = Some(first);
    }
    stop([serving, other, producer]).await;
}

/// What a call or a query found, and when it was under way.
struct Seen {
    began: Instant,
    ended: Instant,
    sum: u64,
    added: bool,
}

async fn g02_calls_and_queries_of_two_nodes_are_linearizable(world: World) {
    const TIMES: u64 = 15;
    let (serving, other, producer) = three(&world).await;
    let mut tasks = Vec::new();
    for node in [&serving, &other, &producer, &serving, &other, &producer] {
        let actor = node.actor("till");
        tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            for time in 0..TIMES {
                let added = time % 3 != 2;
                let began = Instant::now();
                let sum = match added {
                    true => actor.call(Add { n: 1 }).await.unwrap(),
                    false => actor.query(Sum {}).await.unwrap(),
                };
                let ended = Instant::now();
                seen.push(Seen {
                    began,
                    ended,
                    sum,
                    added,
                });
            }
            seen
        }));
    }
    let mut seen = Vec::new();
    for task in tasks {
        seen.extend(task.await.unwrap());
    }
    let mut sums: Vec<u64> = seen
        .iter()
        .filter(|seen| seen.added)
        .map(|seen| seen.sum)
        .collect();
    sums.sort_unstable();
    assert_eq!(
        sums,
        (1..=6 * TIMES * 2 / 3).collect::<Vec<_>>(),
        "each call once"
    );
    for earlier in &seen {
        for later in seen.iter().filter(|later| earlier.ended < later.began) {
            let least = earlier.sum + u64::from(later.added);
            assert!(later.sum >= least, "{} after {}", later.sum, earlier.sum);
        }
    }
    stop([serving, other, producer]).await;
}

/// Two nodes that serve, and one that does not.
async fn three(world: &World) -> (Node, Node, Node) {
    (
        world.serving(&Probe::new()).await,
        world.serving(&Probe::new()).await,
        world.producer().await,
    )
}

async fn stop(nodes: [Node; 3]) {
    for node in nodes {
        node.stop().await;
    }
}

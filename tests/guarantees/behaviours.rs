//! What a user of a durable server takes for granted: the behaviours of DGen's own server tests that
//! the guarantees' modules do not have already.

use crate::support::{
    Add, Answer, Ask, Blob, Keep, Kept, Lines, NodeExt, Probe, Sleep, Sum, World, eventually, ms,
    pause,
};
use abide::server::{Batch, CallErrorKind};
use serde_bytes::ByteBuf;
use std::time::Instant;

on_each_store!(
    it_counts_inline_and_from_another_node,
    instances_are_independent_of_each_other,
    many_casts_are_all_handled,
    a_batch_to_several_instances_is_sent_as_one,
    messages_and_replies_of_many_chunks_go_through,
    a_message_that_is_too_large_is_refused_at_once,
    a_kill_begins_anew_and_a_reset_keeps_the_mailbox,
    a_call_can_be_answered_by_a_later_message_and_by_another_node,
    priority_messages_go_first,
    a_slow_batch_commits_beside_the_inline_calls_of_another_node,
    a_wrong_id_is_an_error_of_the_call,
);

async fn it_counts_inline_and_from_another_node(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    for round in 0..10 {
        let from = if round % 2 == 0 { &node } else { &producer };
        assert_eq!(
            from.actor("till").call(Add { n: 2 }).await.unwrap(),
            2 * round + 2
        );
    }
    assert_eq!(producer.sum("till").await, 20);
    producer.stop().await;
    node.stop().await;
}

async fn instances_are_independent_of_each_other(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    let busy = tokio::spawn(producer.actor("busy").call(Sleep { ms: 600 }));
    pause(ms(50)).await;
    let began = Instant::now();
    // One name begins with the other, with a zero, and with what ends a text.
    let names = ["a", "a\0", "a\0b", "ab", "ä", "a\u{ff}"];
    for (number, name) in names.into_iter().enumerate() {
        let n = 10_u64.pow(number as u32);
        producer.actor(name).call(Add { n }).await.unwrap();
        node.actor(name).call(Add { n }).await.unwrap();
    }
    for (number, name) in names.into_iter().enumerate() {
        assert_eq!(
            node.sum(name).await,
            2 * 10_u64.pow(number as u32),
            "{name:?}"
        );
    }
    node.actor("a").kill().await.unwrap();
    assert_eq!(node.sum("a").await, 0);
    assert_eq!(node.sum("a\0b").await, 200);
    assert!(began.elapsed() < ms(3_000), "{:?}", began.elapsed());
    busy.await.unwrap().unwrap();
    producer.stop().await;
    node.stop().await;
}

async fn many_casts_are_all_handled(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    let casts = (0..400).map(|_| producer.actor("till").cast(Add { n: 1 }));
    for cast in futures_util::future::join_all(casts).await {
        cast.unwrap();
    }
    producer
        .actor("till")
        .cast_all((0..600).map(|_| Add { n: 1 }))
        .await
        .unwrap();
    assert_eq!(
        producer.actor("till").call(Add { n: 0 }).await.unwrap(),
        1_000
    );
    producer.stop().await;
    node.stop().await;
}

async fn a_batch_to_several_instances_is_sent_as_one(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    let (a, b) = (producer.actor("a"), producer.actor("b"));
    let batch = Batch::new().cast(&a, Add { n: 1 }).cast(&b, Add { n: 2 });
    batch.send().await.unwrap();
    let too_large = Keep {
        data: ByteBuf::from(vec![0; 11_000_000]),
    };
    let batch = Batch::new().cast(&a, Add { n: 1 }).cast(&b, too_large);
    assert_eq!(
        batch.send().await.unwrap_err().kind(),
        CallErrorKind::TooLarge
    );
    assert_eq!(a.call(Add { n: 0 }).await.unwrap(), 1, "all or nothing");
    assert_eq!(b.call(Add { n: 0 }).await.unwrap(), 2);
    producer.stop().await;
    node.stop().await;
}

async fn messages_and_replies_of_many_chunks_go_through(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    for (from, len) in [
        (&node, 1_000_000),
        (&producer, 1_000_000),
        // Eight million with the message's own frame.
        (&node, 7_999_000),
        (&producer, 7_999_000),
    ] {
        let desk = from.actor("desk");
        let reply = desk.call(Blob { len, byte: 3 }).await.unwrap();
        assert!(reply.len() == len && reply.iter().all(|byte| *byte == 3));
        let data: Vec<u8> = (0..len).map(|index| (index / 7) as u8).collect();
        let data = ByteBuf::from(data);
        assert_eq!(
            desk.call(Keep { data: data.clone() }).await.unwrap(),
            len as u64
        );
        assert!(desk.query(Kept {}).await.unwrap() == data);
    }
    assert!(
        producer
            .actor("desk")
            .query(Lines {})
            .await
            .unwrap()
            .is_empty()
    );
    producer.stop().await;
    node.stop().await;
}

async fn a_message_that_is_too_large_is_refused_at_once(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    for from in [&node, &producer] {
        let data = ByteBuf::from(vec![0; 11_000_000]);
        let error = from
            .actor("desk")
            .call(Keep { data: data.clone() })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::TooLarge);
        let error = from.actor("desk").cast(Keep { data }).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::TooLarge);
    }
    // A reply that fits no transaction is the handler's failure.
    let error = producer
        .actor("desk")
        .call(Blob {
            len: 11_000_000,
            byte: 0,
        })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::DeadLetter, "{error}");
    assert_eq!(node.actor("desk").call(Add { n: 1 }).await.unwrap(), 1);
    producer.stop().await;
    node.stop().await;
}

async fn a_kill_begins_anew_and_a_reset_keeps_the_mailbox(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    for from in [&node, &producer] {
        let desk = from.actor("desk");
        desk.call(Add { n: 5 }).await.unwrap();
        desk.kill().await.unwrap();
        assert_eq!(desk.query(Sum {}).await.unwrap(), 0);
        assert_eq!(desk.call(Add { n: 1 }).await.unwrap(), 1);
        // What stands behind a busy turn when it is reset is handled afterwards.
        let busy = tokio::spawn(desk.call(Sleep { ms: 200 }));
        pause(ms(60)).await;
        desk.cast_all((0..7).map(|_| Add { n: 1 })).await.unwrap();
        desk.reset().await.unwrap();
        busy.await.unwrap().unwrap();
        assert_eq!(desk.call(Add { n: 0 }).await.unwrap(), 7);
        desk.kill().await.unwrap();
        // Killing what does not exist is nothing special.
        desk.kill().await.unwrap();
        desk.reset().await.unwrap();
    }
    producer.stop().await;
    node.stop().await;
}

async fn a_call_can_be_answered_by_a_later_message_and_by_another_node(world: World) {
    let (a, b) = (
        world.serving(&Probe::new()).await,
        world.serving(&Probe::new()).await,
    );
    let producer = world.producer().await;
    for (asks, answers) in [
        (&a, &a),
        (&a, &b),
        (&b, &a),
        (&producer, &a),
        (&b, &producer),
    ] {
        let asking = tokio::spawn(asks.actor("desk").call(Ask {}));
        let mut answered = 0;
        eventually("it was asked", async || {
            answered += answers
                .actor("desk")
                .call(Answer { text: "yes".into() })
                .await
                .unwrap();
            answered == 1
        })
        .await;
        assert_eq!(asking.await.unwrap().unwrap(), "yes");
    }
    // A cast asks for nothing.
    producer.actor("desk").cast(Ask {}).await.unwrap();
    assert_eq!(
        a.actor("desk")
            .call(Answer { text: "no".into() })
            .await
            .unwrap(),
        1
    );
    for node in [producer, b, a] {
        node.stop().await;
    }
}

async fn priority_messages_go_first(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    let busy = tokio::spawn(producer.actor("desk").call(Sleep { ms: 250 }));
    pause(ms(60)).await;
    let line = |text: &str| crate::support::Append { text: text.into() };
    let desk = producer.actor("desk");
    desk.cast_all([line("1"), line("2")]).await.unwrap();
    desk.clone()
        .priority()
        .cast_all([line("a"), line("b")])
        .await
        .unwrap();
    desk.cast(line("3")).await.unwrap();
    busy.await.unwrap().unwrap();
    desk.call(Add { n: 0 }).await.unwrap();
    assert_eq!(node.lines("desk").await, ["a", "b", "1", "2", "3"]);
    producer.stop().await;
    node.stop().await;
}

async fn a_slow_batch_commits_beside_the_inline_calls_of_another_node(world: World) {
    let (slow, quick) = (
        world.serving(&Probe::new()).await,
        world.serving(&Probe::new()).await,
    );
    let began = Instant::now();
    let batch = tokio::spawn(slow.actor("till").call(Sleep { ms: 200 }));
    let mut calls = 0;
    while !batch.is_finished() {
        assert!(
            began.elapsed() < ms(5_000),
            "the slow one starves beside {calls} calls"
        );
        quick.actor("till").call(Add { n: 1 }).await.unwrap();
        calls += 1;
    }
    batch.await.unwrap().unwrap();
    assert_eq!(slow.sum("till").await, calls);
    slow.stop().await;
    quick.stop().await;
}

async fn a_wrong_id_is_an_error_of_the_call(world: World) {
    let node = world.serving(&Probe::new()).await;
    for id in [String::new(), "x".repeat(1_025)] {
        let actor = node.actor(&id);
        for error in [
            actor.call(Add { n: 1 }).await.unwrap_err(),
            actor.query(Sum {}).await.unwrap_err(),
            actor.cast(Add { n: 1 }).await.unwrap_err(),
            actor.kill().await.unwrap_err(),
            actor.reset().await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), CallErrorKind::Invalid);
        }
    }
    node.stop().await;
}

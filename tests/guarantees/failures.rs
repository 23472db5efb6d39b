//! G6: a failing handler changes nothing, holds up nobody but its instance, and that for its
//! back-off only.

use crate::support::{
    Add, How, NodeExt, Probe, Refuse, Sleep, Trouble, World, eventually, ms, pause,
};
use abide::durable::keys::{Key, Part};
use abide::server::CallErrorKind;
use abide::{Node, Parked, Poison};
use std::time::Instant;

on_each_store!(
    g06_a_failing_message_becomes_a_dead_letter_and_the_mailbox_goes_on,
    g06_a_panicking_message_becomes_a_dead_letter_and_the_mailbox_goes_on,
    g06_a_message_that_fails_now_and_then_is_handled_in_the_end,
    g06_a_rejection_is_an_answer_and_changes_nothing,
    g06_a_failing_message_in_a_batch_undoes_only_itself,
    g06_a_failure_costs_those_claimed_with_it_no_attempt,
    g06_a_blocking_kind_tries_for_ever_until_it_is_killed,
    g06_a_message_of_an_unknown_name_waits_and_is_seen,
    g06_a_handler_that_takes_too_long_has_failed_once_per_run,
    g06_handlers_that_are_slow_after_many_quick_ones_hold_up_nobody_else,
);

fn trouble(how: How, times: u32) -> Trouble {
    Trouble {
        how,
        times,
        text: "t".into(),
    }
}

async fn g06_a_failing_message_becomes_a_dead_letter_and_the_mailbox_goes_on(world: World) {
    dead_letter(world, How::Fail, "failed: t").await;
}

async fn g06_a_panicking_message_becomes_a_dead_letter_and_the_mailbox_goes_on(world: World) {
    dead_letter(world, How::Panic, "panicked: t").await;
}

/// The message comes from each side in turn: inline, and through the mailbox.
async fn dead_letter(world: World, how: How, why: &str) {
    let probe = Probe::new();
    let (node, producer) = (world.serving(&probe).await, world.producer().await);
    for (round, from) in [&node, &producer].into_iter().enumerate() {
        from.actor("victim").call(Add { n: 1 }).await.unwrap();
        let failing = tokio::spawn(from.actor("victim").call(trouble(how, 99)));
        eventually("it is tried", async || {
            probe.of("tried t").len() > 3 * round
        })
        .await;
        let behind = tokio::spawn(from.actor("victim").call(Add { n: 1 }));
        // Others do not wait for its back-off.
        let began = Instant::now();
        from.actor("bystander").call(Add { n: 1 }).await.unwrap();
        assert!(began.elapsed() < ms(2_000));
        let error = failing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::DeadLetter);
        assert!(error.message().contains(why), "{error}");
        assert_eq!(behind.await.unwrap().unwrap(), 2 * round as u64 + 2);
    }
    assert_eq!(attempts(&probe), [1, 2, 3, 1, 2, 3]);
    assert_eq!(probe.of("effect"), Vec::<String>::new());
    eventually("the hook is called", async || {
        probe.of("dead victim").len() == 2
    })
    .await;
    assert!(
        probe
            .of("dead victim 3 ")
            .iter()
            .all(|error| error.contains(why))
    );
    assert_eq!(node.lines("victim").await, Vec::<String>::new());
    assert_eq!(node.sum("bystander").await, 2, "a failure sends nothing");
    assert_eq!(dead_letters(&world).await, 2);
    stop(node, producer).await;
}

/// The attempts at one message after the other. One that fails in memory goes to the mailbox, where
/// attempts are counted: its first attempt shows twice.
fn attempts(probe: &Probe) -> Vec<u32> {
    let tried = probe.of("tried t ");
    let mut attempts: Vec<u32> = tried
        .iter()
        .map(|attempt| attempt.parse().unwrap())
        .collect();
    attempts.dedup();
    attempts
}

async fn dead_letters(world: &World) -> usize {
    let keys = world.decoded().await;
    let is_dead = |key: &&Key| {
        matches!(
            key,
            Key::Instance {
                part: Part::DeadLetter { chunk: 0, .. },
                ..
            }
        )
    };
    keys.iter().filter(is_dead).count()
}

async fn g06_a_message_that_fails_now_and_then_is_handled_in_the_end(world: World) {
    let probe = Probe::new();
    let (node, producer) = (world.serving(&probe).await, world.producer().await);
    for (round, from) in [&node, &producer].into_iter().enumerate() {
        let length = from
            .actor("victim")
            .call(trouble(How::Fail, 2))
            .await
            .unwrap();
        assert_eq!(length, round as u64 + 1);
    }
    assert_eq!(node.lines("victim").await, ["t", "t"]);
    assert_eq!(node.sum("victim").await, 0);
    assert_eq!(attempts(&probe), [1, 2, 3, 1, 2, 3]);
    assert_eq!(dead_letters(&world).await, 0);
    stop(node, producer).await;
}

async fn g06_a_rejection_is_an_answer_and_changes_nothing(world: World) {
    let probe = Probe::new();
    let (node, producer) = (world.serving(&probe).await, world.producer().await);
    for from in [&node, &producer] {
        let error = from
            .actor("victim")
            .call(Refuse { why: "no".into() })
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (CallErrorKind::Rejected, "no")
        );
        from.actor("victim")
            .cast(Refuse { why: "no".into() })
            .await
            .unwrap();
    }
    assert_eq!(node.actor("victim").call(Add { n: 1 }).await.unwrap(), 1);
    assert_eq!(node.lines("victim").await, Vec::<String>::new());
    assert_eq!(probe.of("effect"), Vec::<String>::new());
    assert_eq!(dead_letters(&world).await, 0);
    stop(node, producer).await;
}

async fn g06_a_failing_message_in_a_batch_undoes_only_itself(world: World) {
    let producer = world.producer().await;
    for number in 0..5 {
        let text = number.to_string();
        let how = if number == 2 { How::Panic } else { How::Fail };
        let times = if number == 2 { 99 } else { 0 };
        producer
            .actor("victim")
            .cast(Trouble { how, times, text })
            .await
            .unwrap();
        producer.actor("victim").cast(Add { n: 1 }).await.unwrap();
    }
    let probe = Probe::new();
    let node = world.serving(&probe).await;
    assert_eq!(
        producer.actor("victim").call(Add { n: 0 }).await.unwrap(),
        5
    );
    assert_eq!(node.lines("victim").await, ["0", "1", "3", "4"]);
    assert_eq!(probe.of("tried 2 ").last().unwrap(), "3");
    assert_eq!(dead_letters(&world).await, 1);
    stop(node, producer).await;
}

/// What stood in the mailbox before the process began may kill it, so it is claimed in one go. One of
/// them that fails by itself is no reason to blame the others.
async fn g06_a_failure_costs_those_claimed_with_it_no_attempt(world: World) {
    let producer = world.producer().await;
    for text in ["first", "second"] {
        let once = Trouble {
            text: text.to_owned(),
            ..trouble(How::Fail, 1)
        };
        producer.actor("victim").cast(once).await.unwrap();
    }
    producer.actor("victim").cast(Add { n: 1 }).await.unwrap();
    let probe = Probe::new();
    let node = world
        .serving_with(&probe, World::options().attempts(2))
        .await;
    eventually("the last one is handled", async || {
        node.sum("victim").await == 1
    })
    .await;
    assert_eq!(node.lines("victim").await, ["first", "second"]);
    for text in ["first", "second"] {
        let mut tried = probe.of(&format!("tried {text} "));
        tried.dedup();
        assert_eq!(tried, ["1", "2"], "{text}");
    }
    assert_eq!(dead_letters(&world).await, 0);
    stop(node, producer).await;
}

async fn g06_a_blocking_kind_tries_for_ever_until_it_is_killed(world: World) {
    let probe = Probe::new();
    let options = World::options().attempts(2).poison(Poison::Block);
    let (node, producer) = (
        world.serving_with(&probe, options).await,
        world.producer().await,
    );
    let failing = tokio::spawn(producer.actor("victim").call(trouble(How::Fail, 99)));
    eventually("it is tried", async || !probe.of("tried t").is_empty()).await;
    let behind = tokio::spawn(producer.actor("victim").call(Add { n: 1 }));
    eventually("it is tried again", async || probe.of("tried t").len() > 6).await;
    assert!(!behind.is_finished(), "nothing passes it");
    assert_eq!(node.actor("bystander").call(Add { n: 1 }).await.unwrap(), 1);
    assert_eq!(
        node.lines("victim").await,
        Vec::<String>::new(),
        "a query may look"
    );
    producer.actor("victim").kill().await.unwrap();
    for call in [failing, behind] {
        assert_eq!(
            call.await.unwrap().unwrap_err().kind(),
            CallErrorKind::Killed
        );
    }
    assert_eq!(
        producer.actor("victim").call(Add { n: 1 }).await.unwrap(),
        1
    );
    assert_eq!(dead_letters(&world).await, 0);
    stop(node, producer).await;
}

async fn g06_a_message_of_an_unknown_name_waits_and_is_seen(world: World) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    producer
        .actor("victim")
        .cast(crate::support::Foreign {})
        .await
        .unwrap();
    eventually("it is visible", async || {
        let parked = node.parked();
        let unknown =
            |reason: &Parked| matches!(reason, Parked::UnknownMessage(name) if name == "Foreign");
        parked
            .iter()
            .any(|(instance, reason)| instance.id() == "victim" && unknown(reason))
    })
    .await;
    assert_eq!(node.actor("bystander").call(Add { n: 1 }).await.unwrap(), 1);
    assert_eq!(dead_letters(&world).await, 0, "it is nobody's fault");
    producer.actor("victim").kill().await.unwrap();
    assert_eq!(
        producer.actor("victim").call(Add { n: 1 }).await.unwrap(),
        1
    );
    stop(node, producer).await;
}

/// Longer than any transaction lives, so that nothing of the run can be committed: neither its results
/// nor, in the same transaction, its failure. From each side: out of a mailbox, with a message before it
/// and one behind, and inline.
async fn g06_a_handler_that_takes_too_long_has_failed_once_per_run(world: World) {
    let producer = world.producer().await;
    producer.actor("victim").cast(Add { n: 1 }).await.unwrap();
    let slow = |text: &str| Trouble {
        text: text.to_owned(),
        ..trouble(How::Slow { ms: 6_000 }, 99)
    };
    let pushed = tokio::spawn(producer.actor("victim").call(slow("pushed")));
    eventually("it is in the mailbox", async || {
        let is_message = |key: &&Key| {
            matches!(
                key,
                Key::Instance {
                    part: Part::Message { .. },
                    ..
                }
            )
        };
        world.decoded().await.iter().filter(is_message).count() == 2
    })
    .await;
    let probe = Probe::new();
    let options = World::options().attempts(2);
    let node = world.serving_with(&probe, options).await;
    let inline = tokio::spawn(node.actor("other").call(slow("inline")));
    eventually("both are tried", async || {
        probe.of("tried pushed ").len() == 1 && probe.of("tried inline ").len() == 1
    })
    .await;
    let began = Instant::now();
    let behind = tokio::spawn(producer.actor("victim").call(Add { n: 1 }));
    // Comes before the one that is to be blamed, and has nothing to do with it.
    let first = producer.actor("victim").priority();
    let first = tokio::spawn(first.call(Add { n: 1 }));
    producer
        .actor("bystander")
        .call(Add { n: 1 })
        .await
        .unwrap();
    assert!(began.elapsed() < ms(2_000), "others do not wait for it");
    for (call, text) in [(pushed, "pushed"), (inline, "inline")] {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::DeadLetter);
        assert!(error.message().contains("the handler took"), "{error}");
        // Once per attempt, and in between for nothing but its back-off.
        assert_eq!(probe.of(&format!("tried {text} ")), ["1", "2"], "{text}");
    }
    assert!(began.elapsed() < ms(16_000), "{:?}", began.elapsed());
    first.await.unwrap().unwrap();
    assert_eq!(behind.await.unwrap().unwrap(), 3);
    assert_eq!(node.lines("victim").await, Vec::<String>::new());
    assert_eq!(dead_letters(&world).await, 2);
    stop(node, producer).await;
}

/// A kind whose handlers have been quick so often that they are trusted to be. On two threads, then on
/// one.
async fn g06_handlers_that_are_slow_after_many_quick_ones_hold_up_nobody_else(world: World) {
    let producer = world.producer().await;
    for threads in [2, 1] {
        let actor = crate::support::Actor {
            probe: Probe::new(),
        };
        let node = Node::builder_on(world.store().await)
            .namespace(world.namespace())
            .threads(threads)
            .serve_with(actor, World::options())
            .start()
            .await
            .unwrap();
        for _ in 0..100 {
            node.actor("quick").call(Add { n: 1 }).await.unwrap();
        }
        let slow: Vec<_> = ["first", "second"]
            .map(|id| tokio::spawn(node.actor(id).call(Sleep { ms: 3_000 })))
            .into();
        pause(ms(200)).await;
        let began = Instant::now();
        // One from each side, and one whose failure waits for a timer.
        node.actor("bystander").call(Add { n: 1 }).await.unwrap();
        producer
            .actor("bystander")
            .call(trouble(How::Fail, 1))
            .await
            .unwrap();
        assert!(began.elapsed() < ms(1_000), "{:?}", began.elapsed());
        assert!(
            !slow.iter().any(tokio::task::JoinHandle::is_finished),
            "they were over by then"
        );
        for slow in slow {
            slow.await.unwrap().unwrap();
        }
        node.stop().await;
    }
    producer.stop().await;
}

async fn stop(node: Node, producer: Node) {
    producer.stop().await;
    node.stop().await;
}

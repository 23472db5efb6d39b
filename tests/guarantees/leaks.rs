//! G9: when everything is done and the nodes are closed, nothing is left but what is meant to last.

use crate::support::{
    Add, AddBoth, Answer, Ask, Blob, How, Keep, Labour, NodeExt, Note, Probe, Refuse, Sleep, Then,
    Trouble, Work, World, eventually, ms, pause,
};
use abide::durable::keys::{Key, Part, SessionPart};
use abide::server::CallErrorKind;
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;

on_each_store!(
    g09_nothing_is_left_but_states_and_dead_letters,
    g09_a_timed_out_call_and_a_dropped_one_leave_nothing_while_the_session_lives,
    g09_nothing_of_a_killed_instance_is_left,
);

/// The kinds of keys that are left although they should not be.
async fn leftovers(world: &World, may_stay: impl Fn(&Part) -> bool) -> BTreeSet<String> {
    let keys = world.decoded().await;
    let is_left = |key: &&Key| match key {
        Key::Meta | Key::Directory(_) | Key::Wake { .. } => false,
        Key::Instance { part, .. } => !may_stay(part),
        _ => true,
    };
    keys.iter()
        .filter(is_left)
        .map(|key| format!("{key:?}"))
        .collect()
}

fn lasts(part: &Part) -> bool {
    matches!(
        part,
        Part::State { .. } | Part::Version | Part::DeadLetter { .. } | Part::Paused
    )
}

async fn g09_nothing_is_left_but_states_and_dead_letters(world: World) {
    let probe = Probe::new();
    let (node, other) = (
        world.serving(&probe).await,
        world.serving(&Probe::new()).await,
    );
    let producer = world.producer().await;
    for from in [&node, &other, &producer] {
        let desk = from.actor("desk");
        desk.call(AddBoth {
            n: 1,
            other: "ledger".into(),
        })
        .await
        .unwrap();
        desk.cast_all((0..30).map(|_| Add { n: 1 })).await.unwrap();
        desk.clone().priority().cast(Add { n: 1 }).await.unwrap();
        let kept = Keep {
            data: ByteBuf::from(vec![7; 300_000]),
        };
        desk.call(kept).await.unwrap();
        desk.call(Blob {
            len: 300_000,
            byte: 1,
        })
        .await
        .unwrap();
        desk.call(Refuse { why: "no".into() }).await.unwrap_err();
        desk.call(Note {
            label: "n".into(),
            then: Then::Stop,
        })
        .await
        .unwrap();
        let work = |how| Work {
            name: "w".into(),
            how,
        };
        desk.call(work(Labour::Take { ms: 5 })).await.unwrap();
        desk.call(work(Labour::Fail { times: 1 })).await.unwrap();
        desk.call(work(Labour::Fail { times: 99 }))
            .await
            .unwrap_err();
        let trouble = |times| Trouble {
            how: How::Fail,
            times,
            text: "t".into(),
        };
        desk.call(trouble(1)).await.unwrap();
        desk.call(trouble(99)).await.unwrap_err();
        let asking = tokio::spawn(from.actor("asked").call(Ask {}));
        eventually("it was asked", async || {
            desk.clone().priority().call(Add { n: 0 }).await.unwrap();
            from.actor("asked")
                .call(Answer { text: "yes".into() })
                .await
                .unwrap()
                == 1
        })
        .await;
        assert_eq!(asking.await.unwrap().unwrap(), "yes");
    }
    producer.actor("ledger").call(Add { n: 0 }).await.unwrap();
    for node in [producer, other, node] {
        node.stop().await;
    }
    assert_eq!(leftovers(&world, lasts).await, BTreeSet::new());
}

async fn g09_a_timed_out_call_and_a_dropped_one_leave_nothing_while_the_session_lives(
    world: World,
) {
    let (node, producer) = (world.serving(&Probe::new()).await, world.producer().await);
    for from in [&node, &producer] {
        let desk = from.actor("desk");
        desk.call(Add { n: 0 }).await.unwrap();
        let before = from.sum("desk").await;
        let impatient = desk.clone().timeout(ms(100));
        let busy = tokio::spawn(desk.call(Sleep { ms: 400 }));
        pause(ms(50)).await;
        let error = impatient.call(Add { n: 1 }).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::TimedOut);
        // Polled once, then dropped: only the waiting is cancelled.
        let dropped = tokio::time::timeout(ms(50), desk.call(Add { n: 1 })).await;
        assert!(dropped.is_err());
        // An answer that comes when nobody waits any more.
        let asking = from.actor("asked").timeout(ms(100)).call(Ask {});
        assert_eq!(asking.await.unwrap_err().kind(), CallErrorKind::TimedOut);
        assert_eq!(
            from.actor("asked")
                .call(Answer {
                    text: "late".into()
                })
                .await
                .unwrap(),
            1
        );
        busy.await.unwrap().unwrap();
        assert_eq!(desk.call(Add { n: 0 }).await.unwrap(), before + 2);
    }
    let is_unanswered = |key: &Key| {
        matches!(
            key,
            Key::Session {
                part: SessionPart::Reply { .. },
                ..
            }
        ) || matches!(key, Key::Instance { part, .. } if !lasts(part))
            || matches!(key, Key::Ready { .. })
    };
    let left = async || {
        let keys = world.decoded().await;
        keys.into_iter().filter(is_unanswered).collect::<Vec<_>>()
    };
    // The late replies are cleared lazily.
    for _ in 0..300 {
        if left().await.is_empty() {
            break;
        }
        pause(ms(20)).await;
    }
    assert_eq!(left().await, []);
    producer.stop().await;
    node.stop().await;
    assert_eq!(leftovers(&world, lasts).await, BTreeSet::new());
}

async fn g09_nothing_of_a_killed_instance_is_left(world: World) {
    let probe = Probe::new();
    let (node, producer) = (world.serving(&probe).await, world.producer().await);
    let desk = producer.actor("desk");
    desk.call(Keep {
        data: ByteBuf::from(vec![7; 300_000]),
    })
    .await
    .unwrap();
    let trouble = Trouble {
        how: How::Fail,
        times: 99,
        text: "t".into(),
    };
    desk.call(trouble).await.unwrap_err();
    let locked = tokio::spawn(desk.call(Work {
        name: "w".into(),
        how: Labour::Gate,
    }));
    eventually("it runs", async || !probe.of("ran w").is_empty()).await;
    desk.cast_all((0..30).map(|_| Add { n: 1 })).await.unwrap();
    let waits = [&node, &producer].map(|from| tokio::spawn(from.actor("desk").call(Add { n: 1 })));
    // Inline or pushed, they are on their way.
    pause(ms(100)).await;
    desk.kill().await.unwrap();
    assert_eq!(
        locked.await.unwrap().unwrap_err().kind(),
        CallErrorKind::Killed
    );
    for call in waits {
        assert_eq!(
            call.await.unwrap().unwrap_err().kind(),
            CallErrorKind::Killed
        );
    }
    producer.stop().await;
    node.stop().await;
    let keys = world.decoded().await;
    let left: Vec<_> = keys
        .iter()
        .filter(|key| !matches!(key, Key::Meta | Key::Wake { .. }))
        .collect();
    assert_eq!(left, Vec::<&Key>::new());
}

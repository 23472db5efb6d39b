//! `top`, driven in a terminal of its own as a user drives it.

use crate::support::{Add, Risky, Till, Tilling, World, ran, stop};
use crate::terminal::Screen;
use abide::Poison;

on_each_store!(
    top_shows_a_running_node_and_purges_and_retries_what_is_confirmed,
    top_ends_when_it_is_told_to_and_restores_the_terminal,
);

const TOP: &[&str] = &["top", "--every", "200ms"];

async fn top_shows_a_running_node_and_purges_and_retries_what_is_confirmed(world: World) {
    let node = world.serving(Till { broken: true }, Poison::Block).await;
    let desk = node.server::<Tilling>("desk");
    node.server::<Tilling>("other")
        .call(Add { n: 1 })
        .await
        .unwrap();
    desk.cast(Risky { n: 1 }).await.unwrap();
    desk.cast(Add { n: 5 }).await.unwrap();
    let top = Screen::of(&world, TOP);
    let listed = top.until("the instances", |text| {
        text.contains("till/desk") && text.contains("till/other") && text.contains("broken")
    });
    assert!(listed.contains("2 messages in 1 busy instance"), "{listed}");
    assert!(listed.contains("q quit"), "{listed}");
    top.press("/other\r");
    top.until("the filter", |text| !text.contains("till/desk"));
    top.press("\x1b");
    top.until("no filter", |text| text.contains("till/desk"));
    // By something else, and the other way round, and back again.
    assert!(top.text().contains("▼MESSAGES"), "{}", top.text());
    top.press("s");
    top.until("another order", |text| {
        !text.contains("▼MESSAGES") && text.contains('▼')
    });
    top.press("r");
    top.until("the order reversed", |text| {
        !text.contains('▼') && text.contains('▲')
    });
    top.press("r");
    for _ in 0..10 {
        if top.text().contains("▼MESSAGES") {
            break;
        }
        let before = top.text();
        top.press("s");
        top.until("the next order", |text| text != before);
    }
    top.until("the first order", |text| text.contains("▼MESSAGES"));
    // What is selected stays so without the filter. The fullest one is the first.
    top.press("k\r");
    top.until("the messages", |text| {
        text.contains("risky  {\"n\":1}") && text.contains("add  {\"n\":5}")
    });
    top.press("x");
    top.until("the question", |text| text.contains("delete message"));
    top.press("n");
    top.until("the answer", |text| text.contains("nothing was changed"));
    assert_eq!(world.done(&["mailbox", "till", "desk"]).lines().count(), 3);
    top.press("xy");
    top.until("the report", |text| text.contains("1 message deleted"));
    world
        .until(&["call", "till", "desk", "sum", "{}", "--query"], |out| {
            out == "5\n"
        })
        .await;
    top.until("the new state", |text| text.contains("state.sum = 5"));
    stop(node).await;

    // What is dead is put back.
    let node = world
        .serving(Till { broken: true }, Poison::DeadLetter)
        .await;
    node.server::<Tilling>("desk")
        .call(Risky { n: 7 })
        .await
        .unwrap_err();
    stop(node).await;
    let node = world
        .serving(Till { broken: false }, Poison::DeadLetter)
        .await;
    top.until("the dead letter", |text| {
        text.contains("the scale is broken")
    });
    top.press("T");
    top.until("the question", |text| text.contains("(1 dead letter)"));
    top.press("y");
    top.until("the sum", |text| text.contains("state.sum = 12"));

    // One of them alone; and then everything that waits goes.
    world.done(&["pause", "till", "desk"]);
    world.done(&["cast", "till", "desk", "add", r#"{"n":100}"#]);
    world.done(&["purge", "till", "desk", "--head", "--to-dead", "--yes"]);
    top.until("the letter", |text| text.contains("an operator has moved"));
    top.press("t");
    top.until("the question", |text| text.contains("put dead letter"));
    top.press("y");
    top.until("the message", |text| {
        text.contains("1 dead letter put back") && text.contains("ordinary")
    });
    world.done(&["cast", "till", "desk", "add", r#"{"n":200}"#]);
    top.press("X");
    top.until("the question", |text| text.contains("delete all messages"));
    top.press("y");
    top.until("the report", |text| text.contains("2 messages deleted"));
    assert_eq!(world.done(&["mailbox", "till", "desk"]), "");
    world.done(&["resume", "till", "desk"]);
    top.press("q");
    assert_eq!(top.ended(), 0);
    stop(node).await;
}

async fn top_ends_when_it_is_told_to_and_restores_the_terminal(world: World) {
    let node = world.producer().await;
    for end in ["q", "\x03", "TERM", "INT", "HUP"] {
        let top = Screen::of(&world, TOP);
        top.until("the view", |text| text.contains("0 messages in 0 busy"));
        match end.len() {
            1 => top.press(end),
            _ => {
                let pid = top.pid().to_string();
                let mut kill = std::process::Command::new("kill");
                assert_eq!(ran(kill.args([&format!("-{end}"), &pid])).code, 0);
            }
        }
        assert_eq!(top.ended(), 0, "{end:?}");
    }
    stop(node).await;
    // Without a terminal there is nothing to see.
    let refused = world.abide(&["top"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("needs a terminal"), "{refused:?}");
    assert_eq!(world.abide(&["top", "--json"]).code, 2);
}

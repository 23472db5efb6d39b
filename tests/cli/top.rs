//! `top`, driven in a terminal of its own as a user drives it.

use crate::support::{Add, Risky, Till, Tilling, World, ran, stop};
use abide::Poison;
use pty_process::Size;
use pty_process::blocking::{Command, Pty};
use std::io::{Read, Write};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

on_each_store!(
    top_shows_a_running_node_and_purges_and_retries_what_is_confirmed,
    top_ends_when_it_is_told_to_and_restores_the_terminal,
);

const ROWS: u16 = 24;
const COLUMNS: u16 = 120;

/// A terminal in which a command runs, and what stands on it.
struct Screen {
    pty: Arc<Mutex<Pty>>,
    screen: Arc<Mutex<vt100::Parser>>,
    child: Child,
}

impl Screen {
    fn top(world: &World) -> Self {
        let (pty, pts) = pty_process::blocking::open().unwrap();
        pty.resize(Size::new(ROWS, COLUMNS)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_abide"))
            .args(["--store", &world.url, "--namespace", &world.namespace])
            .args(["top", "--every", "200ms"])
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .spawn(pts)
            .unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let shown = Arc::clone(&screen);
        // A second descriptor of the same terminal, so that reads do not keep writes waiting.
        let fd = std::os::fd::AsFd::as_fd(&pty).try_clone_to_owned().unwrap();
        let mut output = std::fs::File::from(fd);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Until the command has gone, and the terminal's other end with it.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self {
            pty: Arc::new(Mutex::new(pty)),
            screen,
            child,
        }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn press(&self, keys: &str) {
        let mut pty = self.pty.lock().unwrap();
        pty.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until something stands on the screen.
    fn until(&self, what: &str, shows: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let text = self.text();
            if shows(&text) {
                return text;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}:\n{text}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end: what it exits with, once the terminal is as it was.
    fn ended(mut self) -> i32 {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", self.text());
            thread::sleep(Duration::from_millis(20));
        };
        self.until("the screen is not restored", |_| {
            let screen = self.screen.lock().unwrap();
            !screen.screen().alternate_screen() && !screen.screen().hide_cursor()
        });
        status.code().unwrap_or(-1)
    }
}

async fn top_shows_a_running_node_and_purges_and_retries_what_is_confirmed(world: World) {
    let node = world.serving(Till { broken: true }, Poison::Block).await;
    let desk = node.server::<Tilling>("desk");
    node.server::<Tilling>("other")
        .call(Add { n: 1 })
        .await
        .unwrap();
    desk.cast(Risky { n: 1 }).await.unwrap();
    desk.cast(Add { n: 5 }).await.unwrap();
    let top = Screen::top(&world);
    let listed = top.until("the instances", |text| {
        text.contains("till/desk") && text.contains("till/other") && text.contains("broken")
    });
    assert!(listed.contains("2 messages in 1 busy instance"), "{listed}");
    assert!(listed.contains("q quit"), "{listed}");
    top.press("/other\r");
    top.until("the filter", |text| !text.contains("till/desk"));
    top.press("\x1b");
    top.until("no filter", |text| text.contains("till/desk"));
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
    top.press("q");
    assert_eq!(top.ended(), 0);
    stop(node).await;
}

async fn top_ends_when_it_is_told_to_and_restores_the_terminal(world: World) {
    let node = world.producer().await;
    for end in ["q", "\x03", "TERM", "INT", "HUP"] {
        let top = Screen::top(&world);
        top.until("the view", |text| text.contains("0 messages in 0 busy"));
        match end.len() {
            1 => top.press(end),
            _ => {
                let pid = top.child.id().to_string();
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

//! A terminal in which the command runs.

use crate::support::World;
use pty_process::Size;
use pty_process::blocking::{Command, Pty};
use std::io::{Read, Write};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const ROWS: u16 = 24;
const COLUMNS: u16 = 120;

/// A terminal in which a command runs, and what stands on it.
pub(crate) struct Screen {
    pty: Arc<Mutex<Pty>>,
    screen: Arc<Mutex<vt100::Parser>>,
    /// All that was ever printed.
    printed: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Screen {
    pub(crate) fn of(world: &World, arguments: &[&str]) -> Self {
        Self::with(world, arguments, &[])
    }

    /// With some variables set.
    pub(crate) fn with(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let (pty, pts) = pty_process::blocking::open().unwrap();
        pty.resize(Size::new(ROWS, COLUMNS)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_abide"))
            .args(["--store", &world.url, "--namespace", &world.namespace])
            .args(arguments)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied())
            .spawn(pts)
            .unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let shown = Arc::clone(&screen);
        let printed = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&printed);
        // A second descriptor of the same terminal, so that reads do not keep writes waiting.
        let fd = std::os::fd::AsFd::as_fd(&pty).try_clone_to_owned().unwrap();
        let mut output = std::fs::File::from(fd);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Until the command has gone, and the terminal's other end with it.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                kept.lock().unwrap().extend_from_slice(&bytes[..count]);
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self {
            pty: Arc::new(Mutex::new(pty)),
            screen,
            printed,
            child,
        }
    }

    pub(crate) fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    pub(crate) fn press(&self, keys: &str) {
        let mut pty = self.pty.lock().unwrap();
        pty.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until something stands on the screen.
    pub(crate) fn until(&self, what: &str, shows: impl Fn(&str) -> bool) -> String {
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

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that was printed, with what steers the terminal.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&self.printed.lock().unwrap()).into_owned()
    }

    /// The end: what it exits with, once the terminal is as it was.
    pub(crate) fn ended(mut self) -> i32 {
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

//! The terminal: taken over, and given back whatever happens.
//!
//! It is given back when the [`Screen`] is dropped, which every return and every error does, and by
//! the hook that `ratatui` sets, before a panic says what it says.

use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use ratatui::{DefaultTerminal, Frame};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures_channel::mpsc;

/// How long the reader of keys waits before it looks whether it is still wanted.
const POLL: Duration = Duration::from_millis(100);

/// How many keys may wait; whoever pastes a book loses it.
const KEYS: usize = 64;

/// What comes from the terminal.
#[derive(Debug)]
pub(super) enum Typed {
    Key(KeyEvent),
    /// Its size has changed, so that it has to be drawn anew.
    Resized,
    /// It is gone, or cannot be read.
    Failed(io::Error),
}

/// The terminal, as long as it is ours.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    is_over: Arc<AtomicBool>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Screen {
    /// Takes the terminal over. Keys come from the receiver.
    pub(super) fn enter() -> io::Result<(Self, mpsc::Receiver<Typed>)> {
        let terminal = match ratatui::try_init() {
            Ok(terminal) => terminal,
            Err(error) => {
                // Half of it may have been done.
                let _ = ratatui::try_restore();
                return Err(error);
            }
        };
        let (sender, receiver) = mpsc::channel(KEYS);
        let mut screen = Self {
            terminal,
            is_over: Arc::new(AtomicBool::new(false)),
            reader: None,
        };
        let is_over = Arc::clone(&screen.is_over);
        let reader = thread::Builder::new().name("keys".to_owned());
        screen.reader = Some(reader.spawn(move || read(sender, &is_over))?);
        Ok((screen, receiver))
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // Before the terminal is given back, so that nobody else reads it then.
            let _ = reader.join();
        }
        let _ = self.terminal.show_cursor();
        // Whoever has taken the terminal away does not want it back.
        let _ = ratatui::try_restore();
    }
}

/// Reads the terminal until it is over: there is no way to wait for keys and for the store at once.
fn read(mut sender: mpsc::Sender<Typed>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let typed = match event::poll(POLL).and_then(|ready| ready.then(event::read).transpose()) {
            Ok(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => Typed::Key(key),
            Ok(Some(Event::Resize(..))) => Typed::Resized,
            Ok(_) => continue,
            Err(error) => {
                let _ = sender.try_send(Typed::Failed(error));
                return;
            }
        };
        // A full channel drops the key.
        let _ = sender.try_send(typed);
    }
}

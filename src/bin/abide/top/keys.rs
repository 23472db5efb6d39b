//! What the keys do.

use super::model::{Action, Command, Model, Open};
use super::sample::Entry;
use crate::mailbox::plural;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// How many rows a page moves.
const PAGE: isize = 10;

impl Model {
    /// Obeys a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Command> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => self.is_over = true,
                KeyCode::Char('l') => return Some(Command::Refresh),
                _ => {}
            }
            return None;
        }
        if let Some(action) = self.asking.take() {
            return match key.code {
                KeyCode::Char('y' | 'Y') => Some(Command::Act(action)),
                _ => {
                    self.acted(Ok("nothing was changed".to_owned()));
                    None
                }
            };
        }
        self.notice = None;
        match self.typing {
            true => self.typed(key.code),
            false => self.pressed(key.code),
        }
    }

    /// A key that goes into the filter.
    fn typed(&mut self, key: KeyCode) -> Option<Command> {
        match key {
            KeyCode::Char(c) => self.filter.push(c),
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            _ => {}
        }
        self.keep_selected();
        (!self.typing).then_some(Command::Refresh)
    }

    fn pressed(&mut self, key: KeyCode) -> Option<Command> {
        match key {
            KeyCode::Char('q') => self.is_over = true,
            KeyCode::Down | KeyCode::Char('j') => self.select(1),
            KeyCode::Up | KeyCode::Char('k') => self.select(-1),
            KeyCode::PageDown => self.select(PAGE),
            KeyCode::PageUp => self.select(-PAGE),
            KeyCode::Home => self.select(isize::MIN),
            KeyCode::End => self.select(isize::MAX),
            KeyCode::Char('x') => self.ask_about_one(false),
            KeyCode::Char('t') => self.ask_about_one(true),
            KeyCode::Char('X') => self.ask_about_all(false),
            KeyCode::Char('T') => self.ask_about_all(true),
            KeyCode::Char('g') => return Some(Command::Refresh),
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left if self.open.is_some() => {
                self.open = None;
            }
            KeyCode::Esc => {
                self.filter.clear();
                self.keep_selected();
            }
            _ if self.open.is_some() => {}
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Enter | KeyCode::Right => return self.open(),
            _ => {}
        }
        None
    }

    fn open(&mut self) -> Option<Command> {
        let instance = self.selected.clone()?;
        self.open = Some(Open {
            instance,
            shown: None,
            selected: 0,
        });
        Some(Command::Refresh)
    }

    /// The message or dead letter that is selected in an open instance.
    fn entry(&self) -> Option<(&Open, &Entry)> {
        let open = self.open.as_ref()?;
        Some((open, open.shown.as_ref()?.entries.get(open.selected)?))
    }

    fn ask_about_one(&mut self, retry: bool) {
        let Some((open, entry)) = self.entry() else {
            let text = "open an instance first, and select a message or a dead letter";
            return self.acted(Err(text.to_owned()));
        };
        let (instance, stamp) = (open.instance.clone(), entry.stamp);
        let action = match (retry, entry.is_letter) {
            (false, false) => Action::Purge(instance, Some(stamp)),
            (false, true) => Action::Forget(instance, stamp),
            (true, true) => Action::Retry(instance, Some(stamp)),
            (true, false) => {
                return self.acted(Err("only dead letters can be retried".to_owned()));
            }
        };
        self.asking = Some(action);
    }

    fn ask_about_all(&mut self, retry: bool) {
        let open = self.open.as_ref().map(|open| open.instance.clone());
        let Some(instance) = open.or_else(|| self.selected.clone()) else {
            return;
        };
        self.asking = Some(match retry {
            true => Action::Retry(instance, None),
            false => Action::Purge(instance, None),
        });
    }

    /// The question that an action has to pass.
    pub(super) fn question(&self, action: &Action) -> String {
        let seen = |instance| self.watched.get(instance).map(|watched| &watched.seen);
        let what = match action {
            Action::Purge(instance, Some(stamp)) => format!("delete message {stamp} of {instance}"),
            Action::Purge(instance, None) => {
                let messages = seen(instance).map_or(0, |seen| seen.messages);
                let messages = plural(messages, "message");
                format!("delete all messages of {instance} ({messages} now)")
            }
            Action::Forget(instance, stamp) => {
                format!("delete dead letter {stamp} of {instance}")
            }
            Action::Retry(instance, Some(stamp)) => {
                format!("put dead letter {stamp} of {instance} back")
            }
            Action::Retry(instance, None) => {
                let more = seen(instance).is_some_and(|seen| seen.more_dead);
                let letters = seen(instance).map_or(0, |seen| seen.dead);
                let letters = plural(letters, "dead letter");
                let more = if more { " or more" } else { "" };
                format!("put all dead letters of {instance} back ({letters}{more})")
            }
        };
        let told = match action {
            Action::Purge(..) => " Callers that wait are told.",
            Action::Forget(..) | Action::Retry(..) => "",
        };
        format!("{}?{told} [y/N]", crate::output::clean(&what))
    }
}

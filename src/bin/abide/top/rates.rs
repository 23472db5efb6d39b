//! What changes between two looks.
//!
//! The store counts no handled messages, so nobody outside can tell how many there were. What two
//! looks do tell is a lower bound: messages that stood there and do not any more have been handled,
//! put aside, or purged; and a state that changed was changed by a turn. Messages that came and went
//! in between, and those that a process handles without storing them, are counted only so far.

use super::sample::Seen;
use abide::store::{CommitStamp, Stamp};
use std::collections::VecDeque;
use std::time::Duration;

/// How many looks a sparkline shows.
pub(super) const HISTORY: usize = 60;

/// After so long without a look, a rate says nothing any more.
const STALE: Duration = Duration::from_secs(15);

/// An instance that was seen, and how it went on.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) seen: Seen,
    pub(super) at: Duration,
    /// By how many messages a second the mailbox grows.
    pub(super) growth: Option<f64>,
    /// How many messages a second were handled, at least.
    pub(super) handled: Option<f64>,
    /// The mailbox's lengths, the last one last.
    pub(super) lengths: VecDeque<u64>,
}

impl Watched {
    pub(super) fn new(seen: Seen, at: Duration) -> Self {
        let lengths = VecDeque::from([seen.messages]);
        Self {
            seen,
            at,
            growth: None,
            handled: None,
            lengths,
        }
    }

    /// Takes in a later look.
    pub(super) fn update(&mut self, seen: Seen, at: Duration) {
        let time = at.saturating_sub(self.at).as_secs_f64();
        if time > 0.0 {
            #[allow(clippy::cast_precision_loss, reason = "figures to look at")]
            let of = |count: u64| count as f64 / time;
            self.growth = Some(of(seen.messages) - of(self.seen.messages));
            self.handled = Some(of(handled(&self.seen, &seen)));
        }
        self.at = at;
        push(&mut self.lengths, seen.messages);
        self.seen = seen;
    }

    /// Forgets rates that are of long ago.
    pub(super) fn expire(&mut self, now: Duration) {
        if now.saturating_sub(self.at) > STALE {
            self.growth = None;
            self.handled = None;
        }
    }
}

/// How many messages were handled, put aside or purged between two looks, at least.
pub(super) fn handled(before: &Seen, after: &Seen) -> u64 {
    let fewer = before.messages.saturating_sub(after.messages);
    let is_later = match (after.head, before.marked) {
        (None, _) => true,
        (Some(head), Some(newest)) => commit_of(head) > newest,
        (Some(_), None) => false,
    };
    // What stands there now was pushed after all that stood there then.
    let all = if is_later { before.messages } else { 0 };
    let turned = before.changed != after.changed && after.changed.is_some();
    fewer.max(all).max(u64::from(turned))
}

fn commit_of(stamp: Stamp) -> CommitStamp {
    let (commit, _) = stamp
        .as_bytes()
        .split_first_chunk()
        .unwrap_or((&[0; CommitStamp::LEN], &[]));
    CommitStamp::from_bytes(*commit)
}

/// Adds a figure to a history.
pub(super) fn push(history: &mut VecDeque<u64>, figure: u64) {
    history.push_back(figure);
    if history.len() > HISTORY {
        history.pop_front();
    }
}

/// The last figures as a line of bars, `width` of them.
pub(super) fn bars(history: &VecDeque<u64>, width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let skipped = history.len().saturating_sub(width);
    let shown = history.iter().skip(skipped);
    let most = shown.clone().max().copied().unwrap_or(0);
    let bars = shown.map(|figure| match (*figure, most) {
        (0, _) => ' ',
        (figure, most) => {
            let eighths = figure.saturating_mul(8).div_ceil(most.max(1));
            let at = usize::try_from(eighths).unwrap_or(8).clamp(1, 8) - 1;
            BARS.get(at).copied().unwrap_or('█')
        }
    });
    format!("{:>width$}", bars.collect::<String>())
}

/// A rate for people.
pub(super) fn rate(per_second: Option<f64>, with_sign: bool) -> String {
    match per_second {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate.abs() >= 99.95 && with_sign => format!("{rate:+.0}"),
        Some(rate) if rate.abs() >= 99.95 => format!("{rate:.0}"),
        Some(rate) if with_sign => format!("{rate:+.1}"),
        Some(rate) => format!("{rate:.1}"),
    }
}

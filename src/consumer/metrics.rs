//! The consumer's counters and histograms, through the `metrics` facade.

use super::turn::Turn;
use std::time::Duration;

/// A turn that has ended.
pub(super) fn turn(kind: &str, turn: &Turn, committed: bool, took: Duration) {
    let kind = kind.to_owned();
    if !committed {
        return;
    }
    metrics::counter!("abide_turns_total", "kind" => kind.clone()).increment(1);
    metrics::counter!("abide_messages_handled_total", "kind" => kind.clone())
        .increment(turn.handled as u64);
    metrics::counter!("abide_messages_failed_total", "kind" => kind.clone())
        .increment(turn.failed as u64);
    metrics::counter!("abide_dead_letters_total", "kind" => kind.clone())
        .increment(turn.died.len() as u64);
    metrics::histogram!("abide_turn_messages", "kind" => kind.clone()).record(turn.handled as f64);
    metrics::histogram!("abide_turn_seconds", "kind" => kind).record(took.as_secs_f64());
}

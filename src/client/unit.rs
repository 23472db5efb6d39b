//! What is pushed together: its limits, and its size.

use super::budget::Amount;
use crate::durable::keys::Lane;
use crate::durable::message::Message;
use crate::durable::queue;
use crate::id::InstanceId;
use crate::server::{CallError, CallErrorKind};

/// The largest payload of a message.
pub(crate) const MAX_MESSAGE_BYTES: usize = 8_000_000;

/// The most bytes of one atomic batch: what a transaction takes, with room for its other keys.
pub(crate) const MAX_UNIT_BYTES: usize = 9_500_000;

/// The most messages of one atomic batch: their user versions have 16 bits.
pub(crate) const MAX_UNIT_MESSAGES: usize = 65_000;

/// A message on its way into a mailbox.
#[derive(Debug, Clone)]
pub(super) struct Push {
    pub(super) instance: InstanceId,
    pub(super) lane: Lane,
    pub(super) message: Message,
}

/// Messages that are pushed together or not at all.
pub(super) type Unit = Vec<Push>;

/// Refuses what no transaction takes, before anything is done.
pub(super) fn check(unit: &[Push]) -> Result<Amount, CallError> {
    let too_large = |what: String| CallError::new(CallErrorKind::TooLarge).with_message(what);
    let mut amount = Amount::default();
    for push in unit {
        let payload = push.message.payload.len();
        if payload > MAX_MESSAGE_BYTES {
            return Err(too_large(format!(
                "`{}` to {} has {payload} bytes, at most {MAX_MESSAGE_BYTES} are allowed",
                push.message.name, push.instance
            )));
        }
        amount.messages += 1;
        amount.bytes = amount.bytes.saturating_add(queue::size_of(&push.message));
    }
    if amount.messages > MAX_UNIT_MESSAGES {
        return Err(too_large(format!(
            "{} messages at once, at most {MAX_UNIT_MESSAGES} are allowed",
            amount.messages
        )));
    }
    if amount.bytes > MAX_UNIT_BYTES {
        return Err(too_large(format!(
            "{} messages of {} bytes at once, at most {MAX_UNIT_BYTES} bytes are allowed",
            amount.messages, amount.bytes
        )));
    }
    Ok(amount)
}

/// How many messages and bytes the units are.
pub(super) fn size_of(units: &[Unit]) -> (usize, usize) {
    let messages = units.iter().map(Vec::len).sum();
    let bytes = units
        .iter()
        .flatten()
        .map(|push| queue::size_of(&push.message))
        .sum();
    (messages, bytes)
}

/// What all messages of a batch have in common, for its span: their kind, say.
pub(super) fn common<'a>(units: &'a [Unit], of: impl Fn(&'a Push) -> &'a str) -> &'a str {
    let mut all = units.iter().flatten().map(of);
    let first = all.next().unwrap_or_default();
    if all.all(|one| one == first) {
        first
    } else {
        "several"
    }
}

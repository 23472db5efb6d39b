//! The JSON forms of what the library shows, and their text for people.

use crate::json::Object;
use abide::InstanceId;
use abide::admin::{
    Damage, DeadLetterView, InstanceSummary, KindPause, LaneSummary, LockView, MessageView,
    PauseView, QueuedView, SessionView,
};
use abide::durable::keys::Lane;

/// A key as text: ASCII, everything else escaped.
pub(crate) fn key(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

pub(crate) fn lane(lane: Lane) -> &'static str {
    match lane {
        Lane::Ordinary => "ordinary",
        Lane::Priority => "priority",
    }
}

/// Begins an object about an instance.
pub(crate) fn of(what: &str, instance: &InstanceId) -> Object {
    Object::of(what)
        .text("kind", instance.kind())
        .text("id", instance.id())
}

fn damage(damage: &Damage) -> Object {
    Object::new()
        .text("key", &key(&damage.key))
        .text("what", &damage.what)
}

fn pause(pause: &PauseView) -> Object {
    Object::new()
        .plain("since_ms", pause.since_ms)
        .text("reason", &pause.reason)
}

pub(crate) fn paused_kind(of: &KindPause) -> Object {
    Object::of("kind_paused")
        .text("kind", &of.kind)
        .plain("since_ms", of.pause.since_ms)
        .text("reason", &of.pause.reason)
}

pub(crate) fn instance(summary: &InstanceSummary) -> Object {
    of("instance", &summary.instance)
        .plain("messages", summary.length)
        .maybe("oldest_ms", summary.oldest_ms())
        .object("ordinary", head(&summary.ordinary))
        .object("priority", head(&summary.priority))
        .object(
            "lock",
            summary.lock.as_ref().map(|held| lock(Object::new(), held)),
        )
        .plain("lock_abandoned", summary.lock_abandoned)
        .plain("dead_letters", summary.dead_letters.count)
        .plain("more_dead_letters", summary.dead_letters.more)
        .object("paused", summary.paused.as_ref().map(pause))
        .object("kind_paused", summary.kind_paused.as_ref().map(pause))
        .maybe("created_ms", summary.created_ms)
        .maybe("schema", summary.schema)
        .maybe_text("changed", summary.changed)
        .list("damaged", summary.damaged.iter().map(|of| damage(of).end()))
}

/// The head of a mailbox, and what became of attempts at it; none for an empty mailbox.
fn head(lane: &LaneSummary) -> Option<Object> {
    let oldest = lane.oldest.as_ref()?;
    let message = oldest.message.as_ref();
    let attempts = lane.attempts.as_ref();
    Some(
        Object::new()
            .text("stamp", &oldest.stamp.to_string())
            .maybe_text("name", message.map(|of| &of.name))
            .maybe("sent_ms", message.map(|of| of.sent_ms))
            .plain("attempts", attempts.map_or(0, |of| of.attempts))
            .maybe("first_failed_ms", attempts.map(|of| of.first_ms))
            .maybe("not_before_ms", attempts.map(|of| of.not_before_ms))
            .maybe_text("claim", attempts.and_then(|of| of.claim))
            .maybe_text("error", attempts.map(|of| &of.error)),
    )
}

/// Adds the fields of a message.
pub(crate) fn message(object: Object, message: &MessageView) -> Object {
    let caller = message.call.map(|call| {
        Object::new()
            .text("session", &call.session.to_string())
            .plain("call", call.call)
    });
    object
        .text("name", &message.name)
        .text("mode", mode(message))
        .object("caller", caller)
        .maybe_text("sender", message.sender)
        .plain("sent_ms", message.sent_ms)
        .maybe_text("trace", message.trace.as_ref())
        .raw("payload", &payload(message))
}

/// Whether it is a call, a cast or a query.
pub(crate) fn mode(message: &MessageView) -> &'static str {
    match (message.query, message.call) {
        (true, _) => "query",
        (false, Some(_)) => "call",
        (false, None) => "cast",
    }
}

/// The payload as JSON; one that is no MessagePack as the bytes that it is.
pub(crate) fn payload(message: &MessageView) -> String {
    let value = message.value().and_then(|value| value.to_json());
    value.unwrap_or_else(|_| {
        let bytes = abide::codec::Value::Bytes(message.payload.to_vec());
        bytes.to_json().unwrap_or_else(|_| "null".to_owned())
    })
}

pub(crate) fn queued(instance: &InstanceId, queued: &QueuedView) -> Object {
    let object = of("message", instance)
        .text("lane", lane(queued.lane))
        .text("stamp", &queued.stamp.to_string())
        .plain("incarnation", queued.incarnation)
        .plain("bytes", queued.bytes);
    match &queued.message {
        Ok(view) => message(object, view),
        Err(found) => object.object("damaged", Some(damage(found))),
    }
}

pub(crate) fn letter(view: &DeadLetterView) -> Object {
    let object = of("dead_letter", &view.instance).text("stamp", &view.stamp.to_string());
    match &view.letter {
        Ok(letter) => message(
            object
                .text("lane", lane(letter.lane))
                .plain("incarnation", letter.incarnation)
                .text("error", &letter.error)
                .plain("attempts", letter.attempts)
                .plain("first_failed_ms", letter.first_failed_ms)
                .plain("dead_ms", letter.dead_ms),
            &letter.message,
        ),
        Err(found) => object.object("damaged", Some(damage(found))),
    }
}

/// Adds the fields of a lock.
pub(crate) fn lock(object: Object, held: &LockView) -> Object {
    let object = object
        .text("token", &held.token.to_string())
        .maybe_text("holder", held.session)
        .plain("nonce", held.nonce)
        .plain("attempts", held.attempts)
        .plain("not_before_ms", held.not_before_ms)
        .plain("taken_ms", held.taken_ms)
        .maybe_text("stamp", held.stamp)
        .text("lane", lane(held.lane))
        .text("error", &held.error);
    match &held.message {
        Some(Ok(view)) => object.object("message", Some(message(Object::new(), view))),
        Some(Err(found)) => object.object("damaged", Some(damage(found))),
        None => object,
    }
}

pub(crate) fn session(what: &str, view: &SessionView) -> Object {
    let kinds = view.kinds.iter().map(|kind| crate::json::string(kind));
    Object::of(what)
        .text("session", &view.session.to_string())
        .maybe("nonce", view.nonce)
        .list("kinds", kinds)
        .maybe("opened_ms", view.opened_ms)
        .plain("reply_rows", view.reply_rows)
        .object("damaged", view.damaged.as_ref().map(damage))
}

//! Every kind of key, with bytes in it that abide does not write.

use abide::InstanceId;
use abide::durable::keys::{Keys, Lane, SessionId};
use abide::store::{KeyRange, Stamp};
use bytes::Bytes;

pub(crate) const BAD: &[u8] = b"\xff\xff garbage";

/// The stamp of every message and letter that is planted.
pub(crate) const STAMP: &str = "000000000000000100000000";

fn foreign(range: &KeyRange) -> Bytes {
    [&range.begin[..], b"\x02not a tuple"].concat().into()
}

/// A kind of key.
pub(crate) struct Planted {
    /// Its name, which is also the id of the instance that it belongs to, if it belongs to one.
    pub(crate) name: &'static str,
    pub(crate) key: Bytes,
    /// The commands that meet it and so must name it, besides the doctor: `ID` stands for the name.
    pub(crate) meet: &'static [&'static str],
}

pub(crate) const LS: &str = "ls till";
pub(crate) const SHOW: &str = "show till ID";
pub(crate) const SET: &str = "set till ID sum 5 --dry-run";
pub(crate) const MAILBOX: &str = "mailbox till ID";
pub(crate) const EXPORT: &str = "export till ID";
pub(crate) const PURGE: &str = "purge till ID --all --dry-run";
pub(crate) const PURGE_HEAD: &str = "purge till ID --head --dry-run";
pub(crate) const TO_DEAD: &str = "purge till ID --all --to-dead --dry-run";
pub(crate) const DEAD: &str = "dead ls till ID";
pub(crate) const DEAD_SHOW: &str = "dead show till ID STAMP";
pub(crate) const RETRY: &str = "dead retry till ID --dry-run";
pub(crate) const BURN: &str = "dead purge till ID --dry-run";
pub(crate) const LOCK: &str = "lock show till ID";
pub(crate) const BREAK: &str = "lock break till ID --retry --dry-run";
pub(crate) const RESTORED: &str = "restored --yes";
pub(crate) const ABANDON: &str = "import --abandon --dry-run";

/// Every kind of key that there is.
pub(crate) fn planted(all: &Keys) -> Vec<Planted> {
    let stamp = Stamp::from_bytes([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    let of = |id: &str| all.instance(&InstanceId::new("till", id).unwrap());
    let session = all.session(SessionId::from_bytes([7; SessionId::LEN]));
    let message = |id, lane, chunk| of(id).message(lane, 0, stamp, chunk);
    let (ordinary, priority) = (Lane::Ordinary, Lane::Priority);
    let sum: Bytes = [&of("leaf").state().begin[..], b"\x02sum\0"]
        .concat()
        .into();
    let lock_message = of("lock-message").lock_message_chunk(0);
    let waiting = &[LS, MAILBOX, PURGE, PURGE_HEAD, TO_DEAD, EXPORT][..];
    let kinds: [(&'static str, Bytes, &'static [&'static str]); 29] = [
        ("version", of("version").version(), &[LS, SHOW, SET, EXPORT]),
        ("leaf", sum, &[SHOW, SET, EXPORT]),
        (
            "foreign-leaf",
            foreign(&of("foreign-leaf").state()),
            &[SHOW, SET, EXPORT],
        ),
        (
            "lock",
            of("lock").lock(),
            &[LS, LOCK, BREAK, EXPORT, RESTORED],
        ),
        ("lock-message", lock_message, &[LOCK, BREAK, EXPORT]),
        (
            "attempts",
            of("attempts").attempts(ordinary),
            &[LS, RESTORED],
        ),
        (
            "attempts-first",
            of("attempts-first").attempts(priority),
            &[LS, RESTORED],
        ),
        ("message", message("message", ordinary, 0), waiting),
        (
            "priority",
            message("priority", priority, 0),
            &[LS, MAILBOX, PURGE, TO_DEAD, EXPORT],
        ),
        ("half", message("half", ordinary, 1), waiting),
        (
            "foreign-message",
            foreign(&of("foreign-message").mailbox(ordinary)),
            waiting,
        ),
        ("pause", of("pause").paused(), &[LS, EXPORT]),
        ("length", of("length").length(), &[LS]),
        (
            "letter",
            of("letter").dead_letter(stamp, 0),
            &[DEAD, DEAD_SHOW, RETRY, BURN, EXPORT],
        ),
        (
            "foreign-letter",
            foreign(&of("foreign-letter").dead_letters()),
            &[LS, DEAD, RETRY, BURN, EXPORT],
        ),
        (
            "directory",
            all.directory(&InstanceId::new("till", "directory").unwrap()),
            &[LS, EXPORT],
        ),
        ("mark", of("mark").ready().clone(), &[LS]),
        ("foreign entry", foreign(&all.directory_of(None)), &["ls"]),
        (
            "foreign mark",
            foreign(&all.ready_of(of("any").shard())),
            &["ls --stuck"],
        ),
        ("wake", all.wake(of("any").shard()), &[]),
        ("kind pause", all.kind_paused("shop"), &["ls", "export"]),
        (
            "heartbeat",
            session.heartbeat(),
            &["sessions", "nodes --apart 1ms"],
        ),
        ("reply wake", session.reply_wake(), &[]),
        ("reply", session.reply(1, 0), &[]),
        ("outcome", session.outcome(3), &[]),
        (
            "foreign session",
            foreign(&all.sessions()),
            &["sessions", "nodes --apart 1ms"],
        ),
        ("import", all.import(), &["import STREAM", ABANDON]),
        (
            "foreign instance",
            foreign(&all.instances_of(0, None)),
            &["ls", "dead ls", "export"],
        ),
        ("foreign", foreign(&all.all()), &[]),
    ];
    let kinds = kinds.into_iter();
    kinds
        .map(|(name, key, meet)| Planted { name, key, meet })
        .collect()
}

/// Whether it belongs to the instance that it is named after.
pub(crate) fn is_instance(name: &str) -> bool {
    !name.contains(' ')
        && !["wake", "heartbeat", "reply", "outcome", "import", "foreign"].contains(&name)
}

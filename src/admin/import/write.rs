//! Writing a batch of records.

use crate::admin::Admin;
use crate::admin::error::AdminError;
use crate::admin::record::Body;
use crate::codec::{Change, Leaves, Path};
use crate::durable::pause::{self, Paused};
use crate::durable::queue::Pushes;
use crate::durable::{Message, dead, directory, ready, state};
use crate::id::InstanceId;
use crate::store::Tx;
use bytes::Bytes;

/// The user versions of dead letters, above those of the messages of the same transaction: a message
/// may come to be a dead letter under its own stamp.
const LETTERS: u16 = 0x8000;
const _: () = assert!(super::BATCH < LETTERS as usize);

/// Why an instance is paused of which records are still to come.
const REASON: &str = "being imported; go on with the import if that has stopped";

/// One step of a batch.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "most steps are the largest ones, and a batch has few"
)]
pub(super) enum Op {
    KindPaused(String, Paused),
    Begin(InstanceId, Option<u64>, Option<u32>),
    Leaf(InstanceId, u32, Path, Bytes),
    Message(InstanceId, Body),
    /// Ends the instance, with its pause, and whether it has messages.
    End(InstanceId, Option<Paused>, bool),
}

impl Admin {
    /// Writes the steps of a batch.
    pub(super) fn write_all(&self, tx: &Tx, ops: &[Op]) -> Result<(), AdminError> {
        let namespace = &self.namespace;
        let keys_of = |instance: &InstanceId| namespace.keys().instance(instance);
        let mut pushes = Pushes::new(namespace, tx);
        let mut letters = LETTERS;
        for op in ops {
            match op {
                Op::KindPaused(kind, paused) => {
                    pause::set_at(tx, &namespace.keys().kind_paused(kind), paused)?;
                }
                Op::Begin(instance, created_ms, schema) => {
                    let keys = keys_of(instance);
                    let paused = Paused {
                        since_ms: self.now_ms(),
                        reason: REASON.to_owned(),
                    };
                    pause::set(tx, &keys, &paused)?;
                    if let Some(schema) = schema {
                        let created = created_ms.unwrap_or_else(|| self.now_ms());
                        directory::add(tx, namespace.keys(), instance, created)?;
                        state::touch(tx, &keys, *schema);
                    }
                }
                Op::Leaf(instance, schema, path, bytes) => {
                    let change = [Change::Set(path.clone(), bytes.clone())];
                    state::write(tx, &keys_of(instance), &change, &Leaves::new(), *schema)?;
                }
                Op::Message(instance, Body::Message { lane, message }) => {
                    // A reply would go to whom the stream names.
                    let message = Message {
                        call: None,
                        ..message.clone()
                    };
                    pushes.push(instance, *lane, &message)?;
                }
                Op::Message(instance, Body::Dead(letter)) => {
                    let mut letter = letter.clone();
                    letter.incarnation = namespace.incarnation();
                    letter.message.call = None;
                    dead::write_new(tx, &keys_of(instance), letters, &letter)?;
                    letters = letters.saturating_add(1);
                }
                Op::Message(..) => {}
                Op::End(instance, pause, has_messages) => {
                    let keys = keys_of(instance);
                    match pause {
                        Some(pause) => pause::set(tx, &keys, pause)?,
                        None => pause::clear(tx, &keys),
                    }
                    if *has_messages {
                        // Whoever has parked it because of the pause looks again.
                        ready::set_mark(tx, &keys);
                        ready::wake(tx, namespace, keys.shard());
                    }
                }
            }
        }
        Ok(())
    }
}

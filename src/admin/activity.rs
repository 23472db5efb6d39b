//! How much goes on: figures that are cheap enough to be read again and again.
//!
//! A store does not count the messages that were handled. What an observer can tell by looking twice:
//! how long the mailboxes are ([`Admin::backlog`], a read for each instance that has something to do);
//! what of an instance has changed ([`Admin::instances_named`]); and how much each process does
//! ([`Admin::activity`]), because its outcome markers number its attempts.

use super::Admin;
use super::error::AdminError;
use super::instances::{MARKS, from_marks};
use super::page::{Cursor, Page, Place, or_damage};
use crate::durable::keys::{Key, SessionId};
use crate::durable::{lane, queue};
use crate::id::InstanceId;
use futures_util::future::join_all;

/// The most instances of a page of the backlog.
const PAGE: usize = 500;

/// How many lengths are read at once.
const AT_ONCE: usize = 50;

/// How many sessions, and how many lanes of each, are looked at.
const SESSIONS: usize = 50;
const LANES: usize = 500;

/// An instance that has something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The instance.
    pub instance: InstanceId,
    /// How many messages its mailboxes hold: none if it is only locked, or if the length is damaged.
    pub length: u64,
}

/// How much a process has done since its session was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Its session.
    pub session: SessionId,
    /// How many transactions it has tried that push messages, handle some (a turn may handle
    /// hundreds), or take or end a lock; retries count. Grows as long as the session lasts.
    pub attempts: u64,
    /// Whether it has more lanes than the 500 that were looked at, so that attempts are missing.
    pub more: bool,
}

impl Admin {
    /// Lists the instances that have messages or a lock, with the lengths of their mailboxes, in the
    /// order of their shards: at most `limit`, or 500; begin without a cursor.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn backlog(
        &self,
        kind: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Backlog>, AdminError> {
        let limit = limit.clamp(1, PAGE);
        let begin = cursor.map_or_else(|| Place::part(MARKS), |cursor| cursor.0.clone());
        let namespace = &self.namespace;
        self.look(|tx| {
            let begin = begin.clone();
            async move {
                let found = from_marks(&tx, namespace, kind, &begin, limit).await?;
                let mut damaged = found.damaged;
                let mut items = Vec::with_capacity(found.instances.len());
                for some in found.instances.chunks(AT_ONCE) {
                    let lengths = some.iter().map(|instance| {
                        let keys = namespace.keys().instance(instance);
                        let length = queue::length(&tx, &keys);
                        async move { (keys.length(), length.await) }
                    });
                    for (instance, (key, length)) in some.iter().zip(join_all(lengths).await) {
                        let length = or_damage(length, &key, &mut damaged)?.unwrap_or(0);
                        items.push(Backlog {
                            instance: instance.clone(),
                            length: u64::try_from(length).unwrap_or(0),
                        });
                    }
                }
                Ok(Page {
                    items,
                    damaged,
                    next: found.next.map(Cursor),
                })
            }
        })
        .await
    }

    /// How much the processes have done, of the first 50 sessions. What was read at two times says
    /// how much they do.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn activity(&self) -> Result<Page<Activity>, AdminError> {
        let keys = self.namespace.keys();
        let sessions = self.sessions(None, SESSIONS).await?;
        let sessions: Vec<SessionId> = sessions.items.iter().map(|of| of.session).collect();
        let sessions = &sessions;
        self.look(|tx| async move {
            let (mut items, mut damaged) = (Vec::new(), Vec::new());
            for session in sessions {
                let all = keys.session(*session).outcomes();
                let rows = tx.get_range(all.read().limit(LANES).snapshot()).await?;
                let mut activity = Activity {
                    session: *session,
                    attempts: 0,
                    more: rows.len() >= LANES,
                };
                for row in rows {
                    // Among the markers may stand a key that is none.
                    let is_marker = matches!(keys.decode(&row.key), Ok(Key::Session { .. }));
                    let attempts = lane::attempts_in(&row.key, &row.value);
                    if let Some(attempts) = or_damage(attempts, &row.key, &mut damaged)?
                        && is_marker
                    {
                        activity.attempts = activity.attempts.saturating_add(attempts);
                    }
                }
                items.push(activity);
            }
            Ok(Page {
                items,
                damaged,
                next: None,
            })
        })
        .await
    }
}

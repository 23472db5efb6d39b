//! Sessions: which processes there are, what they serve, and whether they live.

use super::Admin;
use super::error::AdminError;
use super::page::{Cursor, Damage, Page, Place};
use crate::durable::keys::{Key, SessionId};
use crate::durable::session::Heartbeat;
use crate::store::{TransactionExt, after};

/// How many sessions one transaction looks at.
const PAGE: usize = 200;

/// How many rows of replies are counted before the count is called a lower bound.
const COUNTED_REPLIES: usize = 20;

/// A session as it is stored.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// The session.
    pub session: SessionId,
    /// Changes with every beat; none if there is no heartbeat: the session was swept or closed, and
    /// something came for it afterwards.
    pub nonce: Option<u64>,
    /// The kinds that the process serves.
    pub kinds: Vec<String>,
    /// When it was opened by its process's clock, in milliseconds since 1970.
    pub opened_ms: Option<u64>,
    /// How many rows of replies wait for it, at most 20.
    pub reply_rows: usize,
    /// What is wrong with its heartbeat.
    pub damaged: Option<Damage>,
}

/// A process, as two looks show it.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Its session, at the second look.
    pub session: SessionView,
    /// Whether it beat between the looks, or came in between. Nobody beats while the store does not
    /// answer, and a beat comes every five seconds or so: looks less than ten seconds apart say
    /// nothing about a process that did not beat.
    pub beat: bool,
}

/// What a [first look](Admin::first_look) at the sessions has seen: their heartbeats, and no more.
#[derive(Debug, Clone, Default)]
pub struct FirstLook(Vec<(SessionId, Option<u64>)>);

impl FirstLook {
    /// The nonce of a session's heartbeat, if it was there. Sessions are listed in their order.
    fn nonce_of(&self, session: SessionId) -> Option<Option<u64>> {
        let found = self.0.binary_search_by_key(&session, |(of, _)| *of);
        let (_, nonce) = self.0.get(found.ok()?)?;
        Some(*nonce)
    }
}

impl Admin {
    /// Lists the sessions: of all processes that use the namespace, whatever they serve.
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn sessions(
        &self,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<SessionView>, AdminError> {
        let limit = limit.clamp(1, PAGE);
        let keys = self.namespace.keys();
        let all = keys.sessions();
        let begin = match cursor {
            Some(cursor) => cursor.0.rest_of(all),
            None => all,
        };
        self.look(|tx| {
            let mut rest = begin.clone();
            async move {
                let mut page = Page {
                    items: Vec::new(),
                    damaged: Vec::new(),
                    next: None,
                };
                while page.items.len() + page.damaged.len() < limit {
                    let first = tx.get_range(rest.read().limit(1).snapshot()).await?;
                    let Some(first) = first.into_iter().next() else {
                        return Ok(page);
                    };
                    let Ok(Key::Session { session, .. }) = keys.decode(&first.key) else {
                        rest.begin = after(&first.key);
                        page.damaged.push(Damage::foreign(first.key));
                        continue;
                    };
                    let of = keys.session(session);
                    rest.begin = of.all().end;
                    let heartbeat = tx.peek(&of.heartbeat()).await?;
                    let replies = of.replies().read().limit(COUNTED_REPLIES).snapshot();
                    let mut view = SessionView {
                        session,
                        nonce: None,
                        kinds: Vec::new(),
                        opened_ms: None,
                        reply_rows: tx.get_range(replies).await?.len(),
                        damaged: None,
                    };
                    let key = of.heartbeat();
                    match heartbeat.map(|stored| Heartbeat::decode(&key, &stored)) {
                        Some(Ok(heartbeat)) => {
                            view.nonce = Some(heartbeat.nonce);
                            view.kinds = heartbeat.kinds;
                            view.opened_ms = Some(heartbeat.opened_ms);
                        }
                        Some(Err(error)) => view.damaged = Some(Damage::new(key, &error)),
                        None => {}
                    }
                    page.items.push(view);
                }
                page.next = Some(Cursor(Place::key(&rest.begin)));
                Ok(page)
            }
        })
        .await
    }

    /// A first look at all sessions, for [`nodes`](Self::nodes).
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn first_look(&self) -> Result<FirstLook, AdminError> {
        let mut nonces = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.sessions(cursor.as_ref(), PAGE).await?;
            nonces.extend(page.items.iter().map(|of| (of.session, of.nonce)));
            cursor = page.next;
            if cursor.is_none() {
                return Ok(FirstLook(nonces));
            }
        }
    }

    /// A second look, page by page: which processes live. Begin without a cursor, some time after the
    /// [first look](Self::first_look).
    ///
    /// # Errors
    ///
    /// Whatever the store answers.
    pub async fn nodes(
        &self,
        before: &FirstLook,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<NodeView>, AdminError> {
        let page = self.sessions(cursor, limit).await?;
        let nodes = page.items.into_iter().map(|session| {
            let earlier = before.nonce_of(session.session);
            let beat =
                session.nonce.is_some() && earlier.is_none_or(|earlier| earlier != session.nonce);
            NodeView { session, beat }
        });
        Ok(Page {
            items: nodes.collect(),
            damaged: page.damaged,
            next: page.next,
        })
    }
}

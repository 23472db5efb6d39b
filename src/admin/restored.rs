//! What has to be done once after a namespace came back from a backup, or from another cluster.

use super::Admin;
use super::error::AdminError;
use super::page::{Damage, MAX_DAMAGED, Place, or_damage};
use super::walk::{Found, Walk};
use crate::durable::keys::{InstanceKeys, Lane, SessionId};
use crate::durable::{Work, attempts, lock, ready};
use crate::store::{RetryPolicy, StoreError, TransactionExt, Tx};

/// How many instances one transaction looks at: few enough to stay far below its five seconds.
const PAGE: usize = 200;

/// What was done to a namespace that was [restored](Admin::restored).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Restored {
    /// The incarnation that has begun.
    pub incarnation: u32,
    /// How many locks were left to whoever comes next.
    pub locks: u64,
    /// How many claims on messages were given back.
    pub claims: u64,
    /// What could not be read, and was left as it is: the first 1,000.
    pub damaged: Vec<Damage>,
}

/// What one page came to.
#[derive(Default)]
struct Page {
    locks: u64,
    claims: u64,
    damaged: Vec<Damage>,
    /// Where the next one begins; none at the end.
    rest: Option<Place>,
}

impl Admin {
    /// Says that the namespace was restored: from a backup, or in another cluster. Run it once,
    /// after the data is complete and before nodes are started; nodes that run all the same open
    /// themselves anew within some seconds.
    ///
    /// - A new *incarnation* begins. Messages that were restored come before all that are pushed from
    ///   now on, although the stamps of another store may begin anew; and nodes take them for such
    ///   as may have killed a process, until they were handled.
    /// - Every session ends, with its heartbeat, its outcome markers and the replies that wait in it:
    ///   the processes of then are gone. One that lives finds it out with its next heartbeat.
    /// - Locks are left to whoever comes next, who need not wait for the lease. Their messages run
    ///   again, and no attempt is counted.
    /// - Claims on messages are given back: that their processes are gone is not the messages' fault.
    ///
    /// # Errors
    ///
    /// Whatever the store answers. Run it again then: at the worst one incarnation more begins.
    ///
    /// # Cancel safety
    ///
    /// As after an error.
    pub async fn restored(&self) -> Result<Restored, AdminError> {
        // Of another store, maybe.
        self.session.lock().await.take();
        let mut restored = Restored {
            incarnation: self.begin_anew().await?,
            ..Restored::default()
        };
        let mut rest = Some(Walk::new(self.namespace.keys(), None).place(0));
        while let Some(place) = rest.take() {
            let page = self.free_page(&place).await?;
            restored.locks += page.locks;
            restored.claims += page.claims;
            let room = MAX_DAMAGED.saturating_sub(restored.damaged.len());
            restored.damaged.extend(page.damaged.into_iter().take(room));
            rest = page.rest;
        }
        Ok(restored)
    }

    /// Begins the next incarnation and ends all sessions, in one transaction: whoever is told of the
    /// one is told of the other.
    async fn begin_anew(&self) -> Result<u32, AdminError> {
        let namespace = &self.namespace;
        // An incarnation too many does no harm.
        let begun =
            namespace
                .database()
                .run_with(RetryPolicy::retry_unknown(), |attempt| async move {
                    let tx = attempt.tx();
                    let begun = namespace.begin_next(tx).await?;
                    tx.clear_range(&namespace.keys().sessions());
                    Ok::<_, StoreError>(begun)
                });
        let begun = begun.await?.value;
        namespace.learn(&begun);
        Ok(begun.incarnation())
    }

    /// Frees what the processes of then held of some instances.
    async fn free_page(&self, place: &Place) -> Result<Page, AdminError> {
        self.change(|tx| async move {
            let mut walk = Walk::at(self.namespace.keys(), None, place);
            let mut page = Page::default();
            for _ in 0..PAGE {
                let keys = match walk.next(&tx).await? {
                    Some(Found::Instance(instance)) => self.namespace.keys().instance(&instance),
                    Some(Found::Foreign(key)) => {
                        page.damaged.push(Damage::foreign(key));
                        continue;
                    }
                    None => return Ok(done(page)),
                };
                self.free(&tx, &keys, &mut page).await?;
            }
            page.rest = Some(walk.place(0));
            Ok(done(page))
        })
        .await
    }

    async fn free(&self, tx: &Tx, keys: &InstanceKeys, page: &mut Page) -> Result<(), AdminError> {
        let held = lock::read_lock(tx, keys).await;
        let held = or_damage(held, &keys.lock(), &mut page.damaged)?.flatten();
        let mut freed = false;
        if let Some(held) = held
            && !held.is_given_up()
            && self.is_gone(tx, held.session).await?
        {
            lock::write_renewed(tx, keys, &held.given_up())?;
            page.locks += 1;
            freed = true;
        }
        for lane in [Lane::Priority, Lane::Ordinary] {
            let known = attempts::read(tx, keys, lane).await;
            let known = or_damage(known, &keys.attempts(lane), &mut page.damaged)?.flatten();
            let Some(known) = known else { continue };
            let Some(claimer) = known.claim else { continue };
            if self.is_gone(tx, claimer).await? {
                attempts::release(tx, keys, lane, &known)?;
                page.claims += 1;
                freed = true;
            }
        }
        if freed {
            // Changed, so that nodes which hold the instance parked look again.
            ready::set_mark(tx, keys);
            ready::wake(tx, &self.namespace, keys.shard());
        }
        Ok(())
    }

    /// Whether a session is one of those that were ended: a node that has come back since has another.
    async fn is_gone(&self, tx: &Tx, session: SessionId) -> Result<bool, StoreError> {
        let heartbeat = self.namespace.keys().session(session).heartbeat();
        Ok(tx.read(&heartbeat).await?.is_none())
    }
}

fn done(page: Page) -> Work<Page> {
    match page.locks + page.claims {
        0 => Work::Look(page),
        _ => Work::Write(page),
    }
}

//! The transactions that are committed together.

use super::super::buffer::Effect;
use super::super::{CommitStamp, Committed, KeyRange, StoreError, StoreErrorKind, Version};
use super::db::Db;
use super::watch::{Hub, PendingWatch};
use super::writer::{Basis, Outcome, Request};
use futures_channel::oneshot;

/// A group under way: what it holds is applied in an open SQLite transaction that has the write
/// lock, and becomes durable with its `COMMIT`.
#[derive(Debug)]
pub(super) struct Group {
    base: Version,
    members: Vec<Member>,
    newest: Version,
}

/// A transaction that was found valid, and applied.
#[derive(Debug)]
struct Member {
    committed: Committed,
    written: Vec<KeyRange>,
    watches: Vec<PendingWatch>,
    reply: oneshot::Sender<Outcome>,
}

/// Why a transaction cannot be a member.
enum Refused {
    /// Its own fault or fate; the others are untouched.
    Alone(StoreError),
    /// SQLite gave up the whole transaction.
    Together(StoreError),
}

impl Group {
    /// A group on top of the version that the file is at.
    pub(super) fn new(base: Version) -> Result<Self, StoreError> {
        // SQLite's integers are signed. Nobody commits 2^62 times: such a counter was not ours.
        if base.0 > 1 << 62 {
            return Err(StoreError::new(StoreErrorKind::Corrupt)
                .with_context("the version counter is impossibly high; restore a backup"));
        }
        Ok(Self {
            base,
            members: Vec::new(),
            newest: base,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn newest(&self) -> Version {
        self.newest
    }

    /// Checks a transaction, after those before it, and applies it; or tells it why not. The error:
    /// SQLite rolled back the group.
    ///
    /// With company each gets a savepoint, so that one that fails halfway takes nobody along.
    pub(super) fn add(
        &mut self,
        db: &Db,
        mut request: Request,
        has_company: bool,
    ) -> Result<(), StoreError> {
        let version = Version(self.newest.0 + 1);
        let stamp = CommitStamp::new(version, 0);
        // Gone with the check, and the snapshot with it: others may wait for its connection.
        let basis = std::mem::replace(&mut request.basis, Basis::Blind);
        let applied = self.check(db, basis).and_then(|()| match has_company {
            true => in_savepoint(db, || apply(db, &mut request, stamp)),
            false => apply(db, &mut request, stamp).map_err(Refused::Together),
        });
        match applied {
            Ok(written) => {
                self.newest = version;
                self.members.push(Member {
                    committed: Committed { version, stamp },
                    written,
                    watches: request.watches,
                    reply: request.reply,
                });
                Ok(())
            }
            Err(Refused::Alone(error)) => {
                request.fail(&error);
                Ok(())
            }
            Err(Refused::Together(error)) => {
                request.fail(&error);
                Err(error)
            }
        }
    }

    /// Checks what a transaction read. The counter covers the whole file, so if it did not move,
    /// nothing else did.
    fn check(&self, db: &Db, basis: Basis) -> Result<(), Refused> {
        match basis {
            Basis::Blind => Ok(()),
            Basis::Exactly(version) if version == self.newest => Ok(()),
            Basis::Read(read) if read.0.version == self.newest => Ok(()),
            Basis::Exactly(version) => Err(Refused::Alone(
                StoreError::new(StoreErrorKind::TooOld).with_context(format!(
                    "the store is at version {} and keeps no other, {version} was asked for",
                    self.newest
                )),
            )),
            Basis::Read(read) => {
                let (snapshot, mut reads) = *read;
                if let Some(snapshot) = snapshot.db() {
                    reads.read_rest(snapshot).map_err(Refused::Alone)?;
                }
                match reads.still_holds(db) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(Refused::Alone(StoreErrorKind::Conflict.into())),
                    Err(error) => Err(refused(db, error)),
                }
            }
        }
    }

    /// Tells everyone of the commit: its callers, those who wait for what it wrote.
    pub(super) fn committed(self, db: &Db, hub: &Hub) {
        let mut written = Vec::new();
        for member in self.members {
            // Before the reply: a watch is armed when its commit is known.
            hub.arm(member.watches);
            let _ = member.reply.send(Ok(Some(member.committed)));
            written.extend(member.written);
        }
        for key in hub.watched_in(&written) {
            match db.get(&key) {
                Ok(value) => hub.look(&key, value.as_ref()),
                // The poller sees that nobody looked at this version, and looks itself.
                Err(_) => return,
            }
        }
        hub.looked_at_own(self.base, self.newest);
    }

    pub(super) fn fail(self, error: &StoreError) {
        for member in self.members {
            for watch in member.watches {
                watch.fail(error.clone());
            }
            let _ = member.reply.send(Err(error.clone()));
        }
    }
}

fn in_savepoint<T>(db: &Db, apply: impl FnOnce() -> Result<T, StoreError>) -> Result<T, Refused> {
    db.savepoint().map_err(Refused::Together)?;
    match apply() {
        Ok(applied) => db.release().map(|()| applied).map_err(Refused::Together),
        Err(error) => match refused(db, error) {
            Refused::Alone(error) => match db.undo() {
                Ok(()) => Err(Refused::Alone(error)),
                Err(lost) => Err(Refused::Together(lost)),
            },
            together => Err(together),
        },
    }
}

/// After some errors SQLite rolls back everything by itself.
fn refused(db: &Db, error: StoreError) -> Refused {
    if db.in_transaction() {
        Refused::Alone(error)
    } else {
        Refused::Together(error)
    }
}

/// Applies the writes, in order. Returns which keys they touch, and arms the watches with the
/// values that this transaction leaves.
fn apply(db: &Db, request: &mut Request, stamp: CommitStamp) -> Result<Vec<KeyRange>, StoreError> {
    let mut written = Vec::with_capacity(request.mutations.len());
    for mutation in &request.mutations {
        match mutation.effect(stamp, |key| db.get(key))? {
            Effect::Put(key, value) => db.put(&key, &value)?,
            Effect::Remove(range) => db.remove(&range)?,
            Effect::Nothing => continue,
        }
        written.push(mutation.conflict_range(stamp));
    }
    for watch in &mut request.watches {
        watch.armed = db.get(&watch.key)?;
    }
    Ok(written)
}

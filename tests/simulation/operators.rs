//! What operators do to instances while everything is under way.

use crate::ledger::Ledger;
use crate::notes::{Removed, is_mortal};
use crate::world::World;
use abide::admin::{Admin, AdminError, AdminErrorKind, Purge, Purged, Selection, Then};
use abide::durable::keys::Lane;
use abide::{InstanceId, Node};
use std::sync::Arc;
use std::time::Duration;

/// What an operator takes away from an instance of which nothing is asked.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Everything,
    State,
    Messages,
}

fn instance(name: &str) -> InstanceId {
    InstanceId::new("ledger", name).unwrap()
}

impl World {
    /// An operator takes something away: from an instance that may be lost, or messages from one that
    /// lasts.
    pub(crate) fn purge(self: &Arc<Self>) {
        let (mortals, nodes) = (self.settings.mortal_names(), self.nodes());
        if mortals.is_empty() || nodes.is_empty() {
            return;
        }
        let world = Arc::clone(self);
        if self.below(2) == 0 {
            self.env
                .spawn(Box::pin(async move { world.thin_out().await }));
            return;
        }
        let name = mortals[self.below(mortals.len() as u64) as usize].clone();
        let node = nodes[self.below(nodes.len() as u64) as usize].clone();
        let loss = match self.below(4) {
            0 => Loss::Messages,
            1 => Loss::State,
            _ => Loss::Everything,
        };
        self.env.spawn(Box::pin(
            async move { world.take_away(node, &name, loss).await },
        ));
    }

    async fn take_away(&self, node: Node, name: &str, loss: Loss) {
        assert!(is_mortal(name));
        let server = node.server::<Ledger>(name.to_owned());
        let ended = match loss {
            Loss::Everything => format!("{:?}", server.kill().await),
            Loss::State => format!("{:?}", server.reset().await),
            Loss::Messages => {
                let admin = Admin::of(self.namespace.clone());
                let purge = Purge::new(Selection::All);
                let purged = admin.purge(&instance(name), &purge).await;
                admin.close().await.unwrap();
                format!("{purged:?}")
            }
        };
        self.notes
            .say(|| format!("the purge of {name} ({loss:?}) ends: {ended}"));
    }

    /// Takes messages out of the mailboxes of an instance that lasts, and writes down how many.
    async fn thin_out(&self) {
        let admin = Admin::of(self.namespace.clone());
        let mut lasting = self.settings.lasting_names();
        let first = self.below(lasting.len() as u64) as usize;
        lasting.rotate_left(first);
        // One that has some, if there is one.
        let mut chosen = &lasting[0];
        for name in &lasting {
            let shown = admin.instance(&instance(name)).await;
            if shown.is_ok_and(|shown| shown.length > 0) {
                chosen = name;
                break;
            }
        }
        self.thin_out_one(&admin, chosen).await;
        admin.close().await.unwrap();
    }

    async fn thin_out_one(&self, admin: &Admin, name: &str) {
        match self.selection(admin, name).await {
            Ok(Some(purge)) => {
                let purged = admin.purge(&instance(name), &purge).await;
                self.took(name, purge, purged);
            }
            Ok(None) => {}
            Err(error) => self
                .notes
                .violation(format!("{name} is not shown: {error:?}")),
        }
    }

    /// Some of its messages; none if a single one is wanted, and none is there.
    async fn selection(&self, admin: &Admin, name: &str) -> Result<Option<Purge>, AdminError> {
        let lane = match self.below(2) {
            0 => Lane::Ordinary,
            _ => Lane::Priority,
        };
        let selection = match self.below(4) {
            0 => Selection::Head,
            1 => Selection::All,
            2 => Selection::SentBefore(admin.now_ms().saturating_sub(self.below(5_000))),
            _ => {
                let page = admin.mailbox(&instance(name), lane, None, 10).await?;
                let there = page.items.len() as u64;
                let Some(chosen) = self.env.random().checked_rem(there) else {
                    return Ok(None);
                };
                Selection::Stamp(page.items[chosen as usize].stamp)
            }
        };
        Ok(Some(Purge {
            lane: match selection {
                Selection::All if self.below(2) == 0 => None,
                _ => Some(lane),
            },
            to_dead: self.below(3) == 0,
            ..Purge::new(selection)
        }))
    }

    fn took(&self, name: &str, purge: Purge, purged: Result<Purged, AdminError>) {
        let what = || format!("{purge:?} in {name}");
        match purged {
            Ok(purged) => {
                let (messages, others) = (purged.messages, purged.unreadable + purged.foreign);
                self.notes
                    .say(|| format!("{} took {messages} messages", what()));
                if others > 0 {
                    self.notes
                        .violation(format!("{}: {others} are no messages", what()));
                }
                self.removed(name, messages, purge.to_dead);
            }
            Err(error) if error.kind() == AdminErrorKind::NotFound => {}
            Err(error) => self.notes.violation(format!("{}: {error:?}", what())),
        }
    }

    fn removed(&self, name: &str, messages: u64, to_dead: bool) {
        self.notes.remove(
            name,
            match to_dead {
                true => Removed {
                    deleted: 0,
                    buried: messages,
                },
                false => Removed {
                    deleted: messages,
                    buried: 0,
                },
            },
        );
    }

    /// What an operator does to a run that hangs, or seems to.
    pub(crate) fn break_lock(self: &Arc<Self>) {
        let names = self.settings.names();
        let name = names[self.below(names.len() as u64) as usize].clone();
        let then = match self.below(4) {
            0 => Then::DeadLetter,
            1 => Then::Discard,
            _ => Then::Retry,
        };
        let world = Arc::clone(self);
        self.env.spawn(Box::pin(async move {
            let admin = Admin::of(world.namespace.clone());
            // It is broken at some moment from now on: the next run may begin before this task hears.
            world.notes.fence(&name);
            let broken = admin.break_lock(&instance(&name), then, false).await;
            if broken.is_ok() {
                world.notes.fence(&name);
                world.harm(Duration::ZERO, true);
                if then != Then::Retry {
                    world.removed(&name, 1, then == Then::DeadLetter);
                }
            }
            world
                .notes
                .say(|| format!("the lock of {name} is broken, {then:?}: {broken:?}"));
            admin.close().await.unwrap();
        }));
    }
}

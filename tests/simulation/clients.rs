//! What clients do: one operation after the other, each written down.

use crate::ledger::{Act, Append, Ledger, Look, Work};
use crate::notes::{Answer, How, Notes, Operation, is_mortal};
use crate::rest::ATTEMPTS;
use crate::settings::{Profile, Settings};
use crate::world::World;
use abide::Node;
use abide::env::Env;
use abide::server::{CallError, CallErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A client: it sends until the world is told to come to rest.
pub(crate) struct Client {
    world: Arc<World>,
    node: Node,
    process: usize,
    env: Arc<dyn Env>,
    _present: Present,
}

/// Counts a client for as long as it lives, however it ends.
struct Present(Arc<AtomicUsize>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Client {
    pub(crate) fn new(world: Arc<World>, node: Node, process: usize, env: Arc<dyn Env>) -> Self {
        let present = Arc::clone(&world.clients);
        present.fetch_add(1, Ordering::SeqCst);
        Self {
            world,
            node,
            process,
            env,
            _present: Present(present),
        }
    }

    pub(crate) async fn run(self) {
        let me = Arc::new(self);
        while me.world.is_active() {
            let think = u64::try_from(me.settings().think().as_micros()).unwrap();
            let pause = me.below(think + 1);
            // By the world's clock: however slow its process is, a client thinks no longer.
            me.world.env.sleep(Duration::from_micros(pause)).await;
            // Mostly alone, now and then in a crowd, which is where batches and conflicts come from.
            let profile = me.settings().profile;
            let (crowd, spread) = match (profile, me.below(8)) {
                (Profile::Sparse, 0..=3) => (me.below(4), 60_000),
                (Profile::Duel, 0..=3) => (me.below(8), 8_000),
                (_, 0) => (me.below(12), 3_000),
                (_, 1 | 2) => (2, 3_000),
                _ => (1, 0),
            };
            let names = me.settings().names();
            let favourite = me.one_of(&names);
            let is_mixed = profile == Profile::Sparse && me.below(2) == 0;
            for _ in 1..crowd {
                let one = Arc::clone(&me);
                let instance = match is_mixed {
                    true => me.one_of(&names),
                    false => favourite.clone(),
                };
                me.env.spawn(Box::pin(async move {
                    one.env
                        .sleep(Duration::from_micros(one.below(spread)))
                        .await;
                    one.operation(instance).await;
                }));
            }
            if profile == Profile::Duel && me.below(2) == 0 {
                let one = Arc::clone(&me);
                let instance = favourite.clone();
                me.env
                    .spawn(Box::pin(async move { one.relay(instance).await }));
            }
            if me.world.is_active() {
                me.operation(favourite).await;
            }
        }
    }

    /// One operation right behind the other, each through some other process. So each of them has to
    /// come behind what another process was told just now.
    async fn relay(&self, instance: String) {
        for _ in 0..=self.below(6) {
            let peers = self.world.peers();
            if !self.world.is_active() || peers.is_empty() {
                return;
            }
            let (process, node) = peers[self.below(peers.len() as u64) as usize].clone();
            let (world, env) = (Arc::clone(&self.world), Arc::clone(&self.env));
            let there = Self::new(world, node, process, env);
            there.operation(instance.clone()).await;
        }
    }

    fn settings(&self) -> &Settings {
        &self.world.settings
    }

    fn notes(&self) -> &Notes {
        &self.world.notes
    }

    fn below(&self, end: u64) -> u64 {
        self.env.random() % end
    }

    fn one_of(&self, names: &[String]) -> String {
        names[self.below(names.len() as u64) as usize].clone()
    }

    async fn operation(&self, instance: String) {
        if self.settings().is_locky && self.below(4) == 0 {
            return self.work(instance).await;
        }
        match self.below(20) {
            0..=2 => self.look(instance).await,
            // What was read ahead must not answer these, nor be what they change.
            3..=6 if self.settings().profile == Profile::Duel => self.look(instance).await,
            7..=16 if self.settings().profile == Profile::Duel => {
                self.append(instance, Act::Plain).await;
            }
            3 if !self.settings().is_flawless() => self.work(instance).await,
            4..=6 => {
                let kind = self.below(5);
                let until = self.below(7) as u32;
                let is_flawless = self.settings().is_flawless();
                let act = match kind {
                    0 if !is_flawless => Act::Fail(until),
                    1 if !is_flawless => Act::Panic(until),
                    2 => Act::Later,
                    3 => Act::Stop,
                    _ => Act::Reject,
                };
                self.append(instance, act).await;
            }
            7..=10 => {
                let lasting = self.settings().lasting_names();
                let from = match is_mortal(&instance) {
                    true => lasting[0].clone(),
                    false => instance,
                };
                let to = lasting[self.below(lasting.len() as u64) as usize].clone();
                let amount = self.below(60) as i64;
                self.append(from, Act::Transfer { to, amount }).await;
            }
            _ => self.append(instance, Act::Plain).await,
        }
    }

    fn timeout(&self) -> Duration {
        match self.below(4) {
            _ if self.settings().is_brisk => Duration::from_secs(60),
            0 => Duration::from_millis(self.below(3_000) + 1),
            1 => Duration::from_secs(5),
            _ => Duration::from_secs(60),
        }
    }

    async fn append(&self, instance: String, act: Act) {
        let how = if self.below(2) == 0 {
            How::Cast
        } else {
            How::Call
        };
        let often = if self.settings().is_locky { 2 } else { 10 };
        let is_priority = self.below(often) == 0;
        let sends = match &act {
            Act::Later => Some((instance.clone(), 0)),
            Act::Transfer { to, amount } => Some((to.clone(), *amount)),
            _ => None,
        };
        let may_reject = matches!(act, Act::Reject | Act::Transfer { .. });
        let op = self.notes().begin(|op| Operation {
            op,
            process: self.process,
            instance: instance.clone(),
            how,
            is_priority,
            is_flawed: matches!(act, Act::Fail(_) | Act::Panic(_)),
            is_locked: false,
            may_reject,
            sends,
            begin: 0,
            begin_at: Duration::ZERO,
            end: None,
            end_at: None,
        });
        self.notes().say(|| format!("    that is {act:?}"));
        let mut server = self.node.server::<Ledger>(instance).timeout(self.timeout());
        if is_priority {
            server = server.priority();
        }
        let message = Append { op, act };
        let result = match how {
            How::Cast => server.cast(message).await.map(|()| Answer::Acknowledged),
            _ => placed(server.call(message).await),
        };
        self.notes().end(op, result);
    }

    async fn work(&self, instance: String) {
        let how = if self.below(2) == 0 {
            How::Cast
        } else {
            How::Call
        };
        let fails = if self.below(3) == 0 {
            self.below(6) as u32
        } else {
            0
        };
        let rejects = self.below(6) == 0;
        let is_long = self.settings().has_long_outages();
        let millis = match self.below(5) {
            // Longer than it takes to be taken for dead.
            0 if is_long && fails == 0 => self.below(250_000),
            0 => self.below(60_000),
            _ => self.below(500),
        };
        let runs = fails.min(ATTEMPTS - 1) + 1;
        self.world.ask_for(Duration::from_millis(millis) * runs);
        let op = self.notes().begin(|op| Operation {
            op,
            process: self.process,
            instance: instance.clone(),
            how,
            is_priority: false,
            is_flawed: fails > 0,
            is_locked: true,
            may_reject: rejects,
            sends: None,
            begin: 0,
            begin_at: Duration::ZERO,
            end: None,
            end_at: None,
        });
        let server = self.node.server::<Ledger>(instance).timeout(self.timeout());
        let message = Work {
            op,
            millis,
            fails,
            rejects,
        };
        self.notes().say(|| format!("    that is {message:?}"));
        let result = match how {
            How::Cast => server.cast(message).await.map(|()| Answer::Acknowledged),
            _ => placed(server.call(message).await),
        };
        self.notes().end(op, result);
    }

    async fn look(&self, instance: String) {
        let is_priority = self.below(4) == 0;
        let op = self.notes().begin(|op| Operation {
            op,
            process: self.process,
            instance: instance.clone(),
            how: How::Query,
            is_priority,
            is_flawed: false,
            is_locked: false,
            may_reject: false,
            sends: None,
            begin: 0,
            begin_at: Duration::ZERO,
            end: None,
            end_at: None,
        });
        let mut server = self.node.server::<Ledger>(instance).timeout(self.timeout());
        if is_priority {
            server = server.priority();
        }
        let result = server.query(Look).await.map(Answer::Length);
        self.notes().end(op, result);
    }
}

/// The reply to an append, or what its refusal says.
fn placed(result: Result<u64, CallError>) -> Result<Answer, CallError> {
    match result {
        Ok(place) => Ok(Answer::Place(place)),
        Err(error) if error.kind() == CallErrorKind::Rejected => {
            Ok(match error.message().parse() {
                Ok(length) => Answer::Length(length),
                Err(_) => Answer::Refused,
            })
        }
        Err(error) => Err(error),
    }
}

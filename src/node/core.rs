//! A node without its threads: what runs the same under tokio, under a simulation, and wherever else
//! an [`Env`] comes from.

use super::StartError;
use crate::client::{Client, Options as ClientOptions};
use crate::consumer::{Consumer, Kind, Parked, Parts};
use crate::durable::presence::Renewals;
use crate::durable::{Namespace, Presence, Sweeper};
use crate::env::Env;
use crate::id::InstanceId;
use crate::reports::Reports;
use crate::server::Courier;
use crate::store::{CommitStamp, Database, RetryPolicy, Store, StoreError, Version};
use crate::wake::{Callers, Local};
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::{Either, Shared, select};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// How often the sessions of others are looked at. Two looks must be close together to count.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What a core is made of.
pub(super) struct CoreParts {
    pub(super) store: Arc<dyn Store>,
    pub(super) namespace: String,
    /// Where handlers and everything else run.
    pub(super) env: Arc<dyn Env>,
    /// Where heartbeats and locks are kept: handlers cannot starve it.
    pub(super) pulse: Arc<dyn Env>,
    pub(super) kinds: Vec<Kind>,
    pub(super) client: ClientOptions,
}

/// A running node.
pub(super) struct Core {
    namespace: Namespace,
    presence: Arc<Presence>,
    client: Arc<Client>,
    consumer: Arc<Consumer>,
    failure: Arc<Failure>,
    reports: Reports,
}

/// The first background task that ended although it should not.
#[derive(Debug)]
pub(super) struct Failure {
    what: Mutex<Option<String>>,
    tell: Mutex<Option<oneshot::Sender<()>>>,
    told: Shared<oneshot::Receiver<()>>,
}

impl Failure {
    fn new() -> Arc<Self> {
        let (tell, told) = oneshot::channel();
        Arc::new(Self {
            what: Mutex::new(None),
            tell: Mutex::new(Some(tell)),
            told: told.shared(),
        })
    }

    fn report(&self, what: String) {
        self.what
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(what);
        self.tell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// What failed first, if anything did.
    pub(super) fn what(&self) -> Option<String> {
        let what = self.what.lock().unwrap_or_else(PoisonError::into_inner);
        what.clone()
    }

    /// Completes with the first failure.
    pub(super) async fn wait(&self) -> String {
        // The sender is dropped, never used, when something has failed.
        let _ = self.told.clone().await;
        self.what().unwrap_or_default()
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("session", &self.presence.session().id())
            .field("consumer", &self.consumer)
            .finish_non_exhaustive()
    }
}

impl Core {
    pub(super) async fn start(parts: CoreParts) -> Result<Self, StartError> {
        let database = Database::new(parts.store, Arc::clone(&parts.env));
        let namespace = Namespace::open(&database, &parts.namespace)
            .await
            .map_err(StartError::Store)?;
        let names = parts.kinds.iter();
        let names = names.map(|kind| kind.behaviour.kind().to_owned()).collect();
        let presence = Presence::open(&namespace, names)
            .await
            .map_err(StartError::Store)?;
        let failure = Failure::new();
        let reports = {
            let failure = Arc::clone(&failure);
            Reports::new(move |what| failure.report(what))
        };
        let client = ClientOptions {
            reports: reports.clone(),
            ..parts.client
        };
        let client = Client::new(Arc::clone(&presence), &client);
        let consumer = Consumer::new(Parts {
            presence: Arc::clone(&presence),
            env: Arc::clone(&parts.env),
            pulse: Arc::clone(&parts.pulse),
            callers: Arc::clone(&client) as Arc<dyn Callers>,
            courier: Arc::clone(&client) as Arc<dyn Courier>,
            kinds: parts.kinds,
            reports: reports.clone(),
        });
        let local: Weak<dyn Local> = Arc::downgrade(&(Arc::clone(&consumer) as Arc<dyn Local>));
        client.set_local(local);
        let observer: Weak<dyn Renewals> =
            Arc::downgrade(&(Arc::clone(&consumer) as Arc<dyn Renewals>));
        presence.observe(observer);
        let core = Self {
            namespace,
            presence,
            client,
            consumer,
            failure,
            reports,
        };
        core.keep(parts.pulse.as_ref(), "the heartbeat", {
            let presence = Arc::clone(&core.presence);
            presence.beat_forever(Arc::clone(&parts.pulse))
        });
        core.keep(
            parts.pulse.as_ref(),
            "the sweep of dead sessions",
            sweep_forever(
                Arc::clone(&parts.pulse),
                core.namespace.clone(),
                Arc::clone(&core.consumer),
                Arc::clone(&core.presence),
            ),
        );
        core.consumer.start();
        Ok(core)
    }

    /// Runs a task that must not end before the node does, and never silently.
    fn keep(
        &self,
        env: &dyn Env,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let reports = self.reports.clone();
        env.spawn(Box::pin(async move {
            reports.guard(|| what.to_owned(), task).await;
        }));
    }

    pub(super) fn courier(&self) -> Arc<dyn Courier> {
        Arc::clone(&self.client) as Arc<dyn Courier>
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(super) fn failure(&self) -> &Arc<Failure> {
        &self.failure
    }

    pub(super) fn parked(&self) -> Vec<(InstanceId, Parked)> {
        self.consumer.parked()
    }

    /// Ends what runs, waiting for it up to `budget`. Whether everything came to its end.
    pub(super) async fn shutdown(&self, budget: Duration) -> bool {
        let env = self.namespace.database().env();
        let until = env.now().saturating_add(budget);
        let finished = self.consumer.stop(budget).await;
        let rest = until.saturating_sub(env.now());
        let closing = Box::pin(async {
            self.client.close().await;
            self.presence.close().await
        });
        match select(closing, env.sleep(rest.max(LEAST_TO_CLOSE))).await {
            Either::Left((Ok(()), _)) => finished,
            Either::Left((Err(error), _)) => {
                tracing::warn!(%error, "the session is left to be swept");
                false
            }
            Either::Right(_) => false,
        }
    }
}

/// Where the tasks outlive the node, in a simulation say, they are to end with it.
impl Drop for Core {
    fn drop(&mut self) {
        self.consumer.abandon();
        self.client.abandon();
        self.presence.abandon();
    }
}

/// What closing gets at least, however long the handlers took of the budget: it is one transaction.
const LEAST_TO_CLOSE: Duration = Duration::from_millis(500);

/// Removes the sessions of dead processes, and tells the consumer of each death.
async fn sweep_forever(
    env: Arc<dyn Env>,
    namespace: Namespace,
    consumer: Arc<Consumer>,
    presence: Arc<Presence>,
) {
    let mut sweeper = Sweeper::new(&namespace);
    loop {
        let pause = env.sleep(SWEEP_EVERY);
        if let Either::Left(_) = select(Box::pin(presence.closed()), pause).await {
            return;
        }
        match sweeper.observe().await {
            Ok(swept) if swept.is_empty() => {}
            Ok(swept) => {
                tracing::info!(?swept, "sessions of dead processes were removed");
                match newest(&namespace).await {
                    Ok(version) => consumer.saw_death(CommitStamp::new(version, u16::MAX)),
                    Err(error) => tracing::warn!(%error, "the time of a death is not known"),
                }
            }
            Err(error) => tracing::debug!(%error, "the sessions cannot be looked at"),
        }
    }
}

/// A version that no message pushed so far is above.
async fn newest(namespace: &Namespace) -> Result<Version, StoreError> {
    let read = namespace
        .database()
        .run_with(RetryPolicy::default(), |attempt| {
            attempt.tx().read_version()
        });
    Ok(read.await?.value)
}

//! A process's part in a system of servers: it sends, and serves the kinds it was given.

mod core;

use self::core::{Core, CoreParts};
use crate::client::Options as ClientOptions;
use crate::consumer::{Kind, KindOptions, Parked};
use crate::durable::Namespace;
use crate::env::{BoxFuture, Env, TokioEnv};
use crate::id::InstanceId;
use crate::server::{self, Courier, InvalidServer, Protocol, Ref, Server};
use crate::store::{self, Store, StoreError};
use crate::trace::{TraceContext, Tracer};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The namespace of a node that was given none.
pub const DEFAULT_NAMESPACE: &str = "abide";

/// What a node is to be.
///
/// # Examples
///
/// ```
/// use abide::Node;
/// use std::time::Duration;
///
/// # #[tokio::main] async fn main() -> Result<(), abide::StartError> {
/// // A node that serves nothing: it only sends.
/// let node = Node::builder("memory:").namespace("shop").start().await?;
/// assert!(node.shutdown(Duration::from_secs(5)).await);
/// # Ok(()) }
/// ```
#[must_use = "a node runs once it is started"]
pub struct NodeBuilder {
    store: Where,
    namespace: String,
    kinds: Vec<Result<Kind, InvalidServer>>,
    threads: Option<usize>,
    runtime: Option<tokio::runtime::Handle>,
    env: Option<Arc<dyn Env>>,
    client: ClientOptions,
}

/// Where the store is.
enum Where {
    Url(String),
    Open(Arc<dyn Store>),
}

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store cannot be opened, or does not answer.
    #[error("the store cannot be used")]
    Store(#[source] StoreError),
    /// Two servers of one node have the same kind.
    #[error("the kind {0:?} is served twice by one node")]
    DuplicateKind(String),
    /// A server cannot be served as it is.
    #[error(transparent)]
    Server(InvalidServer),
    /// The operating system gives no more threads.
    #[error("the node's threads cannot be started")]
    Threads(#[source] std::io::Error),
}

impl NodeBuilder {
    /// The namespace: one application's part of the store. Default [`DEFAULT_NAMESPACE`].
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// Serves a kind with the default [options](KindOptions).
    pub fn serve<S: Server>(self, server: S) -> Self {
        self.serve_with(server, KindOptions::default())
    }

    /// Serves a kind.
    pub fn serve_with<S: Server>(mut self, server: S, options: KindOptions) -> Self {
        let kind = server::erase(server).map(|behaviour| Kind::new(behaviour, options));
        self.kinds.push(kind);
        self
    }

    /// How many threads run handlers. Default: one per processor, at least two, so that one handler
    /// that takes long keeps no others waiting.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.max(1));
        self
    }

    /// Runs handlers in this tokio runtime instead of in threads of the node's own.
    ///
    /// A call from a task of the same runtime then changes threads only for the store: it is answered
    /// sooner. In return the node depends on that runtime. Tasks that keep its threads busy delay the
    /// handlers. Once it has ended, the node handles nothing more: calls time out, casts fail. In a
    /// runtime with one thread, a handler that takes long keeps everything else waiting. With this,
    /// [`threads`](Self::threads) means nothing.
    pub fn runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// How long a push, a cast or a call, is tried while the store does not answer. Default 30 s:
    /// longer than a store's recovery takes.
    pub fn push_for(mut self, time: Duration) -> Self {
        self.client.push_for = time;
        self
    }

    /// Joins what this node sends and handles with the traces of your tracing system. Without it, a
    /// message keeps the trace that it came with, and what its handler sends has the same.
    pub fn trace(mut self, context: impl TraceContext) -> Self {
        self.client.tracer = Tracer::new(Arc::new(context));
        self
    }

    /// Runs in an environment of yours instead of in threads of the node's own: a simulation, say.
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = Some(env);
        self
    }

    /// Opens the store and starts the node.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. Nothing runs then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing running; a session that was opened will be swept.
    pub async fn start(self) -> Result<Node, StartError> {
        let mut kinds = Vec::new();
        let mut names = BTreeSet::new();
        for kind in self.kinds {
            let mut kind = kind.map_err(StartError::Server)?;
            kind.tracer = self.client.tracer.clone();
            if !names.insert(kind.behaviour.kind()) {
                let name = kind.behaviour.kind().to_owned();
                return Err(StartError::DuplicateKind(name));
            }
            kinds.push(kind);
        }
        let threads = match self.env {
            Some(env) => Threads::given(env),
            None => Threads::start(self.threads, self.runtime).map_err(StartError::Threads)?,
        };
        let store = match self.store {
            Where::Url(url) => store::open(&url).await.map_err(StartError::Store)?,
            Where::Open(store) => store,
        };
        let core = Core::start(CoreParts {
            store,
            namespace: self.namespace,
            env: Arc::clone(&threads.env),
            pulse: Arc::clone(&threads.pulse),
            kinds,
            client: self.client,
        })
        .await?;
        Ok(Node {
            core: Arc::new(core),
            threads,
        })
    }
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("namespace", &self.namespace)
            .field("kinds", &self.kinds.len())
            .finish_non_exhaustive()
    }
}

/// A running node.
///
/// Clones are the same node. Dropping the last of them stops the node at once, as a crash would but
/// in an orderly process: turns under way may or may not be committed, pending calls end, locks are
/// left to their leases, and the session is left to be swept by other nodes a minute later. Nothing
/// acknowledged is lost. [`shutdown`](Self::shutdown) does better.
///
/// The end of a program that serves:
///
/// ```no_run
/// # use abide::Node;
/// # use std::time::Duration;
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder("sqlite:app.db").start().await?;
/// // Until Ctrl-C or SIGTERM; then turns under way have ten seconds to end.
/// if let Some(failure) = node.run_until_signal(Duration::from_secs(10)).await? {
///     eprintln!("{failure}");
///     std::process::exit(1);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Node {
    core: Arc<Core>,
    threads: Threads,
}

impl Node {
    /// A node on the store at `url`: `sqlite:PATH`, `memory:`, or `fdb:` with the path of a cluster
    /// file or nothing; see [`store::open`].
    pub fn builder(url: impl Into<String>) -> NodeBuilder {
        Self::building(Where::Url(url.into()))
    }

    /// A node on a store that is open already.
    pub fn builder_on(store: Arc<dyn Store>) -> NodeBuilder {
        Self::building(Where::Open(store))
    }

    fn building(store: Where) -> NodeBuilder {
        NodeBuilder {
            store,
            namespace: DEFAULT_NAMESPACE.to_owned(),
            kinds: Vec::new(),
            threads: None,
            runtime: None,
            env: None,
            client: ClientOptions::default(),
        }
    }

    /// A reference to an instance. It exists as soon as its first message was handled.
    #[must_use]
    pub fn server<P: Protocol>(&self, id: impl Into<Arc<str>>) -> Ref<P> {
        Ref::new(self.core.courier(), id)
    }

    /// What carries this node's messages.
    #[must_use]
    pub fn courier(&self) -> Arc<dyn Courier> {
        self.core.courier()
    }

    /// The namespace that the node works in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        self.core.namespace()
    }

    /// The instances that this node cannot work on now, and why.
    #[must_use]
    pub fn parked(&self) -> Vec<(InstanceId, Parked)> {
        self.core.parked()
    }

    /// What has failed first in the background that never may, if anything has: abide's own code has
    /// panicked. The node goes on as well as it can; a process that sees this had better end and be started again.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.core.failure().what()
    }

    /// Completes when something has [failed](Self::failure) for good.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn failed(&self) -> String {
        self.core.failure().wait().await
    }

    /// Stops the node: begins no more turns, lets those under way end, gives locks up to other
    /// nodes, pushes what waits to be pushed, ends pending calls and closes the session. Returns
    /// whether all of it was done within `budget`; what was not is as if the process had crashed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the node half stopped; call it again, or drop the node.
    pub async fn shutdown(&self, budget: Duration) -> bool {
        self.core.shutdown(budget).await
    }

    /// Runs until the process is asked to end, by Ctrl-C or SIGTERM, or something has
    /// [failed](Self::failure) for good; then [shuts down](Self::shutdown). Returns the failure, if
    /// that is why.
    ///
    /// # Errors
    ///
    /// When the signals cannot be listened for; the node runs on.
    ///
    /// # Cancel safety
    ///
    /// Safe while the node runs; then as [`shutdown`](Self::shutdown).
    pub async fn run_until_signal(&self, budget: Duration) -> std::io::Result<Option<String>> {
        let signals = self.threads.terminated();
        let failed = Box::pin(self.failed());
        let failure = match select(signals, failed).await {
            Either::Left((signal, _)) => {
                signal?;
                None
            }
            Either::Right((failure, _)) => Some(failure),
        };
        self.shutdown(budget).await;
        Ok(failure)
    }
}

/// Where a node runs. Threads of its own live as long as anything runs on them.
#[derive(Debug, Clone)]
struct Threads {
    env: Arc<dyn Env>,
    pulse: Arc<dyn Env>,
}

impl Threads {
    fn given(env: Arc<dyn Env>) -> Self {
        Self {
            pulse: Arc::clone(&env),
            env,
        }
    }

    /// Threads of the node's own, or those of a runtime. The pulse has one to itself in any case, so
    /// that no handler, however long it takes, makes a living node look dead.
    fn start(
        threads: Option<usize>,
        runtime: Option<tokio::runtime::Handle>,
    ) -> std::io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = threads.unwrap_or(processors.max(2));
        let pulse = TokioEnv::with_threads("abide-pulse", 1)?;
        let env = match runtime {
            Some(runtime) => pulse.with_tasks_in(runtime),
            None => TokioEnv::with_threads("abide-work", threads)?,
        };
        Ok(Self {
            env: Arc::new(env),
            pulse: Arc::new(pulse),
        })
    }

    /// Completes when the process is asked to end.
    fn terminated(&self) -> BoxFuture<'static, std::io::Result<()>> {
        let (tell, told) = oneshot::channel();
        self.pulse.spawn(Box::pin(async move {
            // Nobody may wait any more.
            let _ = tell.send(crate::env::terminated().await);
        }));
        Box::pin(async move {
            told.await
                .unwrap_or_else(|_| Err(std::io::Error::other("the node was stopped")))
        })
    }
}

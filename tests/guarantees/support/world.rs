//! A store that starts empty, and nodes on it.

use super::{Acting, Actor, Lines, Probe, Sum, ms};
use abide::durable::DEFAULT_SHARDS;
use abide::durable::keys::{Key, Keys};
use abide::env::TokioEnv;
use abide::server::Ref;
use abide::store::{self, KeyValue, MemoryStore, Store};
use abide::testing::faults::FaultyStore;
use abide::{KindOptions, Node};
use std::sync::Arc;
use std::time::Duration;

/// A store of a test's own.
#[derive(Debug, Clone)]
pub(crate) struct World {
    place: Place,
    namespace: String,
}

#[derive(Debug, Clone)]
enum Place {
    Memory(Arc<dyn Store>),
    #[cfg(feature = "sqlite")]
    Sqlite(Arc<tempfile::TempDir>),
    #[cfg(feature = "fdb")]
    Fdb(String),
}

/// How long a node gets to stop.
const BUDGET: Duration = Duration::from_secs(10);

impl World {
    pub(crate) fn memory(test: &str) -> Self {
        Self::new(Place::Memory(Arc::new(MemoryStore::new())), test)
    }

    #[cfg(feature = "sqlite")]
    pub(crate) fn sqlite(test: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::new(Place::Sqlite(Arc::new(directory)), test)
    }

    #[cfg(feature = "fdb")]
    pub(crate) fn fdb(test: &str) -> Option<Self> {
        let cluster = abide::testing::fdb::TestCluster::get()?;
        Some(Self::new(Place::Fdb(cluster.url()), test))
    }

    /// The cluster may be shared, so that the namespace is one that no other run had.
    fn new(place: Place, test: &str) -> Self {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let namespace = format!("{test}/{}/{}", since.as_nanos(), std::process::id());
        Self { place, namespace }
    }

    /// The URL of the store, where it has one.
    pub(crate) fn url(&self) -> Option<String> {
        match &self.place {
            Place::Memory(_) => None,
            #[cfg(feature = "sqlite")]
            Place::Sqlite(directory) => Some(format!(
                "sqlite:{}",
                directory.path().join("store.db").display()
            )),
            #[cfg(feature = "fdb")]
            Place::Fdb(url) => Some(url.clone()),
        }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The store, opened anew: each node has its own connection, as each process has.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        match (&self.place, self.url()) {
            (_, Some(url)) => store::open(&url).await.unwrap(),
            (Place::Memory(store), _) => Arc::clone(store),
            #[allow(unreachable_patterns, reason = "with one store there is nothing else")]
            _ => unreachable!(),
        }
    }

    /// Quick to give up, so that the tests are short.
    pub(crate) fn options() -> KindOptions {
        KindOptions::default()
            .attempts(3)
            .backoff(ms(20), ms(60))
            .lease(ms(900))
    }

    /// A node that serves actors.
    pub(crate) async fn serving(&self, probe: &Arc<Probe>) -> Node {
        self.serving_with(probe, Self::options()).await
    }

    pub(crate) async fn serving_with(&self, probe: &Arc<Probe>, options: KindOptions) -> Node {
        self.serving_on(self.store().await, probe, options).await
    }

    pub(crate) async fn serving_on(
        &self,
        store: Arc<dyn Store>,
        probe: &Arc<Probe>,
        options: KindOptions,
    ) -> Node {
        let actor = Actor {
            probe: Arc::clone(probe),
        };
        Node::builder_on(store)
            .namespace(&self.namespace)
            .push_for(Duration::from_secs(5))
            .threads(2)
            .serve_with(actor, options)
            .start()
            .await
            .unwrap()
    }

    /// A node that serves actors, and its connection, which can be cut: what the process does then
    /// nobody sees, as if it had been killed.
    pub(crate) async fn serving_mortally(&self, probe: &Arc<Probe>) -> (Node, FaultyStore) {
        let connection = self.connection().await;
        let store = Arc::new(connection.clone());
        let node = self.serving_on(store, probe, Self::options()).await;
        (node, connection)
    }

    /// The store, opened anew, with faults to come.
    pub(crate) async fn connection(&self) -> FaultyStore {
        let env = Arc::new(TokioEnv::current());
        FaultyStore::new(self.store().await, env, 1)
    }

    /// A node that only sends.
    pub(crate) async fn producer(&self) -> Node {
        self.producer_on(self.store().await).await
    }

    pub(crate) async fn producer_on(&self, store: Arc<dyn Store>) -> Node {
        Node::builder_on(store)
            .namespace(&self.namespace)
            .push_for(Duration::from_secs(5))
            .threads(1)
            .start()
            .await
            .unwrap()
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys::new(Keys::namespace_prefix(&self.namespace), DEFAULT_SHARDS)
    }

    /// Everything that is in the store.
    pub(crate) async fn rows(&self) -> Vec<KeyValue> {
        let tx = self.store().await.begin().unwrap();
        tx.get_range(self.keys().all().read()).await.unwrap()
    }

    /// Every key that is in the store.
    pub(crate) async fn decoded(&self) -> Vec<Key> {
        let (keys, rows) = (self.keys(), self.rows().await);
        rows.iter()
            .map(|row| keys.decode(&row.key).unwrap())
            .collect()
    }

    /// What sweepers do a minute after a death, for every session there is: too long for a test.
    pub(crate) async fn sweep_all(&self) {
        let tx = self.store().await.begin().unwrap();
        tx.clear_range(&self.keys().sessions());
        tx.commit().await.unwrap();
    }

    /// Puts bytes into the store behind everyone's back.
    pub(crate) async fn plant(&self, key: &[u8], value: &[u8]) {
        let tx = self.store().await.begin().unwrap();
        tx.set(key, value);
        tx.commit().await.unwrap().unwrap();
    }
}

/// What tests ask a node for.
pub(crate) trait NodeExt {
    fn actor(&self, id: &str) -> Ref<Acting>;
    async fn lines(&self, id: &str) -> Vec<String>;
    async fn sum(&self, id: &str) -> u64;
    async fn stop(self);
}

impl NodeExt for Node {
    fn actor(&self, id: &str) -> Ref<Acting> {
        self.server::<Acting>(id).timeout(Duration::from_secs(20))
    }

    async fn lines(&self, id: &str) -> Vec<String> {
        self.actor(id).query(Lines {}).await.unwrap()
    }

    async fn sum(&self, id: &str) -> u64 {
        self.actor(id).query(Sum {}).await.unwrap()
    }

    async fn stop(self) {
        assert_eq!(self.failure(), None);
        assert!(self.shutdown(BUDGET).await, "the node did not stop in time");
    }
}

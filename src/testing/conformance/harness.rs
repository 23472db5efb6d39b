//! What the cases run in.

use super::remote::Processes;
use crate::env::{BoxFuture, Env, TokioEnv};
use crate::store::{
    Committed, Database, Isolation, KeyRange, KeyValue, RangeRead, Store, StoreError,
    StoreErrorKind, Transaction, Tx,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// The name of a case.
pub type CaseName = &'static str;

/// A case: a function of the space it works in.
pub(super) type Case = fn(Space) -> BoxFuture<'static, ()>;

/// No case takes this long: what has not ended by then hangs.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes the stores that the cases run on.
pub trait Fixture: Send + Sync {
    /// Opens a store, or a part of one, that holds nothing yet. Called once per case.
    ///
    /// `None` skips the case: say so on standard error, once and loudly.
    fn open(&self) -> BoxFuture<'_, Option<Opened>>;
}

/// A store that a fixture has opened.
pub struct Opened {
    store: Arc<dyn Store>,
    prefix: Vec<u8>,
    url: Option<String>,
    guard: Option<Box<dyn Send>>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("store", &self.store)
            .field("prefix", &self.prefix)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Opened {
    /// A fresh, empty store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            prefix: Vec::new(),
            url: None,
            guard: None,
        }
    }

    /// Keeps the case's keys below `prefix`, which nobody else uses: for a store that is shared. The
    /// keys are removed when the case has passed.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<Vec<u8>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The URL by which another process [opens](crate::store::open) the same store.
    #[must_use]
    pub fn with_url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Keeps `guard`, a temporary directory say, for as long as the case runs.
    #[must_use]
    pub fn with_guard(mut self, guard: impl Send + 'static) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }
}

/// Runs one case within this process.
///
/// # Panics
///
/// When the store is wrong, the case takes longer than two minutes, or there is no such case.
pub fn run(name: CaseName, fixture: &dyn Fixture) {
    drive(name, fixture, |opened| Arc::clone(&opened.store));
}

/// Runs one case with every transaction in another process: the test `worker` of this binary.
///
/// # Panics
///
/// As [`run`]; and when the fixture states no URL.
pub fn run_across_processes(name: CaseName, fixture: &dyn Fixture, worker: &str) {
    drive(name, fixture, |opened| {
        let url = opened
            .url
            .clone()
            .expect("the fixture must state the store's URL");
        Arc::new(Processes::new(url, worker))
    });
}

fn drive(name: CaseName, fixture: &dyn Fixture, store: impl FnOnce(&Opened) -> Arc<dyn Store>) {
    let (_, case) = super::CASES
        .iter()
        .find(|(found, _)| *found == name)
        .unwrap_or_else(|| panic!("there is no case `{name}`"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a tokio runtime");
    runtime.block_on(async {
        let Some(opened) = fixture.open().await else {
            return;
        };
        let env = Arc::new(TokioEnv::current());
        let space = Space {
            store: store(&opened),
            prefix: opened.prefix.clone().into(),
            env,
        };
        let clean_up = Space {
            store: Arc::clone(&opened.store),
            ..space.clone()
        };
        // Spawned, which also shows that the store's futures can be.
        let case = tokio::spawn(case(space));
        match tokio::time::timeout(CASE_TIMEOUT, case).await {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => std::panic::resume_unwind(failed.into_panic()),
            Err(_) => panic!("`{name}` did not end within {CASE_TIMEOUT:?}"),
        }
        if !clean_up.prefix.is_empty() {
            clean_up.remove_everything().await;
        }
    });
}

/// The part of a store that one case has to itself.
#[derive(Debug, Clone)]
pub(super) struct Space {
    pub(super) store: Arc<dyn Store>,
    prefix: Bytes,
    env: Arc<TokioEnv>,
}

impl Space {
    pub(super) fn begin(&self) -> Tx {
        self.store.begin().expect("begin")
    }

    pub(super) fn database(&self) -> Database {
        Database::new(
            Arc::clone(&self.store),
            Arc::clone(&self.env) as Arc<dyn Env>,
        )
    }

    pub(super) fn env(&self) -> &TokioEnv {
        &self.env
    }

    /// A key of this case.
    pub(super) fn key(&self, name: impl AsRef<[u8]>) -> Vec<u8> {
        [&self.prefix, name.as_ref()].concat()
    }

    /// A key without the prefix that `key` puts before it.
    pub(super) fn name<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        key.strip_prefix(self.prefix.as_ref())
            .expect("a key of this case")
    }

    pub(super) fn prefix_len(&self) -> usize {
        self.prefix.len()
    }

    /// The keys from `begin` on and below `end`.
    pub(super) fn range(&self, begin: &str, end: &str) -> KeyRange {
        KeyRange::new(self.key(begin), self.key(end))
    }

    /// All keys of this case.
    pub(super) fn everything(&self) -> KeyRange {
        KeyRange::prefix(&self.prefix)
    }

    /// Commits these pairs.
    pub(super) async fn put(&self, pairs: &[(&str, &str)]) -> Committed {
        let tx = self.begin();
        for (key, value) in pairs {
            tx.set(&self.key(key), value.as_bytes());
        }
        commit(&tx).await
    }

    /// The committed value of a key.
    pub(super) async fn value(&self, key: &str) -> Option<String> {
        get(&self.begin(), &self.key(key)).await.as_ref().map(text)
    }

    /// The committed content of this case's part of the store.
    pub(super) async fn content(&self) -> Vec<(String, String)> {
        self.pairs(&self.begin(), self.everything().read()).await
    }

    /// What a range read of `tx` returns, in readable form.
    pub(super) async fn pairs(&self, tx: &Tx, read: RangeRead) -> Vec<(String, String)> {
        let rows = tx.get_range(read).await.expect("get_range");
        rows.into_iter()
            .map(|KeyValue { key, value }| {
                (
                    String::from_utf8_lossy(self.name(&key)).into_owned(),
                    text(&value),
                )
            })
            .collect()
    }

    async fn remove_everything(&self) {
        let tx = self.begin();
        tx.clear_range(&self.everything());
        tx.commit().await.expect("cleaning up");
    }

    /// Waits on the environment's clock.
    pub(super) async fn sleep(&self, duration: Duration) {
        self.env.sleep(duration).await;
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Pairs in the form that [`Space::pairs`] returns.
pub(super) fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Reads a key serializably.
pub(super) async fn get(tx: &Tx, key: &[u8]) -> Option<Bytes> {
    tx.get(key, Isolation::Serializable).await.expect("get")
}

/// Commits a transaction that writes.
pub(super) async fn commit(tx: &Tx) -> Committed {
    tx.commit()
        .await
        .expect("commit")
        .expect("a transaction that writes has a commit version")
}

/// Commits a transaction that must be in conflict.
pub(super) async fn assert_conflict(tx: &Tx) {
    assert_kind(tx.commit().await, StoreErrorKind::Conflict);
}

/// The error of an operation that must fail, and how.
pub(super) fn assert_kind<T: std::fmt::Debug>(
    result: Result<T, StoreError>,
    kind: StoreErrorKind,
) -> StoreError {
    let error = result.expect_err("this must be refused");
    assert_eq!(error.kind(), kind, "{error}");
    error
}

/// Writes one pair without committing.
pub(super) fn set(tx: &dyn Transaction, key: &[u8], value: &str) {
    tx.set(key, value.as_bytes());
}

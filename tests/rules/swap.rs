//! A store that another one takes the place of, as when a cluster is restored or handed over.

use crate::support::World;
use abide::store::{KeyRange, KeyValue, MemoryStore, Store, StoreError, Tx};
use std::sync::{Arc, Mutex};

/// What all connections of a run go to.
#[derive(Clone)]
pub(crate) struct Swap(Arc<Mutex<Arc<dyn Store>>>);

/// The rows of a store at some moment.
pub(crate) struct Backup(Vec<KeyValue>);

impl Swap {
    pub(crate) fn new(store: MemoryStore) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(store))))
    }

    fn current(&self) -> Arc<dyn Store> {
        Arc::clone(&self.0.lock().unwrap())
    }

    pub(crate) fn backup(&self, world: &World) -> Backup {
        let everything = KeyRange::new(&[0][..], &[0xff][..]);
        let tx = self.current().begin().unwrap();
        Backup(world.run(tx.get_range(everything.read())).unwrap())
    }

    /// Another store takes the place, with this in it. Its versions begin anew: far below those of
    /// the store that was.
    pub(crate) fn restore(&self, world: &World, backup: &Backup) {
        let store = MemoryStore::with_env(world.sim.env());
        let tx = store.begin().unwrap();
        for row in &backup.0 {
            tx.set(&row.key, &row.value);
        }
        world.run(tx.commit()).unwrap();
        *self.0.lock().unwrap() = Arc::new(store);
    }
}

impl Store for Swap {
    fn begin(&self) -> Result<Tx, StoreError> {
        self.current().begin()
    }

    fn read_versions_cost(&self) -> bool {
        self.current().read_versions_cost()
    }
}

impl std::fmt::Debug for Swap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Swap")
    }
}

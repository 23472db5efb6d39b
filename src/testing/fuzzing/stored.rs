//! The targets that work on a store: rows that nobody wrote, and streams to import.

use super::field;
use crate::admin::{Admin, ImportOptions, InstanceFilter, Record};
use crate::durable::keys::{Keys, Lane, SessionId};
use crate::durable::{Namespace, attempts, lock, queue, reply, state};
use crate::id::InstanceId;
use crate::store::{CommitStamp, Database, MemoryStore, Store, Tx};
use crate::testing::sim::Sim;
use std::sync::Arc;

const NAMESPACE: &str = "fuzz";

/// How many lines of an input are imported, and how many rows are written.
const MOST: usize = 200;

/// The most shards with which a namespace is looked at: each costs some reads.
const MOST_SHARDS: u32 = 64;

struct World {
    sim: Sim,
    store: MemoryStore,
    database: Database,
    admin: Admin,
}

impl World {
    fn new() -> Self {
        let sim = Sim::new(1);
        let store = MemoryStore::with_env(sim.env());
        let database = Database::new(Arc::new(store.clone()), sim.env());
        let admin = sim
            .block_on(Admin::create(&database, NAMESPACE))
            .expect("nothing keeps it")
            .expect("the store is empty");
        Self {
            sim,
            store,
            database,
            admin,
        }
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.sim.block_on(work).expect("it comes to an end")
    }

    fn begin(&self) -> Tx {
        self.store.begin().expect("it is in memory")
    }
}

/// Lines of an export; and what they left, whether they were taken or not.
pub fn import_lines(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut records = Vec::new();
    for line in text.lines().take(MOST) {
        if let Ok(record) = Record::from_line(line) {
            let again = record.to_line().expect("what was read can be written");
            assert_eq!(Record::from_line(&again).unwrap(), record, "{again}");
            records.push(record);
        }
    }
    if records.is_empty() {
        return;
    }
    let world = World::new();
    world.run(async {
        let mut import = world.admin.import(ImportOptions::default());
        let mut taken = true;
        for record in records {
            taken &= import.push(record).await.is_ok();
            if !taken {
                break;
            }
        }
        if taken {
            let _ = import.finish().await;
        }
        looked_at(&world.admin).await;
    });
}

/// Rows under the keys that have values: which key, the length of the value, the value.
pub fn rows(input: &[u8]) {
    let world = World::new();
    let tx = world.begin();
    write(&world, &tx, input);
    world.run(async {
        if tx.commit().await.is_err() {
            return;
        }
        opened(&world.database).await;
        looked_at(&world.admin).await;
        read(&world).await;
        // What the doctor can mend it mends, or says why not.
        let mut cursor = None;
        loop {
            let page = world.admin.doctor(cursor.as_ref()).await.unwrap();
            for finding in &page.items {
                let _ = world.admin.fix(finding).await;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    });
}

fn write(world: &World, tx: &Tx, mut input: &[u8]) {
    let slots = slots(world.admin.namespace().keys());
    for _ in 0..MOST {
        let Some(([slot], rest)) = input.split_first_chunk() else {
            break;
        };
        let Some((value, rest)) = field(rest) else {
            break;
        };
        input = rest;
        if let Some(key) = slots.get(usize::from(*slot)) {
            tx.set(key, value);
        }
    }
}

pub(super) fn instance() -> InstanceId {
    InstanceId::new("kind", "id").expect("both are short")
}

/// The keys that an input can write.
pub(super) fn slots(keys: &Keys) -> Vec<Vec<u8>> {
    let instance = instance();
    let of = keys.instance(&instance);
    let session = keys.session(SessionId::from_bytes([7; 16]));
    let stamp = |user| CommitStamp::from_bytes([1; 10]).with_user(user);
    let state = of.state().begin;
    let below = |path: &[u8]| [state.as_ref(), path].concat();
    vec![
        of.message(Lane::Ordinary, 0, stamp(1), 0).to_vec(),
        of.message(Lane::Ordinary, 0, stamp(1), 1).to_vec(),
        of.message(Lane::Priority, 0, stamp(2), 0).to_vec(),
        of.length().to_vec(),
        of.version().to_vec(),
        of.lock().to_vec(),
        of.lock_message_chunk(0).to_vec(),
        of.lock_message_chunk(1).to_vec(),
        of.attempts(Lane::Ordinary).to_vec(),
        of.attempts(Lane::Priority).to_vec(),
        of.dead_letter(stamp(3), 0).to_vec(),
        of.dead_letter(stamp(3), 1).to_vec(),
        of.paused().to_vec(),
        of.ready().to_vec(),
        keys.kind_paused("kind").to_vec(),
        keys.directory(&instance).to_vec(),
        keys.import().to_vec(),
        session.heartbeat().to_vec(),
        session.reply(1, 0).to_vec(),
        session.reply(1, 1).to_vec(),
        session.outcome(1).to_vec(),
        below(b""),
        below(b"\x02name\x00"),
        below(b"\x02name\x00\x00\x15\x01"),
        below(b"\x02items\x00"),
        below(b"\x02items\x00\x02a\x00"),
        keys.meta().to_vec(),
    ]
}

/// Whoever comes anew, and finds whatever description of the namespace.
async fn opened(database: &Database) {
    let found = Namespace::find(database, NAMESPACE).await;
    let diagnosed = Admin::diagnose(database, NAMESPACE).await;
    match found {
        Ok(found) => {
            assert_eq!(diagnosed.unwrap(), None);
            let found = found.expect("nothing removes it");
            if found.keys().shards() <= MOST_SHARDS {
                looked_at(&Admin::of(found)).await;
            }
        }
        Err(error) => {
            let finding = diagnosed.unwrap().expect("an error has a reason");
            assert!(!finding.explanation.is_empty(), "{error}");
        }
    }
}

/// All that an operator can look at.
async fn looked_at(admin: &Admin) {
    let of = instance();
    let _ = admin
        .instances(&InstanceFilter::default(), None, 100)
        .await
        .unwrap();
    let _ = admin.sessions(None, 100).await.unwrap();
    let _ = admin.doctor(None).await.unwrap();
    let _ = admin.instance(&of).await;
    for lane in [Lane::Ordinary, Lane::Priority] {
        let _ = admin.mailbox(&of, lane, None, 100).await;
    }
    let _ = admin.dead_letters(&Default::default(), None, 100).await;
    let _ = admin.lock(&of).await;
    let _ = admin.paused_kinds().await;
    if let Ok(state) = admin.state(&of).await
        && let Ok(value) = state.value()
    {
        let _ = value.to_json().expect("any value has a form as JSON");
    }
}

/// What a node reads.
async fn read(world: &World) {
    let namespace = world.admin.namespace();
    let keys = namespace.keys().instance(&instance());
    let session = namespace.keys().session(SessionId::from_bytes([7; 16]));
    let tx = world.begin();
    for lane in [Lane::Ordinary, Lane::Priority] {
        let _ = queue::read_head(&tx, &keys, lane, 10, 10_000).await;
        let _ = attempts::read(&tx, &keys, lane).await;
    }
    let _ = lock::read_lock(&tx, &keys).await;
    let _ = lock::read_message(&tx, &keys).await;
    let _ = state::read_version(&tx, &keys).await;
    if let Ok(leaves) = state::load(&tx, &keys).await {
        super::type_of::<super::State>(&leaves);
    }
    let _ = reply::read_inbox(&tx, &session, 10).await;
}

/// Mutation begins with what the crate itself would write: else it would never come past the first
/// check.
#[cfg(test)]
mod tests {
    use super::super::seeds;
    use super::*;
    use crate::admin::FindingCode;

    #[test]
    fn the_seed_of_an_import_is_taken_to_its_end() {
        let seeds = seeds::import_lines();
        let text = std::str::from_utf8(&seeds[0]).unwrap();
        let world = World::new();
        world.run(async {
            let mut import = world.admin.import(ImportOptions::default());
            for line in text.lines() {
                let record = Record::from_line(line).unwrap();
                import.push(record).await.unwrap();
            }
            import.finish().await.unwrap();
            let state = world.admin.state(&instance()).await.unwrap();
            assert!(state.value().is_ok());
        });
    }

    #[test]
    fn the_seed_of_rows_can_be_read_whole() {
        let world = World::new();
        let tx = world.begin();
        write(&world, &tx, &seeds::rows()[0]);
        world.run(async {
            tx.commit().await.unwrap();
            let page = world.admin.doctor(None).await.unwrap();
            let damaged: Vec<_> = page
                .items
                .into_iter()
                .filter(|finding| {
                    matches!(
                        finding.code,
                        FindingCode::UndecodableValue
                            | FindingCode::IncompleteChunks
                            | FindingCode::OrphanedChunks
                            | FindingCode::ForeignKey
                    )
                })
                .collect();
            assert_eq!(damaged, []);
        });
    }
}

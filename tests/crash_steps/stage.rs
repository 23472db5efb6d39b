//! What stands there before an operation, and what operators do.

use crate::server::{Act, ONE, OTHER};
use crate::world::{Process, What, World, findings, instance, secs};
use abide::admin::{Admin, AdminError, ImportOptions, Record, Scope, Then};
use abide::store::KeyValue;
use std::sync::Arc;
use std::time::Duration;

/// Whether everybody was told what became of what he sent.
pub(crate) fn all_told(world: &World) -> bool {
    world.told().len() == world.sent().len()
}

/// What was sent at once may come in any order.
pub(crate) fn sorted(log: &[u64]) -> Vec<u64> {
    let mut log = log.to_vec();
    log.sort_unstable();
    log
}

/// Has an operator work in a process, which may die of it.
pub(crate) fn operate<F>(
    world: &World,
    victim: &Process,
    work: impl FnOnce(Arc<Admin>) -> F + Send + 'static,
) where
    F: Future<Output = Result<(), AdminError>> + Send,
{
    let (notes, namespace) = (Arc::clone(&world.notes), victim.node.namespace().clone());
    victim.machine.env().spawn(Box::pin(async move {
        let admin = Arc::new(Admin::of(namespace));
        let ended = work(Arc::clone(&admin)).await;
        // Whoever does not come to that is swept.
        let _ = admin.close().await;
        notes.end_work(ended.map_err(|error| format!("{error:?}")));
    }));
}

pub(crate) fn three_calls_wait(world: &World) {
    for op in 1..=3 {
        world.send(op, ONE, What::Call(Act::Plain));
    }
    world.rest(secs(1));
}

pub(crate) fn one_is_applied(world: &World) {
    let first = world.serve("first", false);
    world.send(1, ONE, What::Call(Act::Plain));
    world.rest(secs(1));
    assert!(world.stop(&first));
}

pub(crate) fn two_are_dead(world: &World) {
    let first = world.serve("first", true);
    world.send(1, ONE, What::Cast(Act::Fail));
    world.send(2, ONE, What::Cast(Act::Fail));
    world.rest(secs(60));
    assert!(world.stop(&first));
    assert_eq!(world.letters(), [1, 2]);
    world.forget();
}

/// By a process that lives.
pub(crate) fn one_holds_the_lock(world: &World) {
    let holder = world.serve("holder", false);
    world.others.borrow_mut().push(holder);
    world.send(1, ONE, What::Work);
    world.rest(secs(2));
}

pub(crate) fn break_lock(world: &World, victim: &Process, then: Then) {
    operate(world, victim, move |admin| async move {
        let broken = admin.break_lock(&instance(ONE), then, false).await;
        broken.map(drop)
    });
}

/// A process that has shut down in order holds neither a lock nor a claim.
pub(crate) fn nothing_is_held(world: &World) {
    if !world.is_done() {
        return;
    }
    let lock = world.run(world.admin().lock(&instance(ONE))).unwrap();
    assert!(lock.is_some(), "its run was not over");
    for id in [ONE, OTHER] {
        let Ok(found) = world.run(world.admin().instance(&instance(id))) else {
            continue;
        };
        let lanes = [found.ordinary, found.priority];
        let claims = lanes.into_iter().filter_map(|lane| lane.attempts?.claim);
        assert_eq!(claims.count(), 0, "a claim on {id}");
        let holder = found.lock.and_then(|lock| lock.session);
        assert_eq!(holder, None, "the lock of {id}");
    }
}

pub(crate) fn sessions(world: &World) -> usize {
    let page = world.run(world.admin().sessions(None, 100));
    page.unwrap().items.len()
}

/// The reply to a call whose caller has died. Nobody is there but its session.
pub(crate) fn orphan_a_reply(world: &World) {
    let caller = world.process("caller", &world.healthy, None);
    world.send_from(&caller, 1, ONE, What::Call(Act::Plain), false);
    world.rest(Duration::from_millis(100));
    caller.machine.crash();
    let first = world.serve("first", false);
    world.rest(secs(1));
    assert!(world.stop(&first));
    world.dismiss_sender();
    let is_reply = |pair: &KeyValue| {
        let key = world.namespace.keys().decode(&pair.key).unwrap();
        format!("{key:?}").contains("Reply ")
    };
    assert!(world.contents().iter().any(is_reply), "no reply");
    world.forget();
}

pub(crate) async fn import(admin: &Admin, records: Vec<Record>) -> Result<(), AdminError> {
    let mut import = admin.import(ImportOptions::default());
    for record in records {
        import.push(record).await?;
    }
    import.finish().await.map(drop)
}

/// A state, a dead letter and two messages go into an export, and are gone.
pub(crate) fn export_and_kill(world: &World) {
    let first = world.serve("first", true);
    world.send(1, ONE, What::Cast(Act::Plain));
    world.send(2, ONE, What::Cast(Act::Fail));
    world.rest(secs(60));
    assert!(world.stop(&first));
    world.send(3, ONE, What::Cast(Act::Plain));
    world.send(4, ONE, What::Cast(Act::Plain));
    world.rest(secs(1));
    let records = world.operate(async |admin| {
        let mut export = admin.export(Scope::Namespace);
        let mut records = Vec::new();
        while let Some(more) = export.next().await? {
            records.extend(more);
        }
        admin.kill(&instance(ONE)).await?;
        Ok(records)
    });
    *world.kept.borrow_mut() = records;
    world.forget();
}

/// A wrong length, a missing mark, a mark over nothing, a state that the directory does not list.
pub(crate) fn damage(world: &World) {
    let first = world.serve("first", false);
    world.send(4, OTHER, What::Call(Act::Plain));
    world.rest(secs(1));
    assert!(world.stop(&first));
    for op in 1..=3 {
        world.send(op, ONE, What::Cast(Act::Plain));
    }
    world.rest(secs(1));
    let keys = world.namespace.keys();
    let tx = world.namespace.database().store().begin().unwrap();
    tx.set(
        &keys.instance(&instance(ONE)).length(),
        &7_i64.to_le_bytes(),
    );
    let third = keys.instance(&instance("third"));
    tx.set(third.ready(), &[1; 11]);
    tx.clear(keys.instance(&instance(ONE)).ready());
    tx.clear(&keys.directory(&instance(OTHER)));
    world.run(tx.commit()).unwrap();
    assert!(world.findings().len() >= 4);
}

pub(crate) async fn fix(admin: &Admin) -> Result<(), AdminError> {
    for finding in findings(admin).await? {
        if finding.is_fixable() {
            admin.fix(&finding).await?;
        }
    }
    Ok(())
}

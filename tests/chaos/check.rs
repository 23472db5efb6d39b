//! What must hold once everything is at rest.

use crate::crew::{Crew, Place};
use crate::journal::Outcome;
use crate::locks::Locks;
use crate::tally::{Op, Tally, Tallying, Whole, instances};
use crate::worker;
use abide::Node;
use abide::admin::{Admin, DeadFilter, InstanceFilter, InstanceSummary, SessionView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the mailboxes may take to drain, what the dead have claimed included, and dead sessions to
/// be swept.
const DRAIN: Duration = Duration::from_secs(150);
const SWEEP: Duration = Duration::from_secs(150);

/// Starts a node that serves, waits until the mailboxes are empty, and holds the journals against the
/// states. `sweeps` also waits until the sessions of the dead are gone.
pub(crate) fn at_rest(place: &Place, crew: &Crew, sweeps: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let locks = place.locks.as_ref();
        let locks = locks.map(|path| Arc::new(Locks::open(path, u64::MAX)));
        let node = worker::start(&place.url, true, locks).await;
        let admin = Admin::of(node.namespace().clone());
        if !sweeps {
            sweep(&node, &admin).await;
        }
        drained(&admin).await;
        let tallies = tallies(&node).await;
        compare(&crew.outcomes(), &tallies);
        is_clean(&admin).await;
        if sweeps {
            swept(&admin).await;
            is_clean(&admin).await;
        }
        assert_eq!(node.failure(), None);
        assert!(node.shutdown(Duration::from_secs(20)).await);
    });
}

/// What the sweeper does a minute after a death, which is too long for a short test: removes all
/// sessions but that of the node, the only process that is left.
async fn sweep(node: &Node, admin: &Admin) {
    let mut sessions = sessions(admin).await;
    sessions.sort_by_key(|session| session.opened_ms);
    sessions.pop();
    let tx = node.namespace().database().store().begin().unwrap();
    for dead in sessions {
        tx.clear_range(&node.namespace().keys().session(dead.session).all());
    }
    tx.commit().await.unwrap();
}

async fn drained(admin: &Admin) {
    let began = Instant::now();
    loop {
        let busy = busy(admin).await;
        if busy.is_empty() {
            return;
        }
        assert!(began.elapsed() < DRAIN, "not handled: {busy:#?}");
        worker::pause(Duration::from_millis(50)).await;
    }
}

/// The instances that have messages or are locked.
async fn busy(admin: &Admin) -> Vec<InstanceSummary> {
    let filter = InstanceFilter::default();
    let (mut busy, mut cursor) = (Vec::new(), None);
    loop {
        let page = admin.instances(&filter, cursor.as_ref(), 100).await;
        let page = page.unwrap();
        assert!(page.damaged.is_empty(), "{:?}", page.damaged);
        let items = page.items.into_iter();
        busy.extend(items.filter(|of| of.length > 0 || of.lock.is_some()));
        cursor = page.next;
        if cursor.is_none() {
            return busy;
        }
    }
}

async fn tallies(node: &Node) -> BTreeMap<String, Tally> {
    let mut tallies = BTreeMap::new();
    for id in instances() {
        let tally = node.server::<Tallying>(id.clone()).query(Whole).await;
        tallies.insert(id, tally.unwrap());
    }
    tallies
}

/// Each acknowledged operation was applied once by each of its receivers, each refused one by none,
/// each other one by all or none, and nothing else was.
fn compare(outcomes: &BTreeMap<Op, Outcome>, tallies: &BTreeMap<String, Tally>) {
    let (mut acknowledged, mut unknown, mut happened, mut expected) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut replies = BTreeSet::new();
    let mut latest: BTreeMap<(u64, String), u64> = BTreeMap::new();
    for (op, outcome) in outcomes {
        let receivers = op.receivers();
        let applied: Vec<bool> = receivers.iter().map(|id| tallies[id].has(*op)).collect();
        assert!(
            applied.iter().all(|at_one| *at_one == applied[0]),
            "{op:?}, a {:?}, was torn: {applied:?}",
            op.act()
        );
        let applied = applied[0];
        match outcome {
            Outcome::Acknowledged(reply) => {
                acknowledged += 1;
                assert!(applied, "{op:?}, a {:?}, was lost", op.act());
                if *reply > 0 {
                    let at = receivers[0].clone();
                    assert!(
                        replies.insert((at.clone(), *reply)),
                        "{op:?}: {reply} again"
                    );
                    let before = latest.insert((op.lane, at), *reply);
                    assert!(before.is_none_or(|before| before < *reply), "{op:?}: order");
                }
            }
            Outcome::Unknown => {
                unknown += 1;
                happened += u64::from(applied);
            }
            Outcome::Refused => assert!(!applied, "{op:?}, a {:?}, was refused", op.act()),
        }
        if applied {
            expected += receivers.len() as u64;
        }
    }
    for (id, tally) in tallies {
        assert_eq!(tally.doubled, [], "{id} applied these again");
        assert_eq!(tally.total, tally.different(), "{id}");
        for late in &tally.late {
            let outcome = outcomes[late];
            assert_eq!(outcome, Outcome::Unknown, "{late:?} came too late at {id}");
        }
    }
    let total: u64 = tallies.values().map(|tally| tally.total).sum();
    assert_eq!(total, expected, "something was applied that nobody sent");
    println!(
        "{acknowledged} acknowledged, each applied once; of {unknown} unknown {happened} applied; \
         total {total}, exact"
    );
}

async fn is_clean(admin: &Admin) {
    let dead = admin.dead_letters(&DeadFilter::default(), None, 10).await;
    let dead = dead.unwrap().items;
    assert!(dead.is_empty(), "{dead:#?}");
    let mut cursor = None;
    loop {
        let page = admin.doctor(cursor.as_ref()).await.unwrap();
        assert_eq!(page.items, [], "the doctor finds something");
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
}

/// Only the session of the node that looks is left in the end.
async fn swept(admin: &Admin) {
    let began = Instant::now();
    loop {
        let sessions = sessions(admin).await;
        if sessions.len() == 1 && sessions[0].reply_rows == 0 {
            println!("dead sessions were swept within {:.1?}", began.elapsed());
            return;
        }
        assert!(began.elapsed() < SWEEP, "not swept: {sessions:#?}");
        worker::pause(Duration::from_secs(1)).await;
    }
}

async fn sessions(admin: &Admin) -> Vec<SessionView> {
    let (mut sessions, mut cursor) = (Vec::new(), None);
    loop {
        let page = admin.sessions(cursor.as_ref(), 100).await.unwrap();
        sessions.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return sessions;
        }
    }
}

//! The retry loop over this store, and the marker recipe under unknown outcomes.

use super::harness::Space;
use crate::env::Env;
use crate::store::{Database, Isolation, OnUnknown, RetryPolicy, StoreError, TransactionExt, Tx};
use crate::testing::faults::{Faults, FaultyStore};
use std::sync::Arc;
use std::time::Duration;

/// Adds one to the counter at `key`, reading what it adds to.
async fn increment(tx: &Tx, key: &[u8]) -> Result<(), StoreError> {
    let count = tx.read_i64(key, Isolation::Serializable).await?;
    tx.set(key, &(count + 1).to_le_bytes());
    Ok(())
}

async fn assert_count(space: &Space, expected: i64) {
    let count = space
        .begin()
        .read_i64(&space.key("count"), Isolation::Serializable)
        .await;
    assert_eq!(count.expect("the counter"), expected);
}

pub(super) async fn a_contended_counter_is_exact(space: Space) {
    const TASKS: i64 = 8;
    const EACH: i64 = 25;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (db, key) = (space.database(), space.key("count"));
            tokio::spawn(async move {
                for _ in 0..EACH {
                    let key = key.clone();
                    db.run(move |attempt| {
                        let key = key.clone();
                        async move { increment(attempt.tx(), &key).await }
                    })
                    .await
                    .expect("a counter is incremented");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_count(&space, TASKS * EACH).await;
}

/// Each task has a marker of its own, and each piece of work a number that it writes there. Commits
/// are reported as unknown that were applied, that were not, and that are applied a while later,
/// when the retry is already under way.
pub(super) async fn the_marker_recipe_applies_a_change_once_whatever_the_outcomes(space: Space) {
    const TASKS: i64 = 4;
    const EACH: i64 = 40;
    let env: Arc<dyn Env> = Arc::new(space.env().clone());
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let seed = u64::try_from(task).unwrap_or_default();
            let faulty = FaultyStore::new(Arc::clone(&space.store), Arc::clone(&env), seed);
            faulty.set_faults(Faults {
                conflict: 0.1,
                unknown_applied: 0.15,
                unknown_not_applied: 0.15,
                unknown_late: 0.15,
                late_by: Duration::from_millis(40),
                ..Faults::none()
            });
            let db = Database::new(Arc::new(faulty), Arc::clone(&env));
            let marker = space.key(format!("marker/{task}"));
            tokio::spawn(count_with_marker(db, space.key("count"), marker, EACH))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // The last late commits have had their chance.
    space.sleep(Duration::from_millis(100)).await;
    assert_count(&space, TASKS * EACH).await;
}

async fn count_with_marker(db: Database, key: Vec<u8>, marker: Vec<u8>, times: i64) {
    for number in 1..=times {
        let policy = RetryPolicy {
            on_unknown: OnUnknown::Retry,
            give_up_after: Duration::from_secs(60),
            ..RetryPolicy::default()
        };
        let (key, marker) = (key.clone(), marker.clone());
        db.run_with(policy, move |attempt| {
            let (key, marker) = (key.clone(), marker.clone());
            async move {
                let tx = attempt.tx();
                // A read, and so a conflict, in every attempt: no two of them can both land.
                if tx.read_i64(&marker, Isolation::Serializable).await? == number {
                    return Ok::<_, StoreError>(());
                }
                increment(tx, &key).await?;
                tx.set(&marker, &number.to_le_bytes());
                Ok(())
            }
        })
        .await
        .expect("the change is made");
    }
}

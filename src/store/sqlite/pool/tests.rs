use super::*;

fn next_due(pool: &Pool) -> Due {
    match pool.next_task() {
        Some(Task::Run(due)) => due,
        _ => panic!("something should be due"),
    }
}

#[test]
fn a_starved_read_keeps_its_place_before_younger_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let file = StoreFile::open(path.to_str().unwrap()).unwrap();
    let pool = Arc::new(Pool::new(file));
    lock(&pool.state).connections = MAX_CONNECTIONS;
    let [oldest, older, newcomer] = [(); 3].map(|()| {
        let snapshot = Snapshot::new(Arc::clone(&pool));
        pool.enqueue(Arc::clone(&snapshot));
        std::thread::park_timeout(Duration::from_millis(2));
        snapshot
    });
    for _ in 0..2 {
        assert!(pool.lease(next_due(&pool), None).is_none());
    }

    // A connection comes free: the oldest is fed, and comes before the newcomer.
    pool.forget_connection();
    let fed = next_due(&pool);
    assert!(Arc::ptr_eq(&fed.snapshot, &oldest));

    // Another thread takes the connection for the newcomer first.
    let late = next_due(&pool);
    assert!(Arc::ptr_eq(&late.snapshot, &newcomer));
    let (_, lease) = pool.lease(late, None).unwrap();
    assert!(pool.lease(fed, None).is_none());
    let front = lock(&pool.state).starved.pop_front().unwrap();
    assert!(Arc::ptr_eq(&front.snapshot, &oldest));
    let next = lock(&pool.state).starved.pop_front().unwrap();
    assert!(Arc::ptr_eq(&next.snapshot, &older));
    drop(lease);
}

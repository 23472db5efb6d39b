use super::*;
use crate::env::BoxFuture;
use futures_channel::oneshot;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::SystemTime;

type Log = Arc<Mutex<Vec<(Duration, u32)>>>;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Five tasks on two nodes that sleep random times and write down when they woke.
fn scattered(seed: u64) -> (Vec<(Duration, u32)>, u64) {
    let sim = Sim::new(seed);
    let log = Log::default();
    let nodes = [sim.node("a"), sim.node("b")];
    for task in 0..5_u32 {
        let env = nodes[task as usize % 2].env();
        let (log, clock) = (Arc::clone(&log), sim.env());
        nodes[task as usize % 2].env().spawn(Box::pin(async move {
            for _ in 0..20 {
                env.sleep(Duration::from_millis(env.random() % 3)).await;
                log.lock().unwrap().push((clock.now(), task));
            }
        }));
    }
    sim.run_for(secs(1)).unwrap();
    let log = log.lock().unwrap().clone();
    (log, sim.fingerprint())
}

#[test]
fn a_seed_decides_the_whole_schedule() {
    let (log, fingerprint) = scattered(1);
    assert_eq!(log.len(), 100);
    assert_eq!(scattered(1), (log.clone(), fingerprint));
    let (other, other_fingerprint) = scattered(2);
    assert_ne!(other, log);
    assert_ne!(other_fingerprint, fingerprint);
}

#[test]
fn seeds_try_every_order_of_ready_tasks() {
    let orders: std::collections::BTreeSet<Vec<u32>> = (0..100)
        .map(|seed| {
            let sim = Sim::new(seed);
            let order = Arc::new(Mutex::new(Vec::new()));
            for task in 0..3 {
                let order = Arc::clone(&order);
                sim.env()
                    .spawn(Box::pin(async move { order.lock().unwrap().push(task) }));
            }
            sim.run_for(Duration::ZERO).unwrap();
            std::mem::take(&mut *order.lock().unwrap())
        })
        .collect();
    assert_eq!(orders.len(), 6);
}

#[test]
fn time_jumps_to_the_next_timer_and_never_past_it() {
    let sim = Sim::new(0);
    let env = sim.env();
    let seen = sim
        .block_on(async {
            let long = env.sleep(secs(100));
            env.sleep(secs(1)).await;
            let first = env.now();
            long.await;
            (first, env.now())
        })
        .unwrap();
    assert_eq!(seen, (secs(1), secs(100)));
    sim.run_until(secs(500)).unwrap();
    assert_eq!(sim.now(), secs(500));
}

#[test]
fn a_future_that_nothing_can_wake_is_a_deadlock_that_names_the_waiting() {
    let sim = Sim::new(0);
    sim.node("stuck")
        .env()
        .spawn(Box::pin(std::future::pending()));
    let error = sim.block_on(std::future::pending::<()>()).unwrap_err();
    assert_eq!(error.kind(), SimErrorKind::Deadlock);
    assert!(error.to_string().contains("node `stuck`"), "{error}");
}

#[test]
fn a_future_that_only_idle_timers_surround_runs_into_the_time_limit() {
    let sim = Sim::new(0).with_time_limit(secs(60));
    let env = sim.env();
    let ticking = sim.env();
    env.spawn(Box::pin(async move {
        loop {
            ticking.sleep(secs(1)).await;
        }
    }));
    let error = sim.block_on(std::future::pending::<()>()).unwrap_err();
    assert_eq!(error.kind(), SimErrorKind::TimeLimit);
    assert_eq!(sim.now(), secs(60));
}

#[test]
fn a_crash_drops_every_task_of_the_node_where_it_waits_and_nothing_runs_in_it_again() {
    struct SetOnDrop(Arc<AtomicBool>);
    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let sim = Sim::new(0);
    let (node, other) = (sim.node("a"), sim.node("b"));
    let (dropped, ended) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let guard = SetOnDrop(Arc::clone(&dropped));
    let env = node.env();
    let waiting = node.run(async move {
        env.sleep(secs(10)).await;
        drop(guard);
    });
    let (count, env): (Arc<AtomicU32>, _) = (Arc::clone(&ended), other.env());
    other.env().spawn(Box::pin(async move {
        env.sleep(secs(10)).await;
        count.fetch_add(1, Ordering::Relaxed);
    }));
    sim.run_for(secs(5)).unwrap();
    node.crash();
    assert!(dropped.load(Ordering::Relaxed));
    assert!(!node.is_alive() && other.is_alive());
    assert_eq!(sim.block_on(waiting), Ok(None));
    let count = Arc::clone(&ended);
    node.env().spawn(Box::pin(async move {
        count.fetch_add(100, Ordering::Relaxed);
    }));
    sim.run_for(secs(10)).unwrap();
    assert_eq!(ended.load(Ordering::Relaxed), 1);
}

#[test]
fn a_task_that_crashes_its_own_node_ends_with_its_step() {
    let sim = Sim::new(0);
    let node = sim.node("a");
    let (env, dying) = (node.env(), node.clone());
    let ran = node.run(async move {
        dying.crash();
        env.sleep(Duration::ZERO).await;
        env.sleep(secs(1)).await;
    });
    assert_eq!(sim.block_on(ran), Ok(None));
    assert_eq!(sim.now(), Duration::ZERO);
}

#[test]
fn a_paused_node_runs_nothing_until_its_pause_ends_and_then_goes_on() {
    let sim = Sim::new(0);
    let node = sim.node("a");
    let (sleep, clock) = (node.env().sleep(secs(1)), sim.env());
    let woke = node.run(async move {
        sleep.await;
        clock.now()
    });
    sim.run_for(Duration::ZERO).unwrap();
    node.pause(secs(30));
    node.pause(secs(10));
    assert_eq!(sim.block_on(woke), Ok(Some(secs(30))));
}

#[test]
fn a_slow_node_sleeps_longer_and_takes_its_steps_late() {
    let sim = Sim::new(0);
    let node = sim.node("a");
    node.slow(3.0);
    let (env, clock) = (node.env(), sim.env());
    let (begun, woke) = sim
        .block_on(node.run(async move {
            let begun = clock.now();
            env.sleep(secs(1)).await;
            (begun, clock.now())
        }))
        .unwrap()
        .unwrap();
    let late = Duration::from_millis(2);
    assert!(begun > Duration::ZERO && begun < late, "{begun:?}");
    assert!(woke > secs(3) && woke < secs(3) + 2 * late, "{woke:?}");
}

#[test]
fn wall_clocks_jump_both_ways_and_leave_the_monotonic_clock_alone() {
    let sim = Sim::new(0);
    let (node, other) = (sim.node("a"), sim.node("b"));
    let (monotonic, wall) = (node.env().now(), node.env().wall_clock());
    node.shift_wall_clock(3600);
    assert_eq!(node.env().wall_clock(), wall + secs(3600));
    node.shift_wall_clock(-7200);
    assert_eq!(node.env().wall_clock(), wall - secs(3600));
    assert_eq!(other.env().wall_clock(), wall);
    assert_eq!(node.env().now(), monotonic);
    node.shift_wall_clock(i64::MIN);
    assert_eq!(node.env().wall_clock(), SystemTime::UNIX_EPOCH);
}

#[test]
fn monotonic_clocks_of_two_nodes_cannot_be_compared() {
    let sim = Sim::new(0);
    assert_ne!(sim.node("a").env().now(), sim.node("a").env().now());
}

#[test]
fn tasks_outlive_the_awaited_future_and_end_with_the_simulation() {
    let ended = Arc::new(AtomicU32::new(0));
    let sim = Sim::new(0);
    let (env, count) = (sim.env(), Arc::clone(&ended));
    sim.env().spawn(Box::pin(async move {
        env.sleep(secs(1)).await;
        count.fetch_add(1, Ordering::Relaxed);
        env.sleep(secs(1_000_000)).await;
    }));
    sim.block_on(async {}).unwrap();
    assert_eq!(ended.load(Ordering::Relaxed), 0);
    sim.run_for(secs(1)).unwrap();
    assert_eq!(ended.load(Ordering::Relaxed), 1);
    drop(sim);
    assert_eq!(Arc::strong_count(&ended), 1);
}

#[test]
fn a_wake_from_outside_the_simulation_counts() {
    let sim = Sim::new(0);
    let (send, receive) = oneshot::channel();
    let waiting = sim.node("a").run(async move { receive.await.ok() });
    sim.run_for(secs(1)).unwrap();
    send.send(5).unwrap();
    assert_eq!(sim.block_on(waiting), Ok(Some(Some(5))));
}

#[test]
fn dropping_a_sleep_cancels_it() {
    let sim = Sim::new(0);
    let env = sim.env();
    let error = sim.block_on(async {
        let mut sleep: BoxFuture<'_, ()> = env.sleep(secs(10));
        assert!(futures_util::FutureExt::now_or_never(&mut sleep).is_none());
        drop(sleep);
        std::future::pending::<()>().await;
    });
    assert_eq!(error.unwrap_err().kind(), SimErrorKind::Deadlock);
    assert_eq!(sim.now(), Duration::ZERO);
}

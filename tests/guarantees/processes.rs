//! Processes that die, by their own handlers or by `kill -9`, on one SQLite store.
//!
//! A test that needs other processes runs its own binary again, with itself as the only test and
//! `ABIDE_TEST_NODE` naming the namespace: then it is a node that serves until it is killed, or its
//! standard input ends.

use crate::support::{
    Add, How, Labour, NodeExt, Probe, Trouble, Work, World, eventually, ms, pause, within_a_minute,
};
use abide::durable::keys::{Key, Part, SessionId};
use abide::server::CallErrorKind;
use abide::{KindOptions, Node};
use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const URL: &str = "ABIDE_TEST_STORE";
const NAMESPACE: &str = "ABIDE_TEST_NODE";

/// Plays the other process of a test, if this is one.
fn plays_the_other(options: KindOptions) -> bool {
    let (Ok(url), Ok(namespace)) = (std::env::var(URL), std::env::var(NAMESPACE)) else {
        return false;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let actor = crate::support::Actor {
            probe: Probe::new(),
        };
        let node = Node::builder(url)
            .namespace(namespace)
            .threads(2)
            .serve_with(actor, options)
            .start()
            .await
            .unwrap();
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
            .await
            .unwrap()
            .unwrap();
        node.stop().await;
    });
    true
}

/// A process that dies with the test.
struct Other(Child);

impl Other {
    fn start(world: &World, test: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                &format!("processes::{test}"),
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(URL, world.url().unwrap())
            .env(NAMESPACE, world.namespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn has_died(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// The time that it has had of the processors so far.
    #[cfg(target_os = "linux")]
    fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // The name of the program may contain anything, and stands in parentheses.
        let (_, stat) = stat.rsplit_once(')').unwrap();
        let stat: Vec<&str> = stat.split_whitespace().collect();
        let ticks: u64 = stat[11..13]
            .iter()
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum();
        // Linux counts a hundred of them a second wherever programs see them.
        ms(ticks * 10)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

async fn sessions(world: &World) -> BTreeSet<SessionId> {
    let keys = world.decoded().await;
    let sessions = keys.into_iter().filter_map(|key| match key {
        Key::Session { session, .. } => Some(session),
        _ => None,
    });
    sessions.collect()
}

/// What the sweeper does a minute after a death, which is too long for a test.
async fn sweep(world: &World, living: &BTreeSet<SessionId>) {
    let dead = sessions(world).await;
    let tx = world.store().await.begin().unwrap();
    for session in dead.difference(living) {
        tx.clear_range(&world.keys().session(*session).all());
    }
    tx.commit().await.unwrap();
}

/// A process that serves, and its session.
async fn serve(world: &World, test: &str) -> (Other, SessionId) {
    let before = sessions(world).await;
    let other = Other::start(world, test);
    loop {
        // It stays there if the process dies at once.
        if let Some(session) = sessions(world).await.difference(&before).next() {
            return (other, *session);
        }
        pause(ms(5)).await;
    }
}

#[test]
fn g06_a_message_whose_handler_recurses_without_end_becomes_a_dead_letter() {
    killer(
        How::Recurse,
        "g06_a_message_whose_handler_recurses_without_end_becomes_a_dead_letter",
    );
}

#[test]
fn g06_a_message_whose_handler_aborts_becomes_a_dead_letter() {
    killer(
        How::Abort,
        "g06_a_message_whose_handler_aborts_becomes_a_dead_letter",
    );
}

/// A message that kills whichever process handles it, until it is given up.
fn killer(how: How, test: &'static str) {
    if plays_the_other(World::options()) {
        return;
    }
    runtime().block_on(within_a_minute(async {
        let world = World::sqlite(test);
        let producer = world.producer().await;
        let living = sessions(&world).await;
        let victim = producer.actor("victim").timeout(Duration::from_secs(50));
        victim.cast(Add { n: 1 }).await.unwrap();
        let killing = tokio::spawn(victim.call(Trouble {
            how,
            times: 99,
            text: "t".into(),
        }));
        pause(ms(50)).await;
        let behind = tokio::spawn(victim.call(Add { n: 1 }));
        let mut node = Other::start(&world, test);
        let mut deaths = 0;
        while !killing.is_finished() {
            if node.has_died() {
                deaths += 1;
                // One that knows nothing yet, and then one for each attempt.
                assert!(deaths <= 4, "it goes on killing");
                sweep(&world, &living).await;
                node = Other::start(&world, test);
            }
            pause(ms(10)).await;
        }
        let error = killing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::DeadLetter, "{error}");
        assert_eq!(behind.await.unwrap().unwrap(), 2, "the mailbox goes on");
        let bystander = producer
            .actor("bystander")
            .call(Add { n: 1 })
            .await
            .unwrap();
        assert_eq!(bystander, 1);
        assert!(deaths >= 3, "{deaths}: it was tried as often as it may");
        let keys = world.decoded().await;
        let dead = keys.iter().filter(|key| {
            matches!(
                key,
                Key::Instance {
                    part: Part::DeadLetter { chunk: 0, .. },
                    ..
                }
            )
        });
        assert_eq!(dead.count(), 1);
        producer.stop().await;
    }));
}

/// With two processes that serve: each may die of the message once before it knows, and no attempt is
/// counted twice.
#[test]
fn g06_a_killer_that_two_processes_serve_becomes_a_dead_letter() {
    const NAME: &str = "g06_a_killer_that_two_processes_serve_becomes_a_dead_letter";
    if plays_the_other(World::options()) {
        return;
    }
    runtime().block_on(within_a_minute(async {
        let world = World::sqlite(NAME);
        let producer = world.producer().await;
        let mut nodes = [serve(&world, NAME).await, serve(&world, NAME).await];
        let victim = producer.actor("victim").timeout(Duration::from_secs(50));
        let killing = tokio::spawn(victim.call(Trouble {
            how: How::Abort,
            times: 99,
            text: "t".into(),
        }));
        let mut deaths = 0;
        while !killing.is_finished() {
            for (node, session) in &mut nodes {
                if node.has_died() {
                    deaths += 1;
                    // One for each that knows nothing yet, and one for each attempt.
                    assert!(deaths <= 2 + 3, "it goes on killing");
                    let tx = world.store().await.begin().unwrap();
                    tx.clear_range(&world.keys().session(*session).all());
                    tx.commit().await.unwrap();
                    (*node, *session) = serve(&world, NAME).await;
                }
            }
            pause(ms(10)).await;
        }
        let error = killing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::DeadLetter, "{error}");
        assert!(deaths >= 3, "{deaths}: it was tried as often as it may");
        assert_eq!(victim.call(Add { n: 1 }).await.unwrap(), 1);
        assert!(!nodes.iter_mut().any(|(node, _)| node.has_died()));
        let keys = world.decoded().await;
        let dead = keys.iter().filter(|key| {
            matches!(
                key,
                Key::Instance {
                    part: Part::DeadLetter { chunk: 0, .. },
                    ..
                }
            )
        });
        assert_eq!(dead.count(), 1);
        producer.stop().await;
    }));
}

#[test]
fn g06_a_killer_does_not_keep_other_instances_from_being_handled() {
    const NAME: &str = "g06_a_killer_does_not_keep_other_instances_from_being_handled";
    // Messages that are claimed beside the killer are blamed with it. The back-off scatters them, so
    // that none is beside it each time.
    let options = World::options().attempts(5).backoff(ms(150), ms(1_000));
    if plays_the_other(options) {
        return;
    }
    runtime().block_on(within_a_minute(async {
        let world = World::sqlite(NAME);
        let producer = world.producer().await;
        let living = sessions(&world).await;
        let killer = Trouble {
            how: How::Abort,
            times: 99,
            text: "t".into(),
        };
        producer.actor("victim").cast(killer).await.unwrap();
        let calls: Vec<_> = (0..40)
            .map(|number| {
                tokio::spawn(
                    producer
                        .actor(&format!("other {number}"))
                        .call(Add { n: 1 }),
                )
            })
            .collect();
        let mut node = Other::start(&world, NAME);
        let mut deaths = 0;
        while !calls.iter().all(tokio::task::JoinHandle::is_finished) {
            if node.has_died() {
                deaths += 1;
                assert!(deaths <= 6, "it goes on killing");
                sweep(&world, &living).await;
                node = Other::start(&world, NAME);
            }
            pause(ms(10)).await;
        }
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), 1, "none of them was blamed");
        }
        producer.stop().await;
    }));
}

#[test]
fn g03_a_killed_consumers_messages_are_handled_by_a_living_node_within_a_second() {
    const NAME: &str =
        "g03_a_killed_consumers_messages_are_handled_by_a_living_node_within_a_second";
    if plays_the_other(World::options()) {
        return;
    }
    runtime().block_on(within_a_minute(async {
        let world = World::sqlite(NAME);
        let producer = world.producer().await;
        let survivor = world.serving(&Probe::new()).await;
        let mut acknowledged = 0;
        for round in 0..4_u64 {
            let before = sessions(&world).await.len();
            let mut node = Other::start(&world, NAME);
            eventually("it serves", async || sessions(&world).await.len() > before).await;
            let calls: Vec<_> = (0..4)
                .map(|_| {
                    let till = producer.actor("till");
                    tokio::spawn(async move {
                        let mut longest = Duration::ZERO;
                        for _ in 0..12 {
                            let began = Instant::now();
                            till.call(Add { n: 1 }).await.unwrap();
                            longest = longest.max(began.elapsed());
                        }
                        longest
                    })
                })
                .collect();
            pause(ms(15 + 23 * round)).await;
            node.kill();
            for call in calls {
                let longest = call.await.unwrap();
                assert!(longest < ms(1_500), "a call took {longest:?}");
                acknowledged += 12;
            }
        }
        assert_eq!(survivor.sum("till").await, acknowledged, "each once");
        producer.stop().await;
        survivor.stop().await;
    }));
}

#[test]
fn g07_a_killed_holders_lock_is_taken_over_within_its_lease() {
    const NAME: &str = "g07_a_killed_holders_lock_is_taken_over_within_its_lease";
    if plays_the_other(World::options()) {
        return;
    }
    runtime().block_on(within_a_minute(async {
        let world = World::sqlite(NAME);
        let producer = world.producer().await;
        let mut holder = Other::start(&world, NAME);
        let work = Work {
            name: "w".into(),
            how: Labour::Gate,
        };
        let call = tokio::spawn(producer.actor("desk").call(work));
        eventually("it is locked", async || {
            let keys = world.decoded().await;
            keys.iter().any(|key| {
                matches!(
                    key,
                    Key::Instance {
                        part: Part::Lock,
                        ..
                    }
                )
            })
        })
        .await;
        let probe = Probe::new();
        let survivor = world.serving(&probe).await;
        pause(ms(300)).await;
        let died = Instant::now();
        holder.kill();
        call.await.unwrap().unwrap();
        let after = died.elapsed();
        assert!(after < ms(900 + 300 + 1_200), "it took {after:?}");
        assert_eq!(survivor.lines("desk").await, ["w begun", "w done 2"]);
        assert_eq!(probe.of("ran w "), ["2"]);
        producer.stop().await;
        survivor.stop().await;
    }));
}

#[test]
#[cfg(target_os = "linux")]
fn an_idle_node_uses_less_than_a_hundredth_of_a_processor() {
    const NAME: &str = "an_idle_node_uses_less_than_a_hundredth_of_a_processor";
    if plays_the_other(World::options()) {
        return;
    }
    runtime().block_on(within_a_minute(async {
        let world = World::sqlite(NAME);
        let producer = world.producer().await;
        let node = Other::start(&world, NAME);
        for number in 0..50 {
            let till = producer.actor(&format!("till {number}"));
            till.call(Add { n: 1 }).await.unwrap();
        }
        producer.stop().await;
        pause(ms(2_000)).await;
        let (began, before) = (Instant::now(), node.processor_time());
        pause(ms(12_000)).await;
        let used = node.processor_time().saturating_sub(before);
        let share = used.as_secs_f64() / began.elapsed().as_secs_f64();
        // Without optimization abide and SQLite take several times as long for the same.
        let most = if cfg!(debug_assertions) { 0.03 } else { 0.01 };
        assert!(share < most, "{:.2} % of a processor", share * 100.0);
    }));
}

#[test]
fn a_node_that_runs_until_a_signal_ends_in_good_order_on_sigterm() {
    signalled(
        "-TERM",
        "a_node_that_runs_until_a_signal_ends_in_good_order_on_sigterm",
    );
}

#[test]
fn a_node_that_runs_until_a_signal_ends_in_good_order_on_ctrl_c() {
    signalled(
        "-INT",
        "a_node_that_runs_until_a_signal_ends_in_good_order_on_ctrl_c",
    );
}

/// The turn that is under way when the signal comes is finished, and the session closed.
fn signalled(signal: &str, test: &'static str) {
    if let (Ok(url), Ok(namespace)) = (std::env::var(URL), std::env::var(NAMESPACE)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(async {
            let actor = crate::support::Actor {
                probe: Probe::new(),
            };
            let builder = Node::builder(url).namespace(namespace).serve(actor);
            let node = builder.start().await.unwrap();
            let ended = node.run_until_signal(Duration::from_secs(10)).await;
            assert_eq!(ended.unwrap(), None, "nothing had failed");
        });
    }
    runtime().block_on(within_a_minute(async {
        let world = World::sqlite(test);
        let producer = world.producer().await;
        let (mut node, session) = serve(&world, test).await;
        producer.actor("till").call(Add { n: 1 }).await.unwrap();
        let under_way = crate::support::Sleep { ms: 1_000 };
        let under_way = tokio::spawn(producer.actor("till").call(under_way));
        pause(ms(500)).await;
        assert!(!under_way.is_finished());
        let pid = node.0.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        assert_eq!(under_way.await.unwrap().unwrap(), 1);
        eventually("it ends", async || node.has_died()).await;
        let status = node.0.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(!sessions(&world).await.contains(&session), "it is closed");
        producer.stop().await;
    }));
}

/// A program that is not asynchronous has a node all the same.
#[test]
fn a_program_without_a_runtime_starts_a_node_calls_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/a.db", directory.path().display());
    let actor = crate::support::Actor {
        probe: Probe::new(),
    };
    let node = abide::block_on(Node::builder(url).serve(actor).start()).unwrap();
    let till = node.server::<crate::support::Acting>("till").blocking();
    till.cast(Add { n: 2 }).unwrap();
    assert_eq!(till.call(Add { n: 1 }).unwrap(), 3);
    assert!(abide::block_on(node.shutdown(ms(10_000))));
}

//! A node that runs its handlers in a runtime of the program's.

#![allow(
    clippy::unwrap_used,
    reason = "also the helpers of a test fail by panicking"
)]

use abide::server::{
    CallErrorKind, Context, Failure, Handle, Message, Outcome, Protocol, ReadContext, Routes,
    Server,
};
use abide::{Node, block_on};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

struct Threads;

impl Protocol for Threads {
    const KIND: &'static str = "threads";
}

/// Asks for the name of the thread that handles it.
#[derive(Serialize, Deserialize)]
struct Where;

impl Message<Threads> for Where {
    const NAME: &'static str = "where";
    type Reply = String;
}

struct Teller;

impl Server for Teller {
    type Protocol = Threads;
    type State = ();

    fn init(&self, _cx: &ReadContext<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Where>()
    }
}

impl Handle<Where> for Teller {
    fn handle(
        &self,
        _state: &mut (),
        _: Where,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<String>, Failure> {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        Ok(Outcome::Reply(name))
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("theirs")
        .enable_all()
        .build()
        .unwrap()
}

async fn serving(runtime: &Runtime) -> Node {
    Node::builder("memory:")
        .serve(Teller)
        .runtime(runtime.handle().clone())
        .start()
        .await
        .unwrap()
}

#[test]
fn handlers_run_in_the_runtime_that_is_given_and_else_in_threads_of_the_nodes() {
    let runtime = runtime();
    let theirs = block_on(serving(&runtime));
    let called = block_on(theirs.server::<Threads>("one").call(Where));
    assert_eq!(called.unwrap(), "theirs");
    let own = block_on(Node::builder("memory:").serve(Teller).start()).unwrap();
    let called = block_on(own.server::<Threads>("one").call(Where));
    assert_ne!(called.unwrap(), "theirs");
    for node in [theirs, own] {
        assert!(block_on(node.shutdown(Duration::from_secs(5))));
    }
}

#[test]
fn a_node_whose_runtime_has_ended_answers_with_errors() {
    let runtime = runtime();
    let node = block_on(serving(&runtime));
    let server = node
        .server::<Threads>("one")
        .timeout(Duration::from_millis(300));
    block_on(server.call(Where)).unwrap();
    runtime.shutdown_timeout(Duration::from_secs(5));
    let kind = block_on(server.call(Where)).unwrap_err().kind();
    assert!(
        matches!(
            kind,
            CallErrorKind::TimedOut | CallErrorKind::OutcomeUnknown
        ),
        "{kind:?}"
    );
    block_on(server.cast(Where)).unwrap_err();
    assert!(!block_on(node.shutdown(Duration::from_millis(300))));
}

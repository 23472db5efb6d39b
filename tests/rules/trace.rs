//! Traces: a message carries where it comes from to wherever it is handled, however often it is passed
//! on.

use crate::support::{Fail, Put, Relay, Work, World, ms, secs};
use abide::admin::DeadFilter;
use abide::trace::{TraceContext, TraceParent};
use std::sync::{Arc, Mutex};

/// A tracing system: it knows the work that is under way, and notes what is put under what.
#[derive(Clone, Default)]
struct System {
    current: Arc<Mutex<Option<TraceParent>>>,
    attached: Arc<Mutex<Vec<TraceParent>>>,
}

impl TraceContext for System {
    fn current(&self) -> Option<TraceParent> {
        *self.current.lock().unwrap()
    }

    fn attach(&self, _span: &tracing::Span, parent: TraceParent) {
        self.attached.lock().unwrap().push(parent);
    }
}

fn parent(span: u8) -> TraceParent {
    TraceParent::new([7; 16], [span; 8], 1).unwrap()
}

#[test]
fn a_trace_goes_from_the_push_through_casts_and_effects_to_the_dead_letter() {
    let world = World::new(1);
    let (there, here) = (System::default(), System::default());
    let (notes, options) = (world.notes.clone(), world.options.clone());
    let system = there.clone();
    let server = world.start("server", move |builder, env| {
        let desk = crate::support::Desk::<1> {
            env,
            notes,
            process: "server",
        };
        builder.serve_with(desk, options).trace(system)
    });
    let system = here.clone();
    let sender = world.start("sender", move |builder, _| builder.trace(system));
    *here.current.lock().unwrap() = Some(parent(1));
    for (id, later) in [("from the handler", false), ("from the effect", true)] {
        let relay = Relay {
            n: 1,
            to: format!("to, {id}"),
            later,
        };
        world.run(sender.desk(id).cast(relay)).unwrap();
    }
    let work = Work {
        n: 4,
        time: secs(1),
        fails: 0,
    };
    world.run(sender.desk("locked").cast(work)).unwrap();
    world
        .run(sender.desk("dead").cast(Fail { n: 2, times: 99 }))
        .unwrap();
    *here.current.lock().unwrap() = None;
    world
        .run(sender.desk("untraced").cast(Put { n: 3 }))
        .unwrap();
    world.rest(secs(30));
    let text = parent(1).to_string();
    let traced = format!("attempt 1 {text}");
    for id in ["from the handler", "from the effect"] {
        assert_eq!(
            world.notes.of(&format!("{id} relay 1 ")),
            std::slice::from_ref(&traced)
        );
        assert_eq!(
            world.notes.of(&format!("to, {id} put 1 ")),
            std::slice::from_ref(&traced)
        );
    }
    let ran = format!("ran 4 attempt 1 by server {text}");
    assert_eq!(world.notes.of("ran 4"), [ran["ran 4".len()..].to_owned()]);
    assert_eq!(world.notes.of("dead Fail "), [format!("3 {text}")]);
    assert_eq!(world.notes.of("untraced put 3 "), ["attempt 1"]);
    // The operator sees it too.
    let filter = DeadFilter::default();
    let dead = world
        .run(world.admin().dead_letters(&filter, None, 10))
        .unwrap();
    let message = dead.items[0].letter.as_ref().unwrap().message.clone();
    assert_eq!(message.trace, Some(text));
    // Each handler's span, that of each attempt too, was put under what its message carries.
    let attached = there.attached.lock().unwrap();
    assert!(
        attached.len() >= 8 && attached.iter().all(|of| *of == parent(1)),
        "{attached:?}"
    );
    drop(attached);
    world.stop(&server);
    world.stop(&sender);
}

#[test]
fn without_a_tracing_system_a_node_passes_on_what_it_was_given() {
    let world = World::new(2);
    let system = System::default();
    *system.current.lock().unwrap() = Some(parent(5));
    let sender = world.start("sender", move |builder, _| builder.trace(system));
    let server = world.serve("server");
    let relay = Relay {
        n: 1,
        to: "two".to_owned(),
        later: false,
    };
    world.run(sender.desk("one").call(relay)).unwrap();
    world.rest(ms(500));
    let expected = format!("attempt 1 {}", parent(5));
    assert_eq!(world.notes.of("two put 1 "), [expected]);
    world.stop(&server);
    world.stop(&sender);
}

#[test]
fn what_a_handler_sends_comes_from_its_own_span_if_that_has_a_place() {
    let world = World::new(3);
    let system = System::default();
    let (notes, options) = (world.notes.clone(), world.options.clone());
    let theirs = system.clone();
    let server = world.start("server", move |builder, env| {
        let desk = crate::support::Desk::<1> {
            env,
            notes,
            process: "server",
        };
        builder.serve_with(desk, options).trace(theirs)
    });
    let sender = world.sender("sender");
    *system.current.lock().unwrap() = Some(parent(9));
    let relay = Relay {
        n: 1,
        to: "two".to_owned(),
        later: false,
    };
    world.run(sender.desk("one").call(relay)).unwrap();
    world.rest(ms(500));
    assert_eq!(world.notes.of("one relay 1 "), ["attempt 1"]);
    assert_eq!(
        world.notes.of("two put 1 "),
        [format!("attempt 1 {}", parent(9))]
    );
    world.stop(&server);
    world.stop(&sender);
}

//! The operations, one after the other: what stands there before, what is done, and what must be true in
//! the end beside what [must always be](crate::recovery).

use crate::recovery::After;
use crate::server::{Act, ONE, OTHER, SENT, Tally};
use crate::stage::{
    all_told, break_lock, damage, export_and_kill, fix, import, nothing_is_held,
    one_holds_the_lock, one_is_applied, operate, orphan_a_reply, sessions, sorted,
    three_calls_wait, two_are_dead,
};
use crate::world::{Process, Told, What, World, instance, secs};
use abide::admin::{AdminErrorKind, DeadFilter, Purge, Selection, SetOptions, Then, parse_path};
use abide::codec::Value;
use abide::server::CallErrorKind;
use std::sync::Arc;
use std::time::Duration;

/// An operation that is injured.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Whether the process that is injured serves; and whether it is harsh then.
    pub(crate) serves: Option<bool>,
    /// Whether the process that comes afterwards is harsh.
    pub(crate) heir_is_harsh: bool,
    /// What stands there before that process starts.
    pub(crate) before: fn(&World),
    /// How long the process lives before its steps are counted.
    pub(crate) age: Duration,
    pub(crate) begin: fn(&World, &Process),
    /// Whether the operation is over.
    pub(crate) is_over: fn(&World) -> bool,
    /// What an operator does before another process comes.
    pub(crate) mend: fn(&World),
    /// Whether the operation takes messages or states away.
    pub(crate) loses: bool,
    pub(crate) check: fn(&After<'_>),
}

/// What others are made of: nothing stands there, nobody serves, and it is over when all are told.
const CASE: Case = Case {
    name: "",
    serves: None,
    heir_is_harsh: false,
    before: |_| {},
    age: Duration::from_secs(1),
    begin: |_, _| {},
    is_over: all_told,
    mend: |_| {},
    loses: false,
    check: |_| {},
};

/// What is done by an operator: it is over when his work has ended.
const WORK: Case = Case {
    is_over: World::has_worked,
    ..CASE
};

macro_rules! table {
    ($($name:ident: $case:expr,)*) => {
        pub(crate) const ALL: &[Case] = &[$(Case { name: stringify!($name), ..$case }),*];

        $(
            #[test]
            fn $name() {
                crate::injure_everywhere(stringify!($name));
            }
        )*
    };
}

table! {
    a_push: Case {
        begin: |world, victim| {
            for op in 11..=17 {
                world.send_from(victim, op, ONE, What::Cast(Act::Plain), false);
            }
        },
        ..CASE
    },
    an_atomic_batch: Case {
        begin: |world, victim| {
            world.send_batch(victim, &[(11, ONE), (12, OTHER), (13, ONE), (14, OTHER)]);
        },
        check: |after| {
            let applied = [&after.one.log[..], &after.other.log[..]].concat();
            after.must(applied.is_empty() || applied == [11, 13, 12, 14], "it was torn");
        },
        ..CASE
    },
    a_turn_with_replies_to_another_process: Case {
        serves: Some(false),
        begin: |world, _| {
            for op in 11..=17 {
                let what = if op < 14 { What::Cast } else { What::Call };
                world.send(op, ONE, what(Act::Plain));
            }
        },
        ..CASE
    },
    calls_that_skip_the_mailbox: Case {
        serves: Some(false),
        begin: |world, victim| {
            for op in 11..=17 {
                world.send_from(victim, op, ONE, What::Call(Act::Plain), false);
            }
        },
        ..CASE
    },
    casts_from_handlers: Case {
        serves: Some(false),
        begin: |world, _| {
            world.send(11, ONE, What::Call(Act::Forward));
            world.send(12, ONE, What::Cast(Act::Forward));
        },
        check: |after| {
            let applied = sorted(&after.one.log);
            let sent = sorted(&after.other.log);
            let all = applied == [11, 12] && sent == [11 + SENT, 12 + SENT];
            after.must(all, "what they send is lost");
        },
        ..CASE
    },
    an_answer_that_comes_later: Case {
        serves: Some(false),
        begin: |world, _| {
            world.send(11, ONE, What::Call(Act::Later));
            world.send(12, ONE, What::Call(Act::Later));
        },
        check: |after| {
            let placed = |(_, told): &(u64, Told)| matches!(told, Told::Placed(_));
            after.must(after.told.iter().all(placed), "an answer is lost");
            after.must(after.one.log.len() == 4, "a message of the handler's is lost");
        },
        ..CASE
    },
    a_lock_from_its_taking_to_its_end: Case {
        serves: Some(false),
        begin: |world, _| world.send(11, ONE, What::Work),
        check: |after| after.must(after.told == [(11, Told::Placed(1))], "it is lost"),
        ..CASE
    },
    a_dead_letter: Case {
        serves: Some(true),
        heir_is_harsh: true,
        begin: |world, _| world.send(11, ONE, What::Call(Act::Fail)),
        check: |after| {
            let dead = Told::Failed(CallErrorKind::DeadLetter);
            after.must(after.told == [(11, dead)], "it is no dead letter");
        },
        ..CASE
    },
    a_shutdown_that_gives_back_what_it_holds: Case {
        serves: Some(false),
        // There before the process starts: it claims them.
        before: |world| {
            world.send(1, ONE, What::Work);
            world.send(2, OTHER, What::Call(Act::Plain));
            world.rest(secs(1));
            world.send(3, ONE, What::Call(Act::Plain));
        },
        age: secs(3),
        begin: |world, victim| {
            let (notes, node) = (Arc::clone(&world.notes), victim.node.clone());
            victim.machine.env().spawn(Box::pin(async move {
                let ended = node.shutdown(secs(5)).await;
                notes.end_work(match ended {
                    true => Ok(()),
                    false => Err("it did not end in time".to_owned()),
                });
            }));
        },
        is_over: World::has_worked,
        mend: nothing_is_held,
        check: |after| {
            after.must(after.one.log == [1, 3] && after.other.log == [2], "it is lost");
        },
        ..CASE
    },
    the_sweep_of_a_dead_session: Case {
        before: orphan_a_reply,
        age: secs(45),
        is_over: |world| sessions(world) == 1,
        check: |after| after.must(after.one.log == [1], "it is lost"),
        ..CASE
    },
    a_kill: Case {
        before: three_calls_wait,
        begin: |world, victim| {
            let (notes, node) = (Arc::clone(&world.notes), victim.node.clone());
            victim.machine.env().spawn(Box::pin(async move {
                let killed = node.server::<Tally>(ONE).kill().await;
                notes.end_work(killed.map_err(|error| format!("{error:?}")));
            }));
        },
        mend: |world| world.operate(async |admin| admin.kill(&instance(ONE)).await),
        loses: true,
        check: |after| after.must(after.one.log.is_empty(), "it lives"),
        ..WORK
    },
    a_reset: Case {
        before: one_is_applied,
        begin: |world, victim| {
            let (notes, node) = (Arc::clone(&world.notes), victim.node.clone());
            victim.machine.env().spawn(Box::pin(async move {
                let reset = node.server::<Tally>(ONE).reset().await;
                notes.end_work(reset.map_err(|error| format!("{error:?}")));
            }));
        },
        loses: true,
        check: |after| {
            let log = &after.one.log;
            after.must(log.is_empty() || !after.was_done && *log == [1], "its state is there");
        },
        ..WORK
    },
    a_purge: Case {
        before: three_calls_wait,
        begin: |world, victim| {
            operate(world, victim, |admin| async move {
                let purge = Purge::new(Selection::All);
                admin.purge(&instance(ONE), &purge).await.map(drop)
            });
        },
        loses: true,
        check: |after| after.must(!after.was_done || after.one.log.is_empty(), "one was handled"),
        ..WORK
    },
    a_purge_that_makes_dead_letters: Case {
        before: three_calls_wait,
        begin: |world, victim| {
            operate(world, victim, |admin| async move {
                let purge = Purge {
                    to_dead: true,
                    ..Purge::new(Selection::All)
                };
                admin.purge(&instance(ONE), &purge).await.map(drop)
            });
        },
        check: |after| {
            let all = [&after.one.log[..], &after.letters[..]].concat();
            after.must(all.len() == 3, "one is lost");
            after.must(!after.was_done || after.letters == [1, 2, 3], "one was handled");
        },
        ..WORK
    },
    the_retry_of_dead_letters: Case {
        before: two_are_dead,
        begin: |world, victim| {
            operate(world, victim, |admin| async move {
                admin.retry_dead(&DeadFilter::default(), false).await.map(drop)
            });
        },
        check: |after| {
            let all = sorted(&[&after.one.log[..], &after.letters[..]].concat());
            after.must(all == [1, 2], "one is lost, or is there twice");
            after.must(!after.was_done || after.letters.is_empty(), "one is left");
        },
        ..WORK
    },
    a_purge_of_dead_letters: Case {
        before: two_are_dead,
        begin: |world, victim| {
            operate(world, victim, |admin| async move {
                admin.purge_dead(&DeadFilter::default(), false).await.map(drop)
            });
        },
        check: |after| {
            after.must(after.one.log.is_empty(), "one was applied");
            after.must(!after.was_done || after.letters.is_empty(), "one is left");
        },
        ..WORK
    },
    a_lock_that_is_broken_and_its_message_retried: Case {
        before: one_holds_the_lock,
        begin: |world, victim| break_lock(world, victim, Then::Retry),
        check: |after| after.must(after.one.log == [1], "it is lost"),
        ..WORK
    },
    a_lock_that_is_broken_and_its_message_put_aside: Case {
        before: one_holds_the_lock,
        begin: |world, victim| break_lock(world, victim, Then::DeadLetter),
        check: |after| after.must(!after.was_done || after.letters == [1], "it is not there"),
        ..WORK
    },
    a_lock_that_is_broken_and_its_message_deleted: Case {
        before: one_holds_the_lock,
        begin: |world, victim| break_lock(world, victim, Then::Discard),
        loses: true,
        check: |after| {
            let killed = Told::Failed(CallErrorKind::Killed);
            after.must(!after.was_done || after.told == [(1, killed)], "nobody was told");
        },
        ..WORK
    },
    an_edit_of_a_state: Case {
        before: one_is_applied,
        begin: |world, victim| {
            operate(world, victim, |admin| async move {
                let (of, path) = (instance(ONE), parse_path("note")?);
                let set = admin.set(&of, &path, &Value::Int(7), SetOptions::default());
                set.await.map(drop)
            });
        },
        check: |after| {
            let note = after.one.note;
            after.must(note == 7 || !after.was_done && note == 0, "the note is another");
            after.must(after.one.log == [1], "something else was changed");
        },
        ..WORK
    },
    a_pause_and_its_end: Case {
        before: |world| {
            let holder = world.serve("holder", false);
            world.others.borrow_mut().push(holder);
            world.operate(async |admin| admin.pause(&instance(ONE), "a test").await);
            for op in 1..=3 {
                world.send(op, ONE, What::Call(Act::Plain));
                world.send(op + 3, OTHER, What::Cast(Act::Plain));
            }
            world.rest(secs(1));
        },
        begin: |world, victim| {
            operate(world, victim, |admin| async move {
                admin.pause_kind("tally", "a test").await?;
                admin.pause(&instance(OTHER), "a test").await?;
                admin.resume(&instance(ONE)).await?;
                admin.resume_kind("tally").await?;
                admin.resume(&instance(OTHER)).await.map(drop)
            });
        },
        is_over: |world| world.trouble().is_some() || world.is_done() && all_told(world),
        mend: |world| {
            world.operate(async |admin| {
                admin.resume_kind("tally").await?;
                admin.resume(&instance(ONE)).await?;
                admin.resume(&instance(OTHER)).await
            });
        },
        check: |after| {
            let whole = after.one.log.len() == 3 && after.other.log.len() == 3;
            after.must(whole, "somebody is still paused");
        },
        ..WORK
    },
    an_import: Case {
        before: export_and_kill,
        begin: |world, victim| {
            let records = world.kept.borrow().clone();
            operate(world, victim, |admin| async move { import(&admin, records).await });
        },
        mend: |world| {
            let records = world.kept.borrow().clone();
            world.operate(async |admin| match import(admin, records).await {
                // It was complete, and its operator was not told.
                Err(error) if error.kind() == AdminErrorKind::Refused => Ok(()),
                imported => imported,
            });
        },
        check: |after| {
            let applied = sorted(&after.one.log);
            after.must(applied == [1, 3, 4] && after.letters == [2], "it is not the same");
        },
        ..WORK
    },
    the_word_that_a_store_was_restored: Case {
        before: |world| {
            // It holds the lock, and dies.
            let holder = world.serve("holder", false);
            world.send_from(&holder, 1, ONE, What::Work, false);
            world.rest(secs(1));
            holder.machine.crash();
            world.send(2, ONE, What::Cast(Act::Plain));
            world.send(3, ONE, What::Cast(Act::Plain));
            world.rest(secs(1));
        },
        begin: |world, victim| {
            operate(world, victim, |admin| async move { admin.restored().await.map(drop) });
        },
        mend: |world| world.operate(async |admin| admin.restored().await.map(drop)),
        check: |after| {
            after.must(sorted(&after.one.log) == [1, 2, 3], "something is lost");
        },
        ..WORK
    },
    the_mending_of_what_the_doctor_finds: Case {
        before: damage,
        begin: |world, victim| {
            operate(world, victim, |admin| async move { fix(&admin).await });
        },
        mend: |world| world.operate(fix),
        check: |after| {
            let applied = sorted(&after.one.log);
            after.must(applied == [1, 2, 3] && after.other.log == [4], "it is lost");
        },
        ..WORK
    },
}

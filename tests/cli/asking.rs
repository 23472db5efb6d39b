//! What is different on a terminal: questions, colours and progress.

use crate::support::{Add, Hold, Till, Tilling, World, stop};
use crate::terminal::Screen;
use abide::Poison;

const PURGE: &[&str] = &["purge", "till", "desk", "--head"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_before_the_answer_is_yes() {
    let world = World::sqlite();
    let node = world.producer().await;
    let desk = node.server::<Tilling>("desk");
    desk.cast_all([Add { n: 1 }, Add { n: 2 }]).await.unwrap();
    stop(node).await;
    let messages = || {
        world
            .done(&["mailbox", "till", "desk", "--json"])
            .lines()
            .count()
    };
    // No, nothing, the end of the input, and Ctrl-C.
    for (answer, code) in [("n\r", 1), ("\r", 1), ("\x04", 1), ("\x03", -1)] {
        if answer == "\x03" && interrupts_are_ignored() {
            eprintln!(
                "SKIPPED: Ctrl-C, which whoever runs these tests has had ignored (nohup, say)"
            );
            continue;
        }
        let purge = Screen::of(&world, PURGE);
        let asked = purge.until("the question", |text| text.contains("Go on? [y/N]"));
        assert!(asked.contains("1 message would be deleted"), "{asked}");
        purge.press(answer);
        assert_eq!(purge.ended(), code, "{answer:?}");
        assert_eq!(messages(), 2);
        // Whoever only asked has left nothing behind.
        assert_eq!(world.done(&["sessions"]), "");
    }
    let purge = Screen::of(&world, PURGE);
    purge.until("the question", |text| text.contains("Go on? [y/N]"));
    purge.press("y\r");
    purge.until("the report", |text| text.contains("1 message deleted"));
    assert_eq!(purge.ended(), 0);
    assert_eq!(messages(), 1);
    // Of nothing nobody is asked.
    let burn = Screen::of(&world, &["dead", "purge", "--all"]);
    burn.until("the report", |text| text.contains("0 dead letters deleted"));
    assert_eq!(burn.ended(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_while_it_was_asked_is_left_alone() {
    const ASKED: &str = "Go on? [y/N]";
    let world = World::sqlite();
    let node = world
        .serving(Till { broken: false }, Poison::DeadLetter)
        .await;
    let desk = node.server::<Tilling>("desk");
    desk.call(Add { n: 7 }).await.unwrap();
    world.done(&["pause", "till", "desk"]);
    desk.cast_all([Add { n: 1 }, Add { n: 2 }]).await.unwrap();
    // What was shown is gone, and another message stands in its place.
    let purge = Screen::of(&world, PURGE);
    purge.until("the question", |text| text.contains(ASKED));
    world.done(&[PURGE, &["--yes"]].concat());
    purge.press("y\r");
    purge.until("why not", |text| text.contains("nothing of what was shown"));
    assert_eq!(purge.ended(), 1);
    let left = world.done(&["mailbox", "till", "desk"]);
    assert!(
        left.contains(r#"{"n":2}"#) && left.lines().count() == 2,
        "{left}"
    );
    // The field holds another value.
    let set = Screen::of(&world, &["set", "till", "desk", "sum", "9"]);
    set.until("the question", |text| {
        text.contains("7 becomes 9") && text.contains(ASKED)
    });
    world.done(&["set", "till", "desk", "sum", "8", "--yes"]);
    set.press("y\r");
    set.until("why not", |text| {
        text.contains("not what was shown any more")
    });
    assert_eq!(set.ended(), 1);
    assert_eq!(
        world.done(&["show", "till", "desk", "sum"]),
        "state.sum = 8\n"
    );
    // A letter is new, and stays.
    world.done(&["purge", "till", "desk", "--head", "--to-dead", "--yes"]);
    let burn = Screen::of(&world, &["dead", "purge", "till"]);
    burn.until("the question", |text| {
        text.contains("1 dead letter would be") && text.contains(ASKED)
    });
    world.done(&["cast", "till", "desk", "add", r#"{"n":3}"#]);
    world.done(&["purge", "till", "desk", "--head", "--to-dead", "--yes"]);
    burn.press("y\r");
    burn.until("the report", |text| text.contains("1 dead letter deleted"));
    assert_eq!(burn.ended(), 0);
    let letters = world.done(&["dead", "ls", "--json"]);
    assert!(
        letters.contains(r#"{"n":3}"#) && letters.lines().count() == 1,
        "{letters}"
    );
    // The lock is another one.
    world.done(&["resume", "till", "desk"]);
    desk.cast(Hold {}).await.unwrap();
    let show = ["lock", "show", "till", "desk"];
    world.until(&show, |out| !out.is_empty()).await;
    let end = ["lock", "break", "till", "desk", "--discard"];
    let question = Screen::of(&world, &end);
    question.until("the question", |text| text.contains(ASKED));
    world.done(&[&end[..], &["--yes"]].concat());
    desk.cast(Hold {}).await.unwrap();
    world.until(&show, |out| !out.is_empty()).await;
    question.press("y\r");
    question.until("why not", |text| {
        text.contains("another one than was shown")
    });
    assert_eq!(question.ended(), 1);
    world.done(&show);
    stop(node).await;
}

/// Whether this process, and so what it starts, ignores SIGINT.
fn interrupts_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 0b10 != 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn colours_and_progress_are_shown_on_a_terminal_only() {
    const BOLD: &str = "\x1b[1m";
    let world = World::sqlite();
    let node = world.producer().await;
    let desk = node.server::<Tilling>("desk");
    desk.cast_all((0..500).map(|n| Add { n })).await.unwrap();
    stop(node).await;
    for (variables, has_colour) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let ls = Screen::with(&world, &["ls"], variables);
        ls.until("the list", |text| text.contains("till  desk"));
        assert_eq!(ls.printed().contains(BOLD), has_colour);
        assert_eq!(ls.ended(), 0);
    }
    assert!(!world.done(&["ls"]).contains('\x1b'));
    let path = |name: &str| world.dir.path().join(name).display().to_string();
    let export = Screen::of(&world, &["export", "--output", &path("desk.export")]);
    export.until("the report", |text| text.contains("exported 504 records"));
    assert!(
        export.printed().contains(" records, "),
        "{}",
        export.printed()
    );
    assert_eq!(export.ended(), 0);
    let other = World::sqlite();
    let import = Screen::of(&other, &["import", &path("desk.export")]);
    import.until("the report", |text| text.contains("500 messages"));
    // A bar, which is gone at the end.
    assert!(import.printed().contains('█') && !import.text().contains('█'));
    assert_eq!(import.ended(), 0);
}

use super::draw::draw;
use super::model::{Action, Command, Model, Sort};
use super::rates::{bars, handled, rate};
use super::sample::{Entry, Opened, Round, Sample, Seen};
use abide::InstanceId;
use abide::durable::keys::SessionId;
use abide::store::{CommitStamp, Stamp, Version};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::VecDeque;
use std::time::Duration;

const NOW: u64 = 1_800_000_000_000;

fn commit(version: u64) -> CommitStamp {
    CommitStamp::new(Version(version), 0)
}

fn stamp(version: u64) -> Stamp {
    commit(version).with_user(0)
}

fn till(id: &str) -> InstanceId {
    InstanceId::new("till", id).unwrap()
}

/// An instance with so many messages, of which the oldest was pushed at a version.
fn seen(id: &str, messages: u64, head: u64) -> Seen {
    Seen {
        instance: till(id),
        is_there: true,
        messages,
        head: (messages > 0).then(|| stamp(head)),
        oldest_ms: (messages > 0).then_some(NOW - 30_000),
        marked: (messages > 0).then(|| commit(head + messages)),
        changed: Some(commit(5)),
        attempts: 0,
        locked_ms: None,
        dead: 0,
        more_dead: false,
        remarks: String::new(),
    }
}

fn sample(seconds: u64, seen: Vec<Seen>) -> Sample {
    let busy = seen.iter().filter(|of| of.messages > 0);
    Sample {
        at: Duration::from_secs(seconds),
        now_ms: NOW,
        round: Some(Round {
            instances: busy.clone().count() as u64,
            messages: busy.map(|of| of.messages).sum(),
            refreshes: 1,
        }),
        attempts: vec![(SessionId::from_bytes([1; 16]), seconds * 40)],
        seen,
        ..Sample::default()
    }
}

fn model() -> Model {
    let title = "sqlite:till.db  namespace abide".to_owned();
    Model::new(title, Duration::from_secs(2), true)
}

/// A view of a shop: one till is stuck, one works, one is idle.
fn shop() -> Model {
    let mut model = model();
    for (seconds, stuck, working) in [(2, 3, 90), (4, 7, 40), (6, 12, 60)] {
        let mut front = seen("front", stuck, 10);
        front.attempts = 4;
        front.dead = 2;
        front.remarks = "failed: the scale is broken".to_owned();
        // What stands there was pushed after all that stood there before.
        let back = seen("back", working, seconds * 1_000);
        model.take(Ok(sample(seconds, vec![front, back, seen("idle", 0, 0)])));
    }
    model
}

fn press(model: &mut Model, keys: &[KeyCode]) -> Vec<Command> {
    let pressed = keys.iter();
    pressed
        .filter_map(|key| model.key(KeyEvent::new(*key, KeyModifiers::NONE)))
        .collect()
}

fn typed(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

fn frame(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(model, frame)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let lines = (0..height).map(|y| {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Compares a frame with the one that is kept; with `ABIDE_WRITE_GOLDEN=1` keeps this one instead.
fn check(name: &str, drawn: &str, golden: &str) {
    if std::env::var_os("ABIDE_WRITE_GOLDEN").is_some_and(|value| value == "1") {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/abide/top/golden");
        return std::fs::write(format!("{dir}/{name}.txt"), drawn).unwrap();
    }
    assert!(drawn == golden, "{name} has changed:\n{drawn}");
}

fn opened() -> Opened {
    let entry = |version, is_letter, line: &str| Entry {
        stamp: stamp(version),
        is_letter,
        line: line.to_owned(),
    };
    Opened {
        instance: till("front"),
        state: vec![
            "state.owner = \"anna\"".to_owned(),
            "state.sum = 7".to_owned(),
        ],
        more_state: false,
        lock: Vec::new(),
        entries: vec![
            entry(10, false, "ordinary   30s  cast   risky  {\"n\":1}"),
            entry(11, false, "ordinary   20s  cast   add  {\"n\":5}"),
            entry(
                3,
                true,
                "dead        9m  call   risky  {\"n\":3}  the scale is broken",
            ),
        ],
        more_messages: true,
        more_letters: false,
        damaged: Vec::new(),
    }
}

#[test]
fn the_list_is_drawn() {
    check(
        "list",
        &frame(&shop(), 110, 14),
        include_str!("golden/list.txt"),
    );
}

#[test]
fn an_open_instance_is_drawn_with_its_question() {
    let mut model = shop();
    press(&mut model, &[KeyCode::Down, KeyCode::Enter]);
    let mut next = sample(8, vec![seen("front", 12, 10)]);
    next.open = Some(opened());
    model.take(Ok(next));
    press(&mut model, &[KeyCode::Down, KeyCode::Char('x')]);
    check(
        "open",
        &frame(&model, 110, 18),
        include_str!("golden/open.txt"),
    );
}

#[test]
fn an_outage_is_shown_and_ends_nothing() {
    let mut model = shop();
    model.take(Err("the store is unavailable: away".to_owned()));
    let drawn = frame(&model, 110, 14);
    assert!(
        drawn.contains("what is shown is old: the store is unavailable"),
        "{drawn}"
    );
    assert!(drawn.contains("till/front"), "{drawn}");
    model.take(Ok(sample(8, Vec::new())));
    assert!(!frame(&model, 110, 14).contains("unavailable"));
    assert!(!model.is_over);
}

#[test]
fn a_terminal_of_any_size_is_drawn_on() {
    let mut model = shop();
    for open in [false, true] {
        if open {
            press(&mut model, &[KeyCode::Enter]);
            model.open.as_mut().unwrap().shown = Some(opened());
        }
        for (width, height) in [(1, 1), (2, 9), (20, 5), (300, 2), (80, 100)] {
            frame(&model, width, height);
        }
    }
}

#[test]
fn rows_are_sorted_by_what_is_asked_for_and_the_selected_one_stays() {
    let mut model = shop();
    let order = |model: &Model| -> Vec<String> {
        let rows = model.rows();
        let rows = rows.iter().map(|row| row.seen.instance.id().to_owned());
        rows.collect()
    };
    assert_eq!(order(&model), ["back", "front", "idle"]);
    let was_selected = model.selected.clone();
    let expected = [
        (Sort::Growth, ["back", "front", "idle"]),
        (Sort::Handled, ["back", "front", "idle"]),
        (Sort::Lag, ["back", "front", "idle"]),
        (Sort::Attempts, ["front", "back", "idle"]),
        (Sort::Dead, ["front", "back", "idle"]),
        (Sort::Name, ["back", "front", "idle"]),
    ];
    for (sort, rows) in expected {
        press(&mut model, &[KeyCode::Char('s')]);
        assert_eq!(
            (model.sort, order(&model)),
            (sort, rows.map(str::to_owned).to_vec())
        );
    }
    press(&mut model, &[KeyCode::Char('r')]);
    assert_eq!(order(&model), ["idle", "front", "back"]);
    assert_eq!(model.selected, was_selected);
}

#[test]
fn a_filter_hides_rows_and_finds_an_instance_by_its_name() {
    let mut model = shop();
    press(&mut model, &[KeyCode::Char('/')]);
    press(&mut model, &typed("scale"));
    assert_eq!(model.rows().len(), 1);
    assert_eq!(model.selected, Some(till("front")));
    // Keys that would do something else are part of the text.
    assert_eq!(press(&mut model, &typed("qxX")), []);
    assert!(!model.is_over && model.rows().is_empty() && model.selected.is_none());
    assert_eq!(press(&mut model, &[KeyCode::Esc]), [Command::Refresh]);
    assert_eq!(model.rows().len(), 3);
    press(&mut model, &[KeyCode::Char('/')]);
    press(&mut model, &typed("till/far away"));
    assert_eq!(press(&mut model, &[KeyCode::Enter]), [Command::Refresh]);
    assert!(model.wanted().instances.contains(&till("far away")));
}

#[test]
fn nothing_is_done_without_a_yes() {
    let mut model = shop();
    press(&mut model, &[KeyCode::Char('X')]);
    assert_eq!(model.asking, Some(Action::Purge(till("back"), None)));
    for key in [
        KeyCode::Char('n'),
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Char('q'),
    ] {
        model.asking = Some(Action::Purge(till("back"), None));
        assert_eq!(press(&mut model, &[key]), []);
        assert_eq!(model.asking, None);
    }
    assert!(!model.is_over);
    let asked = press(&mut model, &[KeyCode::Char('T'), KeyCode::Char('y')]);
    assert_eq!(asked, [Command::Act(Action::Retry(till("back"), None))]);
    // Ctrl-C is no answer: it ends the view.
    press(&mut model, &[KeyCode::Char('X')]);
    model.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(model.is_over);
}

#[test]
fn messages_are_deleted_and_dead_letters_put_back_one_by_one() {
    let mut model = shop();
    press(&mut model, &[KeyCode::Down]);
    assert_eq!(press(&mut model, &[KeyCode::Enter]), [Command::Refresh]);
    assert_eq!(model.wanted().open, Some(till("front")));
    model.open.as_mut().unwrap().shown = Some(opened());
    let one = press(&mut model, &[KeyCode::Char('x'), KeyCode::Char('y')]);
    assert_eq!(
        one,
        [Command::Act(Action::Purge(till("front"), Some(stamp(10))))]
    );
    press(&mut model, &[KeyCode::Char('t')]);
    assert!(model.asking.is_none() && model.notice.as_ref().unwrap().is_bad);
    press(&mut model, &[KeyCode::End]);
    let letter = press(&mut model, &[KeyCode::Char('t'), KeyCode::Char('y')]);
    assert_eq!(
        letter,
        [Command::Act(Action::Retry(till("front"), Some(stamp(3))))]
    );
    let letter = press(&mut model, &[KeyCode::Char('x'), KeyCode::Char('y')]);
    assert_eq!(
        letter,
        [Command::Act(Action::Forget(till("front"), stamp(3)))]
    );
    // The list has become shorter: the selection stays within it.
    let mut next = sample(9, Vec::new());
    let mut shorter = opened();
    shorter.entries.truncate(1);
    next.open = Some(shorter);
    model.take(Ok(next));
    assert_eq!(model.open.as_ref().unwrap().selected, 0);
    press(&mut model, &[KeyCode::Esc]);
    assert!(model.open.is_none() && !model.is_over);
}

#[test]
fn what_was_handled_is_a_lower_bound() {
    let before = seen("a", 10, 100);
    assert_eq!(handled(&before, &before), 0);
    assert_eq!(handled(&before, &seen("a", 4, 106)), 6);
    assert_eq!(handled(&before, &seen("a", 0, 0)), 10);
    // As many stand there as before, but none of those.
    assert_eq!(handled(&before, &seen("a", 10, 500)), 10);
    // More came; of those that stood there nobody knows how many went.
    assert_eq!(handled(&before, &seen("a", 30, 105)), 0);
    let turned = Seen {
        changed: Some(commit(6)),
        ..seen("a", 0, 0)
    };
    assert_eq!(handled(&seen("a", 0, 0), &turned), 1);
}

#[test]
fn what_is_gone_is_forgotten_and_memory_stays_bounded() {
    let mut model = shop();
    let gone = Seen {
        is_there: false,
        ..seen("idle", 0, 0)
    };
    model.take(Ok(sample(8, vec![gone])));
    assert!(!model.watched.contains_key(&till("idle")));
    for round in 0..40_u64 {
        let many = (0..50).map(|of| seen(&format!("{round}-{of}"), of, 1_000 + round));
        model.take(Ok(sample(10 + round, many.collect())));
    }
    assert!(model.watched.len() <= 400, "{}", model.watched.len());
    // The fullest are kept, and so is the one that is selected.
    assert!(
        model
            .rows()
            .iter()
            .take(40)
            .all(|row| row.seen.messages >= 40)
    );
    assert!(model.watched.contains_key(model.selected.as_ref().unwrap()));
}

#[test]
fn rates_age_and_bars_fit() {
    let mut model = shop();
    assert!(model.watched[&till("back")].handled.is_some());
    model.take(Ok(sample(60, Vec::new())));
    assert_eq!(model.watched[&till("back")].handled, None);
    assert_eq!(bars(&VecDeque::from([0, 1, 4, 8]), 3), "▁▄█");
    assert_eq!(bars(&VecDeque::from([0, 0]), 4), "    ");
    assert_eq!(rate(Some(-3.26), true), "-3.3");
    assert_eq!(rate(Some(12_345.6), false), "12346");
}

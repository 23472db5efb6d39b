//! The checker on histories made by hand, and against whoever tries every order.

use super::*;
use crate::settings::Dice;
use std::time::Duration;

fn span(begin: u64, end: u64) -> Span {
    Span {
        begin,
        end: Some(end),
    }
}

#[test]
fn one_after_the_other_in_the_order_of_the_log_is_consistent() {
    assert_eq!(contradiction(&[]), None);
    assert_eq!(contradiction(&[span(1, 2), span(3, 4), span(5, 6)]), None);
}

#[test]
fn what_overlaps_may_stand_in_any_order() {
    assert_eq!(contradiction(&[span(3, 6), span(1, 4)]), None);
    assert_eq!(contradiction(&[span(2, 3), span(1, 4)]), None);
}

#[test]
fn an_operation_that_ended_before_another_began_stands_before_it() {
    assert_eq!(contradiction(&[span(3, 4), span(1, 2)]), Some((0, 1)));
}

#[test]
fn a_contradiction_is_found_across_others() {
    let spans = [
        span(1, 20),
        span(7, 9),
        span(2, 21),
        span(3, 6),
        span(8, 10),
    ];
    assert_eq!(contradiction(&spans), Some((1, 3)));
}

#[test]
fn an_end_that_nobody_knows_contradicts_nothing() {
    let unknown = Span {
        begin: 1,
        end: None,
    };
    assert_eq!(contradiction(&[span(5, 6), unknown]), None);
    assert_eq!(contradiction(&[unknown, span(5, 6)]), None);
}

/// An operation that was told its end.
fn operation(how: How, (begin, end): (u64, u64), answer: Answer) -> Operation {
    Operation {
        op: 0,
        process: 0,
        instance: "book".to_owned(),
        how,
        is_priority: false,
        is_flawed: false,
        is_locked: false,
        may_reject: false,
        sends: None,
        begin,
        begin_at: Duration::ZERO,
        end_at: None,
        end: Some((end, Ok(answer))),
    }
}

fn call(moments: (u64, u64), place: u64) -> Operation {
    operation(How::Call, moments, Answer::Place(place))
}

fn cast(moments: (u64, u64)) -> Operation {
    operation(How::Cast, moments, Answer::Acknowledged)
}

fn query(moments: (u64, u64), length: u64) -> Operation {
    operation(How::Query, moments, Answer::Length(length))
}

fn first(operation: Operation) -> Operation {
    Operation {
        is_priority: true,
        ..operation
    }
}

/// What is said of operations, each with its place; the log is as long as the last of them says.
fn verdict(operations: &[(Operation, Option<u64>)], is_open: bool) -> Vec<String> {
    let length = operations.iter().filter_map(|(_, place)| *place).max();
    let operations = operations.iter();
    let operations = operations.map(|(operation, place)| (operation, *place));
    check_order(operations, length.unwrap_or(0), is_open)
}

fn assert_wrong(verdict: &[String], what: &str) {
    assert_eq!(verdict.len(), 1, "{verdict:?}");
    assert!(verdict[0].contains(what), "{verdict:?}");
}

#[test]
fn a_cast_may_not_be_passed_by_another_of_its_lane() {
    let history = |passes: Operation| [(cast((1, 2)), Some(2)), (passes, Some(1))];
    assert_wrong(
        &verdict(&history(cast((3, 4))), true),
        "ordinary operations",
    );
    let both = history(cast((3, 4))).map(|(operation, place)| (first(operation), place));
    assert_wrong(&verdict(&both, true), "priority operations");
}

#[test]
fn the_other_lane_may_pass_what_was_only_acknowledged_but_not_what_was_answered() {
    let passes = || (first(call((3, 4), 1)), Some(1));
    assert_eq!(verdict(&[(cast((1, 2)), Some(2)), passes()], true), [""; 0]);
    let answered = (call((1, 2), 2), Some(2));
    assert_wrong(&verdict(&[answered, passes()], true), "calls");
}

#[test]
fn a_query_sees_what_was_answered_before_it_began_and_nothing_that_came_after_its_end() {
    let appended = || (call((1, 2), 1), Some(1));
    assert_wrong(
        &verdict(&[appended(), (query((3, 4), 0), None)], false),
        "calls",
    );
    assert_eq!(
        verdict(&[appended(), (query((3, 4), 1), None)], false),
        [""; 0]
    );
    let early = (query((1, 2), 1), None);
    assert_wrong(
        &verdict(&[early, (call((3, 4), 1), Some(1))], false),
        "calls",
    );
    let late = (query((3, 4), 2), None);
    assert_wrong(&verdict(&[appended(), late], false), "saw a log of 2");
}

#[test]
fn a_query_may_pass_acknowledged_casts_only_where_a_mailbox_may_be_blocked() {
    let history = [(cast((1, 2)), Some(1)), (query((3, 4), 0), None)];
    assert_eq!(verdict(&history, false), [""; 0]);
    assert_wrong(&verdict(&history, true), "ordinary operations");
}

/// Whether some order of all operations gives each its answer and agrees with real time.
fn is_linearizable(history: &[(Operation, Option<u64>)], done: &mut Vec<usize>) -> bool {
    if done.len() == history.len() {
        return true;
    }
    let applied = done.iter().filter(|index| history[**index].1.is_some());
    let applied = applied.count() as u64;
    for (index, (operation, place)) in history.iter().enumerate() {
        let is_next = !done.contains(&index)
            && match (place, &operation.end) {
                (Some(place), _) => *place == applied + 1,
                (None, Some((_, Ok(Answer::Length(length))))) => *length == applied,
                _ => false,
            };
        let waits = history.iter().enumerate().any(|(other, (before, _))| {
            let ended = before.end.as_ref().map(|(end, _)| *end);
            !done.contains(&other) && ended.is_some_and(|ended| ended < operation.begin)
        });
        if is_next && !waits {
            done.push(index);
            if is_linearizable(history, done) {
                return true;
            }
            done.pop();
        }
    }
    false
}

/// A history of calls and queries that begin and end at random, and are answered mostly as if each
/// took effect at some moment near to its life.
fn random_history(dice: &mut Dice) -> Vec<(Operation, Option<u64>)> {
    let count = dice.between(1, 5);
    let mut moments: Vec<u64> = (1..=count * 2).collect();
    for index in (1..moments.len()).rev() {
        moments.swap(index, dice.between(0, index as u64) as usize);
    }
    // Each with the moment of its effect, on a finer clock.
    let mut lives: Vec<(u64, (u64, u64), bool)> = moments
        .chunks(2)
        .map(|pair| {
            let life = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            let effect = dice.between((life.0 * 4).saturating_sub(12), life.1 * 4 + 12);
            (effect, life, dice.one_in(3))
        })
        .collect();
    lives.sort_unstable();
    let mut length = 0;
    let lives = lives.into_iter().map(|(_, life, only_looks)| {
        if only_looks {
            return (query(life, length), None);
        }
        length += 1;
        let mut appended = call(life, length);
        if dice.one_in(5) {
            appended.end = None;
        }
        (appended, Some(length))
    });
    lives.collect()
}

#[test]
fn it_agrees_with_whoever_tries_every_order() {
    let (mut right, mut wrong) = (0, 0);
    for seed in 0..20_000 {
        let history = random_history(&mut Dice::new(seed));
        let expected = is_linearizable(&history, &mut Vec::new());
        let verdict = verdict(&history, true);
        assert_eq!(verdict.is_empty(), expected, "{history:#?}: {verdict:?}");
        match expected {
            true => right += 1,
            false => wrong += 1,
        }
    }
    assert!(right > 1_000 && wrong > 1_000, "{right} and {wrong}");
}

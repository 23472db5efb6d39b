//! What a process knows of its operations, in a file that outlives it.
//!
//! Each line is written whole, by one call of the operating system, before an operation is sent and
//! after its outcome is known. What was written before a `kill -9` stays.

use crate::tally::Op;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// The length of every line, so that lines can be counted without being read.
pub(crate) const LINE: u64 = 39;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was acknowledged, with this reply; zero for a cast.
    Acknowledged(u64),
    /// The error says that it may have happened, or the process died before it knew.
    Unknown,
    /// The error says that nothing was sent.
    Refused,
}

#[derive(Debug)]
pub(crate) struct Journal(File);

impl Journal {
    pub(crate) fn create(path: &Path) -> Self {
        let file = File::options().append(true).create_new(true).open(path);
        Self(file.unwrap())
    }

    pub(crate) fn sending(&self, op: Op) {
        self.write('s', op, 0);
    }

    pub(crate) fn ended(&self, op: Op, outcome: Outcome) {
        match outcome {
            Outcome::Acknowledged(reply) => self.write('a', op, reply),
            Outcome::Unknown => self.write('u', op, 0),
            Outcome::Refused => self.write('n', op, 0),
        }
    }

    fn write(&self, tag: char, op: Op, reply: u64) {
        let (lane, number) = (op.lane, op.number);
        let line = format!("{tag} {lane:>12} {number:>12} {reply:>10}\n");
        assert_eq!(line.len() as u64, LINE);
        (&self.0).write_all(line.as_bytes()).unwrap();
    }
}

/// Adds what a journal says to what is known.
pub(crate) fn read(path: &Path, known: &mut BTreeMap<Op, Outcome>) {
    // A process that was killed early has none.
    let Ok(text) = std::fs::read_to_string(path) else {
        return;
    };
    // The last line may be half a line.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [tag, lane, number, reply] = words[..] else {
            panic!("{line:?} in {path:?}");
        };
        let op = Op {
            lane: lane.parse().unwrap(),
            number: number.parse().unwrap(),
        };
        let before = known.get(&op).copied();
        let outcome = match tag {
            "s" => Outcome::Unknown,
            "a" => Outcome::Acknowledged(reply.parse().unwrap()),
            "u" => Outcome::Unknown,
            "n" => Outcome::Refused,
            _ => panic!("{line:?} in {path:?}"),
        };
        let expected = (tag != "s").then_some(Outcome::Unknown);
        assert_eq!(before, expected, "{line:?} in {path:?}");
        known.insert(op, outcome);
    }
}

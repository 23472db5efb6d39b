//! Who is at work under which lock, in a file to which all processes append.
//!
//! Each line is written by one call of the operating system, in the order of which the lines stand: a
//! run under a lock is written down after it has begun and before it ends. So of two runs that are at work
//! at one time neither has ended in the file when the other begins; and no clock is asked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Locks {
    file: File,
    process: u64,
    runs: AtomicU64,
}

/// A run that is at work; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    locks: Arc<Locks>,
    run: u64,
    instance: String,
}

impl Locks {
    pub(crate) fn open(path: &Path, process: u64) -> Self {
        let file = File::options().append(true).create(true).open(path);
        Self {
            file: file.unwrap(),
            process,
            runs: AtomicU64::new(0),
        }
    }

    pub(crate) fn enter(locks: &Arc<Self>, instance: &str) -> Running {
        let run = locks.runs.fetch_add(1, Ordering::SeqCst);
        locks.write("enters", run, instance);
        Running {
            locks: Arc::clone(locks),
            run,
            instance: instance.to_owned(),
        }
    }

    /// The process is dead, with all its runs: to be called before anybody can know.
    pub(crate) fn bury(path: &Path, process: u64) {
        Self::open(path, process).write("dies", 0, "-");
    }

    fn write(&self, what: &str, run: u64, instance: &str) {
        let line = format!("{what} {} {run} {instance}\n", self.process);
        (&self.file).write_all(line.as_bytes()).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.locks.write("leaves", self.run, &self.instance);
    }
}

/// Nobody enters while somebody else is in. How many have entered, and how many of those died there.
pub(crate) fn check(path: &Path) -> (u64, u64) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut inside: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let (mut entered, mut died) = (0, 0);
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, process, run, instance] = words[..] else {
            panic!("{line:?} in {path:?}");
        };
        let who = (process.parse().unwrap(), run.parse().unwrap());
        match what {
            "enters" => {
                entered += 1;
                let before = inside.insert(instance, who);
                assert_eq!(before, None, "{who:?} enters {instance} too, line {number}");
            }
            "leaves" => assert_eq!(inside.remove(instance), Some(who), "line {number}"),
            "dies" => {
                let before = inside.len();
                inside.retain(|_, (process, _)| *process != who.0);
                died += (before - inside.len()) as u64;
            }
            _ => panic!("{line:?} in {path:?}"),
        }
    }
    assert_eq!(inside.len(), 0, "{inside:?}");
    (entered, died)
}

//! The processes of a test, and what is done to them.

use crate::journal;
use crate::locks::Locks;
use crate::tally::Op;
use crate::worker;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where a test works: a store, and a directory for the journals.
#[derive(Debug)]
pub(crate) struct Place {
    directory: PathBuf,
    pub(crate) url: String,
    /// Where runs under locks are written down.
    pub(crate) locks: Option<PathBuf>,
    has_client_faults: bool,
}

impl Place {
    pub(crate) fn sqlite(directory: &Path) -> Self {
        let url = format!("sqlite:{}", directory.join("store.db").display());
        Self::url(directory, url)
    }

    pub(crate) fn url(directory: &Path, url: String) -> Self {
        Self {
            directory: directory.to_owned(),
            url,
            locks: None,
            has_client_faults: false,
        }
    }

    /// The processes mostly work under locks, and write down when.
    pub(crate) fn with_locks(mut self) -> Self {
        self.locks = Some(self.directory.join("locks"));
        self
    }

    /// The processes' clients of FoundationDB inject faults.
    #[cfg(feature = "fdb")]
    pub(crate) fn with_client_faults(mut self) -> Self {
        self.has_client_faults = true;
        self
    }
}

/// What a process does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) serves: bool,
    /// How many operations it sends at once.
    pub(crate) lanes: u64,
}

#[derive(Debug)]
struct Member {
    part: Part,
    child: Child,
    number: u64,
    continues: Option<Instant>,
}

/// The living processes. Those that remain die with it.
#[derive(Debug)]
pub(crate) struct Crew {
    test: String,
    url: String,
    directory: PathBuf,
    locks: Option<PathBuf>,
    has_client_faults: bool,
    members: Vec<Member>,
    started: u64,
    pub(crate) random: StdRng,
    kills: u64,
    stops: u64,
}

impl Crew {
    pub(crate) fn start(test: &str, place: &Place, parts: &[Part]) -> Self {
        let seed = std::env::var("ABIDE_CHAOS_SEED").map_or_else(
            |_| rand::rng().random_range(0..1_000_000),
            |seed| seed.parse().unwrap(),
        );
        println!("ABIDE_CHAOS_SEED={seed}");
        let mut crew = Self {
            test: test.to_owned(),
            url: place.url.clone(),
            directory: place.directory.clone(),
            locks: place.locks.clone(),
            has_client_faults: place.has_client_faults,
            members: Vec::new(),
            started: 0,
            random: StdRng::seed_from_u64(seed),
            kills: 0,
            stops: 0,
        };
        for part in parts {
            let member = crew.launch(*part);
            crew.members.push(member);
        }
        crew
    }

    fn launch(&mut self, part: Part) -> Member {
        self.started += 1;
        let number = self.started;
        let complaints = File::create(self.complaints_of(number)).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([&self.test, "--exact", "--nocapture", "--test-threads=1"])
            .env(worker::URL, &self.url)
            .env(worker::JOURNAL, self.journal_of(number))
            .env(worker::NUMBER, number.to_string())
            .env(worker::SERVES, u64::from(part.serves).to_string())
            .env(worker::LANES, part.lanes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(complaints);
        if let Some(locks) = &self.locks {
            command.env(worker::LOCKS, locks);
        }
        if self.has_client_faults {
            let option = |name| format!("FDB_NETWORK_OPTION_CLIENT_BUGGIFY_{name}");
            command
                .env(option("ENABLE"), "")
                .env(option("SECTION_ACTIVATED_PROBABILITY"), "100")
                .env(option("SECTION_FIRED_PROBABILITY"), "5");
        }
        Member {
            part,
            child: command.spawn().unwrap(),
            number,
            continues: None,
        }
    }

    fn journal_of(&self, number: u64) -> PathBuf {
        self.directory.join(format!("journal {number}"))
    }

    fn complaints_of(&self, number: u64) -> PathBuf {
        self.directory.join(format!("complaints {number}"))
    }

    /// Continues whoever has been stopped for long enough. Nobody may have ended by itself.
    pub(crate) fn watch(&mut self) {
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if let Some(status) = member.child.try_wait().unwrap() {
                let complaints = self.complaints_of(self.members[index].number);
                let complaints = std::fs::read_to_string(complaints).unwrap();
                panic!("a process ended, {status}: {complaints}");
            }
            if member.continues.is_some_and(|at| at <= Instant::now()) {
                member.continues = None;
                signal(&member.child, "-CONT");
            }
        }
    }

    pub(crate) fn kill_and_replace(&mut self, index: usize) {
        let member = &mut self.members[index];
        // Who is stopped for long is to be continued.
        if is_stopped_for_long(member) {
            return;
        }
        member.child.kill().unwrap();
        member.child.wait().unwrap();
        if let Some(locks) = &self.locks {
            Locks::bury(locks, member.number);
        }
        let part = member.part;
        self.members[index] = self.launch(part);
        self.kills += 1;
    }

    pub(crate) fn stop(&mut self, index: usize, time: Duration) {
        let member = &mut self.members[index];
        if member.continues.is_some() {
            return;
        }
        signal(&member.child, "-STOP");
        member.continues = Some(Instant::now() + time);
        self.stops += 1;
    }

    /// Stops a process while it does not hold what keeps the others from writing, as a SQLite
    /// store's writer would: then nobody's session would be swept.
    pub(crate) fn stop_without_the_stores_lock(&mut self, index: usize, time: Duration) {
        loop {
            self.stop(index, time);
            let before = self.ended();
            std::thread::sleep(Duration::from_millis(1_500));
            if self.ended() > before + 50 {
                return;
            }
            signal(&self.members[index].child, "-CONT");
            self.members[index].continues = None;
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// How many operations have ended so far, about: each has two lines.
    pub(crate) fn ended(&self) -> u64 {
        let length = |number| std::fs::metadata(self.journal_of(number)).map_or(0, |of| of.len());
        let lines = (1..=self.started).map(|number| length(number) / journal::LINE);
        lines.map(|lines| lines / 2).sum()
    }

    /// How many operations are acknowledged; reads all journals.
    pub(crate) fn acknowledged(&self) -> u64 {
        let outcomes = self.outcomes();
        let acknowledged = outcomes
            .values()
            .filter(|outcome| matches!(outcome, journal::Outcome::Acknowledged(_)));
        acknowledged.count() as u64
    }

    /// Lets everybody end in order, and sees that they do. Those that serve come last: a call whose
    /// instance nobody serves any more would wait until it times out.
    pub(crate) fn finish(&mut self) {
        for member in &mut self.members {
            if member.continues.take().is_some() {
                signal(&member.child, "-CONT");
            }
        }
        let began = Instant::now();
        for serves in [false, true] {
            let leaving = self.members.iter_mut();
            let mut leaving: Vec<_> = leaving.filter(|of| of.part.serves == serves).collect();
            for member in &mut leaving {
                drop(member.child.stdin.take());
            }
            for member in &mut leaving {
                while member.child.try_wait().unwrap().is_none() {
                    assert!(
                        began.elapsed() < Duration::from_secs(120),
                        "process {} does not end",
                        member.number
                    );
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        let mut failed = Vec::new();
        for member in &mut self.members {
            if !member.child.wait().unwrap().success() {
                failed.push(member.number);
            }
        }
        for number in 1..=self.started {
            let complaints = std::fs::read_to_string(self.complaints_of(number)).unwrap();
            assert!(
                !complaints.contains("panicked"),
                "process {number}: {complaints}"
            );
        }
        assert_eq!(failed, [0; 0], "these ended badly");
        println!(
            "{} processes, {} kills, {} stops, ended in order within {:.1?}",
            self.started,
            self.kills,
            self.stops,
            began.elapsed()
        );
    }

    /// What all processes, living and dead, know of their operations.
    pub(crate) fn outcomes(&self) -> BTreeMap<Op, journal::Outcome> {
        let mut known = BTreeMap::new();
        for number in 1..=self.started {
            journal::read(&self.journal_of(number), &mut known);
        }
        known
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

/// Whether it is stopped, and for longer than a few seconds.
fn is_stopped_for_long(member: &Member) -> bool {
    let horizon = Instant::now() + Duration::from_secs(5);
    member.continues.is_some_and(|at| at > horizon)
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

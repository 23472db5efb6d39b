#![allow(
    clippy::disallowed_methods,
    reason = "time passes for the poller as it does for everyone"
)]

use super::super::super::{KeyRange, Version};
use super::*;
use futures_util::FutureExt;

struct Fixture {
    hub: Arc<Hub>,
    poller: Poller,
    /// The other process.
    other: Db,
    _directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let file = StoreFile::open(path.to_str().unwrap()).unwrap();
        let hub = Arc::new(Hub::default());
        Self {
            other: file.connect().unwrap(),
            poller: Poller::new(file, Arc::clone(&hub)),
            hub,
            _directory: directory,
        }
    }

    fn arm(&self, key: &'static [u8]) -> crate::store::StoreFuture<()> {
        let (pending, watch) = self.hub.watch(Bytes::from_static(key));
        self.hub.arm(vec![pending]);
        watch
    }

    fn commit_elsewhere(&self, key: &[u8]) {
        self.other.begin_write().unwrap();
        self.other.put(key, b"changed").unwrap();
        let version = self.other.version().unwrap();
        self.other.set_version(Version(version.0 + 1)).unwrap();
        self.other.commit().unwrap();
    }
}

#[test]
fn a_new_watch_within_the_rest_is_looked_at_alone() {
    let mut fixture = Fixture::new();
    let mut old = fixture.arm(b"old");
    let key = |key: &'static [u8]| vec![Bytes::from_static(key)];
    let now = monotonic();
    assert_eq!(fixture.hub.next_poll(now), Some(Look::Changes(key(b"old"))));
    fixture.poller.look_for_changes(&key(b"old")).unwrap();

    fixture.commit_elsewhere(b"old");
    fixture.commit_elsewhere(b"new");
    let mut new = fixture.arm(b"new");
    let later = monotonic() + Duration::from_secs(60);
    assert_eq!(fixture.hub.next_poll(later), Some(Look::New(key(b"new"))));
    fixture.poller.look_at_new(&key(b"new")).unwrap();
    new.as_mut().now_or_never().expect("changed").unwrap();
    assert!(old.as_mut().now_or_never().is_none(), "not its turn yet");

    // The look at the new one hid nothing from the look that follows the rest.
    let now = monotonic();
    assert_eq!(fixture.hub.next_poll(now), Some(Look::Changes(Vec::new())));
    fixture.poller.look_for_changes(&[]).unwrap();
    old.as_mut().now_or_never().expect("changed").unwrap();
}

#[test]
fn a_commit_is_seen_by_the_next_look_however_long_the_log_stood_still() {
    let mut fixture = Fixture::new();
    for (key, quiet) in [
        (&b"one"[..], Duration::ZERO),
        (b"two", QUIET * 2),
        (b"three", QUIET / 2),
        (b"four", IDLE_AFTER * 2),
    ] {
        let mut watch = fixture.arm(key);
        let began = monotonic();
        fixture
            .poller
            .look_for_changes(&[Bytes::from_static(key)])
            .unwrap();
        while monotonic().saturating_sub(began) < quiet {
            std::thread::sleep(fixture.poller.look_for_changes(&[]).unwrap());
        }
        assert!(watch.as_mut().now_or_never().is_none());
        fixture.commit_elsewhere(key);
        fixture.poller.look_for_changes(&[]).unwrap();
        watch.as_mut().now_or_never().expect("changed").unwrap();
    }
}

/// The log shows a commit that cannot be read yet: the disk takes its time.
#[test]
fn a_commit_that_shows_in_the_log_before_it_can_be_read_is_not_missed() {
    let mut fixture = Fixture::new();
    let mut watch = fixture.arm(b"key");
    fixture
        .poller
        .look_for_changes(&[Bytes::from_static(b"key")])
        .unwrap();
    fixture.commit_elsewhere(b"key");
    // As if this look at the log had been made before the commit ended.
    assert_eq!(fixture.poller.log_stands_still(), None);
    fixture.poller.look_for_changes(&[]).unwrap();
    watch.as_mut().now_or_never().expect("changed").unwrap();
}

#[test]
#[cfg(unix)]
fn while_nobody_commits_looks_are_few_and_at_the_log_only() {
    let mut fixture = Fixture::new();
    let _watch = fixture.arm(b"key");
    let began = monotonic();
    let (mut at_log, mut all, mut rest) = (0, 0, Duration::ZERO);
    while monotonic().saturating_sub(began) < IDLE_AFTER + QUIET * 5 {
        let asked = fixture.poller.log_seen.map(|seen| seen.asked);
        rest = fixture.poller.look_for_changes(&[]).unwrap();
        let asked_before = fixture.poller.log_seen.map(|seen| seen.asked) == asked;
        at_log += u32::from(asked_before);
        all += 1;
        std::thread::sleep(rest);
    }
    assert_eq!(rest, IDLE_PERIOD);
    assert!(at_log > all / 2, "{at_log} of {all}");
}

#[test]
fn new_watches_do_not_put_off_the_look_for_changes() {
    let fixture = Fixture::new();
    let _watch = fixture.arm(b"key");
    let look = fixture.hub.next_poll(monotonic()).unwrap();
    assert!(matches!(look, Look::Changes(fresh) if fresh == [&b"key"[..]]));
}

#[test]
fn looks_at_all_watches_take_a_twentieth_of_a_core() {
    let mut poller = Fixture::new().poller;
    let look = Duration::from_millis(10);
    assert_eq!(poller.rest_after(look), look * 19);
    assert_eq!(poller.rest_after(look), look * 19);
    // It took so long because the system ran others meanwhile.
    assert_eq!(poller.rest_after(look * 100), look * 19);
    assert_eq!(poller.rest_after(Duration::from_micros(1)), PERIOD);
}

#[test]
fn commits_of_this_process_cause_no_look_at_all_watches() {
    let mut fixture = Fixture::new();
    let mut watch = fixture.arm(b"key");
    fixture.poller.look_for_changes(&[]).unwrap();
    let base = fixture.other.version().unwrap();
    fixture.commit_elsewhere(b"key");
    // Here this process made the commit, and looks at the keys that it wrote.
    fixture.hub.looked_at_own(base, Version(base.0 + 1));
    assert_eq!(
        fixture.hub.watched_in(&[KeyRange::single(b"key")]),
        [&b"key"[..]]
    );
    fixture.poller.look_for_changes(&[]).unwrap();
    assert!(
        watch.as_mut().now_or_never().is_none(),
        "left to the writer"
    );
}

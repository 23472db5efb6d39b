//! The client's network thread: started once per process, and stopped when the process exits if a
//! cluster has answered by then.
//!
//! Why it is stopped at all, and by an exit handler: `exit` destroys the C++ statics of `libfdb_c`
//! under a network thread that uses them, and a busy process then crashed one time in ten. A guard
//! in `main` would have to be every user's business, and a guard that is dropped with the last
//! store would end the client for good, since it cannot be started again.
//!
//! Why that handler is registered only after a first answer of a cluster: handlers and destructors
//! run in the reverse order of registration, and the client creates statics when it first needs
//! them. A handler registered before them runs after they are gone, and to stop the network then
//! crashed the process in half of the runs and more.
//!
//! A process that exits before that answer does not stop its network. For some milliseconds after
//! its start the network thread is busy with its first connection, and an exit in that time crashed
//! one process in twenty. So a second handler, registered before the network thread exists, waits
//! until [`SETTLE`] has passed since. The thread still runs then, so this makes a crash unlikely and
//! not impossible.
//!
//! Why the handler asks another thread: when it runs, the thread that called `exit` has lost its
//! thread-locals, which `fdb_stop_network` uses for its log.

use super::errors;
use crate::env::monotonic;
use crate::store::{StoreError, StoreErrorKind};
use foundationdb::api::{FdbApiBuilder, NetworkBuilder, NetworkStop};
use foundationdb::options::NetworkOption;
use std::sync::{Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// The worst case of a fired watch: the client sleeps this long when the version it reads at is
/// older than the one that fired. In seconds; FoundationDB's default is 0.01.
const KNOB: &str = "future_version_retry_delay";
const KNOB_VALUE: &str = "0.001";

/// Where FoundationDB's client looks for knobs of its user.
const KNOB_VARIABLE: &str = "FDB_NETWORK_OPTION_KNOB";

/// How long an exiting process waits for the network thread, which needs milliseconds. The bound
/// matters to a program that exits from a callback *on* that thread.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// How long after the network's start a process does not exit unless a cluster has answered. Without
/// this wait, exits crashed 0 and 5 ms after an open began, rarely at 20, and not at 60 or 150; with
/// it, none of 600 did (200 each at 0, 5 and 20 ms, client 7.3.79, two cores).
const SETTLE: Duration = Duration::from_millis(200);

/// How far the end of the network is. It only moves forward.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The exit handler asks the stopping thread.
    StopWanted,
    /// The stopping thread has seen the network thread end.
    Stopped,
}

/// Shared by the exit handler and the stopping thread. Plain futexes underneath: nothing here needs
/// a thread-local, which the handler could not use.
static PHASE: Mutex<Phase> = Mutex::new(Phase::Running);
static CHANGED: Condvar = Condvar::new();

/// When the network was started, once it is.
static STARTED_AT: OnceLock<Duration> = OnceLock::new();

fn phase() -> MutexGuard<'static, Phase> {
    PHASE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn advance(to: Phase) {
    *phase() = to;
    CHANGED.notify_all();
}

/// Starts the network unless it runs. Whatever happened the first time happens every time: a
/// process has one chance.
pub(super) fn start() -> Result<(), StoreError> {
    static STARTED: OnceLock<Result<(), StoreError>> = OnceLock::new();
    STARTED.get_or_init(start_once).clone()
}

fn start_once() -> Result<(), StoreError> {
    let (runner, started) = configured()?
        .build()
        .map_err(|error| errors::opening(error, "the client's network"))?;
    let _ = STARTED_AT.set(monotonic());
    at_exit(let_settle);
    let network = Builder::new()
        .name("fdb-network".into())
        .spawn(move || {
            // SAFETY: the network must be stopped before the process exits, lest it use statics
            // that `exit` has destroyed. The stopping thread does that when the exit handler asks,
            // from the first answer of a cluster on. Until then it cannot be stopped safely, and
            // `let_settle` sees to it that this thread is past its first work and waits for the
            // cluster; that is measured, not proven: see `tests/fdb_open.rs`. An abort or a deadly
            // signal destroys no statics.
            #[allow(unsafe_code, reason = "the client offers no other way to run")]
            let result = unsafe { runner.run() };
            if let Err(error) = result {
                tracing::error!(%error, "FoundationDB's network thread failed");
            }
        })
        .map_err(no_thread)?;
    let stop = started.wait();
    Builder::new()
        .name("fdb-stop".into())
        .spawn(move || stop_when_wanted(stop, network))
        .map_err(no_thread)?;
    Ok(())
}

/// Has the network stopped when the process exits. To be called once a cluster has answered.
pub(super) fn stop_at_exit() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| at_exit(request_stop));
}

fn at_exit(handler: extern "C" fn()) {
    if atexit(handler) != 0 {
        tracing::warn!("this process may crash when it exits: no exit handler for FoundationDB");
    }
}

fn no_thread(error: std::io::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Failed)
        .with_context("no thread for FoundationDB's network could be started")
        .with_source(error)
}

/// The builder, with our default for the knob unless the user chose a value: options of the
/// environment are applied first, so ours would win.
fn configured() -> Result<NetworkBuilder, StoreError> {
    let builder = select_api_version()?;
    let chosen = std::env::var_os(KNOB_VARIABLE)
        .is_some_and(|knobs| knobs.to_string_lossy().to_lowercase().contains(KNOB));
    if chosen {
        return Ok(builder);
    }
    builder
        .set_option(NetworkOption::Knob(format!("{KNOB}={KNOB_VALUE}")))
        .map_err(|error| errors::opening(error, "the client's network options"))
}

/// The crate panics if the process selected a version before, which only foreign code can have
/// done: this is called once.
fn select_api_version() -> Result<NetworkBuilder, StoreError> {
    match std::panic::catch_unwind(|| FdbApiBuilder::default().build()) {
        Ok(Ok(builder)) => Ok(builder),
        Ok(Err(error)) => Err(errors::opening(error, "the client library `libfdb_c`")),
        Err(_) => Err(StoreError::new(StoreErrorKind::InvalidCall).with_context(
            "this process has started FoundationDB's network by itself: open the database with \
             the `foundationdb` crate too, and pass it to `FdbStore::from_database`",
        )),
    }
}

#[allow(unsafe_code, reason = "the standard library has no exit handlers")]
// SAFETY: this is the declaration of C's `atexit`, part of every hosted C runtime, which the
// standard library links.
unsafe extern "C" {
    safe fn atexit(handler: extern "C" fn()) -> std::ffi::c_int;
}

/// The exit handler that stops the network. A phase that has moved on does not move back.
extern "C" fn request_stop() {
    let mut phase = phase();
    if *phase != Phase::Running {
        return;
    }
    *phase = Phase::StopWanted;
    CHANGED.notify_all();
    // Ends early when the network has stopped; nothing can be done if it has not.
    let _ = CHANGED.wait_timeout_while(phase, STOP_WAIT, |phase| *phase != Phase::Stopped);
}

/// The exit handler of a process whose network may be too young to be left alone. The other handler
/// was registered later, so it has run if it will.
extern "C" fn let_settle() {
    let phase = phase();
    let age = STARTED_AT
        .get()
        .map(|begun| monotonic().saturating_sub(*begun));
    let left = SETTLE.saturating_sub(age.unwrap_or(SETTLE));
    let _ = CHANGED.wait_timeout_while(phase, left, |phase| *phase == Phase::Running);
}

/// The stopping thread: asleep until the process exits.
fn stop_when_wanted(stop: NetworkStop, network: JoinHandle<()>) {
    let wanted = CHANGED.wait_while(phase(), |phase| *phase == Phase::Running);
    drop(wanted);
    if stop.stop().is_ok() {
        let _ = network.join();
    }
    advance(Phase::Stopped);
}

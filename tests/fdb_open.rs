//! Opening a FoundationDB store: what needs the client library but no cluster.
#![cfg(feature = "fdb")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "the helpers of tests fail and speak as tests do"
)]

mod fdb_support;

use abide::env::{Env, TokioEnv};
use abide::store::{FdbStore, StoreError, StoreErrorKind};
use fdb_support::{is_child, succeeds};
use futures_util::future::{Either, select};
use std::net::TcpListener;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::time::Duration;

/// One test of this file again, in a process of its own that finds no cluster file.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = fdb_support::child(test);
    command.current_dir(dir).env_remove("FDB_CLUSTER_FILE");
    command
}

async fn open_fails(path: &str) -> StoreError {
    match FdbStore::open(path).await {
        Ok(store) => panic!("{store:?} was opened"),
        Err(error) => error,
    }
}

/// The address of a loopback port that nobody listens on.
fn closed_port() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

fn cluster_file(dir: &Path, address: &str) -> String {
    let path = dir.join("fdb.cluster");
    std::fs::write(&path, format!("test:test@{address}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_missing_cluster_file_is_named_and_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("absent.cluster");
    let error = open_fails(path.to_str().unwrap()).await;
    assert_eq!(error.kind(), StoreErrorKind::InvalidStore);
    assert!(error.to_string().contains("absent.cluster"), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_malformed_cluster_file_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.cluster");
    for contents in ["", "hello\n", "a:b@nowhere\n", "\u{0}\u{1}\u{2}"] {
        std::fs::write(&path, contents).unwrap();
        let error = open_fails(path.to_str().unwrap()).await;
        assert_eq!(error.kind(), StoreErrorKind::InvalidStore);
        assert!(error.to_string().contains("odd.cluster"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), contents);
    }
}

#[tokio::test]
async fn what_only_the_client_finds_wrong_is_an_invalid_store_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fdb.cluster");
    // The same coordinator twice.
    std::fs::write(&path, "a:b@127.0.0.1:4500,127.0.0.1:4500\n").unwrap();
    let error = open_fails(path.to_str().unwrap()).await;
    assert_eq!(error.kind(), StoreErrorKind::InvalidStore, "{error}");
}

#[tokio::test]
async fn a_wrong_variable_is_an_error_although_other_files_would_do() {
    if is_child() {
        let error = open_fails("").await;
        assert_eq!(error.kind(), StoreErrorKind::InvalidStore);
        assert!(error.to_string().contains("FDB_CLUSTER_FILE"), "{error}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    cluster_file(dir.path(), &closed_port());
    let test = "a_wrong_variable_is_an_error_although_other_files_would_do";
    for value in ["/nowhere/fdb.cluster", ""] {
        succeeds(child(test, dir.path()).env("FDB_CLUSTER_FILE", value));
    }
}

#[tokio::test]
async fn the_working_directory_comes_before_the_default() {
    if is_child() {
        let error = open_fails("").await;
        assert_eq!(error.kind(), StoreErrorKind::InvalidStore);
        assert!(
            error.to_string().contains("in the working directory"),
            "{error}"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("fdb.cluster"), "malformed").unwrap();
    succeeds(&mut child(
        "the_working_directory_comes_before_the_default",
        dir.path(),
    ));
}

/// Also that several stores of a process may be opened at once.
#[tokio::test]
async fn a_cluster_that_does_not_answer_is_unavailable_within_ten_seconds() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // One address refuses connections; the other takes them and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = cluster_file(dirs[0].path(), &closed_port());
    let ignored = cluster_file(dirs[1].path(), &silent.local_addr().unwrap().to_string());
    let env = TokioEnv::current();
    let begun = env.now();
    let (first, second) = tokio::join!(open_fails(&refused), open_fails(&ignored));
    let took = env.now() - begun;
    for (error, path) in [(first, refused), (second, ignored)] {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(error.to_string().contains(&path), "{error}");
    }
    assert!(took <= Duration::from_secs(10), "it took {took:?}");
}

#[tokio::test]
async fn a_wrong_network_option_is_an_error_that_names_the_variables() {
    if is_child() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let error = open_fails(&cluster_file(dir.path(), "127.0.0.1:1")).await;
            assert_eq!(error.kind(), StoreErrorKind::InvalidStore);
            assert!(error.to_string().contains("FDB_NETWORK_OPTION_"), "{error}");
        }
        return;
    }
    let test = "a_wrong_network_option_is_an_error_that_names_the_variables";
    let variable = "FDB_NETWORK_OPTION_CLIENT_BUGGIFY_SECTION_FIRED_PROBABILITY";
    succeeds(child(test, Path::new(".")).env(variable, "often"));
}

#[tokio::test]
async fn a_program_that_started_the_network_is_told_what_to_do() {
    if is_child() {
        // SAFETY: the guard is dropped before the process exits.
        #[allow(unsafe_code, reason = "the program under test does it")]
        let network = unsafe { foundationdb::boot() };
        let dir = tempfile::tempdir().unwrap();
        let path = cluster_file(dir.path(), "127.0.0.1:1");
        let error = open_fails(&path).await;
        assert_eq!(error.kind(), StoreErrorKind::InvalidCall);
        assert!(error.to_string().contains("from_database"), "{error}");
        let database = foundationdb::Database::from_path(&path).unwrap();
        FdbStore::from_database(std::sync::Arc::new(database)).unwrap();
        drop(network);
        return;
    }
    succeeds(&mut child(
        "a_program_that_started_the_network_is_told_what_to_do",
        Path::new("."),
    ));
}

const EXIT_AFTER: &str = "ABIDE_TEST_EXIT_AFTER_MS";

/// An open of a cluster that takes connections and never answers, and an exit in the midst of it:
/// the client creates statics all the while.
#[test]
fn a_process_exits_cleanly_soon_after_an_open_began() {
    if is_child() {
        let after = std::env::var(EXIT_AFTER).unwrap().parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let path = cluster_file(dir.path(), &silent.local_addr().unwrap().to_string());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let env = TokioEnv::new(runtime.handle().clone());
        let mut opening = pin!(FdbStore::open(&path));
        // Polled before the sleep, so that there is a network even after no time.
        let exiting = select(opening.as_mut(), env.sleep(Duration::from_millis(after)));
        assert!(matches!(runtime.block_on(exiting), Either::Right(_)));
        dir.close().unwrap();
        std::process::exit(0);
    }
    for after in ["0", "5", "20"] {
        for _ in 0..20 {
            let test = "a_process_exits_cleanly_soon_after_an_open_began";
            succeeds(child(test, Path::new(".")).env(EXIT_AFTER, after));
        }
    }
}

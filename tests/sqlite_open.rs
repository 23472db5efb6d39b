//! Opening SQLite stores: what is no store is refused with advice, and nothing is left behind.

#![cfg(feature = "sqlite")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "also the helpers of a test fail by panicking, and their time is the real one"
)]

use abide::store::{SqliteStore, Store, StoreError, StoreErrorKind, TransactionExt, open};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A directory, and the file in it that a test is about.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    (directory, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// All files of a directory, with their content.
fn content(directory: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).ok()))
        .collect()
}

/// Opens what must be refused: with a sentence that names it, and without a trace.
async fn refusal(directory: &Path, path: &str) -> StoreError {
    let before = content(directory);
    let error = SqliteStore::open(path).await.unwrap_err();
    assert_eq!(before, content(directory), "{error}");
    assert!(
        error.to_string().contains(path),
        "{error} does not name {path}"
    );
    assert_eq!(error.kind(), StoreErrorKind::InvalidStore, "{error}");
    error
}

/// Makes a store with one key, and waits until its threads have closed it.
async fn make(path: &Path) {
    let store = SqliteStore::open(text(path)).await.unwrap();
    let tx = store.begin().unwrap();
    tx.set(b"key", &[7; 5000]);
    tx.commit().await.unwrap();
    drop((tx, store));
    let log = path.with_file_name("store.db-wal");
    for _ in 0..500 {
        if !log.exists() {
            return;
        }
        tokio::time::timeout(Duration::from_millis(10), std::future::pending::<()>())
            .await
            .unwrap_err();
    }
    panic!("the dropped store still has its log");
}

#[tokio::test]
async fn a_new_store_is_one_complete_file_that_opens_again() {
    let (directory, path) = place();
    make(&path).await;
    assert_eq!(
        content(directory.path()).len(),
        1,
        "nothing beside the file"
    );
    let store = open(&format!("sqlite:{}", text(&path))).await.unwrap();
    let value = store.begin().unwrap().read(b"key").await.unwrap().unwrap();
    assert_eq!(value, vec![7; 5000]);
}

#[tokio::test]
async fn an_empty_file_becomes_a_store() {
    let (_directory, path) = place();
    fs::write(&path, b"").unwrap();
    make(&path).await;
    assert!(fs::metadata(&path).unwrap().len() > 0);
}

#[tokio::test]
async fn paths_that_name_no_file_are_refused() {
    let (directory, path) = place();
    let error = refusal(directory.path(), "").await;
    assert!(error.to_string().contains("sqlite:PATH"), "{error}");
    let error = refusal(directory.path(), ":memory:").await;
    assert!(error.to_string().contains("`memory:`"), "{error}");
    let error = refusal(directory.path(), text(directory.path())).await;
    assert!(error.to_string().contains("directory"), "{error}");
    refusal(directory.path(), &format!("{}/", text(&path))).await;
    refusal(directory.path(), &format!("{}\0x", text(&path))).await;
}

#[tokio::test]
async fn a_missing_directory_is_refused() {
    let (directory, _) = place();
    let path = directory.path().join("missing/store.db");
    let error = refusal(directory.path(), text(&path)).await;
    assert!(
        error.to_string().contains("create the directory"),
        "{error}"
    );
    fs::write(directory.path().join("file"), b"x").unwrap();
    refusal(
        directory.path(),
        text(&directory.path().join("file/store.db")),
    )
    .await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    for bytes in [&b"hello"[..], &[0xab; 10_000]] {
        let (directory, path) = place();
        fs::write(&path, bytes).unwrap();
        let error = refusal(directory.path(), text(&path)).await;
        assert!(
            error.to_string().contains("not an SQLite database"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_database_of_another_application_is_refused() {
    for sql in [
        "CREATE TABLE users(name TEXT)",
        "PRAGMA application_id = 77",
        "PRAGMA user_version = 3; PRAGMA journal_mode = WAL; CREATE VIEW v AS SELECT 1",
    ] {
        let (directory, path) = place();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let error = refusal(directory.path(), text(&path)).await;
        assert!(error.to_string().contains("another application"), "{error}");
    }
}

#[tokio::test]
async fn a_newer_layout_is_refused() {
    let (directory, path) = place();
    make(&path).await;
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("PRAGMA user_version = 2").unwrap();
    drop(raw);
    let error = refusal(directory.path(), text(&path)).await;
    assert!(error.to_string().contains("upgrade"), "{error}");
}

#[tokio::test]
async fn a_store_with_a_foreign_trigger_is_refused() {
    let (directory, path) = place();
    make(&path).await;
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("CREATE TRIGGER t AFTER INSERT ON kv BEGIN DELETE FROM kv; END")
        .unwrap();
    drop(raw);
    refusal(directory.path(), text(&path)).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_read_only_file_or_directory_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, path) = place();
    make(&path).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let error = refusal(directory.path(), text(&path)).await;
    assert!(error.to_string().contains("read-only"), "{error}");

    let (directory, path) = place();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let error = refusal(directory.path(), text(&path)).await;
    assert!(error.to_string().contains("read-only"), "{error}");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn damaged_pages_are_an_error_that_names_the_file() {
    let (_directory, path) = place();
    make(&path).await;
    let mut bytes = fs::read(&path).unwrap();
    // Everything but the first page, which holds the header and the schema.
    bytes[4096..].fill(0xee);
    fs::write(&path, bytes).unwrap();
    let error = match SqliteStore::open(text(&path)).await {
        Err(error) => error,
        Ok(store) => store.begin().unwrap().read(b"key").await.unwrap_err(),
    };
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("store.db"), "{error}");
}

#[tokio::test]
async fn the_log_of_a_file_that_is_gone_is_refused() {
    for suffix in ["wal", "journal"] {
        let (directory, path) = place();
        fs::write(path.with_file_name(format!("store.db-{suffix}")), b"stale").unwrap();
        let error = refusal(directory.path(), text(&path)).await;
        assert!(error.to_string().contains("left over"), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_was_replaced_while_open_is_noticed() {
    let (_directory, path) = place();
    let store = SqliteStore::open(text(&path)).await.unwrap();
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = fs::remove_file(path.with_file_name(file));
    }
    let other = SqliteStore::open(text(&path)).await.unwrap();
    other.begin().unwrap().read(b"key").await.unwrap();
    // Its first read opens a connection, to what is another store now.
    let error = store.begin().unwrap().read(b"key").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Failed, "{error}");
    assert!(error.to_string().contains("replaced"), "{error}");
}

#[tokio::test]
async fn a_file_that_was_removed_or_replaced_by_its_copy_takes_no_commits_and_no_reads() {
    for is_replaced in [false, true] {
        let (_directory, path) = place();
        make(&path).await;
        let store = SqliteStore::open(text(&path)).await.unwrap();
        // From here on there are an idle connection to read with and one to write with.
        let tx = store.begin().unwrap();
        tx.read(b"key").await.unwrap();
        tx.set(b"key", b"1");
        tx.commit().await.unwrap();
        let copy = path.with_file_name("copy");
        fs::copy(&path, &copy).unwrap();
        fs::remove_file(&path).unwrap();
        if is_replaced {
            fs::rename(&copy, &path).unwrap();
        }
        let tx = store.begin().unwrap();
        tx.set(b"key", b"2");
        let error = tx.commit().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Failed, "{error}");
        for _ in 0..2 {
            let error = store.begin().unwrap().read(b"key").await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Failed, "{error}");
            assert!(error.to_string().contains("replaced"), "{error}");
        }
    }
}

#[tokio::test]
async fn drafts_of_makers_that_died_are_removed_and_those_of_living_ones_are_not() {
    let (directory, path) = place();
    let old = directory.path().join(".store.db.00000000000000aa.new");
    let young = directory.path().join(".store.db.00000000000000bb.new");
    let other = directory.path().join(".store.db.notes.new");
    for file in [&old, &young, &other] {
        fs::write(file, b"").unwrap();
    }
    let long_ago = fs::metadata(&old).unwrap().modified().unwrap() - Duration::from_secs(3_600);
    for file in [&old, &other] {
        fs::File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
    make(&path).await;
    assert!(!old.exists() && young.exists() && other.exists());
}

use super::*;
use rusqlite::ffi;

fn fresh() -> (tempfile::TempDir, Db) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let file = StoreFile::open(path.to_str().unwrap()).unwrap();
    let db = file.connect().unwrap();
    (directory, db)
}

fn failure(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

#[test]
fn a_commit_that_found_the_store_locked_is_certainly_not_applied() {
    let (_directory, db) = fresh();
    db.begin_write().unwrap();
    db.put(b"key", b"value").unwrap();
    let (error, is_certain) = judge(&db, failure(ffi::SQLITE_BUSY));
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(is_certain && !db.in_transaction());
    assert_eq!(db.get(b"key").unwrap(), None);
}

#[test]
fn a_commit_that_the_disk_failed_is_unknown_and_its_connection_given_up() {
    for code in [
        ffi::SQLITE_FULL,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_NOMEM,
    ] {
        let (_directory, db) = fresh();
        db.begin_write().unwrap();
        let (error, is_certain) = judge(&db, failure(code));
        assert_eq!(error.kind(), StoreErrorKind::MaybeCommitted, "{code}");
        if code == ffi::SQLITE_FULL {
            assert!(error.to_string().contains("free some space"), "{error}");
        }
        assert!(!is_certain);
    }
}

#[test]
fn an_impossible_version_counter_is_corrupt() {
    let (_directory, db) = fresh();
    db.begin_write().unwrap();
    db.set_version(Version(u64::MAX)).unwrap();
    assert_eq!(db.version().unwrap_err().kind(), StoreErrorKind::Corrupt);
    db.set_version(Version((1 << 62) + 1)).unwrap();
    let error = db.version().and_then(Group::new).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

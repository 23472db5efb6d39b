//! The file: where it may lie, how it comes to be whole at once, and how ours is told from others.
//!
//! Nothing here opens the file other than through SQLite: POSIX drops a process's locks on a file
//! as soon as *any* of its descriptors for the file is closed.

use super::super::{StoreError, StoreErrorKind};
use super::db::Db;
use super::error::{refuse, translate, translate_open};
use rusqlite::{Connection, OpenFlags};
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

/// Marks a file as ours in its header, as `file(1)` and SQLite itself see it: "abid".
const APPLICATION_ID: i32 = 0x6162_6964;

/// The layout that this build reads and writes, in the header's user version.
const LAYOUT: i32 = 1;

/// Most rows of a queue or of a state's leaves are far below a quarter of a page, where a
/// `WITHOUT ROWID` table keeps them inline; a commit writes whole pages, so small ones are cheap.
/// Values of 100 kB go to overflow pages, which are read in one piece.
const PAGE_BYTES: i32 = 4096;

/// How long a connection waits for locks that others hold for a moment only: crash recovery, the
/// last closer's checkpoint, the making of a file.
const BRIEF_LOCK_WAIT: Duration = Duration::from_secs(5);

const KV: &str =
    "CREATE TABLE kv(key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID";

/// One row: the version of the newest commit, and random bytes that tell this file from another
/// one put in its place.
const META: &str = "CREATE TABLE meta(one INTEGER NOT NULL PRIMARY KEY CHECK(one = 1), \
                    version INTEGER NOT NULL, identity BLOB NOT NULL) STRICT";

/// A store's file, recognised as ours.
#[derive(Debug)]
pub(super) struct StoreFile {
    /// Absolute, so that connections opened later do not depend on the working directory.
    path: PathBuf,
    identity: Vec<u8>,
    inode: Inode,
}

/// Device and number of a file on unix; elsewhere only that there is one.
type Inode = (u64, u64);

fn inode(path: &Path) -> io::Result<Inode> {
    let found = fs::metadata(path)?;
    #[cfg(unix)]
    let inode = {
        use std::os::unix::fs::MetadataExt;
        (found.dev(), found.ino())
    };
    #[cfg(not(unix))]
    let inode = (0, u64::from(found.is_file()));
    Ok(inode)
}

impl StoreFile {
    /// Opens the store at `path`, making it if there is nothing.
    pub(super) fn open(path: &str) -> Result<Arc<Self>, StoreError> {
        let (path, exists) = locate(path)?;
        if !exists {
            create(&path)?;
        }
        let inode = inode(&path)
            .map_err(|error| refuse(&path, "the path cannot be reached").with_source(error))?;
        let mut connection =
            configure(&path, OpenFlags::empty()).map_err(|error| translate_open(&path, error))?;
        recognise(&path, &mut connection)?;
        let identity = connection
            .query_row("SELECT identity FROM meta", (), |row| row.get(0))
            .map_err(|error| translate_open(&path, error))?;
        let file = Self {
            path,
            identity,
            inode,
        };
        file.check()?;
        Ok(Arc::new(file))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if the path does not lead to the file that was opened: what is committed to that one
    /// then would be lost, and two connections would be to two different stores.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match inode(&self.path) {
            Ok(inode) if inode == self.inode => Ok(()),
            Ok(_) => Err(self.replaced()),
            Err(error) => Err(self.replaced().with_source(error)),
        }
    }

    fn replaced(&self) -> StoreError {
        StoreError::new(StoreErrorKind::Failed).with_context(format!(
            "`{}` was replaced or removed while it was open; open it again",
            self.path.display()
        ))
    }

    /// One more connection.
    pub(super) fn connect(self: &Arc<Self>) -> Result<Db, StoreError> {
        self.check()?;
        // The path is known to be right, so a failure now is about the moment, not the address.
        let connection = configure(&self.path, OpenFlags::empty())
            .map_err(|error| translate(&self.path, "opening", error))?;
        let db = Db::new(connection, Arc::clone(self));
        // Again, since it may have been replaced before SQLite opened it.
        self.check()?;
        // The inode is the same if another file's content was written over it.
        if db.identity()? != self.identity {
            return Err(self.replaced());
        }
        Ok(db)
    }
}

/// Making a store takes milliseconds: a draft of this age has no maker.
const OLD_DRAFT: Duration = Duration::from_secs(600);

/// Where the store is, and whether anything is there. Looks, and touches nothing.
fn locate(path: &str) -> Result<(PathBuf, bool), StoreError> {
    let given = Path::new(path);
    if path.is_empty() {
        return Err(refuse(given, "the path is empty; write `sqlite:PATH`"));
    }
    if path == ":memory:" {
        return Err(refuse(given, "for a store in memory write `memory:`"));
    }
    let name = match given.file_name() {
        Some(name) if !path.ends_with(std::path::is_separator) => name,
        _ => return Err(refuse(given, "this names a directory; name a file in it")),
    };
    let parent = match given.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = parent.canonicalize().map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::NotFound => "its directory does not exist; create the directory first",
            _ => "its directory cannot be reached",
        };
        refuse(given, advice).with_source(error)
    })?;
    let at_directory = look(&directory, given)?;
    if !at_directory.is_some_and(|found| found.is_dir()) {
        return Err(refuse(given, "its directory is not a directory"));
    }
    let file = directory.join(name);
    let Some(found) = look(&file, given)? else {
        return Ok((file, false));
    };
    if found.is_dir() {
        return Err(refuse(given, "this is a directory; name a file in it"));
    }
    if !found.is_file() {
        return Err(refuse(
            given,
            "this is not a regular file; name another one",
        ));
    }
    Ok((file, true))
}

/// What is at `path`, if anything. Refuses what nobody may write to, also to a superuser, whom the
/// system would let through: whoever took the permission away meant it.
fn look(path: &Path, given: &Path) -> Result<Option<fs::Metadata>, StoreError> {
    match fs::metadata(path) {
        Ok(found) if found.permissions().readonly() => {
            let advice = match found.is_dir() {
                true => {
                    "its directory is read-only; make it writable (the store keeps files beside its own)"
                }
                false => "the file is read-only; make it writable or name another one",
            };
            Err(refuse(given, advice))
        }
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refuse(given, "the path cannot be reached").with_source(error)),
    }
}

/// Makes a new store at `path`: complete in a file of another name first, then linked to its own.
///
/// So at any moment, whatever fails or dies, `path` is either absent or a whole store, and of
/// several processes that do this at once, one wins and the others find the winner's.
fn create(path: &Path) -> Result<(), StoreError> {
    refuse_leftovers(path)?;
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{:016x}.new", unique()));
    let draft = path.with_file_name(name);
    let made = write_new(&draft)
        .map_err(|error| translate_open(path, error))
        .and_then(|()| publish(&draft, path));
    remove_old_drafts(&draft, path);
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut leftover = draft.clone().into_os_string();
        leftover.push(suffix);
        // Mostly there is none; and what cannot be removed harms nobody.
        let _ = fs::remove_file(leftover);
    }
    made
}

/// Removes what processes that died while they made a store left beside `path`. Young drafts may be
/// a living rival's, so only those go that are much older than `draft`, by the file system's clock.
fn remove_old_drafts(draft: &Path, path: &Path) {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let Ok(now) = fs::metadata(draft).and_then(|found| found.modified()) else {
        return;
    };
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let prefix = format!(".{}.", name.to_string_lossy());
    for entry in entries.flatten() {
        let found = entry.file_name();
        let found = found.to_string_lossy();
        let is_draft = found
            .strip_prefix(&prefix)
            .and_then(|rest| rest.split_once(".new"))
            .is_some_and(|(number, _)| u64::from_str_radix(number, 16).is_ok());
        let changed = entry.metadata().and_then(|found| found.modified());
        let age = changed
            .ok()
            .and_then(|changed| now.duration_since(changed).ok());
        if is_draft && age.is_some_and(|age| age > OLD_DRAFT) {
            // What cannot be removed harms nobody.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// SQLite would replay the log of a file that is gone into the new one. It is not ours to remove:
/// another process may have made the file meanwhile, which is why `path` is looked at last.
fn refuse_leftovers(path: &Path) -> Result<(), StoreError> {
    for suffix in ["-wal", "-journal"] {
        let mut log = path.as_os_str().to_owned();
        log.push(suffix);
        if fs::symlink_metadata(&log).is_ok() && look(path, path)?.is_none() {
            let advice = format!(
                "`{}` is left over from another file; remove it",
                Path::new(&log).display()
            );
            return Err(refuse(path, &advice));
        }
    }
    Ok(())
}

fn write_new(draft: &Path) -> rusqlite::Result<()> {
    let mut connection = configure(draft, OpenFlags::SQLITE_OPEN_CREATE)?;
    initialise(&mut connection)?;
    connection.close().map_err(|(_, error)| error)
}

fn publish(draft: &Path, path: &Path) -> Result<(), StoreError> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        linked => linked.and_then(|()| sync_directory(path)),
    }
    .map_err(|error| {
        refuse(
            path,
            "the file cannot be put into its directory (hard links are needed); use another one",
        )
        .with_source(error)
    })
}

/// Makes the file's name as durable as its content.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if cfg!(unix) => fs::File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

/// A number that no other process and no other call has: the hasher's keys are random.
fn unique() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

fn configure(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // A connection is used by one thread at a time, so SQLite's own mutexes are not needed.
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BRIEF_LOCK_WAIT)?;
    connection.set_prepared_statement_cache_capacity(32);
    // Not `mmap_size`: an I/O error on a mapped page kills the process.
    // The caches are small, because any commit of another connection empties them; the pages are
    // in the system's cache anyway.
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON; \
         PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY; \
         PRAGMA cache_size = -1024;",
    )?;
    Ok(connection)
}

/// What a file's header and schema say about it.
enum Found {
    Nothing,
    Ours,
    Newer(i32),
    Foreign,
    Damaged,
}

/// Makes sure that the file is ours, and a whole one. An empty file counts as a new store.
fn recognise(path: &Path, connection: &mut Connection) -> Result<(), StoreError> {
    let opened = |error| translate_open(path, error);
    if connection.is_readonly("main").map_err(opened)? {
        return Err(refuse(path, "the file is read-only; make it writable"));
    }
    if let Found::Nothing = examine(connection).map_err(opened)? {
        initialise(connection).map_err(opened)?;
    }
    match examine(connection).map_err(opened)? {
        Found::Ours => {}
        Found::Nothing | Found::Foreign => {
            return Err(refuse(
                path,
                "this SQLite database belongs to another application; name another file",
            ));
        }
        Found::Newer(layout) => {
            return Err(refuse(
                path,
                &format!(
                    "its layout is {layout}, written by a newer version; this one reads up to \
                     {LAYOUT}: upgrade"
                ),
            ));
        }
        Found::Damaged => {
            return Err(refuse(
                path,
                "its tables are not those of a store; restore a backup",
            ));
        }
    }
    use_wal(connection).map_err(opened)
}

fn examine(connection: &Connection) -> rusqlite::Result<Found> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, layout) = (pragma("application_id")?, pragma("user_version")?);
    let tables: Vec<Option<String>> = connection
        .prepare("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name")?
        .query_map((), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(match (application, layout) {
        (0, 0) if tables.is_empty() => Found::Nothing,
        (APPLICATION_ID, newer) if newer > LAYOUT => Found::Newer(newer),
        // Word for word: a trigger or a view would run in our statements.
        (APPLICATION_ID, LAYOUT) if tables == [Some(KV.to_owned()), Some(META.to_owned())] => {
            Found::Ours
        }
        (APPLICATION_ID, _) => Found::Damaged,
        _ => Found::Foreign,
    })
}

/// Turns an empty database into a store, in one transaction.
fn initialise(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Another process may have done it since we looked.
    if let Found::Nothing = examine(&transaction)? {
        transaction.execute_batch(&format!(
            "{KV}; {META}; INSERT INTO meta VALUES(1, 0, randomblob(16)); \
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {LAYOUT};"
        ))?;
    }
    transaction.commit()?;
    use_wal(connection)
}

fn use_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    match mode.as_str() {
        "wal" => Ok(()),
        other => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(format!(
                "the file system does not support a write-ahead log (journal mode {other})"
            )),
        )),
    }
}

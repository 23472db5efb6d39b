//! Where an export goes.
//!
//! A file has its name only once it is whole; until then it is `NAME.part`. One that an interrupted
//! export has left is gone through, cut behind what is whole, and gone on with.

use super::lines::Lines;
use crate::Failure;
use crate::mailbox::plural;
use abide::admin::{Export, Record};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The standard output, or a file.
pub(super) struct Target {
    out: BufWriter<Box<dyn Write>>,
    file: Option<Part>,
}

/// A file that is not whole yet.
struct Part {
    /// Also holds the lock that keeps other exports from it.
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl Target {
    pub(super) fn open(path: Option<&Path>, export: &mut Export<'_>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self {
                out: BufWriter::new(Box::new(io::stdout())),
                file: None,
            });
        };
        if path.exists() {
            return Err(Failure::refused(format!(
                "refused: {path:?} is there already"
            )));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let failed = |error: io::Error| Failure::refused(format!("{part:?}: {error}"));
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&part).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::refused(format!(
                    "refused: another export writes {part:?}"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let whole = resume(&file, &part, export)?;
        file.set_len(whole).map_err(failed)?;
        file.seek(SeekFrom::Start(whole)).map_err(failed)?;
        let out = file.try_clone().map_err(failed)?;
        Ok(Self {
            out: BufWriter::new(Box::new(out)),
            file: Some(Part {
                file,
                part,
                path: path.to_owned(),
            }),
        })
    }

    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        let Some(Part { file, part, path }) = self.file else {
            return Ok(());
        };
        file.sync_all()?;
        std::fs::rename(part, path)
    }
}

/// Goes through what an interrupted export has written, and says how much of it is whole.
fn resume(file: &File, part: &Path, export: &mut Export<'_>) -> Result<u64, Failure> {
    let mut lines = Lines::new(file);
    let (mut whole, mut read) = (0, 0);
    // What cannot be read is not whole.
    while let Ok(Some(line)) = lines.next() {
        read += line.bytes;
        // The last line may be cut off.
        let Some(text) = line.ended else { break };
        let Ok(record) = Record::from_line(text) else {
            break;
        };
        let is_whole = export.written(&record).map_err(|error| {
            let error = crate::failure::chain(&error);
            Failure::refused(format!("{part:?}: {error}; remove it to begin anew"))
        })?;
        if is_whole {
            whole = read;
        }
    }
    if whole > 0 {
        let records = plural(export.records(), "record");
        writeln!(io::stderr(), "going on with {part:?}: {records} are there")?;
    }
    Ok(whole)
}

//! `export` and `import`.

use crate::args::{self, Export, Import};
use crate::json::Object;
use crate::mailbox::plural;
use crate::output::clean;
use crate::{Failure, Session};
use abide::admin::{ImportOptions, MAX_LINE_BYTES, Record, Scope};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) async fn export(session: &mut Session, args: Export) -> Result<(), Failure> {
    let scope = match (args.kind, args.id) {
        (Some(kind), Some(id)) => Scope::Instance(args::instance(&kind, &id)?),
        (Some(kind), None) => Scope::Kind(kind),
        _ => Scope::Namespace,
    };
    let mut target = Target::open(args.output.as_deref())?;
    let bar = spinner();
    let mut export = session.admin.export(scope);
    let mut shown = 0;
    while let Some(records) = export.next().await? {
        for record in records {
            target.line(&record.to_line()?)?;
        }
        bar.set_position(export.records());
        for damage in export.damaged().iter().skip(shown) {
            // The stream is on the standard output, so this is not, in any form.
            bar.suspend(|| writeln!(io::stderr(), "damaged: {}", clean(&damage.to_string())))?;
        }
        shown = export.damaged().len();
    }
    target.finish()?;
    bar.finish_and_clear();
    writeln!(
        io::stderr(),
        "exported {}",
        plural(export.records(), "record")
    )?;
    match shown {
        0 => Ok(()),
        _ => Err(Failure::refused(format!(
            "{} could not be read and {} not in the export",
            plural(u64::try_from(shown).unwrap_or(u64::MAX), "thing"),
            if shown == 1 { "is" } else { "are" },
        ))),
    }
}

/// Where an export goes. A file has its name only once it is whole.
struct Target {
    out: Box<dyn Write>,
    file: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self {
                out: Box::new(BufWriter::new(io::stdout())),
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
        Ok(Self {
            out: Box::new(BufWriter::new(File::create(&part)?)),
            file: Some((part, path.to_owned())),
        })
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")
    }

    fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        let Some((part, path)) = self.file else {
            return Ok(());
        };
        File::open(&part)?.sync_all()?;
        std::fs::rename(part, path)
    }
}

pub(crate) async fn import(session: &mut Session, args: Import) -> Result<(), Failure> {
    let (input, bar): (Box<dyn Read + Send>, ProgressBar) = match &args.file {
        Some(path) => {
            let file =
                File::open(path).map_err(|error| Failure::refused(format!("{path:?}: {error}")))?;
            let length = file.metadata()?.len();
            (
                Box::new(file),
                ProgressBar::new(length).with_style(style("{bytes}/{total_bytes} {bar:40} {eta}")),
            )
        }
        None => (Box::new(io::stdin()), spinner()),
    };
    let mut input = BufReader::new(input);
    let mut import = session.admin.import(ImportOptions {
        into_non_empty: args.into_non_empty,
    });
    let mut line = Vec::new();
    let mut number = 0_u64;
    loop {
        line.clear();
        let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX) + 2;
        let read = (&mut input).take(most).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        number += 1;
        let text = std::str::from_utf8(&line)
            .map_err(|_| Failure::refused(format!("line {number} is no text")))?;
        let record = Record::from_line(text)
            .map_err(|error| Failure::refused(format!("line {number} is no record: {error}")))?;
        import.push(record).await?;
        match args.file {
            Some(_) => bar.inc(u64::try_from(read).unwrap_or(u64::MAX)),
            None => bar.inc(1),
        }
    }
    let done = import.finish().await?;
    bar.finish_and_clear();
    let object = Object::of("imported")
        .plain("records", done.records)
        .plain("resumed", done.resumed)
        .plain("instances", done.instances)
        .plain("messages", done.messages);
    let mut line = format!(
        "imported {}: {}, {}",
        plural(done.records, "record"),
        plural(done.instances, "instance"),
        plural(done.messages, "message"),
    );
    if done.resumed > 0 {
        line += &format!(
            "; {} were there from a run before",
            plural(done.resumed, "record")
        );
    }
    Ok(session.out.either(&line, object)?)
}

/// Counts records of which nobody knows how many there will be. Shown on a terminal only.
fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_style(style("{spinner} {pos} records, {elapsed}"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

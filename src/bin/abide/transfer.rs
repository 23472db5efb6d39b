//! `export` and `import`.

mod abandon;
mod lines;
mod target;

use crate::args::{self, Export, Import};
use crate::failure::chain;
use crate::json::Object;
use crate::mailbox::plural;
use crate::output::damage_line;
use crate::{Failure, Session};
use abide::admin::{AdminError, AdminErrorKind, ImportOptions, Record, Scope};
use indicatif::{ProgressBar, ProgressStyle};
use lines::Lines;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;
use target::Target;

pub(crate) async fn export(session: &mut Session, args: Export) -> Result<(), Failure> {
    let scope = match (args.kind, args.id) {
        (Some(kind), Some(id)) => {
            let instance = args::instance(&kind, &id)?;
            // Before a file or a stream is begun for nothing.
            session.admin.instance(&instance).await?;
            Scope::Instance(instance)
        }
        (Some(kind), None) => Scope::Kind(kind),
        _ => Scope::Namespace,
    };
    let mut export = session.admin.export(scope);
    let mut target = Target::open(args.output.as_deref(), &mut export)?;
    let bar = spinner();
    let mut unread = 0;
    while let Some(records) = export.next().await? {
        for record in records {
            target.line(&record.to_line()?)?;
        }
        bar.set_position(export.records());
        for damage in export.take_damaged() {
            // The stream is on the standard output, so this is not, in any form.
            bar.suspend(|| writeln!(io::stderr(), "{}", damage_line(&damage)))?;
            unread += 1;
        }
    }
    target.finish()?;
    bar.finish_and_clear();
    writeln!(
        io::stderr(),
        "exported {}",
        plural(export.records(), "record")
    )?;
    match unread {
        0 => Ok(()),
        _ => Err(Failure::refused(format!(
            "{} could not be read and {} not in the export",
            plural(unread, "thing"),
            if unread == 1 { "is" } else { "are" },
        ))),
    }
}

/// Looks whether there is anything to import, before a store is created for it.
pub(crate) fn check(args: &Import) -> Result<(), Failure> {
    let Some(path) = &args.file else {
        return Ok(());
    };
    File::open(path).map_err(|error| unreadable(args, &error))?;
    match path.is_dir() {
        true => Err(Failure::refused(format!("{path:?}: it is a directory"))),
        false => Ok(()),
    }
}

pub(crate) async fn import(session: &mut Session, args: Import) -> Result<(), Failure> {
    if args.abandon {
        return abandon::run(session, args.sure()).await;
    }
    let (input, bar): (Box<dyn Read + Send>, ProgressBar) = match &args.file {
        Some(path) => {
            let file = File::open(path).map_err(|error| unreadable(&args, &error))?;
            let length = file.metadata()?.len();
            (
                Box::new(file),
                ProgressBar::new(length).with_style(style("{bytes}/{total_bytes} {bar:40} {eta}")),
            )
        }
        None => (Box::new(io::stdin()), spinner()),
    };
    let mut lines = Lines::new(input);
    let mut import = session.admin.import(ImportOptions {
        into_non_empty: args.into_non_empty,
    });
    let mut number = 0_u64;
    while let Some(line) = lines.next().map_err(|error| unreadable(&args, &error))? {
        number += 1;
        let text = line
            .text
            .ok_or_else(|| Failure::refused(format!("line {number} is no text")))?;
        let record = Record::from_line(text).map_err(|error| {
            let error = chain(&error);
            Failure::refused(format!("line {number} is no record: {error}"))
        })?;
        let bytes = line.bytes;
        import
            .push(record)
            .await
            .map_err(|error| refused(&error, &format!("line {number}: ")))?;
        bar.inc(if args.file.is_some() { bytes } else { 1 });
    }
    let done = import.finish().await.map_err(|error| refused(&error, ""))?;
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

/// A stream that does not fit is refused: the command itself was understood.
fn refused(error: &AdminError, place: &str) -> Failure {
    match error.kind() {
        AdminErrorKind::Invalid => Failure::refused(format!("{place}{}", chain(error))),
        _ => error.clone().into(),
    }
}

/// The file, or whatever stands in its place, cannot be read.
fn unreadable(args: &Import, error: &io::Error) -> Failure {
    match &args.file {
        Some(path) => Failure::refused(format!("{path:?}: {error}")),
        None => Failure::refused(format!("the standard input: {error}")),
    }
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

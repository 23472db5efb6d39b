//! `import --abandon`.

use crate::args::Sure;
use crate::confirm::confirm;
use crate::json::Object;
use crate::mailbox::plural;
use crate::output::{clean, damage_line};
use crate::{Failure, Session};
use abide::admin::UnfinishedImport;

pub(super) async fn run(session: &mut Session, sure: Sure) -> Result<(), Failure> {
    let Some(found) = session.admin.unfinished_import().await? else {
        return Err(Failure::refused("not found: no import is unfinished"));
    };
    if sure.dry_run {
        return report(session, &found, true);
    }
    let mut plan: Vec<String> = found
        .progress
        .as_ref()
        .err()
        .map(damage_line)
        .into_iter()
        .collect();
    plan.push(line(&found, true));
    confirm(sure, &plan)?;
    session.admin.abandon_import(&found).await?;
    report(session, &found, false)
}

fn line(found: &UnfinishedImport, dry_run: bool) -> String {
    let verb = if dry_run { "would be" } else { "is" };
    let Ok(progress) = &found.progress else {
        return format!("an import of which nothing can be read {verb} abandoned");
    };
    let records = plural(progress.records, "record");
    let mut line = format!(
        "the import of {} {verb} abandoned; {records} of it were taken",
        progress.id
    );
    if let Some(instance) = &progress.within {
        line += &format!(", and {instance}, which is there in part, stays paused: kill it");
    }
    clean(&line)
}

fn report(session: &mut Session, found: &UnfinishedImport, dry_run: bool) -> Result<(), Failure> {
    let progress = found.progress.as_ref().ok();
    let within = progress.and_then(|of| of.within.as_ref());
    let object = Object::of("abandoned")
        .maybe_text("import", progress.map(|of| &of.id))
        .maybe("records", progress.map(|of| of.records))
        .maybe_text("kind", within.map(|of| of.kind()))
        .maybe_text("id", within.map(|of| of.id()))
        .plain("dry_run", dry_run);
    if let Err(damage) = &found.progress {
        session.out.damaged(std::slice::from_ref(damage))?;
    }
    Ok(session.out.either(&line(found, dry_run), object)?)
}

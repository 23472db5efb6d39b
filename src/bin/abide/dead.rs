//! `dead ls`, `dead show`, `dead retry` and `dead purge`.

use crate::args::{self, Dead, Disposal, Letters};
use crate::confirm::confirm;
use crate::json::Object;
use crate::mailbox::plural;
use crate::output::{Table, age, clean, damage_line};
use crate::{Failure, Session, views};
use abide::admin::{DeadFilter, DeadLetterView, DeadReport};

/// How many letters are read at once.
const PAGE: usize = 200;

pub(crate) async fn run(session: &mut Session, command: Dead) -> Result<(), Failure> {
    match command {
        Dead::Ls(letters) => ls(session, letters).await,
        Dead::Show { named, stamp } => {
            let letter = session.admin.dead_letter(&named.instance()?, stamp).await?;
            show(session, &letter)
        }
        Dead::Retry(disposal) => dispose(session, disposal, true).await,
        Dead::Purge(disposal) => dispose(session, disposal, false).await,
    }
}

fn filter(session: &Session, letters: Letters) -> Result<DeadFilter, Failure> {
    let instance = match (&letters.kind, &letters.id) {
        (Some(kind), Some(id)) => Some(args::instance(kind, id)?),
        _ => None,
    };
    let before = letters.older_than.map(|age| {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        session.admin.now_ms().saturating_sub(age)
    });
    Ok(DeadFilter {
        kind: letters.kind.filter(|_| instance.is_none()),
        instance,
        stamp: letters.stamp,
        dead_before_ms: before,
    })
}

async fn ls(session: &mut Session, letters: Letters) -> Result<(), Failure> {
    let filter = filter(session, letters)?;
    let mut table = Table::new([
        "KIND", "ID", "STAMP", "DEAD", "ATTEMPTS", "MESSAGE", "ERROR",
    ]);
    let mut cursor = None;
    loop {
        let read = session.admin.dead_letters(&filter, cursor.as_ref(), PAGE);
        let page = read.await?;
        let now = session.admin.now_ms();
        if session.out.is_json() {
            for letter in &page.items {
                session.out.object(views::letter(letter))?;
            }
            session.out.flush()?;
        } else {
            let rows: Vec<_> = page.items.iter().map(|of| row(of, now)).collect();
            table.page(&mut session.out, &rows)?;
            let damaged = page.items.iter().filter_map(|of| of.letter.as_ref().err());
            for damage in damaged {
                session.out.damaged(std::slice::from_ref(damage))?;
            }
        }
        session.out.damaged(&page.damaged)?;
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

fn row(view: &DeadLetterView, now: u64) -> [String; 7] {
    let (kind, id) = (
        view.instance.kind().to_owned(),
        view.instance.id().to_owned(),
    );
    let stamp = view.stamp.to_string();
    match &view.letter {
        Ok(letter) => [
            kind,
            id,
            stamp,
            age(now, letter.dead_ms),
            letter.attempts.to_string(),
            letter.message.name.clone(),
            letter.error.clone(),
        ],
        // What is wrong is reported beside the table.
        Err(_) => {
            let dash = || "-".to_owned();
            let what = "(damaged)".to_owned();
            [kind, id, stamp, dash(), dash(), dash(), what]
        }
    }
}

fn show(session: &mut Session, view: &DeadLetterView) -> Result<(), Failure> {
    if session.out.is_json() {
        return Ok(session.out.object(views::letter(view))?);
    }
    let now = session.admin.now_ms();
    let mut lines = vec![
        ("instance", view.instance.to_string()),
        ("stamp", view.stamp.to_string()),
    ];
    match &view.letter {
        Ok(letter) => {
            let message = &letter.message;
            lines.extend([
                (
                    "message",
                    format!("{} ({})", message.name, views::mode(message)),
                ),
                ("mailbox", views::lane(letter.lane).to_owned()),
                ("sent", format!("{} ago", age(now, message.sent_ms))),
                (
                    "first failed",
                    format!("{} ago", age(now, letter.first_failed_ms)),
                ),
                ("given up", format!("{} ago", age(now, letter.dead_ms))),
                ("attempts", letter.attempts.to_string()),
                ("error", letter.error.clone()),
                ("payload", views::payload(message)),
            ]);
        }
        Err(damage) => lines.push(("damaged", damage.to_string())),
    }
    for (name, value) in lines {
        session.out.line(&format!("{name:13} {}", clean(&value)))?;
    }
    Ok(())
}

async fn dispose(session: &mut Session, args: Disposal, retry: bool) -> Result<(), Failure> {
    let named = args.letters.stamp.is_some();
    let filter = filter(session, args.letters)?;
    let mut agreed = None;
    if !args.sure.yes {
        let planned = carry_out(session, &filter, retry, true).await?;
        is_found(named, &planned)?;
        if args.sure.dry_run {
            return report(session, &planned, retry, true);
        }
        if planned.letters == 0 {
            // There is nothing to be asked about.
            return report(session, &planned, retry, false);
        }
        let mut plan: Vec<String> = planned.shown.iter().map(shown).collect();
        plan.extend(planned.damaged.iter().map(damage_line));
        plan.push(summary(&planned, retry, true));
        confirm(args.sure, &plan)?;
        agreed = Some(planned);
    }
    let admin = &session.admin;
    let done = match (agreed, retry) {
        (Some(planned), true) => admin.retry_dead_planned(&filter, &planned).await?,
        (Some(planned), false) => admin.purge_dead_planned(&filter, &planned).await?,
        (None, _) => carry_out(session, &filter, retry, false).await?,
    };
    is_found(named, &done)?;
    report(session, &done, retry, false)
}

/// A letter that was named by its stamp is to be there.
fn is_found(named: bool, report: &DeadReport) -> Result<(), Failure> {
    match named && report.letters + report.unreadable == 0 {
        true => Err(Failure::refused("not found: there is no such dead letter")),
        false => Ok(()),
    }
}

async fn carry_out(
    session: &Session,
    filter: &DeadFilter,
    retry: bool,
    dry_run: bool,
) -> Result<DeadReport, Failure> {
    Ok(match retry {
        true => session.admin.retry_dead(filter, dry_run).await?,
        false => session.admin.purge_dead(filter, dry_run).await?,
    })
}

fn shown(view: &DeadLetterView) -> String {
    let what = match &view.letter {
        Ok(letter) => format!("{} {}", letter.message.name, letter.error),
        Err(damage) => format!("damaged: {damage}"),
    };
    let line = format!("{} {} {what}", view.instance, view.stamp);
    format!("  {}", clean(&line))
}

fn summary(report: &DeadReport, retry: bool, dry_run: bool) -> String {
    let verb = match (dry_run, retry) {
        (true, true) => "would be put back",
        (true, false) => "would be deleted",
        (false, true) => "put back",
        (false, false) => "deleted",
    };
    let mut text = format!("{} {verb}", plural(report.letters, "dead letter"));
    if report.unreadable > 0 {
        text += &format!("; {} cannot be read and stay", report.unreadable);
    }
    text
}

fn report(
    session: &mut Session,
    report: &DeadReport,
    retry: bool,
    dry_run: bool,
) -> Result<(), Failure> {
    if session.out.is_json() {
        for view in &report.shown {
            session.out.object(views::letter(view))?;
        }
        let object = Object::of(if retry { "retried" } else { "purged_dead" })
            .plain("letters", report.letters)
            .plain("unreadable", report.unreadable)
            .plain("dry_run", dry_run);
        session.out.damaged(&report.damaged)?;
        return Ok(session.out.object(object)?);
    }
    for view in &report.shown {
        session.out.line(&shown(view))?;
    }
    session.out.damaged(&report.damaged)?;
    Ok(session.out.line(&summary(report, retry, dry_run))?)
}

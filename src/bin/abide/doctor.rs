//! `doctor`.

use crate::args::Doctor;
use crate::failure::chain;
use crate::json::Object;
use crate::mailbox::plural;
use crate::output::{Output, clean};
use crate::{Failure, Session, views};
use abide::admin::{Admin, AdminErrorKind, Finding};
use abide::store::Database;
use std::io::{self, Write};

/// The doctor's last word on a namespace that cannot even be opened: why, or what the store says.
pub(crate) async fn of_unopened(
    database: &Database,
    namespace: &str,
    out: &mut Output,
) -> Result<(), Failure> {
    let Some(finding) = Admin::diagnose(database, namespace).await? else {
        return Ok(());
    };
    print(out, &finding, false, None)?;
    summarize(out, 1, 0)?;
    out.flush()?;
    Err(Failure::silent())
}

pub(crate) async fn run(session: &mut Session, args: Doctor) -> Result<(), Failure> {
    let (mut findings, mut fixed) = (0_u64, 0_u64);
    let mut cursor = None;
    loop {
        let page = session.admin.doctor(cursor.as_ref()).await?;
        for finding in &page.items {
            findings += 1;
            let refused = match args.fix && finding.is_fixable() {
                // False means that somebody else has mended it meanwhile.
                true => session.admin.fix(finding).await.map(drop).err(),
                false => None,
            };
            let mended = args.fix && finding.is_fixable() && refused.is_none();
            fixed += u64::from(mended);
            let not_fixed = refused.as_ref().map(|error| chain(error));
            print(&mut session.out, finding, mended, not_fixed.as_deref())?;
            // Other damage is in the way. The rest is looked at all the same.
            match (refused, not_fixed) {
                (Some(error), _) if !is_about_data(error.kind()) => return Err(error.into()),
                (_, Some(why)) if !session.out.is_json() => {
                    session.out.flush()?;
                    let text = format!("not fixed: {why}");
                    writeln!(io::stderr(), "{}", clean(&text))?;
                }
                _ => {}
            }
        }
        session.out.flush()?;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    summarize(&mut session.out, findings, fixed)?;
    match findings > fixed {
        true => Err(Failure::silent()),
        false => Ok(()),
    }
}

fn summarize(out: &mut Output, findings: u64, fixed: u64) -> Result<(), Failure> {
    let line = match findings {
        0 => "nothing is wrong".to_owned(),
        _ => format!("{}, {fixed} fixed", plural(findings, "finding")),
    };
    let object = Object::of("doctor")
        .plain("findings", findings)
        .plain("fixed", fixed);
    Ok(out.either(&line, object)?)
}

/// Whether an error is about what is stored, and not about the store.
fn is_about_data(kind: AdminErrorKind) -> bool {
    matches!(kind, AdminErrorKind::Refused | AdminErrorKind::Corrupt)
}

fn print(
    out: &mut Output,
    finding: &Finding,
    fixed: bool,
    not_fixed: Option<&str>,
) -> Result<(), Failure> {
    let instance = finding.instance.as_ref();
    let object = Object::of("finding")
        .text("code", finding.code.name())
        .text("key", &views::key(&finding.key))
        .maybe_text("kind", instance.map(|of| of.kind()))
        .maybe_text("id", instance.map(|of| of.id()))
        .text("explanation", &finding.explanation)
        .plain("fixable", finding.is_fixable())
        .plain("fixed", fixed)
        .maybe_text("not_fixed", not_fixed);
    let remark = match (fixed, finding.is_fixable()) {
        (true, _) => " [fixed]",
        (false, true) => " [--fix mends it]",
        (false, false) => "",
    };
    let of = instance.map(|of| format!(" {of}")).unwrap_or_default();
    let (code, key) = (finding.code.name(), views::key(&finding.key));
    let line = format!("{code}{of}: {}{remark}\n  key {key}", finding.explanation);
    let line: Vec<String> = line.lines().map(clean).collect();
    Ok(out.either(&line.join("\n"), object)?)
}

//! `pause`, `resume`, `kill` and `reset`.

use crate::args::{self, Doomed, Pause, Switch};
use crate::confirm::confirm;
use crate::json::Object;
use crate::mailbox::plural;
use crate::output::clean;
use crate::{Failure, Session, views};
use abide::InstanceId;

/// What a switch is about: an instance, or a kind.
fn target(of: &Switch) -> Result<Option<InstanceId>, Failure> {
    let id = of.id.as_deref();
    id.map(|id| args::instance(&of.kind, id)).transpose()
}

fn object(what: &str, of: &Switch) -> Object {
    Object::of(what)
        .text("kind", &of.kind)
        .maybe_text("id", of.id.as_ref())
}

fn name(of: &Switch) -> String {
    clean(&match &of.id {
        Some(id) => format!("{}/{id}", of.kind),
        None => format!("the kind {}", of.kind),
    })
}

pub(crate) async fn pause(session: &mut Session, args: Pause) -> Result<(), Failure> {
    let (of, reason) = (&args.of, &args.reason);
    match target(of)? {
        Some(instance) => session.admin.pause(&instance, reason).await?,
        None => session.admin.pause_kind(&of.kind, reason).await?,
    }
    let line = format!("{}: paused", name(&args.of));
    let object = object("paused", &args.of).text("reason", &args.reason);
    Ok(session.out.either(&line, object)?)
}

pub(crate) async fn resume(session: &mut Session, of: Switch) -> Result<(), Failure> {
    let was_paused = match target(&of)? {
        Some(instance) => session.admin.resume(&instance).await?,
        None => session.admin.resume_kind(&of.kind).await?,
    };
    if !was_paused {
        return Err(Failure::refused(format!(
            "not found: {} is not paused",
            name(&of)
        )));
    }
    let line = format!("{}: resumed", name(&of));
    Ok(session.out.either(&line, object("resumed", &of))?)
}

pub(crate) async fn kill(session: &mut Session, args: Doomed) -> Result<(), Failure> {
    end(session, args, true).await
}

pub(crate) async fn reset(session: &mut Session, args: Doomed) -> Result<(), Failure> {
    end(session, args, false).await
}

async fn end(session: &mut Session, args: Doomed, whole: bool) -> Result<(), Failure> {
    let instance = args.named.instance()?;
    let summary = session.admin.instance(&instance).await?;
    let mut parts = Vec::new();
    if summary.schema.is_some() {
        parts.push("the state".to_owned());
    }
    if whole {
        parts.push(plural(summary.length, "message"));
        parts.extend(summary.lock.is_some().then(|| "the lock".to_owned()));
        let more = if summary.dead_letters.more {
            " or more"
        } else {
            ""
        };
        parts.push(plural(summary.dead_letters.count, "dead letter") + more);
    }
    let what = match parts.is_empty() {
        true => "nothing".to_owned(),
        false => parts.join(", "),
    };
    let named = clean(&instance.to_string());
    let dry_run = args.sure.dry_run;
    if !dry_run {
        confirm(args.sure, &[format!("{named}: {what} would be removed")])?;
        match whole {
            true => session.admin.kill(&instance).await?,
            false => session.admin.reset(&instance).await?,
        }
    }
    let verb = if dry_run {
        "would be removed"
    } else {
        "removed"
    };
    let object = views::of(if whole { "killed" } else { "reset" }, &instance)
        .plain("state", summary.schema.is_some())
        .plain("messages", if whole { summary.length } else { 0 })
        .plain("lock", whole && summary.lock.is_some())
        .plain(
            "dead_letters",
            if whole { summary.dead_letters.count } else { 0 },
        )
        .plain("dry_run", dry_run);
    Ok(session
        .out
        .either(&format!("{named}: {what} {verb}"), object)?)
}

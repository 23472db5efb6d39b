//! `lock show` and `lock break`.

use crate::args::{Break, Lock, Named};
use crate::confirm::confirm;
use crate::output::{age, clean};
use crate::{Failure, Session, views};
use abide::InstanceId;
use abide::admin::{Broken, LockView, Then};

pub(crate) async fn run(session: &mut Session, command: Lock) -> Result<(), Failure> {
    match command {
        Lock::Show(named) => show(session, &named).await,
        Lock::Break(args) => end(session, &args).await,
    }
}

async fn show(session: &mut Session, named: &Named) -> Result<(), Failure> {
    let instance = named.instance()?;
    let Some(held) = session.admin.lock(&instance).await? else {
        return Err(Failure::refused(format!(
            "not found: {instance} is not locked"
        )));
    };
    if session.out.is_json() {
        let object = views::lock(views::of("lock", &instance), &held);
        return Ok(session.out.object(object)?);
    }
    for line in lines(&instance, &held, session.admin.now_ms()) {
        session.out.line(&line)?;
    }
    Ok(())
}

pub(crate) fn lines(instance: &InstanceId, held: &LockView, now: u64) -> Vec<String> {
    let holder = match held.session {
        Some(holder) => format!("session {holder}"),
        None => "nobody: it was given up, and the next node takes it over".to_owned(),
    };
    let message = match &held.message {
        Some(Ok(message)) => format!("{} {}", message.name, views::payload(message)),
        Some(Err(damage)) => format!("damaged: {damage}"),
        None => "unknown".to_owned(),
    };
    let error = match held.error.is_empty() {
        true => "-".to_owned(),
        false => held.error.clone(),
    };
    let lines = [
        ("instance", instance.to_string()),
        ("holder", holder),
        ("taken", format!("{} ago", age(now, held.taken_ms))),
        ("renewals", held.nonce.to_string()),
        ("attempts", held.attempts.to_string()),
        ("error", error),
        ("message", message),
    ];
    let lines = lines.into_iter();
    lines
        .map(|(name, value)| format!("{name:13} {}", clean(&value)))
        .collect()
}

async fn end(session: &mut Session, args: &Break) -> Result<(), Failure> {
    let instance = args.named.instance()?;
    let then = match (args.then.retry, args.then.dead) {
        (true, _) => Then::Retry,
        (false, true) => Then::DeadLetter,
        (false, false) => Then::Discard,
    };
    let mut agreed = None;
    if !args.sure.yes {
        let planned = session.admin.break_lock(&instance, then, true).await?;
        if args.sure.dry_run {
            return report(session, &instance, &planned, then, true);
        }
        let mut plan = match &planned.lock {
            Some(held) => lines(&instance, held, session.admin.now_ms()),
            None => Vec::new(),
        };
        plan.push(summary(&instance, then, true));
        confirm(args.sure, &plan)?;
        agreed = Some(planned);
    }
    let admin = &session.admin;
    let broken = match agreed {
        Some(planned) => admin.break_lock_planned(&instance, then, &planned).await?,
        None => admin.break_lock(&instance, then, false).await?,
    };
    report(session, &instance, &broken, then, false)
}

fn summary(instance: &InstanceId, then: Then, dry_run: bool) -> String {
    let verb = if dry_run { "would be" } else { "is" };
    let fate = match then {
        Then::Retry => "back in the mailbox",
        Then::DeadLetter => "a dead letter",
        Then::Discard => "deleted",
    };
    let instance = clean(&instance.to_string());
    format!("{instance}: the lock {verb} broken, its message {verb} {fate}")
}

fn report(
    session: &mut Session,
    instance: &InstanceId,
    broken: &Broken,
    then: Then,
    dry_run: bool,
) -> Result<(), Failure> {
    let then_name = match then {
        Then::Retry => "retry",
        Then::DeadLetter => "dead",
        Then::Discard => "discard",
    };
    let held = broken.lock.as_ref();
    let object = views::of("broken", instance)
        .text("then", then_name)
        .plain("dry_run", dry_run)
        .object(
            "lock",
            held.map(|held| views::lock(crate::json::Object::new(), held)),
        );
    let line = summary(instance, then, dry_run);
    Ok(session.out.either(&line, object)?)
}

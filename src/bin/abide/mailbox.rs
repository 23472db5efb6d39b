//! `mailbox` and `purge`.

use crate::args::{Named, Purge as Args};
use crate::confirm::confirm;
use crate::output::{Table, age, clean, damage_line};
use crate::{Failure, Session, views};
use abide::InstanceId;
use abide::admin::{Damage, Purge, Purged, QueuedView, Selection};
use abide::durable::keys::Lane;

/// How many messages are read at once.
const PAGE: usize = 200;

pub(crate) async fn peek(session: &mut Session, named: Named) -> Result<(), Failure> {
    let instance = named.instance()?;
    // An instance that is not there is told from an empty mailbox.
    session.admin.instance(&instance).await?;
    let mut table = Table::new([
        "STAMP", "AGE", "LANE", "MODE", "MESSAGE", "SENDER", "PAYLOAD",
    ]);
    for lane in [Lane::Priority, Lane::Ordinary] {
        let mut cursor = None;
        loop {
            let read = session
                .admin
                .mailbox(&instance, lane, cursor.as_ref(), PAGE);
            let page = read.await?;
            let now = session.admin.now_ms();
            if session.out.is_json() {
                for queued in &page.items {
                    session.out.object(views::queued(&instance, queued))?;
                }
                session.out.flush()?;
            } else {
                let rows: Vec<_> = page.items.iter().map(|of| row(of, now)).collect();
                table.page(&mut session.out, &rows)?;
                let damaged = page.items.iter().filter_map(|of| of.message.as_ref().err());
                for damage in damaged {
                    session.out.damaged(std::slice::from_ref(damage))?;
                }
            }
            session.out.damaged(&page.damaged)?;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(())
}

fn row(queued: &QueuedView, now: u64) -> [String; 7] {
    let (stamp, lane) = (
        queued.stamp.to_string(),
        views::lane(queued.lane).to_owned(),
    );
    match &queued.message {
        Ok(message) => [
            stamp,
            age(now, message.sent_ms),
            lane,
            views::mode(message).to_owned(),
            message.name.clone(),
            message
                .sender
                .map_or_else(|| "-".to_owned(), |of| of.to_string()),
            views::payload(message),
        ],
        // What is wrong is reported beside the table.
        Err(_) => {
            let dash = || "-".to_owned();
            let what = "(damaged)".to_owned();
            [stamp, dash(), lane, dash(), dash(), dash(), what]
        }
    }
}

pub(crate) async fn purge(session: &mut Session, args: Args) -> Result<(), Failure> {
    let instance = args.named.instance()?;
    let now = session.admin.now_ms();
    let which = &args.which;
    let selection = match (which.stamp, which.head, which.older_than) {
        (Some(stamp), _, _) => Selection::Stamp(stamp),
        (None, true, _) => Selection::Head,
        (None, false, Some(age)) => {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Selection::SentBefore(now.saturating_sub(age))
        }
        (None, false, None) => Selection::All,
    };
    let mut purge = Purge {
        to_dead: args.to_dead,
        dry_run: true,
        ..Purge::new(selection)
    };
    let mut agreed = None;
    if !args.sure.yes {
        let planned = session.admin.purge(&instance, &purge).await?;
        if args.sure.dry_run {
            return report(session, &instance, &purge, &planned);
        }
        if planned.messages + planned.foreign == 0 {
            // There is nothing to be asked about.
            purge.dry_run = false;
            return report(session, &instance, &purge, &planned);
        }
        let mut plan: Vec<String> = planned.shown.iter().map(shown).collect();
        plan.extend(damage(&planned).map(damage_line));
        plan.push(summary(&instance, &purge, &planned));
        confirm(args.sure, &plan)?;
        agreed = Some(planned);
    }
    purge.dry_run = false;
    let purged = match agreed {
        // What came in the meantime was not shown.
        Some(planned) => {
            session
                .admin
                .purge_planned(&instance, &purge, &planned)
                .await?
        }
        None => session.admin.purge(&instance, &purge).await?,
    };
    report(session, &instance, &purge, &purged)
}

fn shown(queued: &QueuedView) -> String {
    let what = match &queued.message {
        Ok(message) => format!("{} {}", message.name, views::payload(message)),
        // What is wrong is reported beside it.
        Err(_) => "(damaged)".to_owned(),
    };
    let what: String = clean(&what).chars().take(160).collect();
    format!("  {} {what}", queued.stamp)
}

/// What of it cannot be read: messages, and keys that are no message's.
fn damage(purged: &Purged) -> impl Iterator<Item = &Damage> {
    let shown = purged.shown.iter();
    let unread = shown.filter_map(|queued| queued.message.as_ref().err());
    unread.chain(&purged.damaged)
}

fn summary(instance: &InstanceId, purge: &Purge, purged: &Purged) -> String {
    let verb = match (purge.dry_run, purge.to_dead) {
        (true, false) => "would be deleted",
        (true, true) => "would be moved to the dead letters",
        (false, false) => "deleted",
        (false, true) => "moved to the dead letters",
    };
    let mut text = format!(
        "{}: {} {verb}, {} of them awaited by callers",
        clean(&instance.to_string()),
        plural(purged.messages, "message"),
        purged.callers
    );
    if purged.foreign > 0 {
        let keys = plural(purged.foreign, "key");
        text += &match purge.dry_run {
            true => format!("; {keys} of no message would be deleted"),
            false => format!("; {keys} of no message deleted"),
        };
    }
    if purged.unreadable > 0 {
        text += &format!("; {} cannot be read and stay", purged.unreadable);
    }
    text
}

fn report(
    session: &mut Session,
    instance: &InstanceId,
    purge: &Purge,
    purged: &Purged,
) -> Result<(), Failure> {
    if session.out.is_json() {
        for queued in &purged.shown {
            session.out.object(views::queued(instance, queued))?;
        }
        let object = views::of("purged", instance)
            .plain("messages", purged.messages)
            .plain("callers", purged.callers)
            .plain("unreadable", purged.unreadable)
            .plain("foreign", purged.foreign)
            .plain("to_dead", purge.to_dead)
            .plain("dry_run", purge.dry_run);
        session.out.damaged(&purged.damaged)?;
        return Ok(session.out.object(object)?);
    }
    for queued in &purged.shown {
        session.out.line(&shown(queued))?;
    }
    for damage in damage(purged) {
        session.out.damaged(std::slice::from_ref(damage))?;
    }
    Ok(session.out.line(&summary(instance, purge, purged))?)
}

pub(crate) fn plural(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

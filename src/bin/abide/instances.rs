//! `ls`.

use crate::args::Ls;
use crate::output::{Table, age, clean};
use crate::{Failure, Session, views};
use abide::admin::{InstanceFilter, InstanceSummary, KindPause, PauseView};

/// How many instances are read at once.
const PAGE: usize = 100;

pub(crate) async fn ls(session: &mut Session, args: Ls) -> Result<(), Failure> {
    let filter = InstanceFilter {
        kind: args.kind,
        stuck: args.stuck.then_some(args.older_than),
    };
    let mut table = Table::new([
        "KIND", "ID", "MESSAGES", "OLDEST", "ATTEMPTS", "LOCK", "DEAD", "REMARKS",
    ]);
    if filter.stuck.is_none() {
        paused_kinds(session, &filter, &mut table).await?;
    }
    let mut cursor = None;
    loop {
        let page = session
            .admin
            .instances(&filter, cursor.as_ref(), PAGE)
            .await?;
        let now = session.admin.now_ms();
        if session.out.is_json() {
            for summary in &page.items {
                session.out.object(views::instance(summary))?;
            }
            session.out.flush()?;
        } else {
            let rows: Vec<_> = page.items.iter().map(|of| row(of, now)).collect();
            table.page(&mut session.out, &rows)?;
            for summary in &page.items {
                session.out.damaged(&summary.damaged)?;
            }
        }
        session.out.damaged(&page.damaged)?;
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// The kinds that are paused, also those without an instance.
async fn paused_kinds(
    session: &mut Session,
    filter: &InstanceFilter,
    table: &mut Table<8>,
) -> Result<(), Failure> {
    let (mut paused, damaged) = session.admin.paused_kinds().await?;
    paused.retain(|of| filter.kind.as_ref().is_none_or(|kind| *kind == of.kind));
    if session.out.is_json() {
        for of in &paused {
            session.out.object(views::paused_kind(of))?;
        }
    } else {
        let rows: Vec<_> = paused.iter().map(row_of_kind).collect();
        table.page(&mut session.out, &rows)?;
    }
    Ok(session.out.damaged(&damaged)?)
}

fn row_of_kind(of: &KindPause) -> [String; 8] {
    let [messages, oldest, attempts, lock, dead] = [(); 5].map(|()| "-".to_owned());
    let (kind, all) = (of.kind.clone(), "(all)".to_owned());
    let remark = with_reason("paused", &of.pause);
    [kind, all, messages, oldest, attempts, lock, dead, remark]
}

fn with_reason(what: &str, pause: &PauseView) -> String {
    match pause.reason.as_str() {
        "" => what.to_owned(),
        reason => format!("{what}: {reason}"),
    }
}

fn row(summary: &InstanceSummary, now: u64) -> [String; 8] {
    let dash = || "-".to_owned();
    let more = if summary.dead_letters.more { "+" } else { "" };
    [
        summary.instance.kind().to_owned(),
        summary.instance.id().to_owned(),
        summary.length.to_string(),
        summary.oldest_ms().map_or_else(dash, |sent| age(now, sent)),
        attempts(summary).to_string(),
        summary
            .lock
            .as_ref()
            .map_or_else(dash, |lock| age(now, lock.taken_ms)),
        format!("{}{more}", summary.dead_letters.count),
        remarks(summary),
    ]
}

/// The most attempts at anything that the instance is at.
pub(crate) fn attempts(summary: &InstanceSummary) -> u32 {
    let lanes = [&summary.priority, &summary.ordinary];
    let lanes = lanes.iter().filter_map(|lane| lane.attempts.as_ref());
    let lock = summary.lock.iter().map(|lock| lock.attempts);
    lanes.map(|of| of.attempts).chain(lock).max().unwrap_or(0)
}

/// What keeps it.
pub(crate) fn remarks(summary: &InstanceSummary) -> String {
    let mut remarks = Vec::new();
    for (pause, what) in [
        (&summary.paused, "paused"),
        (&summary.kind_paused, "kind paused"),
    ] {
        remarks.extend(pause.as_ref().map(|pause| with_reason(what, pause)));
    }
    for lane in [&summary.priority, &summary.ordinary] {
        if let Some(of) = lane.attempts.as_ref() {
            if of.claim.is_some() {
                remarks.push("claimed".to_owned());
            }
            if !of.error.is_empty() {
                remarks.push(format!("failed: {}", of.error));
            }
        }
    }
    if summary.lock_abandoned {
        remarks.push("nobody holds the lock".to_owned());
    }
    if let Some(lock) = summary.lock.as_ref().filter(|lock| !lock.error.is_empty()) {
        remarks.push(format!("failed under the lock: {}", lock.error));
    }
    if !summary.damaged.is_empty() {
        remarks.push("damaged".to_owned());
    }
    clean(&remarks.join("; "))
}

//! `restored`.

use crate::args;
use crate::confirm::confirm;
use crate::json::Object;
use crate::mailbox::plural;
use crate::output::clean;
use crate::{Failure, Session};
use abide::admin::Restored;

/// How many sessions are read at once.
const PAGE: usize = 200;

pub(crate) async fn run(session: &mut Session, args: args::Restored) -> Result<(), Failure> {
    let sessions = count_sessions(session).await?;
    let next = session.admin.namespace().incarnation().saturating_add(1);
    let ended = plural(sessions, "session");
    let named = clean(&format!("namespace `{}`", session.namespace));
    if !args.sure.yes {
        let plan = format!(
            "{named}: incarnation {next} would begin, and {ended} would end; what they hold, locks \
             and claims, would be given back"
        );
        if args.sure.dry_run {
            let object = object(session, next, sessions, None);
            return Ok(session.out.either(&plan, object)?);
        }
        confirm(args.sure, &[plan])?;
    }
    let done = session.admin.restored().await?;
    let line = format!(
        "{named}: incarnation {} has begun, and {ended} ended; {} and {} given back",
        done.incarnation,
        plural(done.locks, "lock"),
        plural(done.claims, "claim"),
    );
    let object = object(session, done.incarnation, sessions, Some(&done));
    session.out.either(&line, object)?;
    Ok(session.out.damaged(&done.damaged)?)
}

/// How many sessions there are, whoever they are of.
async fn count_sessions(session: &Session) -> Result<u64, Failure> {
    let (mut count, mut cursor) = (0, None);
    loop {
        let page = session.admin.sessions(cursor.as_ref(), PAGE).await?;
        count += u64::try_from(page.items.len()).unwrap_or(u64::MAX);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(count);
        }
    }
}

/// What was done; what would be found is not looked for.
fn object(session: &Session, incarnation: u32, sessions: u64, done: Option<&Restored>) -> Object {
    Object::of("restored")
        .text("namespace", &session.namespace)
        .plain("incarnation", incarnation)
        .plain("sessions", sessions)
        .maybe("locks", done.map(|of| of.locks))
        .maybe("claims", done.map(|of| of.claims))
        .plain("dry_run", done.is_none())
}

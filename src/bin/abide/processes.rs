//! `sessions` and `nodes`.

use crate::args::Nodes;
use crate::output::{Table, age};
use crate::{Failure, Session, views};
use abide::admin::{NodeView, SessionView};

/// How many sessions are read at once.
const PAGE: usize = 200;

pub(crate) async fn sessions(session: &mut Session) -> Result<(), Failure> {
    let mut table = Table::new(["SESSION", "OPENED", "REPLIES", "KINDS"]);
    let mut cursor = None;
    loop {
        let page = session.admin.sessions(cursor.as_ref(), PAGE).await?;
        let now = session.admin.now_ms();
        if session.out.is_json() {
            for view in &page.items {
                session.out.object(views::session("session", view))?;
            }
            session.out.flush()?;
        } else {
            let rows: Vec<_> = page.items.iter().map(|of| row(of, now)).collect();
            table.page(&mut session.out, &rows)?;
            for view in &page.items {
                session.out.damaged(view.damaged.as_slice())?;
            }
        }
        session.out.damaged(&page.damaged)?;
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

fn row(view: &SessionView, now: u64) -> [String; 4] {
    let opened = view
        .opened_ms
        .map_or_else(|| "-".to_owned(), |opened| age(now, opened));
    let kinds = match (view.kinds.is_empty(), view.nonce) {
        (true, None) => "(no heartbeat)".to_owned(),
        (true, Some(_)) => "(only sends)".to_owned(),
        (false, _) => view.kinds.join(" "),
    };
    [
        view.session.to_string(),
        opened,
        view.reply_rows.to_string(),
        kinds,
    ]
}

pub(crate) async fn nodes(session: &mut Session, args: Nodes) -> Result<(), Failure> {
    let before = session.admin.first_look().await?;
    let env = session.admin.namespace().database().env();
    env.sleep(args.apart).await;
    let mut table = Table::new(["SESSION", "ALIVE", "OPENED", "KINDS"]);
    let mut cursor = None;
    loop {
        let page = session.admin.nodes(&before, cursor.as_ref(), PAGE).await?;
        let now = session.admin.now_ms();
        if session.out.is_json() {
            for node in &page.items {
                let object = views::session("node", &node.session).plain("alive", node.beat);
                session.out.object(object)?;
            }
            session.out.flush()?;
        } else {
            let rows: Vec<_> = page.items.iter().map(|of| row_of_node(of, now)).collect();
            table.page(&mut session.out, &rows)?;
            for node in &page.items {
                session.out.damaged(node.session.damaged.as_slice())?;
            }
        }
        session.out.damaged(&page.damaged)?;
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

fn row_of_node(node: &NodeView, now: u64) -> [String; 4] {
    let alive = if node.beat { "yes" } else { "no beat" };
    let [name, opened, _, kinds] = row(&node.session, now);
    [name, alive.to_owned(), opened, kinds]
}

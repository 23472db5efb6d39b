//! `call` and `cast`.

use crate::args::{Call, Cast};
use crate::output::clean;
use crate::{Failure, Session, views};
use abide::Node;
use abide::server::AnyRef;
use std::sync::Arc;
use std::time::Duration;

/// How long the node may take to close its session.
const CLOSING: Duration = Duration::from_secs(5);

/// A node that serves nothing, and a reference through it.
async fn reference(session: &Session, sent: &Cast) -> Result<(Node, AnyRef), Failure> {
    let instance = sent.named.instance()?;
    let node = Node::builder_on(Arc::clone(&session.store))
        .namespace(session.namespace.as_str())
        .threads(1)
        .start()
        .await?;
    let server = AnyRef::new(node.courier(), instance);
    let server = match sent.priority {
        true => server.priority(),
        false => server,
    };
    Ok((node, server))
}

pub(crate) async fn call(session: &mut Session, args: Call) -> Result<(), Failure> {
    let sent = &args.sent;
    let (node, server) = reference(session, sent).await?;
    let server = server.timeout(args.timeout);
    let answered = match args.query {
        true => server.query(&sent.message, &sent.payload).await,
        false => server.call(&sent.message, &sent.payload).await,
    };
    node.shutdown(CLOSING).await;
    let reply = answered?.to_json()?;
    let object = views::of("reply", server.instance())
        .text("name", &sent.message)
        .raw("value", &reply);
    Ok(session.out.either(&reply, object)?)
}

pub(crate) async fn cast(session: &mut Session, args: Cast) -> Result<(), Failure> {
    let (node, server) = reference(session, &args).await?;
    let sent = server.cast(&args.message, &args.payload).await;
    node.shutdown(CLOSING).await;
    sent?;
    let line = format!("sent {} to {}", args.message, server.instance());
    let object = views::of("sent", server.instance()).text("name", &args.message);
    Ok(session.out.either(&clean(&line), object)?)
}

//! Doing to the store what was confirmed.

use super::model::Action;
use crate::failure::chain;
use crate::mailbox::plural;
use abide::admin::{Admin, AdminError, DeadFilter, Purge, Selection};

/// Does it, and says what came of it.
pub(super) async fn act(admin: &Admin, action: &Action) -> Result<String, String> {
    carry_out(admin, action)
        .await
        .map_err(|error| chain(&error))
}

async fn carry_out(admin: &Admin, action: &Action) -> Result<String, AdminError> {
    match action {
        Action::Purge(instance, stamp) => {
            let selection = stamp.map_or(Selection::All, Selection::Stamp);
            let purged = admin.purge(instance, &Purge::new(selection)).await?;
            let messages = plural(purged.messages, "message");
            Ok(format!("{instance}: {messages} deleted"))
        }
        Action::Forget(instance, stamp) => {
            let filter = DeadFilter {
                instance: Some(instance.clone()),
                stamp: Some(*stamp),
                ..DeadFilter::default()
            };
            let done = admin.purge_dead(&filter, false).await?;
            let letters = plural(done.letters, "dead letter");
            Ok(format!("{instance}: {letters} deleted"))
        }
        Action::Retry(instance, stamp) => {
            let filter = DeadFilter {
                instance: Some(instance.clone()),
                stamp: *stamp,
                ..DeadFilter::default()
            };
            let done = admin.retry_dead(&filter, false).await?;
            let letters = plural(done.letters, "dead letter");
            let stay = match done.unreadable {
                0 => String::new(),
                some => format!("; {some} cannot be read and stay"),
            };
            Ok(format!("{instance}: {letters} put back{stay}"))
        }
    }
}

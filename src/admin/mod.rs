//! Looking into a namespace, and mending what is stuck, while nodes run.
//!
//! An [`Admin`] knows nothing of a user's types: states and payloads are shown as
//! [`Value`](crate::codec::Value)s. Invariants:
//!
//! - *Looking changes nothing.* What only reads opens no session and writes no key.
//! - *Every change lands exactly once*, in one transaction or in a sequence of them that may stop
//!   anywhere: each leaves the mailbox's length, the ready mark and the attempts as they must be, and
//!   tells the callers of what it removes.
//! - *What was shown is what is done.* A dry run's answer can be given to the operation's `_planned`
//!   form, which acts on nothing that was not in it, and refuses if that is not possible any more.
//! - *Pages, never a namespace.* Whatever can be long is read in [`Page`]s, a transaction each. A page
//!   shows one moment; the next page a later one.
//! - *Damage does not hide the rest.* What cannot be read is reported in [`Page::damaged`], or in the
//!   place where it stands, and the listing goes on.
//!
//! | what | how |
//! |---|---|
//! | instances | [`instances`](Admin::instances), [`instance`](Admin::instance) |
//! | how much goes on | [`backlog`](Admin::backlog), [`instances_named`](Admin::instances_named), [`activity`](Admin::activity) |
//! | states | [`state`](Admin::state), [`edit`](Admin::edit), [`set`](Admin::set) |
//! | mailboxes | [`mailbox`](Admin::mailbox), [`purge`](Admin::purge) |
//! | dead letters | [`dead_letters`](Admin::dead_letters), [`retry_dead`](Admin::retry_dead), [`purge_dead`](Admin::purge_dead) |
//! | locks | [`lock`](Admin::lock), [`break_lock`](Admin::break_lock) |
//! | pauses | [`pause`](Admin::pause), [`resume`](Admin::resume), [`pause_kind`](Admin::pause_kind), [`resume_kind`](Admin::resume_kind) |
//! | the end | [`kill`](Admin::kill), [`reset`](Admin::reset) |
//! | processes | [`sessions`](Admin::sessions), [`nodes`](Admin::nodes) |
//! | consistency | [`doctor`](Admin::doctor), [`fix`](Admin::fix), [`diagnose`](Admin::diagnose) |
//! | after a restore | [`restored`](Admin::restored) |
//! | moving house | [`export`](Admin::export), [`import`](Admin::import), [`abandon_import`](Admin::abandon_import) |
//!
//! ```
//! use abide::admin::{Admin, AdminError, InstanceFilter};
//! use abide::env::TokioEnv;
//! use abide::store::{self, Database};
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), AdminError> {
//! let db = Database::new(store::open("memory:").await?, Arc::new(TokioEnv::current()));
//! let admin = Admin::create(&db, "shop").await?;
//! let mut cursor = None;
//! loop {
//!     let page = admin.instances(&InstanceFilter::default(), cursor.as_ref(), 50).await?;
//!     for instance in &page.items {
//!         println!("{} has {} messages", instance.instance, instance.length);
//!     }
//!     cursor = page.next;
//!     if cursor.is_none() {
//!         break;
//!     }
//! }
//! admin.close().await?;
//! # Ok(()) }
//! ```

mod activity;
mod dead;
mod doctor;
mod edit;
mod error;
mod export;
mod foreign;
mod import;
mod instances;
mod lock;
mod mailbox;
mod page;
mod path;
mod pause;
mod purge;
mod record;
mod restored;
mod sessions;
mod state;
mod views;
mod walk;

pub use activity::{Activity, Backlog};
pub use dead::{DeadFilter, DeadLetterView, DeadReport, Letter};
pub use doctor::{Finding, FindingCode};
pub use edit::{Edit, Edited};
pub use error::{AdminError, AdminErrorKind};
pub use export::{Export, Scope};
pub use import::{Import, ImportOptions, ImportProgress, Imported, UnfinishedImport};
pub use instances::{
    AttemptsView, DeadCount, InstanceFilter, InstanceSummary, LaneSummary, Oldest,
};
pub use lock::{Broken, LockView, Then};
pub use mailbox::QueuedView;
pub use page::{Cursor, Damage, Page};
pub use path::parse_path;
pub use pause::{KindPause, PauseView};
pub use purge::{Purge, Purged, Selection};
pub use record::{MAX_LINE_BYTES, Record};
pub use restored::Restored;
pub use sessions::{FirstLook, NodeView, SessionView};
pub use state::{SetOptions, StateView};
pub use views::{Caller, MessageView};

use crate::durable::session::millis;
use crate::durable::{Namespace, Session, SessionError, Work};
use crate::store::{Database, RetryPolicy, StoreError, Tx};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How long a session goes without a beat before the next change gives one: a dozen times less than
/// it takes to be swept.
const BEAT_AFTER: Duration = Duration::from_secs(5);

/// The most items of a page, whatever was asked for: a page is one transaction.
pub const MAX_PAGE: usize = 1_000;

/// An operator's view of one namespace.
///
/// The first change opens a session, which later ones keep alive; [`close`](Self::close) removes it,
/// and other processes do a minute after the last change if nobody does.
#[derive(Debug)]
pub struct Admin {
    namespace: Namespace,
    session: futures_util::lock::Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    session: Arc<Session>,
    /// When it last showed that it lives, on the environment's clock.
    beaten: Duration,
}

impl Admin {
    /// Looks into a namespace that is there.
    ///
    /// # Errors
    ///
    /// [`NotFound`](AdminErrorKind::NotFound) if there is no such namespace; else as
    /// [`Namespace::open`].
    pub async fn open(database: &Database, namespace: &str) -> Result<Self, AdminError> {
        match Namespace::find(database, namespace).await? {
            Some(namespace) => Ok(Self::of(namespace)),
            None => Err(AdminError::not_found(format!(
                "there is no namespace `{namespace}` in this store"
            ))),
        }
    }

    /// As [`open`](Self::open), but creates the namespace if it is not there: to import into it.
    ///
    /// # Errors
    ///
    /// As [`Namespace::open`].
    pub async fn create(database: &Database, namespace: &str) -> Result<Self, AdminError> {
        Ok(Self::of(Namespace::open(database, namespace).await?))
    }

    /// Looks into an open namespace: that of a [node](crate::Node::namespace), say.
    #[must_use]
    pub fn of(namespace: Namespace) -> Self {
        Self {
            namespace,
            session: futures_util::lock::Mutex::new(None),
        }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The wall clock of this process in milliseconds since 1970: what ages are reckoned with.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        millis(self.namespace.database().env().wall_clock())
    }

    /// Removes the session, if a change has opened one. The next change opens another.
    ///
    /// # Errors
    ///
    /// Whatever the store answers; then the session will be swept.
    pub async fn close(&self) -> Result<(), AdminError> {
        let opened = self.session.lock().await.take();
        match opened {
            Some(opened) => Ok(opened.session.close().await?),
            None => Ok(()),
        }
    }

    /// A session that lives.
    async fn session(&self) -> Result<Arc<Session>, AdminError> {
        let env = self.namespace.database().env();
        let mut slot = self.session.lock().await;
        if let Some(opened) = slot.as_mut() {
            let now = env.now();
            if now.saturating_sub(opened.beaten) < BEAT_AFTER {
                return Ok(Arc::clone(&opened.session));
            }
            match opened.session.beat().await {
                Ok(()) => {
                    opened.beaten = now;
                    return Ok(Arc::clone(&opened.session));
                }
                Err(SessionError::SessionGone) => {}
                Err(SessionError::Store(error)) => return Err(error.into()),
            }
        }
        let beaten = env.now();
        let session = Session::open(&self.namespace, Vec::new()).await?;
        *slot = Some(Opened {
            session: Arc::clone(&session),
            beaten,
        });
        Ok(session)
    }

    /// Reads, in one transaction.
    async fn look<T, F, Fut>(&self, mut body: F) -> Result<T, AdminError>
    where
        F: FnMut(Tx) -> Fut + Send,
        Fut: Future<Output = Result<T, StoreError>> + Send,
        T: Send,
    {
        let database = self.namespace.database();
        let looked = database.run(|attempt| body(Arc::clone(attempt.tx())));
        Ok(looked.await?.value)
    }

    /// As [`change`](Self::change); but a dry run, whose body only looks, opens no session for it.
    async fn change_or_plan<T, F, Fut>(&self, dry_run: bool, mut body: F) -> Result<T, AdminError>
    where
        F: FnMut(Tx) -> Fut + Send,
        Fut: Future<Output = Result<Work<T>, AdminError>> + Send,
        T: Send,
    {
        if !dry_run {
            return Box::pin(self.change(body)).await;
        }
        let planned = self.look(|tx| {
            let work = body(tx);
            async move {
                match work.await {
                    Ok(Work::Look(value) | Work::Write(value)) => Ok(Ok(value)),
                    Err(error) => error.into_store().map_or_else(|of| Ok(Err(of)), Err),
                }
            }
        });
        Box::pin(planned).await?
    }

    /// Makes one change, exactly once. A body that refuses, or that only looked, has written nothing.
    async fn change<T, F, Fut>(&self, mut body: F) -> Result<T, AdminError>
    where
        F: FnMut(Tx) -> Fut + Send,
        Fut: Future<Output = Result<Work<T>, AdminError>> + Send,
        T: Send,
    {
        let session = self.session().await?;
        let mut lane = session.lane();
        let time = RetryPolicy::default().give_up_after;
        let changed = lane.run_work(time, None, |tx, _| {
            let work = body(tx);
            async move {
                match work.await {
                    Ok(Work::Write(value)) => Ok(Work::Write(Ok(value))),
                    Ok(Work::Look(value)) => Ok(Work::Look(Ok(value))),
                    Err(error) => match error.into_store() {
                        Ok(store) => Err(SessionError::Store(store)),
                        Err(refusal) => Ok(Work::Look(Err(refusal))),
                    },
                }
            }
        });
        changed.await?.0
    }
}

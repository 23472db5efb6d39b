//! A server whose state has a map of texts: a lazy one, or a plain one.

use crate::states::Shelf;
use abide::InstanceId;
use abide::collections::NotLoaded;
use abide::server::{Activation, Context, Deactivation, Failure, Handle, LockContext, Locked};
use abide::server::{Message, Outcome, Protocol, Query, ReadContext, Routes, Server};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) struct Shelving;

impl Protocol for Shelving {
    const KIND: &'static str = "shelf";
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Do {
    /// Puts texts of a size under the keys of a range.
    Fill(u64, u64, usize),
    Put(u64, String),
    /// Adds to texts; replies with them.
    Append(Vec<u64>, String),
    Get(Vec<u64>),
    Page(u64, usize),
    Remove(u64),
    Take(u64),
    /// Takes the first one, and takes some milliseconds for it.
    Pop(u64),
    Clear,
    /// Asks for one key after the other, each in a round of its own.
    Follow(u64, u64),
    /// One after the other.
    All(Vec<Do>),
    /// Does not pass on that something is missing.
    Careless(u64),
    Reject(Box<Do>),
    Fail(Box<Do>),
    Panic(Box<Do>),
    /// Tells [`Keeper::seen`] after the commit what it has of some keys.
    Effect(Box<Do>, Vec<u64>),
}

pub(crate) type Texts = Vec<Option<String>>;

impl Message<Shelving> for Do {
    const NAME: &'static str = "do";
    type Reply = Texts;
}

/// What is under some keys.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ask(pub(crate) Vec<u64>);

impl Message<Shelving> for Ask {
    const NAME: &'static str = "ask";
    type Reply = Texts;
}

/// Under the lock: reads `from`, and adds it to `to` in the end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Copy {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) prepared: bool,
}

impl Message<Shelving> for Copy {
    const NAME: &'static str = "copy";
    type Reply = Texts;
}

/// Does what a message says.
pub(crate) fn perform<S: Shelf>(shelf: &mut S, message: &Do) -> Result<Texts, Failure> {
    Ok(match message {
        Do::Fill(from, to, size) => {
            (*from..*to).for_each(|key| shelf.put(key, "x".repeat(*size)));
            Vec::new()
        }
        Do::Put(key, text) => {
            shelf.put(*key, text.clone());
            Vec::new()
        }
        Do::Append(keys, text) => {
            shelf.load(keys)?;
            let texts = keys.iter().map(|key| shelf.append(*key, text).map(Some));
            texts.collect::<Result<_, _>>()?
        }
        Do::Get(keys) => {
            shelf.load(keys)?;
            let texts = keys.iter().map(|key| Ok(shelf.get(*key)?.cloned()));
            texts.collect::<Result<_, NotLoaded>>()?
        }
        Do::Page(from, limit) => {
            let page = shelf.page(*from, *limit)?.into_iter();
            page.map(|(key, text)| Some(format!("{key} {text}")))
                .collect()
        }
        Do::Remove(key) => {
            shelf.remove(*key);
            Vec::new()
        }
        Do::Take(key) => vec![shelf.take(*key)?],
        Do::Pop(millis) => {
            std::thread::sleep(Duration::from_millis(*millis));
            let page = shelf.page(0, 1)?.into_iter();
            page.map(|(key, text)| {
                shelf.remove(key);
                Some(format!("{key} {text}"))
            })
            .collect()
        }
        Do::Clear => {
            shelf.clear();
            Vec::new()
        }
        Do::Follow(from, to) => {
            for key in *from..*to {
                shelf.get(key)?;
            }
            Vec::new()
        }
        Do::All(messages) => {
            let texts = messages.iter().map(|message| perform(shelf, message));
            texts.collect::<Result<Vec<_>, _>>()?.concat()
        }
        Do::Careless(key) => match shelf.get(*key) {
            Ok(text) => vec![text.cloned()],
            Err(_) => vec![Some("wrong".to_owned())],
        },
        Do::Reject(inner) => {
            perform(shelf, inner)?;
            return Err(Failure::reject("on purpose"));
        }
        Do::Fail(inner) => {
            perform(shelf, inner)?;
            return Err(Failure::fail("on purpose"));
        }
        Do::Panic(inner) => {
            perform(shelf, inner)?;
            panic!("on purpose");
        }
        Do::Effect(inner, _) => perform(shelf, inner)?,
    })
}

/// What an effect sees of an entry.
pub(crate) type Seen = Result<Option<String>, NotLoaded>;

/// Keepers of any version share what they note down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    pub(crate) activations: Arc<Mutex<Vec<Activation>>>,
    pub(crate) deactivations: Arc<AtomicU64>,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    /// How often a handler ran.
    pub(crate) runs: Arc<AtomicU64>,
}

pub(crate) struct Keeper<S> {
    pub(crate) notes: Notes,
    shelf: PhantomData<fn() -> S>,
}

impl<S> Keeper<S> {
    pub(crate) fn new() -> Self {
        Self::noting(&Notes::default())
    }

    pub(crate) fn noting(notes: &Notes) -> Self {
        Self {
            notes: notes.clone(),
            shelf: PhantomData,
        }
    }
}

impl<S: Shelf> Server for Keeper<S> {
    type Protocol = Shelving;
    type State = S;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<S, Failure> {
        Ok(S::default())
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.handle::<Do>().query::<Ask>().locked::<Copy>()
    }

    fn activated(&self, _: &InstanceId, _: &S, cause: Activation) {
        self.notes.activations.lock().unwrap().push(cause);
    }

    fn deactivated(&self, _: &InstanceId, _: &S, _: Deactivation) {
        self.notes.deactivations.fetch_add(1, Ordering::SeqCst);
    }
}

impl<S: Shelf> Handle<Do> for Keeper<S> {
    fn handle(
        &self,
        shelf: &mut S,
        message: Do,
        cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<Texts>, Failure> {
        self.notes.runs.fetch_add(1, Ordering::SeqCst);
        let texts = perform(shelf, &message)?;
        if let Do::Effect(_, keys) = message {
            let seen = Arc::clone(&self.notes.seen);
            cx.after_commit(move |after| {
                let shelf = after.state();
                let texts = keys.iter().map(|key| Ok(shelf.get(*key)?.cloned()));
                seen.lock().unwrap().extend(texts);
            });
        }
        Ok(Outcome::Reply(texts))
    }
}

impl<S: Shelf> Query<Ask> for Keeper<S> {
    fn query(&self, shelf: &S, Ask(keys): Ask, _: &ReadContext<'_>) -> Result<Texts, Failure> {
        perform(&mut shelf.clone(), &Do::Get(keys))
    }
}

impl<S: Shelf> Handle<Copy> for Keeper<S> {
    fn handle(
        &self,
        _: &mut S,
        _: Copy,
        _: &mut Context<'_, Self>,
    ) -> Result<Outcome<Texts>, Failure> {
        Ok(Outcome::Lock)
    }
}

impl<S: Shelf> Locked<Copy> for Keeper<S> {
    type Output = Option<String>;

    fn prepare(&self, shelf: &S, copy: &Copy) -> Result<(), Failure> {
        if copy.prepared {
            shelf.get(copy.from)?;
        }
        Ok(())
    }

    async fn run(&self, shelf: S, copy: Copy, _: LockContext) -> Result<Self::Output, Failure> {
        Ok(shelf.get(copy.from)?.cloned())
    }

    fn close(
        &self,
        shelf: &mut S,
        copy: Copy,
        text: Self::Output,
        _: &mut Context<'_, Self>,
    ) -> Result<Outcome<Texts>, Failure> {
        let text = text.unwrap_or_default();
        Ok(Outcome::Reply(vec![Some(shelf.append(copy.to, &text)?)]))
    }
}

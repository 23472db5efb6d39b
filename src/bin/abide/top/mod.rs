//! `top`: a live view of the instances.
//!
//! [`sample`] looks at the store, [`model`] keeps what was seen and obeys the keys ([`keys`]),
//! [`draw`] shows it, [`act`] does what was confirmed, and [`screen`] is the terminal. The loop below
//! brings them together: it waits for whatever comes first, a key or the store, and never for the
//! store alone.

mod act;
mod draw;
mod keys;
mod model;
mod rates;
mod sample;
mod screen;
#[cfg(test)]
mod tests;

use crate::args::Top;
use crate::failure::chain;
use crate::output::clean;
use crate::{Failure, Session};
use abide::admin::Admin;
use abide::env::Env;
use futures_channel::mpsc;
use futures_util::future::{Either, FutureExt, LocalBoxFuture, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use model::{Command, Model};
use sample::{Sample, Sampler, Wanted};
use screen::{Screen, Typed};
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;

/// How long the store may take for a sample before the view calls it an outage.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an action that was begun may take after the end of the view.
const FAREWELL: Duration = Duration::from_secs(10);

/// What the loop waits for.
enum Event {
    Typed(Typed),
    Sampled(Box<Sampler>, Box<Result<Sample, String>>),
    /// It is time for the next sample, unless one was taken since.
    Due(u64),
    Acted(Result<String, String>),
    /// The process is to end.
    Terminated,
}

pub(crate) async fn run(session: &mut Session, args: Top) -> Result<(), Failure> {
    if session.out.is_json() {
        return Err(Failure::usage("`top` prints no JSON: see `ls --json`"));
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::refused(
            "refused: `top` needs a terminal; `ls` prints what other programs read",
        ));
    }
    let mut title = format!("{}  namespace {}", session.url, session.namespace);
    if let Some(kind) = &args.kind {
        title += &format!("  kind {kind}");
    }
    let mut model = Model::new(clean(&title), args.every, session.out.has_colour());
    let (mut screen, typed) = Screen::enter()?;
    let mut view = View {
        admin: &session.admin,
        env: session.admin.namespace().database().env().as_ref(),
        every: args.every,
        typed,
        work: FuturesUnordered::new(),
        idle: Some(Box::new(Sampler::new(args.kind))),
        samples: 0,
        acting: false,
    };
    let ended = view.run(&mut model, &mut screen).await;
    drop(screen);
    view.finish().await;
    Ok(ended?)
}

/// The loop and what it waits for.
struct View<'a> {
    admin: &'a Admin,
    env: &'a dyn Env,
    every: Duration,
    typed: mpsc::Receiver<Typed>,
    work: FuturesUnordered<LocalBoxFuture<'a, Event>>,
    /// The sampler, while it takes no sample.
    idle: Option<Box<Sampler>>,
    samples: u64,
    acting: bool,
}

impl View<'_> {
    async fn run(&mut self, model: &mut Model, screen: &mut Screen) -> io::Result<()> {
        self.work.push(terminated().boxed_local());
        self.refresh(model.wanted());
        while !model.is_over {
            screen.draw(|frame| draw::draw(model, frame))?;
            match self.next().await {
                Event::Typed(Typed::Key(key)) => match model.key(key) {
                    Some(Command::Refresh) => self.refresh(model.wanted()),
                    Some(Command::Act(action)) => {
                        let admin = self.admin;
                        let act = async move { Event::Acted(act::act(admin, &action).await) };
                        self.work.push(act.boxed_local());
                        self.acting = true;
                    }
                    None => {}
                },
                Event::Typed(Typed::Resized) => {}
                Event::Typed(Typed::Failed(error)) => return Err(error),
                Event::Sampled(sampler, sample) => {
                    self.idle = Some(sampler);
                    let wanted = model.wanted().open;
                    model.take(*sample);
                    // What was opened meanwhile is not made to wait.
                    let lacks = model.open.as_ref().is_some_and(|open| open.shown.is_none());
                    match lacks && wanted.is_some() && model.outage.is_none() {
                        true => self.refresh(model.wanted()),
                        false => self.rest(),
                    }
                }
                Event::Due(of) if of == self.samples => self.refresh(model.wanted()),
                Event::Due(_) => {}
                Event::Acted(outcome) => {
                    self.acting = false;
                    model.acted(outcome);
                    self.refresh(model.wanted());
                }
                Event::Terminated => model.is_over = true,
            }
        }
        Ok(())
    }

    /// Whatever comes first.
    async fn next(&mut self) -> Event {
        match select(self.typed.next(), self.work.next()).await {
            Either::Left((Some(typed), _)) => Event::Typed(typed),
            Either::Right((Some(event), _)) => event,
            // The reader of keys has gone, and has said so before.
            Either::Left((None, _)) | Either::Right((None, _)) => Event::Terminated,
        }
    }

    /// Begins a sample, unless one is being taken.
    fn refresh(&mut self, wanted: Wanted) {
        let Some(mut sampler) = self.idle.take() else {
            return;
        };
        self.samples += 1;
        let (admin, env) = (self.admin, self.env);
        let sample = async move {
            let late = env.sleep(PATIENCE);
            let sample = match select(pin!(sampler.look(admin, &wanted)), late).await {
                Either::Left((sample, _)) => sample.map_err(|error| chain(&error)),
                Either::Right(((), _)) => Err(format!(
                    "the store has not answered for {} s",
                    PATIENCE.as_secs()
                )),
            };
            Event::Sampled(sampler, Box::new(sample))
        };
        self.work.push(sample.boxed_local());
    }

    /// Waits for the time of the next sample.
    fn rest(&mut self) {
        let (of, wait) = (self.samples, self.env.sleep(self.every));
        self.work
            .push(wait.map(move |()| Event::Due(of)).boxed_local());
    }

    /// Waits for an action that was begun: what became of it is to be known.
    async fn finish(mut self) {
        let mut late = self.env.sleep(FAREWELL);
        while self.acting {
            match select(self.work.next(), &mut late).await {
                Either::Left((Some(Event::Acted(outcome)), _)) => {
                    let (Ok(text) | Err(text)) = outcome;
                    // There may be nobody to read it.
                    let _ =
                        io::Write::write_fmt(&mut io::stderr(), format_args!("{}\n", clean(&text)));
                    return;
                }
                Either::Left((Some(_), _)) => {}
                Either::Left((None, _)) | Either::Right(_) => return,
            }
        }
    }
}

/// Completes when the process is asked to end from outside: the keys of the terminal do it inside.
async fn terminated() -> Event {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let signals = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ];
        let mut waiting: FuturesUnordered<_> = signals
            .into_iter()
            .filter_map(|kind| signal(kind).ok())
            .map(|mut signal| async move { signal.recv().await }.boxed_local())
            .collect();
        if waiting.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
    #[cfg(not(unix))]
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    Event::Terminated
}

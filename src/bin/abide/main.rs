//! The command `abide`: see into every server, and mend what is stuck.
//!
//! Thin: it reads its arguments ([`args`]), calls the library's `admin` module, and prints
//! ([`output`]). One module for each group of commands. `src/docs/cli.md` describes all of it.

mod args;
mod confirm;
mod dead;
mod doctor;
mod failure;
mod instances;
mod interrupt;
mod json;
mod lock;
mod mailbox;
mod output;
mod processes;
mod restored;
mod send;
mod state;
mod switches;
mod top;
mod transfer;
mod views;

use abide::admin::Admin;
use abide::env::TokioEnv;
use abide::store::{self, Database, Store};
use args::{Command, Global};
use clap::{CommandFactory, Parser};
use failure::Failure;
use output::Output;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// What every command has at hand.
struct Session {
    admin: Admin,
    store: Arc<dyn Store>,
    namespace: String,
    /// The store, as it was named.
    url: String,
    out: Output,
}

fn main() -> ExitCode {
    let arguments = match args::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody may read it any more.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * failure::USAGE);
        }
    };
    let ran = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(arguments: args::Arguments) -> Result<(), Failure> {
    let args::Arguments { global, command } = arguments;
    if let Command::Completions { shell } = command {
        return completions(shell);
    }
    let mut session = open(global, &command).await?;
    let done = match &command {
        // It may be long, and goes on when it is begun again.
        Command::Import(args) if !args.abandon => {
            interrupt::or(Box::pin(obey(&mut session, command))).await
        }
        _ => obey(&mut session, command).await,
    };
    let flushed = session.out.flush();
    // What the command came to is more interesting than a session that will be swept.
    let closed = session.admin.close().await;
    done?;
    flushed?;
    Ok(closed?)
}

async fn obey(session: &mut Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Ls(args) => instances::ls(session, args).await,
        Command::Show(args) => state::show(session, args).await,
        Command::Set(args) => state::set(session, args).await,
        Command::Mailbox(args) => mailbox::peek(session, args).await,
        Command::Purge(args) => mailbox::purge(session, args).await,
        Command::Dead(command) => dead::run(session, command).await,
        Command::Call(args) => send::call(session, args).await,
        Command::Cast(args) => send::cast(session, args).await,
        Command::Lock(command) => lock::run(session, command).await,
        Command::Pause(args) => switches::pause(session, args).await,
        Command::Resume(args) => switches::resume(session, args).await,
        Command::Kill(args) => switches::kill(session, args).await,
        Command::Reset(args) => switches::reset(session, args).await,
        Command::Sessions => processes::sessions(session).await,
        Command::Nodes(args) => processes::nodes(session, args).await,
        Command::Doctor(args) => doctor::run(session, args).await,
        Command::Restored(args) => restored::run(session, args).await,
        Command::Export(args) => transfer::export(session, args).await,
        Command::Import(args) => transfer::import(session, args).await,
        Command::Top(args) => Box::pin(top::run(session, args)).await,
        // Answered before the store was opened.
        Command::Completions { shell } => completions(shell),
    }
}

/// Opens the store, which is created only for an import, and the namespace, likewise.
async fn open(global: Global, command: &Command) -> Result<Session, Failure> {
    let create = match command {
        Command::Import(args) if !args.abandon => {
            transfer::check(args)?;
            true
        }
        _ => false,
    };
    let mut out = Output::new(global.json);
    if !create && let Some(path) = global.store.strip_prefix("sqlite:") {
        // The library would create the file, and everything would look empty.
        if !Path::new(path).exists() {
            return Err(Failure::unavailable(format!("there is no file {path:?}")));
        }
    }
    let store = store::open(&global.store).await?;
    let database = Database::new(Arc::clone(&store), Arc::new(TokioEnv::current()));
    if let Command::Doctor(_) = command {
        doctor::of_unopened(&database, &global.namespace, &mut out).await?;
    }
    let admin = match create {
        true => Admin::create(&database, &global.namespace).await?,
        false => Admin::open(&database, &global.namespace).await?,
    };
    Ok(Session {
        admin,
        store,
        namespace: global.namespace,
        url: global.store,
        out,
    })
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::Arguments::command(), "abide", &mut script);
    Ok(std::io::Write::write_all(&mut std::io::stdout(), &script)?)
}

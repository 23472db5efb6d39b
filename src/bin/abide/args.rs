//! The arguments, from which the help and the completions are made.

mod words;

use abide::InstanceId;
use abide::codec::{Path, Value};
use abide::store::Stamp;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use words::{duration, id, json, kind, name, pace, path, stamp};

/// See into every server, and mend what is stuck.
#[derive(Debug, Parser)]
#[command(name = "abide", version)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The store: sqlite:PATH, fdb: or fdb:CLUSTER_FILE.
    #[arg(
        long,
        global = true,
        env = "ABIDE_STORE",
        value_name = "URL",
        default_value = "sqlite:abide.db"
    )]
    pub(crate) store: String,
    /// The namespace.
    #[arg(long, global = true, value_name = "NAME", default_value = abide::DEFAULT_NAMESPACE)]
    pub(crate) namespace: String,
    /// Prints JSON, one object on each line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists instances.
    Ls(Ls),
    /// Shows a state with the paths of its fields.
    Show(Show),
    /// Sets one field of a state; adds or removes an entry.
    Set(Set),
    /// Peeks at the messages of an instance.
    Mailbox(Named),
    /// Removes messages from a mailbox, and tells their callers.
    Purge(Purge),
    /// Dead letters: messages that failed too often.
    #[command(subcommand)]
    Dead(Dead),
    /// Sends a message and prints the reply.
    Call(Call),
    /// Sends a message that is not answered.
    Cast(Cast),
    /// Locks: who runs what.
    #[command(subcommand)]
    Lock(Lock),
    /// Makes the messages of an instance, or of a kind, wait.
    Pause(Pause),
    /// Ends a pause.
    Resume(Switch),
    /// Removes an instance: messages, lock, state, dead letters.
    Kill(Doomed),
    /// Removes an instance's state; the next message begins a new one.
    Reset(Doomed),
    /// Lists the sessions of all processes.
    Sessions,
    /// Looks twice, and says which processes live.
    Nodes(Nodes),
    /// Checks every invariant; exits with 1 if something remains wrong.
    Doctor(Doctor),
    /// Says that the namespace was restored from a backup, or in another cluster: once, before nodes
    /// are started.
    ///
    /// Begins a new incarnation, ends all sessions, and gives back the locks and the claims on
    /// messages that the processes of then held. Processes that live open new sessions; what they
    /// wait for ends with an unknown outcome.
    Restored(Restored),
    /// Writes a namespace, a kind or an instance as a stream.
    Export(Export),
    /// Reads such a stream. An interrupted import goes on when it is begun again; one that will not is
    /// abandoned.
    Import(Import),
    /// Shows instances live, on a terminal: sort, filter, open, purge and retry with keys.
    Top(Top),
    /// Prints the completions for a shell.
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// An instance.
#[derive(Debug, Clone, Args)]
pub(crate) struct Named {
    #[arg(value_name = "KIND", value_parser = kind)]
    kind: String,
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
}

impl Named {
    pub(crate) fn instance(&self) -> Result<InstanceId, crate::Failure> {
        instance(&self.kind, &self.id)
    }
}

/// Whether it is meant.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Sure {
    /// Does not ask.
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Only shows what would be done.
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only instances of this kind.
    #[arg(value_name = "KIND", value_parser = kind)]
    pub(crate) kind: Option<String>,
    /// Only those that do not progress.
    #[arg(long)]
    pub(crate) stuck: bool,
    /// How old a message must be, or a lock that nobody holds, to be called stuck for its age alone.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration, requires = "stuck")]
    pub(crate) older_than: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Only what lies here: orders["a b"][7].price
    #[arg(value_name = "PATH", value_parser = path)]
    pub(crate) path: Option<Path>,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    pub(crate) named: Named,
    #[arg(value_name = "PATH", value_parser = path)]
    pub(crate) path: Path,
    /// The new value, as JSON. At a path of a map where nothing is, it becomes a new entry.
    #[arg(value_name = "JSON", value_parser = json, allow_negative_numbers = true, required_unless_present = "remove")]
    pub(crate) value: Option<Value>,
    /// Appends the value to the list at the path.
    #[arg(long)]
    pub(crate) append: bool,
    /// Removes the entry of a map, or the item of a list, at the path.
    #[arg(long, conflicts_with_all = ["value", "append", "change_type"])]
    pub(crate) remove: bool,
    /// Allows a value of another type, or a first entry; the server may be unable to read it.
    #[arg(long)]
    pub(crate) change_type: bool,
    #[command(flatten)]
    pub(crate) sure: Sure,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    pub(crate) named: Named,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Makes dead letters of them.
    #[arg(long)]
    pub(crate) to_dead: bool,
    #[command(flatten)]
    pub(crate) sure: Sure,
}

/// Which messages.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// The one with this stamp.
    #[arg(long, value_parser = stamp)]
    pub(crate) stamp: Option<Stamp>,
    /// The one at the head of the ordinary mailbox.
    #[arg(long)]
    pub(crate) head: bool,
    /// All that stand there now.
    #[arg(long)]
    pub(crate) all: bool,
    /// Those that were sent longer ago than this.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    /// Lists dead letters.
    Ls(Letters),
    /// Shows one dead letter.
    Show {
        #[command(flatten)]
        named: Named,
        #[arg(value_name = "STAMP", value_parser = stamp)]
        stamp: Stamp,
    },
    /// Puts dead letters back into their mailboxes, in their order.
    Retry(Disposal),
    /// Deletes dead letters.
    Purge(Disposal),
}

/// Which dead letters.
#[derive(Debug, Args)]
pub(crate) struct Letters {
    /// Of this kind.
    #[arg(value_name = "KIND", value_parser = kind)]
    pub(crate) kind: Option<String>,
    /// Of this instance.
    #[arg(value_name = "ID", value_parser = id)]
    pub(crate) id: Option<String>,
    /// The one with this stamp.
    #[arg(long, value_parser = stamp)]
    pub(crate) stamp: Option<Stamp>,
    /// Those that were given up longer ago than this.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Disposal {
    #[command(flatten)]
    pub(crate) letters: Letters,
    /// Of all kinds.
    #[arg(long, conflicts_with = "kind", required_unless_present = "kind")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) sure: Sure,
}

#[derive(Debug, Args)]
pub(crate) struct Cast {
    #[command(flatten)]
    pub(crate) named: Named,
    /// The name of the message.
    #[arg(value_name = "MESSAGE", value_parser = name)]
    pub(crate) message: String,
    /// The message.
    #[arg(value_name = "JSON", default_value = "null", value_parser = json, allow_negative_numbers = true)]
    pub(crate) payload: Value,
    /// Goes before ordinary messages, and passes pauses.
    #[arg(long)]
    pub(crate) priority: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Call {
    #[command(flatten)]
    pub(crate) sent: Cast,
    /// Asks a query, which changes nothing.
    #[arg(long)]
    pub(crate) query: bool,
    /// How long to wait for the reply.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lock {
    /// Who holds it, since when, and what it runs.
    Show(Named),
    /// Ends a lock: whatever its holder still does changes nothing.
    Break(Break),
}

#[derive(Debug, Args)]
pub(crate) struct Break {
    #[command(flatten)]
    pub(crate) named: Named,
    #[command(flatten)]
    pub(crate) then: Then,
    #[command(flatten)]
    pub(crate) sure: Sure,
}

/// What becomes of the message.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Then {
    /// Puts its message back to where it stood.
    #[arg(long)]
    pub(crate) retry: bool,
    /// Makes a dead letter of its message.
    #[arg(long)]
    pub(crate) dead: bool,
    /// Deletes its message.
    #[arg(long)]
    pub(crate) discard: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Switch {
    #[arg(value_name = "KIND", value_parser = kind)]
    pub(crate) kind: String,
    /// Without it, all instances of the kind.
    #[arg(value_name = "ID", value_parser = id)]
    pub(crate) id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    pub(crate) of: Switch,
    /// Why, for whoever comes by.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Doomed {
    #[command(flatten)]
    pub(crate) named: Named,
    #[command(flatten)]
    pub(crate) sure: Sure,
}

#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// The time between the looks. A process beats every five seconds or so.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) apart: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Mends what can be mended without losing anything.
    #[arg(long)]
    pub(crate) fix: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restored {
    #[command(flatten)]
    pub(crate) sure: Sure,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Only this kind.
    #[arg(value_name = "KIND", value_parser = kind)]
    pub(crate) kind: Option<String>,
    /// Only this instance.
    #[arg(value_name = "ID", value_parser = id)]
    pub(crate) id: Option<String>,
    /// Writes this file, which must not be there yet, instead of the standard output. An
    /// interrupted export goes on when it is begun again.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Only instances of this kind.
    #[arg(value_name = "KIND", value_parser = kind)]
    pub(crate) kind: Option<String>,
    /// The time between two looks.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = pace)]
    pub(crate) every: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Reads this file instead of the standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Allows a namespace that holds instances already.
    #[arg(long)]
    pub(crate) into_non_empty: bool,
    /// Reads nothing, and gives up an import that has not come to its end: another can begin then.
    #[arg(long, conflicts_with_all = ["file", "into_non_empty"])]
    pub(crate) abandon: bool,
    /// Does not ask.
    #[arg(long, short, requires = "abandon")]
    yes: bool,
    /// Only shows what would be abandoned.
    #[arg(long, requires = "abandon", conflicts_with = "yes")]
    dry_run: bool,
}

impl Import {
    pub(crate) fn sure(&self) -> Sure {
        Sure {
            yes: self.yes,
            dry_run: self.dry_run,
        }
    }
}

pub(crate) fn instance(kind: &str, id: &str) -> Result<InstanceId, crate::Failure> {
    InstanceId::new(kind, id).map_err(|error| crate::Failure::usage(error.to_string()))
}

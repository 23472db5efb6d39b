//! The command line.

use crate::cases;
use std::time::Duration;

pub enum Invocation {
    Measure(Arguments),
    /// This process is the server of a case with two processes.
    Serve {
        url: String,
        namespace: String,
    },
    /// This process answers in the case of two processes without abide.
    Echo {
        url: String,
    },
    Nothing,
}

pub struct Arguments {
    /// A file that is deleted afterwards unless given.
    pub store: Option<String>,
    /// How long each case is measured, unless it ends by itself.
    pub time: Duration,
    pub json: bool,
    /// All of them if empty.
    pub cases: Vec<String>,
    /// How many casts the drain cases queue.
    pub queued: u64,
    /// How many idle instances `many_idle` has in the store.
    pub instances: u64,
}

pub fn usage() -> String {
    format!(
        "usage: load [--store URL] [--seconds S] [--json] [--case NAME]... [--queued N] \
         [--instances N]\n\
         cases: {}",
        cases::NAMES.join(" ")
    )
}

pub fn parse(mut arguments: Vec<String>) -> Result<Invocation, String> {
    if arguments.is_empty() {
        return Ok(Invocation::Nothing);
    }
    // `cargo bench` adds it.
    arguments.retain(|argument| argument != "--bench");
    if let [flag, url, namespace] = arguments.as_slice()
        && flag == crate::processes::SERVE
    {
        let (url, namespace) = (url.clone(), namespace.clone());
        return Ok(Invocation::Serve { url, namespace });
    }
    if let [flag, url] = arguments.as_slice()
        && flag == crate::echo::ECHO
    {
        return Ok(Invocation::Echo { url: url.clone() });
    }
    let mut parsed = Arguments {
        store: None,
        time: Duration::from_secs(3),
        json: false,
        cases: Vec::new(),
        queued: 100_000,
        instances: 20_000,
    };
    let mut rest = arguments.into_iter();
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--store" => parsed.store = Some(value()?),
            "--seconds" => parsed.time = seconds(&value()?)?,
            "--json" => parsed.json = true,
            "--case" => parsed.cases.push(case(value()?)?),
            "--queued" => parsed.queued = number(&flag, &value()?)?,
            "--instances" => parsed.instances = number(&flag, &value()?)?,
            _ => return Err(format!("unknown argument {flag:?}")),
        }
    }
    Ok(Invocation::Measure(parsed))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("--seconds {text:?} is not a time"))
}

fn number(flag: &str, text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{flag} {text:?} is not a number above zero"))
}

fn case(name: String) -> Result<String, String> {
    if cases::NAMES.contains(&name.as_str()) {
        Ok(name)
    } else {
        Err(format!("there is no case {name:?}"))
    }
}

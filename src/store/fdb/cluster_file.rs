//! Finding the cluster file, and saying what is wrong with it.
//!
//! The client would fail as well, but with a code that names neither the file nor the mistake.
//! What is checked here is the form; only the client knows whether the cluster is there.

use crate::store::{StoreError, StoreErrorKind};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The client's own limit.
const MAX_BYTES: u64 = 60_000;

/// The environment variable that names the cluster file.
const VARIABLE: &str = "FDB_CLUSTER_FILE";

/// The file in the working directory that comes before the system's.
const LOCAL: &str = "fdb.cluster";

/// The form of a cluster file's one line.
const FORM: &str = "`description:id@host:port`, more `host:port` separated by commas";

/// The path of the cluster file, whose contents look right.
pub(super) fn find(path: &str) -> Result<String, StoreError> {
    let (path, origin) = locate(path)?;
    check(&path).map_err(|problem| invalid(&path, origin, &problem))?;
    Ok(path)
}

/// The path, and where it came from.
fn locate(path: &str) -> Result<(String, &'static str), StoreError> {
    if !path.is_empty() {
        return Ok((path.to_owned(), "given"));
    }
    if let Some(value) = std::env::var_os(VARIABLE) {
        let origin = "from `FDB_CLUSTER_FILE`";
        return match value.into_string() {
            Ok(value) if !value.is_empty() => Ok((value, origin)),
            Ok(_) => Err(invalid(
                "",
                origin,
                "the variable is set but empty: unset it",
            )),
            Err(value) => Err(invalid(
                &value.to_string_lossy(),
                origin,
                "the path is not UTF-8",
            )),
        };
    }
    if Path::new(LOCAL).exists() {
        return Ok((LOCAL.to_owned(), "in the working directory"));
    }
    let default = foundationdb::default_config_path().to_owned();
    Ok((default, "the default, as `FDB_CLUSTER_FILE` is not set"))
}

fn invalid(path: &str, origin: &str, problem: &str) -> StoreError {
    StoreError::new(StoreErrorKind::InvalidStore)
        .with_context(format!("cluster file `{path}` ({origin}): {problem}"))
}

fn check(path: &str) -> Result<(), String> {
    // The client takes a C string.
    if path.contains('\0') {
        return Err("the path contains a zero byte".to_owned());
    }
    let cannot = |error: std::io::Error| {
        format!("{error}; copy the file from a machine of the cluster, or name another one")
    };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut contents = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut contents))
        .map_err(cannot)?;
    if contents.len() as u64 > MAX_BYTES {
        return Err(format!(
            "it is longer than {MAX_BYTES} bytes, so it is something else"
        ));
    }
    let contents = String::from_utf8(contents)
        .map_err(|_| format!("it is not text; it should read {FORM}"))?;
    check_contents(&contents)
}

/// A connection string, spread over any number of lines, between comments.
fn check_contents(contents: &str) -> Result<(), String> {
    let connection: String = contents
        .lines()
        .map(|line| line.split_once('#').map_or(line, |(before, _)| before))
        .flat_map(str::split_whitespace)
        .collect();
    let Some((key, addresses)) = connection.split_once('@') else {
        return Err(format!("it should read {FORM}"));
    };
    let word = |text: &str, also: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    if !key
        .split_once(':')
        .is_some_and(|(text, id)| word(text, "_") && word(id, ""))
    {
        return Err(format!(
            "`{}` before the `@` is no `description:id` of letters and digits",
            shorten(key)
        ));
    }
    match addresses.split(',').find(|address| !is_address(address)) {
        Some(wrong) => Err(format!(
            "`{}` is not an address `host:port`",
            shorten(wrong)
        )),
        None => Ok(()),
    }
}

/// `host:port`, perhaps with the suffix of an encrypted connection. Lenient about the host: names,
/// IPv4 and bracketed IPv6 addresses.
fn is_address(address: &str) -> bool {
    let address = address.strip_suffix("(fromHostname)").unwrap_or(address);
    let address = address.strip_suffix(":tls").unwrap_or(address);
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let host_is_whole = host.starts_with('[') == host.ends_with(']');
        let colons_are_bracketed = host.starts_with('[') || !host.contains(':');
        !host.is_empty()
            && host_is_whole
            && colons_are_bracketed
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

/// The beginning of what a file holds, fit for a message.
fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests;

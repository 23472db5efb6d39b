//! What must be absent: a lower layer that names an upper one, and what belongs to one place only.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    assert!(found.len() > 10, "the sources were not found");
    found
}

/// The lines of code, without comments, in which `word` stands outside the paths that `allowed`
/// admits.
fn offenders(word: &str, allowed: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut offenders = Vec::new();
    for (path, text) in sources() {
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_string_lossy()
            .replace('\\', "/");
        if name.ends_with("tests.rs") || allowed.iter().any(|allowed| name.starts_with(allowed)) {
            continue;
        }
        // Inline test modules stand at the end of their files.
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            if line.contains(word) && !line.trim_start().starts_with("//") {
                offenders.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    offenders
}

fn assert_absent(word: &str, allowed: &[&str]) {
    let offenders = offenders(word, allowed);
    assert!(
        offenders.is_empty(),
        "`{word}` does not belong here:\n{}",
        offenders.join("\n")
    );
}

#[test]
fn the_check_itself_finds_what_is_there() {
    assert!(!offenders("pub trait Transaction:", &[]).is_empty());
    assert!(offenders("pub trait Transaction:", &["store/mod.rs"]).is_empty());
}

#[test]
fn foundationdb_is_named_by_its_backend_only() {
    assert_absent("foundationdb::", &["store/fdb/", "testing/fdb.rs"]);
}

#[test]
fn key_bytes_are_spelled_in_one_place() {
    assert_absent("foundationdb_tuple", &["durable/keys"]);
}

#[test]
fn tokio_is_the_environments_business() {
    assert_absent("tokio::", &["bin/", "env.rs", "node/", "testing/"]);
}

/// So the steps of every operation can run wherever there is an environment: in the simulation, or in
/// another simulator.
#[test]
fn clocks_threads_and_randomness_come_from_the_environment() {
    // The backends have threads of their own, and whoever blocks a thread for a call parks it.
    let apart = ["bin/", "env.rs", "store/fdb/", "store/sqlite/", "testing/"];
    for word in ["Instant::now", "SystemTime::now", "rand::rng", "thread_rng"] {
        assert_absent(word, &apart);
    }
    let apart = [&apart[..], &["node/", "server/blocking.rs"]].concat();
    assert_absent("thread::", &apart);
}

/// The lower layers, and what they must not name.
const LAYERS: [(&str, &[&str]); 9] = [
    (
        "store/",
        &[
            "crate::admin",
            "crate::codec",
            "crate::durable",
            "crate::id",
            "crate::server",
            "crate::testing",
        ],
    ),
    (
        "codec/",
        &[
            "crate::admin",
            "crate::durable",
            "crate::env",
            "crate::id",
            "crate::server",
            "crate::store",
            "crate::testing",
        ],
    ),
    (
        "collections/",
        &[
            "crate::client",
            "crate::consumer",
            "crate::durable",
            "crate::node",
            "crate::server",
            "crate::store",
            "crate::testing",
            "crate::wake",
        ],
    ),
    (
        "durable/",
        &[
            "crate::admin",
            "crate::client",
            "crate::consumer",
            "crate::node",
            "crate::server",
            "crate::testing",
            "crate::wake",
        ],
    ),
    (
        "wake.rs",
        &[
            "crate::admin",
            "crate::client",
            "crate::consumer",
            "crate::node",
            "crate::server",
            "crate::testing",
        ],
    ),
    (
        "admin/",
        &["crate::consumer", "crate::node", "crate::testing"],
    ),
    (
        "consumer/",
        &[
            "crate::admin",
            "crate::client",
            "crate::node",
            "crate::testing",
        ],
    ),
    (
        "client/",
        &[
            "crate::admin",
            "crate::consumer",
            "crate::node",
            "crate::testing",
        ],
    ),
    (
        "server/",
        &[
            "crate::admin",
            "crate::client",
            "crate::consumer",
            "crate::node",
            "crate::testing",
        ],
    ),
];

#[test]
fn no_layer_names_one_above_it() {
    let everything = [
        "admin/",
        "bin/",
        "client/",
        "codec/",
        "collections/",
        "consumer/",
        "docs/",
        "durable/",
        "env.rs",
        "id.rs",
        "lib.rs",
        "node/",
        "server/",
        "store/",
        "testing/",
        "wake.rs",
    ];
    for (layer, upper) in LAYERS {
        let others: Vec<&str> = everything
            .into_iter()
            .filter(|part| *part != layer)
            .collect();
        for name in upper {
            assert_absent(name, &others);
        }
    }
}

#[test]
fn there_is_one_retry_loop() {
    // The backend asks FoundationDB's client what its codes mean.
    let classifies = ["store/error.rs", "store/fdb/errors.rs"];
    let loops = ["store/retry.rs", "testing/"];
    assert_absent("is_retryable()", &[classifies, loops].concat());
}

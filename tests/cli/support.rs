//! A store for the server to operate on, and the command.

pub(crate) use crate::till::{Add, Hold, Risky, Till, Tilling};
use abide::{KindOptions, Node, Poison};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Instantiates tests, functions of a [`World`], on every store that several processes can use.
macro_rules! on_each_store {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(crate::support::World::sqlite()).await;
                }
            )*
        }

        #[cfg(feature = "fdb")]
        mod fdb {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    // It has said so where there is no cluster.
                    if let Some(world) = crate::support::World::fdb(stringify!($test)) {
                        super::$test(world).await;
                    }
                }
            )*
        }
    };
}

/// A namespace of a store.
pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) namespace: String,
    pub(crate) dir: TempDir,
}

/// What a run of the command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) fn sqlite() -> Self {
        let dir = TempDir::new().unwrap();
        Self {
            url: format!("sqlite:{}", dir.path().join("till.db").display()),
            namespace: "abide".to_owned(),
            dir,
        }
    }

    #[cfg(feature = "fdb")]
    pub(crate) fn fdb(test: &str) -> Option<Self> {
        let cluster = abide::testing::fdb::TestCluster::get()?;
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        Some(Self {
            url: cluster.url(),
            namespace: format!("cli/{test}/{}", since.as_nanos()),
            dir: TempDir::new().unwrap(),
        })
    }

    pub(crate) async fn serving(&self, till: Till, poison: Poison) -> Node {
        let (first, longest) = (Duration::from_millis(10), Duration::from_millis(40));
        let options = KindOptions::default()
            .attempts(2)
            .backoff(first, longest)
            .poison(poison);
        Node::builder(self.url.as_str())
            .namespace(self.namespace.as_str())
            .serve_with(till, options)
            .start()
            .await
            .unwrap()
    }

    pub(crate) async fn producer(&self) -> Node {
        let builder = Node::builder(self.url.as_str()).namespace(self.namespace.as_str());
        builder.start().await.unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = abide();
        command
            .args(["--store", &self.url, "--namespace", &self.namespace])
            .args(arguments);
        command
    }

    /// Runs the command without a terminal.
    pub(crate) fn abide(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.command(arguments))
    }

    /// Runs a command that succeeds, and returns what it prints.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let ran = self.abide(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran.out
    }

    /// Waits until what a command prints pleases.
    pub(crate) async fn until(&self, arguments: &[&str], pleases: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let last = self.abide(arguments).out;
            if pleases(&last) {
                return last;
            }
            // Longer than a lease.
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{arguments:?} prints {last}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub(crate) fn abide() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_abide"));
    command.env_remove("ABIDE_STORE").stdin(Stdio::null());
    command
}

pub(crate) fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let ran = Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!ran.err.contains("panicked"), "{ran:?}");
    ran
}

pub(crate) async fn stop(node: Node) {
    assert!(node.shutdown(Duration::from_secs(10)).await);
}

/// Text with what differs from run to run replaced: hexadecimal names, times, ages, and how often
/// something was renewed.
pub(crate) fn normalised(text: &str) -> String {
    let mut normal = without_names(text);
    for counter in ["\"nonce\":", "renewals      "] {
        let mut parts = normal.split(counter);
        let first = parts.next().unwrap_or_default().to_owned();
        normal = parts.fold(first, |text, rest| {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{text}{counter}1{rest}")
        });
    }
    normal
}

fn without_names(text: &str) -> String {
    let mut normal = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let word = &rest[..end.max(first.len_utf8())];
        let all = |of: fn(char) -> bool| word.chars().all(of);
        let is_age = word
            .strip_suffix('s')
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
        normal += match word {
            _ if word.len() >= 20 && all(|c| c.is_ascii_hexdigit()) => match word.len() {
                20 => "<commit>",
                24 => "<stamp>",
                _ => "<session>",
            },
            _ if word.len() >= 13 && all(|c| c.is_ascii_digit()) => "<ms>",
            _ if is_age => "0s",
            word => word,
        };
        rest = &rest[word.len()..];
    }
    normal
}

//! A server to operate on, a store for it, and the command.

use abide::server::{
    Context, Failure, Handle, LockContext, Locked, Message, Outcome, Protocol, Query, ReadContext,
    Routes, Server,
};
use abide::{KindOptions, Node, Poison};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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

pub(crate) struct Tilling;

impl Protocol for Tilling {
    const KIND: &'static str = "till";
}

/// Adds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Add {
    pub(crate) n: u64,
}

impl Message<Tilling> for Add {
    const NAME: &'static str = "add";
    type Reply = u64;
}

/// Adds, unless the handler is broken.
#[derive(Serialize, Deserialize)]
pub(crate) struct Risky {
    pub(crate) n: u64,
}

impl Message<Tilling> for Risky {
    const NAME: &'static str = "risky";
    type Reply = u64;
}

/// Holds the lock for long.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hold {}

impl Message<Tilling> for Hold {
    const NAME: &'static str = "hold";
    type Reply = u64;
}

/// Asks for the sum.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sum {}

impl Message<Tilling> for Sum {
    const NAME: &'static str = "sum";
    type Reply = u64;
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Drawer {
    sum: u64,
    added: Vec<u64>,
    owner: String,
    notes: BTreeMap<String, u64>,
}

/// A till, of which one version is broken.
pub(crate) struct Till {
    pub(crate) broken: bool,
}

impl Server for Till {
    type Protocol = Tilling;
    type State = Drawer;

    fn init(&self, _cx: &ReadContext<'_>) -> Result<Drawer, Failure> {
        Ok(Drawer {
            owner: "anna".to_owned(),
            notes: BTreeMap::from([("float".to_owned(), 100)]),
            ..Drawer::default()
        })
    }

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes
            .handle::<Add>()
            .handle::<Risky>()
            .locked::<Hold>()
            .query::<Sum>()
    }
}

impl Drawer {
    fn add(&mut self, n: u64) -> Result<Outcome<u64>, Failure> {
        self.sum += n;
        self.added.push(n);
        Ok(Outcome::Reply(self.sum))
    }
}

impl Handle<Add> for Till {
    fn handle(
        &self,
        drawer: &mut Drawer,
        Add { n }: Add,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        drawer.add(n)
    }
}

impl Handle<Risky> for Till {
    fn handle(
        &self,
        drawer: &mut Drawer,
        Risky { n }: Risky,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        match self.broken {
            true => Err(Failure::fail("the scale is broken")),
            false => drawer.add(n),
        }
    }
}

impl Handle<Hold> for Till {
    fn handle(
        &self,
        _drawer: &mut Drawer,
        _hold: Hold,
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Lock)
    }
}

impl Locked<Hold> for Till {
    type Output = ();

    async fn run(&self, _: Drawer, _hold: Hold, _cx: LockContext) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_secs(600)).await;
        Ok(())
    }

    fn close(
        &self,
        drawer: &mut Drawer,
        _hold: Hold,
        _output: (),
        _cx: &mut Context<'_, Self>,
    ) -> Result<Outcome<u64>, Failure> {
        Ok(Outcome::Reply(drawer.sum))
    }
}

impl Query<Sum> for Till {
    fn query(&self, drawer: &Drawer, _sum: Sum, _cx: &ReadContext<'_>) -> Result<u64, Failure> {
        Ok(drawer.sum)
    }
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

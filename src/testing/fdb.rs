//! A FoundationDB cluster to test against: one that is there, or a throw-away one.
//!
//! ```no_run
//! use abide::testing::fdb::TestCluster;
//!
//! let Some(cluster) = TestCluster::get() else { return };
//! let url = cluster.url(); // for `abide::store::open`
//! ```

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How long a new cluster may take until it is available.
const START_WAIT: Duration = Duration::from_secs(60);

/// Holds a server for as long as its standard input is open: so the server ends with the process
/// that started it, even when that is killed, and its directory with it.
///
/// It obeys `kill` and `start`, one a line, and answers each with a line. The signals of a terminal
/// reach the whole process group; it ignores them, since it has to clean up afterwards.
const SUPERVISOR: &str = r#"
dir=$1; shift; server=
trap '' INT TERM HUP QUIT
start() { "$@" </dev/null >>"$dir/server.out" 2>&1 & server=$!; }
stop() { [ -z "$server" ] || { kill -9 "$server"; wait "$server"; } 2>/dev/null; server=; }
start "$@"
while read -r command; do
  case $command in
    kill) stop ;;
    start) stop; start "$@" ;;
  esac
  echo done
done
stop
rm -rf "$dir"
"#;

/// The storage engine of a throw-away cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `ssd`: B-tree files, written through. What real clusters use, and what survives
    /// [`TestCluster::kill`].
    Ssd,
    /// `memory`: in memory, with a log on disk.
    Memory,
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Self::Ssd => "ssd",
            Self::Memory => "memory",
        }
    }
}

/// A cluster for tests.
#[derive(Debug)]
pub struct TestCluster {
    cluster_file: PathBuf,
    /// None for a cluster that others started.
    server: Option<Mutex<Server>>,
}

/// The supervisor of a throw-away server. Dropping it closes the pipe, which ends the server.
#[derive(Debug)]
struct Server {
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    supervisor: Child,
}

impl TestCluster {
    /// The cluster that all tests of this process share.
    ///
    /// That is the one whose cluster file `ABIDE_FDB_CLUSTER_FILE` or `FDB_CLUSTER_FILE` names; or,
    /// if both are unset or empty and `fdbserver` and `fdbcli` are installed, a throw-away one with
    /// one server on the loopback interface, started by the first call and ended with this process.
    ///
    /// Returns `None` if there is neither, and says so once on standard error.
    ///
    /// # Panics
    ///
    /// If there is neither and `ABIDE_REQUIRE_FDB` is `1`; and if there are servers but no cluster
    /// can be started with them: a test that cannot run must not pass.
    #[must_use]
    pub fn get() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<TestCluster>> = OnceLock::new();
        SHARED.get_or_init(Self::find).as_ref()
    }

    #[allow(
        clippy::panic,
        reason = "documented: a test that cannot run must not pass"
    )]
    fn find() -> Option<Self> {
        for variable in ["ABIDE_FDB_CLUSTER_FILE", "FDB_CLUSTER_FILE"] {
            // An empty path would mean the system's default cluster, which may be in production.
            if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
                return Some(Self {
                    cluster_file: path.into(),
                    server: None,
                });
            }
        }
        let missing = ["fdbserver", "fdbcli"]
            .into_iter()
            .find(|name| on_path(name).is_none());
        let Some(missing) = missing else {
            return match Self::start(Engine::Ssd) {
                Ok(cluster) => Some(cluster),
                Err(error) => panic!("no FoundationDB cluster could be started: {error}"),
            };
        };
        let reason = format!(
            "NO FOUNDATIONDB: `{missing}` is not on PATH and neither ABIDE_FDB_CLUSTER_FILE nor \
             FDB_CLUSTER_FILE names a file; tests that need a cluster do nothing"
        );
        if std::env::var_os("ABIDE_REQUIRE_FDB").is_some_and(|value| value == "1") {
            panic!("{reason}, but ABIDE_REQUIRE_FDB is 1");
        }
        // Not `eprintln`, which the test harness would capture.
        let _ = writeln!(io::stderr(), "{reason}");
        None
    }

    /// Starts a throw-away cluster of one server, for a test that kills it. It ends when it is
    /// dropped, or with this process.
    ///
    /// # Errors
    ///
    /// When `fdbserver` or `fdbcli` is not installed, or no cluster is available within a minute.
    pub fn start(engine: Engine) -> io::Result<Self> {
        // An ephemeral port that was just free. Another process could take it first; the cluster
        // would then not become available, which is an error and no wrong result.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let dir = std::env::temp_dir().join(format!("abide-fdb-{}-{port}", std::process::id()));
        std::fs::create_dir_all(dir.join("data"))?;
        std::fs::create_dir_all(dir.join("log"))?;
        let cluster_file = dir.join("fdb.cluster");
        std::fs::write(&cluster_file, format!("abide:test@127.0.0.1:{port}\n"))?;
        let server = Server::start(&dir, &cluster_file, port)?;
        let cluster = Self {
            cluster_file,
            server: Some(Mutex::new(server)),
        };
        cluster.cli(&format!("configure new single {}", engine.name()))?;
        cluster.wait_until_available()?;
        Ok(cluster)
    }

    /// The path of the cluster file.
    #[must_use]
    pub fn cluster_file(&self) -> &Path {
        &self.cluster_file
    }

    /// The URL for [`store::open`](crate::store::open).
    #[must_use]
    pub fn url(&self) -> String {
        format!("fdb:{}", self.cluster_file.display())
    }

    /// Kills the server as `kill -9` does. Its data remains.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) for a cluster that others started.
    pub fn kill(&self) -> io::Result<()> {
        self.command("kill")
    }

    /// Kills the server, if it runs, starts it on the same data, and waits until the cluster is
    /// available.
    ///
    /// # Errors
    ///
    /// As [`kill`](Self::kill) and [`start`](Self::start).
    pub fn restart(&self) -> io::Result<()> {
        self.command("start")?;
        self.wait_until_available()
    }

    fn command(&self, command: &str) -> io::Result<()> {
        let Some(server) = &self.server else {
            let message = "this cluster was not started by the test and is not killed by it";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        };
        server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .command(command)
    }

    /// Runs a command of FoundationDB's command line and returns what it printed.
    ///
    /// # Errors
    ///
    /// When `fdbcli` is not installed, or the command fails or takes longer than a minute.
    pub fn cli(&self, command: &str) -> io::Result<String> {
        self.cli_within(command, START_WAIT)
    }

    fn cli_within(&self, command: &str, wait: Duration) -> io::Result<String> {
        let output = Command::new("fdbcli")
            .arg("-C")
            .arg(&self.cluster_file)
            .args(["--timeout", &wait.as_secs().to_string(), "--exec", command])
            .stdin(Stdio::null())
            .output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        let server = self.cluster_file.with_file_name("server.out");
        let server = std::fs::read_to_string(server).unwrap_or_default();
        Err(io::Error::other(format!(
            "`{command}`: {printed}; the server said: {server}"
        )))
    }

    fn wait_until_available(&self) -> io::Result<()> {
        let begun = crate::env::monotonic();
        loop {
            let status = self.cli_within("status minimal", Duration::from_secs(5));
            if matches!(&status, Ok(status) if status.contains("The database is available")) {
                return Ok(());
            }
            if crate::env::monotonic() - begun >= START_WAIT {
                return status.and_then(|status| Err(io::Error::other(status)));
            }
            pause();
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "waits for a process, outside any environment"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

impl Server {
    fn start(dir: &Path, cluster_file: &Path, port: u16) -> io::Result<Self> {
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .arg(dir)
            .args(["fdbserver", "-p", &format!("127.0.0.1:{port}"), "-C"])
            .arg(cluster_file)
            .arg("-d")
            .arg(dir.join("data"))
            .arg("-L")
            .arg(dir.join("log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let piped = || io::Error::other("the supervisor has no pipe");
        let answers = supervisor.stdout.take().ok_or_else(piped)?;
        Ok(Self {
            commands: Some(supervisor.stdin.take().ok_or_else(piped)?),
            answers: BufReader::new(answers),
            supervisor,
        })
    }

    fn command(&mut self, command: &str) -> io::Result<()> {
        let Some(commands) = &mut self.commands else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        writeln!(commands, "{command}")?;
        let mut answer = String::new();
        match self.answers.read_line(&mut answer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.supervisor.wait();
    }
}

/// Where a program is that would be found by its name.
fn on_path(name: &str) -> Option<PathBuf> {
    let path: OsString = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

//! A store whose transactions each live in a process of their own.
//!
//! The processes are the test binary again, running only the test `worker`. They take one request
//! per line on standard input and answer with one line each: `@`, then MessagePack in hexadecimal,
//! so that whatever else a test binary prints does not matter.

use crate::codec;
use crate::store::{
    CommitStamp, Committed, Isolation, KeyRange, KeyValue, RangeRead, Store, StoreError,
    StoreErrorKind, StoreFuture, Transaction, Tx, Version,
};
use bytes::Bytes;
use futures_channel::oneshot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Names the store's URL to a worker, and tells a test binary that it is one.
const WORKER: &str = "ABIDE_CONFORMANCE_WORKER";

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    id: u64,
    operation: Operation,
}

#[derive(Debug, Serialize, Deserialize)]
enum Operation {
    Begin,
    Get {
        key: Bytes_,
        snapshot: bool,
    },
    GetRange {
        begin: Bytes_,
        end: Bytes_,
        limit: u64,
        reverse: bool,
        snapshot: bool,
    },
    Set(Bytes_, Bytes_),
    Clear(Bytes_),
    ClearRange(Bytes_, Bytes_),
    Add(Bytes_, Bytes_),
    CompareAndClear(Bytes_, Bytes_),
    StampedKey(Bytes_, u64, Bytes_),
    StampedValue(Bytes_, Bytes_, u64),
    Conflict(Bytes_, Bytes_),
    ReadVersion,
    SetReadVersion(u64),
    Watch(Bytes_),
    Commit,
    Drop,
}

type Bytes_ = serde_bytes::ByteBuf;

#[derive(Debug, Serialize, Deserialize)]
struct Response {
    id: u64,
    result: Result<Answer, (String, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Value(Option<Bytes_>),
    Rows(Vec<(Bytes_, Bytes_)>),
    Version(u64),
    Committed(Option<Bytes_>),
    Done,
}

fn to_line<T: Serialize>(message: &T) -> String {
    let bytes = codec::to_payload(message).expect("the protocol's own types");
    let mut line = String::with_capacity(bytes.len() * 2 + 2);
    line.push('@');
    for byte in bytes {
        line.push_str(&format!("{byte:02x}"));
    }
    line.push('\n');
    line
}

fn from_line<T: DeserializeOwned>(line: &str) -> Option<T> {
    let hex = line.trim_end().split_once('@')?.1.as_bytes();
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let bytes: Option<Vec<u8>> = hex
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect();
    codec::from_payload(&bytes?).ok()
}

// ------------------------------------------------------------------ the test's side

/// The processes that carry no transaction now.
pub(super) struct Processes {
    url: String,
    worker: String,
    idle: Arc<Mutex<Vec<Process>>>,
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processes")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Processes {
    pub(super) fn new(url: String, worker: &str) -> Self {
        // A test's name is its module path without the crate.
        let worker = worker
            .split_once("::")
            .map_or(worker, |(_, test)| test)
            .to_owned();
        Self {
            url,
            worker,
            idle: Arc::default(),
        }
    }
}

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Response>>>>;

struct Process {
    child: Child,
    input: ChildStdin,
    pending: Pending,
    next: u64,
}

impl Process {
    fn start(url: &str, worker: &str) -> Self {
        let binary = std::env::current_exe().expect("the path of the test binary");
        let mut child = Command::new(binary)
            .args([worker, "--exact", "--nocapture", "--test-threads=1"])
            .env(WORKER, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting a worker");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let pending = Pending::default();
        let answered = Arc::clone(&pending);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(response) = from_line::<Response>(&line) {
                    let waiting = answered.lock().unwrap().remove(&response.id);
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(response);
                    }
                }
            }
            // The worker has ended: whoever waits for an answer is told by the dropped sender.
            answered.lock().unwrap().clear();
        });
        Self {
            child,
            input,
            pending,
            next: 0,
        }
    }

    /// Sends a request that has an answer.
    fn ask(&mut self, operation: Operation) -> oneshot::Receiver<Response> {
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().unwrap().insert(self.next, sender);
        self.tell(operation);
        receiver
    }

    /// Sends a request that has none.
    fn tell(&mut self, operation: Operation) {
        let request = Request {
            id: self.next,
            operation,
        };
        self.next += 1;
        if self.input.write_all(to_line(&request).as_bytes()).is_err() {
            // The worker has died. Its reader may have gone before this request came.
            self.pending.lock().unwrap().clear();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Store for Processes {
    fn begin(&self) -> Result<Tx, StoreError> {
        let idle = {
            let mut idle = self.idle.lock().unwrap();
            // The one that has been idle longest, and only if another stays idle: so what follows a
            // transaction, a change that its watch waits for, comes from another process.
            (idle.len() > 1).then(|| idle.remove(0))
        };
        let mut process = idle.unwrap_or_else(|| Process::start(&self.url, &self.worker));
        process.tell(Operation::Begin);
        Ok(Arc::new(Remote {
            process: Mutex::new(Some(process)),
            idle: Arc::clone(&self.idle),
        }))
    }
}

/// A transaction in another process, which carries no other meanwhile.
struct Remote {
    process: Mutex<Option<Process>>,
    idle: Arc<Mutex<Vec<Process>>>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Watches of this transaction stay pending in the process and are answered all the same.
        if let Some(mut process) = self.process.get_mut().unwrap().take() {
            process.tell(Operation::Drop);
            self.idle.lock().unwrap().push(process);
        }
    }
}

impl Remote {
    fn tell(&self, operation: Operation) {
        self.process
            .lock()
            .unwrap()
            .as_mut()
            .expect("here until the drop")
            .tell(operation);
    }

    fn call<T: Send + 'static>(
        &self,
        operation: Operation,
        read: impl FnOnce(Answer) -> Option<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let mut process = self.process.lock().unwrap();
        let response = process
            .as_mut()
            .expect("here until the drop")
            .ask(operation);
        drop(process);
        Box::pin(async move {
            let response = response.await.map_err(|_| {
                StoreError::new(StoreErrorKind::Failed).with_context("the worker has died")
            })?;
            let answer = response.result.map_err(|(kind, message)| {
                let kind = KINDS.iter().find(|known| format!("{known:?}") == kind);
                StoreError::new(*kind.expect("a kind of error")).with_context(message)
            })?;
            Ok(read(answer).expect("an answer to this question"))
        })
    }
}

const KINDS: [StoreErrorKind; 13] = [
    StoreErrorKind::Conflict,
    StoreErrorKind::TooOld,
    StoreErrorKind::Unavailable,
    StoreErrorKind::MaybeCommitted,
    StoreErrorKind::Locked,
    StoreErrorKind::KeyTooLarge,
    StoreErrorKind::ValueTooLarge,
    StoreErrorKind::TransactionTooLarge,
    StoreErrorKind::Unreadable,
    StoreErrorKind::InvalidCall,
    StoreErrorKind::InvalidStore,
    StoreErrorKind::Corrupt,
    StoreErrorKind::Failed,
];

fn buf(bytes: &[u8]) -> Bytes_ {
    Bytes_::from(bytes)
}

fn size(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Transaction for Remote {
    fn get(&self, key: &[u8], isolation: Isolation) -> StoreFuture<Option<Bytes>> {
        let snapshot = isolation == Isolation::Snapshot;
        self.call(
            Operation::Get {
                key: buf(key),
                snapshot,
            },
            |answer| match answer {
                Answer::Value(value) => Some(value.map(|value| value.into_vec().into())),
                _ => None,
            },
        )
    }

    fn get_range(&self, read: RangeRead) -> StoreFuture<Vec<KeyValue>> {
        let operation = Operation::GetRange {
            begin: buf(&read.range.begin),
            end: buf(&read.range.end),
            limit: size(read.limit),
            reverse: read.reverse,
            snapshot: read.isolation == Isolation::Snapshot,
        };
        self.call(operation, |answer| match answer {
            Answer::Rows(rows) => Some(
                rows.into_iter()
                    .map(|(key, value)| KeyValue {
                        key: key.into_vec().into(),
                        value: value.into_vec().into(),
                    })
                    .collect(),
            ),
            _ => None,
        })
    }

    fn set(&self, key: &[u8], value: &[u8]) {
        self.tell(Operation::Set(buf(key), buf(value)));
    }

    fn clear(&self, key: &[u8]) {
        self.tell(Operation::Clear(buf(key)));
    }

    fn clear_range(&self, range: &KeyRange) {
        self.tell(Operation::ClearRange(buf(&range.begin), buf(&range.end)));
    }

    fn add(&self, key: &[u8], operand: &[u8]) {
        self.tell(Operation::Add(buf(key), buf(operand)));
    }

    fn compare_and_clear(&self, key: &[u8], expected: &[u8]) {
        self.tell(Operation::CompareAndClear(buf(key), buf(expected)));
    }

    fn set_versionstamped_key(&self, template: &[u8], offset: usize, value: &[u8]) {
        self.tell(Operation::StampedKey(
            buf(template),
            size(offset),
            buf(value),
        ));
    }

    fn set_versionstamped_value(&self, key: &[u8], template: &[u8], offset: usize) {
        self.tell(Operation::StampedValue(
            buf(key),
            buf(template),
            size(offset),
        ));
    }

    fn add_read_conflict(&self, range: &KeyRange) {
        self.tell(Operation::Conflict(buf(&range.begin), buf(&range.end)));
    }

    fn read_version(&self) -> StoreFuture<Version> {
        self.call(Operation::ReadVersion, |answer| match answer {
            Answer::Version(version) => Some(Version(version)),
            _ => None,
        })
    }

    fn set_read_version(&self, version: Version) {
        self.tell(Operation::SetReadVersion(version.0));
    }

    fn watch(&self, key: &[u8]) -> StoreFuture<()> {
        self.call(Operation::Watch(buf(key)), |answer| {
            matches!(answer, Answer::Done).then_some(())
        })
    }

    fn commit(&self) -> StoreFuture<Option<Committed>> {
        self.call(Operation::Commit, |answer| match answer {
            Answer::Committed(stamp) => Some(stamp.map(|stamp| {
                let stamp = CommitStamp::from_bytes(stamp[..].try_into().expect("ten bytes"));
                Committed {
                    version: stamp.version(),
                    stamp,
                }
            })),
            _ => None,
        })
    }
}

// ------------------------------------------------------------------ the worker's side

/// Serves one transaction after the other, if this process is a worker of the conformance suite;
/// otherwise returns at once. For [`store_conformance_across_processes!`].
///
/// # Panics
///
/// When the store cannot be opened or a request is not one.
///
/// [`store_conformance_across_processes!`]: crate::store_conformance_across_processes
pub fn serve_worker() {
    let Ok(url) = std::env::var(WORKER) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a tokio runtime");
    let store = runtime
        .block_on(crate::store::open(&url))
        .expect("opening the store");
    let mut tx = store.begin().expect("begin");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Request { id, operation } = from_line(&line).expect("a request");
        if let Some(answer) = perform(store.as_ref(), &mut tx, operation) {
            runtime.spawn(async move { respond(id, answer.await) });
        }
    }
    drop(tx);
    drop(store);
    // The test has closed the pipe; watches that nobody will see fire end with the process.
    runtime.shutdown_background();
}

fn respond(id: u64, result: Result<Answer, StoreError>) {
    let result = result.map_err(|error| (format!("{:?}", error.kind()), error.to_string()));
    let line = to_line(&Response { id, result });
    // One write per line: answers of several tasks must not mix.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
    let _ = std::io::stdout().lock().flush();
}

/// Passes a request on to the store, in the order of the requests; what there is to answer comes
/// later.
fn perform(store: &dyn Store, tx: &mut Tx, operation: Operation) -> Option<StoreFuture<Answer>> {
    let isolation = |snapshot| {
        if snapshot {
            Isolation::Snapshot
        } else {
            Isolation::Serializable
        }
    };
    let range = |begin: Bytes_, end: Bytes_| KeyRange::new(begin.into_vec(), end.into_vec());
    let offset = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
    match operation {
        Operation::Begin => *tx = store.begin().expect("begin"),
        // Forgets the transaction: its writes, its conflicts, what it holds of the store.
        Operation::Drop => *tx = store.begin().expect("begin"),
        Operation::Get { key, snapshot } => {
            let value = tx.get(&key, isolation(snapshot));
            return Some(Box::pin(async move {
                Ok(Answer::Value(value.await?.map(|value| buf(&value))))
            }));
        }
        Operation::GetRange {
            begin,
            end,
            limit,
            reverse,
            snapshot,
        } => {
            let rows = tx.get_range(RangeRead {
                range: range(begin, end),
                limit: offset(limit),
                reverse,
                isolation: isolation(snapshot),
            });
            return Some(Box::pin(async move {
                let rows = rows.await?;
                Ok(Answer::Rows(
                    rows.iter()
                        .map(|row| (buf(&row.key), buf(&row.value)))
                        .collect(),
                ))
            }));
        }
        Operation::Set(key, value) => tx.set(&key, &value),
        Operation::Clear(key) => tx.clear(&key),
        Operation::ClearRange(begin, end) => tx.clear_range(&range(begin, end)),
        Operation::Add(key, operand) => tx.add(&key, &operand),
        Operation::CompareAndClear(key, expected) => tx.compare_and_clear(&key, &expected),
        Operation::StampedKey(template, at, value) => {
            tx.set_versionstamped_key(&template, offset(at), &value);
        }
        Operation::StampedValue(key, template, at) => {
            tx.set_versionstamped_value(&key, &template, offset(at));
        }
        Operation::Conflict(begin, end) => tx.add_read_conflict(&range(begin, end)),
        Operation::SetReadVersion(version) => tx.set_read_version(Version(version)),
        Operation::ReadVersion => {
            let version = tx.read_version();
            return Some(Box::pin(
                async move { Ok(Answer::Version(version.await?.0)) },
            ));
        }
        Operation::Watch(key) => {
            let watch = tx.watch(&key);
            return Some(Box::pin(async move { watch.await.map(|()| Answer::Done) }));
        }
        Operation::Commit => {
            let commit = tx.commit();
            return Some(Box::pin(async move {
                let stamp = commit.await?.map(|commit| buf(commit.stamp.as_bytes()));
                Ok(Answer::Committed(stamp))
            }));
        }
    }
    None
}

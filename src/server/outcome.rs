//! What a handler answers: plain data, which tests compare.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The longest text of a [`Failure`], in bytes. It is stored with dead letters and attempts, and
/// travels to callers.
pub const MAX_FAILURE_BYTES: usize = 4_096;

/// What a handler decided.
///
/// ```
/// use abide::server::Outcome;
///
/// let seven: Outcome<u32> = Outcome::Reply(7);
/// assert_eq!(seven, 7.into());
/// assert_eq!(Outcome::done(), Outcome::Reply(()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an outcome does nothing unless the handler returns it"]
pub enum Outcome<R> {
    /// The message is handled; this is the reply. Whoever sent a cast does not see it.
    Reply(R),
    /// The message is handled, and another message's handler will give the reply, with the token that
    /// came with this outcome from [`Context::later`](super::Context::later).
    Later,
    /// The message needs work outside the transaction: take the instance's lock and call
    /// [`Locked::run`](super::Locked::run). What the handler changed before is committed together with the taking.
    ///
    /// Only for messages that are routed with [`Routes::locked`](super::Routes::locked); an error
    /// elsewhere.
    Lock,
    /// As [`Reply`](Self::Reply); and the node forgets the instance afterwards, as if it had been
    /// idle for long. Its state stays in the store; the next message loads it.
    Stop(R),
}

impl Outcome<()> {
    /// The reply of a message that has nothing to say.
    pub fn done() -> Self {
        Self::Reply(())
    }
}

impl<R> From<R> for Outcome<R> {
    fn from(reply: R) -> Self {
        Self::Reply(reply)
    }
}

/// What a failure means for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// An answer of the business: the state does not change, the caller is told at once, and the
    /// message is done. It is never tried again.
    Reject,
    /// Something is wrong: the state does not change, the message is tried again after a while, and
    /// becomes a dead letter when it has failed too often.
    Fail,
}

/// Why a handler did not do what the message asks for. Nothing it changed, sent or answered counts.
///
/// Any error becomes a failure of kind [`Fail`](FailureKind::Fail) through `?`. (That is why
/// `Failure` is not an error itself.)
///
/// ```
/// use abide::server::{Failure, FailureKind};
///
/// fn withdraw(balance: &mut u64, amount: &str) -> Result<(), Failure> {
///     let amount: u64 = amount.parse()?;
///     *balance = balance
///         .checked_sub(amount)
///         .ok_or_else(|| Failure::reject("the balance is too low"))?;
///     Ok(())
/// }
///
/// assert_eq!(withdraw(&mut 5, "7").unwrap_err().kind(), FailureKind::Reject);
/// assert_eq!(withdraw(&mut 5, "many").unwrap_err().kind(), FailureKind::Fail);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    kind: FailureKind,
    message: Arc<str>,
}

impl Failure {
    /// The message is refused, for good: see [`FailureKind::Reject`]. The caller gets the text, of
    /// which at most [`MAX_FAILURE_BYTES`] are kept.
    #[must_use]
    pub fn reject(message: impl AsRef<str>) -> Self {
        Self::new(FailureKind::Reject, message.as_ref())
    }

    /// The message could not be handled this time: see [`FailureKind::Fail`]. At most
    /// [`MAX_FAILURE_BYTES`] of the text are kept.
    #[must_use]
    pub fn fail(message: impl AsRef<str>) -> Self {
        Self::new(FailureKind::Fail, message.as_ref())
    }

    fn new(kind: FailureKind, message: &str) -> Self {
        let message = bounded(message).into();
        Self { kind, message }
    }

    /// The failure that a caught panic is.
    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        Self::fail(format!("panicked: {}", panic_text(payload)))
    }

    /// What it means for the message.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// Why, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            FailureKind::Reject => "rejected: ",
            FailureKind::Fail => "failed: ",
        })?;
        f.write_str(&self.message)
    }
}

impl<E: StdError> From<E> for Failure {
    /// The error with its sources, because none of them is stored.
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut next = error.source();
        // A chain longer than the text that is kept says nothing more.
        while let Some(source) = next.filter(|_| text.len() < MAX_FAILURE_BYTES) {
            text.push_str(": ");
            text.push_str(&source.to_string());
            next = source.source();
        }
        Self::fail(text)
    }
}

/// The text of a panic, if it has one.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    match (
        payload.downcast_ref::<&'static str>(),
        payload.downcast_ref::<String>(),
    ) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "without a message",
    }
}

/// As much of the beginning as is kept.
fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_FAILURE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

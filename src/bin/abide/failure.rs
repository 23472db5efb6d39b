//! What a command ends with that did not succeed: a sentence and an exit code.

use abide::StartError;
use abide::admin::{AdminError, AdminErrorKind};
use abide::codec::CodecError;
use abide::server::{CallError, CallErrorKind};
use abide::store::StoreError;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

/// Not found, or refused.
const REFUSED: u8 = 1;
/// The command was not understood.
pub(crate) const USAGE: u8 = 2;
/// The store is unavailable.
const UNAVAILABLE: u8 = 3;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Nothing is said when whoever reads the output has gone.
    message: Option<String>,
}

impl Failure {
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(REFUSED, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(
            UNAVAILABLE,
            format!("the store is unavailable: {}", message.into()),
        )
    }

    /// A failure of which everything was said already.
    pub(crate) fn silent() -> Self {
        Self {
            code: REFUSED,
            message: None,
        }
    }

    /// What a command exits with that Ctrl-C has ended, as if the signal itself had.
    pub(crate) const INTERRUPTED: u8 = 130;

    pub(crate) fn interrupted() -> Self {
        Self::new(
            Self::INTERRUPTED,
            "interrupted; begun again with the same stream it goes on",
        )
    }

    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Some(message.into()),
        }
    }

    pub(crate) fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            // There is nowhere left to complain to.
            let _ = writeln!(io::stderr(), "error: {}", crate::output::clean(&message));
        }
        ExitCode::from(self.code)
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        let code = match error.kind() {
            AdminErrorKind::Invalid => USAGE,
            AdminErrorKind::Unavailable
            | AdminErrorKind::OutcomeUnknown
            | AdminErrorKind::Failed => UNAVAILABLE,
            _ => REFUSED,
        };
        Self::new(code, chain(&error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(UNAVAILABLE, chain(&error))
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(UNAVAILABLE, chain(&error))
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let code = match error.kind() {
            CallErrorKind::Invalid | CallErrorKind::TooLarge => USAGE,
            CallErrorKind::Unavailable | CallErrorKind::OutcomeUnknown | CallErrorKind::Failed => {
                UNAVAILABLE
            }
            _ => REFUSED,
        };
        Self::new(code, chain(&error))
    }
}

impl From<CodecError> for Failure {
    fn from(error: CodecError) -> Self {
        Self::new(REFUSED, chain(&error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                code: 0,
                message: None,
            };
        }
        Self::new(REFUSED, error.to_string())
    }
}

//! The one public error.

use std::error::Error as StdError;

/// What divvy's own calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong; the DV codes are the SQLSTATEs of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// DV001: the lease was lost; the call changed nothing.
    LeaseLost,
    /// DV002: the task was cancelled.
    Cancelled,
    /// DV003: a value is over a limit.
    OverLimit,
    /// DV004: the call conflicts with the state it found.
    Conflict,
    /// DV010: an unknown or malformed option.
    BadOption,
    /// DV011: no such task, split, schedule, worker or type.
    NotFound,
    /// DV012: an invalid schedule.
    BadSchedule,
    /// DV020: the schema speaks another protocol version.
    Protocol,
    /// The database could not be reached, or refused.
    Database,
    /// Not now: the same call may succeed later.
    Busy,
    /// A setting or an argument of this process is wrong.
    Config,
    /// The local Postgres could not be found, started or stopped.
    Embedded,
}

/// An error of divvy. The message names the thing and its id; [`Error::kind`] is for acting on it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message for people: lower case, no full stop, naming the thing.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same with the cause kept as `source()`.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The lease was lost: somebody else finishes this split.
    pub fn is_lease_lost(&self) -> bool {
        self.kind == ErrorKind::LeaseLost
    }

    /// There is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// The state of the thing does not allow the call.
    pub fn is_conflict(&self) -> bool {
        self.kind == ErrorKind::Conflict
    }
}

/// What is at the end of an error's chain: reqwest's own message stops at "error sending request".
#[cfg(feature = "cli")]
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(deeper) = reason.source() {
        reason = deeper;
    }
    reason.to_string()
}

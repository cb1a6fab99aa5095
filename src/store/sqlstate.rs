//! SQLSTATE ↔ [`ErrorKind`], and every `sqlx::Error` to the one public error. No other file knows codes.

use crate::{Error, ErrorKind};

const CODES: [(&str, ErrorKind); 8] = [
    ("DV001", ErrorKind::LeaseLost),
    ("DV002", ErrorKind::Cancelled),
    ("DV003", ErrorKind::OverLimit),
    ("DV004", ErrorKind::Conflict),
    ("DV010", ErrorKind::BadOption),
    ("DV011", ErrorKind::NotFound),
    ("DV012", ErrorKind::BadSchedule),
    ("DV020", ErrorKind::Protocol),
];

/// The constraint a plain INSERT with a taken dedupe key violates.
const DEDUPE_CONSTRAINT: &str = "task_dedupe";

/// The kind a code of the protocol stands for.
pub fn kind_of(code: &str) -> Option<ErrorKind> {
    CODES.iter().find(|(known, _)| *known == code).map(|(_, kind)| *kind)
}

/// The code that stands for a kind, where there is one.
pub fn code_of(kind: ErrorKind) -> Option<&'static str> {
    CODES.iter().find(|(_, known)| *known == kind).map(|(code, _)| *code)
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let (kind, message) = match &error {
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default();
                match kind_of(&code) {
                    Some(kind) => (kind, refusal.message().to_owned()),
                    None if refusal.constraint() == Some(DEDUPE_CONSTRAINT) => {
                        (ErrorKind::Conflict, refusal.message().to_owned())
                    }
                    None => (ErrorKind::Database, format!("{} (SQLSTATE {code})", refusal.message())),
                }
            }
            sqlx::Error::PoolTimedOut => {
                (ErrorKind::Database, "no database connection became free in time".to_owned())
            }
            other => (ErrorKind::Database, format!("the database call failed: {other}")),
        };
        Error::new(kind, message).caused_by(error)
    }
}

/// The SQLSTATE the database answered with, if it answered.
pub fn code(error: &Error) -> Option<String> {
    match source(error)? {
        sqlx::Error::Database(refusal) => refusal.code().map(|code| code.into_owned()),
        _ => None,
    }
}

/// The connection can't be used again: the failure was below the protocol, or the server is going away.
pub fn is_connection_lost(error: &Error) -> bool {
    match source(error) {
        Some(sqlx::Error::Database(_)) => code(error).is_some_and(|code| code.starts_with("57P")),
        Some(_) => true,
        None => false,
    }
}

/// The server could not be reached, is starting or going, or has no connection left: try later.
pub fn is_unreachable(error: &Error) -> bool {
    match source(error) {
        Some(sqlx::Error::Database(_)) => {
            code(error).is_some_and(|code| ["08", "57P", "53300"].iter().any(|class| code.starts_with(class)))
        }
        Some(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed) => true,
        _ => false,
    }
}

/// Waiting may cure it. Not so: no schema, no rights, no such database, a standby, another protocol.
pub fn is_passing(error: &Error) -> bool {
    match (error.kind(), source(error)) {
        (ErrorKind::Database, Some(sqlx::Error::Configuration(_) | sqlx::Error::Tls(_))) => false,
        (ErrorKind::Database, Some(sqlx::Error::Database(_))) => code(error).is_none_or(|code| {
            !["25006", "28", "3D", "3F", "42"].iter().any(|class| code.starts_with(class))
        }),
        (ErrorKind::Database, _) => true,
        _ => false,
    }
}

/// The value is to blame, not the moment: the same call with the same value fails again.
///
/// Over a limit, or what Postgres cannot store or compute with (classes 22 data, 23 constraint, 54 limit).
pub fn is_value_fault(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::OverLimit | ErrorKind::BadOption => true,
        ErrorKind::Database => {
            code(error).is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

fn source(error: &Error) -> Option<&sqlx::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_for_one_kind_and_back() {
        for (code, kind) in CODES {
            assert_eq!(kind_of(code), Some(kind));
            assert_eq!(code_of(kind), Some(code));
        }
        assert_eq!(kind_of("23505"), None);
        assert_eq!(code_of(ErrorKind::Database), None);
    }
}

//! Errors as RFC 9457 has them, with the code of the protocol.
//!
//! | what | status |
//! | --- | --- |
//! | DV011 there is no such thing | 404 |
//! | DV001, DV002, DV004, DV020: it does not fit the state it found | 409 |
//! | DV003, DV010, DV012: the value is to blame | 422 |
//! | the database can't be reached, is busy or stopping | 503, with Retry-After |

use crate::store::sqlstate;
use crate::{Error, ErrorKind};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// What a client does after a 503.
const RETRY_AFTER_SECONDS: &str = "1";

/// Why a request was not done.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct Problem {
    /// A name for this kind of problem: urn:divvy:problem: and the code
    #[serde(rename = "type")]
    kind: String,
    /// The status in words
    title: String,
    /// The status
    status: u16,
    /// What is wrong, with the thing and its value
    detail: String,
    /// The code of the protocol, such as DV011, or a word where it is HTTP's own
    code: String,
}

impl Problem {
    /// A problem of HTTP itself, with a word for programs.
    pub(super) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:divvy:problem:{}", code.to_ascii_lowercase()),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_owned(),
        }
    }

    /// What was sent can't be read.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// What was sent can be read and means nothing here.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "DV010", detail)
    }

    /// There is no such thing.
    pub(super) fn unknown(what: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "DV011", format!("there is no {what} {id}"))
    }

    /// Not now.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::LeaseLost | ErrorKind::Cancelled | ErrorKind::Conflict | ErrorKind::Protocol => {
                StatusCode::CONFLICT
            }
            ErrorKind::OverLimit | ErrorKind::BadOption | ErrorKind::BadSchedule => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            _ => return of_database(&error),
        };
        Self::new(status, sqlstate::code_of(error.kind()).unwrap_or("DV010"), error.to_string())
    }
}

/// The database's own words go to the log, not to strangers; unless the value is to blame.
fn of_database(error: &Error) -> Problem {
    let code = sqlstate::code(error);
    if sqlstate::is_value_fault(error) {
        return Problem::invalid(error.to_string());
    }
    let passes = error.kind() == ErrorKind::Busy
        || code.is_none()
        || sqlstate::is_unreachable(error)
        || code
            .as_deref()
            .is_some_and(|code| ["40", "53", "55", "57"].iter().any(|class| code.starts_with(class)));
    if passes {
        tracing::warn!(%error, "the database did not do it just now");
        return Problem::unavailable("the database can't do it just now: try again");
    }
    tracing::error!(%error, "a request failed");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the service failed; its log says why")
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER_SECONDS));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

//! How a handler answers, and the one place that turns an answer into what is stored.

use super::Answer;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// How a step ended that did not fail.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T> {
    /// Done, with the result.
    Complete(T),
    /// Failed for good: no attempt will help. Nothing written through the transaction stays.
    Stop(String),
    /// Not finished: call again after `after`, with `state` as the checkpoint. Uses no attempt and may
    /// repeat without end. Nothing written through the transaction stays.
    Continue {
        /// What the next call finds in [`crate::handler::Context::checkpoint`]; null leaves there what is there.
        state: Value,
        /// How long to wait.
        after: Duration,
    },
}

/// A failure, to be retried by the type's policy. Made from any error by `?`.
///
/// It is deliberately no [`StdError`] itself, so that `?` can make it from everything that is.
pub struct HandlerError {
    class: Option<String>,
    message: String,
    retry_in: Option<Duration>,
}

impl HandlerError {
    /// A failure from a message or a boxed error (`anyhow::Error` included).
    pub fn new(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { class: None, message: chain(error.into().as_ref()), retry_in: None }
    }

    /// Names the class, by which dead splits are grouped. Default: the error's type; without one they are grouped
    /// by the first line of the message.
    #[must_use]
    pub fn class(mut self, class: impl Into<String>) -> Self {
        self.class = Some(class.into());
        self
    }

    /// Retries after `delay` instead of the policy's; attempts are counted as ever.
    #[must_use]
    pub fn retry_in(mut self, delay: Duration) -> Self {
        self.retry_in = Some(delay);
        self
    }

    /// What went wrong, with its causes.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let class = std::any::type_name::<E>();
        // Without generics and path: `sqlx_core::error::Error` → `sqlx_core::Error` would still be a path
        // of somebody else's; the crate and the name are what people recognise.
        let plain = class.split('<').next().unwrap_or(class);
        let class = match (plain.split("::").next(), plain.rsplit("::").next()) {
            (Some(first), Some(last)) if first != last => format!("{first}::{last}"),
            _ => plain.to_owned(),
        };
        Self { class: Some(class), message: chain(&error), retry_in: None }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.class {
            Some(class) => write!(f, "{class}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The error and its causes, each once: many errors print their cause themselves.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// What is stored about a split that a worker is done with: exactly one SQL call.
#[derive(Debug)]
pub(crate) enum Settlement {
    /// `complete`, with the result.
    Complete(Option<Box<RawValue>>),
    /// `fail`.
    Fail {
        /// `{"class", "message"}`; the class only where there is one.
        error: Value,
        /// False: for good.
        retry: bool,
        /// Instead of the policy's delay.
        retry_in: Option<Duration>,
    },
    /// `snooze`.
    Snooze {
        /// The wait.
        after: Duration,
        /// The new checkpoint.
        state: Value,
    },
    /// `await_callback`: its outcome comes later, from somebody else.
    Await {
        /// How long to wait; none: as long as its attempt may take.
        within: Option<Duration>,
    },
    /// `release`: as if it had never been claimed.
    Release,
}

/// The one match over what a handler may answer.
pub(crate) fn settlement(answer: Result<impl Into<Answer>, HandlerError>) -> Settlement {
    match answer.map(Into::into) {
        Ok(Answer::Outcome(Outcome::Complete(result))) => Settlement::Complete(result),
        Ok(Answer::Outcome(Outcome::Stop(reason))) => {
            Settlement::Fail { error: error_json(None, &reason), retry: false, retry_in: None }
        }
        Ok(Answer::Outcome(Outcome::Continue { state, after })) => Settlement::Snooze { after, state },
        Ok(Answer::Awaits { within }) => Settlement::Await { within },
        Ok(Answer::GivesBack) => Settlement::Release,
        Err(failure) => Settlement::Fail {
            error: error_json(failure.class.as_deref(), &failure.message),
            retry: true,
            retry_in: failure.retry_in,
        },
    }
}

/// The protocol's limit for an error is 64 KiB; some of it is left for what surrounds the message.
const ERROR_BYTES_MAX: usize = 60 * 1024;
const CLASS_BYTES_MAX: usize = 200;

/// An error that can always be stored: no NUL (Postgres refuses it), and short enough also when escaped.
/// A split whose failure cannot be recorded would be claimed for ever.
pub(crate) fn error_json(class: Option<&str>, message: &str) -> Value {
    let class = class.map(|class| clipped(class, CLASS_BYTES_MAX));
    let mut message = clipped(message, ERROR_BYTES_MAX);
    loop {
        let error = match &class {
            Some(class) => json!({ "class": class, "message": message }),
            None => json!({ "message": message }),
        };
        if error.to_string().len() <= ERROR_BYTES_MAX + CLASS_BYTES_MAX {
            return error;
        }
        let half = message.len() / 2;
        message = clipped(&message, half);
    }
}

/// The first `max` bytes, to the last whole character, marked as cut; without NUL.
pub(super) fn clipped(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.replace('\0', "?");
    }
    let end = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
    let mut cut = text[..end].replace('\0', "?");
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_can_always_be_stored() {
        for message in ["a\0b".to_owned(), "\u{1}".repeat(200_000), "ä".repeat(100_000), String::new()] {
            let error = error_json(Some("c\0lass"), &message).to_string();
            assert!(error.len() <= 64 * 1024, "{} bytes", error.len());
            assert!(!error.contains("\\u0000"));
        }
    }

    #[test]
    fn a_failure_keeps_its_causes_once() {
        let inner = std::io::Error::other("disk full");
        let outer = crate::Error::new(crate::ErrorKind::Database, "could not write").caused_by(inner);
        let failure = HandlerError::from(outer);
        assert_eq!(failure.message(), "could not write: disk full");
        assert_eq!(failure.class.as_deref(), Some("divvy::Error"));
    }

    #[test]
    fn each_answer_is_one_settlement() {
        assert!(matches!(settlement(Ok(Outcome::Complete(None))), Settlement::Complete(None)));
        assert!(matches!(
            settlement(Ok(Outcome::Stop("no such account".into()))),
            Settlement::Fail { retry: false, .. }
        ));
        let failed = settlement(Err::<Answer, _>(HandlerError::new("busy").retry_in(Duration::from_secs(7))));
        assert!(
            matches!(failed, Settlement::Fail { retry: true, retry_in: Some(d), .. } if d.as_secs() == 7)
        );
        let again = Outcome::Continue { state: json!(3), after: Duration::from_secs(1) };
        assert!(matches!(settlement(Ok(again)), Settlement::Snooze { .. }));
    }
}

//! How a command answers: exit codes and JSON bodies, and what becomes of a split by them.

use super::Answer;
use crate::handler::{HandlerError, Outcome};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// The exit codes that mean something of their own, from sysexits.h: EX_TEMPFAIL, and EX_USAGE and EX_DATAERR.
const SNOOZE: i32 = 75;
const STOP: [i32; 2] = [64, 65];
/// How long a snooze lasts that doesn't say.
const DELAY: Duration = Duration::from_secs(10);

/// "Not finished, call me again."
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Snooze {
    /// Seconds.
    delay: Option<f64>,
    #[serde(default)]
    checkpoint: Value,
}

/// "No attempt will help."
#[derive(Debug, Default, Deserialize, PartialEq)]
pub(super) struct Stop {
    message: Option<String>,
}

/// "This attempt failed."
#[derive(Debug, Default, Deserialize, PartialEq)]
pub(super) struct Fail {
    message: Option<String>,
    class: Option<String>,
    /// Seconds.
    retry_in: Option<f64>,
}

/// What a command that has ended says by its exit code, its stdout and its last line of stderr.
pub(super) fn of_exit(status: ExitStatus, stdout: &[u8], last_words: &str) -> Answer {
    let body = stdout.trim_ascii();
    match status.code() {
        Some(0) => Ok(Outcome::Complete(result(body)?)),
        Some(SNOOZE) if body.is_empty() => snooze(Snooze::default()),
        Some(SNOOZE) => {
            snooze(serde_json::from_slice(body).map_err(|error| no_json("a snooze", &error, body))?)
        }
        Some(code) if STOP.contains(&code) => {
            let said: Stop = serde_json::from_slice(body).unwrap_or_default();
            Ok(Outcome::Stop(said.message.unwrap_or_else(|| ended(status, last_words))))
        }
        _ => Err(fail(serde_json::from_slice(body).unwrap_or_default(), || ended(status, last_words))),
    }
}

/// The end of a command, in words.
pub(super) fn ended(status: ExitStatus, last_words: &str) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    };
    match last_words {
        "" => format!("{how}, and nothing on stderr"),
        words => format!("{words} ({how})"),
    }
}

/// The result in `body`; JSON's null says no more than no result.
fn result(body: &[u8]) -> Result<Option<Box<RawValue>>, HandlerError> {
    if body.is_empty() {
        return Ok(None);
    }
    let result: Box<RawValue> =
        serde_json::from_slice(body).map_err(|error| no_json("JSON", &error, body))?;
    Ok((result.get() != "null").then_some(result))
}

pub(super) fn snooze(said: Snooze) -> Answer {
    let after = said.delay.map_or(Ok(DELAY), |delay| seconds("delay", delay))?;
    Ok(Outcome::Continue { state: said.checkpoint, after })
}

pub(super) fn stop(said: Stop) -> Answer {
    Ok(Outcome::Stop(said.message.unwrap_or_else(|| "stopped without a message".to_owned())))
}

pub(super) fn fail(said: Fail, otherwise: impl FnOnce() -> String) -> HandlerError {
    let mut error = HandlerError::new(said.message.unwrap_or_else(otherwise));
    if let Some(class) = said.class {
        error = error.class(class);
    }
    match said.retry_in.map(|delay| seconds("retry_in", delay)).transpose() {
        Ok(Some(delay)) => error.retry_in(delay),
        Ok(None) => error,
        Err(wrong) => wrong,
    }
}

fn seconds(name: &str, seconds: f64) -> Result<Duration, HandlerError> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| garbage(format!("{name} is {seconds}: a number of seconds from 0 expected")))
}

/// A failure because the command doesn't say what it should.
pub(super) fn garbage(message: String) -> HandlerError {
    HandlerError::new(message).class("output")
}

/// The same, with the beginning of what it said.
pub(super) fn no_json(what: &str, error: &serde_json::Error, said: &[u8]) -> HandlerError {
    const SHOWN: usize = 200;
    let shown = String::from_utf8_lossy(&said[..said.len().min(SHOWN)]);
    garbage(format!("stdout is not {what}: {error}: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn exit(code: i32, stdout: &str) -> Answer {
        of_exit(ExitStatus::from_raw(code << 8), stdout.as_bytes(), "last words")
    }

    #[test]
    fn an_exit_code_is_an_outcome() {
        let result = exit(0, " {\"a\": 1}\n").unwrap();
        assert!(matches!(result, Outcome::Complete(Some(raw)) if raw.get() == "{\"a\": 1}"));
        for nothing in ["", " \n", "null"] {
            assert!(matches!(exit(0, nothing), Ok(Outcome::Complete(None))), "{nothing}");
        }
        let Ok(Outcome::Continue { state, after }) = exit(75, r#"{"delay": 2.5, "checkpoint": {"at": 3}}"#)
        else {
            panic!("no snooze")
        };
        assert_eq!((state, after), (json!({"at": 3}), Duration::from_millis(2500)));
        assert!(matches!(exit(75, ""), Ok(Outcome::Continue { after: DELAY, state: Value::Null })));
        assert!(matches!(exit(64, ""), Ok(Outcome::Stop(why)) if why == "last words (exit code 64)"));
        assert!(matches!(exit(65, r#"{"message": "no"}"#), Ok(Outcome::Stop(why)) if why == "no"));
        assert_eq!(exit(3, "not json").unwrap_err().message(), "last words (exit code 3)");
        assert_eq!(exit(1, r#"{"message": "busy", "retry_in": 7}"#).unwrap_err().message(), "busy");
    }

    #[test]
    fn garbage_is_a_failure_that_shows_it() {
        for (code, stdout, part) in [
            (0, "done!", "stdout is not JSON: expected value at line 1 column 1: done!"),
            (0, "1 2", "trailing characters"),
            (75, r#"{"dealy": 3}"#, "unknown field `dealy`"),
            (75, r#"{"delay": -3}"#, "delay is -3"),
            (1, r#"{"message": "x", "retry_in": -1}"#, "retry_in is -1"),
        ] {
            let error = exit(code, stdout).unwrap_err();
            assert!(error.message().contains(part), "{stdout}: {error}");
        }
    }

    #[test]
    fn a_signal_is_told() {
        let killed = of_exit(ExitStatus::from_raw(11), b"", "").unwrap_err();
        assert_eq!(killed.message(), "killed by signal 11, and nothing on stderr");
    }
}

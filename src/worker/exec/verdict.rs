//! How a command answers: exit codes and JSON bodies, and what becomes of a split by them.

use super::Answer;
use crate::handler::said::{Snooze, Stop, fail, no_json, snooze};
use crate::handler::{HandlerError, Outcome};
use serde_json::value::RawValue;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The exit codes that mean something of their own, from sysexits.h: EX_TEMPFAIL, and EX_USAGE and EX_DATAERR.
const SNOOZE: i32 = 75;
const STOP: [i32; 2] = [64, 65];
/// What a command that has ended says by its exit code, its stdout and its last line of stderr.
pub(super) fn of_exit(status: ExitStatus, stdout: &[u8], last_words: &str) -> Answer {
    let body = stdout.trim_ascii();
    match status.code() {
        Some(0) => Ok(Outcome::Complete(result(body)?)),
        Some(SNOOZE) if body.is_empty() => snooze(Snooze::default()),
        Some(SNOOZE) => snooze(
            serde_json::from_slice(body).map_err(|error| no_json("stdout is not a snooze", &error, body))?,
        ),
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
        serde_json::from_slice(body).map_err(|error| no_json("stdout is not JSON", &error, body))?;
    Ok((result.get() != "null").then_some(result))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::said::DELAY;
    use serde_json::{Value, json};
    use std::time::Duration;

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

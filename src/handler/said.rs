//! What a handler in any language says of a split: the same words in a line of a command, in the body of an HTTP answer,
//! and in a callback.

use super::{HandlerError, Outcome};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::time::Duration;

/// How long a snooze lasts that doesn't say.
pub(crate) const DELAY: Duration = Duration::from_secs(10);

/// Not finished: call again. Uses no attempt
#[derive(Debug, Default, Deserialize, PartialEq)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Snooze {
    /// Seconds; default 10
    #[cfg_attr(feature = "cli", schemars(range(min = 0, max = 315_360_000)))]
    pub(crate) delay: Option<f64>,
    /// What the next call is given
    #[serde(default)]
    pub(crate) checkpoint: Value,
}

/// No attempt will help
#[derive(Debug, Default, Deserialize, PartialEq)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub(crate) struct Stop {
    /// Why
    pub(crate) message: Option<String>,
}

/// This attempt failed: again by the type's backoff
#[derive(Debug, Default, Deserialize, PartialEq)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub(crate) struct Fail {
    /// Why
    pub(crate) message: Option<String>,
    /// Under what it is grouped
    pub(crate) class: Option<String>,
    /// Seconds until the next attempt, instead of the backoff's
    #[cfg_attr(feature = "cli", schemars(range(min = 0, max = 315_360_000)))]
    pub(crate) retry_in: Option<f64>,
}

/// An outcome: one of these, or nothing, which is done without a result
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Said {
    /// Done, with this
    pub(crate) result: Option<Box<RawValue>>,
    /// A plan is done: one split for each
    pub(crate) splits: Option<Vec<Box<RawValue>>>,
    /// Not finished
    pub(crate) snooze: Option<Snooze>,
    /// No attempt will help
    pub(crate) stop: Option<Stop>,
    /// This attempt failed
    pub(crate) fail: Option<Fail>,
}

impl Said {
    /// The outcome; `splits` are its caller's to store before.
    pub(crate) fn answer(self) -> Result<Outcome<Option<Box<RawValue>>>, HandlerError> {
        let Self { result, splits, snooze: again, stop: stopped, fail: failed } = self;
        let alone = result.is_none() && splits.is_none();
        match (again, stopped, failed) {
            (None, None, None) if result.is_none() || splits.is_none() => Ok(Outcome::Complete(result)),
            (Some(said), None, None) if alone => snooze(said),
            (None, Some(said), None) if alone => stop(said),
            (None, None, Some(said)) if alone => Err(fail(said, || "failed without a message".to_owned())),
            _ => Err(garbage(
                "an answer has more than one of result, splits, snooze, stop and fail".to_owned(),
            )),
        }
    }
}

pub(crate) fn snooze(said: Snooze) -> Result<Outcome<Option<Box<RawValue>>>, HandlerError> {
    let after = said.delay.map_or(Ok(DELAY), |delay| seconds("delay", delay))?;
    Ok(Outcome::Continue { state: said.checkpoint, after })
}

fn stop(said: Stop) -> Result<Outcome<Option<Box<RawValue>>>, HandlerError> {
    Ok(Outcome::Stop(said.message.unwrap_or_else(|| "stopped without a message".to_owned())))
}

/// The failure, with other words where it has none.
pub(crate) fn fail(said: Fail, otherwise: impl FnOnce() -> String) -> HandlerError {
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

/// A failure because a handler doesn't say what it should.
pub(crate) fn garbage(message: String) -> HandlerError {
    HandlerError::new(message).class("output")
}

/// The same, with the beginning of what it said; `what`: "stdout is not JSON".
pub(crate) fn no_json(what: &str, error: &serde_json::Error, said: &[u8]) -> HandlerError {
    garbage(format!("{what}: {error}: {}", beginning(said)))
}

/// As much of what somebody said as an error shows.
pub(crate) fn beginning(said: &[u8]) -> String {
    const SHOWN: usize = 200;
    String::from_utf8_lossy(&said[..said.len().min(SHOWN)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<Outcome<Option<Box<RawValue>>>, HandlerError> {
        serde_json::from_str::<Said>(text).unwrap().answer()
    }

    #[test]
    fn an_answer_is_one_outcome() {
        assert!(matches!(answer("{}"), Ok(Outcome::Complete(None))));
        assert!(matches!(answer(r#"{"result": null}"#), Ok(Outcome::Complete(None))));
        assert!(matches!(answer(r#"{"result": 7}"#), Ok(Outcome::Complete(Some(raw))) if raw.get() == "7"));
        assert!(matches!(answer(r#"{"splits": []}"#), Ok(Outcome::Complete(None))));
        assert!(matches!(answer(r#"{"snooze": {}}"#), Ok(Outcome::Continue { after: DELAY, .. })));
        assert!(matches!(answer(r#"{"stop": {"message": "no"}}"#), Ok(Outcome::Stop(why)) if why == "no"));
        assert_eq!(answer(r#"{"fail": {}}"#).unwrap_err().message(), "failed without a message");
        for two in [
            r#"{"result": 1, "stop": {}}"#,
            r#"{"splits": [], "result": 1}"#,
            r#"{"splits": [], "fail": {}}"#,
            r#"{"snooze": {}, "stop": {}}"#,
        ] {
            assert!(answer(two).unwrap_err().message().contains("more than one of"), "{two}");
        }
        assert!(answer(r#"{"snooze": {"delay": -1}}"#).unwrap_err().message().contains("delay is -1"));
    }
}

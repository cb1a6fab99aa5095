//! How arguments are read: JSON, durations, moments, names of states.

use crate::store::state::{SplitStatus, TaskStatus};
use crate::trigger::Trigger;
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, TimeDelta, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::io::Read;
use std::time::Duration;

/// The most bytes read from a file or from stdin: a million splits of 256 bytes.
const INPUT_BYTES_MAX: u64 = 256 << 20;

/// The options of something that is put.
#[derive(clap::Args)]
pub struct Options {
    /// Its options: a JSON object, @file, or - for stdin
    #[arg(value_name = "JSON|@FILE|-", default_value = "{}", hide_default_value = true)]
    options: String,
}

impl Options {
    /// As they are given.
    ///
    /// # Errors
    /// As [`json`].
    pub fn read(&self) -> Result<Value> {
        json("OPTIONS", &self.options)
    }
}

/// Wrong usage that clap can't see; exit code 2.
pub fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// The text of `name`'s value: itself, a file's (`@file`), or stdin's (`-`).
///
/// # Errors
/// When the file can't be read, naming it.
pub fn text(name: &str, value: &str) -> Result<String> {
    match value.strip_prefix('@') {
        Some(path) => read(name, path),
        None if value == "-" => read(name, value),
        None => Ok(value.to_owned()),
    }
}

/// The text of a file, or of stdin (`-`).
///
/// # Errors
/// When it can't be read, is no UTF-8 or has over 256 MiB.
pub fn read(name: &str, path: &str) -> Result<String> {
    let mut text = String::new();
    let outcome = if path == "-" {
        std::io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text))
    };
    match outcome {
        Ok(bytes) if bytes as u64 > INPUT_BYTES_MAX => {
            Err(usage(format!("{name}: {path} has over {INPUT_BYTES_MAX} bytes")))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(usage(format!("{name}: cannot read {path}: {error}")).caused_by(error)),
    }
}

/// JSON given as itself, as `@file`, or on stdin (`-`).
///
/// # Errors
/// Config when it can't be read or is no JSON, saying where.
pub fn json(name: &str, value: &str) -> Result<Value> {
    parse(name, &text(name, value)?)
}

/// JSON text.
///
/// # Errors
/// Config, saying where it is none.
pub fn parse<T: DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let begin: String = text.chars().take(40).collect();
        usage(format!("{name} is not JSON: {error}, in {begin:?}"))
    })
}

/// Reads `90`, `90s`, `15m`, `1h30m`: seconds where no unit stands.
pub fn duration(text: &str) -> Result<Duration, String> {
    match Trigger::every(text) {
        Ok(Trigger::Every { interval }) => interval.to_std().map_err(|error| error.to_string()),
        _ => Err("a duration of a second or more expected, such as 90s, 15m or 1h30m".to_owned()),
    }
}

/// Reads a moment: `yyyyMMddHHmmss` on the clock of `zone`, or RFC 3339, which brings its offset.
///
/// # Errors
/// BadSchedule, naming the option.
pub fn moment(name: &str, text: &str, zone: &str) -> Result<DateTime<Utc>> {
    match Trigger::timed(text, zone) {
        Ok(Trigger::Timed { at }) => Ok(at),
        Ok(_) => Err(usage(format!("{name} is no moment: {text:?}"))),
        Err(error) => Err(usage(error.to_string().replacen("run_at", name, 1)).caused_by(error)),
    }
}

/// `delta` as chrono counts.
pub fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// The names of a task's states.
pub fn task_status() -> impl TypedValueParser<Value = TaskStatus> {
    named(["scheduled", "planning", "running", "reducing", "succeeded", "partial", "failed", "cancelled"])
}

/// The names of a split's states.
pub fn split_status() -> impl TypedValueParser<Value = SplitStatus> {
    named(["delayed", "ready", "running", "succeeded", "failed", "cancelled", "skipped"])
}

fn named<T, const N: usize>(names: [&'static str; N]) -> impl TypedValueParser<Value = T>
where
    T: for<'d> Deserialize<'d> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| {
        let name: StrDeserializer<'_, ValueError> = name.as_str().into_deserializer();
        T::deserialize(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_units_and_bare_numbers_are_seconds() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").unwrap_err().contains("such as 90s"));
    }

    #[test]
    fn a_moment_is_read_on_the_clock_of_its_zone_and_its_option_is_named() {
        let at = moment("--run-at", "20261224180000", "Europe/Berlin").unwrap();
        assert_eq!(at.to_rfc3339(), "2026-12-24T17:00:00+00:00");
        let error = moment("--until", "tomorrow", "UTC").unwrap_err();
        assert!(error.to_string().starts_with("--until is \"tomorrow\""), "{error}");
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    #[test]
    fn what_is_no_json_is_shown_with_its_place() {
        let error = json("--payload", "{day: 1}").unwrap_err();
        assert!(
            error.to_string().starts_with("--payload is not JSON: key must be a string at line 1"),
            "{error}"
        );
        let error = json("--payload", "@/nowhere.json").unwrap_err().to_string();
        assert!(error.contains("cannot read /nowhere.json"), "{error}");
    }
}

//! The text of durations, steps and instants.

use super::{STEPS_MAX, bad, zone::LocalClock};
use crate::Result;
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use chrono_tz::Tz;

/// Longest step and interval, in seconds: ten years. Beyond it a typing error is likelier than a plan.
const SECONDS_MAX: i64 = 3_653 * 86_400;

/// What `preset` stands for, in the unit behind it.
const PRESET: &str = "3,5,10,15,30";

/// Reads `3,5,10,15,30` (seconds), `3,5,10,15,30 m` (all in minutes), `30s,5m,1h`, or `preset m`.
pub(super) fn steps(text: &str) -> Result<Vec<TimeDelta>> {
    if text.trim().is_empty() {
        return Err(bad(
            "steps is empty: offsets from the start such as \"3,5,10,15,30\", \"30s,5m,1h\" or \"preset m\" expected",
        ));
    }
    let (list, unit) = in_one_unit(text.trim());
    let list = if list == "preset" { PRESET } else { list };
    let words: Vec<&str> = list.split(',').map(str::trim).collect();
    if words.len() > STEPS_MAX {
        return Err(bad(format!("steps has {} offsets: at most {STEPS_MAX} expected", words.len())));
    }
    let mut offsets: Vec<TimeDelta> = Vec::with_capacity(words.len());
    for (index, word) in words.iter().enumerate() {
        let offset = match unit {
            Some(unit) if is_number(word) => duration(&format!("{word}{unit}")),
            Some(_) => None,
            None => duration(word),
        };
        let offset = offset.ok_or_else(|| {
            let expected = match unit {
                Some(unit) => {
                    format!("a bare number, for {unit:?} behind the list is the unit of all, up to ten years")
                }
                None => "seconds, or a number with s, m, h or d, up to ten years".to_owned(),
            };
            bad(format!("step {} is {word:?} in {text:?}: {expected}, expected", index + 1))
        })?;
        if offsets.last().is_some_and(|before| *before >= offset) {
            return Err(bad(format!(
                "step {} is {word:?} in {text:?}: an offset later than step {index} expected, both count from the start",
                index + 1
            )));
        }
        offsets.push(offset);
    }
    Ok(offsets)
}

/// The list, and the unit that stands behind it on its own: `3,5,10 m`.
fn in_one_unit(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(char::is_whitespace) {
        Some((list, unit @ ("s" | "m" | "h" | "d"))) => (list.trim_end(), Some(unit)),
        _ => (text, None),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads the interval of an every rule.
pub(super) fn interval(text: &str) -> Result<TimeDelta> {
    duration(text.trim()).filter(|interval| *interval >= TimeDelta::seconds(1)).ok_or_else(|| {
        bad(format!("every is {text:?}: 1s to ten years expected, such as \"90s\", \"15m\" or \"1h30m\""))
    })
}

/// Reads seconds, or numbers each with s, m, h or d in any order: `90`, `90s`, `1h30m`.
fn duration(text: &str) -> Option<TimeDelta> {
    if is_number(text) {
        return bounded(text.parse().ok()?);
    }
    let mut total: i64 = 0;
    for part in text.split_inclusive(|letter: char| letter.is_ascii_alphabetic()) {
        let (number, unit) = part.split_at_checked(part.len().checked_sub(1)?)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        if !is_number(number) {
            return None;
        }
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(seconds)?)?;
    }
    bounded(total)
}

fn bounded(seconds: i64) -> Option<TimeDelta> {
    (seconds <= SECONDS_MAX).then(|| TimeDelta::seconds(seconds))
}

/// Reads `yyyyMMddHHmmss` on the wall clock of `zone`, or RFC 3339.
pub(super) fn instant(text: &str, zone: Tz) -> Result<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    let local = local_time(text).ok_or_else(|| {
        bad(format!(
            "run_at is {text:?}: yyyyMMddHHmmss such as 20261224180000, or 2026-12-24T18:00:00+01:00, expected"
        ))
    })?;
    // Shift and first always give one instant: once is what a timed rule promises.
    let clock = LocalClock { zone, gap: Default::default(), fold: Default::default() };
    clock.instants(local).next().ok_or_else(|| bad(format!("run_at is {text:?}: no such time in {zone}")))
}

/// The local time that `yyyyMMddHHmmss` says.
pub(super) fn local_time(text: &str) -> Option<NaiveDateTime> {
    let text = text.trim();
    if text.len() != 14 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u32>().ok();
    let date = NaiveDate::from_ymd_opt(text[..4].parse().ok()?, number(4, 6)?, number(6, 8)?)?;
    date.and_hms_opt(number(8, 10)?, number(10, 12)?, number(12, 14)?)
}

//! The text of durations, steps and instants.

use super::{STEPS_MAX, bad, zone::LocalClock};
use crate::Result;
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use chrono_tz::Tz;

/// Longest step and interval, in seconds: ten years as Postgres compares intervals, of twelve months of thirty days. Beyond
/// it a typing error is likelier than a plan.
const SECONDS_MAX: i64 = 10 * 360 * 86_400;

/// What `preset` stands for, in the unit behind it.
const PRESET: &str = "3,5,10,15,30";

/// Reads `3,5,10,15,30` (seconds), `3,5,10,15,30 m` (all in minutes), `30s,5m,1h`, or `preset m`: offsets from the
/// start.
pub(super) fn steps(text: &str) -> Result<Vec<TimeDelta>> {
    let offsets = delays(text)?;
    match offsets.iter().zip(offsets.iter().skip(1)).find(|(before, after)| before >= after) {
        Some((before, after)) => Err(bad(format!(
            "steps has {} after {}: offsets that grow expected",
            clock(*after),
            clock(*before)
        ))),
        None => Ok(offsets),
    }
}

/// The same, where each counts from the end of the one before: they need not grow. What is wrong is said as
/// `divvy.check_steps` says it.
pub(super) fn delays(text: &str) -> Result<Vec<TimeDelta>> {
    let (list, unit) = in_one_unit(text.trim());
    let list = if list == "preset" { PRESET } else { list };
    let words: Vec<&str> = list.split(',').map(str::trim).filter(|_| !list.is_empty()).collect();
    if words.is_empty() || words.len() > STEPS_MAX {
        return Err(bad(format!("steps has {} offsets: 1 to {STEPS_MAX} expected", words.len())));
    }
    let step = |(index, word): (usize, &&str)| {
        let step = match unit {
            Some(unit) if is_number(word.trim_start_matches('-')) => duration(&format!("{word}{unit}")),
            Some(_) => None,
            None => duration(word),
        };
        let step = step.ok_or_else(|| {
            let expected = match unit {
                Some(unit) => format!("a bare number, for {unit:?} behind the list is the unit of all,"),
                None => "seconds, or a number with s, m, h or d,".to_owned(),
            };
            bad(format!("steps has {word:?} at place {}: {expected} expected", index + 1))
        })?;
        let is_right = step >= TimeDelta::zero() && step <= TimeDelta::seconds(SECONDS_MAX);
        let wrong = || bad(format!("steps has the offset {}: 0 to 10 years expected", clock(step)));
        is_right.then_some(step).ok_or_else(wrong)
    };
    words.iter().enumerate().map(step).collect()
}

/// As Postgres writes an interval of seconds: `-00:00:01`, `96360:00:00`.
fn clock(delta: TimeDelta) -> String {
    let (sign, seconds) = (if delta < TimeDelta::zero() { "-" } else { "" }, delta.num_seconds().abs());
    format!("{sign}{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
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
    let interval = duration(text.trim()).ok_or_else(|| {
        bad(format!("every is {text:?}: an interval such as \"90s\", \"15m\" or \"1h30m\" expected"))
    })?;
    if interval < TimeDelta::seconds(1) || interval > TimeDelta::seconds(SECONDS_MAX) {
        return Err(bad(format!("every is {}: 1 s to 10 years expected", clock(interval))));
    }
    Ok(interval)
}

/// Reads seconds, or numbers each with s, m, h or d in any order, `90`, `90s`, `1h30m`, perhaps behind a minus.
fn duration(text: &str) -> Option<TimeDelta> {
    if let Some(text) = text.strip_prefix('-') {
        return (!text.starts_with('-')).then(|| duration(text).map(|delta| -delta))?;
    }
    if is_number(text) {
        return TimeDelta::try_seconds(text.parse().ok()?);
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
    TimeDelta::try_seconds(total).filter(|_| !text.is_empty())
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

//! The fields of one cron expression, made into what the `cron` crate parses.
//!
//! `cron` reads Quartz: six or seven fields, Sunday is 1. Here five fields are widened, weekdays are read in
//! either numbering, and L, W and # are set apart as date filters. What it refuses is refused by name.

use super::bad;
use super::day::{DateFilter, Special};
use crate::{Error, Result};
use chrono::Weekday;
use cron::{Schedule, TimeUnitSpec};
use std::str::FromStr;

/// What each field is called and what it may hold, in the order of seven fields.
const FIELDS: [(&str, &str); 7] = [
    ("second", "0 to 59, a list 0,30, a range 10-20 or a step */5"),
    ("minute", "0 to 59, a list 0,30, a range 10-20 or a step */5"),
    ("hour", "0 to 23, a list 8,12, a range 8-18 or a step */2"),
    ("day of month", "1 to 31, a list 1,15, a range 1-7, a step */2, ?, L, L-3, LW, L-3W or 15W"),
    ("month", "1 to 12 or JAN to DEC, a list 3,9, a range 4-9 or a step */3"),
    ("day of week", "see the numbering"),
    ("year", "1970 to 2100, a list 2026,2028, a range 2026-2030 or a step */2"),
];
const MONTH_DAY: usize = 3;
const WEEK_DAY: usize = 5;

/// How numbers name weekdays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbering {
    /// Five fields: 0 and 7 are Sunday.
    Posix,
    /// Six and seven fields: 1 is Sunday, 7 is Saturday.
    Quartz,
}

/// One expression: seven fields for the `cron` crate, and the filters it cannot express.
pub(super) struct Fields {
    values: [String; 7],
    month_days: Option<DateFilter>,
    week_days: Option<DateFilter>,
    /// Five fields with both day fields restricted: either of them lets a date through, as in POSIX.
    either_day: bool,
}

impl Fields {
    pub(super) fn parse(expression: &str) -> Result<Self> {
        let words: Vec<&str> = expression.split_whitespace().collect();
        let (numbering, mut values) = widen(expression, &words)?;
        let restricted = |field: usize| !values[field].starts_with(['*', '?']);
        let either_day = numbering == Numbering::Posix && restricted(MONTH_DAY) && restricted(WEEK_DAY);

        let wrong = |field: usize, value: &str| wrong(field, value, expression, numbering);
        let month_days =
            month_days(&values[MONTH_DAY]).ok_or_else(|| wrong(MONTH_DAY, &values[MONTH_DAY]))?;
        let week_days =
            week_days(&values[WEEK_DAY], numbering).ok_or_else(|| wrong(WEEK_DAY, &values[WEEK_DAY]))?;
        if !month_days.specials.is_empty() {
            values[MONTH_DAY] = "*".to_owned();
        }
        values[WEEK_DAY] =
            if week_days.specials.is_empty() { list(week_days.week_days) } else { "*".to_owned() };
        for (field, value) in values.iter().enumerate() {
            alone(field, value).ok_or_else(|| wrong(field, value))?;
        }
        let special = |filter: DateFilter| Some(filter).filter(|filter| !filter.specials.is_empty());
        Ok(Self { values, month_days: special(month_days), week_days: special(week_days), either_day })
    }

    /// The schedules whose union this expression is, each with the filters all its dates must pass.
    pub(super) fn schedules(self) -> Result<Vec<(Schedule, Vec<DateFilter>)>> {
        let build = |values: &[String; 7]| {
            let text = values.join(" ");
            Schedule::from_str(&text)
                .map_err(|error| bad(format!("cron expression {text:?} is not understood")).caused_by(error))
        };
        if !self.either_day {
            let filters = self.month_days.into_iter().chain(self.week_days).collect();
            return Ok(vec![(build(&self.values)?, filters)]);
        }
        let without = |field: usize| {
            let mut values = self.values.clone();
            values[field] = "*".to_owned();
            build(&values)
        };
        Ok(vec![
            (without(WEEK_DAY)?, self.month_days.into_iter().collect()),
            (without(MONTH_DAY)?, self.week_days.into_iter().collect()),
        ])
    }
}

/// The fields that restrict the dates of an expression that was parsed, in words.
pub(super) fn dates(expression: &str) -> String {
    let words: Vec<&str> = expression.split_whitespace().collect();
    let first = usize::from(words.len() == 5);
    let restricted = |(field, value): (usize, &&str)| {
        let date = field + first >= MONTH_DAY && !value.starts_with(['*', '?']);
        date.then(|| format!("{} {value:?}", FIELDS[field + first].0))
    };
    words.iter().enumerate().filter_map(restricted).collect::<Vec<_>>().join(" and ")
}

/// Five and six fields made seven.
fn widen(expression: &str, words: &[&str]) -> Result<(Numbering, [String; 7])> {
    let (numbering, first, last) = match words.len() {
        5 => (Numbering::Posix, Some("0"), Some("*")),
        6 => (Numbering::Quartz, None, Some("*")),
        7 => (Numbering::Quartz, None, None),
        count => {
            return Err(bad(format!(
                "cron expression {expression:?} has {count} fields: 5 (minute hour day month weekday), 6 (with a \
                 second first), 7 (with a year last) or a name such as @daily expected"
            )));
        }
    };
    let mut all = first.iter().chain(words).chain(&last).map(|word| word.to_string());
    Ok((numbering, std::array::from_fn(|_| all.next().unwrap_or_default())))
}

fn wrong(field: usize, value: &str, expression: &str, numbering: Numbering) -> Error {
    let (name, expected) = FIELDS[field];
    let expected = match (field, numbering) {
        (WEEK_DAY, Numbering::Posix) => {
            "SUN to SAT or 0 to 7 (0 and 7 are Sunday), a list, a range MON-FRI, FRI#2 or FRIL"
        }
        (WEEK_DAY, Numbering::Quartz) => {
            "SUN to SAT or, with seconds, 1 to 7 (1 is Sunday), a list, a range MON-FRI, ?, FRI#2 or FRIL"
        }
        _ => expected,
    };
    bad(format!("cron field {name} is {value:?} in {expression:?}: {expected} expected"))
}

/// The schedule of one field with all others free: what tells which field is wrong.
fn alone(field: usize, value: &str) -> Option<Schedule> {
    let mut values = ["*"; 7];
    values[field] = value;
    Schedule::from_str(&values.join(" ")).ok()
}

fn month_days(value: &str) -> Option<DateFilter> {
    let mut filter = DateFilter::default();
    for part in value.split(',') {
        match month_day_special(&part.to_ascii_uppercase())? {
            Some(special) => filter.specials.push(special),
            None => {
                let days = alone(MONTH_DAY, part)?;
                filter.month_days |= days.days_of_month().iter().fold(0, |bits, day| bits | 1 << day);
            }
        }
    }
    Some(filter)
}

/// `Some(None)` for a plain part, `None` for a wrong one.
fn month_day_special(part: &str) -> Option<Option<Special>> {
    let day = |text: &str| number(text, 1, 31);
    if part == "L" {
        return Some(Some(Special::BeforeLast(0)));
    }
    if part == "LW" || part == "WL" {
        return Some(Some(Special::WorkdayBeforeLast(0)));
    }
    if let Some(days) = part.strip_prefix("L-") {
        let (days, special): (_, fn(u32) -> Special) = match days.strip_suffix('W') {
            Some(days) => (days, Special::WorkdayBeforeLast),
            None => (days, Special::BeforeLast),
        };
        return number(days, 1, 30).map(|days| Some(special(days)));
    }
    match part.strip_suffix('W') {
        Some(wanted) => day(wanted).map(|wanted| Some(Special::NearestWorkday(wanted))),
        None => Some(None),
    }
}

fn week_days(value: &str, numbering: Numbering) -> Option<DateFilter> {
    let mut filter = DateFilter::default();
    for part in value.split(',') {
        let part = part.to_ascii_uppercase();
        if part == "L" && numbering == Numbering::Quartz {
            filter.week_days |= 1 << 6;
        } else if let Some((day, nth)) = part.split_once('#') {
            filter.specials.push(Special::Nth(weekday(ordinal(day, numbering)?), number(nth, 1, 5)?));
        } else if let Some(day) = part.strip_suffix('L') {
            filter.specials.push(Special::LastOf(weekday(ordinal(day, numbering)?)));
        } else {
            filter.week_days |= plain_week_days(&part, numbering)?;
        }
    }
    Some(filter)
}

/// A day, a range (which may wrap: FRI-MON) or a step, as bits.
fn plain_week_days(part: &str, numbering: Numbering) -> Option<u8> {
    let (span, step) = match part.split_once('/') {
        Some((span, step)) => (span, Some(number(step, 1, 7)?)),
        None => (part, None),
    };
    let (from, length) = match span.split_once('-') {
        _ if span == "*" || span == "?" => (0, 6),
        Some((from, to)) => {
            let (from, to) = (ordinal(from, numbering)?, ordinal(to, numbering)?);
            (from, if to >= from { to - from } else { to + 7 - from })
        }
        None => {
            let day = ordinal(span, numbering)?;
            (day, if step.is_some() { 6_u32.saturating_sub(day) } else { 0 })
        }
    };
    let days = (from..=from + length).step_by(step.unwrap_or(1) as usize);
    Some(days.fold(0, |bits, day| bits | 1 << (day % 7)))
}

/// Days after Sunday; 7 stays 7 so that a range may end on it.
fn ordinal(text: &str, numbering: Numbering) -> Option<u32> {
    if let Ok(day) = Weekday::from_str(text) {
        return Some(day.num_days_from_sunday());
    }
    match numbering {
        Numbering::Posix => number(text, 0, 7),
        Numbering::Quartz => number(text, 1, 7).map(|day| day - 1),
    }
}

fn weekday(ordinal: u32) -> Weekday {
    (0..ordinal).fold(Weekday::Sun, |day, _| day.succ())
}

/// The weekdays as the `cron` crate numbers them.
fn list(days: u8) -> String {
    if days == 0b111_1111 {
        return "*".to_owned();
    }
    let days: Vec<String> =
        (0..7).filter(|day| days >> day & 1 == 1).map(|day| (day + 1).to_string()).collect();
    days.join(",")
}

fn number(text: &str, min: u32, max: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && (min..=max).contains(number))
}

//! Cron expressions in a time zone.
//!
//! The `cron` crate parses fields and walks over naive local time; it is never shown a zone, because there it
//! skips the days of a gap and answers moments in the past in a fold. Mapping to instants is `zone.rs`.

use super::bad;
use super::change::{ClockChange, ClockEffect, Repeat};
use super::day::DateFilter;
use super::field::{self, Fields};
use super::zone::{DstFold, DstGap, LocalClock};
use crate::{Error, Result};
use ::cron::{Schedule, TimeUnitSpec};
use chrono::{DateTime, NaiveDateTime, SubsecRound, TimeDelta, Utc};
use chrono_tz::Tz;
use std::fmt;

/// Longest cron text, in bytes.
const TEXT_MAX: usize = 1_000;

/// What an expression is written with, beside letters and digits.
const PUNCTUATION: &str = "* / , ? # @ ; -";

/// Most expressions of one text.
const EXPRESSIONS_MAX: usize = 20;

/// Most dates a filter may refuse before the search ends: more than there are from 1970 to 2100.
const DATES_MAX: usize = 50_000;

/// Expressions such as `0 3 * * MON-FRI`, separated by `;`, and the zone whose clock they read.
#[derive(Debug, Clone, PartialEq)]
pub struct Cron {
    text: String,
    rules: Vec<Rule>,
    clock: LocalClock,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    schedule: Schedule,
    filters: Vec<DateFilter>,
    pub(super) clock: LocalClock,
    /// It has every hour or every minute.
    pub(super) follows_elapsed_time: bool,
}

impl Cron {
    pub(super) fn parse(text: &str, zone: Tz, gap: DstGap, fold: DstFold) -> Result<Self> {
        let text = text.trim();
        if text.len() > TEXT_MAX {
            return Err(bad(format!("cron text has {} bytes: at most {TEXT_MAX} expected", text.len())));
        }
        // `TZ=` has an answer of its own.
        let is_known = |c: &char| c.is_ascii_alphanumeric() || PUNCTUATION.contains(*c) || *c == '=';
        if let Some(other) = text.chars().find(|c| !is_known(c)) {
            return Err(bad(format!(
                "cron has {:?}: letters, digits and {PUNCTUATION} expected",
                other.to_string()
            )));
        }
        let expressions: Vec<&str> = text.split(';').map(str::trim).collect();
        if expressions.len() > EXPRESSIONS_MAX {
            return Err(bad(format!(
                "cron text has {} expressions: at most {EXPRESSIONS_MAX} expected",
                expressions.len()
            )));
        }
        let clock = LocalClock { zone, gap, fold };
        let mut rules = Vec::new();
        for expression in expressions {
            let found = Rule::parse(expression, clock)?;
            if found.iter().all(|rule| rule.next_after(DateTime::UNIX_EPOCH).is_none()) {
                return Err(never(expression, &found, clock));
            }
            rules.extend(found);
        }
        Ok(Self { text: text.to_owned(), rules, clock })
    }

    /// The zone whose clock the fields read.
    pub fn zone(&self) -> Tz {
        self.clock.zone
    }

    pub(super) fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // Moments are whole seconds, so what is later than `after` is later than its whole second.
        let after = after.trunc_subsecs(0);
        self.rules.iter().filter_map(|rule| rule.next_after(after)).min()
    }

    /// What the changes of the zone's clock do in `(after, until]`, earliest first.
    pub(super) fn clock_effects(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Vec<ClockEffect> {
        // What a change does may lie up to a fold away from it.
        let day = TimeDelta::days(1);
        let fires = |at: DateTime<Utc>| self.next_after(at - TimeDelta::seconds(1)) == Some(at);
        let of =
            |change: ClockChange| self.rules.iter().filter_map(move |rule| change.effect_on(rule, &fires));
        let changes = self.clock.changes(after - day, until + day);
        let mut effects: Vec<ClockEffect> = changes.into_iter().flat_map(of).collect();
        effects.retain(|effect| effect.at > after && effect.at <= until);
        effects.sort_by_key(|effect| (effect.at, effect.first));
        effects.dedup();
        effects
    }

    /// Whether the clock shows the local time of `at` twice, and which of the two this is.
    pub(super) fn repeat(&self, at: DateTime<Utc>) -> Option<Repeat> {
        self.clock.repeat(at)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Rule {
    /// One expression, which is one rule, or two where either day field lets a date through.
    fn parse(expression: &str, clock: LocalClock) -> Result<Vec<Self>> {
        let fields = Fields::parse(named(expression)?)?;
        let rule = |(schedule, filters): (Schedule, Vec<DateFilter>)| {
            // The rule of cron(8): with every hour or every minute a job follows elapsed time.
            let follows_elapsed_time = schedule.hours().is_all() || schedule.minutes().is_all();
            let clock = if follows_elapsed_time { clock.elapsed() } else { clock };
            Self { schedule, filters, clock, follows_elapsed_time }
        };
        Ok(fields.schedules()?.into_iter().map(rule).collect())
    }

    fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.clock.next_after(after, |local| self.next_local(local))
    }

    /// The first matching local time later than `local`.
    pub(super) fn next_local(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let mut last = local;
        for _ in 0..DATES_MAX {
            let found = self.schedule.after(&last.and_utc()).next()?.naive_utc();
            if self.filters.iter().all(|filter| filter.matches(found.date())) {
                return Some(found);
            }
            // Nothing else on this date can match either: go on at its end.
            last = found.date().and_hms_opt(23, 59, 59)?;
        }
        None
    }
}

/// Why an expression that can be read has no moment.
fn never(expression: &str, rules: &[Rule], clock: LocalClock) -> Error {
    let epoch = DateTime::UNIX_EPOCH.naive_utc();
    if rules.iter().any(|rule| rule.next_local(epoch).is_some()) {
        let zone = clock.zone.name();
        return bad(format!(
            "cron expression {expression:?} never fires: the clock of {zone} skips all of its local times and \
             dst_gap is skip; dst_gap shift, or a time that exists, expected"
        ));
    }
    let dates = field::dates(expression);
    bad(format!(
        "cron expression {expression:?} never fires: no date between 1970 and 2100 has {dates}; a date that exists \
         expected"
    ))
}

/// The fields behind a name.
fn named(expression: &str) -> Result<&str> {
    match expression.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        "@monthly" => Ok("0 0 1 * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@hourly" => Ok("0 * * * *"),
        name if name.starts_with('@') => Err(bad(format!(
            "cron name {expression:?} is not known: @yearly, @monthly, @weekly, @daily, @hourly, or @every 90s on \
             its own, expected"
        ))),
        text if text.starts_with("tz=") || text.starts_with("cron_tz=") => Err(bad(format!(
            "cron expression {expression:?} brings its own zone: the zone belongs in timezone"
        ))),
        _ => Ok(expression),
    }
}

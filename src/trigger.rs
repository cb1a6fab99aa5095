//! When: the rule of a schedule as a pure value, and the moments it names.
//!
//! There is no clock here. Callers bring the instants (from Postgres), the rule answers which moments
//! lie between them. The set of moments never depends on how the time between is cut into questions:
//! `next_after` is "the smallest member of the set that is later".

mod change;
mod cron;
mod day;
mod field;
mod text;
mod zone;

pub use self::change::{ClockChange, ClockEffect, Fate, Repeat};
pub use self::cron::Cron;
pub use self::zone::{DstFold, DstGap};

use self::zone::LocalClock;
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, TimeDelta, Utc};
use std::fmt;

/// Most steps a stepped rule may have.
pub const STEPS_MAX: usize = 1_000;

/// The IANA release of the zone data that cron moments are computed with, such as 2025b.
pub const ZONE_DATA: &str = chrono_tz::IANA_TZDB_VERSION;

/// A rule that names moments.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Trigger {
    /// Once, at an instant.
    Timed {
        /// The instant.
        at: DateTime<Utc>,
    },
    /// Once per offset after the start: 3, 5, 10, 15, 30 seconds after it.
    Stepped {
        /// The offsets, each greater than the one before.
        offsets: Vec<TimeDelta>,
    },
    /// For ever, by cron expression in a time zone.
    Cron(Cron),
    /// For ever, one interval after another, counted from the start.
    Every {
        /// The time between two moments, at least a second.
        interval: TimeDelta,
    },
}

impl Trigger {
    /// Reads `yyyyMMddHHmmss` as the wall clock of `zone`, or an RFC 3339 instant, which brings its offset.
    ///
    /// # Errors
    /// `BadSchedule` (DV012) when the text is neither, or the zone is unknown.
    pub fn timed(text: &str, zone: &str) -> Result<Self> {
        let zone = zone::parse(zone)?;
        Ok(Self::Timed { at: text::instant(text, zone)? })
    }

    /// What a change of the clock does to the text of a timed rule, where no clock of `zone` ever shows its time.
    pub fn effect_on_timed(text: &str, zone: &str) -> Option<ClockEffect> {
        let clock = LocalClock { zone: zone::parse(zone).ok()?, gap: DstGap::Shift, fold: DstFold::First };
        clock.effect_on_single(text::local_time(text)?)
    }

    /// Reads steps such as `3,5,10,15,30` or `30s,5m,1h`: offsets from the start, bare numbers in seconds. A unit
    /// behind the list is that of all (`3,5,10 m`); `preset` stands for 3,5,10,15,30 (`preset m`).
    ///
    /// # Errors
    /// `BadSchedule` (DV012) naming the step that is no duration, or is not later than the one before.
    pub fn stepped(text: &str) -> Result<Self> {
        Ok(Self::Stepped { offsets: text::steps(text)? })
    }

    /// Reads steps of which each counts from the end of the run before: they need not grow. The rule that comes back
    /// names the earliest moments, as if no run took any time.
    ///
    /// # Errors
    /// `BadSchedule` (DV012) naming the step that is no duration.
    pub fn delayed(text: &str) -> Result<(Self, Vec<TimeDelta>)> {
        let delays = text::delays(text)?;
        let sums = delays.iter().scan(TimeDelta::zero(), |sum, delay| {
            *sum += *delay;
            Some(*sum)
        });
        Ok((Self::Stepped { offsets: sums.collect() }, delays))
    }

    /// Reads an interval such as `90s`, `15m` or `1h30m`; a bare number is seconds.
    ///
    /// # Errors
    /// `BadSchedule` (DV012) when it is no duration, or shorter than a second.
    pub fn every(text: &str) -> Result<Self> {
        Ok(Self::Every { interval: text::interval(text)? })
    }

    /// Reads cron text: 5 fields (POSIX), 6 (seconds first) or 7 (year last), `@daily` and friends, `@every
    /// 90s`, several expressions separated by `;`. A local time that a change of the clock skips moves to
    /// the end of the gap, one that comes twice fires the first time; see [`Trigger::cron_with`].
    ///
    /// # Errors
    /// `BadSchedule` (DV012) naming the field, its value and what would be right.
    pub fn cron(text: &str, zone: &str) -> Result<Self> {
        Self::cron_with(text, zone, DstGap::default(), DstFold::default())
    }

    /// As [`Trigger::cron`], saying what happens to a fixed local time when the clock changes.
    ///
    /// # Errors
    /// As [`Trigger::cron`].
    pub fn cron_with(text: &str, zone: &str, gap: DstGap, fold: DstFold) -> Result<Self> {
        let zone = zone::parse(zone)?;
        match text.trim().strip_prefix("@every") {
            Some(interval) => Self::every(interval.trim()),
            None => Ok(Self::Cron(Cron::parse(text, zone, gap, fold)?)),
        }
    }

    /// The first moment later than `after`; `start` is the instant the rule counts from.
    pub fn next_after(&self, start: DateTime<Utc>, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Timed { at } => Some(*at).filter(|at| *at > after),
            Self::Stepped { offsets } => offsets
                .iter()
                .filter_map(|offset| start.checked_add_signed(*offset))
                .find(|moment| *moment > after),
            Self::Cron(cron) => cron.next_after(after),
            Self::Every { interval } => next_multiple(start, *interval, after),
        }
    }

    /// That it fires at all once `after` has passed: for those who are about to store it.
    ///
    /// # Errors
    /// `BadSchedule` (DV012) when every moment lies before: a past year, a past `run_at`.
    pub fn ensure_fires_after(&self, start: DateTime<Utc>, after: DateTime<Utc>) -> Result<()> {
        match self.next_after(start, after) {
            Some(_) => Ok(()),
            None => {
                Err(bad(format!("{self} never fires after {}: a later moment expected", after.to_rfc3339())))
            }
        }
    }

    /// What changes of the zone's clock do to a cron rule in `(after, until]`, earliest first: what is shifted
    /// or skipped, and where it follows elapsed time.
    pub fn clock_effects(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Vec<ClockEffect> {
        match self {
            Self::Cron(cron) => cron.clock_effects(after, until),
            _ => Vec::new(),
        }
    }

    /// Whether the zone's clock shows the local time of a cron moment twice, and which of the two it is.
    pub fn repeat(&self, at: DateTime<Utc>) -> Option<Repeat> {
        match self {
            Self::Cron(cron) => cron.repeat(at),
            _ => None,
        }
    }

    /// The moments in `(after, until]`, at most `max` of them, earliest first.
    pub fn moments(
        &self,
        start: DateTime<Utc>,
        after: DateTime<Utc>,
        until: DateTime<Utc>,
        max: usize,
    ) -> Vec<DateTime<Utc>> {
        let mut last = after;
        std::iter::from_fn(|| {
            last = self.next_after(start, last).filter(|moment| *moment <= until)?;
            Some(last)
        })
        .take(max)
        .collect()
    }

    /// The latest moment in `(after, until]`, without walking over those before it.
    pub fn last_until(
        &self,
        start: DateTime<Utc>,
        after: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let within = |from| self.next_after(start, from).filter(|moment| *moment <= until);
        let mut last = within(after)?;
        let mut end = until;
        // "There is one in (x, until]" is true below the latest moment and false from it on, so it can be
        // bisected; `last` always is a moment, nothing lies in (end, until].
        while let Some(middle) = halfway(last, end) {
            match within(middle) {
                Some(later) => last = later,
                None => end = middle,
            }
        }
        Some(within(last).unwrap_or(last))
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timed { at } => write!(f, "run_at {}", at.to_rfc3339()),
            Self::Stepped { offsets } => {
                let seconds: Vec<String> =
                    offsets.iter().map(|step| step.num_seconds().to_string()).collect();
                write!(f, "steps {}", seconds.join(","))
            }
            Self::Cron(cron) => write!(f, "cron {cron:?}", cron = cron.to_string()),
            Self::Every { interval } => write!(f, "every {} s", interval.num_seconds()),
        }
    }
}

/// A point between the two, or none when they are so close (a second) that one look decides.
fn halfway(from: DateTime<Utc>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let distance = until - from;
    (distance > TimeDelta::seconds(1)).then(|| from + distance / 2)
}

/// The smallest `start + k * interval`, k at least 1, that is later than `after`.
fn next_multiple(start: DateTime<Utc>, interval: TimeDelta, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let step = interval.num_microseconds().filter(|step| *step > 0)?;
    let passed = (after - start).num_microseconds()?;
    let count = (passed.div_euclid(step) + 1).max(1);
    start.checked_add_signed(TimeDelta::microseconds(step.checked_mul(count)?))
}

/// An invalid schedule, DV012.
fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadSchedule, message)
}

#[cfg(test)]
mod tests;

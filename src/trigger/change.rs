//! What the changes of a zone's clock do to a rule: nothing is decided here, this is for people who look.

use super::cron::Rule;
use super::zone::{DstFold, DstGap, FAR, LocalClock, bisect};
use chrono::{DateTime, LocalResult, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc};
use std::fmt;

/// Looked at in such steps for a change of the clock; no zone changes it there and back in less.
const STEP: TimeDelta = TimeDelta::days(1);

/// Most local times of one change that are counted: a day of seconds.
const TIMES_MAX: usize = 86_400;

/// A change of a zone's clock. Forward: the local times from `from` to before `to` do not exist. Back: those
/// from `to` to before `from` come twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockChange {
    /// The first instant of the new time.
    pub at: DateTime<Utc>,
    /// What the clock would show then without the change.
    pub from: NaiveDateTime,
    /// What it shows.
    pub to: NaiveDateTime,
}

/// What became of local times that a change of the clock touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They do not exist, and moved to the end of the gap.
    Shifted,
    /// They do not exist, and do not fire.
    InTheGap,
    /// They come twice, and do not fire the first time.
    FirstTime,
    /// They come twice, and do not fire the second time.
    SecondTime,
    /// The rule has every hour or every minute: it fires by elapsed time.
    FollowsElapsedTime,
}

impl Fate {
    /// Whether nothing fires there.
    pub fn is_skipped(self) -> bool {
        matches!(self, Self::InTheGap | Self::FirstTime | Self::SecondTime)
    }
}

/// What one change does to one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockEffect {
    /// The change.
    pub change: ClockChange,
    /// What became of the local times.
    pub fate: Fate,
    /// The instant to show it at: of the moment that fires, or where the first of those skipped would be.
    pub at: DateTime<Utc>,
    /// The first of the local times.
    pub first: NaiveDateTime,
    /// The last of them.
    pub last: NaiveDateTime,
    /// How many there are.
    pub times: usize,
}

/// A local time that comes twice, and which of the two a moment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// The local time.
    pub local: NaiveDateTime,
    /// Whether it is the second time.
    pub is_second: bool,
}

impl ClockChange {
    /// What it does to `rule`, if anything; `fires` says whether any rule of the schedule fires at an instant.
    pub(super) fn effect_on(
        self,
        rule: &Rule,
        fires: &impl Fn(DateTime<Utc>) -> bool,
    ) -> Option<ClockEffect> {
        let is_gap = self.from < self.to;
        let fate = match (rule.follows_elapsed_time, is_gap, rule.clock.gap, rule.clock.fold) {
            (true, ..) => Fate::FollowsElapsedTime,
            (_, true, DstGap::Shift, _) => Fate::Shifted,
            (_, true, DstGap::Skip, _) => Fate::InTheGap,
            (_, false, _, DstFold::First) => Fate::SecondTime,
            (_, false, _, DstFold::Last) => Fate::FirstTime,
            (_, false, _, DstFold::Both) => return None,
        };
        // In a fold, the same local time is so much earlier the first time than the second.
        let instant = |local: NaiveDateTime| match fate {
            Fate::FirstTime => self.at + (local - self.from),
            Fate::SecondTime => self.at + (local - self.to),
            _ => self.at,
        };
        let begin = self.from.min(self.to) - TimeDelta::seconds(1);
        let mut times = std::iter::successors(rule.next_local(begin), |local| rule.next_local(*local))
            .take_while(|local| *local < self.from.max(self.to))
            .filter(|local| !matches!(fate, Fate::FirstTime | Fate::SecondTime) || !fires(instant(*local)))
            .take(TIMES_MAX);
        let first = times.next()?;
        let (last, more) = times.fold((first, 0), |(_, count), local| (local, count + 1));
        let at = match fate {
            Fate::FollowsElapsedTime => {
                rule.clock.next_after(self.at - TimeDelta::seconds(1), |local| rule.next_local(local))?
            }
            _ => instant(first),
        };
        Some(ClockEffect { change: self, fate, at, first, last, times: more + 1 })
    }
}

impl LocalClock {
    /// What a change does to a single local time that is to fire at the end of a gap, where it lies in one.
    pub(super) fn effect_on_single(self, local: NaiveDateTime) -> Option<ClockEffect> {
        let near = local.and_utc();
        let mut changes = self.changes(near - FAR, near + FAR).into_iter();
        let change = changes.find(|change| change.from <= local && local < change.to)?;
        Some(ClockEffect { change, fate: Fate::Shifted, at: change.at, first: local, last: local, times: 1 })
    }

    /// Whether the clock shows the local time of `at` twice, and which of the two this is.
    pub(super) fn repeat(self, at: DateTime<Utc>) -> Option<Repeat> {
        let local = at.with_timezone(&self.zone).naive_local();
        match self.zone.from_local_datetime(&local) {
            LocalResult::Ambiguous(first, _) => Some(Repeat { local, is_second: first != at }),
            _ => None,
        }
    }

    /// The changes of the zone's clock in `(after, until]`.
    pub(super) fn changes(self, after: DateTime<Utc>, until: DateTime<Utc>) -> Vec<ClockChange> {
        let shown = |at: DateTime<Utc>, offset: i32| at.naive_utc() + TimeDelta::seconds(offset.into());
        let mut found = Vec::new();
        let (mut at, mut before) = (after, self.offset(after));
        while at < until {
            let next = (at + STEP).min(until);
            let offset = self.offset(next);
            if offset != before {
                let turn = bisect(at, next, |at| self.offset(at) != before);
                found.push(ClockChange { at: turn, from: shown(turn, before), to: shown(turn, offset) });
                before = offset;
            }
            at = next;
        }
        found
    }
}

impl fmt::Display for ClockEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A whole day may be left out; otherwise the row says the date.
        let clock = if self.first.date() == self.change.to.date() { clock } else { date_and_clock };
        let (first, last) = (clock(self.first), clock(self.last));
        let (times, s) = match self.times {
            1 => (first, "s"),
            2 => (format!("{first} and {last}"), ""),
            count => (format!("{first} to {last} ({count} times)"), ""),
        };
        let (from, to) = (clock(self.change.from), clock(self.change.to));
        let do_not = if s.is_empty() { "do not" } else { "does not" };
        match self.fate {
            Fate::Shifted => write!(f, "{times} {do_not} exist: moved to {to} (dst_gap shift)"),
            Fate::InTheGap => write!(f, "{times} {do_not} exist: skipped (dst_gap skip)"),
            Fate::FirstTime => write!(f, "{times} come{s} twice: skipped the first time (dst_fold last)"),
            Fate::SecondTime => write!(f, "{times} come{s} twice: skipped the second time (dst_fold first)"),
            Fate::FollowsElapsedTime => {
                write!(f, "the clock goes from {from} to {to}: the rule follows elapsed time")
            }
        }
    }
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = if self.is_second { "second" } else { "first" };
        write!(f, "{} comes twice, this is the {which} time", clock(self.local))
    }
}

/// The time of day as one says it: seconds only where there are any.
fn clock(local: NaiveDateTime) -> String {
    local.format(if local.second() == 0 { "%H:%M" } else { "%H:%M:%S" }).to_string()
}

fn date_and_clock(local: NaiveDateTime) -> String {
    format!("{} {}", local.date(), clock(local))
}

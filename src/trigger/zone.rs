//! Local times and the instants they stand for.
//!
//! Twice a year a zone's clock jumps. Forward: some local times do not exist (the gap). Back: some come twice
//! (the fold). A rule names local times; this file says which instants they are and finds the next one in
//! two looks, without walking through the hours around the jump.

use super::bad;
use crate::{Error, Result};
use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use std::fmt;
use std::str::FromStr;

/// Most local times looked at for one answer: a day of seconds twice over, more than any zone's jump.
const CANDIDATES_MAX: usize = 2 * 86_400;

/// Wider than any zone's offset, so an instant this far away is certainly on the other side.
pub(super) const FAR: TimeDelta = TimeDelta::hours(26);

/// What becomes of a fixed local time that the clock skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DstGap {
    /// It moves to the first instant after the gap: 02:30 becomes 03:00.
    #[default]
    Shift,
    /// It does not fire that day.
    Skip,
}

/// What becomes of a fixed local time that comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DstFold {
    /// It fires the first time.
    #[default]
    First,
    /// It fires the second time.
    Last,
    /// It fires both times.
    Both,
}

impl FromStr for DstGap {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "shift" => Ok(Self::Shift),
            "skip" => Ok(Self::Skip),
            _ => Err(bad(format!("dst_gap is {text:?}: shift or skip expected"))),
        }
    }
}

impl FromStr for DstFold {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "first" => Ok(Self::First),
            "last" => Ok(Self::Last),
            "both" => Ok(Self::Both),
            _ => Err(bad(format!("dst_fold is {text:?}: first, last or both expected"))),
        }
    }
}

impl fmt::Display for DstGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shift => "shift",
            Self::Skip => "skip",
        })
    }
}

impl fmt::Display for DstFold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Last => "last",
            Self::Both => "both",
        })
    }
}

/// Reads an IANA zone name.
pub(super) fn parse(name: &str) -> Result<Tz> {
    name.trim().parse().map_err(|_| {
        let such_as = alike(name.trim()).map_or("Europe/Berlin or UTC", Tz::name);
        bad(format!("timezone is {name:?}: an IANA name such as {such_as} expected"))
    })
}

/// The zone that somebody who wrote `name` may have meant: in another case, or with its region.
fn alike(name: &str) -> Option<Tz> {
    let city = name.rsplit('/').next().unwrap_or_default().replace(' ', "_");
    let is = |wanted: &str| {
        TZ_VARIANTS.iter().find(|zone| {
            zone.name() != wanted
                && zone.name().rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(wanted))
        })
    };
    TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(name)).or_else(|| is(&city)).copied()
}

/// How one rule's local times become instants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LocalClock {
    pub(super) zone: Tz,
    pub(super) gap: DstGap,
    pub(super) fold: DstFold,
}

impl LocalClock {
    /// The clock of a rule that follows elapsed time ("every 15 minutes"): what does not exist is left out,
    /// what comes twice fires twice.
    pub(super) fn elapsed(self) -> Self {
        Self { gap: DstGap::Skip, fold: DstFold::Both, ..self }
    }

    /// The instants of a local time, earliest first: none, one or two.
    pub(super) fn instants(self, local: NaiveDateTime) -> impl Iterator<Item = DateTime<Utc>> {
        let (first, second) = match self.zone.from_local_datetime(&local) {
            LocalResult::Single(at) => (Some(at.to_utc()), None),
            LocalResult::Ambiguous(first, last) => match self.fold {
                DstFold::First => (Some(first.to_utc()), None),
                DstFold::Last => (Some(last.to_utc()), None),
                DstFold::Both => (Some(first.to_utc()), Some(last.to_utc())),
            },
            LocalResult::None => match self.gap {
                DstGap::Shift => (Some(self.end_of_gap(local)), None),
                DstGap::Skip => (None, None),
            },
        };
        first.into_iter().chain(second)
    }

    /// The smallest instant later than `after` of all local times that `next_local` (a strictly rising walk)
    /// names.
    ///
    /// Walking up from the local time of `after` misses one thing only: in the first pass of a fold, local
    /// times already passed come a second time. So those are walked too, from where the fold begins.
    pub(super) fn next_after(
        self,
        after: DateTime<Utc>,
        next_local: impl Fn(NaiveDateTime) -> Option<NaiveDateTime>,
    ) -> Option<DateTime<Utc>> {
        let local = after.with_timezone(&self.zone).naive_local();
        let ahead = self.walk(local, after, &next_local);
        let again = self.fold_begin(local, after).and_then(|begin| {
            let before = begin.checked_sub_signed(TimeDelta::seconds(1))?;
            self.walk(before, after, &next_local)
        });
        ahead.into_iter().chain(again).min()
    }

    /// The first instant later than `after` on the way up from `local`.
    fn walk(
        self,
        local: NaiveDateTime,
        after: DateTime<Utc>,
        next_local: impl Fn(NaiveDateTime) -> Option<NaiveDateTime>,
    ) -> Option<DateTime<Utc>> {
        std::iter::successors(next_local(local), |candidate| next_local(*candidate))
            .take(CANDIDATES_MAX)
            .find_map(|candidate| self.instants(candidate).find(|at| *at > after))
    }

    /// Where the fold begins on the local clock, when `after` lies in its first pass.
    fn fold_begin(self, local: NaiveDateTime, after: DateTime<Utc>) -> Option<NaiveDateTime> {
        let LocalResult::Ambiguous(first, last) = self.zone.from_local_datetime(&local) else { return None };
        if first.to_utc() != after {
            return None;
        }
        let offset = self.offset(after);
        let turn = bisect(after, last.to_utc(), |at| self.offset(at) != offset);
        Some(turn.with_timezone(&self.zone).naive_local())
    }

    /// The first instant whose local time is later than one that does not exist.
    fn end_of_gap(self, local: NaiveDateTime) -> DateTime<Utc> {
        let near = local.and_utc();
        bisect(near - FAR, near + FAR, |at| at.with_timezone(&self.zone).naive_local() > local)
    }

    pub(super) fn offset(self, at: DateTime<Utc>) -> i32 {
        self.zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()
    }
}

/// The first whole second in `(no, yes]` for which `holds`; it does at `yes`, and from its first time on.
pub(super) fn bisect(
    no: DateTime<Utc>,
    yes: DateTime<Utc>,
    holds: impl Fn(DateTime<Utc>) -> bool,
) -> DateTime<Utc> {
    let (mut no, mut yes) = (no, yes);
    loop {
        let middle = no + TimeDelta::seconds((yes - no).num_seconds() / 2);
        if middle == no {
            return yes;
        }
        if holds(middle) { yes = middle } else { no = middle }
    }
}

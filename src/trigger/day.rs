//! Dates that plain cron fields cannot say: the last day, the working day nearest the 15th, the second
//! Friday.

use chrono::{Datelike, Days, NaiveDate, Weekday};

/// A date described by its place in its month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    /// `L` and `L-3`: so many days before the last day of the month.
    BeforeLast(u32),
    /// `LW` and `L-3W`: the day from Monday to Friday nearest to so many days before the last, in the same month.
    WorkdayBeforeLast(u32),
    /// `15W`: the day from Monday to Friday nearest that date, in the same month.
    NearestWorkday(u32),
    /// `FRIL`: the last such weekday of the month.
    LastOf(Weekday),
    /// `FRI#2`: the n-th such weekday of the month.
    Nth(Weekday, u32),
}

impl Special {
    fn matches(self, date: NaiveDate) -> bool {
        let last = last_day(date);
        match self {
            Self::BeforeLast(days) => date.day() + days == last,
            Self::WorkdayBeforeLast(days) => {
                last.checked_sub(days).is_some_and(|day| Some(date) == nearest_workday(date, day))
            }
            Self::NearestWorkday(day) => Some(date) == nearest_workday(date, day),
            Self::LastOf(weekday) => date.weekday() == weekday && date.day() + 7 > last,
            Self::Nth(weekday, nth) => date.weekday() == weekday && date.day().div_ceil(7) == nth,
        }
    }
}

/// What one day field lets through when it holds a [`Special`]: any of its parts.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct DateFilter {
    /// Days of the month, bit n for day n.
    pub(super) month_days: u32,
    /// Days of the week, bit n for n days after Sunday.
    pub(super) week_days: u8,
    /// The rest.
    pub(super) specials: Vec<Special>,
}

impl DateFilter {
    pub(super) fn matches(&self, date: NaiveDate) -> bool {
        self.month_days >> date.day() & 1 == 1
            || self.week_days >> date.weekday().num_days_from_sunday() & 1 == 1
            || self.specials.iter().any(|special| special.matches(date))
    }
}

fn last_day(date: NaiveDate) -> u32 {
    u32::from(date.num_days_in_month())
}

/// The working day nearest `day` in the month of `date`; none when the month is shorter.
fn nearest_workday(date: NaiveDate, day: u32) -> Option<NaiveDate> {
    let wanted = date.with_day(day)?;
    let (back, on) = match wanted.weekday() {
        Weekday::Sat if day > 1 => (1, 0),
        Weekday::Sat => (0, 2),
        Weekday::Sun if day < last_day(date) => (0, 1),
        Weekday::Sun => (2, 0),
        _ => (0, 0),
    };
    wanted.checked_sub_days(Days::new(back))?.checked_add_days(Days::new(on))
}

//! What holds for every rule, tried on random ones near changes of clocks.

use super::*;
use chrono::{DurationRound, TimeZone, Timelike};
use chrono_tz::Tz;
use std::collections::BTreeSet;
use std::str::FromStr;

const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Havana",
    "Africa/Casablanca",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "UTC",
];

/// Numbers without a clock, so that a failure repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len() as u64) as usize]
    }

    /// Five fields, or six with a second.
    fn cron(&mut self) -> String {
        let second = self.pick(&["", "", "0 ", "30 ", "*/20 "]);
        let minute = self.pick(&["0", "30", "15,45", "*/10", "*", "59"]);
        let hour = self.pick(&["*", "2", "1", "0", "*/2", "1-3", "23", "3", "0,12"]);
        let days = self.pick(&["* *", "*/3 *", "* 3-4", "* 3,10,11", "25-31 *", "L *", "15W *"]);
        let week =
            if days.starts_with('*') { self.pick(&["*", "SUN", "MON-FRI", "SUNL", "FRI#2"]) } else { "*" };
        format!("{second}{minute} {hour} {days} {week}")
    }

    /// A rule of any kind; cron most often, with any policy and now and then two expressions.
    fn rule(&mut self, zone: &str, begin: DateTime<Utc>) -> Trigger {
        let seconds = |dice: &mut Self| dice.roll(90_000) as i64;
        match self.roll(10) {
            0 => Trigger::Timed { at: begin + TimeDelta::seconds(seconds(self)) },
            1 => {
                let steps: BTreeSet<i64> = (0..1 + self.roll(9)).map(|_| seconds(self)).collect();
                Trigger::Stepped { offsets: steps.into_iter().map(TimeDelta::seconds).collect() }
            }
            2 => Trigger::Every { interval: TimeDelta::seconds(1_000 + seconds(self)) },
            kind => {
                let one = self.cron();
                let text = if kind == 3 { format!("{one}; {}", self.cron()) } else { one };
                let gap = if self.roll(2) == 0 { DstGap::Shift } else { DstGap::Skip };
                let fold = [DstFold::First, DstFold::Last, DstFold::Both][self.roll(3) as usize];
                Trigger::cron_with(&text, zone, gap, fold).unwrap()
            }
        }
    }

    /// Some of the time, an instant within its second: questions are not asked on whole seconds.
    fn fraction(&mut self, at: DateTime<Utc>) -> DateTime<Utc> {
        at + TimeDelta::microseconds(if self.roll(2) == 0 { 0 } else { self.roll(1_000_000) as i64 })
    }

    /// A moment within two days of a change of the zone's clock, where it has one.
    fn near_a_change(&mut self, zone: &str) -> DateTime<Utc> {
        let zone: Tz = zone.parse().unwrap();
        let offset = |at: DateTime<Utc>| at.with_timezone(&zone).naive_local() - at.naive_utc();
        let begin = Utc.with_ymd_and_hms(2009 + self.roll(18) as i32, 1, 1, 0, 0, 0).unwrap();
        let mut at = begin;
        let first = offset(at);
        for _ in 0..400 {
            if offset(at) != first {
                break;
            }
            at += TimeDelta::days(1);
        }
        at - TimeDelta::days(1) - TimeDelta::minutes(self.roll(2_880) as i64)
    }
}

#[test]
fn the_next_moment_is_always_later() {
    let mut dice = Dice(42);
    for _ in 0..400 {
        let zone = dice.pick(&ZONES);
        let begin = dice.near_a_change(zone);
        let trigger = dice.rule(zone, begin);
        let mut last = dice.fraction(begin);
        for _ in 0..60 {
            let Some(next) = trigger.next_after(begin, last) else { break };
            assert!(next > last, "{trigger} in {zone}: {next} after {last}");
            // Nothing lies between: from any point before it, it is the next.
            let between = last + (next - last) / (2 + dice.roll(9) as i32);
            assert_eq!(trigger.next_after(begin, between), Some(next), "{trigger} in {zone} after {between}");
            last = next;
        }
    }
}

#[test]
fn no_moment_comes_twice_and_the_moments_do_not_depend_on_how_the_time_is_cut() {
    let mut dice = Dice(7);
    for _ in 0..150 {
        let zone = dice.pick(&ZONES);
        let begin = dice.near_a_change(zone);
        let trigger = dice.rule(zone, begin);
        let end = begin + TimeDelta::days(4);
        let whole = trigger.moments(begin, begin, end, usize::MAX);
        assert!(whole.is_sorted_by(|one, next| one < next), "{trigger} in {zone}: {whole:?}");
        let mut parts = Vec::new();
        let mut from = begin;
        while from < end {
            let step = TimeDelta::seconds(1 + dice.roll(9_000) as i64);
            let to = dice.fraction(from + step).min(end);
            parts.extend(trigger.moments(begin, from, to, usize::MAX));
            assert_eq!(
                trigger.last_until(begin, begin, to),
                parts.last().copied(),
                "{trigger} in {zone} until {to}"
            );
            from = to;
        }
        assert_eq!(whole, parts, "{trigger} in {zone}");
    }
}

/// Croner decides alike where gap is shift and fold is first, and a time is fixed to one minute and hour, or has all
/// hours. Lists of hours follow elapsed time there.
#[test]
fn croner_names_the_same_moments_where_its_policy_is_ours() {
    let mut dice = Dice(2_026);
    for _ in 0..300 {
        let zone = dice.pick(&ZONES);
        let time = match dice.roll(3) {
            0 => dice.pick(&["0 *", "30 *", "*/15 *", "* *", "*/20 *"]).to_owned(),
            _ => format!(
                "{} {}",
                dice.pick(&["0", "30", "59", "15"]),
                dice.pick(&["0", "1", "2", "3", "12", "23"])
            ),
        };
        let days =
            dice.pick(&["* * *", "L * *", "15W * *", "* 3,10,11 *", "* * MON-FRI", "* * SUN#2", "13 * FRI"]);
        let text = format!("{time} {days}");
        let (cron, trigger) = (croner::Cron::from_str(&text).unwrap(), Trigger::cron(&text, zone).unwrap());
        let tz: Tz = zone.parse().unwrap();
        let mut last = dice.near_a_change(zone);
        for _ in 0..20 {
            let theirs = cron.find_next_occurrence(&last.with_timezone(&tz), false).unwrap().to_utc();
            assert_eq!(trigger.next_after(last, last), Some(theirs), "{text} in {zone} after {last}");
            last = theirs;
        }
    }
}

#[test]
fn no_text_brings_the_parser_down_and_each_refusal_says_what_is_expected() {
    let mut dice = Dice(5);
    let parts =
        "* ? 0 7 31 60 99999999999 - / , # L W MON jan @daily _ _ _ ; é */5 1- L- LW 5L 2030 @every 90s \t";
    let parts: Vec<&str> = parts.split(' ').map(|part| if part == "_" { " " } else { part }).collect();
    let begin = DateTime::UNIX_EPOCH;
    // An offset of zero is a moment, too.
    let before = begin - TimeDelta::seconds(1);
    for _ in 0..4_000 {
        let text: String = (0..1 + dice.roll(14)).map(|_| dice.pick(&parts)).collect();
        for read in [Trigger::cron(&text, "UTC"), Trigger::stepped(&text), Trigger::every(&text)] {
            match read {
                Ok(trigger) => assert!(trigger.next_after(begin, before).is_some(), "{text:?}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::BadSchedule, "{text:?}");
                    assert!(error.to_string().contains("expected"), "{text:?}: {error}");
                }
            }
        }
    }
}

/// An oracle that shares no code with the walk: every minute of a week through the zone's own table.
#[test]
fn fixed_times_agree_with_a_scan_of_every_local_minute() {
    let mut dice = Dice(99);
    for _ in 0..200 {
        let zone = dice.pick(&ZONES);
        let (minute, hour) = (dice.roll(60) as u32, dice.roll(24) as u32);
        let trigger =
            Trigger::cron_with(&format!("{minute} {hour} * * *"), zone, DstGap::Shift, DstFold::Both)
                .unwrap();
        let begin = dice.near_a_change(zone);
        let end = begin + TimeDelta::days(4);
        assert_eq!(
            trigger.moments(begin, begin, end, 100),
            scan(zone.parse().unwrap(), minute, hour, begin, end),
            "{minute} {hour} in {zone} from {begin}"
        );
    }
}

fn scan(zone: Tz, minute: u32, hour: u32, begin: DateTime<Utc>, end: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let mut found = BTreeSet::new();
    let local = |at: DateTime<Utc>| at.with_timezone(&zone).naive_local();
    let mut at = (begin - TimeDelta::days(3)).duration_trunc(TimeDelta::minutes(1)).unwrap();
    while at <= end {
        // The local minutes between the last instant and this one: one, none in a fold, many after a gap.
        let mut skipped = local(at - TimeDelta::minutes(1)) + TimeDelta::minutes(1);
        while skipped < local(at) {
            if (skipped.minute(), skipped.hour()) == (minute, hour) {
                found.insert(at);
            }
            skipped += TimeDelta::minutes(1);
        }
        if (local(at).minute(), local(at).hour()) == (minute, hour) {
            found.insert(at);
        }
        at += TimeDelta::minutes(1);
    }
    found.into_iter().filter(|at| *at > begin && *at <= end).collect()
}

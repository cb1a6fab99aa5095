use super::*;
use chrono::{DurationRound, NaiveDateTime, TimeZone, Timelike};
use chrono_tz::Tz;
use std::collections::BTreeSet;

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

fn utc(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// The next moments after a local time of the zone, as local time with its offset.
fn fires(cron: &Trigger, zone: &str, after: &str, count: usize) -> Vec<String> {
    let zone: Tz = zone.parse().unwrap();
    let after = NaiveDateTime::parse_from_str(after, "%Y-%m-%d %H:%M").unwrap();
    let after = zone.from_local_datetime(&after).earliest().unwrap().to_utc();
    let shown = |at: DateTime<Utc>| at.with_timezone(&zone).format("%m-%d %H:%M %:z").to_string();
    cron.moments(after, after, DateTime::<Utc>::MAX_UTC, count).into_iter().map(shown).collect()
}

fn berlin(text: &str) -> Trigger {
    Trigger::cron(text, "Europe/Berlin").unwrap()
}

fn refusal(text: &str) -> String {
    let error = Trigger::cron(text, "UTC").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadSchedule);
    error.to_string()
}

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
    for _ in 0..600 {
        let zone = dice.pick(&ZONES);
        let text = dice.cron();
        let trigger = Trigger::cron(&text, zone).unwrap();
        let mut last = dice.near_a_change(zone);
        for _ in 0..60 {
            let next = trigger.next_after(last, last).unwrap();
            assert!(next > last, "{text} in {zone}: {next} after {last}");
            last = next;
        }
    }
}

#[test]
fn the_moments_do_not_depend_on_how_the_time_is_cut() {
    let mut dice = Dice(7);
    for _ in 0..150 {
        let zone = dice.pick(&ZONES);
        let text = dice.cron();
        let policies =
            [(DstGap::Shift, DstFold::First), (DstGap::Skip, DstFold::Both), (DstGap::Shift, DstFold::Last)];
        let (gap, fold) = policies[dice.roll(3) as usize];
        let trigger = Trigger::cron_with(&text, zone, gap, fold).unwrap();
        let begin = dice.near_a_change(zone);
        let end = begin + TimeDelta::days(4);
        let whole = trigger.moments(begin, begin, end, usize::MAX);
        let mut parts = Vec::new();
        let mut from = begin;
        while from < end {
            let to = (from + TimeDelta::seconds(1 + dice.roll(9_000) as i64)).min(end);
            parts.extend(trigger.moments(begin, from, to, usize::MAX));
            assert_eq!(
                trigger.last_until(begin, begin, to),
                parts.last().copied(),
                "{text} in {zone} until {to}"
            );
            from = to;
        }
        assert_eq!(whole, parts, "{text} in {zone}");
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
#[test]
fn a_fixed_time_in_the_gap_moves_to_its_end_or_is_skipped() {
    let shifted = berlin("30 2 * * *");
    let expected = ["03-28 02:30 +01:00", "03-29 03:00 +02:00", "03-30 02:30 +02:00"];
    assert_eq!(fires(&shifted, "Europe/Berlin", "2026-03-27 12:00", 3), expected);
    let skipped = Trigger::cron_with("30 2 * * *", "Europe/Berlin", DstGap::Skip, DstFold::First).unwrap();
    let expected = ["03-28 02:30 +01:00", "03-30 02:30 +02:00"];
    assert_eq!(fires(&skipped, "Europe/Berlin", "2026-03-27 12:00", 2), expected);
}

#[test]
fn two_times_moved_to_the_end_of_the_gap_are_one_moment() {
    let expected = ["03-08 01:45 -05:00", "03-08 03:00 -04:00", "03-08 03:15 -04:00"];
    let trigger = Trigger::cron("*/15 1-3 * * *", "America/New_York").unwrap();
    assert_eq!(fires(&trigger, "America/New_York", "2026-03-08 01:40", 3), expected);
}

#[test]
fn a_fixed_time_in_the_fold_fires_first_last_or_both() {
    let both = ["10-25 02:30 +02:00", "10-25 02:30 +01:00", "10-26 02:30 +01:00"];
    for (fold, expected) in [
        (DstFold::First, [both[0], both[2]].as_slice()),
        (DstFold::Last, [both[1], both[2]].as_slice()),
        (DstFold::Both, both.as_slice()),
    ] {
        let trigger = Trigger::cron_with("30 2 * * *", "Europe/Berlin", DstGap::Shift, fold).unwrap();
        assert_eq!(fires(&trigger, "Europe/Berlin", "2026-10-24 12:00", expected.len()), expected);
    }
}

#[test]
fn an_hourly_rule_follows_elapsed_time_through_both_changes() {
    let trigger = Trigger::cron("*/30 * * * *", "America/New_York").unwrap();
    let expected = ["11-01 01:30 -04:00", "11-01 01:00 -05:00", "11-01 01:30 -05:00", "11-01 02:00 -05:00"];
    assert_eq!(fires(&trigger, "America/New_York", "2026-11-01 01:10", 4), expected);
    let expected = ["03-08 01:30 -05:00", "03-08 03:00 -04:00", "03-08 03:30 -04:00"];
    assert_eq!(fires(&trigger, "America/New_York", "2026-03-08 01:10", 3), expected);
}

#[test]
fn five_six_and_seven_fields_and_names_are_read() {
    let after = utc("2026-11-20T12:00:00Z"); // a Friday
    for (text, expected) in [
        ("5 3 * * *", "2026-11-21T03:05:00Z"),
        ("0 3 * * 7", "2026-11-22T03:00:00Z"),
        ("0 3 * * 0", "2026-11-22T03:00:00Z"),
        ("0 3 * * 1-5", "2026-11-23T03:00:00Z"),
        ("0 3 * * 6-1", "2026-11-21T03:00:00Z"),
        ("0 3 * * FRI-SUN", "2026-11-21T03:00:00Z"),
        ("15 0 3 * * 2", "2026-11-23T03:00:15Z"),
        ("15 0 3 ? * MON", "2026-11-23T03:00:15Z"),
        ("0 0 12 1 JAN ? 2028", "2028-01-01T12:00:00Z"),
        ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ("*/20 * * * * *", "2026-11-20T12:00:20Z"),
        ("@hourly", "2026-11-20T13:00:00Z"),
        ("@Weekly", "2026-11-22T00:00:00Z"),
        ("@every 90s", "2026-11-20T12:01:30Z"),
        ("0 5 * * *; 0 4 * * *", "2026-11-21T04:00:00Z"),
    ] {
        let trigger = Trigger::cron(text, "UTC").unwrap();
        assert_eq!(trigger.next_after(after, after), Some(utc(expected)), "{text}");
    }
}

#[test]
fn dates_by_their_place_in_the_month_are_found() {
    let after = utc("2026-11-20T12:00:00Z");
    for (text, expected) in [
        ("0 0 0 L * ?", "2026-11-30"),
        ("0 0 0 L-3 * ?", "2026-11-27"),
        ("0 0 0 LW 1 ?", "2027-01-29"),
        ("0 0 0 1W 5 ?", "2027-05-03"),
        ("0 0 0 15W 8 ?", "2027-08-16"),
        ("0 0 0 ? * FRIL", "2026-11-27"),
        ("0 0 0 ? * 6#2", "2026-12-11"),
        ("0 0 * * 5#2", "2026-12-11"),
        ("0 0 0 L,21 * ?", "2026-11-21"),
        ("0 0 0 ? 2 SUN#5", "2032-02-29"),
    ] {
        let trigger = Trigger::cron(text, "UTC").unwrap();
        assert_eq!(trigger.next_after(after, after).unwrap().date_naive().to_string(), expected, "{text}");
    }
}

#[test]
fn five_fields_with_two_day_fields_fire_on_either() {
    let expected = ["11-27 00:00 +00:00", "12-04 00:00 +00:00", "12-11 00:00 +00:00", "12-13 00:00 +00:00"];
    assert_eq!(fires(&Trigger::cron("0 0 13 * FRI", "UTC").unwrap(), "UTC", "2026-11-20 12:00", 4), expected);
    let both = Trigger::cron("0 0 0 13 * FRI", "UTC").unwrap();
    assert_eq!(fires(&both, "UTC", "2026-11-20 12:00", 1), ["08-13 00:00 +00:00"]);
}

#[test]
fn a_wrong_cron_text_is_refused_naming_field_value_and_remedy() {
    for (text, field, remedy) in [
        ("0 25 * * *", "hour is \"25\"", "0 to 23"),
        ("61 * * * *", "minute is \"61\"", "0 to 59"),
        ("0 0 32 * *", "day of month is \"32\"", "1 to 31"),
        ("0 0 * 13 *", "month is \"13\"", "JAN to DEC"),
        ("0 0 * * 8", "day of week is \"8\"", "0 and 7 are Sunday"),
        ("0 0 0 ? * 0", "day of week is \"0\"", "1 is Sunday"),
        ("0 0 0 1 1 ? 2525", "year is \"2525\"", "1970 to 2100"),
        ("*/0 * * * *", "minute is \"*/0\"", "0 to 59"),
        ("0 22-2 * * *", "hour is \"22-2\"", "0 to 23"),
        ("0 0 ? * FRI#6", "day of week is \"FRI#6\"", "FRI#2"),
        ("0 0 L-31 * *", "day of month is \"L-31\"", "L-3"),
        ("0 0 , * *", "day of month is \",\"", "1 to 31"),
        ("", "has 0 fields", "5 (minute"),
        ("* * * *", "has 4 fields", "5 (minute"),
        ("@reboot", "@reboot", "@daily"),
        ("TZ=UTC 0 0 * * *", "its own zone", "timezone"),
        ("0 0 30 2 *", "never fires", "1970 and 2100"),
        ("0 0 0 30W 2 ?", "never fires", "1970 and 2100"),
        ("0 4 * * *;", "has 0 fields", "5 (minute"),
        ("@every 0s", "every is \"0s\"", "1s to ten years"),
    ] {
        let message = refusal(text);
        assert!(message.contains(field) && message.contains(remedy), "{text}: {message}");
    }
    assert!(refusal(&"0,".repeat(600)).contains("at most 1000"));
    let zone = Trigger::cron("@daily", "Europa/Berlin").unwrap_err().to_string();
    assert!(zone.contains("\"Europa/Berlin\"") && zone.contains("IANA"), "{zone}");
}

#[test]
fn steps_count_from_the_start_and_end() {
    let start = utc("2026-11-20T12:00:00Z");
    let trigger = Trigger::stepped("3,5,10,15,30").unwrap();
    let seconds: Vec<i64> = trigger
        .moments(start, start, start + TimeDelta::days(1), 100)
        .iter()
        .map(|moment| (*moment - start).num_seconds())
        .collect();
    assert_eq!(seconds, [3, 5, 10, 15, 30]);
    assert_eq!(trigger.next_after(start, start + TimeDelta::seconds(30)), None);
    assert_eq!(
        trigger.last_until(start, start, start + TimeDelta::seconds(14)),
        Some(start + TimeDelta::seconds(10))
    );
    let units = Trigger::stepped("30s, 5m,1h, 2d").unwrap();
    let minutes = TimeDelta::minutes;
    let offsets = vec![TimeDelta::seconds(30), minutes(5), minutes(60), TimeDelta::days(2)];
    assert_eq!(units, Trigger::Stepped { offsets });
}

#[test]
fn wrong_steps_are_refused_naming_the_step() {
    for (text, part) in [
        ("3,x", "step 2 is \"x\""),
        ("3,,5", "step 2 is \"\""),
        ("-3", "step 1 is \"-3\""),
        ("5,3", "later than step 1"),
        ("5,5", "later than step 1"),
        ("99999d", "step 1 is \"99999d\""),
        ("9223372036854775807d", "step 1"),
        (" ", "steps is empty"),
        ("5é", "step 1 is \"5é\""),
    ] {
        let message = Trigger::stepped(text).unwrap_err().to_string();
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn a_timed_rule_fires_once_on_the_zones_wall_clock() {
    let at = |text: &str, zone: &str| Trigger::timed(text, zone).unwrap();
    assert_eq!(at("20261224180000", "Europe/Berlin"), Trigger::Timed { at: utc("2026-12-24T17:00:00Z") });
    assert_eq!(at("2026-12-24T18:00:00+01:00", "UTC"), Trigger::Timed { at: utc("2026-12-24T17:00:00Z") });
    assert_eq!(at("20260329023000", "Europe/Berlin"), Trigger::Timed { at: utc("2026-03-29T01:00:00Z") });
    let trigger = at("20261224180000", "UTC");
    let moment = utc("2026-12-24T18:00:00Z");
    assert_eq!(trigger.next_after(moment, moment - TimeDelta::days(1)), Some(moment));
    assert_eq!(trigger.next_after(moment, moment), None);
    for wrong in ["20261324180000", "2026122418", "20260230000000", "tomorrow", "99999999999999"] {
        assert!(Trigger::timed(wrong, "UTC").unwrap_err().to_string().contains(wrong));
    }
}

#[test]
fn an_interval_counts_from_its_start() {
    let start = utc("2026-11-20T12:00:00.250Z");
    let trigger = Trigger::every("1h30m").unwrap();
    assert_eq!(trigger.next_after(start, start - TimeDelta::days(9)), Some(start + TimeDelta::minutes(90)));
    assert_eq!(
        trigger.next_after(start, start + TimeDelta::minutes(90)),
        Some(start + TimeDelta::minutes(180))
    );
    let until = start + TimeDelta::days(400);
    assert_eq!(trigger.last_until(start, start, until), Some(until));
}

#[test]
fn a_year_of_missed_seconds_costs_a_few_looks() {
    let begin = utc("2025-11-20T12:00:00Z");
    let end = utc("2026-11-20T12:00:00Z");
    assert_eq!(
        Trigger::cron("* * * * * *", "Europe/Berlin").unwrap().last_until(begin, begin, end),
        Some(end)
    );
    assert_eq!(
        Trigger::cron("@daily", "UTC").unwrap().last_until(begin, begin, begin + TimeDelta::hours(3)),
        None
    );
}

#[test]
fn a_rule_whose_moments_are_past_is_told_so() {
    let now = utc("2026-11-20T12:00:00Z");
    let past = Trigger::cron("0 0 0 1 1 ? 2020", "UTC").unwrap().ensure_fires_after(now, now).unwrap_err();
    assert_eq!(
        past.to_string(),
        "schedule cron \"0 0 0 1 1 ? 2020\" never fires after 2026-11-20T12:00:00+00:00"
    );
    assert!(Trigger::stepped("0,30").unwrap().ensure_fires_after(now, now).is_ok());
}

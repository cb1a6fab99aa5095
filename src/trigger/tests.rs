mod changes;
mod properties;

use super::*;
use chrono::{NaiveDateTime, TimeZone};
use chrono_tz::Tz;

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
        ("0 0 0 L-3W 2 ?", "2027-02-25"),
        ("0 0 0 L-2W 1 ?", "2027-01-29"),
        ("0 0 0 L-30W 5 ?", "2027-05-03"),
        ("0 0 0 ? * 5L", "2026-11-26"),
        ("0 0 * * 5L", "2026-11-27"),
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
        ("@every 0s", "every is 00:00:00", "1 s to 10 years"),
        ("0 4 * * $", "cron has \"$\"", "letters, digits"),
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
    for (text, same) in [
        ("preset", "3,5,10,15,30"),
        ("preset m", "3m,5m,10m,15m,30m"),
        ("3,5,10,15,30 m", "preset m"),
        ("3, 5 h", "3h,5h"),
        ("30 d", "30d"),
        ("preset s", "preset"),
    ] {
        assert_eq!(Trigger::stepped(text).unwrap(), Trigger::stepped(same).unwrap(), "{text}");
    }
    let units = Trigger::stepped("30s, 5m,1h, 2d").unwrap();
    let minutes = TimeDelta::minutes;
    let offsets = vec![TimeDelta::seconds(30), minutes(5), minutes(60), TimeDelta::days(2)];
    assert_eq!(units, Trigger::Stepped { offsets });
}

#[test]
fn wrong_steps_are_refused_naming_the_step() {
    for (text, part) in [
        ("3,x", "steps has \"x\" at place 2"),
        ("3,,5", "steps has \"\" at place 2"),
        ("-3", "steps has the offset -00:00:03"),
        ("--3", "steps has \"--3\""),
        ("1-3s", "steps has \"1-3s\""),
        ("5,3", "steps has 00:00:03 after 00:00:05: offsets that grow"),
        ("5,5", "steps has 00:00:05 after 00:00:05"),
        ("99999d", "steps has the offset 2399976:00:00: 0 to 10 years"),
        ("9223372036854775807d", "steps has \"9223372036854775807d\" at place 1"),
        (" ", "steps has 0 offsets: 1 to 1000"),
        ("", "steps has 0 offsets"),
        ("5é", "steps has \"5é\""),
        ("3,5m m", "steps has \"5m\" at place 2"),
        ("3,5 w", "steps has \"5 w\" at place 2"),
        ("3,9999 d", "steps has the offset 239976:00:00"),
        ("m", "steps has \"m\" at place 1"),
        ("presets", "steps has \"presets\" at place 1"),
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
        "cron \"0 0 0 1 1 ? 2020\" never fires after 2026-11-20T12:00:00+00:00: a later moment expected"
    );
    assert!(Trigger::stepped("0,30").unwrap().ensure_fires_after(now, now).is_ok());
}

#[test]
fn what_never_fires_is_refused_with_the_reason() {
    for (text, reason) in [
        ("0 0 30 2 *", "has day of month \"30\" and month \"2\"; a date that exists expected"),
        ("0 0 31 4,6 *", "has day of month \"31\" and month \"4,6\""),
        ("0 0 0 29 2 ? 2027", "has day of month \"29\" and month \"2\" and year \"2027\""),
        ("0 0 0 31W FEB ?", "has day of month \"31W\" and month \"FEB\""),
        ("0 0 0 ? 2 MON#5 2027", "has month \"2\" and day of week \"MON#5\" and year \"2027\""),
        ("0 0 0 30 2 ?; @daily", "\"0 0 0 30 2 ?\" never fires"),
    ] {
        let message = refusal(text);
        assert!(message.contains("never fires") && message.contains(reason), "{text}: {message}");
    }
    // 29 March 2026 has no 02:30 in Berlin.
    let text = "0 30 2 29 3 ? 2026";
    let skipped = Trigger::cron_with(text, "Europe/Berlin", DstGap::Skip, DstFold::First).unwrap_err();
    assert!(skipped.to_string().contains("skips all of its local times and dst_gap is skip"), "{skipped}");
    assert!(Trigger::cron(text, "Europe/Berlin").is_ok());
}

#[test]
fn an_unknown_zone_is_refused_with_the_one_that_was_meant() {
    for (wrong, meant) in [
        ("europe/berlin", "Europe/Berlin"),
        ("New York", "America/New_York"),
        ("buenos_aires", "Buenos_Aires"),
        ("Asia/Berlin", "Europe/Berlin"),
        ("Europe/Atlantis", "Europe/Berlin or UTC"),
        ("", "Europe/Berlin or UTC"),
        ("+02:00", "Europe/Berlin or UTC"),
    ] {
        let message = Trigger::cron("@daily", wrong).unwrap_err().to_string();
        assert!(message.contains(&format!("{wrong:?}")) && message.contains(meant), "{message}");
    }
    assert_eq!(ZONE_DATA.len(), 5);
}

//! Gaps and folds, and what is said about them.

use super::*;

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

/// What is said of the changes in a year, with the local time it is shown at.
fn told(text: &str, zone: &str, gap: DstGap, fold: DstFold, year: i32) -> Vec<String> {
    let begin = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap();
    let tz: Tz = zone.parse().unwrap();
    let trigger = Trigger::cron_with(text, zone, gap, fold).unwrap();
    let effects = trigger.clock_effects(begin, begin + TimeDelta::days(365));
    effects
        .into_iter()
        .map(|effect| {
            // What is said agrees with what fires.
            let fires = trigger.next_after(begin, effect.at - TimeDelta::seconds(1)) == Some(effect.at);
            assert!(effect.fate == Fate::InTheGap || fires != effect.fate.is_skipped(), "{effect:?}");
            format!("{} {effect}", effect.at.with_timezone(&tz).format("%m-%d %H:%M %z"))
        })
        .collect()
}

#[test]
fn what_a_change_of_the_clock_does_to_a_fixed_time_is_told() {
    let of = |text, gap, fold| told(text, "Europe/Berlin", gap, fold, 2026);
    let shifted = "03-29 03:00 +0200 02:30 does not exist: moved to 03:00 (dst_gap shift)";
    let second = "10-25 02:30 +0100 02:30 comes twice: skipped the second time (dst_fold first)";
    assert_eq!(of("30 2 * * *", DstGap::Shift, DstFold::First), [shifted, second]);
    assert_eq!(
        of("30 2 * * *", DstGap::Skip, DstFold::Last),
        [
            "03-29 03:00 +0200 02:30 does not exist: skipped (dst_gap skip)",
            "10-25 02:30 +0200 02:30 comes twice: skipped the first time (dst_fold last)"
        ]
    );
    assert_eq!(of("30 2 * * *", DstGap::Shift, DstFold::Both), [shifted]);
    assert_eq!(of("30 3 * * *", DstGap::Shift, DstFold::First), [""; 0]);
    assert_eq!(
        of("0,30 2 * * *; */20 2 * * SUN", DstGap::Shift, DstFold::Last)[..2],
        [
            "03-29 03:00 +0200 02:00 and 02:30 do not exist: moved to 03:00 (dst_gap shift)",
            "03-29 03:00 +0200 02:00 to 02:40 (3 times) do not exist: moved to 03:00 (dst_gap shift)"
        ]
    );
}

#[test]
fn what_follows_elapsed_time_is_told_once_for_each_change() {
    assert_eq!(
        told("*/30 * * * *", "Europe/Berlin", DstGap::Shift, DstFold::First, 2026),
        [
            "03-29 03:00 +0200 the clock goes from 02:00 to 03:00: the rule follows elapsed time",
            "10-25 02:00 +0100 the clock goes from 03:00 to 02:00: the rule follows elapsed time"
        ]
    );
}

#[test]
fn a_time_that_another_expression_fires_at_is_not_told_as_skipped() {
    let told = told("*/15 2 * * *; 30 * * * *", "Europe/Berlin", DstGap::Shift, DstFold::First, 2026);
    let skipped: Vec<&String> = told.iter().filter(|line| line.contains("skipped")).collect();
    let expected =
        "10-25 02:00 +0100 02:00 to 02:45 (3 times) come twice: skipped the second time (dst_fold first)";
    assert_eq!(skipped, [expected]);
}

#[test]
fn a_day_that_a_zone_left_out_is_told_with_its_date() {
    assert_eq!(
        told("0 12 * * *", "Pacific/Apia", DstGap::Shift, DstFold::Both, 2011),
        ["12-31 00:00 +1400 2011-12-30 12:00 does not exist: moved to 2011-12-31 00:00 (dst_gap shift)"]
    );
}

#[test]
fn a_timed_rule_in_a_gap_is_told_to_move() {
    let told =
        |text| Trigger::effect_on_timed(text, "Europe/Berlin").map(|effect| (effect.at, effect.to_string()));
    let moved = "02:30 does not exist: moved to 03:00 (dst_gap shift)".to_owned();
    assert_eq!(told("20260329023000"), Some((utc("2026-03-29T01:00:00Z"), moved)));
    assert_eq!(told("20260329033000"), None);
    assert_eq!(told("2026-03-29T02:30:00+01:00"), None);
}

#[test]
fn a_moment_that_comes_twice_says_which_of_the_two_it_is() {
    let told = |at| berlin("@hourly").repeat(utc(at)).map(|repeat| repeat.to_string());
    assert_eq!(told("2026-10-25T00:30:00Z").as_deref(), Some("02:30 comes twice, this is the first time"));
    assert_eq!(
        told("2026-10-25T01:30:05Z").as_deref(),
        Some("02:30:05 comes twice, this is the second time")
    );
    assert_eq!(told("2026-10-25T02:30:00Z"), None);
}

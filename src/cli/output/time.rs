//! Moments and spans, for people and exactly.

use chrono::{DateTime, TimeDelta, Utc};

/// The moment itself, in UTC.
pub fn exact(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// How far it is from `now`: `3m ago`, `in 2h`.
pub fn ago(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if at > now {
        return format!("in {}", coarse(at - now));
    }
    format!("{} ago", coarse(now - at))
}

/// A span with two units at most: `850ms`, `12.3s`, `4m 10s`, `2h 5m`, `3d 4h`.
pub fn span(delta: TimeDelta) -> String {
    let milliseconds = delta.num_milliseconds().max(0);
    let (seconds, minutes, hours, days) =
        (milliseconds / 1_000, milliseconds / 60_000, milliseconds / 3_600_000, milliseconds / 86_400_000);
    let two = |large: i64, unit: &str, small: i64, part: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit} {small}{part}"),
    };
    match milliseconds {
        0..1_000 => format!("{milliseconds}ms"),
        1_000..60_000 if milliseconds % 1_000 < 100 => format!("{seconds}s"),
        1_000..60_000 => format!("{seconds}.{}s", milliseconds % 1_000 / 100),
        60_000..3_600_000 => two(minutes, "m", seconds % 60, "s"),
        3_600_000..86_400_000 => two(hours, "h", minutes % 60, "m"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

/// A span in its largest unit.
fn coarse(delta: TimeDelta) -> String {
    let (number, unit) = match delta.num_seconds() {
        seconds @ ..60 => (seconds.max(0), "s"),
        seconds @ 60..3_600 => (seconds / 60, "m"),
        seconds @ 3_600..172_800 => (seconds / 3_600, "h"),
        seconds => (seconds / 86_400, "d"),
    };
    format!("{number}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_unit_that_people_would_use() {
        let of = |milliseconds| span(TimeDelta::milliseconds(milliseconds));
        let texts =
            [of(850), of(3_000), of(12_345), of(250_000), of(7_200_000), of(7_500_000), of(273_600_000)];
        assert_eq!(texts, ["850ms", "3s", "12.3s", "4m 10s", "2h", "2h 5m", "3d 4h"]);
        assert_eq!(of(-5), "0ms");
    }

    #[test]
    fn a_moment_is_told_from_now() {
        let now: DateTime<Utc> = "2026-11-21T08:00:00Z".parse().unwrap();
        let of = |seconds| ago(now + TimeDelta::seconds(seconds), now);
        assert_eq!(
            [of(-3), of(0), of(-200), of(7_300), of(-400_000)],
            ["3s ago", "0s ago", "3m ago", "in 2h", "4d ago"]
        );
        assert_eq!(exact(now), "2026-11-21 08:00:00Z");
    }
}

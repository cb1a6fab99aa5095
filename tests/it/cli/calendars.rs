//! Calendars on the command line, and what previews say of them, of jitter, and of what counts from the ends of runs.

use super::{json, out, refused, tell, value};
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use serde_json::{Value, json};

/// The database's clock stands at noon of a Thursday; Friday is Christmas, and the Sunday after it a working day.
async fn before_christmas() -> (TestDb, Clock) {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    clock.set("2026-12-24T12:00:00Z".parse().unwrap()).await;
    let bank = r#"{"excluded": [{"date": "2026-12-25", "note": "Christmas"}], "included": ["2026-12-27"]}"#;
    let stored = json(&db, &["calendar", "put", "bank", bank]);
    assert_eq!(stored["weekend"], json!([6, 7]));
    (db, clock)
}

#[tokio::test]
async fn a_calendar_is_put_shown_listed_and_dropped() {
    let (db, _clock) = before_christmas().await;
    let shown = json(&db, &["calendar", "show", "bank"]);
    assert_eq!(
        shown["dates"],
        json!([
            { "date": "2026-12-25", "works": false, "note": "Christmas" },
            { "date": "2026-12-27", "works": true, "note": null },
        ])
    );
    let text = out(&db, &["calendar", "show", "bank"]);
    for line in ["weekend       Sat, Sun", "2026-12-25  Fri  no     Christmas", "2026-12-27  Sun  yes    -"] {
        assert!(text.contains(line), "{line:?} is missing in:\n{text}");
    }
    out(&db, &["schedule", "put", "pay", "--type", "sums", "--cron", "0 9 * * *", "--calendar", "bank"]);
    assert!(out(&db, &["calendar", "list"]).contains("bank  Sat, Sun         1         1          1"));
    refused(&tell(&db, &["calendar", "drop", "bank"]), 1, &["bank is used by schedule pay", "DV004"]);
    out(&db, &["schedule", "cancel", "pay"]);
    out(&db, &["calendar", "drop", "bank"]);
    refused(&tell(&db, &["calendar", "show", "bank"]), 1, &["there is no calendar bank", "DV011"]);
    let wrong = r#"{"weekend": [8]}"#;
    refused(&tell(&db, &["calendar", "put", "bank", wrong]), 1, &["calendar bank", "weekend is [8]"]);
    refused(&tell(&db, &["calendar", "put", "bank", "{"]), 2, &["OPTIONS is not JSON"]);
}

/// Two values of each row of a list.
fn rows(preview: &Value, list: &str, keys: [&str; 2]) -> Vec<[String; 2]> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let rows = preview[list].as_array().unwrap();
    rows.iter().map(|row| keys.map(|key| text(&row[key]))).collect()
}

#[tokio::test]
async fn a_preview_moves_and_leaves_out_moments_as_the_calendar_will() {
    let (db, clock) = before_christmas().await;
    let rule = ["--cron", "0 9 * * *", "--calendar", "bank", "--overlap", "allow"];
    let put = [&["schedule", "put", "pay", "--type", "sums"], &rule[..]].concat();
    out(&db, &put);
    let preview = json(&db, &["schedule", "preview", "pay", "-n", "2"]);
    assert_eq!(
        rows(&preview, "moments", ["at", "due_at"]),
        [["2026-12-27T09:00:00Z"; 2], ["2026-12-28T09:00:00Z"; 2]]
    );
    let skipped = rows(&preview, "skipped", ["at", "why"]);
    assert_eq!(
        skipped,
        [
            ["2026-12-25T09:00:00Z", "2026-12-25 is no working day of calendar bank (Christmas)"],
            ["2026-12-26T09:00:00Z", "2026-12-26 is no working day of calendar bank"],
        ]
    );
    out(&db, &[&put[..], &["--calendar-shift", "previous"]].concat());
    let preview = json(&db, &["schedule", "preview", "pay", "-n", "2"]);
    // Both days go to the 24th: the first of them fires there, which is at once, for its time has passed.
    assert_eq!(
        rows(&preview, "moments", ["at", "due_at"]),
        [["2026-12-25T09:00:00Z", "2026-12-24T09:00:00Z"], ["2026-12-27T09:00:00Z"; 2]]
    );
    let merged = rows(&preview, "skipped", ["at", "why"]);
    assert!(merged[0][1].starts_with("into 2026-12-25 09:00:00+00: moved to 2026-12-24"), "{merged:?}");
    // What was shown is what comes: the ledger says the same.
    for day in ["2026-12-24T12:01:00Z", "2026-12-27T09:00:00Z"] {
        clock.set(day.parse().unwrap()).await;
        for _ in 0..3 {
            out(&db, &["tick"]);
        }
    }
    let ledger = value(
        db.pool(),
        "select jsonb_agg(jsonb_build_array(to_char(fire_at at time zone 'UTC', 'DD'), outcome) order by fire_at) from divvy.schedule_fire",
    )
    .await;
    assert_eq!(ledger, json!([["25", "fired"], ["26", "merged"], ["27", "fired"]]));
}

#[tokio::test]
async fn a_preview_says_when_jitter_lets_each_moment_fire_and_so_it_does() {
    let (db, clock) = before_christmas().await;
    out(&db, &["type", "put", "sums"]);
    out(
        &db,
        &["schedule", "put", "s", "--type", "sums", "--every", "1h", "--jitter", "10m", "--overlap", "allow"],
    );
    let preview = json(&db, &["schedule", "preview", "s", "-n", "3"]);
    let shown = rows(&preview, "moments", ["at", "due_at"]);
    assert!(shown.iter().all(|[at, due]| at < due && at[..13] == due[..13]), "{shown:?}");
    assert_eq!(preview["moments"][0]["mark"], "later");
    assert!(out(&db, &["schedule", "preview", "s"]).contains("jitter of 00:0"));
    for hour in ["12:59", "13:30", "14:30", "15:30"] {
        clock.set(format!("2026-12-24T{hour}:00Z").parse().unwrap()).await;
        out(&db, &["tick"]);
        out(&db, &["tick"]);
    }
    let due = value(
        db.pool(),
        "select jsonb_agg(to_jsonb(due_at at time zone 'UTC') order by fire_at) from divvy.schedule_fire where outcome = 'fired'",
    )
    .await;
    let due: Vec<String> =
        due.as_array().unwrap().iter().map(|at| format!("{}Z", at.as_str().unwrap())).collect();
    assert_eq!(due, shown.iter().map(|row| row[1].clone()).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_counts_from_the_ends_of_runs_is_shown_at_the_earliest() {
    let (db, clock) = before_christmas().await;
    out(&db, &["type", "put", "sums"]);
    let moments = |args: &[&str]| {
        let preview = json(&db, &[&["schedule", "preview"], args].concat());
        rows(&preview, "moments", ["at", "why"])
    };
    let earliest = "at the earliest: it counts from the end of the run before";
    let ladder = [["2026-12-24T12:00:05Z", "-"], ["2026-12-24T12:00:10Z", earliest]];
    let rule = ["--steps", "5,5", "--anchor", "previous_end"];
    assert_eq!(moments(&[&rule[..], &["--after", "2026-12-24T12:00:00Z"]].concat()), ladder);
    out(&db, &[&["schedule", "put", "ladder", "--type", "sums"], &rule[..]].concat());
    out(&db, &["schedule", "put", "delay", "--type", "sums", "--every", "10m", "--anchor", "previous_end"]);
    assert_eq!(moments(&["ladder"]), ladder);
    let delay = [["2026-12-24T12:10:00Z", "-"], ["2026-12-24T12:20:00Z", earliest]];
    assert_eq!(moments(&["delay", "-n", "2"]), delay);
    clock.set("2026-12-24T12:00:05Z".parse().unwrap()).await;
    out(&db, &["tick"]);
    let said = tell(&db, &["schedule", "preview", "ladder"]);
    assert!(
        said.err.contains("the next moment counts from the end of task") && said.out.is_empty(),
        "{}",
        said.err
    );
    let refusal = tell(&db, &["schedule", "backfill", "delay", "--from", "20261224000000"]);
    refused(&refusal, 2, &["anchor is 'previous_end'", "can't be backfilled"]);
}

#[tokio::test]
async fn the_steps_of_a_schedule_that_have_passed_are_backfilled() {
    let (db, clock) = before_christmas().await;
    out(&db, &["type", "put", "sums"]);
    out(&db, &["schedule", "put", "s", "--type", "sums", "--steps", "1h,2h,3h,9h", "--catch-up", "none"]);
    clock.set("2026-12-24T16:00:00Z".parse().unwrap()).await;
    out(&db, &["tick"]);
    let range = ["schedule", "backfill", "s", "--from", "2026-12-24T13:30:00Z", "--max-running", "9"];
    assert_eq!(json(&db, &range), json!({ "name": "s", "moments": 2, "new": 2 }));
    let ledger = value(
        db.pool(),
        "select jsonb_agg(jsonb_build_array(to_char(fire_at at time zone 'UTC', 'HH24'), kind, outcome) order by fire_at, kind) from divvy.schedule_fire",
    )
    .await;
    assert_eq!(
        ledger,
        json!([
            ["13", "rule", "missed"],
            ["14", "backfill", "fired"],
            ["14", "rule", "missed"],
            ["15", "backfill", "fired"],
            ["15", "rule", "missed"]
        ])
    );
}

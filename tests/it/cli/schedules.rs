//! Schedules: parsed before they are stored, replaced without a double, shown in their zone.

use super::{json, out, refused, tell, value};
use crate::support::db::TestDb;
use crate::support::program::{divvy_on, ok};
use serde_json::{Value, json};

#[tokio::test]
async fn what_cannot_be_understood_is_not_stored() {
    let db = TestDb::new().await;
    let cases: [(&[&str], &str); 5] = [
        (&["--cron", "0 25 * * *"], "field hour is \"25\""),
        (&["--every", "90s", "--timezone", "Europe/Atlantis"], "--timezone is \"Europe/Atlantis\""),
        (&["--steps", "5,3"], "--steps has 00:00:03 after 00:00:05"),
        (&["--run-at", "20201224180000"], "never fires"),
        (&["--every", "0s"], "--every is 00:00:00"),
    ];
    for (rule, part) in cases {
        let args = [&["schedule", "put", "night", "--type", "sums"], rule].concat();
        refused(&tell(&db, &args), 1, &["schedule night: ", part, "(DV012)"]);
    }
    refused(&tell(&db, &["schedule", "put", "No Name", "--type", "sums", "--every", "90s"]), 1, &["No Name"]);
    assert_eq!(value(db.pool(), "select to_jsonb(count(*)) from divvy.schedule").await, json!(0));
}

#[tokio::test]
async fn each_kind_of_rule_is_stored_as_it_was_meant() {
    let db = TestDb::new().await;
    let put = |name: &str, rule: &[&str]| {
        json(&db, &[&["schedule", "put", name, "--type", "sums", "--payload", "[1]"], rule].concat())
    };
    put("steps", &["--steps", "3,5,1m"]);
    put("at", &["--at", "20301224180000", "--timezone", "Asia/Tokyo", "--label", "eu"]);
    put("cron", &["--cron", "0 3 * * MON-FRI", "--timezone", "Europe/Berlin", "--max-runs", "4"]);
    put("every", &["--every", "90s", "--overlap", "allow", "--stop-on-success"]);
    let stored = value(
        db.pool(),
        "select jsonb_object_agg(name, jsonb_strip_nulls(jsonb_build_object('steps', steps, 'at', run_at, 'cron', cron,
                'every', every, 'zone', timezone, 'overlap', overlap, 'runs', max_runs, 'stop', stop_on_success,
                'labels', labels, 'payload', payload))) from divvy.schedule",
    )
    .await;
    let like = |zone: &str, overlap: &str, stop: bool, more: Value| {
        let mut row = json!({ "zone": zone, "overlap": overlap, "stop": stop, "payload": [1] });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let expected = json!({
        "steps": like("UTC", "skip", false, json!({ "steps": ["00:00:03", "00:00:05", "00:01:00"] })),
        "at": like("Asia/Tokyo", "skip", false, json!({ "at": "2030-12-24T09:00:00+00:00", "labels": ["eu"] })),
        "cron": like("Europe/Berlin", "skip", false, json!({ "cron": "0 3 * * MON-FRI", "runs": 4 })),
        "every": like("UTC", "allow", true, json!({ "every": "00:01:30" })),
    });
    assert_eq!(stored, expected);
    let text = out(&db, &["schedule", "list"]);
    for part in ["every 1m30s", "steps 3s,5s,1m", "on the clock of Europe/Berlin", "0/4"] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[tokio::test]
async fn putting_the_same_again_changes_nothing_and_another_rule_changes_it_and_it_stays_paused() {
    let db = TestDb::new().await;
    let put = |cron: &str| json(&db, &["schedule", "put", "night", "--type", "sums", "--cron", cron]);
    let first = put("0 3 * * *");
    assert_eq!(first["outcome"], "created");
    let same = put("0 3 * * *");
    assert_eq!((&same["outcome"], &same["schedule_id"]), (&json!("unchanged"), &first["schedule_id"]));
    out(&db, &["schedule", "pause", "night", "--reason", "holiday"]);
    let other = put("0 4 * * *");
    assert_eq!((&other["outcome"], &other["schedule_id"]), (&json!("changed"), &first["schedule_id"]));
    let all = json(&db, &["schedule", "list", "--all"]);
    let rows: Vec<_> = all["schedules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| [&row["rule"], &row["status"], &row["reason"]])
        .collect();
    assert_eq!(rows, [[&json!("0 4 * * *"), &json!("paused"), &json!("holiday")]]);
    out(&db, &["schedule", "resume", "night"]);
    assert_eq!(json(&db, &["schedule", "list"])["schedules"][0]["status"], "active");
}

#[tokio::test]
async fn a_preview_shows_the_zone_and_utc_over_a_change_of_the_clock() {
    let preview = ["schedule", "preview", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "-n", "3"];
    // No database is asked for a rule that is not stored.
    let lines = |more: &[&str]| -> Vec<String> {
        let text = tell_nowhere(&[&preview[..], more].concat());
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(
        lines(&["--after", "2026-03-27T12:00:00Z"]),
        [
            "LOCAL UTC IN MARK WHY",
            "Sat 2026-03-28 02:30:00 CET 2026-03-28 01:30:00Z in 13h - -",
            "Sun 2026-03-29 03:00:00 CEST 2026-03-29 01:00:00Z in 37h shifted \
             02:30 does not exist: moved to 03:00 (dst_gap shift)",
            "Mon 2026-03-30 02:30:00 CEST 2026-03-30 00:30:00Z in 2d - -",
        ]
    );
    assert_eq!(lines(&[]).len(), 4);
    let skipping = ["--from", "20261024120000", "--dst-fold", "last", "--json"];
    let told: Value = serde_json::from_str(&tell_nowhere(&[&preview[..], &skipping].concat())).unwrap();
    let marks: Vec<[&Value; 2]> =
        told["moments"].as_array().unwrap().iter().map(|row| [&row["at"], &row["mark"]]).collect();
    let expected =
        [json!("2026-10-25T01:30:00Z"), json!("second"), json!("2026-10-26T01:30:00Z"), Value::Null];
    assert_eq!(marks[..2].concat(), expected.each_ref());
    assert_eq!((marks.len(), &told["zone_data"]), (3, &json!(divvy::trigger::ZONE_DATA)));
    assert_eq!(
        told["skipped"],
        json!([{
            "at": "2026-10-25T00:30:00Z",
            "local": "2026-10-25T02:30:00+02:00",
            "times": 1,
            "why": "02:30 comes twice: skipped the first time (dst_fold last)"
        }])
    );
}

#[test]
fn a_timed_rule_in_a_gap_is_shown_where_it_fires_and_why() {
    let preview = ["schedule", "preview", "--run-at", "20260329023000", "--timezone", "Europe/Berlin"];
    let text = tell_nowhere(&[&preview[..], &["--from", "20260101000000"]].concat());
    let shown = "2026-03-29 01:00:00Z  in 87d  shifted  02:30 does not exist: moved to 03:00 (dst_gap shift)";
    assert!(text.contains(shown), "{text}");
}

/// What a command that needs no database prints, where there is none.
fn tell_nowhere(args: &[&str]) -> String {
    ok(&mut divvy_on("postgres://127.0.0.1:1/shop", args))
}

#[tokio::test]
async fn a_stored_schedule_previews_what_it_will_fire() {
    let db = TestDb::new().await;
    let put =
        |name: &str, rule: &[&str]| out(&db, &[&["schedule", "put", name, "--type", "sums"], rule].concat());
    put("steps", &["--steps", "1h,2h"]);
    put("every", &["--every", "1h", "--max-runs", "2"]);
    put("once", &["--at", "20301224180000"]);
    put("cron", &["--cron", "0 0 1 1 *", "--ends-at", "20290101000000"]);
    let moments = |name: &str| -> Vec<String> {
        let preview = json(&db, &["schedule", "preview", name, "-n", "3"]);
        preview["moments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|at| at["at"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(moments("once"), ["2030-12-24T18:00:00Z"]);
    let cron = moments("cron");
    assert!(
        cron.len() <= 2 && cron.iter().all(|at| at.ends_with("-01-01T00:00:00Z") && at.as_str() < "2029"),
        "{cron:?}"
    );
    let due = value(
        db.pool(),
        "select jsonb_agg(to_jsonb(extract(epoch from next_fire_at - created_at)) order by name)
           from divvy.schedule where name in ('steps', 'every')",
    )
    .await;
    assert_eq!(due, json!([3600.0, 3600.0]));
    assert_eq!((moments("steps").len(), moments("every").len()), (2, 2));
    // A schedule without a run left fires nothing, and so skips nothing.
    put(
        "over",
        &["--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--dst-gap", "skip", "--max-runs", "1"],
    );
    value(
        db.pool(),
        "with u as (update divvy.schedule set runs = 1 where name = 'over' returning 1) select to_jsonb(1)",
    )
    .await;
    let over = json(&db, &["schedule", "preview", "over"]);
    assert_eq!((&over["moments"], &over["skipped"]), (&json!([]), &json!([])));
    let next =
        value(db.pool(), "select to_jsonb(next_fire_at) from divvy.schedule where name = 'every'").await;
    let instant = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(instant(&moments("every")[0]), instant(next.as_str().unwrap()));
}

#[tokio::test]
async fn a_schedule_is_triggered_by_hand_and_its_history_tells() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "sums"]);
    out(&db, &["schedule", "put", "night", "--type", "sums", "--cron", "0 3 * * *"]);
    let tasks: Vec<String> =
        (0..3).map(|_| out(&db, &["schedule", "trigger", "night"]).trim().to_owned()).collect();
    let page = json(&db, &["schedule", "history", "night", "--limit", "2"]);
    let made = |page: &Value| -> Vec<String> {
        page["fires"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fire| fire["task_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(made(&page), [tasks[2].clone(), tasks[1].clone()]);
    let next = page["next"].as_str().unwrap();
    let rest = json(&db, &["schedule", "history", "night", "--limit", "2", "--after", next]);
    assert_eq!((made(&rest), &rest["next"]), (vec![tasks[0].clone()], &Value::Null));
    let text = out(&db, &["schedule", "history", "night"]);
    assert!(text.contains("manual") && text.contains("fired"), "{text}");
    out(&db, &["schedule", "cancel", "night", "--reason", "over"]);
    refused(&tell(&db, &["schedule", "cancel", "night"]), 1, &["there is no open schedule night"]);
}

#[tokio::test]
async fn every_policy_of_a_schedule_can_be_put() {
    let db = TestDb::new().await;
    sqlx::query("select divvy.put_calendar('bank')").execute(db.pool()).await.unwrap();
    let put = [
        "schedule",
        "put",
        "s",
        "--type",
        "sums",
        "--every",
        "2h",
        "--overlap",
        "buffer_all",
        "--catch-up",
        "all",
        "--catch-up-max",
        "7",
        "--catch-up-window",
        "3h",
        "--catch-up-pace",
        "5s",
        "--jitter",
        "30s",
        "--calendar",
        "bank",
        "--calendar-shift",
        "next",
        "--pause-on-failure",
        "3",
        "--dedupe-key",
        "d",
        "--group-key",
        "g",
    ];
    out(&db, &put);
    let stored = value(
        db.pool(),
        "select to_jsonb(x) from (select overlap, catch_up, catch_up_max, catch_up_window, catch_up_pace, jitter, calendar,
                calendar_shift, pause_on_failure, dedupe_key, group_key from divvy.schedule) x",
    )
    .await;
    assert_eq!(
        stored,
        json!({ "overlap": "buffer_all", "catch_up": "all", "catch_up_max": 7, "catch_up_window": "03:00:00",
            "catch_up_pace": "00:00:05", "jitter": "00:00:30", "calendar": "bank", "calendar_shift": "next",
            "pause_on_failure": 3, "dedupe_key": "d", "group_key": "g" })
    );
    // What is left out is at its default again.
    out(&db, &["schedule", "put", "s", "--type", "sums", "--every", "2h", "--anchor", "previous_end"]);
    let stored = value(
        db.pool(),
        "select to_jsonb(x) from (select overlap, catch_up, jitter, calendar, pause_on_failure, anchor from divvy.schedule) x",
    )
    .await;
    assert_eq!(
        stored,
        json!({ "overlap": "skip", "catch_up": "latest", "jitter": null, "calendar": null, "pause_on_failure": null,
            "anchor": "previous_end" })
    );
}

#[tokio::test]
async fn a_range_is_backfilled_once_with_the_moments_of_the_rule() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "sums"]);
    out(
        &db,
        &[
            "schedule",
            "put",
            "night",
            "--type",
            "sums",
            "--cron",
            "30 2 * * *",
            "--timezone",
            "Europe/Berlin",
        ],
    );
    let range = [
        "schedule",
        "backfill",
        "night",
        "--from",
        "20260327000000",
        "--to",
        "20260330120000",
        "--timezone",
        "Europe/Berlin",
    ];
    let many = ["--max-running", "3", "--reason", "late data"];
    assert_eq!(
        json(&db, &[&range[..], &["--dry-run"]].concat()),
        json!({ "name": "night", "moments": 4, "new": 0 })
    );
    assert_eq!(json(&db, &[&range[..], &many].concat()), json!({ "name": "night", "moments": 4, "new": 4 }));
    assert_eq!(json(&db, &[&range[..], &many].concat())["new"], json!(0), "a moment is backfilled once");
    let fires = value(
        db.pool(),
        "select jsonb_agg(jsonb_build_array(f.fire_at at time zone 'UTC', f.kind, f.outcome, k.scheduled_for = f.fire_at) order by f.fire_at)
           from divvy.schedule_fire f left join divvy.task k on k.id = f.task_id",
    )
    .await;
    assert_eq!(
        fires,
        json!([
            ["2026-03-27T01:30:00", "backfill", "fired", true],
            ["2026-03-28T01:30:00", "backfill", "fired", true],
            ["2026-03-29T01:00:00", "backfill", "fired", true],
            ["2026-03-30T00:30:00", "backfill", "waiting", null],
        ])
    );
    let text = out(&db, &["schedule", "history", "night"]);
    assert!(text.contains("late data") && text.contains("backfill"), "{text}");
    let empty = ["schedule", "backfill", "night", "--from", "20260330120000", "--to", "20260330130000"];
    assert_eq!(json(&db, &empty)["moments"], json!(0));
}

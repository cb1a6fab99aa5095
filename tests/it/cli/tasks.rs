//! Tasks, splits and types.

use super::{json, out, refused, tell, value};
use crate::support::db::TestDb;
use crate::support::program::{divvy_on, from};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::io::Write;
use std::process::Stdio;
use uuid::Uuid;

/// Claims one split of `task_type`, logs a line, and ends it.
async fn attempt(pool: &PgPool, task_type: &str, ends: &str) -> i64 {
    let worker = Uuid::new_v4();
    sqlx::query("select divvy.register_worker($1, 'by-hand', array[$2], 1, '{}')")
        .bind(worker)
        .bind(task_type)
        .execute(pool)
        .await
        .unwrap();
    let (split, token): (i64, i64) =
        sqlx::query_as("select split_id, token from divvy.claim($1, array[$2], 1)")
            .bind(worker)
            .bind(task_type)
            .fetch_one(pool)
            .await
            .unwrap();
    sqlx::query("select divvy.log($1, $2, 'info', E'looking\\nfor the file', '{\"n\": 1}')")
        .bind(split)
        .bind(token)
        .execute(pool)
        .await
        .unwrap();
    let end = match ends {
        "fail" => {
            "select divvy.fail($1, $2, '{\"class\": \"io\", \"message\": \"the file is missing\"}', false)"
        }
        _ => "select divvy.complete($1, $2, '7')",
    };
    sqlx::query(end).bind(split).bind(token).execute(pool).await.unwrap();
    split
}

#[tokio::test]
async fn the_id_of_a_new_task_is_all_that_stdout_says() {
    let db = TestDb::new().await;
    let said =
        tell(&db, &["enqueue", "mail", "--payload", r#"{"to": "Ada"}"#, "--label", "eu", "--label", "new"]);
    let id: i64 = said.out.strip_suffix('\n').unwrap().parse().unwrap();
    assert!(
        said.err.contains("type mail is not declared yet"),
        "a typing error would wait for ever: {}",
        said.err
    );
    out(&db, &["type", "put", "mail"]);
    let again =
        tell(&db, &["enqueue", "mail", "--dedupe-key", "k", "--priority", "1", "--max-attempts", "3"]);
    assert_eq!(again.err, "");
    let held = json(&db, &["enqueue", "mail", "--dedupe-key", "k"]);
    assert_eq!(held, json!({ "task_id": again.out.trim(), "created": false }));
    let later = out(&db, &["enqueue", "mail", "--run-at", "20301224180000", "--timezone", "Asia/Tokyo"]);
    let rows = value(
        db.pool(),
        "select jsonb_agg(jsonb_build_array(id, payload, labels, priority, max_attempts, run_at) order by id) from divvy.task",
    )
    .await;
    let id_of = |text: &str| text.trim().parse::<i64>().unwrap();
    assert_eq!(
        rows,
        json!([
            [id, { "to": "Ada" }, ["eu", "new"], 2, null, rows[0][5]],
            [id_of(&again.out), {}, null, 1, 3, null],
            [id_of(&later), {}, null, 2, null, "2030-12-24T09:00:00+00:00"],
        ])
    );
}

#[tokio::test]
async fn what_the_database_refuses_is_told_in_its_words_with_the_code() {
    let db = TestDb::new().await;
    refused(&tell(&db, &["enqueue", "mail", "--priority", "9"]), 1, &["priority is 9", "(DV010)"]);
    refused(&tell(&db, &["enqueue", "No Name"]), 1, &["No Name", "a-z 0-9", "(DV010)"]);
    refused(
        &tell(&db, &["enqueue", "mail", "--split-count", "1000001"]),
        1,
        &["the limit is 1000000", "(DV003)"],
    );
    refused(
        &tell(&db, &["type", "put", "mail", r#"{"retries": 3}"#]),
        1,
        &["unknown option 'retries'", "(DV010)"],
    );
    assert_eq!(json(&db, &["task", "list"])["tasks"], json!([]));
}

#[tokio::test]
async fn splits_come_from_files_from_stdin_from_a_count_and_from_a_range() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "sums", r#"{"reduce": true}"#]);
    let dir = tempfile::tempdir().unwrap();
    let array = dir.path().join("shares.json");
    std::fs::write(&array, r#"[{"n": 1}, {"n": 2}]"#).unwrap();
    let lines = dir.path().join("shares.jsonl");
    std::fs::write(&lines, "{\"n\": 3}\n\n{\"n\": 4}\n").unwrap();
    let payloads = async |id: &str| {
        let id: i64 = id.trim().parse().unwrap();
        let of = "select jsonb_agg(payload order by split_no) from divvy.share where share_of = $1";
        sqlx::query_scalar::<_, Value>(of).bind(id).fetch_one(db.pool()).await.unwrap()
    };
    let made = |args: &[&str]| out(&db, &[&["enqueue", "sums"], args].concat());
    let from_array = made(&["--splits", array.to_str().unwrap()]);
    assert_eq!(payloads(&from_array).await, json!([{ "n": 1 }, { "n": 2 }]));
    let from_lines = made(&["--splits", lines.to_str().unwrap()]);
    assert_eq!(payloads(&from_lines).await, json!([{ "n": 3 }, { "n": 4 }]));
    assert_eq!(payloads(&made(&["--split-count", "1"])).await, json!([{ "index": 0, "count": 1 }]));
    let of_range = made(&["--split-range", "-5..6", "--split-size", "6"]);
    assert_eq!(payloads(&of_range).await, json!([{ "lo": -5, "hi": 1 }, { "lo": 1, "hi": 6 }]));

    let mut command = divvy_on(db.url(), &["enqueue", "sums", "--splits", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"5\n6\n").unwrap();
    let said = from(child.wait_with_output().unwrap());
    assert_eq!(payloads(&said.out).await, json!([5, 6]));

    std::fs::write(&lines, "{\"n\": 3}\n{n}\n").unwrap();
    let bad = tell(&db, &["enqueue", "sums", "--splits", lines.to_str().unwrap()]);
    refused(&bad, 2, &["--splits: line 2 is not JSON"]);
}

#[tokio::test]
async fn lists_turn_pages_and_give_ids_as_strings() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "a"]);
    let ids: Vec<String> = (0..5)
        .map(|n| out(&db, &["enqueue", "a", "--label", ["even", "odd"][n % 2]]).trim().to_owned())
        .collect();
    let page = json(&db, &["task", "list", "--label", "even", "--limit", "2"]);
    let shown = |page: &Value| -> Vec<String> {
        page["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|task| task["task_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(shown(&page), [ids[4].clone(), ids[2].clone()]);
    assert_eq!(page["next"], json!(ids[2]));
    let rest = json(&db, &["task", "list", "--label", "even", "--limit", "2", "--after", &ids[2]]);
    assert_eq!((shown(&rest), &rest["next"]), (vec![ids[0].clone()], &Value::Null));

    let text = tell(&db, &["task", "list", "--limit", "1", "--status", "running,failed", "--type", "a"]);
    let mut lines = text.out.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["ID", "TYPE", "STATUS", "SPLITS", "CREATED", "AGE", "TOOK", "REASON"]);
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[..4], [ids[4].as_str(), "a", "running", "1"]);
    assert!(lines.next().is_none() && text.err.contains(&format!("--after {}", ids[4])), "{}", text.err);
    assert!(!text.out.contains('\u{1b}'), "no colour in a pipe");
}

#[tokio::test]
async fn the_splits_of_a_task_are_listed_by_number_over_pages() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "sums", r#"{"reduce": true}"#]);
    out(&db, &["enqueue", "sums", "--split-count", "3"]);
    let task = out(&db, &["enqueue", "sums", "--split-count", "5"]);
    let task = task.trim();
    let mut numbers = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut args = vec!["split", "list", task, "--limit", "2", "--status", "ready"];
        if let Some(after) = &after {
            args.extend(["--after", after]);
        }
        let page = json(&db, &args);
        let splits = page["splits"].as_array().unwrap();
        assert!(splits.len() <= 2 && splits.iter().all(|split| split["task_id"] == task));
        numbers.extend(splits.iter().map(|split| split["split_no"].as_i64().unwrap()));
        let Some(next) = page["next"].as_str() else { break };
        after = Some(next.to_owned());
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5]);

    out(&db, &["type", "pause", "sums", "--reason", "lunch"]);
    let of = |status: &str| {
        json(&db, &["split", "list", task, "--status", status])["splits"].as_array().unwrap().len()
    };
    assert_eq!((of("ready"), of("delayed"), of("failed")), (0, 5, 0), "a paused type claims nothing");
    let page = json(&db, &["split", "list", task, "--status", "delayed", "--limit", "2"]);
    assert_eq!(page["splits"][1]["split_no"], 2);
}

#[tokio::test]
async fn a_failed_split_tells_its_attempts_its_log_and_its_error() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "mail"]);
    let task = out(&db, &["enqueue", "mail", "--payload", r#"{"to": "Ada"}"#]);
    let split = attempt(db.pool(), "mail", "fail").await.to_string();
    let shown = out(&db, &["split", "show", &split]);
    for part in [
        "by-hand",
        "the file is missing",
        "ATTEMPTS",
        "LOG",
        "looking for the file {\"n\":1}",
        r#"{"to":"Ada"}"#,
    ] {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
    let detail = json(&db, &["split", "show", &split]);
    assert_eq!(detail["split_id"], json!(split));
    assert_eq!(detail["attempts"][0]["outcome"], "stopped");
    assert_eq!(detail["log"][0]["message"], "looking\nfor the file");

    let detail = json(&db, &["task", "show", task.trim()]);
    assert_eq!(
        [
            &detail["status"],
            &detail["progress"]["failed"],
            &detail["failed_splits"][0]["split_id"],
            &detail["payload"]
        ],
        [&json!("failed"), &json!(1), &json!(split), &json!({ "to": "Ada" })]
    );
    refused(&tell(&db, &["task", "wait", task.trim()]), 1, &["failed: io: the file is missing"]);
    let tail = tell(&db, &["task", "tail", task.trim()]);
    refused(&tail, 1, &["failed: io: the file is missing"]);
    let line = |part: &str| {
        tail.out
            .lines()
            .position(|line| line.contains(part))
            .unwrap_or_else(|| panic!("{part}: {}", tail.out))
    };
    assert!(line("looking for the file") <= line("attempt 1 stopped: io: the file is missing"));
}

#[tokio::test]
async fn a_task_is_redriven_cancelled_and_its_history_names_the_reason() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "mail"]);
    let task = out(&db, &["enqueue", "mail"]);
    let task = task.trim();
    refused(&tell(&db, &["task", "redrive", task]), 1, &[&format!("task {task} is running"), "(DV004)"]);
    attempt(db.pool(), "mail", "fail").await;
    let nothing = tell(&db, &["task", "redrive", task, "--error-class", "net"]);
    refused(&nothing, 1, &["(DV004)"]);
    let redriven =
        tell(&db, &["task", "redrive", task, "--max-attempts", "2", "--fresh", "--reason", "disk is back"]);
    assert_eq!(redriven.out, "1\n", "{}", redriven.err);
    assert_eq!(out(&db, &["task", "cancel", task, "--reason", "not needed"]), "cancelled\n");
    let again = tell(&db, &["task", "cancel", task]);
    assert_eq!(again.out, "cancelled\n");
    let shown = out(&db, &["task", "show", task]);
    for part in ["cancelled (not needed)", "disk is back", "cancel by", "epoch         2"] {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
    refused(&tell(&db, &["task", "wait", task]), 1, &[&format!("task {task} was cancelled")]);
}

#[tokio::test]
async fn a_type_is_declared_shown_paused_and_resumed() {
    let db = TestDb::new().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, r#"{"max_attempts": 3, "handler": {"sql": {"execute": "select 1"}}}"#).unwrap();
    out(&db, &["type", "put", "sums", &format!("@{}", file.path().display())]);
    let declared = json(&db, &["type", "put", "sums", r#"{"max_failed": 2}"#]);
    assert_eq!(
        (&declared["options"]["max_attempts"], &declared["options"]["max_failed"]),
        (&json!(3), &json!(2))
    );
    let shown = out(&db, &["type", "show", "sums"]);
    assert!(shown.contains("EXECUTE IN SQL\n  select 1\n"), "{shown}");
    out(&db, &["enqueue", "ghost"]);
    out(&db, &["type", "pause", "sums", "--until", "20301224180000", "--reason", "audit"]);
    let rows = json(&db, &["type", "list"]);
    let row = |name: &str| {
        rows["types"].as_array().unwrap().iter().find(|row| row["task_type"] == name).cloned().unwrap()
    };
    assert_eq!(
        (row("sums")["paused"].clone(), row("sums")["pause_reason"].clone()),
        (json!(true), json!("audit"))
    );
    assert_eq!(
        (row("ghost")["declared"].clone(), row("ghost")["scheduled"].clone()),
        (json!(false), json!(1))
    );
    let text = out(&db, &["type", "list"]);
    assert!(text.contains("undeclared") && text.contains("audit (resumes in"), "{text}");
    out(&db, &["type", "resume", "sums"]);
    assert_eq!(json(&db, &["type", "show", "sums"])["paused"], json!(false));
}

#[tokio::test]
async fn a_split_that_is_set_aside_is_not_waited_for() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "sums"]);
    let task = out(&db, &["enqueue", "sums", "--split-count", "2"]);
    let splits = json(&db, &["split", "list", task.trim()]);
    let second = splits["splits"][1]["split_id"].as_str().unwrap();
    out(&db, &["split", "skip", second, "--reason", "bad input"]);
    attempt(db.pool(), "sums", "complete").await;
    assert_eq!(json(&db, &["task", "wait", task.trim()])["status"], "succeeded");
    assert_eq!(
        json(&db, &["split", "list", task.trim(), "--status", "skipped"])["splits"][0]["reason"],
        "bad input"
    );
    refused(&tell(&db, &["split", "skip", second]), 1, &[second, "(DV004)"]);
}

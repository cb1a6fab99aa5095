//! The command line as people and scripts meet it: the real program, its stdout, stderr and exit code.

mod calendars;
mod schedules;
mod tasks;
mod working;

use crate::support::db::TestDb;
use crate::support::program::{Said, divvy, divvy_on, ok, said};
use serde_json::Value;
use sqlx::PgPool;

/// What a command that must succeed printed.
fn out(db: &TestDb, args: &[&str]) -> String {
    ok(&mut divvy_on(db.url(), args))
}

/// What a command said, however it ended.
fn tell(db: &TestDb, args: &[&str]) -> Said {
    said(&mut divvy_on(db.url(), args))
}

/// The JSON that a command that must succeed printed.
fn json(db: &TestDb, args: &[&str]) -> Value {
    let text = ok(divvy_on(db.url(), args).arg("--json"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?} printed {text:?}: {e}"))
}

/// Asserts that a command failed with this code, and that stderr has all of `parts`.
#[track_caller]
fn refused(said: &Said, code: i32, parts: &[&str]) {
    assert_eq!(said.code, Some(code), "{}", said.err);
    for part in parts {
        assert!(said.err.contains(part), "{part:?} is missing in: {}", said.err);
    }
    assert!(!said.err.contains("error returned from database"), "the driver speaks: {}", said.err);
}

/// One value from the database.
async fn value(pool: &PgPool, query: &'static str) -> Value {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn wrong_usage_is_told_with_exit_code_2_and_without_a_database() {
    let nowhere = "postgres://127.0.0.1:1/shop";
    let cases: [(&[&str], &str); 9] = [
        (&["enqueue", "a", "--payload", "{day: 1}"], "--payload is not JSON"),
        (&["enqueue", "a", "--payload", "@/no/such.json"], "cannot read /no/such.json"),
        (&["enqueue", "a", "--split-range", "9..1", "--split-size", "1"], "9 is not before 1"),
        (&["enqueue", "a", "--split-count", "2", "--split-range", "0..9"], "cannot be used with"),
        (&["enqueue", "a", "--run-at", "soon"], "--run-at is \"soon\""),
        (&["enqueue", "a", "--wait", "--timeout", "soon"], "such as 90s"),
        (&["task", "list", "--status", "nearly"], "possible values: scheduled"),
        (&["task", "show", "seven"], "invalid value 'seven'"),
        (&["schedule", "put", "a", "--type", "b"], "exactly one of --steps, --run-at, --cron and --every"),
    ];
    for (args, part) in cases {
        refused(&said(&mut divvy_on(nowhere, args)), 2, &[part]);
    }
}

#[tokio::test]
async fn a_database_out_of_reach_is_named_with_exit_code_75() {
    for args in [&["task", "list"][..], &["enqueue", "a"], &["worker"], &["workers", "list"]] {
        let said = said(&mut divvy_on("postgres://app:hunter2@127.0.0.1:1/shop", args));
        refused(&said, 75, &["cannot reach Postgres at 127.0.0.1:1 (database shop)"]);
        assert!(!said.err.contains("hunter2") && said.out.is_empty(), "{}{}", said.err, said.out);
    }
}

#[tokio::test]
async fn a_database_without_the_schema_says_what_to_do() {
    let db = TestDb::empty().await;
    for args in [&["task", "list"][..], &["enqueue", "a"], &["worker"]] {
        refused(&tell(&db, args), 1, &["run `divvy migrate`"]);
    }
}

#[tokio::test]
async fn a_thing_that_is_not_there_is_named_with_its_code() {
    let db = TestDb::new().await;
    let cases: [(&[&str], &str); 13] = [
        (&["task", "show", "77"], "there is no task 77 (DV011)"),
        (&["task", "wait", "77"], "there is no task 77 (DV011)"),
        (&["task", "tail", "77"], "there is no task 77 (DV011)"),
        (&["task", "cancel", "77"], "there is no task 77 (DV011)"),
        (&["task", "redrive", "77"], "there is no task 77 (DV011)"),
        (&["split", "list", "77"], "there is no task 77 (DV011)"),
        (&["split", "show", "77"], "there is no split 77 (DV011)"),
        (&["split", "skip", "77"], "there is no split 77 (DV011)"),
        (&["type", "show", "none"], "there is no type none (DV011)"),
        (&["type", "pause", "none"], "there is no type none (DV011)"),
        (&["schedule", "trigger", "none"], "there is no open schedule none (DV011)"),
        (&["schedule", "history", "none"], "there is no schedule none (DV011)"),
        (&["workers", "quiet", "none"], "there is no worker none (DV011)"),
    ];
    for (args, part) in cases {
        refused(&tell(&db, args), 1, &[part]);
    }
}

#[tokio::test]
async fn an_empty_list_is_empty_on_stdout_and_says_so_on_stderr() {
    let db = TestDb::new().await;
    for (args, key) in [
        (&["task", "list"][..], "tasks"),
        (&["type", "list"], "types"),
        (&["schedule", "list"], "schedules"),
        (&["workers", "list"], "workers"),
    ] {
        let said = tell(&db, args);
        assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
        assert!(said.err.starts_with("divvy: "), "{}", said.err);
        assert_eq!(json(&db, args)[key], serde_json::json!([]));
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let db = TestDb::new().await;
    let mut command = divvy_on(db.url(), &["type", "list", "--json"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let said = crate::support::program::from(
        command
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap(),
    );
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
}

#[test]
fn completions_know_every_command_that_people_use() {
    for shell in ["bash", "zsh", "fish"] {
        let script = ok(&mut divvy(&["completions", shell]));
        for command in ["enqueue", "redrive", "preview", "terminate", "completions"] {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
        assert!(!script.contains("embedded-watchdog"), "{shell} offers an internal command");
    }
}

//! `divvy worker` as a process: it runs types in SQL, leads, and stops without losing anything.

use super::{json, out, refused, tell};
use crate::support::db::TestDb;
use crate::support::program::{Said, divvy_on, from};
use crate::support::race::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::process::{Child, Stdio};

const SUMS: &str = r#"{"reduce": true, "handler": {"sql": {
    "execute": "select ($2 ->> 'index')::int",
    "reduce": "select sum(result::int)::int from divvy.results()"}}}"#;
const BROKEN: &str = r#"{"max_attempts": 1, "handler": {"sql": {"execute": "select 1 / 0"}}}"#;

/// A `divvy worker`; killed with this value if it still runs.
struct Process(Option<Child>);

impl Process {
    fn start(db: &TestDb, args: &[&str]) -> Self {
        let mut command = divvy_on(db.url(), &[&["worker"], args].concat());
        let child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starting divvy worker");
        Self(Some(child))
    }

    fn signal(&self, signal: Signal) {
        let child = self.0.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Waits for its end.
    fn end(mut self) -> Said {
        from(self.0.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[tokio::test]
async fn a_worker_runs_types_in_sql_and_enqueue_waits_for_the_result() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "sums", SUMS]);
    out(&db, &["type", "put", "broken", BROKEN]);
    let worker = Process::start(&db, &["--slots", "3"]);
    let done = json(&db, &["enqueue", "sums", "--split-count", "20", "--wait", "--timeout", "60s"]);
    assert_eq!((&done["status"], &done["result"]), (&json!("succeeded"), &json!(190)));
    let failed = tell(&db, &["enqueue", "broken", "--wait", "--timeout", "60s"]);
    refused(&failed, 1, &["failed", "division by zero"]);
    assert_eq!(failed.out.lines().count(), 1, "the id: {}", failed.out);
    assert_eq!(out(&db, &["task", "wait", done["task_id"].as_str().unwrap()]), "190\n");

    let rows = json(&db, &["workers", "list"]);
    let row = &rows["workers"][0];
    assert_eq!((&row["alive"], &row["leased"]), (&json!(true), &json!(0)), "nothing runs any more");
    let name = row["name"].as_str().unwrap();
    out(&db, &["workers", "quiet", name]);
    assert_eq!(json(&db, &["workers", "list"])["workers"][0]["command"], "quiet");
    let id = row["worker"].as_str().unwrap();
    out(&db, &["workers", "run", &id[id.len() - 12..]]);
    assert_eq!(json(&db, &["workers", "list"])["workers"][0]["command"], "run");

    worker.signal(Signal::TERM);
    let said = worker.end();
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("21 succeeded, 1 failed"), "{}", said.err);
}

#[tokio::test]
async fn a_worker_of_some_types_leaves_the_others_and_never_leads_when_told_so() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "sums", SUMS]);
    out(&db, &["type", "put", "other", SUMS]);
    let worker = Process::start(&db, &["--types", "sums,later", "--no-lead"]);
    let waiting = out(&db, &["enqueue", "other", "--split-count", "2"]);
    let done = json(&db, &["enqueue", "sums", "--split-count", "2", "--wait", "--timeout", "60s"]);
    assert_eq!(done["status"], "succeeded");
    assert_eq!(json(&db, &["task", "show", waiting.trim()])["progress"]["ready"], 2);
    let terms: i64 =
        sqlx::query_scalar("select count(*) from divvy.leader").fetch_one(db.pool()).await.unwrap();
    assert_eq!(terms, 0);
    worker.signal(Signal::INT);
    let said = worker.end();
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("not declared yet: later"), "{}", said.err);
}

#[tokio::test]
async fn a_worker_leads_so_that_schedules_fire() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "sums", SUMS]);
    out(&db, &["schedule", "put", "soon", "--type", "sums", "--steps", "1"]);
    let worker = Process::start(&db, &[]);
    until("the schedule's task has succeeded", async || {
        let history = json(&db, &["schedule", "history", "soon"]);
        history["fires"][0]["task_status"] == "succeeded"
    })
    .await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().code, Some(0));
}

#[tokio::test]
async fn a_worker_that_an_operator_terminates_ends_by_itself() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "sums", SUMS]);
    let worker = Process::start(&db, &[]);
    let done = json(&db, &["enqueue", "sums", "--split-count", "2", "--wait", "--timeout", "60s"]);
    assert_eq!(done["status"], "succeeded");
    let rows = json(&db, &["workers", "list"]);
    out(&db, &["workers", "terminate", rows["workers"][0]["worker"].as_str().unwrap()]);
    let said = worker.end();
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(
        said.err.contains("terminated by an operator") && said.err.contains("3 succeeded"),
        "{}",
        said.err
    );
}

#[tokio::test]
async fn a_second_signal_ends_a_worker_at_once() {
    let db = TestDb::new().await;
    let slow = r#"{"handler": {"sql": {"execute": "select pg_sleep(600)::text"}}}"#;
    out(&db, &["type", "put", "slow", slow]);
    let task = out(&db, &["enqueue", "slow"]);
    let mut worker = Process::start(&db, &["--grace", "600"]);
    until("the split runs", async || json(&db, &["task", "show", task.trim()])["progress"]["running"] == 1)
        .await;
    worker.signal(Signal::TERM);
    // Signals are asynchronous: until the first has been taken, another is the same signal.
    until("the worker is gone", async || {
        let child = worker.0.as_mut().unwrap();
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
        false
    })
    .await;
    assert_eq!(worker.end().code, Some(1));
}

#[tokio::test]
async fn a_wait_that_takes_too_long_exits_with_75_and_says_where_the_task_stands() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "sums", SUMS]);
    let said = tell(&db, &["enqueue", "sums", "--split-count", "2", "--wait", "--timeout", "1s", "--json"]);
    refused(&said, 75, &["has not ended within 1s: running"]);
    let made: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(made["created"], true, "the id is told all the same");
}

#[tokio::test]
async fn a_tail_shows_what_happens_until_the_task_ends() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "sums", SUMS]);
    let task = out(&db, &["enqueue", "sums", "--split-count", "4"]);
    let mut command = divvy_on(db.url(), &["task", "tail", task.trim(), "--json"]);
    let tail = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let worker = Process::start(&db, &[]);
    let said = from(tail.wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    let last: serde_json::Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["kind"], &last["result"]), (&json!("end"), &json!(6)));
    assert!(said.out.lines().any(|line| line.contains(r#""kind":"progress""#)), "{}", said.out);
    drop(worker);
}

#[tokio::test]
async fn a_worker_serves_undeclared_types_by_a_command_with_the_phases_it_is_told() {
    let db = TestDb::new().await;
    // The worker knows the database's address; the command does not.
    let each = "case $DIVVY_PHASE in plan) seq 3;; execute) echo 2;; reduce) echo ${DATABASE_URL-6};; esac";
    let exec = format!("sh -c '{each}'");
    let told = ["--types", "sums,others", "--exec", &exec, "--phases", "plan,reduce", "--in-flight", "3"];
    let worker = Process::start(&db, &told);
    let done = json(&db, &["enqueue", "sums", "--wait", "--timeout", "60s"]);
    assert_eq!((&done["status"], &done["result"]), (&json!("succeeded"), &json!(6)));
    let slots: i32 = sqlx::query_scalar("select slots from divvy.worker").fetch_one(db.pool()).await.unwrap();
    assert_eq!(slots, 3, "over both types");
    worker.signal(Signal::TERM);
    let said = worker.end();
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("works on sums, others by sh -c"), "{}", said.err);
    assert!(said.err.contains("5 succeeded, 0 failed"), "{}", said.err);
}

#[tokio::test]
async fn declared_commands_run_only_where_a_folder_is_allowed() {
    let db = TestDb::new().await;
    out(&db, &["type", "put", "fine", r#"{"handler": {"exec": "true"}}"#]);
    let task = out(&db, &["enqueue", "fine"]);
    let refused_to = Process::start(&db, &[]);
    out(&db, &["type", "put", "sums", SUMS]);
    json(&db, &["enqueue", "sums", "--split-count", "2", "--wait", "--timeout", "60s"]);
    assert_eq!(json(&db, &["task", "show", task.trim()])["status"], "running", "it waits");
    refused_to.signal(Signal::TERM);
    assert_eq!(refused_to.end().code, Some(0));
    let folder =
        ["/usr/bin", "/bin"].into_iter().find(|folder| std::path::Path::new(folder).join("true").exists());
    let allowed = Process::start(&db, &["--allow-exec", folder.expect("a folder with `true`")]);
    out(&db, &["task", "wait", task.trim(), "--timeout", "60s"]);
    allowed.signal(Signal::TERM);
    let said = allowed.end();
    assert!(said.code == Some(0) && said.err.contains("works on fine, sums"), "{}", said.err);
}

#[tokio::test]
async fn a_command_that_is_typed_wrongly_is_told_at_once() {
    let db = TestDb::new().await;
    for (args, part) in [
        (&["--exec", "true"][..], "--types"),
        (&["--types", "a", "--exec-lines"], "--exec"),
        (&["--types", "a", "--exec", "true", "--phases", "execute"], "plan, reduce"),
        (&["--types", "a", "--exec", "'true"], "has a quote that is not closed"),
        (&["--types", "a", "--exec", "./no-such-program x"], "there is no program ./no-such-program"),
        (&["--in-flight", "0"], "1..=1000"),
        (&["--allow-exec", "/no/such/folder"], "/no/such/folder: there is no such folder"),
    ] {
        let said = tell(&db, &[&["worker"], args].concat());
        refused(&said, 2, &[part]);
    }
}

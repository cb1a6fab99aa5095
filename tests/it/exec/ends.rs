//! Commands that have to end: a cancel, a timeout, a stop of the worker.

use super::{Bench, KILL_AFTER, lives, until_gone};
use crate::support::running::WITHIN;
use divvy::worker::{Exec, Worker};
use serde_json::json;
use std::time::Duration;

/// Says who it is, and waits without end.
const WAITS: &str = r#"echo $$ > "$1/pid"; sleep 600 & echo $! > "$1/child"; wait"#;
/// The same, and doesn't care for SIGTERM.
const DEAF: &str = r#"trap '' TERM; echo $$ > "$1/pid"; while :; do sleep 600 & wait; done"#;

#[tokio::test]
async fn a_cancel_ends_the_command_and_its_children() {
    let mut bench = Bench::once(json!({"lease": "1 s"}), WAITS).await;
    let task = bench.enqueue(json!({}), json!({})).await;
    let (pid, child) = (bench.written("pid").await, bench.written("child").await);
    assert!(lives(&pid) && lives(&child));
    sqlx::query("select divvy.cancel($1, 'not needed')").bind(task).execute(bench.pool()).await.unwrap();
    until_gone(&pid).await;
    until_gone(&child).await;
    assert_eq!(bench.ended(task).await.0, "cancelled");
    let done = bench.stop().await;
    assert_eq!((done.succeeded, done.total()), (0, 1), "{done}");
}

#[tokio::test]
async fn a_command_may_clean_up_when_it_is_cancelled() {
    let script = r#"trap 'echo cleaned > "$1/told"; exit 0' TERM; echo $$ > "$1/pid"; sleep 600 & wait"#;
    let mut bench = Bench::once(json!({"lease": "1 s"}), script).await;
    let task = bench.enqueue(json!({}), json!({})).await;
    bench.written("pid").await;
    sqlx::query("select divvy.cancel($1, 'not needed')").bind(task).execute(bench.pool()).await.unwrap();
    assert_eq!(bench.written("told").await, "cleaned");
    assert_eq!(bench.ended(task).await.0, "cancelled");
    bench.stop().await;
}

#[tokio::test]
async fn a_command_that_ignores_sigterm_is_killed() {
    let mut bench = Bench::once(json!({"lease": "1 s"}), DEAF).await;
    let task = bench.enqueue(json!({}), json!({})).await;
    let pid = bench.written("pid").await;
    sqlx::query("select divvy.cancel($1, 'not needed')").bind(task).execute(bench.pool()).await.unwrap();
    until_gone(&pid).await;
    assert_eq!(bench.ended(task).await.0, "cancelled");
    bench.stop().await;
}

#[tokio::test]
async fn a_command_that_never_ends_is_a_timeout() {
    let mut bench = Bench::once(json!({"timeout": "2 s"}), DEAF).await;
    let task = bench.enqueue(json!({}), json!({"max_attempts": 1})).await;
    let pid = bench.written("pid").await;
    let (status, _, error) = bench.ended(task).await;
    assert_eq!((status.as_str(), &error["class"]), ("failed", &json!("timeout")));
    until_gone(&pid).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_stopped_worker_gives_back_what_does_not_end_in_its_grace_and_leaves_no_process() {
    let bench = Bench::once(json!({}), DEAF).await;
    let mut bench = bench;
    bench.stop().await;
    let file = bench.file("job.sh");
    let exec = Exec::new(&format!("sh {} {}", file.display(), bench.folder.path().display())).unwrap();
    let worker = Worker::builder(bench.pool().clone())
        .exec("job", exec.kill_after(KILL_AFTER))
        .grace(Duration::from_millis(100))
        .build()
        .unwrap();
    let running = crate::support::running::Running::start(worker);
    let task = bench.enqueue(json!({}), json!({})).await;
    let pid = bench.written("pid").await;
    let done = tokio::time::timeout(WITHIN, running.stop()).await.unwrap();
    assert!(!lives(&pid), "the worker waits for what it kills");
    assert_eq!(done.released, 1, "{done}");
    let (status, attempt): (String, i32) =
        sqlx::query_as("select status, attempt from divvy.split where id = $1")
            .bind(task)
            .fetch_one(bench.pool())
            .await
            .unwrap();
    assert_eq!((status.as_str(), attempt), ("ready", 0));
}

#[tokio::test]
async fn a_stopped_worker_lets_a_command_finish() {
    let script = r#"echo $$ > "$1/pid"; until [ -e "$1/go" ]; do sleep 0.05; done; echo '"finished"'"#;
    let mut bench = Bench::once(json!({}), script).await;
    let task = bench.enqueue(json!({}), json!({})).await;
    bench.written("pid").await;
    bench.worker.as_ref().unwrap().ask_to_stop();
    std::fs::write(bench.file("go"), "").unwrap();
    assert_eq!(bench.ended(task).await.1, "finished");
    assert_eq!(bench.stop().await.succeeded, 1);
}

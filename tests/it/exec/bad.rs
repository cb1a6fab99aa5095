//! What commands do that they should not: the attempt fails, the worker goes on.

use super::{Bench, lives, until_gone};
use serde_json::{Value, json};

/// One attempt at a script; its error.
async fn error_of(options: Value, script: &str) -> (Bench, Value) {
    let bench = Bench::once(options, script).await;
    let task = bench.enqueue(json!({}), json!({"max_attempts": 1})).await;
    let (status, _, error) = bench.ended(task).await;
    assert_eq!(status, "failed", "{error}");
    (bench, error)
}

#[tokio::test]
async fn garbage_on_stdout_fails_the_attempt_and_is_shown() {
    let (mut bench, error) = error_of(json!({}), "echo 'done, I think'").await;
    assert_eq!(error["class"], "output");
    assert_eq!(error["message"], "stdout is not JSON: expected value at line 1 column 1: done, I think");
    bench.stop().await;
    let (mut bench, error) = error_of(json!({"plan": true}), r"echo '{}'; printf '\377\376\n'").await;
    assert!(error["message"].as_str().unwrap().starts_with("stdout is not lines of JSON: "), "{error}");
    bench.stop().await;
}

#[tokio::test]
async fn a_result_with_a_nul_character_fails_the_attempt() {
    let (mut bench, error) = error_of(json!({}), r#"echo '"a\u0000b"'"#).await;
    assert_eq!(error["class"], "result", "{error}");
    bench.stop().await;
}

#[tokio::test]
async fn a_gigabyte_on_stdout_is_cut_and_the_command_killed() {
    let endless = r#"echo $$ > "$1/pid"; exec cat /dev/zero"#;
    let (mut bench, error) = error_of(json!({}), endless).await;
    assert_eq!(error["message"], "stdout has more than 1048576 bytes: no result may");
    until_gone(&bench.written("pid").await).await;
    bench.stop().await;
    let (mut bench, error) = error_of(json!({"plan": true}), endless).await;
    assert_eq!(error["message"], "a line on stdout has more than 262144 bytes: no share may");
    until_gone(&bench.written("pid").await).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_plan_without_end_is_stopped_by_the_limit_of_a_task() {
    let (mut bench, error) = error_of(json!({"plan": true}), r#"echo $$ > "$1/pid"; exec yes 1"#).await;
    assert!(error["message"].as_str().unwrap().contains("1000000"), "{error}");
    until_gone(&bench.written("pid").await).await;
    let staged: i64 =
        sqlx::query_scalar("select count(*) from divvy.staged").fetch_one(bench.pool()).await.unwrap();
    assert_eq!(staged, 0);
    bench.stop().await;
}

#[tokio::test]
async fn a_flood_on_stderr_is_read_and_only_its_beginning_is_kept() {
    let mut bench = Bench::once(json!({}), "yes 'a warning' | head -c 20000000 >&2; echo '\"fine\"'").await;
    let task = bench.enqueue(json!({}), json!({})).await;
    assert_eq!(bench.ended(task).await.1, "fine");
    let (lines, last): (i64, String) = sqlx::query_as(
        "select count(*), (select message from divvy.split_log order by line desc limit 1) from divvy.split_log",
    )
    .fetch_one(bench.pool())
    .await
    .unwrap();
    assert_eq!(lines, 999);
    assert!(
        last.ends_with("more lines on stderr: 998 lines or 262144 bytes of an attempt are kept"),
        "{last}"
    );
    bench.stop().await;
}

#[tokio::test]
async fn long_lines_on_stderr_are_kept_up_to_their_bytes() {
    // 400 lines of 4,000 bytes: far fewer lines than are kept, far more bytes.
    let script = r#"head -c 4000 /dev/zero | tr '\0' x > "$1/line"; for n in $(seq 400); do cat "$1/line"; echo; done >&2"#;
    let mut bench = Bench::once(json!({}), script).await;
    let task = bench.enqueue(json!({}), json!({})).await;
    assert_eq!(bench.ended(task).await.0, "succeeded");
    let (bytes, last): (i64, String) = sqlx::query_as(
        "select sum(length(message)), (select message from divvy.split_log order by line desc limit 1) from divvy.split_log",
    )
    .fetch_one(bench.pool())
    .await
    .unwrap();
    assert!((200_000..=263_000).contains(&bytes), "{bytes}");
    assert!(last.starts_with("335 more lines on stderr"), "{last}");
    bench.stop().await;
}

#[tokio::test]
async fn children_that_outlive_a_command_are_killed_with_their_group() {
    let script = r#"sleep 600 & echo $! > "$1/child"; echo '"left one behind"'"#;
    let mut bench = Bench::once(json!({}), script).await;
    assert_eq!(bench.run(json!({})).await.1, "left one behind");
    until_gone(&bench.written("child").await).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_child_that_left_the_group_and_holds_the_pipes_keeps_nobody_waiting() {
    let script = r#"setsid sleep 600 & echo $! > "$1/child"; echo '"daemon"'"#;
    let mut bench = Bench::once(json!({}), script).await;
    assert_eq!(bench.run(json!({})).await.1, "daemon");
    let child = bench.written("child").await;
    bench.stop().await;
    // This one is beyond reach; the test ends it.
    if lives(&child) {
        let pid = rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

#[tokio::test]
async fn a_command_that_reads_nothing_still_completes() {
    let mut bench = Bench::once(json!({}), "exec <&-; echo 1").await;
    let wide = "x".repeat(500_000);
    assert_eq!(bench.run(json!({"wide": wide})).await.1, 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_program_that_is_gone_is_a_failed_attempt() {
    let db = crate::support::db::TestDb::new().await;
    let exec = divvy::worker::Exec::new("/nonexistent/program --now").unwrap();
    let worker = divvy::worker::Worker::builder(db.pool().clone()).exec("job", exec).build().unwrap();
    let running = crate::support::running::Running::start(worker);
    let mut bench = Bench { db, folder: tempfile::tempdir().unwrap(), worker: Some(running) };
    let task = bench.enqueue(json!({}), json!({"max_attempts": 1})).await;
    let error = bench.ended(task).await.2;
    assert_eq!(error["class"], "start");
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("/nonexistent/program --now can't be started: No such file"), "{message}");
    bench.stop().await;
}

//! A command that lives long, and is given many splits.

use super::{Bench, KILL_AFTER, lives, until_gone};
use crate::support::race::until;
use serde_json::{Value, json};

/// Reads a line, sets `id`; what follows answers.
fn each(then: &str) -> String {
    format!(
        r#"echo $$ >> "$1/pids"
        while read -r line; do
            id=$(expr "$line" : '{{"id":\([0-9]*\),')
            {then}
        done
        echo bye > "$1/bye""#
    )
}

fn pids(bench: &Bench) -> Vec<String> {
    let text = std::fs::read_to_string(bench.file("pids")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn one_process_plans_executes_and_reduces() {
    let script = each(
        r#"case $line in
        *'"phase":"plan"'*) echo "{\"id\":$id,\"splits\":[1,2],\"more\":true}"; echo "{\"id\":$id,\"splits\":[3]}" ;;
        *'"phase":"execute"'*) echo "{\"id\":$id,\"result\":$(expr "$line" : '.*"split_payload":\([0-9]*\)')}" ;;
        *) echo "{\"id\":$id,\"result\":{\"told\":$line}}" ;;
        esac"#,
    );
    let mut bench = Bench::lines(json!({"plan": true, "reduce": true}), &script).await;
    let (status, told, error) = bench.run(json!({})).await;
    assert_eq!(status, "succeeded", "{error}");
    let inputs: Vec<Value> =
        (1..=3).map(|n| json!({"split_no": n, "status": "succeeded", "result": n, "error": null})).collect();
    assert_eq!(told["told"]["inputs"], json!(inputs));
    assert_eq!(bench.run(json!({})).await.0, "succeeded");
    assert_eq!(bench.stop().await.succeeded, 10);
    assert_eq!(pids(&bench).len(), 1, "one process for all");
    assert_eq!(bench.written("bye").await, "bye", "it hears the end of its input");
}

#[tokio::test]
async fn answers_come_in_any_order() {
    // Four are read before the first is answered, and the last comes first.
    let script = r#"
        ids=
        while read -r line; do
            ids="$(expr "$line" : '{"id":\([0-9]*\),') $ids"
            set -- $ids
            if [ $# = 4 ]; then for id in $ids; do echo "{\"id\":$id,\"result\":$id}"; done; ids=; fi
        done"#;
    let mut bench = Bench::lines(json!({}), script).await;
    let task = bench.enqueue(json!({}), json!({"split_count": 8})).await;
    assert_eq!(bench.ended(task).await.0, "succeeded");
    let results: Vec<Value> =
        sqlx::query_scalar("select result from divvy.split where task_id = $1 and phase = 'execute'")
            .bind(task)
            .fetch_all(bench.pool())
            .await
            .unwrap();
    let mut results: Vec<i64> = results.iter().map(|result| result.as_i64().unwrap()).collect();
    results.sort_unstable();
    assert_eq!(results, (1..=8).collect::<Vec<_>>());
    bench.stop().await;
}

#[tokio::test]
async fn every_outcome_can_be_answered() {
    let script = each(
        r#"case $line in
        *'"do": "stop"'*) echo "{\"id\":$id,\"stop\":{\"message\":\"no\"}}" ;;
        *'"do": "fail"'*) echo "{\"id\":$id,\"fail\":{\"message\":\"busy\",\"class\":\"io\",\"retry_in\":0}}" ;;
        *'"do": "both"'*) echo "{\"id\":$id,\"result\":1,\"stop\":{}}" ;;
        *'"do": "snooze"'*'"checkpoint":null'*) echo "{\"id\":$id,\"snooze\":{\"delay\":0,\"checkpoint\":[1]}}" ;;
        *) echo "{\"id\":$id}" ;;
        esac"#,
    );
    let mut bench = Bench::lines(json!({}), &script).await;
    assert_eq!(bench.run(json!({"do": "stop"})).await.2, json!({"message": "no"}));
    assert_eq!(bench.run(json!({"do": "fail"})).await.2, json!({"class": "io", "message": "busy"}));
    assert_eq!(bench.run(json!({"do": "both"})).await.2["class"], "output");
    assert_eq!(bench.run(json!({"do": "snooze"})).await, ("succeeded".into(), Value::Null, Value::Null));
    let done = bench.stop().await;
    assert_eq!((done.succeeded, done.failed, done.continued), (1, 5, 1), "{done}");
    assert_eq!(pids(&bench).len(), 1);
}

#[tokio::test]
async fn a_process_that_dies_is_replaced_and_its_splits_are_tried_again() {
    let script = each(
        r#"if mkdir "$1/died" 2>/dev/null; then echo 'out of memory' >&2; kill -9 $$; fi
        echo "{\"id\":$id,\"result\":\"second\"}""#,
    );
    let mut bench = Bench::lines(json!({}), &script).await;
    let task = bench.enqueue(json!({}), json!({})).await;
    assert_eq!(bench.ended(task).await.1, "second");
    let error: Value =
        sqlx::query_scalar("select error from divvy.split_attempt where task_id = $1 and outcome = 'failed'")
            .bind(task)
            .fetch_one(bench.pool())
            .await
            .unwrap();
    assert_eq!(error["class"], "process");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("ended before it answered: out of memory (killed by signal 9)"), "{message}");
    bench.stop().await;
    assert_eq!(pids(&bench).len(), 2);
}

#[tokio::test]
async fn a_process_that_ends_after_its_last_answer_fails_nobody() {
    let script = each(r#"echo "{\"id\":$id,\"result\":$id}"; exit 0"#);
    let mut bench = Bench::lines(json!({}), &script).await;
    for _ in 0..3 {
        assert_eq!(bench.run(json!({})).await.1, 1, "each process counts from 1");
    }
    assert_eq!(bench.stop().await.failed, 0);
    assert_eq!(pids(&bench).len(), 3);
}

#[tokio::test]
async fn a_process_that_talks_nonsense_is_ended() {
    for (nonsense, part) in [
        ("echo hello", "a line on stdout is no answer: expected value at line 1 column 1: hello"),
        ("echo '{\"id\":99,\"result\":1}'", "it answers 99, which nobody has asked"),
        ("echo \"{\\\"id\\\":$id,\\\"resutl\\\":1}\"", "unknown field `resutl`"),
        ("cat /dev/zero", "a line on stdout has more than 4194304 bytes"),
        ("exec >&-; sleep 600", "it had closed its stdout"),
    ] {
        let mut bench = Bench::lines(json!({}), &each(nonsense)).await;
        let task = bench.enqueue(json!({}), json!({"max_attempts": 1})).await;
        let error = bench.ended(task).await.2;
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(part), "{nonsense}: {message}");
        until_gone(&pids(&bench)[0]).await;
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_process_that_does_not_answer_in_time_is_ended() {
    let mut bench = Bench::lines(json!({"timeout": "2 s"}), &each("sleep 600")).await;
    let task = bench.enqueue(json!({}), json!({"max_attempts": 1})).await;
    let error = bench.ended(task).await.2;
    assert_eq!(error["class"], "timeout");
    until_gone(&pids(&bench)[0]).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_cancel_is_told_and_the_process_goes_on() {
    let script = each(
        r#"case $line in
        *'"cancel":'*) echo "$line" >> "$1/cancelled"; continue ;;
        *'"do": "wait"'*) : ;;
        *) echo "{\"id\":$id,\"result\":\"quick\"}" ;;
        esac"#,
    );
    let mut bench = Bench::lines(json!({"lease": "1 s"}), &script).await;
    let task = bench.enqueue(json!({"do": "wait"}), json!({})).await;
    until("it runs", async || {
        sqlx::query_scalar("select status = 'running' from divvy.split where id = $1")
            .bind(task)
            .fetch_one(bench.pool())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(bench.run(json!({})).await.1, "quick");
    sqlx::query("select divvy.cancel($1, 'not needed')").bind(task).execute(bench.pool()).await.unwrap();
    assert_eq!(bench.written("cancelled").await, "{\"cancel\":1}");
    assert_eq!(bench.ended(task).await.0, "cancelled");
    assert_eq!(bench.run(json!({})).await.1, "quick");
    bench.stop().await;
    assert_eq!(pids(&bench).len(), 1);
}

#[tokio::test]
async fn a_process_that_does_not_end_with_its_input_is_ended_with_its_worker() {
    let script = r#"trap '' TERM; echo $$ >> "$1/pids"; while :; do sleep 600 & wait; done"#;
    let mut bench = Bench::lines(json!({"timeout": "3 s"}), script).await;
    let task = bench.enqueue(json!({}), json!({"max_attempts": 1})).await;
    bench.written("pids").await;
    assert!(lives(&pids(&bench)[0]));
    assert_eq!(bench.ended(task).await.0, "failed");
    bench.stop().await;
    assert!(!lives(&pids(&bench)[0]), "the worker waits {KILL_AFTER:?}, and then kills");
}

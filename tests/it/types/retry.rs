//! Retries: how often, and after which delay.

use crate::support::clock::Clock;
use crate::support::queue::{Queue, WORKER};
use serde_json::{Value, json};
use std::time::Duration;

/// Delays in seconds of the first tries of a split, each met by moving the clock there.
async fn delays(backoff: Value, tries: usize) -> Vec<f64> {
    let mut q = Queue::new().await;
    q.put("a", json!({"backoff": backoff, "max_attempts": 100})).await;
    let clock = Clock::stop(&q.db).await;
    q.enqueue("a").await;
    let mut delays = Vec::new();
    for _ in 0..tries {
        let split = q.claim("a").await;
        let seconds: f64 = q
            .one(format!(
                "select extract(epoch from next_at - divvy.clock())::float8 from divvy.fail({}, {}, '{{}}')",
                split.split_id, split.token
            ))
            .await;
        if seconds > 0.0 {
            clock.advance(Duration::from_secs_f64((seconds - 0.001).max(0.0))).await;
            // Workers that were not seen for an hour are forgotten.
            q.run(format!("select divvy.register_worker('{WORKER}', 'test', '{{}}', 10)")).await;
            q.tick().await;
            assert!(q.claim_up_to("a", 1).await.is_empty(), "not a moment too early");
            clock.advance(Duration::from_millis(1)).await;
            q.tick().await;
        }
        delays.push(seconds);
    }
    delays
}

#[tokio::test]
async fn an_exponential_backoff_grows_by_its_factor_to_its_maximum() {
    let exact = json!({"kind": "exponential", "base": 2, "factor": 3, "max": "1 min", "jitter": 0});
    assert_eq!(delays(exact, 6).await, [2.0, 6.0, 18.0, 54.0, 60.0, 60.0]);
}

#[tokio::test]
async fn the_default_backoff_stays_within_its_jitter() {
    let mut expected = 5.0;
    for delay in delays(Value::Null, 12).await {
        assert!((expected * 0.8..=expected * 1.2).contains(&delay), "{delay} of {expected}");
        expected = f64::min(expected * 2.0, 3600.0);
    }
}

#[tokio::test]
async fn a_fixed_backoff_is_the_same_each_time_and_a_list_repeats_its_last() {
    assert_eq!(delays(json!({"kind": "fixed", "base": "1.5 s", "jitter": 0}), 3).await, [1.5, 1.5, 1.5]);
    let list = json!({"kind": "list", "steps": [0, 1, "1 min", 2], "jitter": 0});
    assert_eq!(delays(list, 6).await, [0.0, 1.0, 60.0, 2.0, 2.0, 2.0]);
}

#[tokio::test]
async fn the_jitter_spreads_retries_on_both_sides() {
    let mut q = Queue::new().await;
    let spread: (f64, f64) = q
        .rows(
            r#"select min(d), max(d) from (select extract(epoch from divvy.backoff('{"kind": "fixed", "base": 100, "jitter": 0.5}', 1))::float8 d
                from generate_series(1, 1000)) x"#,
        )
        .await[0];
    assert!((50.0..75.0).contains(&spread.0) && (125.0..=150.0).contains(&spread.1), "{spread:?}");
}

#[tokio::test]
async fn the_budget_ends_with_the_last_attempt_and_each_attempt_is_a_row() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_attempts": 3})).await;
    let task = q.enqueue("a").await;
    for (attempt, status) in [(1, "ready"), (2, "ready"), (3, "failed")] {
        let split = q.claim("a").await;
        assert_eq!((split.attempt, split.max_attempts), (attempt, 3));
        let running: String = q
            .one(format!(
                "select outcome from divvy.split_attempt where task_id = {task} and attempt = {attempt}"
            ))
            .await;
        assert_eq!(running, "running");
        assert_eq!(q.fail(&split, ", retry_in => '0'").await, status);
    }
    let attempts: Vec<(i32, String, Value, bool)> = q
        .rows(format!(
            "select attempt, outcome, error -> 'class', finished_at >= started_at from divvy.split_attempt
             where task_id = {task} order by attempt"
        ))
        .await;
    assert_eq!(attempts, [1, 2, 3].map(|n| (n, "failed".to_owned(), json!("Flaky"), true)));
    let reason: String = q.one(format!("select reason from divvy.split where task_id = {task}")).await;
    assert_eq!(reason, "attempts exhausted");
    assert_eq!(
        q.one::<Value>(format!("select error from divvy.task_result({task})")).await,
        json!({"class": "Flaky", "message": "again"})
    );
}

#[tokio::test]
async fn max_attempts_of_one_means_one() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run("insert into divvy.task (task_type, max_attempts) values ('a', 1)").await;
    let split = q.claim("a").await;
    assert_eq!(q.fail(&split, ", retry_in => '0'").await, "failed");
}

#[tokio::test]
async fn a_stop_is_not_retried_and_its_attempt_says_so() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    let split = q.claim("a").await;
    assert_eq!(q.stop(&split).await, "failed");
    let attempt: (i32, String) = q
        .rows(format!("select attempt, outcome from divvy.split_attempt where task_id = {task}"))
        .await
        .remove(0);
    assert_eq!(attempt, (1, "stopped".into()));
    let dead: (String, i64) = q.rows("select fingerprint, splits from divvy.dead_splits").await.remove(0);
    assert_eq!(dead, ("Broken".into(), 1));
}

#[tokio::test]
async fn a_success_after_failures_lists_all_of_them() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue_splits("a", 1).await;
    let split = q.claim("a").await;
    q.fail(&split, ", retry_in => '0'").await;
    q.work("a").await;
    let outcomes: Vec<String> = q
        .all(format!("select outcome from divvy.split_attempt where task_id = {task} order by attempt"))
        .await;
    assert_eq!(outcomes, ["failed", "succeeded"]);
    assert!(q.one::<bool>(format!("select error is null from divvy.split where task_id = {task}")).await);
}

#[tokio::test]
async fn five_lease_expiries_in_a_row_put_a_split_aside() {
    let mut q = Queue::new().await;
    q.put("a", json!({"lease": "2 s"})).await;
    let clock = Clock::stop(&q.db).await;
    let task = q.enqueue("a").await;
    q.tick().await;
    clock.advance(Duration::from_secs(5)).await;
    q.tick().await;
    for crash in 1..=5 {
        let split = q.claim("a").await;
        assert_eq!(split.attempt, crash);
        clock.advance(Duration::from_secs(3)).await;
        q.tick().await;
    }
    assert_eq!(q.status(task).await, "failed");
    let reason: String = q.one(format!("select reason from divvy.split where task_id = {task}")).await;
    assert_eq!(reason, "crashes");
    let outcomes: Vec<String> = q.all("select outcome from divvy.split_attempt order by attempt").await;
    assert_eq!(outcomes, ["expired"; 5]);
}

#[tokio::test]
async fn no_lease_outlives_the_timeout_however_often_it_is_renewed() {
    let mut q = Queue::new().await;
    q.put("a", json!({"lease": "3 s", "timeout": "8 s", "max_attempts": 1})).await;
    let clock = Clock::stop(&q.db).await;
    q.tick().await;
    clock.advance(Duration::from_secs(5)).await;
    q.tick().await;
    let task = q.enqueue("a").await;
    let split = q.claim("a").await;
    for _ in 0..4 {
        clock.advance(Duration::from_secs(2)).await;
        q.run(format!(
            "select divvy.heartbeat('{}', '{{{}}}', '{{{}}}')",
            WORKER, split.split_id, split.token
        ))
        .await;
        assert_eq!(q.status(task).await, "running");
        q.tick().await;
    }
    assert_eq!(q.status(task).await, "failed");
    let outcomes: Vec<String> = q.all("select outcome from divvy.split_attempt").await;
    assert_eq!(outcomes, ["timeout"]);
}

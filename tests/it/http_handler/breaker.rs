//! A receiver that does not answer is left alone by all workers at once.

use super::receiver::Receiver;
use super::{Pushed, ended, enqueue, host, put};
use crate::support::race::until;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const TASKS: usize = 20;

/// A receiver that answers 500 until it is well.
async fn ill() -> (Receiver, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(false));
    let asked = well.clone();
    let receiver = Receiver::new(move |_| {
        let status = if asked.load(Ordering::SeqCst) { 200 } else { 500 };
        Box::pin(async move { (status, vec![], String::new()) })
    })
    .await;
    (receiver, well)
}

impl Pushed {
    async fn events(&self, verb: &str) -> i64 {
        let query =
            "select count(*) from divvy.event where verb = $1 and object = 'type' and object_id = 'job'";
        sqlx::query_scalar(query).bind(verb).fetch_one(self.pool()).await.unwrap()
    }
}

#[tokio::test]
async fn it_opens_tries_with_one_split_and_closes_for_all_workers() {
    let (receiver, well) = ill().await;
    let options = json!({"max_attempts": 20});
    let http = json!({"breaker": {"failures": 3, "open": 2, "most": 4}});
    let pushed = Pushed::with(receiver, http, options).await;
    let second = host(&pushed.db, &pushed.stop);
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        tasks.push(enqueue(pushed.pool(), json!({}), json!({})).await);
    }
    until("it opens", async || pushed.events("open_breaker").await == 1).await;
    let (until_when, reason): (Option<f64>, Option<String>) = sqlx::query_as(
        "select extract(epoch from paused_until - divvy.clock())::float8, pause_reason from divvy.task_type where name = 'job'",
    )
    .fetch_one(pushed.pool())
    .await
    .unwrap();
    assert!(until_when.is_some_and(|left| left <= 2.0), "{until_when:?}");
    let reason = reason.unwrap();
    assert!(
        reason.starts_with("breaker: 3 failures in a row, the last: http://")
            && reason.contains("500 Internal"),
        "{reason}"
    );
    // Whoever has not heard of it hears within a second.
    let heard = Instant::now() + Duration::from_millis(1_500);
    tokio::time::sleep_until(heard).await;
    let before = pushed.receiver.count();
    until("one has tried in vain", async || pushed.events("open_breaker").await == 2).await;
    assert_eq!(pushed.receiver.count(), before + 1, "one split tries, whatever waits");
    let tried = |verb: &'static str| pushed.events(verb);
    assert_eq!(tried("close_breaker").await, 0);
    well.store(true, Ordering::SeqCst);
    for task in tasks {
        assert_eq!(ended(pushed.pool(), task).await.0, "succeeded");
    }
    assert_eq!((pushed.events("open_breaker").await, pushed.events("close_breaker").await), (2, 1));
    let attempts: i64 = sqlx::query_scalar("select max(attempt)::bigint from divvy.split")
        .fetch_one(pushed.pool())
        .await
        .unwrap();
    assert!(attempts <= 6, "no attempt is spent while it is open: {attempts}");
    let paused: bool = sqlx::query_scalar(
        "select paused_until is not null or exists (select from divvy.breaker) from divvy.task_type",
    )
    .fetch_one(pushed.pool())
    .await
    .unwrap();
    assert!(!paused);
    pushed.stop.cancel();
    second.await.unwrap();
}

#[tokio::test]
async fn a_receiver_that_is_not_there_opens_it_and_what_it_says_itself_does_not() {
    let (receiver, _) = ill().await;
    let url = receiver.url("/");
    drop(receiver);
    let polite = Receiver::new(|got| {
        let says: (u16, Vec<(&'static str, String)>) = match got.json["payload"]["n"].as_i64().unwrap() % 3 {
            0 => (429, vec![("retry-after", "3600".to_owned())]),
            1 => (503, vec![("retry-after", "3600".to_owned())]),
            _ => (404, vec![]),
        };
        Box::pin(async move { (says.0, says.1, String::new()) })
    })
    .await;
    let pushed = Pushed::with(polite, json!({"breaker": {"failures": 2}}), json!({})).await;
    for n in 0..9 {
        enqueue(pushed.pool(), json!({ "n": n }), json!({})).await;
    }
    until("all are told", async || pushed.receiver.count() == 9).await;
    assert_eq!(pushed.events("open_breaker").await, 0);
    put(pushed.pool(), &url, json!({"breaker": {"failures": 2}}), json!({"max_attempts": 9})).await;
    // The first may still go where the type was pushed before.
    until("it opens", async || {
        enqueue(pushed.pool(), json!({"n": 0}), json!({})).await;
        pushed.events("open_breaker").await == 1
    })
    .await;
    let reason: String = sqlx::query_scalar("select reason from divvy.event where verb = 'open_breaker'")
        .fetch_one(pushed.pool())
        .await
        .unwrap();
    assert!(reason.contains("no answer of http://127.0.0.1:") && reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn a_pause_by_a_person_is_neither_shortened_nor_ended() {
    let (receiver, well) = ill().await;
    let http = json!({"breaker": {"failures": 1, "open": 2, "most": 2}});
    let mut pushed = Pushed::with(receiver, http, json!({"max_attempts": 50})).await;
    let task = enqueue(pushed.pool(), json!({}), json!({})).await;
    until("it opens", async || pushed.events("open_breaker").await >= 1).await;
    let run = async |sql: &'static str| sqlx::query(sql).execute(pushed.pool()).await.map(drop).unwrap();
    run("select divvy.pause('job', null, 'lunch')").await;
    pushed.stop().await;
    well.store(true, Ordering::SeqCst);
    // Whatever the breaker does now.
    let run = async |sql: &'static str| sqlx::query(sql).execute(pushed.pool()).await.map(drop).unwrap();
    run("select divvy.probe_breaker('job', 1, 1, '1 min')").await;
    run("update divvy.breaker set probe_split = 1, probe_token = 1").await;
    run("select divvy.open_breaker('job', 1, 1, 'x', '1 s', '1 s')").await;
    run("update divvy.breaker set probe_split = 1, probe_token = 1").await;
    run("select divvy.close_breaker('job', 1, 1)").await;
    let (reason, forever): (Value, bool) =
        sqlx::query_as("select to_jsonb(pause_reason), paused_until = 'infinity' from divvy.task_type")
            .fetch_one(pushed.pool())
            .await
            .unwrap();
    assert_eq!((reason, forever), (json!("lunch"), true));
    run("select divvy.resume('job')").await;
    pushed.run = Some(host(&pushed.db, &{
        pushed.stop = tokio_util::sync::CancellationToken::new();
        pushed.stop.clone()
    }));
    assert_eq!(ended(pushed.pool(), task).await.0, "succeeded");
}

#[tokio::test]
async fn what_is_no_matter_of_the_split_that_tries_changes_nothing() {
    let (receiver, _) = ill().await;
    let pushed = Pushed::with(receiver, json!({"breaker": false}), json!({})).await;
    let ask = async |sql: &'static str| -> Option<bool> {
        sqlx::query_scalar(sql).fetch_one(pushed.pool()).await.unwrap()
    };
    let open = "select divvy.open_breaker('job', 7, 1, 'x', '1 min', '1 hour') is not null";
    assert_eq!(ask(open).await, Some(true));
    assert_eq!(ask(open).await, Some(false), "decided already");
    assert_eq!(ask("select divvy.close_breaker('job', 7, 1)").await, Some(false), "it did not try");
    assert_eq!(ask("select divvy.probe_breaker('job', 7, 1, '1 min')").await, Some(false), "too early");
    let error = sqlx::query("select divvy.open_breaker('nobody', 7, 1, 'x', '1 min', '1 hour')")
        .execute(pushed.pool())
        .await;
    assert!(error.unwrap_err().to_string().contains("nobody"));
}

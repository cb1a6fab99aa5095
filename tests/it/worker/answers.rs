//! What a worker stores of a handler's answer, and of one that gives none.

use super::{Letters, client, end_of, enqueue, first_error, scalar, start};
use crate::support::act::act;
use crate::support::db::TestDb;
use crate::support::running::Running;
use divvy::client::{NewTask, TaskStatus};
use divvy::handler::{HandlerError, Outcome};
use divvy::worker::Worker;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_panic_is_a_failed_attempt_with_its_message() {
    let db = TestDb::new().await;
    let running = start(&db, act(|_, _| Box::pin(async { panic!("the printer is on fire") })));
    let task = enqueue(&db, NewTask::new("act", json!({})).max_attempts(1)).await;
    let end = end_of(&db, task).await;
    assert_eq!(end.status, TaskStatus::Failed);
    assert_eq!(end.error.unwrap(), json!({ "class": "panic", "message": "the printer is on fire" }));
    assert_eq!(running.stop().await.failed, 1);
}

#[tokio::test]
async fn a_timeout_is_a_failed_attempt_and_frees_the_slot() {
    let db = TestDb::new().await;
    let handler = act(|context, _| {
        let first = context.attempt() == 1;
        Box::pin(async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok(Outcome::Complete(Value::Null))
        })
    });
    let backoff = json!({ "backoff": { "kind": "fixed", "base": 0.05, "jitter": 0 } });
    client(&db).put_task_type("act", &backoff).await.unwrap();
    let worker = Worker::builder(db.pool().clone()).handler(handler).slots(1).build().unwrap();
    let running = Running::start(worker);
    let task = enqueue(&db, NewTask::new("act", json!({})).timeout(Duration::from_millis(200))).await;
    assert_eq!(end_of(&db, task).await.status, TaskStatus::Succeeded);
    let error = first_error(&db, task).await;
    assert_eq!(error, json!({ "class": "timeout", "message": "timed out after 200ms" }));
    running.stop().await;
}

#[tokio::test]
async fn stop_fails_for_good_after_one_attempt() {
    let db = TestDb::new().await;
    let running = start(&db, act(|_, _| Box::pin(async { Ok(Outcome::Stop("no such account 7".into())) })));
    let task = enqueue(&db, NewTask::new("act", json!({}))).await;
    let end = end_of(&db, task).await;
    assert_eq!(end.status, TaskStatus::Failed);
    assert_eq!(end.error.unwrap()["message"], "no such account 7");
    assert_eq!(scalar::<i32>(db.pool(), "select attempt from divvy.task where id = $1", task).await, 1);
    running.stop().await;
}

#[tokio::test]
async fn continue_calls_again_with_its_state_and_uses_no_attempt() {
    let db = TestDb::new().await;
    let running = start(
        &db,
        act(|context, _| {
            Box::pin(async move {
                let pages = context.checkpoint::<u32>()?.unwrap_or(0) + 1;
                if pages < 5 {
                    return Ok(Outcome::Continue { state: json!(pages), after: Duration::ZERO });
                }
                Ok(Outcome::Complete(
                    json!({ "pages": pages, "attempt": context.attempt(), "key": context.idempotency_key() }),
                ))
            })
        }),
    );
    let task = enqueue(&db, NewTask::new("act", json!({})).max_attempts(1)).await;
    let result = end_of(&db, task).await.result.unwrap();
    assert_eq!(result, json!({ "pages": 5, "attempt": 1, "key": format!("{task}.1.1.4") }));
    assert_eq!(running.stop().await.continued, 4);
}

#[tokio::test]
async fn a_checkpoint_outlives_a_failed_attempt() {
    let db = TestDb::new().await;
    let backoff = json!({ "backoff": { "kind": "fixed", "base": 0.01, "jitter": 0 } });
    client(&db).put_task_type("act", &backoff).await.unwrap();
    let running = start(
        &db,
        act(|context, _| {
            Box::pin(async move {
                let Some(found) = context.checkpoint::<Value>()? else {
                    context.save_checkpoint(&json!({ "row": 41 })).await?;
                    context.progress(0.5).await?;
                    context.log("warn", "half-way").await?;
                    return Err(HandlerError::new("connection reset").class("net"));
                };
                Ok(Outcome::Complete(json!({ "found": found, "attempt": context.attempt() })))
            })
        }),
    );
    let task = enqueue(&db, NewTask::new("act", json!({}))).await;
    assert_eq!(end_of(&db, task).await.result, Some(json!({ "found": { "row": 41 }, "attempt": 2 })));
    assert_eq!(first_error(&db, task).await, json!({ "class": "net", "message": "connection reset" }));
    let logged: String =
        scalar(db.pool(), "select level || ' ' || message from divvy.split_log where split_id = $1", task)
            .await;
    assert_eq!(logged, "warn half-way");
    running.stop().await;
}

#[tokio::test]
async fn a_payload_that_does_not_fit_fails_its_own_task_and_says_where() {
    let db = TestDb::new().await;
    let running = start(&db, Letters);
    let odd = enqueue(&db, NewTask::new("letters", json!({ "not": "text" })).max_attempts(1)).await;
    let good = enqueue(&db, NewTask::new("letters", "good")).await;
    assert_eq!(end_of(&db, good).await.status, TaskStatus::Succeeded);
    let error = end_of(&db, odd).await.error.unwrap();
    assert_eq!(error["class"], "payload");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&format!("(task {odd}) does not fit the handler of \"letters\"")), "{message}");
    running.stop().await;
}

#[tokio::test]
async fn a_result_that_cannot_be_stored_fails_its_own_split_alone() {
    let db = TestDb::new().await;
    let running = start(
        &db,
        act(|_, share| {
            Box::pin(async move {
                let text = match share["index"].as_u64() {
                    Some(3) => "x".repeat(1_100_000),
                    Some(5) => "nul \0 inside".to_owned(),
                    _ => "fine".to_owned(),
                };
                Ok(Outcome::Complete(json!(text)))
            })
        }),
    );
    let task =
        enqueue(&db, NewTask::new("act", json!({})).split_count(20).max_attempts(1).max_failed(2)).await;
    let end = end_of(&db, task).await;
    assert_eq!(end.status, TaskStatus::Partial, "{:?}", end.error);
    let failed: Vec<(i32, String)> = sqlx::query_as(
        "select split_no, error ->> 'message' from divvy.share where share_of = $1 and state = 'failed' order by split_no",
    )
    .bind(task)
    .fetch_all(db.pool())
    .await
    .unwrap();
    assert_eq!(failed.iter().map(|(no, _)| *no).collect::<Vec<_>>(), [4, 6]);
    assert!(failed[0].1.contains("result is 1100002, the limit is 1048576"), "{failed:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_failure_whose_text_holds_nul_is_recorded() {
    let db = TestDb::new().await;
    let running = start(&db, act(|_, _| Box::pin(async { Err(HandlerError::new("bad byte \0 at 7")) })));
    let task = enqueue(&db, NewTask::new("act", json!({})).max_attempts(1)).await;
    assert_eq!(end_of(&db, task).await.error.unwrap()["message"], "bad byte ? at 7");
    running.stop().await;
}

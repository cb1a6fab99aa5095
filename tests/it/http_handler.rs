//! URLs as handlers, with real receivers.

mod bad;
mod breaker;
mod callbacks;
mod declare;
mod guard;
mod paper;
mod receiver;
mod secrets;
mod signature;
mod status;
mod stop;
mod tls;

use crate::support::db::TestDb;
use crate::support::race::until;
use divvy::worker::{Declared, PushAccess, Summary};
use receiver::Receiver;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Types with a URL are served here; what they push goes to a receiver on this machine.
struct Pushed {
    db: TestDb,
    receiver: Receiver,
    stop: CancellationToken,
    run: Option<JoinHandle<Summary>>,
}

/// What a host in a test may reach.
fn access() -> PushAccess {
    PushAccess { allowed: vec!["127.0.0.1".parse().unwrap()], public_url: None }
}

/// A host on a database.
fn host(db: &TestDb, stop: &CancellationToken) -> JoinHandle<Summary> {
    let host = Declared::new(db.pool().clone(), db.options().clone()).push(&access(), 4).unwrap();
    tokio::spawn(host.run(stop.clone()))
}

/// Declares type `job`: retried at once, twice in all, pushed to `url`.
async fn put(pool: &PgPool, url: &str, http: Value, options: Value) {
    let mut handler = json!({"url": url});
    handler.as_object_mut().unwrap().extend(http.as_object().unwrap().clone());
    let mut all =
        json!({"handler": {"http": handler}, "backoff": {"kind": "fixed", "base": 0}, "max_attempts": 2});
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    sqlx::query("select divvy.put_task_type('job', $1)").bind(all).execute(pool).await.unwrap();
}

async fn enqueue(pool: &PgPool, payload: Value, options: Value) -> i64 {
    sqlx::query_scalar("select task_id from divvy.enqueue('job', $1, $2)")
        .bind(payload)
        .bind(options)
        .fetch_one(pool)
        .await
        .unwrap()
}

/// Waits until the task has ended: status, result, error.
async fn ended(pool: &PgPool, task: i64) -> (String, Value, Value) {
    until(&format!("task {task} ends"), async || {
        sqlx::query_scalar("select finished_at is not null from divvy.task_result($1)")
            .bind(task)
            .fetch_one(pool)
            .await
            .unwrap()
    })
    .await;
    sqlx::query_as(
        "select status, coalesce(result, 'null'), coalesce(error, 'null') from divvy.task_result($1)",
    )
    .bind(task)
    .fetch_one(pool)
    .await
    .unwrap()
}

impl Pushed {
    /// Without a breaker, so that a test of failures sees all of them.
    async fn to(receiver: Receiver, options: Value) -> Self {
        Self::with(receiver, json!({"breaker": false}), options).await
    }

    async fn with(receiver: Receiver, http: Value, options: Value) -> Self {
        let db = TestDb::new().await;
        put(db.pool(), &receiver.url("/hook"), http, options).await;
        let stop = CancellationToken::new();
        let run = Some(host(&db, &stop));
        Self { db, receiver, stop, run }
    }

    fn pool(&self) -> &PgPool {
        self.db.pool()
    }

    /// Runs one task to its end.
    async fn run(&self, payload: Value) -> (String, Value, Value) {
        ended(self.pool(), enqueue(self.pool(), payload, json!({})).await).await
    }

    async fn stop(&mut self) -> Summary {
        self.stop.cancel();
        self.run.take().unwrap().await.unwrap()
    }
}

impl Drop for Pushed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn one_url_plans_executes_and_reduces() {
    let receiver = Receiver::new(|got| {
        Box::pin(async move {
            let answer = match got.json["phase"].as_str().unwrap() {
                "plan" => json!({"splits": [{"n": 1}, {"n": 2}, {"n": 3}]}),
                "execute" => json!({"result": got.json["split_payload"]}),
                _ => json!({"result": got.json}),
            };
            (200, vec![], answer.to_string())
        })
    })
    .await;
    let mut pushed = Pushed::to(receiver, json!({"plan": true, "reduce": true})).await;
    let (status, told, _) = pushed.run(json!({"who": "Ada"})).await;
    assert_eq!(status, "succeeded");
    let inputs: Vec<Value> = (1..=3)
        .map(|n| json!({"split_no": n, "status": "succeeded", "result": {"n": n}, "error": null}))
        .collect();
    let task = &told["task_id"];
    // The same object as a command gets on stdin.
    let wanted = json!({
        "task_id": task, "split_id": task, "task_type": "job", "phase": "reduce", "split_no": 0, "split_count": 3,
        "attempt": 1, "max_attempts": 2, "epoch": 1, "token": told["token"], "scheduled_for": null,
        "idempotency_key": format!("{}.reduce.1.0", task.as_str().unwrap()), "payload": {"who": "Ada"},
        "split_payload": null, "checkpoint": null, "headers": null, "inputs": inputs,
    });
    assert_eq!(told, wanted);
    assert_eq!(pushed.stop().await.succeeded, 5);
}

#[tokio::test]
async fn a_trace_reaches_plan_splits_and_reduce_and_other_headers_go_along() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let receiver = Receiver::new(|got| {
        Box::pin(async move {
            let plan = got.json["phase"] == "plan";
            (200, vec![], if plan { r#"{"splits": [1, 2]}"#.to_owned() } else { String::new() })
        })
    })
    .await;
    let http = json!({"headers": {"x-shop": "nine"}});
    let pushed = Pushed::with(receiver, http, json!({"plan": true, "reduce": true})).await;
    let headers = json!({"traceparent": PARENT, "tracestate": "a=1"});
    let task = enqueue(pushed.pool(), json!({}), json!({"headers": headers})).await;
    assert_eq!(ended(pushed.pool(), task).await.0, "succeeded");
    let got = pushed.receiver.got();
    assert_eq!(got.len(), 4);
    for one in &got {
        assert_eq!(one.header("traceparent"), PARENT);
        assert_eq!(one.header("tracestate"), "a=1");
        assert_eq!(one.header("x-shop"), "nine");
        assert_eq!(one.header("content-type"), "application/json");
        assert!(one.header("user-agent").starts_with("divvy/"));
    }
    let task =
        enqueue(pushed.pool(), json!({}), json!({"headers": {"traceparent": "none"}, "splits": []})).await;
    ended(pushed.pool(), task).await;
    assert!(pushed.receiver.got().last().unwrap().headers.get("traceparent").is_none());
}

#[tokio::test]
async fn a_changed_url_is_followed_and_an_attempt_in_between_is_not_lost() {
    let first = Receiver::always(200, r#"{"result": "first"}"#).await;
    let second = Receiver::always(200, r#"{"result": "second"}"#).await;
    let pushed = Pushed::to(first, json!({})).await;
    assert_eq!(pushed.run(json!({})).await.1, "first");
    put(pushed.pool(), &second.url("/other?x=1"), json!({}), json!({})).await;
    let mut said = Value::Null;
    until("the change is seen", async || {
        said = pushed.run(json!({})).await.1;
        said == "second"
    })
    .await;
    assert_eq!(second.got()[0].path, "/other?x=1");
}

//! 202: the outcome comes later, once, from whoever has the callback's path.

use super::receiver::Receiver;
use super::{Pushed, ended, enqueue};
use crate::http::client::{self, Running, running};
use crate::support::db::TestDb;
use crate::support::race::until;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A receiver that accepts all, and the service that is called back.
async fn accepting(http: Value, options: Value) -> (Pushed, Running) {
    let receiver = Receiver::always(202, "").await;
    let pushed = Pushed::with(receiver, http, options).await;
    // Whoever calls back has no token.
    let service = client::guarded(&pushed.db).await;
    (pushed, service)
}

impl Pushed {
    /// The path that the n-th request was told.
    fn path(&self, n: usize) -> String {
        self.receiver.got()[n].header("divvy-callback").to_owned()
    }

    async fn waits(&self, count: i64) {
        until("the splits wait for their callbacks", async || {
            let waiting: i64 =
                sqlx::query_scalar("select count(*) from divvy.lease where called_as is not null")
                    .fetch_one(self.pool())
                    .await
                    .unwrap();
            waiting == count
        })
        .await;
    }

    /// Makes a task that waits, with its callback's path.
    async fn accepted(&self) -> (i64, String) {
        let before = self.receiver.count();
        let task = enqueue(self.pool(), json!({}), json!({})).await;
        self.waits(1).await;
        (task, self.path(before))
    }
}

#[tokio::test]
async fn a_callback_has_the_words_of_every_outcome() {
    let (pushed, service) = accepting(json!({"breaker": false}), json!({})).await;
    let (task, path) = pushed.accepted().await;
    assert!(path.starts_with("/api/v1/callbacks/") && path.len() == 18 + 64, "{path}");
    assert_eq!(
        service.post(&path, json!({"result": {"id": 9}})).await.is(200),
        json!({"status": "succeeded"})
    );
    assert_eq!(ended(pushed.pool(), task).await.1, json!({"id": 9}));

    let (task, path) = pushed.accepted().await;
    assert_eq!(
        service.post(&path, json!({"stop": {"message": "no"}})).await.is(200),
        json!({"status": "failed"})
    );
    assert_eq!(ended(pushed.pool(), task).await.2, json!({"message": "no"}));

    let (task, path) = pushed.accepted().await;
    let count = pushed.receiver.count();
    let snooze = json!({"snooze": {"delay": 0, "checkpoint": {"seen": 7}}});
    assert_eq!(service.post(&path, snooze).await.is(200), json!({"status": "ready"}));
    until("it comes again", async || pushed.receiver.count() > count).await;
    pushed.waits(1).await;
    let again = pushed.receiver.got()[count].clone();
    assert_eq!(
        (again.json["attempt"].clone(), again.json["checkpoint"].clone()),
        (json!(1), json!({"seen": 7}))
    );
    assert_eq!(again.header("webhook-id"), format!("{task}.1.1.1"));
    let failed = json!({"fail": {"message": "busy", "class": "io", "retry_in": 0}});
    assert_eq!(service.post(&pushed.path(count), failed).await.is(200), json!({"status": "ready"}));
    until("it is tried again", async || pushed.receiver.count() > count + 1).await;
    pushed.waits(1).await;
    assert_eq!(pushed.receiver.got()[count + 1].json["attempt"], 2);
    assert_eq!(
        service.post(&pushed.path(count + 1), json!({})).await.is(200),
        json!({"status": "succeeded"})
    );
    assert_eq!(ended(pushed.pool(), task).await.0, "succeeded");
}

#[tokio::test]
async fn plan_splits_and_reduce_of_a_large_task_may_all_be_called_back() {
    let (pushed, service) =
        accepting(json!({}), json!({"plan": true, "reduce": true, "max_running": 60})).await;
    let task = enqueue(pushed.pool(), json!({}), json!({})).await;
    pushed.waits(1).await;
    let splits: Vec<Value> = (1..=40).map(|n| json!({ "n": n })).collect();
    service.post(&pushed.path(0), json!({ "splits": splits })).await.is(200);
    // Only four are under way at once, but as many wait as there are.
    pushed.waits(40).await;
    for n in 1..=40 {
        let got = pushed.receiver.got()[n].clone();
        let result = json!({"result": got.json["split_payload"]["n"]});
        service.post(got.header("divvy-callback"), result).await.is(200);
    }
    until("the reduce waits", async || pushed.receiver.count() == 42).await;
    pushed.waits(1).await;
    let reduce = pushed.receiver.got()[41].clone();
    let sum: i64 =
        reduce.json["inputs"].as_array().unwrap().iter().map(|one| one["result"].as_i64().unwrap()).sum();
    service.post(&pushed.path(41), json!({ "result": sum })).await.is(200);
    assert_eq!(ended(pushed.pool(), task).await, ("succeeded".into(), json!(820), Value::Null));
}

#[tokio::test]
async fn a_callback_counts_once_and_only_as_it_was_made() {
    let (pushed, service) = accepting(json!({}), json!({})).await;
    let (task, path) = pushed.accepted().await;
    for wrong in ["x", &"A".repeat(64), &path[18..81], &format!("{}A", &path[18..])] {
        let detail =
            service.post(&format!("/api/v1/callbacks/{wrong}"), json!({})).await.refuses(404, "DV011");
        assert_eq!(detail, format!("there is no callback {wrong}"));
    }
    // What a stranger sends is not looked at.
    service.ask("POST", "/api/v1/callbacks/x", &[], "{").await.refuses(404, "DV011");
    let mut other = path.clone();
    let last = other.pop().unwrap();
    other.push(if last == 'A' { 'Q' } else { 'A' });
    service.post(&other, json!({})).await.refuses(404, "DV011");
    service.post(&path, json!({"result": 1, "stop": {}})).await.refuses(422, "DV010");
    service.post(&path, json!({"resullt": 1})).await.refuses(422, "DV010");
    service.post(&path, json!({"snooze": {"delay": -1}})).await.refuses(422, "DV010");
    service
        .ask("POST", &path, &["Content-Type: application/json".into()], "{")
        .await
        .refuses(400, "malformed");
    service.ask("POST", &path, &[], "{}").await.refuses(415, "media_type");
    service.ask("GET", &path, &[], "").await.refuses(405, "method");
    assert_eq!(ended_or_not(&pushed, task).await, "running");
    service.post(&path, json!({"result": 1})).await.is(200);
    let detail = service.post(&path, json!({"result": 2})).await.refuses(409, "DV001");
    assert!(detail.contains("it is succeeded"), "{detail}");
    assert_eq!(ended(pushed.pool(), task).await.1, 1);
}

async fn ended_or_not(pushed: &Pushed, task: i64) -> String {
    sqlx::query_scalar("select status from divvy.task_result($1)")
        .bind(task)
        .fetch_one(pushed.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_callback_that_is_faster_than_its_202_counts() {
    let answered = Arc::new(Notify::new());
    let wait = answered.clone();
    let receiver = Receiver::new(move |_| {
        let wait = wait.clone();
        Box::pin(async move {
            wait.notified().await;
            (202, vec![], String::new())
        })
    })
    .await;
    let mut pushed = Pushed::to(receiver, json!({})).await;
    let service = running(&pushed.db).await;
    let task = enqueue(pushed.pool(), json!({}), json!({})).await;
    until("it is under way", async || pushed.receiver.count() == 1).await;
    service.post(&pushed.path(0), json!({"result": "early"})).await.is(200);
    answered.notify_one();
    assert_eq!(ended(pushed.pool(), task).await.1, "early");
    let done = pushed.stop().await;
    assert_eq!((done.failed, pushed.receiver.count()), (0, 1), "{done}");
}

#[tokio::test]
async fn a_waiting_split_takes_no_slot_and_outlives_its_worker_and_its_lease() {
    let (mut pushed, service) = accepting(json!({}), json!({"lease": "1 s"})).await;
    let (task, path) = pushed.accepted().await;
    // The worker goes; nobody renews anything, and the clock passes many leases.
    let done = pushed.stop().await;
    assert_eq!((done.continued, done.failed, done.released), (1, 0, 0), "{done}");
    let clock = crate::support::clock::Clock::stop(&pushed.db).await;
    for _ in 0..3 {
        clock.advance(Duration::from_secs(20)).await;
        sqlx::query("select * from divvy.tick()").execute(pushed.pool()).await.unwrap();
    }
    assert_eq!(ended_or_not(&pushed, task).await, "running");
    service.post(&path, json!({"result": "late, and in time"})).await.is(200);
    assert_eq!(ended(pushed.pool(), task).await.1, "late, and in time");
}

#[tokio::test]
async fn a_callback_that_never_comes_is_a_timeout_and_one_that_comes_too_late_is_refused() {
    let options = json!({"timeout": "10 min", "backoff": {"kind": "fixed", "base": "1 day"}});
    let (pushed, service) = accepting(json!({"callback_timeout": "2 min"}), options).await;
    let (task, path) = pushed.accepted().await;
    let clock = crate::support::clock::Clock::stop(&pushed.db).await;
    for _ in 0..30 {
        clock.advance(Duration::from_secs(5)).await;
        sqlx::query("select * from divvy.tick()").execute(pushed.pool()).await.unwrap();
    }
    let attempts: Vec<(String, Value)> =
        sqlx::query_as("select outcome, error from divvy.attempt where task_id = $1")
            .bind(task)
            .fetch_all(pushed.pool())
            .await
            .unwrap();
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    assert_eq!((attempts[0].0.as_str(), &attempts[0].1["class"]), ("timeout", &json!("callback")));
    assert!(attempts[0].1["message"].as_str().unwrap().starts_with("no callback came until "));
    service.post(&path, json!({"result": 1})).await.refuses(409, "DV001");
    let status: String = sqlx::query_scalar("select status::text from divvy.split where task_id = $1")
        .bind(task)
        .fetch_one(pushed.pool())
        .await
        .unwrap();
    assert_eq!(status, "delayed");
}

#[tokio::test]
async fn a_task_that_is_cancelled_while_it_waits_ends_cancelled() {
    let (pushed, service) = accepting(json!({}), json!({})).await;
    let (task, path) = pushed.accepted().await;
    let (counted, in_time) = pushed_and_cancelled(&pushed).await;
    // Within the grace it may still say how it ended: fail and snooze are a cancel.
    assert_eq!(service.post(&in_time, json!({"snooze": {}})).await.is(200), json!({"status": "cancelled"}));
    assert_eq!(ended(pushed.pool(), counted).await.0, "cancelled");
    sqlx::query("select divvy.cancel($1, 'a test')").bind(task).execute(pushed.pool()).await.unwrap();
    let clock = crate::support::clock::Clock::stop(&pushed.db).await;
    for _ in 0..8 {
        clock.advance(Duration::from_secs(5)).await;
        sqlx::query("select * from divvy.tick()").execute(pushed.pool()).await.unwrap();
    }
    assert_eq!(ended(pushed.pool(), task).await.0, "cancelled");
    service.post(&path, json!({"result": 1})).await.refuses(409, "DV002");
}

async fn pushed_and_cancelled(pushed: &Pushed) -> (i64, String) {
    let before = pushed.receiver.count();
    let task = enqueue(pushed.pool(), json!({}), json!({})).await;
    pushed.waits(2).await;
    sqlx::query("select divvy.cancel($1, 'a test')").bind(task).execute(pushed.pool()).await.unwrap();
    (task, pushed.path(before))
}

#[tokio::test]
async fn paths_stay_good_while_their_key_is_rotated_and_no_longer() {
    let (pushed, service) = accepting(json!({}), json!({})).await;
    let (task, path) = pushed.accepted().await;
    sqlx::query("select divvy.rotate_secret('callback')").execute(pushed.pool()).await.unwrap();
    service.post(&path, json!({"result": 1})).await.is(200);
    assert_eq!(ended(pushed.pool(), task).await.1, 1);
    let (_, path) = pushed.accepted().await;
    sqlx::query(
        "select divvy.rotate_secret('callback', null, '0'), divvy.rotate_secret('callback', null, '0')",
    )
    .execute(pushed.pool())
    .await
    .unwrap();
    service.post(&path, json!({"result": 1})).await.refuses(404, "DV011");
}

#[tokio::test]
async fn a_waiting_split_counts_for_the_limits_of_its_type() {
    let db = TestDb::new().await;
    let receiver = Receiver::always(202, "").await;
    let options = json!({"max_running": 2});
    super::put(db.pool(), &receiver.url("/"), json!({}), options).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let run = Some(super::host(&db, &stop));
    let pushed = Pushed { db, receiver, stop, run };
    let service = running(&pushed.db).await;
    for _ in 0..3 {
        enqueue(pushed.pool(), json!({}), json!({})).await;
    }
    pushed.waits(2).await;
    let limited: String =
        sqlx::query_scalar("select reason from divvy.split_overview where status = 'delayed'")
            .fetch_one(pushed.pool())
            .await
            .unwrap();
    assert_eq!((limited.as_str(), pushed.receiver.count()), ("limit", 2));
    service.post(&pushed.path(0), json!({})).await.is(200);
    until("the third one comes", async || pushed.receiver.count() == 3).await;
}

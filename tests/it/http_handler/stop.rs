//! Workers that stop, or are killed, while a request is under way.

use super::receiver::Receiver;
use super::{Pushed, access, ended, enqueue, put};
use crate::support::db::TestDb;
use crate::support::program::divvy_on;
use crate::support::race::until;
use divvy::worker::Declared;
use serde_json::json;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Answers when told to.
async fn held() -> (Receiver, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let wait = go.clone();
    let receiver = Receiver::new(move |_| {
        let wait = wait.clone();
        Box::pin(async move {
            wait.notified().await;
            (200, vec![], r#"{"result": "in time"}"#.to_owned())
        })
    })
    .await;
    (receiver, go)
}

#[tokio::test]
async fn a_stop_waits_for_requests_under_way() {
    let (receiver, go) = held().await;
    let mut pushed = Pushed::to(receiver, json!({})).await;
    let task = enqueue(pushed.pool(), json!({}), json!({})).await;
    until("it is under way", async || pushed.receiver.count() == 1).await;
    pushed.stop.cancel();
    let early = tokio::time::timeout(Duration::from_millis(200), pushed.run.as_mut().unwrap()).await;
    assert!(early.is_err(), "it ended with a request under way");
    go.notify_one();
    assert_eq!(pushed.stop().await.succeeded, 1);
    assert_eq!(ended(pushed.pool(), task).await.1, "in time");
}

#[tokio::test]
async fn what_is_under_way_when_the_grace_is_over_is_given_back() {
    let (receiver, _go) = held().await;
    let db = TestDb::new().await;
    put(db.pool(), &receiver.url("/"), json!({}), json!({})).await;
    let stop = CancellationToken::new();
    let host = Declared::new(db.pool().clone(), db.options().clone()).grace(Duration::from_millis(300));
    let run = tokio::spawn(host.push(&access(), 2).unwrap().run(stop.clone()));
    let task = enqueue(db.pool(), json!({}), json!({})).await;
    until("it is under way", async || receiver.count() == 1).await;
    stop.cancel();
    assert_eq!(run.await.unwrap().released, 1);
    let split: (String, i32) =
        sqlx::query_as("select status::text, attempt from divvy.split where task_id = $1")
            .bind(task)
            .fetch_one(db.pool())
            .await
            .unwrap();
    assert_eq!(split, ("ready".to_owned(), 0));
}

#[tokio::test]
async fn a_cancel_drops_the_request() {
    let dropped = Arc::new(AtomicUsize::new(0));
    struct Gone(Arc<AtomicUsize>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let count = dropped.clone();
    let receiver = Receiver::new(move |_| {
        let gone = Gone(count.clone());
        Box::pin(async move {
            let _gone = gone;
            std::future::pending().await
        })
    })
    .await;
    let pushed = Pushed::to(receiver, json!({"lease": "1 s"})).await;
    let task = enqueue(pushed.pool(), json!({}), json!({})).await;
    until("it is under way", async || pushed.receiver.count() == 1).await;
    sqlx::query("select divvy.cancel($1, 'a test')").bind(task).execute(pushed.pool()).await.unwrap();
    assert_eq!(ended(pushed.pool(), task).await.0, "cancelled");
    until("its connection is closed", async || dropped.load(Ordering::SeqCst) == 1).await;
}

fn worker(db: &TestDb, url: &str) -> Child {
    let args = ["worker", "--types", "job", "--http", url, "--allow-http", "127.0.0.1", "--slots", "4"];
    divvy_on(db.url(), &args).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_worker_that_is_killed_half_way_loses_nothing() {
    let held = Arc::new(Notify::new());
    let (wait, first) = (held.clone(), Arc::new(AtomicUsize::new(0)));
    let receiver = Receiver::new(move |got| {
        let (wait, n) = (wait.clone(), first.fetch_add(1, Ordering::SeqCst));
        Box::pin(async move {
            if n < 4 {
                wait.notified().await;
            }
            (200, vec![], json!({"result": got.json["split_no"]}).to_string())
        })
    })
    .await;
    let db = TestDb::new().await;
    sqlx::query(r#"select divvy.put_task_type('job', '{"lease": "1 s"}')"#).execute(db.pool()).await.unwrap();
    let mut first = worker(&db, &receiver.url("/"));
    let task = enqueue(db.pool(), json!({}), json!({"split_count": 12})).await;
    until("four are under way", async || receiver.count() == 4).await;
    first.kill().unwrap();
    first.wait().unwrap();
    let mut second = worker(&db, &receiver.url("/"));
    assert_eq!(ended(db.pool(), task).await.0, "succeeded");
    let got = receiver.got();
    let cut: Vec<&str> = got[..4].iter().map(|one| one.header("webhook-id")).collect();
    for id in cut {
        let again: Vec<_> = got.iter().filter(|one| one.header("webhook-id") == id).collect();
        assert_eq!(again.len(), 2, "{id} comes again under the same id");
        let token = |at: usize| again[at].json["token"].as_str().unwrap().parse::<i64>().unwrap();
        assert!(token(1) > token(0));
    }
    assert_eq!(got.len(), 16);
    second.kill().unwrap();
    second.wait().unwrap();
}

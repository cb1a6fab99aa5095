//! Requests go to the public internet, and where the one who starts divvy said.

use super::receiver::Receiver;
use super::{ended, enqueue, put};
use crate::support::db::TestDb;
use crate::support::program::{divvy_on, said};
use divvy::worker::{Declared, PushAccess, PushTo};
use serde_json::json;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_name_that_leads_to_loopback_is_not_dialled() {
    let db = TestDb::new().await;
    let receiver = Receiver::always(200, "").await;
    let url = format!("http://localhost:{}/", receiver.address.port());
    put(db.pool(), &url, json!({"breaker": false}), json!({})).await;
    let stop = CancellationToken::new();
    let host =
        Declared::new(db.pool().clone(), db.options().clone()).push(&PushAccess::default(), 2).unwrap();
    let run = tokio::spawn(host.run(stop.clone()));
    let task = enqueue(db.pool(), json!({}), json!({})).await;
    let (status, _, error) = ended(db.pool(), task).await;
    assert_eq!((status.as_str(), &error["class"]), ("failed", &json!("address")));
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("localhost leads to ") && message.contains("--allow-http"), "{message}");
    assert_eq!(receiver.count(), 0);
    stop.cancel();
    assert_eq!(run.await.unwrap().failed, 2);
}

#[tokio::test]
async fn tasks_of_an_address_that_is_not_allowed_wait_and_lose_no_attempt() {
    let db = TestDb::new().await;
    let receiver = Receiver::always(200, "").await;
    let stop = CancellationToken::new();
    put(db.pool(), "http://[::ffff:169.254.169.254]/latest/meta-data", json!({}), json!({})).await;
    let mut process = divvy_on(db.url(), &["worker", "--push", "--no-lead"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let task = enqueue(db.pool(), json!({}), json!({})).await;
    let stderr = process.stderr.take().unwrap();
    let told = tokio::task::spawn_blocking(move || {
        use std::io::BufRead;
        std::io::BufReader::new(stderr).lines().map(Result::unwrap).find(|line| line.contains("wait: "))
    });
    let told = told.await.unwrap().unwrap();
    assert!(
        told.contains("the tasks of type job wait") && told.contains("not of the public internet"),
        "{told}"
    );
    process.kill().unwrap();
    process.wait().unwrap();
    let untouched: bool =
        sqlx::query_scalar("select status = 'ready' and attempt = 0 from divvy.split where task_id = $1")
            .bind(task)
            .fetch_one(db.pool())
            .await
            .unwrap();
    assert!(untouched);
    // The declaration is mended: another worker serves it.
    put(db.pool(), &receiver.url("/"), json!({}), json!({})).await;
    let run = super::host(&db, &stop);
    assert_eq!(ended(db.pool(), task).await.0, "succeeded");
    stop.cancel();
    run.await.unwrap();
}

#[tokio::test]
async fn what_is_typed_wrongly_is_told_at_once() {
    let db = TestDb::new().await;
    for (args, part) in [
        (vec!["serve", "--allow-http", "localhost"], "--allow-http: \"localhost\" is no network"),
        (vec!["serve", "--public-url", "divvy.example"], "the public URL divvy.example is no URL"),
        (vec!["worker", "--types", "a", "--http", "ftp://x.example/"], "does not begin with http"),
        (
            vec!["worker", "--types", "a", "--http", "http://10.0.0.1/"],
            "10.0.0.1 is not of the public internet",
        ),
        (vec!["worker", "--types", "a", "--http", "http://u:p@x.example/"], "has a user or a password"),
        (vec!["worker", "--http", "http://x.example/"], "--types"),
        (
            vec!["worker", "--types", "a", "--http", "http://x.example/", "--exec", "cat"],
            "cannot be used with",
        ),
        (vec!["worker", "--http-secret", "s"], "--http"),
    ] {
        let said = said(&mut divvy_on(db.url(), &args));
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.err);
        assert!(said.err.contains(part), "{args:?}: {}", said.err);
    }
}

#[tokio::test]
async fn types_are_pushed_to_a_url_that_the_database_does_not_know() {
    let db = TestDb::new().await;
    let receiver = Receiver::new(|got| {
        let plan = got.json["phase"] == "plan";
        Box::pin(async move {
            (200, vec![], if plan { r#"{"splits": [1, 2]}"# } else { r#"{"result": 3}"# }.to_owned())
        })
    })
    .await;
    sqlx::query("select divvy.create_secret('shop')").execute(db.pool()).await.unwrap();
    let to = PushTo {
        task_types: vec!["job".into(), "other".into()],
        url: receiver.url("/all"),
        secret: Some("shop".into()),
        phases: (true, true),
    };
    let stop = CancellationToken::new();
    let host =
        Declared::new(db.pool().clone(), db.options().clone()).push_to(&super::access(), to, 2).unwrap();
    let run = tokio::spawn(host.run(stop.clone()));
    let task = enqueue(db.pool(), json!({}), json!({})).await;
    assert_eq!(ended(db.pool(), task).await.1, 3);
    let got = receiver.got();
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|one| one.header("webhook-signature").starts_with("v1,")));
    stop.cancel();
    assert_eq!(run.await.unwrap().succeeded, 4);
}

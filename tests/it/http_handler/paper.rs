//! The receiver in docs/http-handlers.md is run as it stands there, where there is a Python.

use super::{ended, enqueue, host, put};
use crate::support::db::TestDb;
use serde_json::json;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn the_paper_s_receiver_takes_what_is_signed_and_nothing_else() {
    let paper = include_str!("../../../docs/http-handlers.md");
    let program = paper.split("```text\n").find(|block| block.starts_with("import base64")).unwrap();
    let program = program.split("\n```").next().unwrap();
    assert!(program.lines().count() <= 20, "a receiver is short");
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("no python3 here: the paper's receiver is not run");
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let db = TestDb::new().await;
    let secret: String =
        sqlx::query_scalar("select divvy.create_secret('shop')").fetch_one(db.pool()).await.unwrap();
    let mut python = Command::new("python3")
        .args(["-c", program])
        .envs([("SECRET", secret), ("PORT", port.to_string())])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let url = format!("http://127.0.0.1:{port}/divvy");
    let options = json!({"max_attempts": 200, "backoff": {"kind": "fixed", "base": 0.1}});
    put(db.pool(), &url, json!({"secret": "shop", "breaker": false}), options.clone()).await;
    let stop = CancellationToken::new();
    let run = host(&db, &stop);
    let task = enqueue(db.pool(), json!({"name": "Ada"}), json!({})).await;
    let greeted = ended(db.pool(), task).await;
    // Signed by a key that the receiver does not have.
    sqlx::query("select divvy.rotate_secret('shop', null, '0')").execute(db.pool()).await.unwrap();
    let mut refused = String::new();
    crate::support::race::until("another key is refused", async || {
        let task = enqueue(db.pool(), json!({"name": "Eve"}), json!({})).await;
        refused = ended(db.pool(), task).await.2["message"].as_str().unwrap_or_default().to_owned();
        !refused.is_empty()
    })
    .await;
    stop.cancel();
    run.await.unwrap();
    python.kill().unwrap();
    python.wait().unwrap();
    assert_eq!(greeted.1, "hello, Ada");
    assert!(refused.contains("answered 401 Unauthorized"), "{refused}");
}

//! The HTTP service: its probes here, what it does in the files of the folder.

mod auth;
mod bad;
pub mod client;
mod described;
mod keys;
mod operating;
mod process;
mod schedules;
mod slow;
mod tasks;
mod worker;

use crate::support::db::TestDb;
use crate::support::program::divvy_on;
use crate::support::race::until;
use client::{get, running, serving};
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use tokio::net::TcpStream;

#[tokio::test]
async fn readyz_is_ready_on_a_migrated_database_and_not_while_draining() {
    let db = TestDb::new().await;
    let mut service = running(&db).await;
    assert_eq!(get(service.address, "/healthz").await, (200, json!({"status": "ok"})));
    assert_eq!(get(service.address, "/readyz").await, (200, json!({"status": "ready"})));
    assert_eq!(get(service.address, "/nothing").await.0, 404);
    service.draining.cancel();
    let expected = json!({"status": "not ready", "reason": "it is shutting down"});
    assert_eq!(get(service.address, "/readyz").await, (503, expected));
    assert_eq!(get(service.address, "/healthz").await.0, 200);
    service.stop.cancel();
    service.served.take().unwrap().await.unwrap();
    assert!(TcpStream::connect(service.address).await.is_err());
}

#[tokio::test]
async fn readyz_says_what_is_missing() {
    let db = TestDb::empty().await;
    let service = running(&db).await;
    let (status, body) = get(service.address, "/readyz").await;
    assert_eq!(
        (status, &body["reason"]),
        (503, &json!("the database has no divvy schema: run divvy migrate"))
    );

    let nowhere =
        PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(1).username("u").password("pw");
    let lazy = PgPoolOptions::new().connect_lazy_with(nowhere.clone());
    let service = serving(lazy, &nowhere, false, divvy::http::Patience::default()).await;
    let (status, body) = get(service.address, "/readyz").await;
    assert_eq!(status, 503);
    let reason = body["reason"].as_str().unwrap();
    assert!(reason.contains("127.0.0.1:1") && !reason.contains("pw"), "{reason}");
    assert_eq!(get(service.address, "/healthz").await.0, 200);
}

#[tokio::test]
async fn serve_answers_leads_and_ends_well_when_told_to() {
    let db = TestDb::new().await;
    let mut serve = divvy_on(db.url(), &["serve", "--listen", "127.0.0.1:0"]);
    let mut process = serve.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut told = BufReader::new(process.stderr.take().unwrap()).lines();
    let address = told
        .by_ref()
        .find_map(|line| {
            line.unwrap().split_once("http://").map(|(_, rest)| rest.split(' ').next().unwrap().to_owned())
        })
        .unwrap();
    assert_eq!(get(address.parse().unwrap(), "/readyz").await.0, 200);
    until("serve leads", async || {
        let term: Option<i64> =
            sqlx::query_scalar("select max(term) from divvy.leader").fetch_one(db.pool()).await.unwrap();
        term == Some(1)
    })
    .await;
    let id = rustix::process::Pid::from_raw(process.id().cast_signed()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let status = tokio::task::spawn_blocking(move || {
        let rest: Vec<_> = told.map(Result::unwrap).collect();
        (process.wait().unwrap(), rest)
    });
    let (status, rest) = status.await.unwrap();
    assert!(status.success(), "{status}: {rest:?}");
}

#[test]
fn serve_says_when_the_schema_is_missing_or_the_address_taken() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let db = runtime.block_on(TestDb::empty());
    let said = crate::support::program::said(&mut divvy_on(db.url(), &["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("run `divvy migrate`, or serve with --migrate"), "{}", said.err);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = crate::support::program::said(&mut divvy_on(db.url(), &["serve", "--listen", &address]));
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains(&address) && said.err.contains("--listen"), "{}", said.err);
}

//! A service that is killed: what it has answered is there.

use crate::support::db::TestDb;
use crate::support::program::divvy_on;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

const CLIENTS: usize = 16;
const ANSWERS: usize = 400;

/// Enqueues on one connection until it breaks, and tells each id that was answered.
fn enqueue(address: &str, told: &mpsc::Sender<i64>) -> std::io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address)?);
    loop {
        let body = r#"{"task_type": "mail", "payload": {}}"#;
        let ask = format!(
            "POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(ask.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        told.send(answer["task_id"].as_str().unwrap().parse().unwrap()).ok();
    }
}

#[tokio::test]
async fn every_task_that_was_answered_for_is_there_after_a_kill() {
    let db = TestDb::new().await;
    let mut serve = divvy_on(db.url(), &["serve", "--listen", "127.0.0.1:0", "--no-lead"]);
    let mut process = serve.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
    let address =
        lines.find_map(|line| Some(line.split_once("http://")?.1.split(' ').next()?.to_owned())).unwrap();
    let killed = tokio::task::spawn_blocking(move || {
        let (tell, told) = mpsc::channel();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (address, tell) = (address.clone(), tell.clone());
                std::thread::spawn(move || enqueue(&address, &tell).ok())
            })
            .collect();
        drop(tell);
        let mut answered: Vec<i64> =
            (0..ANSWERS).map(|_| told.recv_timeout(Duration::from_secs(60)).expect("an answer")).collect();
        process.kill().unwrap();
        process.wait().unwrap();
        clients.into_iter().for_each(|client| _ = client.join());
        answered.extend(told.iter());
        answered
    });
    let answered = killed.await.unwrap();
    let there: i64 = sqlx::query_scalar("select count(*) from divvy.task where id = any ($1)")
        .bind(&answered)
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert_eq!(there, answered.len() as i64);
    let all: i64 = sqlx::query_scalar("select count(*) from divvy.task").fetch_one(db.pool()).await.unwrap();
    assert!(all - there <= CLIENTS as i64, "{all} are there, {there} were answered for");
}

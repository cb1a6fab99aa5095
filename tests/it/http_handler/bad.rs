//! Receivers that misbehave cost the attempt, and never the worker.

use super::receiver::Receiver;
use super::{Pushed, ended, enqueue, host, put};
use crate::support::db::TestDb;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a server does with a connection on which a request has begun.
type Behaves = fn(TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn server(behaves: Behaves) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut some = [0; 4096];
                let _ = stream.read(&mut some).await;
                behaves(stream).await;
            });
        }
    });
    url
}

/// How one attempt of a type with so short a time ends.
async fn error_of(behaves: Behaves, options: Value) -> (Value, Duration) {
    let db = TestDb::new().await;
    let mut all = json!({"max_attempts": 1, "timeout": "4 s"});
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    put(db.pool(), &server(behaves).await, json!({"breaker": false}), all).await;
    let stop = CancellationToken::new();
    let run = host(&db, &stop);
    let began = Instant::now();
    let task = enqueue(db.pool(), json!({}), json!({})).await;
    let (status, _, error) = ended(db.pool(), task).await;
    let took = began.elapsed();
    assert_eq!(status, "failed", "{error}");
    stop.cancel();
    assert_eq!(run.await.unwrap().failed, 1);
    (error, took)
}

#[tokio::test]
async fn garbage_is_shown() {
    let pushed = Pushed::to(Receiver::always(200, "done, boss!").await, json!({})).await;
    let (_, _, error) = pushed.run(json!({})).await;
    assert_eq!(error["class"], "output");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("is no outcome: expected value at line 1 column 1: done, boss!"), "{message}");
    let (error, _) = error_of(
        |mut stream| Box::pin(async move { _ = stream.write_all(b"NICK divvy\r\n\r\n").await }),
        json!({}),
    )
    .await;
    assert_eq!(error["class"], "connection", "{error}");
}

#[tokio::test]
async fn a_server_that_closes_at_once_or_half_way_is_no_answer() {
    let (error, _) = error_of(|stream| Box::pin(async move { drop(stream) }), json!({})).await;
    assert_eq!(error["class"], "connection");
    assert!(error["message"].as_str().unwrap().starts_with("no answer of http://127.0.0.1:"), "{error}");
    let (error, _) = error_of(
        |mut stream| {
            Box::pin(async move {
                _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"result\":").await
            })
        },
        json!({}),
    )
    .await;
    assert_eq!(error["class"], "connection", "{error}");
}

#[tokio::test]
async fn a_gigabyte_is_not_read() {
    let (error, _) = error_of(
        |mut stream| {
            Box::pin(async move {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n\"", 1 << 30);
                let _ = stream.write_all(head.as_bytes()).await;
                let mut sent = 0u64;
                let many = vec![b'x'; 1 << 16];
                while stream.write_all(&many).await.is_ok() {
                    sent += 1 << 16;
                    assert!(sent < 64 << 20, "it reads on");
                }
            })
        },
        json!({}),
    )
    .await;
    assert_eq!(error["class"], "output");
    assert!(error["message"].as_str().unwrap().contains("has more than 1114112 bytes"), "{error}");
}

#[tokio::test]
async fn an_answer_that_never_comes_or_never_ends_is_a_timeout() {
    let silent: Behaves = |stream| {
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
    };
    let drops: Behaves = |mut stream| {
        Box::pin(async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while stream.write_all(b"1\r\n \r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    for behaves in [silent, drops] {
        let (error, took) = error_of(behaves, json!({})).await;
        assert_eq!(error["class"], "timeout", "{error}");
        assert!(error["message"].as_str().unwrap().contains("no answer of http://127.0.0.1:"), "{error}");
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}

#[tokio::test]
async fn a_request_has_a_time_of_its_own() {
    let receiver = Receiver::new(|_| Box::pin(std::future::pending())).await;
    let pushed =
        Pushed::with(receiver, json!({"request_timeout": 0.2, "breaker": false}), json!({"max_attempts": 1}))
            .await;
    let (_, _, error) = pushed.run(json!({})).await;
    assert_eq!(error["class"], "timeout");
    assert!(error["message"].as_str().unwrap().ends_with("within 200ms"), "{error}");
}

#[tokio::test]
async fn a_result_that_is_too_large_is_refused_by_its_limit() {
    let large = Box::leak(format!("{{\"result\": \"{}\"}}", "x".repeat(1_048_577)).into_boxed_str());
    let pushed = Pushed::to(Receiver::always(200, large).await, json!({"max_attempts": 1})).await;
    let (status, _, error) = pushed.run(json!({})).await;
    assert_eq!(status, "failed");
    assert!(error["message"].as_str().unwrap().contains("the limit is 1048576"), "{error}");
}

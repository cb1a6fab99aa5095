//! A service of the test's own, and the plainest of clients.

use crate::support::db::TestDb;
use divvy::http::{self, Patience, Service, hash, new_token};
use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A service.
pub struct Running {
    pub address: SocketAddr,
    pub draining: CancellationToken,
    pub stop: CancellationToken,
    pub served: Option<tokio::task::JoinHandle<()>>,
    /// Sent with every request.
    pub token: Option<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.draining.cancel();
        self.stop.cancel();
    }
}

pub async fn serving(
    pool: PgPool,
    options: &PgConnectOptions,
    token_required: bool,
    patience: Patience,
) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    let service = Service::new(pool, options.clone(), draining.clone(), token_required, patience);
    let served = Some(tokio::spawn(http::serve(listener, service, stop.clone())));
    Running { address, draining, stop, served, token: None }
}

/// A service that asks for no token.
pub async fn running(db: &TestDb) -> Running {
    serving(db.pool().clone(), db.options(), false, Patience::default()).await
}

/// A service that asks for tokens.
pub async fn guarded(db: &TestDb) -> Running {
    serving(db.pool().clone(), db.options(), true, Patience::default()).await
}

/// A new token with these scopes.
pub async fn token(db: &TestDb, name: &str, scopes: &[&str]) -> String {
    let token = new_token();
    sqlx::query("select divvy.create_token($1, $2, $3)")
        .bind(name)
        .bind(hash(&token))
        .bind(scopes)
        .execute(db.pool())
        .await
        .unwrap();
    token
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Answer {
    /// The body of an answer with this status.
    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// A problem with this status and code.
    #[track_caller]
    pub fn refuses(self, status: u16, code: &str) -> String {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        assert_eq!(self.body["status"], status);
        self.body["detail"].as_str().unwrap_or_default().to_owned()
    }
}

impl Running {
    /// One request with the head lines given.
    pub async fn ask(&self, method: &str, path: &str, head: &[String], body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let authorization = self.token.iter().map(|token| format!("Authorization: Bearer {token}"));
        let lines: Vec<String> = head.iter().cloned().chain(authorization).collect();
        let lines = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{lines}\r\n{body}",
            body.len()
        );
        // A service that refuses early reads no further, and the rest can't be sent.
        stream.write_all(request.as_bytes()).await.ok();
        read(&mut stream).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    pub async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        self.ask(method, path, &["Content-Type: application/json".to_owned()], &body.to_string()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, body).await
    }

    pub async fn keyed(&self, path: &str, key: &str, body: Value) -> Answer {
        let head = ["Content-Type: application/json".to_owned(), format!("Idempotency-Key: {key}")];
        self.ask("POST", path, &head, &body.to_string()).await
    }
}

/// The answer that a connection brings, which is closed then.
pub async fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.ok();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer, but {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    Answer { status, head: head.to_lowercase(), body }
}

/// Status and body of one request.
pub async fn get(address: SocketAddr, path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read(&mut stream).await;
    (answer.status, answer.body)
}

//! TLS: certificates are checked.

use super::{ended, enqueue};
use crate::support::db::TestDb;
use crate::support::program::divvy_on;
use crate::support::race::until;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// For localhost, until 2126; good for these tests and for nothing else.
const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/http_handler/localhost.pem");

#[tokio::test]
async fn a_certificate_that_is_trusted_is_talked_to_and_another_is_not() {
    let key = PrivateKeyDer::from_pem_file(CERTIFICATE).unwrap();
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut some = [0; 8192];
                let _ = stream.read(&mut some).await;
                let body = r#"{"result": "by TLS"}"#;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    let db = TestDb::new().await;
    let args = ["worker", "--types", "job", "--http", &url, "--allow-http", "127.0.0.1,::1", "--no-lead"];
    let mut stranger = divvy_on(db.url(), &args).stderr(Stdio::null()).spawn().unwrap();
    let task = enqueue(db.pool(), json!({}), json!({"max_attempts": 9})).await;
    let mut error = String::new();
    until("it is refused", async || {
        let query = "select error ->> 'message' from divvy.attempt where task_id = $1 limit 1";
        error =
            sqlx::query_scalar(query).bind(task).fetch_optional(db.pool()).await.unwrap().unwrap_or_default();
        !error.is_empty()
    })
    .await;
    assert!(error.contains("certificate"), "{error}");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let mut friend =
        divvy_on(db.url(), &args).env("SSL_CERT_FILE", CERTIFICATE).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(ended(db.pool(), task).await.1, "by TLS");
    friend.kill().unwrap();
    friend.wait().unwrap();
}

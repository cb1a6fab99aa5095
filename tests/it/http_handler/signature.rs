//! What is pushed is signed as Standard Webhooks says: checked here by the letter, not by divvy's own code.

use super::receiver::Receiver;
use super::{Pushed, ended, enqueue, put};
use crate::support::race::until;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgPool;

/// HMAC by its definition (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64);
    let pad = |with: u8| -> Vec<u8> {
        let mut pad = vec![with; 64];
        key.iter().enumerate().for_each(|(at, byte)| pad[at] ^= byte);
        pad
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

fn expected(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let message = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    format!("v1,{}", STANDARD.encode(hmac(&key, &message)))
}

#[test]
fn the_check_itself_knows_the_example_of_the_specification() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let body = br#"{"test": 2432232314}"#;
    let signature = expected(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body);
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

async fn sql(pool: &PgPool, query: &'static str) -> String {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_request_is_signed_and_a_rotated_secret_signs_beside_the_one_before() {
    let pushed = Pushed::to(Receiver::always(200, "").await, json!({})).await;
    let first = sql(pushed.pool(), "select divvy.create_secret('shop')").await;
    let url = pushed.receiver.url("/hook");
    put(pushed.pool(), &url, json!({"secret": "shop"}), json!({})).await;
    let last = async || {
        let task = enqueue(pushed.pool(), json!({"to": "Ada ä"}), json!({})).await;
        assert_eq!(ended(pushed.pool(), task).await.0, "succeeded");
        (task, pushed.receiver.got().pop().unwrap())
    };
    until("it is signed", async || last().await.1.headers.contains_key("webhook-signature")).await;
    let (task, got) = last().await;
    let (id, timestamp) = (got.header("webhook-id"), got.header("webhook-timestamp"));
    assert_eq!(id, format!("{task}.1.1.0"));
    assert_eq!(got.header("webhook-signature"), expected(&first, id, timestamp, &got.body));
    let now: i64 = sqlx::query_scalar("select extract(epoch from divvy.clock())::bigint")
        .fetch_one(pushed.pool())
        .await
        .unwrap();
    assert!((timestamp.parse::<i64>().unwrap() - now).abs() < 10, "{timestamp} and {now}");

    let second = sql(pushed.pool(), "select divvy.rotate_secret('shop', null, '1 hour')").await;
    until("both sign", async || last().await.1.header("webhook-signature").contains(' ')).await;
    let (_, got) = last().await;
    let (id, timestamp) = (got.header("webhook-id"), got.header("webhook-timestamp"));
    let both = [&second, &first].map(|secret| expected(secret, id, timestamp, &got.body)).join(" ");
    assert_eq!(got.header("webhook-signature"), both);

    let third = sql(pushed.pool(), "select divvy.rotate_secret('shop', null, '0')").await;
    until("one signs alone", async || !last().await.1.header("webhook-signature").contains(' ')).await;
    let (_, got) = last().await;
    let (id, timestamp) = (got.header("webhook-id"), got.header("webhook-timestamp"));
    assert_eq!(got.header("webhook-signature"), expected(&third, id, timestamp, &got.body));
}

#[tokio::test]
async fn a_header_may_be_a_secret_which_the_type_does_not_show() {
    let pushed = Pushed::to(Receiver::always(200, "").await, json!({})).await;
    sql(pushed.pool(), "select divvy.create_secret('crm', 'Bearer 123456')").await;
    let http = json!({"headers": {"Authorization": {"secret": "crm"}}});
    put(pushed.pool(), &pushed.receiver.url("/hook"), http, json!({})).await;
    until("the header is sent", async || {
        pushed.run(json!({})).await;
        let got = pushed.receiver.got().pop().unwrap();
        got.headers.get("authorization").is_some_and(|value| value == "Bearer 123456")
    })
    .await;
    let shown = sql(pushed.pool(), "select string_agg(t::text, '') || (select string_agg(e::text, '') from divvy.event e) from divvy.task_type t").await;
    assert!(!shown.contains("123456"), "{shown}");
}

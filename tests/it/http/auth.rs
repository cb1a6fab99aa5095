//! Tokens: made, used, recorded, expired, revoked.

use super::client::{guarded, token};
use crate::support::db::TestDb;
use crate::support::program::{divvy_on, ok, said};
use crate::support::race::until;
use serde_json::{Value, json};

#[tokio::test]
async fn a_token_is_made_used_listed_and_revoked_on_the_command_line() {
    let db = TestDb::new().await;
    let mut http = guarded(&db).await;
    let made = ok(&mut divvy_on(
        db.url(),
        &["token", "create", "--scope", "producer", "--scope", "reader", "--name", "ci", "--expires", "30d"],
    ));
    let secret = made.trim().to_owned();
    assert!(secret.starts_with("divvy_") && secret.len() == 70, "{secret}");
    http.token = Some(secret.clone());
    http.post("/api/v1/tasks", json!({ "task_type": "mail" })).await.is(201);
    let refusal = http.post("/api/v1/tasks/1/cancel", json!({})).await.refuses(403, "forbidden");
    assert_eq!(refusal, "token ci has the scopes producer, reader; this needs one of operator");
    let twice = said(&mut divvy_on(db.url(), &["token", "create", "--scope", "reader", "--name", "ci"]));
    assert!(twice.code == Some(1) && twice.err.contains("token ci"), "{}", twice.err);
    let listed = ok(&mut divvy_on(db.url(), &["token", "list", "--json"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed["tokens"][0]["name"], &listed["tokens"][0]["good"]), (&json!("ci"), &json!(true)));
    assert!(!listed.to_string().contains(&secret[6..]), "no token is listed");
    let kept: String =
        sqlx::query_scalar("select hash from divvy.api_token").fetch_one(db.pool()).await.unwrap();
    assert_eq!(kept, divvy::http::hash(&secret));
    ok(&mut divvy_on(db.url(), &["token", "revoke", "ci", "--reason", "leaked"]));
    until("the revoked token is refused", async || http.get("/api/v1/tasks").await.status == 401).await;
    let gone = said(&mut divvy_on(db.url(), &["token", "revoke", "ci"]));
    assert!(gone.err.contains("there is no token ci"), "{}", gone.err);
    let events: Vec<String> =
        sqlx::query_scalar("select verb from divvy.event where object = 'token' order by id")
            .fetch_all(db.pool())
            .await
            .unwrap();
    assert_eq!(events, ["create_token", "revoke_token"]);
    assert!(ok(&mut divvy_on(db.url(), &["token", "list", "--all"])).contains("revoked"));
}

#[tokio::test]
async fn an_unknown_an_expired_and_a_malformed_token_are_refused() {
    let db = TestDb::new().await;
    let mut http = guarded(&db).await;
    let expired = token(&db, "old", &["reader"]).await;
    sqlx::query("update divvy.api_token set expires_at = now()").execute(db.pool()).await.unwrap();
    let good = token(&db, "new", &["reader"]).await;
    let digit = if good.ends_with('0') { '1' } else { '0' };
    let almost = format!("{}{digit}", &good[..good.len() - 1]);
    http.token = Some(good);
    http.get("/api/v1/tasks").await.is(200);
    for bad in [expired, almost, "divvy_none".to_owned(), String::new()] {
        http.token = Some(bad);
        http.get("/api/v1/tasks").await.refuses(401, "unauthorized");
    }
    let past =
        "select divvy.create_token('late', repeat('a', 64), '{reader}', divvy.clock() - interval '1 s')";
    let refused = sqlx::query(past).execute(db.pool()).await.unwrap_err().to_string();
    assert!(
        refused.contains("token late: expires_at is ") && refused.contains("which has passed"),
        "{refused}"
    );
    http.token = None;
    let basic = ["Authorization: Basic YTpi".to_owned()];
    let answer = http.ask("GET", "/api/v1/tasks", &basic, "").await;
    assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
    answer.refuses(401, "unauthorized");
}

#[tokio::test]
async fn a_decision_is_recorded_as_the_token_s_in_its_transaction() {
    let db = TestDb::new().await;
    let mut http = guarded(&db).await;
    http.token = Some(token(&db, "ops", &["operator", "producer"]).await);
    http.send("PUT", "/api/v1/types/mail", json!({})).await.is(200);
    let made = http.post("/api/v1/tasks", json!({ "task_type": "mail" })).await.is(201);
    let id = made["task_id"].as_str().unwrap();
    http.post(&format!("/api/v1/tasks/{id}/cancel"), json!({ "reason": "duplicate" })).await.is(200);
    let (actor, reason): (String, String) =
        sqlx::query_as("select actor, reason from divvy.event where verb = 'cancel'")
            .fetch_one(db.pool())
            .await
            .unwrap();
    assert_eq!((actor.as_str(), reason.as_str()), ("token ops", "duplicate"));
    let mine = http.get("/api/v1/audit?actor=token%20ops").await.is(200);
    assert_eq!(mine["items"].as_array().map(Vec::len), Some(2), "{mine}");
    // A revoked token decides nothing more, not even while its reading is still believed.
    sqlx::query("select divvy.revoke_token('ops')").execute(db.pool()).await.unwrap();
    http.post("/api/v1/types/mail/pause", json!({})).await.refuses(401, "unauthorized");
    // And nobody is believed who only says who they are.
    let mut session = db.connect().await;
    sqlx::raw_sql(
        "set divvy.actor = 'token ops'; set divvy.bearer = 'token ops'; select divvy.pause('mail')",
    )
    .execute(&mut session)
    .await
    .unwrap();
    let actor: String = sqlx::query_scalar("select actor from divvy.event where verb = 'pause'")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert!(!actor.starts_with("token"), "{actor}");
}

#[test]
fn serve_listens_on_no_open_address_without_tokens() {
    for auth in
        [&["serve", "--listen", "0.0.0.0:0"][..], &["serve", "--listen", "[::]:0", "--auth", "none"][..]]
    {
        let said = said(&mut divvy_on("postgres://nobody@127.0.0.1:1/none", auth));
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(
            said.err.contains("no loopback address") && said.err.contains("--auth token"),
            "{}",
            said.err
        );
    }
}

#[tokio::test]
async fn who_waits_or_reads_a_stream_is_let_go_when_the_token_ends() {
    let db = TestDb::new().await;
    let mut http = guarded(&db).await;
    let secret = token(&db, "both", &["producer", "worker"]).await;
    http.token = Some(secret.clone());
    let id =
        http.post("/api/v1/tasks", json!({ "task_type": "mail", "run_at": "2999-01-01T00:00:00Z" })).await;
    let id = id.is(201)["task_id"].as_str().unwrap().to_owned();
    let me = "77777777-7777-7777-7777-777777777777";
    let who = json!({ "worker": me, "name": "w", "task_types": ["mail"], "slots": 1 });
    http.post("/api/v1/worker/register", who).await.is(200);
    let mut stream = tokio::net::TcpStream::connect(http.address).await.unwrap();
    let ask = format!(
        "GET /api/v1/tasks/{id}/stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {secret}\r\n\r\n"
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, ask.as_bytes()).await.unwrap();
    let streamed = tokio::spawn(async move { super::client::read(&mut stream).await });
    let path = format!("/api/v1/tasks/{id}/result?wait=8");
    let wait = json!({ "worker": me, "task_types": ["mail"], "wait": 30 });
    let (result, claim, ()) = tokio::join!(http.get(&path), http.post("/api/v1/worker/claim", wait), async {
        until("somebody waits for work", async || {
            sqlx::query_scalar("select exists (select from divvy.type_wake where idle_until > now())")
                .fetch_one(db.pool())
                .await
                .unwrap()
        })
        .await;
        sqlx::query("select divvy.revoke_token('both')").execute(db.pool()).await.unwrap();
    });
    result.refuses(401, "unauthorized");
    claim.refuses(401, "unauthorized");
    let streamed = tokio::time::timeout(std::time::Duration::from_secs(20), streamed).await;
    let streamed = streamed.expect("the stream ends").unwrap().is(200).to_string();
    assert!(streamed.contains("event: progress") && !streamed.contains("event: end"), "{streamed}");
}

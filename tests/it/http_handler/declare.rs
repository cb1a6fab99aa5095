//! What a declaration with a URL may say, and who may say it.

use crate::support::queue::{Queue, quoted};
use serde_json::{Value, json};

#[tokio::test]
async fn a_url_that_is_none_is_refused() {
    let mut q = Queue::new().await;
    let url = |url: &str| json!({ "url": url });
    let with = |key: &str, value: Value| json!({"url": "https://a.example/", key: value});
    let long = format!("https://a.example/{}", "a".repeat(2000));
    for (http, part) in [
        (json!(7), "handler.http is 7; it is a URL"),
        (json!({}), "handler.http.url is missing; it begins with http"),
        (json!(""), "it begins with http:// or https://"),
        (json!("ftp://a.example/"), "it begins with http:// or https://"),
        (json!("file:///etc/passwd"), "it begins with http:// or https://"),
        (url("https:///x"), "it begins with http:// or https://"),
        (url("https://ada:secret@a.example/"), "has a user or a password"),
        (url("https://ada@a.example/"), "has a user or a password"),
        (url("https://a.example/ x"), "has a space"),
        (url("https://a.example/\\x"), "a backslash"),
        (url("https://a.example/#x"), "a #"),
        (url(&long), "2018 characters; 2000 are the most"),
        (with("sekret", json!("x")), "unknown option 'sekret'"),
        (with("secret", json!("nobody")), "there is no such secret: `divvy secret create NAME`"),
        (with("secret", json!("callback")), "there is no such secret"),
        (with("secret", json!(7)), "there is no such secret"),
        (with("secret", json!("plain")), "can't sign"),
        (with("headers", json!([])), "an object of at most 20"),
        (with("headers", json!({"a b": "x"})), "'a b' is no name of a header"),
        (with("headers", json!({"Webhook-Id": "x"})), "Webhook-Id is set by divvy itself"),
        (with("headers", json!({"Host": "x"})), "Host is set by divvy itself"),
        (with("headers", json!({"x": "a\r\nb: c"})), "handler.http.headers.x is no text"),
        (with("headers", json!({"x": 7})), "handler.http.headers.x is no text"),
        (with("headers", json!({"x": {"secret": "nobody"}})), "there is no such secret"),
        (with("headers", json!({"x": {"value": "v"}})), "unknown option 'value'"),
        (with("request_timeout", json!(0)), "request_timeout is 0; it must be seconds or an interval"),
        (with("callback_timeout", json!("soon")), "callback_timeout is \"soon\""),
        (with("callback_timeout", json!("32 days")), "0.1 s to 31 days"),
        (with("breaker", json!(true)), "handler.http.breaker is true"),
        (with("breaker", json!({"failures": 0})), "breaker.failures is 0; it must be 1 to 1000"),
        (with("breaker", json!({"failures": 1.5})), "breaker.failures is 1.5"),
        (with("breaker", json!({"open": 1})), "open must be at least 2 s"),
        (with("breaker", json!({"open": 60, "most": 30})), "most not less than open"),
        (with("breaker", json!({"opens": 60})), "unknown option 'opens'"),
    ] {
        q.run("select divvy.create_secret('plain', 'x') where not exists (select from divvy.secret where name = 'plain')").await;
        let options = json!({"handler": {"http": http}});
        let refused = q.refused(format!("select divvy.put_task_type('a', {})", quoted(&options))).await;
        refused.says("DV010", &["type a", part]);
    }
    let two = json!({"handler": {"http": "https://a.example/", "exec": "a"}});
    q.refused(format!("select divvy.put_task_type('a', {})", quoted(two)))
        .await
        .says("DV010", &["a type has one"]);
    // A token of the HTTP API, whatever its scopes, sends no requests from here.
    let service = crate::http::client::running(&q.db).await;
    let options = json!({"handler": {"http": "https://a.example/"}});
    service.send("PUT", "/api/v1/types/a", options).await.refuses(422, "DV010");
    q.put("a", json!({"handler": {"http": "HTTPS://a.example:8443/hook?x=1"}, "plan": true})).await;
    let kept = q.one::<Value>("select handler -> 'http' from divvy.task_type").await;
    assert_eq!(kept, json!({"url": "HTTPS://a.example:8443/hook?x=1"}));
}

#[tokio::test]
async fn only_an_operator_declares_urls_and_sees_to_secrets() {
    let mut q = Queue::new().await;
    q.run("select divvy.create_secret('shop')").await;
    let role = format!("w_{}", q.db.name());
    q.run(format!("create role {role} login; grant divvy_worker to {role}")).await;
    let options = q.db.options().clone().username(&role);
    let mut worker = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    let meta = json!({"types": {"evil": {"handler": {"http": "http://169.254.169.254/"}}}});
    let error = sqlx::query("select divvy.register_worker(gen_random_uuid(), 'w', '{evil}', 1, $1)")
        .bind(meta)
        .execute(&mut worker)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("is not a member of divvy_operator, which alone declares URLs"), "{error}");
    for refused in [
        "select divvy.create_secret('x')",
        "select divvy.rotate_secret('shop')",
        "select divvy.drop_secret('shop')",
        "select value from divvy.secret",
        "select name from divvy.secret_overview",
    ] {
        let error = sqlx::query(refused).execute(&mut worker).await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{refused}: {error}");
    }
    let value: String = sqlx::query_scalar("select value from divvy.secret_values('{shop,nobody}')")
        .fetch_one(&mut worker)
        .await
        .unwrap();
    assert!(value.starts_with("whsec_"));
    drop(worker);
    for (granted, refused) in [
        ("divvy_operator", "select * from divvy.secret_values('{shop}')"),
        ("divvy_operator", "select * from divvy.secret"),
        ("divvy_reader", "select * from divvy.secret_values('{shop}')"),
        ("divvy_producer", "select * from divvy.secret_overview"),
    ] {
        q.run(format!("revoke divvy_worker, divvy_operator, divvy_reader, divvy_producer from {role}; grant {granted} to {role}")).await;
        let mut other = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
        let error = sqlx::query(refused).execute(&mut other).await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{granted}: {refused}: {error}");
    }
    q.run(format!("drop owned by {role}; drop role {role}")).await;
}

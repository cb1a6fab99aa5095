//! A row of the status table each, through a real worker and a real receiver.

use super::receiver::{Receiver, Says};
use super::{Pushed, ended, enqueue};
use crate::support::race::until;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Answers as the payload says: at first by `says`, then by `then`.
async fn scripted() -> Pushed {
    let receiver = Receiver::new(|got| {
        Box::pin(async move {
            let again =
                got.json["attempt"] != 1 || !got.json["idempotency_key"].as_str().unwrap().ends_with(".0");
            let says = &got.json["payload"][if again { "then" } else { "says" }];
            let headers = match says["retry_after"].as_str() {
                Some(after) => vec![("retry-after", after.to_owned())],
                None => vec![],
            };
            let status = says["status"].as_u64().unwrap_or(200);
            let body = match &says["body"] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                body => body.to_string(),
            };
            let says: Says = (u16::try_from(status).unwrap(), headers, body);
            says
        })
    })
    .await;
    Pushed::to(receiver, json!({})).await
}

#[tokio::test]
async fn two_hundreds_complete_with_what_the_body_says() {
    let mut pushed = scripted().await;
    for (says, result) in [
        (json!({}), Value::Null),
        (json!({"status": 204}), Value::Null),
        (json!({"status": 201, "body": {"result": {"id": 9}}}), json!({"id": 9})),
        (json!({"body": {"result": null}}), Value::Null),
        (json!({"body": {}}), Value::Null),
        (json!({"status": 299, "body": {"result": [1, "ä"]}}), json!([1, "ä"])),
    ] {
        let (status, got, error) = pushed.run(json!({"says": says})).await;
        assert_eq!((status.as_str(), &got, &error), ("succeeded", &result, &Value::Null), "{says}");
    }
    let stopped = pushed.run(json!({"says": {"body": {"stop": {"message": "no such account"}}}})).await;
    assert_eq!(stopped.2, json!({"message": "no such account"}));
    let failed = pushed.run(json!({"says": {"body": {"fail": {"message": "busy", "class": "io"}}},
        "then": {"body": {"result": "went on"}}}));
    assert_eq!(failed.await.1, "went on");
    let done = pushed.stop().await;
    assert_eq!((done.succeeded, done.failed), (7, 2), "{done}");
}

#[tokio::test]
async fn four_hundreds_stop_and_say_why() {
    let pushed = scripted().await;
    let url = pushed.receiver.url("/hook");
    for (says, message) in [
        (json!({"status": 400}), format!("{url} answered 400 Bad Request")),
        (
            json!({"status": 404, "body": "<h1>gone</h1>"}),
            format!("{url} answered 404 Not Found: <h1>gone</h1>"),
        ),
        (json!({"status": 401, "body": {"detail": "who are you?"}}), "who are you?".into()),
        (json!({"status": 422, "body": {"stop": {"message": "no such IBAN"}}}), "no such IBAN".into()),
    ] {
        let before = pushed.receiver.count();
        let (status, _, error) = pushed.run(json!({"says": says})).await;
        assert_eq!((status.as_str(), &error), ("failed", &json!({"message": message})), "{says}");
        assert_eq!(pushed.receiver.count(), before + 1, "no attempt helps");
    }
}

#[tokio::test]
async fn five_hundreds_and_redirects_are_retried_under_the_same_id() {
    let pushed = scripted().await;
    for status in [408, 425, 500, 502, 503, 504, 301, 302, 307] {
        let before = pushed.receiver.count();
        let says = json!({"says": {"status": status}, "then": {"body": {"result": status}}});
        assert_eq!(pushed.run(says).await.1, status);
        let ids: BTreeSet<String> =
            pushed.receiver.got()[before..].iter().map(|one| one.header("webhook-id").to_owned()).collect();
        assert_eq!(pushed.receiver.count(), before + 2, "{status}");
        assert_eq!(ids.len(), 1, "{status}");
    }
    let twice = json!({"says": {"status": 500, "body": {"fail": {"message": "disk full", "class": "io"}}},
        "then": {"status": 500, "body": {"fail": {"message": "disk full", "class": "io"}}}});
    assert_eq!(pushed.run(twice).await.2, json!({"class": "io", "message": "disk full"}));
    let nothing = json!({"says": {"status": 502}, "then": {"status": 502}});
    let (_, _, error) = pushed.run(nothing).await;
    assert_eq!(error["class"], "status 502");
}

#[tokio::test]
async fn too_many_and_retry_after_snooze_and_come_again_under_another_id() {
    let mut pushed = scripted().await;
    for says in [
        json!({"status": 429, "retry_after": "0"}),
        json!({"status": 429, "retry_after": "Sun, 06 Nov 1994 08:49:37 GMT"}),
        json!({"status": 429, "body": {"snooze": {"delay": 0, "checkpoint": {"seen": 7}}}}),
        json!({"status": 503, "retry_after": "0"}),
        json!({"status": 200, "body": {"snooze": {"delay": 0}}}),
    ] {
        let before = pushed.receiver.count();
        let task =
            enqueue(pushed.pool(), json!({"says": says, "then": {"body": {"result": 1}}}), json!({})).await;
        assert_eq!(ended(pushed.pool(), task).await.1, 1);
        let got = &pushed.receiver.got()[before..];
        let ids: Vec<&str> = got.iter().map(|one| one.header("webhook-id")).collect();
        assert_eq!(ids, [format!("{task}.1.1.0"), format!("{task}.1.1.1")], "{says}");
        assert_eq!(got[1].json["attempt"], 1, "no attempt is used");
        assert_eq!(got[1].json["checkpoint"], says["body"]["snooze"]["checkpoint"]);
    }
    let later =
        enqueue(pushed.pool(), json!({"says": {"status": 503, "retry_after": "3600"}}), json!({})).await;
    let mut due: Option<f64> = None;
    until("the split is put off", async || {
        let query = "select extract(epoch from due_at - divvy.clock())::float8 from divvy.split_overview where task_id = $1 and reason = 'snooze'";
        due = sqlx::query_scalar(query).bind(later).fetch_optional(pushed.pool()).await.unwrap();
        due.is_some()
    })
    .await;
    assert!((3_500.0..=3_605.0).contains(&due.unwrap()), "{due:?}");
    assert_eq!(pushed.stop().await.failed, 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let secret = Receiver::always(200, r#"{"result": "the inside"}"#).await;
    let inside = secret.url("/inside");
    let receiver = Receiver::new(move |_| {
        let to = vec![("location", inside.clone())];
        Box::pin(async move { (302, to, String::new()) })
    })
    .await;
    let pushed = Pushed::to(receiver, json!({})).await;
    let (status, _, error) = pushed.run(json!({})).await;
    assert_eq!((status.as_str(), &error["class"]), ("failed", &json!("redirect")));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("answered 302 Found to http") && message.contains("not followed"), "{message}");
    assert_eq!(secret.count(), 0);
}

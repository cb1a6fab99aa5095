//! The description is that of the service: every operation is there, and asks for the scopes it names.

use super::client::{guarded, running, token};
use crate::support::db::TestDb;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Method and path of every operation with its scopes.
fn operations(document: &Value) -> BTreeMap<(String, String), Vec<String>> {
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, told)| {
            let scopes = told["security"][0]["token"].as_array().cloned().unwrap_or_default();
            let scopes = scopes.iter().map(|scope| scope.as_str().unwrap().to_owned()).collect();
            ((method.to_uppercase(), path.clone()), scopes)
        })
    });
    each.collect()
}

fn path_of(template: &str) -> String {
    let worker = "55555555-5555-5555-5555-555555555555";
    template
        .replace("{task_id}", "1")
        .replace("{split_id}", "1")
        .replace("{worker}", worker)
        .replace("{task_type}", "x")
        .replace("{name}", "x")
}

#[tokio::test]
async fn every_operation_asks_for_a_token_and_for_one_of_its_scopes() {
    let db = TestDb::new().await;
    let mut http = guarded(&db).await;
    let mut tokens = BTreeMap::new();
    for scope in ["producer", "worker", "reader", "payloads", "operator"] {
        tokens.insert(scope, token(&db, scope, &[scope]).await);
    }
    let document = http.get("/openapi.json").await.is(200);
    assert_eq!(document["openapi"], "3.1.0");
    let operations = operations(&document);
    assert!(operations.len() > 55, "{}", operations.len());
    for ((method, template), scopes) in &operations {
        let path = path_of(template);
        if scopes.is_empty() {
            let open = ["/healthz", "/readyz", "/api/v1/callbacks/{token}"];
            assert!(open.contains(&template.as_str()), "{template} is open to everybody");
            continue;
        }
        http.token = None;
        http.send(method, &path, json!({})).await.refuses(401, "unauthorized");
        for (scope, token) in &tokens {
            http.token = Some(token.clone());
            let answer = http.send(method, &path, json!({})).await;
            let allowed = scopes.iter().any(|one| one == scope);
            assert_eq!(answer.status != 403, allowed, "{scope}: {method} {path}: {}", answer.body);
            assert!(![401, 500].contains(&answer.status), "{method} {path}: {}", answer.body);
        }
    }
}

/// The rule behind the table in the paper, told apart from the routes: who looks, who makes, who works, who decides.
fn those_who_may(method: &str, path: &str) -> &'static [&'static str] {
    const LOOK: &[&str] = &["reader", "payloads", "operator"];
    let part = |at: usize| path.split('/').nth(at).unwrap_or_default();
    match (method, part(3), part(5)) {
        // Its path is its token.
        (_, "callbacks", _) => &[],
        (_, "worker", _) => &["worker"],
        ("POST", "tasks", "") if ["", "batch"].contains(&part(4)) => &["producer"],
        ("GET", "tasks", "result" | "progress" | "stream") => &["producer", "reader", "payloads", "operator"],
        ("GET", ..) => LOOK,
        _ if path.ends_with("/preview") => LOOK,
        _ => &["operator"],
    }
}

#[tokio::test]
async fn every_operation_is_for_those_whom_the_rule_names() {
    let db = TestDb::new().await;
    let document = running(&db).await.get("/openapi.json").await.is(200);
    for ((method, path), scopes) in operations(&document) {
        if path.starts_with("/api/") {
            assert_eq!(scopes, those_who_may(&method, &path), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_operation_refuses_fields_and_parameters_that_it_does_not_know() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    let document = http.get("/openapi.json").await.is(200);
    // What a stranger sends to a callback is not read at all.
    let asked = |path: &str| path.starts_with("/api/") && !path.starts_with("/api/v1/callbacks/");
    for (method, template) in operations(&document).into_keys().filter(|(_, path)| asked(path)) {
        let path = path_of(&template);
        let sends = !document["paths"][&template][method.to_lowercase()]["requestBody"].is_null();
        let answer = match sends {
            true => http.send(&method, &path, json!({ "no_such_thing": 1 })).await,
            false => http.ask(&method, &format!("{path}?no_such_thing=1"), &[], "").await,
        };
        let told = answer.refuses(422, "DV010");
        assert!(told.contains("unknown field `no_such_thing`"), "{method} {path}: {told}");
    }
}

#[tokio::test]
async fn every_name_in_the_description_leads_somewhere() {
    let db = TestDb::new().await;
    let http = running(&db).await;
    let document = http.get("/openapi.json").await.is(200);
    let text = document.to_string();
    let names = text.split("\"#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
    for name in names {
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    let mut ids = std::collections::BTreeSet::new();
    for path in document["paths"].as_object().unwrap().values() {
        for told in path.as_object().unwrap().values() {
            assert!(ids.insert(told["operationId"].to_string()), "{told}");
            assert!(told["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{told}");
        }
    }
    for page in ["/docs", "/docs/reference.js", "/docs/reference.css"] {
        let answer = http.get(page).await;
        assert!(answer.head.contains("content-security-policy: default-src 'none'"), "{}", answer.head);
        let text = answer.is(200).to_string();
        assert!(
            !text.contains("http://") && !text.contains("https://"),
            "{page} needs nothing from elsewhere"
        );
    }
}

/// Paths that the paper calls, with `{}` for what is filled in.
fn called() -> std::collections::BTreeSet<String> {
    let text = include_str!("../../../docs/http.md");
    let lines = text.lines().filter(|line| line.contains("curl "));
    let paths = lines.filter_map(|line| {
        Some(line.split_once("$API")?.1.split([' ', '?', '"', ';']).next()?.trim_end_matches(')'))
    });
    let parts = |path: &str| {
        path.split('/')
            .map(|part| match part {
                "mail" | "draft" | "nightly" | "bank" | "lag" => "{}",
                part if part.starts_with('$') => "{}",
                part => part,
            })
            .collect::<Vec<_>>()
            .join("/")
    };
    let mut called: std::collections::BTreeSet<String> =
        paths.map(|path| format!("/api/v1{}", parts(path))).collect();
    if called.remove("/api/v1/workers/{}/{}") {
        called.extend(["quiet", "run", "terminate"].map(|act| format!("/api/v1/workers/{{}}/{act}")));
    }
    called
}

#[tokio::test]
async fn the_paper_has_a_line_for_every_operation() {
    let db = TestDb::new().await;
    let document = running(&db).await.get("/openapi.json").await.is(200);
    let called = called();
    for path in document["paths"].as_object().unwrap().keys().filter(|path| path.starts_with("/api/")) {
        let parts: Vec<&str> =
            path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
        assert!(called.contains(&parts.join("/")), "docs/http.md calls no {path}");
    }
}

//! Secrets: made, rotated, listed and dropped, by SQL and on the command line, and written into no log.

use crate::support::db::TestDb;
use crate::support::program::{divvy_on, ok, said};
use crate::support::queue::Queue;
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;

#[tokio::test]
async fn a_secret_has_rules_and_no_event_has_its_value() {
    let mut q = Queue::new().await;
    let first: String = q.one("select divvy.create_secret('shop')").await;
    assert!(first.starts_with("whsec_") && first.len() == 6 + 44, "{first}");
    q.refused("select divvy.create_secret('shop')").await.says("DV004", &["secret shop", "rotate"]);
    q.refused("select divvy.create_secret('A')").await.says("DV010", &["the name 'A'"]);
    for wrong in ["", " x", "a\nb", "whsec_", "whsec_????", "whsec_AAAA"] {
        let refusal =
            q.refused(format!("select divvy.create_secret('x', E'{}')", wrong.replace('\n', "\\n"))).await;
        assert_eq!(refusal.code, "DV010", "{wrong:?}");
        assert!(wrong.len() < 7 || !refusal.message.contains(wrong), "{refusal:?}");
    }
    q.refused("select divvy.rotate_secret('nobody')").await.says("DV011", &["nobody"]);
    q.refused("select divvy.rotate_secret('shop', 'plain')").await.says("DV010", &["must begin with whsec_"]);
    q.refused("select divvy.drop_secret('callback')").await.says("DV004", &["rotated, not dropped"]);
    q.put("a", json!({"handler": {"http": {"url": "https://a.example", "secret": "shop"}}})).await;
    q.refused("select divvy.drop_secret('shop')").await.says("DV004", &["secret shop: type a uses it"]);
    let second: String = q.one("select divvy.rotate_secret('shop', null, '1 hour')").await;
    let both: Vec<(String, Option<String>)> =
        q.rows("select value, previous from divvy.secret_values('{shop}')").await;
    assert_eq!(both, [(second.clone(), Some(first.clone()))]);
    let used: Vec<String> = q.one("select used_by from divvy.secret_overview where name = 'shop'").await;
    assert_eq!(used, ["a"]);
    q.run("select divvy.drop_task_type('a'); select divvy.drop_secret('shop')").await;
    let verbs: Vec<String> = q.all("select verb from divvy.event where object = 'secret' order by id").await;
    assert_eq!(verbs, ["create_secret", "rotate_secret", "drop_secret"]);
    let all: String = q.one("select string_agg(e::text, ' ') from divvy.event e").await;
    assert!(!all.contains(&first[6..]) && !all.contains(&second[6..]), "{all}");
}

#[tokio::test]
async fn secrets_are_seen_to_on_the_command_line() {
    let db = TestDb::new().await;
    let made = ok(&mut divvy_on(db.url(), &["secret", "create", "shop"]));
    assert!(made.starts_with("whsec_") && made.ends_with('\n'), "{made}");
    let rotated = ok(&mut divvy_on(db.url(), &["secret", "rotate", "shop", "--keep", "2d", "--json"]));
    let rotated: Value = serde_json::from_str(&rotated).unwrap();
    assert_ne!(rotated["secret"], made.trim());
    let mut given = divvy_on(db.url(), &["secret", "create", "crm", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    given.stdin.take().unwrap().write_all(b"Bearer 77\n").unwrap();
    let output = given.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "a value that was given is not shown");
    let listed = ok(&mut divvy_on(db.url(), &["secret", "list"]));
    for part in ["shop", "signs", "crm", "value", "callback", "divvy's own"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    assert!(!listed.contains("77") && !listed.contains("whsec_"), "{listed}");
    let listed: Value =
        serde_json::from_str(&ok(&mut divvy_on(db.url(), &["secret", "list", "--json"]))).unwrap();
    assert_eq!(listed["secrets"].as_array().unwrap().len(), 3);
    ok(&mut divvy_on(db.url(), &["secret", "drop", "crm"]));
    let gone = said(&mut divvy_on(db.url(), &["secret", "drop", "crm"]));
    assert_eq!((gone.code, gone.err.as_str()), (Some(1), "divvy: there is no secret crm (DV011)\n"));
    let value: String = sqlx::query_scalar("select value from divvy.secret_values('{shop}')")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert_eq!(rotated["secret"], value);
}

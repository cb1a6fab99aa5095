//! The mark over starts of the server: prepared transactions, and sequences that are behind.

use super::{last_key, mark, traffic};
use crate::support::db::{TestDb, fast_dir, settings};
use crate::support::hand::Hand;
use divvy::embedded::{self, Embedded};
use divvy::store::migrate;
use sqlx::{Connection, PgConnection};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn a_prepared_transaction_holds_the_mark_over_a_restart_of_the_server() {
    let dir = tempfile::Builder::new().prefix("divvy-restart-").tempdir_in(fast_dir()).unwrap();
    // Root's server runs as somebody else, who must be able to enter.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = dir.path().join("postgres");
    let first = Embedded::start(&settings(root.clone())).await.unwrap();
    let options = first.options();
    migrate::migrate(&options).await.unwrap();
    let connect = async || Hand::on(PgConnection::connect_with(&options).await.unwrap()).await;

    let (mut hand, mut duty, mut producer) = (connect().await, connect().await, connect().await);
    hand.declare("x", "{}").await;
    traffic(&mut hand, &mut duty).await;
    producer.run("set divvy.notify = off").await;
    producer.run("begin").await;
    let task = producer.insert("(task_type) values ('x')").await;
    let key: i64 = producer.get(&format!("select key from divvy.task where id = {task}")).await;
    producer.run("prepare transaction 'late'").await;
    assert!(traffic(&mut hand, &mut duty).await < key);

    assert!(embedded::stop(&root, true).await.unwrap());
    let second = Embedded::start(&settings(root.clone())).await.unwrap();
    drop(first);
    let (mut hand, mut duty) = (connect().await, connect().await);
    let held = traffic(&mut hand, &mut duty).await;
    assert!(held < key, "mark {held} while {key} is prepared");

    hand.run("commit prepared 'late'").await;
    mark(&mut duty).await;
    let mut fresh = connect().await;
    let split = fresh.claim_one("x").await;
    assert_eq!(split.task_id, task);
    assert_eq!(fresh.complete(&split).await, "ok");
    assert_eq!(mark(&mut duty).await, last_key(&mut duty).await, "and now it moves on");
    assert!(embedded::stop(&root, true).await.unwrap());
    drop(second);
}

/// A database that came back without its sequences, and with marks that believe in them.
async fn restored() -> (TestDb, Hand, Hand, Vec<i64>) {
    let db = TestDb::new().await;
    let (mut hand, mut duty) = (Hand::new(&db).await, Hand::new(&db).await);
    hand.declare("x", "{}").await;
    traffic(&mut hand, &mut duty).await;
    hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 3)").await;
    let running = hand.claim_one("x").await;
    let waiting = hand.all("select id from divvy.split where status = 'ready' order by id").await;
    assert_eq!(waiting.len(), 2);
    hand.run(&format!(
        "select setval('divvy.key', 1), setval('divvy.id', 1), setval('divvy.token', 1);
         update divvy.lane set mark = mark + 1000000;
         update divvy.low_water set server_start = server_start - interval '1 s', home = 'elsewhere';
         select {}",
        running.split_id
    ))
    .await;
    (db, hand, duty, waiting)
}

#[tokio::test]
async fn a_new_start_of_the_server_believes_no_mark() {
    let (db, _hand, mut duty, waiting) = restored().await;
    mark(&mut duty).await;
    let got = Hand::new(&db).await.claim("x", 10).await;
    assert_eq!(got.iter().map(|s| s.task_id).collect::<Vec<_>>(), waiting);
}

#[tokio::test]
async fn a_new_start_of_the_server_puts_the_sequences_behind_everything_there_is() {
    let (db, mut hand, mut duty, waiting) = restored().await;
    let highest: i64 = hand.get("select max(key) from divvy.task where state = 'ready'").await;
    let held: i64 = hand.get("select token from divvy.split where status = 'running'").await;
    mark(&mut duty).await;
    let task = hand.insert("(task_type) values ('x')").await;
    assert!(task > *waiting.last().unwrap(), "ids don't collide");
    let key: i64 = hand.get(&format!("select key from divvy.task where id = {task}")).await;
    assert!(key > highest, "key {key}, highest {highest}");
    let got = Hand::new(&db).await.claim("x", 10).await;
    assert_eq!(got.len(), 3);
    assert!(got[0].token > held, "an old token never comes again");
}

#[tokio::test]
async fn after_a_new_start_of_the_server_no_token_of_an_earlier_attempt_comes_again() {
    let (db, mut hand, mut duty, _) = restored().await;
    // All that is left of this claim is the attempt it cost.
    hand.run("select divvy.write_down(array(select id from divvy.split where status = 'running'))").await;
    hand.run("update divvy.lease set token = token + 100, split_ids = '{}'; update divvy.task set token = token + 100 where state = 'running'")
        .await;
    let split = hand.get::<i64>("select id from divvy.task where state = 'running'").await;
    let token = hand.get::<i64>("select token from divvy.task where state = 'running'").await;
    assert_eq!(hand.code(&format!("select divvy.fail({split}, {token}, '{{}}', true, '0 s')")).await, "ok");
    hand.run("delete from divvy.lease").await;
    mark(&mut duty).await;
    let got = Hand::new(&db).await.claim("x", 10).await;
    assert!(got[0].token > token, "{} after {token}", got[0].token);
}

//! Claims that choose look behind their positions too: in time when they find enough, and at once when they do not.

use crate::support::db::TestDb;
use crate::support::hand::Hand;
use crate::support::race::until;

const KINDS: [&str; 2] = [r#"{"max_running_per_group": 1000000}"#, r#"{"fair_by_group": true}"#];
const ONE: &str = "insert into divvy.task (task_type) values ('x')";

/// A session that has passed a split, which then came to light: its id.
async fn straggler(options: &str) -> (TestDb, Hand, i64) {
    let db = TestDb::new().await;
    let (mut hand, mut producer) = (Hand::new(&db).await, Hand::new(&db).await);
    hand.declare("x", options).await;
    producer.run("begin").await;
    let late = producer.insert("(task_type) values ('x')").await;
    hand.run(ONE).await;
    assert!(hand.claim_one("x").await.task_id > late);
    producer.run("commit").await;
    (db, hand, late)
}

/// The session remembers this moment, a place in its memory, as an hour from now.
async fn in_an_hour(hand: &mut Hand, place: usize) {
    hand.run(&format!(
        "select set_config(x.name, jsonb_set(current_setting(x.name)::jsonb, '{{{place}}}',
            to_jsonb(extract(epoch from clock_timestamp() + interval '1 hour')))::text, false)
         from (select 'divvy.chosen_' || no as name from divvy.task_type where name = 'x') x"
    ))
    .await;
}

#[tokio::test]
async fn a_claim_that_finds_too_little_looks_behind_before_it_is_time_and_takes_no_split_twice() {
    for options in KINDS {
        let (_db, mut hand, late) = straggler(options).await;
        until("the late one is claimed", async || {
            in_an_hour(&mut hand, 1).await;
            hand.run(ONE).await;
            let tasks: Vec<i64> = hand.claim("x", 10).await.iter().map(|split| split.task_id).collect();
            let found = tasks.contains(&late);
            assert_eq!(tasks.len(), 1 + usize::from(found), "{options}: {tasks:?}");
            found
        })
        .await;
    }
}

#[tokio::test]
async fn claims_that_always_find_enough_look_behind_when_it_is_time() {
    for options in KINDS {
        let (_db, mut hand, late) = straggler(options).await;
        hand.run(ONE).await;
        until("the late one is claimed between others", async || {
            hand.run(ONE).await;
            hand.claim_one("x").await.task_id == late
        })
        .await;
    }
}

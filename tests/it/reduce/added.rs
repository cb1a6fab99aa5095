//! Splits that a running split adds: staged under its token, real when it completes.

use super::bench;
use crate::lease::let_time_pass;
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::Hand;

async fn numbers(hand: &mut Hand, task: i64) -> Vec<i32> {
    let of_task = format!("task_id = {task} and phase = 'execute'");
    hand.all(&format!("select split_no from divvy.split where {of_task} order by split_no")).await
}

#[tokio::test]
async fn added_splits_are_invisible_until_the_adding_split_completes() {
    let (db, mut hand) = bench().await;
    let mut other = Hand::new(&db).await;
    let task = hand.divided("sum", 2).await;
    let splits = hand.claim("sum", 2).await;
    assert_eq!(hand.call("add_splits", &splits[0], "'[{\"n\": 1}, {\"n\": 2}]'").await, "ok");
    assert_eq!(
        hand.get::<i32>(&format!(
            "select divvy.add_splits({}, {}, '[3]')",
            splits[0].split_id, splits[0].token
        ))
        .await,
        3
    );
    assert!(other.claim("sum", 10).await.is_empty());
    assert_eq!(other.count("divvy.split").await, 2);
    assert_eq!(
        other.get::<i32>(&format!("select splits from divvy.task_progress where task_id = {task}")).await,
        2
    );

    other.run("begin").await;
    assert_eq!(other.complete(&splits[0]).await, "ok");
    assert!(hand.claim("sum", 10).await.is_empty(), "not before the commit");
    other.run("commit").await;
    let added = hand.claim("sum", 10).await;
    assert_eq!(added.iter().map(|s| s.split_no).collect::<Vec<_>>(), [3, 4, 5]);
    let payloads: Vec<String> =
        hand.all("select payload::text from divvy.share where split_no > 2 order by split_no").await;
    assert_eq!(payloads, [r#"{"n": 1}"#, r#"{"n": 2}"#, "3"]);
    assert_eq!(hand.complete(&splits[1]).await, "ok");
    assert_eq!(hand.status(task).await, "running", "the added ones are waited for");
    assert!(hand.complete_many(&added).await.iter().all(|v| v == "ok"));
    assert_eq!(hand.claim_one("sum").await.phase, "reduce");
}

#[tokio::test]
async fn what_a_split_staged_is_thrown_away_when_it_ends_otherwise() {
    let ways =
        [("fail", r#"'{"class": "x"}', true, '0 s'"#), ("snooze", "'0 s'"), ("release", ""), ("reclaim", "")];
    for insert in ["(task_type) values ('each')", "(task_type, split_count) values ('sum', 1)"] {
        for (way, more) in ways {
            let db = TestDb::new().await;
            let clock = Clock::stop(&db).await;
            let (mut hand, mut duty) = (Hand::new(&db).await, Hand::new(&db).await);
            hand.declare("sum", r#"{"reduce": true}"#).await;
            hand.declare("each", "{}").await;
            let task = hand.insert(insert).await;
            let split = hand.claim("sum,each", 1).await.remove(0);
            assert_eq!(hand.call("add_splits", &split, "'[1, 2, 3]'").await, "ok");
            if way == "reclaim" {
                let_time_pass(&clock, &mut duty, 40).await;
            } else {
                assert_eq!(hand.call(way, &split, more).await, "ok");
            }
            assert_eq!(hand.count("divvy.staged").await, 0, "{way} of {insert}");
            let again = hand.claim("sum,each", 10).await;
            assert_eq!(again.len(), 1, "{way} of {insert}");
            assert_eq!(hand.call("add_splits", &again[0], "'[7]'").await, "ok");
            assert_eq!(hand.complete(&again[0]).await, "ok");
            assert_eq!(
                numbers(&mut hand, task).await,
                [1, 2],
                "{way} of {insert}: only what the last attempt added"
            );
        }
    }
}

#[tokio::test]
async fn a_stopped_or_cancelled_split_adds_nothing() {
    let (_db, mut hand) = bench().await;
    for cancelled in [false, true] {
        let task = hand.divided("sum", 1).await;
        let split = hand.claim_one("sum").await;
        assert_eq!(hand.call("add_splits", &split, "'[1]'").await, "ok");
        if cancelled {
            hand.run(&format!("select divvy.cancel({task}, 'enough')")).await;
            assert_eq!(hand.call("release", &split, "").await, "ok");
        } else {
            assert_eq!(hand.call("fail", &split, "'{}', false").await, "ok");
        }
        assert!(hand.claim("sum", 10).await.is_empty());
        assert_eq!(hand.count("divvy.staged").await, 0);
        assert_eq!(hand.status(task).await, if cancelled { "cancelled" } else { "failed" });
    }
}

#[tokio::test]
async fn a_split_that_completes_after_the_cancel_counts_but_what_it_adds_never_starts() {
    let (_db, mut hand) = bench().await;
    let task = hand.divided("sum", 1).await;
    let split = hand.claim_one("sum").await;
    assert_eq!(hand.call("add_splits", &split, "'[1, 2]'").await, "ok");
    hand.run(&format!("select divvy.cancel({task}, 'enough')")).await;
    assert_eq!(hand.complete(&split).await, "ok");
    assert!(hand.claim("sum", 10).await.is_empty());
    hand.run("select divvy.tick()").await;
    assert_eq!(hand.status(task).await, "cancelled");
    assert_eq!(hand.count("divvy.share where state in ('ready', 'delayed', 'running')").await, 0);
}

#[tokio::test]
async fn the_only_split_of_a_plain_task_may_add_and_the_task_is_divided_then() {
    let (_db, mut hand) = bench().await;
    let task = hand.insert("(task_type) values ('each')").await;
    let split = hand.claim_one("each").await;
    assert_eq!(hand.call("add_splits", &split, "'[1, 2]'").await, "ok");
    assert_eq!(hand.code(&super::complete_with(&split, "\"first\"")).await, "ok");
    assert_eq!(hand.status(task).await, "running");
    assert_eq!(hand.complete(&split).await, "DV001", "it is finished already");
    let added = hand.claim("each", 10).await;
    assert_eq!(added.iter().map(|s| s.split_no).collect::<Vec<_>>(), [2, 3]);
    assert!(hand.complete_many(&added).await.iter().all(|v| v == "ok"));
    assert_eq!(hand.status(task).await, "succeeded");
    assert_eq!(numbers(&mut hand, task).await, [1, 2, 3]);
    let first: String = hand.get("select result::text from divvy.share where split_no = 1").await;
    assert_eq!(first, "\"first\"");
}

#[tokio::test]
async fn a_plan_makes_the_splits_and_none_means_straight_to_the_reduce() {
    let (_db, mut hand) = bench().await;
    hand.declare("whole", r#"{"plan": true, "reduce": true}"#).await;
    for planned in [0, 1, 1500] {
        let task = hand.insert("(task_type) values ('whole')").await;
        let plan = hand.claim_one("whole").await;
        assert_eq!((plan.phase.as_str(), plan.split_no), ("plan", 0));
        for from in (0..planned).step_by(1000) {
            let payloads: Vec<i32> = (from..planned.min(from + 1000)).collect();
            assert_eq!(hand.call("add_splits", &plan, &format!("'{payloads:?}'")).await, "ok");
        }
        assert_eq!(hand.complete(&plan).await, "ok");
        assert!(numbers(&mut hand, task).await.into_iter().eq(1..=planned), "dense from 1");
        let mut left = planned as usize;
        while left > 0 {
            let splits = hand.claim("whole", 500).await;
            assert!(!splits.is_empty() && splits.iter().all(|s| s.phase == "execute"));
            assert!(hand.complete_many(&splits).await.iter().all(|v| v == "ok"));
            left -= splits.len();
        }
        let reduce = hand.claim_one("whole").await;
        assert_eq!((reduce.phase.as_str(), reduce.task_id), ("reduce", task));
        assert_eq!(hand.call("add_splits", &reduce, "'[1]'").await, "DV004", "a reduce adds none");
        assert_eq!(hand.complete(&reduce).await, "ok");
        assert_eq!(hand.status(task).await, "succeeded");
    }
}

#[tokio::test]
async fn splits_added_side_by_side_are_numbered_without_gap_or_double() {
    let (db, mut hand) = bench().await;
    let task = hand.divided("sum", 8).await;
    let splits = hand.claim("sum", 8).await;
    let mut working = Vec::new();
    for split in splits {
        let mut hand = Hand::new(&db).await;
        working.push(tokio::spawn(async move {
            assert_eq!(hand.call("add_splits", &split, "'[1, 2, 3, 4, 5]'").await, "ok");
            assert_eq!(hand.complete(&split).await, "ok");
        }));
    }
    for worker in working {
        worker.await.unwrap();
    }
    assert!(numbers(&mut hand, task).await.into_iter().eq(1..=48));
    assert_eq!(hand.get::<i32>(&format!("select split_count from divvy.task where id = {task}")).await, 48);
    let added = hand.claim("sum", 100).await;
    assert_eq!(added.len(), 40);
    assert!(hand.complete_many(&added).await.iter().all(|v| v == "ok"));
    assert_eq!(hand.claim_one("sum").await.phase, "reduce");
}

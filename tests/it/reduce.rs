//! When the last split has ended: reduce or not, and what the task ends as.

mod added;
mod poisoned;

use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};

/// A rule, whether it reduces, and how the task ends.
type Cell = (&'static str, bool, &'static str);

/// The table of `reduce_on` in the contract: how the splits ended, and for each rule whether there is a reduce, and how
/// the task ends.
const RULES: &[(&str, [Cell; 3])] = &[
    (
        "whole",
        [("success", true, "succeeded"), ("tolerated", true, "succeeded"), ("always", true, "succeeded")],
    ),
    (
        "tolerated",
        [("success", false, "failed"), ("tolerated", true, "partial"), ("always", true, "partial")],
    ),
    ("beyond", [("success", false, "failed"), ("tolerated", false, "failed"), ("always", true, "failed")]),
    (
        "cancelled",
        [("success", false, "cancelled"), ("tolerated", false, "cancelled"), ("always", false, "cancelled")],
    ),
];

async fn bench() -> (TestDb, Hand) {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    hand.declare("sum", r#"{"reduce": true}"#).await;
    hand.declare("each", "{}").await;
    (db, hand)
}

/// Stops this many of the splits for good and completes the others.
async fn end(hand: &mut Hand, splits: &[Claimed], failed: usize) {
    for (i, split) in splits.iter().enumerate() {
        let said = if i < failed {
            hand.call("fail", split, r#"'{"class": "broken", "message": "it is broken"}', false"#).await
        } else {
            hand.complete(split).await
        };
        assert_eq!(said, "ok");
    }
}

/// Four splits end like this; one failure is tolerated.
async fn end_as(hand: &mut Hand, task: i64, task_type: &str, how: &str) {
    let splits = hand.claim(task_type, 10).await;
    assert_eq!(splits.len(), 4);
    match how {
        "whole" => end(hand, &splits, 0).await,
        "tolerated" => end(hand, &splits, 1).await,
        "beyond" => end(hand, &splits, 2).await,
        _ => {
            end(hand, &splits[..3], 0).await;
            hand.run(&format!("select divvy.cancel({task}, 'enough')")).await;
            assert_eq!(hand.complete(&splits[3]).await, "ok");
        }
    }
}

#[tokio::test]
async fn every_cell_of_the_reduce_on_table_holds_with_a_reduce() {
    let (_db, mut hand) = bench().await;
    for (how, cells) in RULES {
        for (rule, reduces, ends) in cells {
            let task = hand
                .insert(&format!(
                    "(task_type, split_count, max_failed, reduce_on) values ('sum', 4, 1, '{rule}')"
                ))
                .await;
            end_as(&mut hand, task, "sum", how).await;
            let reduce = hand.claim("sum", 10).await;
            assert_eq!(reduce.len(), usize::from(*reduces), "{how} {rule}");
            if let [reduce] = &reduce[..] {
                assert_eq!((reduce.phase.as_str(), reduce.split_no), ("reduce", 0));
                assert_eq!(hand.code(&complete_with(reduce, "42")).await, "ok");
            }
            assert_eq!(hand.status(task).await, *ends, "{how} {rule}");
            let result: Option<String> =
                hand.get(&format!("select result::text from divvy.task_result({task})")).await;
            assert_eq!(result.as_deref(), reduces.then_some("42"), "{how} {rule}");
        }
    }
}

fn complete_with(split: &Claimed, result: &str) -> String {
    format!("select divvy.complete({}, {}, '{result}')", split.split_id, split.token)
}

#[tokio::test]
async fn every_cell_of_the_reduce_on_table_holds_without_the_step() {
    let (_db, mut hand) = bench().await;
    for (how, cells) in RULES {
        for (rule, _, ends) in cells {
            let task = hand
                .insert(&format!(
                    "(task_type, split_count, max_failed, reduce_on) values ('each', 4, 1, '{rule}')"
                ))
                .await;
            end_as(&mut hand, task, "each", how).await;
            assert!(hand.claim("each", 10).await.is_empty());
            assert_eq!(hand.status(task).await, *ends, "{how} {rule}");
        }
    }
}

#[tokio::test]
async fn the_types_rule_and_tolerance_hold_where_the_task_has_none() {
    let (_db, mut hand) = bench().await;
    hand.declare("lax", r#"{"reduce": true, "reduce_on": "always", "max_failed": 2}"#).await;
    for (failed, ends) in [(2, "partial"), (3, "failed")] {
        let task = hand.divided("lax", 4).await;
        let splits = hand.claim("lax", 10).await;
        end(&mut hand, &splits, failed).await;
        let reduce = hand.claim_one("lax").await;
        assert_eq!(hand.complete(&reduce).await, "ok");
        assert_eq!(hand.status(task).await, ends);
    }
}

#[tokio::test]
async fn a_tolerance_in_percent_is_of_all_splits() {
    let (_db, mut hand) = bench().await;
    for (failed, ends) in [(2, "partial"), (3, "failed")] {
        let task = hand.insert("(task_type, split_count, max_failed_percent) values ('each', 8, 25)").await;
        let splits = hand.claim("each", 10).await;
        end(&mut hand, &splits, failed).await;
        assert_eq!(hand.status(task).await, ends, "{failed} of 8 at 25 %");
    }
}

#[tokio::test]
async fn either_of_the_two_tolerances_breaks_it() {
    let (_db, mut hand) = bench().await;
    for (count, percent, ends) in [(1, 50, "failed"), (5, 10, "failed"), (2, 50, "partial")] {
        let task = hand
            .insert(&format!(
                "(task_type, split_count, max_failed, max_failed_percent) values ('each', 8, {count}, {percent})"
            ))
            .await;
        let splits = hand.claim("each", 10).await;
        end(&mut hand, &splits, 2).await;
        assert_eq!(hand.status(task).await, ends, "2 of 8 at {count} and {percent} %");
    }
}

#[tokio::test]
async fn when_the_tolerance_breaks_what_nobody_has_claimed_is_skipped() {
    let (_db, mut hand) = bench().await;
    let task = hand.insert("(task_type, split_count, max_failed) values ('sum', 20, 1)").await;
    let splits = hand.claim("sum", 4).await;
    assert_eq!(hand.call("snooze", &splits[3], "'1 hour'").await, "ok");
    end(&mut hand, &splits[..1], 1).await;
    assert_eq!(hand.count("divvy.split where status = 'ready'").await, 16, "within the tolerance");
    end(&mut hand, &splits[1..2], 1).await;
    assert_eq!(hand.count("divvy.split where status = 'skipped' and reason = 'tolerance'").await, 17);
    assert!(hand.claim("sum", 20).await.is_empty());
    assert_eq!(hand.status(task).await, "running", "one is still at work, and may finish");
    assert_eq!(hand.complete(&splits[2]).await, "ok");
    assert_eq!(hand.status(task).await, "failed");
    let error: String = hand.get(&format!("select error::text from divvy.task where id = {task}")).await;
    assert!(error.contains("it is broken") && error.contains("\"failed\": 2"), "{error}");
}

#[tokio::test]
async fn a_rule_of_always_skips_nothing() {
    let (_db, mut hand) = bench().await;
    hand.insert("(task_type, split_count, reduce_on) values ('sum', 5, 'always')").await;
    let splits = hand.claim("sum", 2).await;
    end(&mut hand, &splits, 2).await;
    assert_eq!(hand.count("divvy.share where state = 'ready'").await, 3);
}

#[tokio::test]
async fn a_task_without_splits_goes_straight_to_its_reduce() {
    let (_db, mut hand) = bench().await;
    for none in [
        "split_count) values ('sum', 0)",
        "splits) values ('sum', '[]')",
        "split_range, split_size) values ('sum', '[5,5)', 10)",
    ] {
        let task = hand.insert(&format!("(task_type, {none}")).await;
        let reduce = hand.claim_one("sum").await;
        assert_eq!((reduce.task_id, reduce.phase.as_str()), (task, "reduce"), "{none}");
        let inputs = hand.count(&format!("divvy.reduce_inputs({task}, {})", reduce.token)).await;
        assert_eq!(inputs, 0);
        assert_eq!(hand.complete(&reduce).await, "ok");
        assert_eq!(hand.status(task).await, "succeeded");
    }
    let task = hand.divided("each", 0).await;
    assert_eq!(hand.status(task).await, "succeeded", "nothing to do, and nothing to reduce");
}

#[tokio::test]
async fn a_plain_task_of_a_type_with_a_reduce_has_one_split_and_is_reduced() {
    let (_db, mut hand) = bench().await;
    let task = hand.insert("(task_type, payload) values ('sum', '{\"n\": 1}')").await;
    let split = hand.claim_one("sum").await;
    assert_eq!((split.phase.as_str(), split.split_no), ("execute", 1));
    assert_eq!(hand.complete(&split).await, "ok");
    let reduce = hand.claim_one("sum").await;
    assert_eq!((reduce.phase.as_str(), reduce.split_id), ("reduce", task));
}

#[tokio::test]
async fn a_task_of_10000_splits_reduces_once_with_all_their_results() {
    let (_db, mut hand) = bench().await;
    let task = hand.divided("sum", 10_000).await;
    let mut done = 0;
    while done < 10_000 {
        let splits = hand.claim("sum", 500).await;
        assert!(splits.iter().all(|s| s.phase == "execute"), "no reduce before the last");
        let verdicts = hand.complete_many(&splits).await;
        assert!(verdicts.iter().all(|v| v == "ok"));
        done += splits.len();
    }
    let reduce = hand.claim_one("sum").await;
    assert_eq!(reduce.phase, "reduce");
    let (mut after, mut seen) = (0, 0);
    loop {
        let page: Vec<i32> = hand
            .all(&format!(
                "select split_no from divvy.reduce_inputs({task}, {}, {after}, 3000)",
                reduce.token
            ))
            .await;
        let Some(last) = page.last() else { break };
        assert!(page.iter().copied().eq(after + 1..=*last), "in order, without a gap");
        (after, seen) = (*last, seen + page.len());
    }
    assert_eq!(seen, 10_000);
    hand.run("select divvy.tick()").await;
    assert!(hand.claim("sum", 10).await.is_empty());
    assert_eq!(hand.complete(&reduce).await, "ok");
    hand.run("select divvy.tick()").await;
    assert!(hand.claim("sum", 10).await.is_empty());
}

#[tokio::test]
async fn a_skipped_split_keeps_no_reduce_waiting_and_counts_as_no_failure() {
    let (_db, mut hand) = bench().await;
    let task = hand.divided("sum", 2).await;
    let splits = hand.claim("sum", 2).await;
    assert_eq!(hand.complete(&splits[0]).await, "ok");
    hand.run(&format!("select divvy.skip_split({}, 'not needed')", splits[1].split_id)).await;
    let reduce = hand.claim_one("sum").await;
    assert_eq!(hand.complete(&splits[1]).await, "DV001");
    assert_eq!(hand.complete(&reduce).await, "ok");
    assert_eq!(hand.status(task).await, "succeeded");
}

#[tokio::test]
async fn a_redriven_task_reduces_once_more_with_the_results_that_were_there() {
    let (_db, mut hand) = bench().await;
    let task = hand.divided("sum", 3).await;
    let splits = hand.claim("sum", 3).await;
    end(&mut hand, &splits, 1).await;
    assert_eq!(hand.status(task).await, "failed");
    hand.run(&format!("select divvy.redrive({task})")).await;
    let again = hand.claim("sum", 3).await;
    assert_eq!(again.iter().map(|s| s.split_no).collect::<Vec<_>>(), [splits[0].split_no]);
    assert_eq!(hand.complete(&again[0]).await, "ok");
    let reduce = hand.claim("sum", 3).await;
    assert_eq!(reduce.len(), 1);
    let key: String = hand
        .get(&format!("select epoch::text from divvy.task where id = {task} and status = 'reducing'"))
        .await;
    assert_eq!(key, "2");
    assert_eq!(hand.complete(&reduce[0]).await, "ok");
    assert_eq!(hand.status(task).await, "succeeded");
}

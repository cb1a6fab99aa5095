//! Whoever looks at the views sees the same over rows and over stretches.

use crate::lease::let_time_pass;
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};

/// A type of its own for each task, so that a claim is of that task alone. The first splits, claimed.
async fn begin(
    hand: &mut Hand,
    task_type: &str,
    options: &str,
    splits: i32,
    claim: usize,
) -> (i64, Vec<Claimed>) {
    hand.declare(task_type, options).await;
    let task = hand.divided(task_type, splits).await;
    let mut claimed = hand.claim(task_type, claim).await;
    claimed.sort_by_key(|split| split.split_no);
    assert!(claimed.iter().zip(1..).all(|(split, no)| split.split_no == no), "{claimed:?}");
    (task, claimed)
}

async fn said(hand: &mut Hand, function: &str, split: &Claimed, more: &str) {
    assert_eq!(hand.call(function, split, more).await, "ok", "{function} of {split:?}");
}

/// Brings splits of divided tasks into every state in every way.
async fn everything_befalls(db: &TestDb) -> Hand {
    let clock = Clock::stop(db).await;
    clock.set("2030-01-01T00:00:00Z".parse().unwrap()).await;
    let mut hand = Hand::new(db).await;
    let (plain, broken) = (
        r#"{"max_failed": 100, "backoff": {"kind": "fixed", "base": 60, "jitter": 0}}"#,
        r#"'{"class": "Broken", "message": "no luck"}'"#,
    );

    begin(
        &mut hand,
        "lost",
        r#"{"lease": "5 s", "backoff": {"kind": "fixed", "base": 0, "jitter": 0}}"#,
        4,
        2,
    )
    .await;
    let_time_pass(&clock, &mut hand, 20).await;

    let (task, splits) = begin(&mut hand, "all", plain, 12, 9).await;
    let skip = |no: i32| {
        format!(
            "select divvy.skip_split(id, 'not needed') from divvy.split where task_id = {task} and split_no = {no}"
        )
    };
    hand.run(&format!(
        "select divvy.complete_many('{{{}}}', '{{{}}}', '[{{\"n\": 1}}]')",
        splits[0].split_id, splits[0].token
    ))
    .await;
    said(&mut hand, "complete", &splits[1], "").await;
    said(&mut hand, "fail", &splits[2], broken).await;
    said(&mut hand, "fail", &splits[3], &format!("{broken}, false")).await;
    said(&mut hand, "snooze", &splits[4], "'1 hour', '{\"row\": 9}'").await;
    said(&mut hand, "release", &splits[5], "").await;
    said(&mut hand, "checkpoint", &splits[6], "'{\"row\": 7}', 0.5").await;
    hand.run(&skip(8)).await;
    hand.run(&skip(12)).await;

    let (task, _) = begin(&mut hand, "paused", plain, 3, 1).await;
    hand.run(&format!("select divvy.pause_task({task}, divvy.clock() + interval '1 hour', 'later')")).await;
    begin(&mut hand, "type_paused", plain, 3, 1).await;
    hand.run("select divvy.pause('type_paused', divvy.clock() + interval '1 hour', 'later')").await;
    begin(&mut hand, "full", r#"{"max_running": 1}"#, 3, 1).await;
    begin(&mut hand, "full_task", r#"{"max_running_per_task": 1}"#, 3, 2).await;
    let (task, _) = begin(&mut hand, "urgent", plain, 3, 0).await;
    hand.run(&format!(r#"select divvy.update_task({task}, '{{"priority": 1}}')"#)).await;
    let (task, _) = begin(&mut hand, "later", plain, 3, 1).await;
    hand.run(&format!("select divvy.reschedule({task}, divvy.clock() + interval '1 day')")).await;

    let (task, splits) = begin(&mut hand, "cancelled", plain, 4, 2).await;
    said(&mut hand, "complete", &splits[0], "").await;
    hand.run(&format!("select divvy.cancel({task}, 'enough')")).await;
    for redriven in [false, true] {
        let (task, splits) =
            begin(&mut hand, if redriven { "redriven" } else { "stopped" }, "{}", 4, 2).await;
        said(&mut hand, "complete", &splits[0], "").await;
        said(&mut hand, "fail", &splits[1], &format!("{broken}, false")).await;
        hand.run("select divvy.settle()").await;
        if redriven {
            hand.run(&format!("select divvy.redrive({task})")).await;
        }
    }
    let (task, splits) = begin(&mut hand, "resumed", "{}", 4, 1).await;
    said(&mut hand, "complete", &splits[0], "").await;
    hand.run(&format!("select divvy.cancel({task}, 'enough')")).await;
    hand.run(&format!("select divvy.redrive({task})")).await;

    let (_, splits) = begin(&mut hand, "reduced", r#"{"reduce": true}"#, 2, 2).await;
    assert_eq!(hand.complete_many(&splits).await, ["ok", "ok"]);
    hand.claim_one("reduced").await;
    hand
}

/// The view's rows without ids, tokens and workers, which differ from database to database.
async fn shown(hand: &mut Hand, view: &str) -> Vec<String> {
    let worker = hand.worker.to_string();
    let mut rows: Vec<String> = hand
        .all(&format!(
            "select (to_jsonb(x) - '{{id,task_id,split_id,token,worker,last_split_id,parent_task_id,has_row,meta}}'::text[]
                || jsonb_build_object('task', (select k.task_type from divvy.task k where k.id = (to_jsonb(x) ->> 'task_id')::bigint),
                    'held', to_jsonb(x) ->> 'token' is not null, 'by', to_jsonb(x) ->> 'worker' is not null,
                    'no', (select s.split_no from divvy.split s where s.id = (to_jsonb(x) ->> 'split_id')::bigint)))::text
             from divvy.{view} x"
        ))
        .await;
    for row in &mut rows {
        *row = row.replace(&worker, "the worker");
    }
    rows.sort();
    rows
}

#[tokio::test]
async fn every_view_says_the_same_over_rows_and_over_stretches() {
    let (rows, stretches) = (TestDb::all_in_rows().await, TestDb::all_in_stretches().await);
    let (mut of_rows, mut of_stretches) =
        (everything_befalls(&rows).await, everything_befalls(&stretches).await);
    assert!(!rows.has_had_stretches().await && stretches.has_had_stretches().await);
    let states: Vec<String> =
        of_stretches.all("select distinct status from divvy.split_overview order by 1").await;
    assert_eq!(states, ["cancelled", "delayed", "failed", "ready", "running", "skipped", "succeeded"]);
    let mut wrong = Vec::new();
    for view in [
        "split_overview",
        "split",
        "split_attempt",
        "task_overview",
        "task_progress",
        "type_stats",
        "worker_overview",
        "dead_splits",
        "full_type",
    ] {
        let (a, b) = (shown(&mut of_rows, view).await, shown(&mut of_stretches, view).await);
        assert!(!a.is_empty(), "{view} shows nothing");
        wrong.extend(a.iter().filter(|row| !b.contains(row)).map(|row| format!("{view}, rows alone: {row}")));
        wrong.extend(
            b.iter().filter(|row| !a.contains(row)).map(|row| format!("{view}, stretches alone: {row}")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

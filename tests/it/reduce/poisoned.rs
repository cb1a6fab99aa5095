//! A task that can't be ended keeps no other from it.

use super::bench;
use crate::support::hand::{Claimed, Hand};
use std::collections::HashMap;

const TASKS: usize = 500;

/// Open tasks with a split each; what the poisoned one sets off can't be made, as somebody's trigger refuses it.
async fn poisoned(hand: &mut Hand, task_type: &str) -> (i64, Vec<Claimed>) {
    hand.run(
        "create function public.refuse() returns trigger language plpgsql as
             $$ begin raise exception 'no % here', new.task_type; end $$;
         create trigger refuse before insert on divvy.task for each row when (new.task_type = 'narrow')
             execute function public.refuse()",
    )
    .await;
    hand.run(&format!(
        "insert into divvy.task (task_type, split_count, \"then\")
         select '{task_type}', 1, case when i = 250 then '{{\"succeeded\": {{\"task_type\": \"narrow\"}}}}'::jsonb end
           from generate_series(1, {TASKS}) i"
    ))
    .await;
    let bad = hand.get("select id from divvy.task where \"then\" is not null").await;
    let splits = hand.claim(task_type, TASKS).await;
    assert_eq!(splits.len(), TASKS);
    (bad, splits)
}

async fn ended(hand: &mut Hand) -> HashMap<String, i64> {
    let rows: Vec<String> = hand
        .all("select status::text || ' ' || count(*) from divvy.task where task_type <> 'narrow' group by status")
        .await;
    rows.iter().map(|r| r.split_once(' ').unwrap()).map(|(s, n)| (s.to_owned(), n.parse().unwrap())).collect()
}

#[tokio::test]
async fn one_task_whose_then_fails_does_not_keep_499_from_ending_at_the_reduce_check() {
    let (_db, mut hand) = bench().await;
    let (bad, splits) = poisoned(&mut hand, "each").await;
    // All ended side by side, none seen to be the last: the reduce check has to find them.
    hand.run("update divvy.share set state = 'succeeded', finished_at = divvy.clock()").await;
    hand.run("insert into divvy.fan_in (task_id) select id from divvy.task where status = 'running' and phase is null").await;
    assert_eq!(splits.len(), TASKS);
    for _ in 0..3 {
        hand.run("select divvy.tick(500)").await;
    }
    assert_eq!(ended(&mut hand).await, HashMap::from([("succeeded".into(), 499), ("running".into(), 1)]));
    let why: String = hand
        .get(&format!("select reason from divvy.event where verb = 'settle' and object_id = '{bad}' limit 1"))
        .await;
    assert!(why.contains("no narrow here"), "{why}");
    assert_eq!(hand.count("divvy.event where verb = 'settle'").await, 1, "said once, not at every tick");
    // What was in its way is gone: it ends by itself.
    hand.run("drop trigger refuse on divvy.task").await;
    hand.run("select divvy.tick(500)").await;
    assert_eq!(ended(&mut hand).await, HashMap::from([("succeeded".into(), 500)]));
    assert_eq!(hand.count(&format!("divvy.task where parent_task_id = {bad}")).await, 1);
}

#[tokio::test]
async fn one_task_whose_then_fails_does_not_keep_a_batch_from_completing() {
    let (_db, mut hand) = bench().await;
    let (bad, splits) = poisoned(&mut hand, "each").await;
    for batch in splits.chunks(100) {
        let verdicts = hand.try_complete_many(batch).await.expect("the batch");
        assert!(verdicts.iter().all(|v| v == "ok"));
    }
    // Those of its batch are ended by whoever looks for work next.
    while hand.count("divvy.fan_in").await > 0 {
        assert!(hand.claim("each", 1).await.is_empty());
    }
    assert_eq!(ended(&mut hand).await, HashMap::from([("succeeded".into(), 499), ("running".into(), 1)]));
    hand.run("drop trigger refuse on divvy.task").await;
    hand.run("select divvy.tick(500)").await;
    assert_eq!(hand.status(bad).await, "succeeded");
}

#[tokio::test]
async fn one_reduce_that_always_fails_does_not_keep_499_from_ending() {
    let (_db, mut hand) = bench().await;
    hand.declare("sum", r#"{"max_attempts": 2, "backoff": {"kind": "fixed", "base": 0, "jitter": 0}}"#).await;
    hand.run(&format!(
        "insert into divvy.task (task_type, split_count) select 'sum', 0 from generate_series(1, {TASKS})"
    ))
    .await;
    let bad: i64 = hand.get("select id from divvy.task order by id offset 250 limit 1").await;
    loop {
        let reduces = hand.claim("sum", 100).await;
        let (poison, good): (Vec<_>, Vec<_>) = reduces.into_iter().partition(|s| s.task_id == bad);
        if poison.is_empty() && good.is_empty() {
            break;
        }
        assert!(hand.complete_many(&good).await.iter().all(|v| v == "ok"));
        for split in &poison {
            assert_eq!(hand.call("fail", split, r#"'{"class": "poison", "message": "no"}'"#).await, "ok");
        }
    }
    assert_eq!(ended(&mut hand).await, HashMap::from([("succeeded".into(), 499), ("failed".into(), 1)]));
    assert_eq!(hand.count("divvy.attempt").await, 2);
    assert_eq!(hand.status(bad).await, "failed");
}

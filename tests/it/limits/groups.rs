//! Limits of a group and of a task, and turns.

use super::{enqueue_many, seen};
use crate::support::queue::{Queue, WORKER};
use serde_json::json;

/// Tasks of these groups, a letter each, in this order; a dot is a task without a group.
async fn enqueue_groups(q: &mut Queue, task_type: &str, groups: &str) {
    q.run(format!(
        "insert into divvy.task (task_type, group_key)
         select '{task_type}', nullif(g, '.') from string_to_table('{groups}', null) g"
    ))
    .await;
}

/// The groups of what a claim takes, in the order of its answer.
async fn claim_groups(q: &mut Queue, task_type: &str, max: u32) -> String {
    q.one(format!(
        "select coalesce(string_agg(coalesce(k.group_key, '.'), '' order by k.id), '')
         from divvy.claim('{WORKER}', '{{{task_type}}}', {max}) c join divvy.task k on k.id = c.task_id"
    ))
    .await
}

/// Completes what runs of a group.
async fn complete_group(q: &mut Queue, group: &str) {
    q.run(format!(
        "select divvy.complete(id, token) from divvy.split where status = 'running' and group_key = '{group}'"
    ))
    .await;
}

#[tokio::test]
async fn a_group_runs_no_more_than_its_limit_and_keeps_nobody_else_from_it() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_running_per_group": 2})).await;
    enqueue_groups(&mut q, "a", "ppppppq.p.").await;
    assert_eq!(claim_groups(&mut q, "a", 9).await, "ppq..");
    assert_eq!(
        seen(&mut q, "a").await,
        [("delayed".into(), Some("limit".into()), 5), ("running".into(), None, 5)]
    );
    let stats = "select ready, delayed, held, oldest_ready is null from divvy.type_stats";
    assert_eq!(q.rows::<(i64, i64, i64, bool)>(stats).await, [(0, 5, 5, true)]);
    assert!(q.one::<f64>("select extract(epoch from divvy.next_wait('{a}'))::float8").await > 0.0);
    complete_group(&mut q, "p").await;
    assert_eq!(q.one::<f64>("select extract(epoch from divvy.next_wait('{a}'))::float8").await, 0.0);
    assert_eq!(claim_groups(&mut q, "a", 1).await, "p");
    assert_eq!(claim_groups(&mut q, "a", 9).await, "p");
    assert_eq!(claim_groups(&mut q, "a", 9).await, "");
}

#[tokio::test]
async fn a_task_runs_no_more_splits_than_its_limit() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_running_per_task": 2})).await;
    let (one, two) = (q.enqueue_splits("a", 5).await, q.enqueue_splits("a", 1).await);
    enqueue_many(&mut q, "a", 3).await;
    let claimed = q.claim_up_to("a", 9).await;
    assert_eq!(claimed.len(), 6);
    assert_eq!(claimed.iter().filter(|s| s.task_id == one).count(), 2);
    assert_eq!(claimed.iter().filter(|s| s.task_id == two).count(), 1);
    assert_eq!(q.splits(one).await, ["running", "running", "delayed", "delayed", "delayed"]);
    let first = claimed.iter().find(|s| s.task_id == one).unwrap();
    q.fail(first, ", retry => false").await;
    // A split of it failed, beyond its tolerance: none of the others starts.
    assert!(q.claim_up_to("a", 9).await.is_empty());
    assert_eq!(q.splits(one).await, ["failed", "running", "skipped", "skipped", "skipped"]);
}

#[tokio::test]
async fn every_way_to_end_lets_the_next_of_the_group_start() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_running_per_group": 1})).await;
    for end in [
        "complete(ID, TOKEN)",
        "fail(ID, TOKEN, '{}', retry => false)",
        "fail(ID, TOKEN, '{}', retry_in => '1 hour')",
        "snooze(ID, TOKEN, '1 hour')",
        "release(ID, TOKEN)",
        "skip_split(ID)",
    ] {
        enqueue_groups(&mut q, "a", "gg").await;
        let split = q.claim("a").await;
        assert!(q.claim_up_to("a", 9).await.is_empty(), "{end}");
        let end = end.replace("ID", &split.split_id.to_string()).replace("TOKEN", &split.token.to_string());
        q.run(format!("select divvy.{end}")).await;
        let next = q.claim_up_to("a", 9).await;
        assert_eq!(next.len(), 1, "{end}");
        q.complete(&next[0]).await;
        q.run("delete from divvy.task where state in ('ready', 'delayed')").await;
        assert!(q.claim_up_to("a", 9).await.is_empty(), "{end}");
    }
}

#[tokio::test]
async fn a_note_that_was_lost_costs_time_and_no_split() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_running_per_group": 1})).await;
    enqueue_groups(&mut q, "a", "gg").await;
    let split = q.claim("a").await;
    assert!(q.claim_up_to("a", 9).await.is_empty());
    q.complete(&split).await;
    q.run("delete from divvy.freed").await;
    assert!(q.claim_up_to("a", 9).await.is_empty());
    q.tick().await;
    q.work("a").await;
    assert!(q.claim_up_to("a", 9).await.is_empty());
    assert_eq!(q.one::<i64>("select count(*) from divvy.freed").await, 0);
}

#[tokio::test]
async fn what_a_limit_holds_back_of_a_paused_task_waits_for_its_pause() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_running_per_task": 1})).await;
    let task = q.enqueue_splits("a", 2).await;
    let split = q.claim("a").await;
    assert!(q.claim_up_to("a", 9).await.is_empty());
    q.run(format!("select divvy.pause_task({task})")).await;
    q.complete(&split).await;
    assert!(q.claim_up_to("a", 9).await.is_empty());
    let why: String = q.one("select reason from divvy.split where status = 'delayed'").await;
    assert_eq!(why, "paused");
    q.run(format!("select divvy.resume_task({task})")).await;
    q.work("a").await;
    assert_eq!(q.status(task).await, "succeeded");
}

#[tokio::test]
async fn groups_take_turns_whatever_their_size() {
    let mut q = Queue::new().await;
    q.put("a", json!({"fair_by_group": true})).await;
    enqueue_groups(&mut q, "a", "ppppppppqqr.").await;
    assert_eq!(claim_groups(&mut q, "a", 4).await, "pqr.");
    assert_eq!(claim_groups(&mut q, "a", 3).await, "ppq");
    // One by one as well.
    enqueue_groups(&mut q, "a", "qqq").await;
    let mut served = String::new();
    for _ in 0..6 {
        served += &claim_groups(&mut q, "a", 1).await;
    }
    assert_eq!(served.matches('q').count(), 3, "{served}");
    assert_eq!(claim_groups(&mut q, "a", 9).await, "pp");
    assert_eq!(q.one::<i64>("select count(*) from divvy.split where status = 'running'").await, 15);
}

#[tokio::test]
async fn what_a_limit_holds_back_of_a_group_goes_on_in_the_order_in_which_it_came() {
    let mut q = Queue::new().await;
    q.put("a", json!({"max_running_per_group": 3})).await;
    enqueue_groups(&mut q, "a", "gggggggggggg").await;
    let mut served = q.claim_up_to("a", 99).await;
    for at in 0..9 {
        assert_eq!(served.len(), at + 3);
        let ended = served[at].clone();
        q.complete(&ended).await;
        served.extend(q.claim_up_to("a", 99).await);
    }
    let tasks: Vec<i64> = served.iter().map(|split| split.task_id).collect();
    assert!(tasks.len() == 12 && tasks.is_sorted(), "{tasks:?}");
}

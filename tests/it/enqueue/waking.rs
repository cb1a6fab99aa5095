//! Producers wake workers that wait, and nobody else; and not at all when they may not notify.

use crate::support::clock::Clock;
use crate::support::queue::Queue;
use sqlx::postgres::PgListener;
use std::time::Duration;

async fn listener(q: &Queue) -> PgListener {
    let mut listener = PgListener::connect_with(q.db.pool()).await.unwrap();
    listener.listen("divvy_ready").await.unwrap();
    listener
}

/// What was notified up to now: a mark of our own comes after it.
async fn heard(q: &mut Queue, listener: &mut PgListener) -> Vec<String> {
    q.run("notify divvy_ready, 'the mark'").await;
    let mut heard = Vec::new();
    loop {
        let payload = listener.recv().await.unwrap().payload().to_owned();
        if payload == "the mark" {
            return heard;
        }
        heard.push(payload);
    }
}

#[tokio::test]
async fn a_producer_notifies_only_the_types_whose_worker_said_it_waits() {
    let mut q = Queue::with_types(&["a", "b"]).await;
    let mut listener = listener(&q).await;
    q.enqueue("a").await;
    assert_eq!(heard(&mut q, &mut listener).await, [""; 0], "nobody waits");
    q.work("a").await;
    q.run("select divvy.next_wait('{a}')").await;
    q.run("insert into divvy.task (task_type) values ('a'), ('a'), ('b')").await;
    assert_eq!(heard(&mut q, &mut listener).await, ["a"], "once a type and transaction");
    q.run("begin; insert into divvy.task (task_type) values ('a'); select divvy.enqueue('a'); rollback")
        .await;
    assert_eq!(heard(&mut q, &mut listener).await, [""; 0], "a rollback notifies nobody");
}

#[tokio::test]
async fn a_producer_with_notify_off_notifies_nobody() {
    let mut q = Queue::with_types(&["a"]).await;
    let mut listener = listener(&q).await;
    q.run("select divvy.next_wait('{a}')").await;
    q.run("set divvy.notify = off").await;
    let id = q.enqueue("a").await;
    q.run(format!("select divvy.cancel({id})")).await;
    assert_eq!(heard(&mut q, &mut listener).await, [""; 0]);
    q.run("reset divvy.notify").await;
    q.enqueue("a").await;
    assert_eq!(heard(&mut q, &mut listener).await, ["a"]);
}

#[tokio::test]
async fn a_task_comes_in_by_two_phase_commit_with_notify_off() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run("select divvy.next_wait('{a}')").await;
    q.run("begin; insert into divvy.task (task_type) values ('a')").await;
    let refusal = q.refused("prepare transaction 'refused'").await;
    refusal.says("0A000", &["NOTIFY"]);
    let name = q.db.name().to_owned();
    q.run(format!("begin; set local divvy.notify = off; insert into divvy.task (task_type) values ('a'); prepare transaction '{name}'"))
        .await;
    assert!(q.claim_up_to("a", 1).await.is_empty(), "prepared is not committed");
    q.run(format!("commit prepared '{name}'")).await;
    assert_eq!(q.claim_up_to("a", 2).await.len(), 1);
}

#[tokio::test]
async fn a_worker_counts_as_idle_until_it_looks_again() {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    q.run("select divvy.next_wait('{a}')").await;
    // Whoever says it again so soon is not written down.
    clock.advance(Duration::from_millis(240)).await;
    q.run("update divvy.pulse set small_tick_at = divvy.clock()").await;
    let idle = "select divvy.next_wait('{a}') < (select idle_until - divvy.clock() from divvy.type_wake)";
    assert!(q.one::<bool>(idle).await);
}

#[tokio::test]
async fn next_wait_is_short_when_something_is_ready_or_due_soon() {
    let mut q = Queue::with_types(&["a"]).await;
    let wait = "select extract(epoch from divvy.next_wait('{a}'))::float8";
    q.run("update divvy.pulse set small_tick_at = divvy.clock()").await;
    assert!((q.one::<f64>(wait).await - 1.8).abs() < 1e-6, "at most so long, for the small tick");
    q.enqueue("a").await;
    assert!(q.one::<f64>(wait).await.abs() < 1e-6);
    q.run("select divvy.pause('a')").await;
    assert!(q.one::<f64>(wait).await > 0.5, "nothing of a paused type is to be had");
}

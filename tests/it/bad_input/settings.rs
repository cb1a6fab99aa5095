//! Calls in a transaction that sees an old snapshot: they would decide on what was, so they refuse.

use crate::support::queue::Queue;

#[tokio::test]
async fn what_decides_on_the_latest_state_needs_read_committed() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    let split = q.claim("a").await;
    let (id, token) = (split.split_id, split.token);
    for level in ["repeatable read", "serializable"] {
        for call in [
            format!("complete({id}, {token})"),
            format!("complete_many('{{{id}}}', '{{{token}}}')"),
            format!("fail({id}, {token}, '{{}}')"),
            format!("snooze({id}, {token}, '1 s')"),
            format!("release({id}, {token})"),
            format!("cancel({task})"),
            format!("redrive({task})"),
            "tick()".into(),
        ] {
            q.refused(format!("begin isolation level {level}; select divvy.{call}"))
                .await
                .says("DV010", &["READ COMMITTED", &level.to_uppercase()]);
        }
    }
    q.complete(&split).await;
    assert_eq!(q.status(task).await, "succeeded");
}

#[tokio::test]
async fn a_producer_may_use_any_isolation_level() {
    let mut q = Queue::with_types(&["a"]).await;
    for level in ["repeatable read", "serializable"] {
        q.run(format!(
            "begin isolation level {level}; select divvy.enqueue('a'); insert into divvy.task (task_type) values ('a'); commit"
        ))
        .await;
    }
    assert_eq!(q.claim_up_to("a", 10).await.len(), 4);
}

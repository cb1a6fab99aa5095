//! Orders to workers, and what a heartbeat says.

use crate::support::queue::{Queue, WORKER};

async fn order(q: &mut Queue) -> String {
    q.one(format!("select verdict from divvy.heartbeat('{WORKER}', '{{}}', '{{}}') where split_id is null"))
        .await
}

#[tokio::test]
async fn a_worker_hears_its_order_at_the_next_heartbeat_and_a_quiet_one_claims_nothing() {
    let mut q = Queue::with_types(&["a"]).await;
    q.enqueue("a").await;
    q.enqueue("a").await;
    let held = q.claim("a").await;
    assert_eq!(order(&mut q).await, "run");
    for command in ["quiet", "terminate"] {
        q.run(format!("select divvy.worker_command('{WORKER}', '{command}')")).await;
        let event = q.last_event("worker", WORKER).await;
        assert_eq!(event.verb, "worker_command");
        assert_eq!(event.after.unwrap()["command"], command);
        assert_eq!(order(&mut q).await, command);
        assert!(q.claim_up_to("a", 1).await.is_empty());
    }
    q.complete(&held).await;
    q.run(format!("select divvy.worker_command('{WORKER}', 'run')")).await;
    assert_eq!(order(&mut q).await, "run");
    q.work("a").await;
}

#[tokio::test]
async fn registering_again_keeps_the_order() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run(format!("select divvy.worker_command('{WORKER}', 'quiet')")).await;
    let command: String =
        q.one(format!("select command from divvy.register_worker('{WORKER}', 'again', '{{a}}', 2)")).await;
    assert_eq!(command, "quiet");
}

#[tokio::test]
async fn a_heartbeat_tells_each_split_apart() {
    let mut q = Queue::with_types(&["a"]).await;
    for _ in 0..3 {
        q.enqueue("a").await;
    }
    let splits = q.claim_up_to("a", 3).await;
    q.run(format!("select divvy.cancel({})", splits[1].task_id)).await;
    q.run(format!("select divvy.release({}, {})", splits[2].split_id, splits[2].token)).await;
    let ids = splits.iter().map(|s| s.split_id.to_string()).collect::<Vec<_>>().join(",");
    let token = splits[0].token;
    let verdicts: Vec<String> = q
        .all(format!(
            "select verdict from divvy.heartbeat('{WORKER}', '{{{ids}}}', '{{{token},{token},{token}}}')
             where split_id is not null order by split_id"
        ))
        .await;
    assert_eq!(verdicts, ["ok", "cancel", "lost"]);
}

#[tokio::test]
async fn the_heartbeat_is_a_third_of_the_shortest_lease() {
    let mut q = Queue::new().await;
    q.put("a", serde_json::json!({"lease": "9 s"})).await;
    q.put("b", serde_json::json!({"lease": "1 min"})).await;
    let seconds: f64 = q
        .one(format!(
            "select extract(epoch from heartbeat)::float8 from divvy.register_worker('{WORKER}', 'w', '{{a,b}}', 1)"
        ))
        .await;
    assert!((seconds - 3.0).abs() < 1e-9);
}

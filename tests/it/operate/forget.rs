//! forget deletes what a task carried, now, and keeps its history.

use crate::support::queue::Queue;
use serde_json::json;

const SECRET: &str = "4929-1111-2222-3333";

/// Tables whose rows hold the secret anywhere.
async fn holders(q: &mut Queue) -> Vec<String> {
    let mut found = Vec::new();
    for table in q
        .all::<String>("select relname::text from pg_class where relnamespace = 'divvy'::regnamespace and relkind = 'r' order by 1")
        .await
    {
        let holds: bool =
            q.one(format!("select exists (select from divvy.{table} t where t::text like '%{SECRET}%')")).await;
        if holds {
            found.push(table);
        }
    }
    found
}

#[tokio::test]
async fn nothing_a_task_carried_is_left_in_any_table() {
    let mut q = Queue::new().await;
    q.put("a", json!({"reduce": true, "max_failed": 1})).await;
    let secret = json!({"card": SECRET, "message": SECRET}).to_string();
    let task: i64 = q
        .one(format!(
            "insert into divvy.task (task_type, payload, headers, splits, run_at)
             values ('a', '{secret}', '{secret}', '[{secret}, {secret}]', now() + interval '1 day') returning id"
        ))
        .await;
    q.run(format!(r#"select divvy.update_task({task}, '{{"payload": {secret}}}')"#)).await;
    q.run(format!("select divvy.reschedule({task}, null)")).await;
    q.tick().await;
    let splits = q.claim_up_to("a", 2).await;
    let (id, token) = (splits[0].split_id, splits[0].token);
    q.run(format!("select divvy.checkpoint({id}, {token}, '{secret}')")).await;
    q.run(format!("select divvy.log({id}, {token}, 'info', '{SECRET}', '{secret}')")).await;
    q.refused(format!("select divvy.forget({task})"))
        .await
        .says("DV004", &[&task.to_string(), "running", "ended"]);
    q.run(format!("select divvy.fail({id}, {token}, '{secret}', retry => false)")).await;
    q.run(format!("select divvy.complete({}, {}, '{secret}')", splits[1].split_id, splits[1].token)).await;
    let reduce = q.claim("a").await;
    q.run(format!("select divvy.complete({}, {}, '{secret}')", reduce.split_id, reduce.token)).await;
    assert!(holders(&mut q).await.len() >= 4);
    q.run(format!("select divvy.forget({task})")).await;
    assert_eq!(holders(&mut q).await, [""; 0]);
    assert_eq!(q.status(task).await, "partial", "the history stays");
    assert_eq!(q.splits(task).await.len(), 3);
    assert_eq!(q.last_event("task", task).await.verb, "forget");
}

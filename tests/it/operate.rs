//! People and programs intervene; each intervention is an event with its actor and reason.

mod bulk;
mod cancel;
mod deadline;
mod forget;
mod large;
mod pause;
mod redrive;
mod redrive_parts;
mod update;
mod workers;

use crate::support::queue::Queue;

#[tokio::test]
async fn every_operate_function_names_a_task_that_does_not_exist() {
    let mut q = Queue::new().await;
    for call in [
        "cancel(999999)",
        "redrive(999999)",
        "update_task(999999, '{}')",
        "reschedule(999999, null)",
        "forget(999999)",
        "pause_task(999999)",
        "resume_task(999999)",
    ] {
        q.refused(format!("select divvy.{call}")).await.says("DV011", &["task", "999999"]);
    }
    for call in ["pause('nothing')", "resume('nothing')", "drop_task_type('nothing')"] {
        q.refused(format!("select divvy.{call}")).await.says("DV011", &["type", "nothing"]);
    }
    q.refused("select divvy.cancel_by_key('a', 'o''key')")
        .await
        .says("DV011", &["open task", "of type a", "o''key"]);
    assert_eq!(q.one::<i64>("select count(*) from divvy.event").await, 0, "a refusal is no decision");
}

#[tokio::test]
async fn an_event_is_written_with_its_decision_or_not_at_all() {
    let mut q = Queue::with_types(&["a"]).await;
    let task = q.enqueue("a").await;
    q.run(format!("begin; select divvy.cancel({task}, 'a whim'); rollback")).await;
    assert!(q.events("task", task).await.is_empty());
    let hash = "a".repeat(64);
    q.run(format!("select divvy.create_token('ci', '{hash}', '{{operator}}')")).await;
    q.run(format!(
        "begin; select divvy.act_as('{hash}'); select divvy.cancel({task}, 'duplicate order'); commit"
    ))
    .await;
    let event = q.last_event("task", task).await;
    assert_eq!((event.actor.as_str(), event.verb.as_str()), ("token ci", "cancel"));
    assert_eq!(event.reason.as_deref(), Some("duplicate order"));
    // The next transaction is nobody else's, and who only says so is not believed.
    q.run("set divvy.actor = 'token ci'; select divvy.pause('a', reason => 'night')").await;
    let event = q.last_event("type", "a").await;
    let user: String = q.one("select session_user::text").await;
    assert_eq!((event.actor, event.reason.as_deref()), (user, Some("night")));
}

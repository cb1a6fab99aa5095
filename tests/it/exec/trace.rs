//! A trace goes from the producer through plan, splits and reduce.

use super::Bench;
use crate::support::db::TestDb;
use crate::support::race::until;
use crate::support::running::Running;
use divvy::handler::{Context, Handler, HandlerError, Inputs, Outcome};
use divvy::worker::Worker;
use serde_json::{Value, json};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn the_trace_reaches_a_command_in_every_phase() {
    let script = r#"
        cat > /dev/null
        echo "$DIVVY_PHASE $TRACEPARENT $TRACESTATE" >&2
        case $DIVVY_PHASE in plan) echo 1 ;; esac"#;
    let mut bench = Bench::once(json!({"plan": true, "reduce": true}), script).await;
    let headers = json!({"headers": {"traceparent": PARENT, "tracestate": "a=1"}});
    let task = bench.enqueue(json!({}), headers).await;
    assert_eq!(bench.ended(task).await.0, "succeeded");
    // One without a trace has none, and a malformed one is none.
    let task = bench.enqueue(json!({}), json!({"headers": {"traceparent": "nonsense"}})).await;
    assert_eq!(bench.ended(task).await.0, "succeeded");
    let told: Vec<String> = sqlx::query_scalar("select message from divvy.split_log order by at")
        .fetch_all(bench.pool())
        .await
        .unwrap();
    let wanted: Vec<String> =
        ["plan", "execute", "reduce"].iter().map(|phase| format!("{phase} {PARENT} a=1")).collect();
    assert_eq!(told[..3], wanted);
    assert_eq!(told[3..], ["plan  ", "execute  ", "reduce  "]);
    bench.stop().await;
}

/// Answers with the trace it sees.
struct Traced;

impl Handler for Traced {
    const TASK_TYPE: &'static str = "traced";
    const PLAN: bool = true;
    const REDUCE: bool = true;
    type Payload = Value;
    type Share = Option<String>;
    type Output = Value;

    async fn split(&self, context: &mut Context<'_>, _: &Value) -> Result<(), HandlerError> {
        context.add_splits([context.traceparent()]).await?;
        Ok(())
    }

    async fn execute(
        &self,
        context: &mut Context<'_>,
        _: &Value,
        planned: Option<String>,
    ) -> Result<Outcome<Value>, HandlerError> {
        Ok(Outcome::Complete(json!([planned, context.traceparent(), context.tracestate()])))
    }

    async fn reduce(
        &self,
        context: &mut Context<'_>,
        _: &Value,
        mut inputs: Inputs<Value>,
    ) -> Result<Outcome<Value>, HandlerError> {
        let split = inputs.next(context).await?.and_then(|input| input.output);
        Ok(Outcome::Complete(json!({ "split": split, "reduce": context.traceparent() })))
    }
}

#[tokio::test]
async fn the_trace_reaches_a_handler_in_rust_in_every_phase_of_a_small_and_a_large_task() {
    let db = TestDb::new().await;
    let worker = Running::start(Worker::builder(db.pool().clone()).handler(Traced).slots(8).build().unwrap());
    let headers = json!({"headers": {"traceparent": PARENT, "tracestate": "a=1"}});
    for (options, planned) in
        [(json!({}), json!(PARENT)), (json!({"splits": vec![Value::Null; 40]}), Value::Null)]
    {
        let mut all = headers.clone();
        all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let task: i64 = sqlx::query_scalar("select task_id from divvy.enqueue('traced', '{}', $1)")
            .bind(all)
            .fetch_one(db.pool())
            .await
            .unwrap();
        let mut result = None;
        until("the task is reduced", async || {
            result = sqlx::query_scalar::<_, Option<Value>>("select result from divvy.task_result($1)")
                .bind(task)
                .fetch_one(db.pool())
                .await
                .unwrap();
            result.is_some()
        })
        .await;
        assert_eq!(result, Some(json!({"split": [planned, PARENT, "a=1"], "reduce": PARENT})));
    }
    worker.stop().await;
}

//! What people do to tasks.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::new_task::{Name, Span, Text};
use super::problem::Problem;
use super::route::{Route, post, send};
use crate::id::TaskId;
use crate::store::operate;
use crate::store::state::TaskStatus;
use axum::http::{Method, StatusCode};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    const ACT: &[Scope] = &[Scope::Operator];
    let acts = vec![
        send(Method::PATCH, "/api/v1/tasks/{task_id}", "Change an open task", update),
        post("/api/v1/tasks/{task_id}/cancel", "Cancel a task", cancel),
        post("/api/v1/tasks/cancel_by_key", "Cancel the open task that holds a dedupe_key", cancel_by_key),
        post("/api/v1/tasks/{task_id}/redrive", "Open again what did not succeed of an ended task", redrive),
        post("/api/v1/tasks/{task_id}/pause", "Hold a task", pause),
        post("/api/v1/tasks/{task_id}/resume", "End the pause of a task", resume),
        post("/api/v1/tasks/{task_id}/reschedule", "Another moment or priority for what waits", reschedule),
        post(
            "/api/v1/tasks/{task_id}/forget",
            "Delete payloads, results, errors and logs of an ended task",
            forget,
        ),
    ];
    acts.into_iter().map(|route| route.to(ACT).fails(&[404, 409])).collect()
}

/// Why, for those who look later
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Why {
    /// Why, for those who look later
    pub(super) reason: Option<String>,
}

/// Until when, and why
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pause {
    /// Until this moment; default: until it is resumed
    pub(super) until: Option<DateTime<Utc>>,
    /// Why, for those who look later
    pub(super) reason: Option<String>,
}

/// Nothing to say beside the action
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Plain {}

/// It is done
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Done {
    /// Always true
    pub(super) done: bool,
}

pub(super) const DONE: Done = Done { done: true };

/// Where the task stands after it
#[derive(Debug, Serialize, JsonSchema)]
struct Stands {
    /// Its status
    status: TaskStatus,
}

/// How many splits it was done to
#[derive(Debug, Serialize, JsonSchema)]
struct Splits {
    /// How many
    splits: i64,
}

async fn cancel(call: Call, why: Why) -> Result<Answer<Stands>, Problem> {
    let id = call.task()?;
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move { Ok(Stands { status: operate::cancel(c, id, why.reason.as_deref()).await? }) })
    })
    .await
}

/// Which task
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ByKey {
    /// Of this type
    task_type: Name,
    /// With this dedupe_key
    #[schemars(length(max = 1000))]
    dedupe_key: String,
    /// Why, for those who look later
    reason: Option<String>,
}

async fn cancel_by_key(call: Call, which: ByKey) -> Result<Answer<Stands>, Problem> {
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            let reason = which.reason.as_deref();
            let status = operate::cancel_by_key(c, &which.task_type.0, &which.dedupe_key, reason).await?;
            Ok(Stands { status })
        })
    })
    .await
}

/// Which splits, and how
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Redrive {
    /// Also those that were skipped by hand
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<bool>,
    /// Only these
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    only: Option<Text<Only>>,
    /// The budget of attempts from here on
    #[schemars(range(min = 1, max = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<i32>,
    /// Forget checkpoints
    #[serde(skip_serializing_if = "Option::is_none")]
    fresh: Option<bool>,
    /// Why, for those who look later
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Some of the splits
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read for its shape; the text is what is passed on")]
pub(super) struct Only {
    /// With these numbers
    split_no: Option<Vec<i32>>,
    /// With an error of this class
    error_class: Option<String>,
}

async fn redrive(call: Call, options: Redrive) -> Result<Answer<Splits>, Problem> {
    let (id, options) = (call.task()?, json!(options));
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move { Ok(Splits { splits: operate::redrive(c, id, &options).await? }) })
    })
    .await
}

/// What changes
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Change {
    /// Only while it is scheduled
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
    /// 1 (first) to 4
    #[schemars(range(min = 1, max = 4))]
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i16>,
    /// Cancelled then
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_at: Option<DateTime<Utc>>,
    /// Attempts of a split
    #[schemars(range(min = 1, max = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<i32>,
    /// The longest an attempt may take
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Span>,
    /// How many splits may fail
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_failed: Option<i32>,
    /// How many percent of them
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_failed_percent: Option<f64>,
    /// For filters
    #[schemars(length(max = 20))]
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
    /// Why, for those who look later
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A task
#[derive(Debug, Serialize, JsonSchema)]
struct Whole {
    /// The task
    task_id: TaskId,
}

async fn update(call: Call, change: Change) -> Result<Answer<Whole>, Problem> {
    let (id, change) = (call.task()?, json!(change));
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            operate::update_task(c, id, &change).await?;
            Ok(Whole { task_id: id })
        })
    })
    .await
}

async fn pause(call: Call, pause: Pause) -> Result<Answer<Done>, Problem> {
    let id = call.task()?;
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            operate::pause_task(c, id, pause.until, pause.reason.as_deref()).await?;
            Ok(DONE)
        })
    })
    .await
}

async fn resume(call: Call, _: Plain) -> Result<Answer<Done>, Problem> {
    let id = call.task()?;
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            operate::resume_task(c, id).await?;
            Ok(DONE)
        })
    })
    .await
}

/// When
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reschedule {
    /// Not before this moment; default: now
    run_at: Option<DateTime<Utc>>,
    /// 1 (first) to 4
    #[schemars(range(min = 1, max = 4))]
    priority: Option<i32>,
}

async fn reschedule(call: Call, to: Reschedule) -> Result<Answer<Splits>, Problem> {
    let id = call.task()?;
    call.act(StatusCode::OK, move |c| {
        Box::pin(
            async move { Ok(Splits { splits: operate::reschedule(c, id, to.run_at, to.priority).await? }) },
        )
    })
    .await
}

async fn forget(call: Call, _: Plain) -> Result<Answer<Done>, Problem> {
    let id = call.task()?;
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            operate::forget(c, id).await?;
            Ok(DONE)
        })
    })
    .await
}

//! The same done to many tasks.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::new_task::Text;
use super::problem::Problem;
use super::route::{Route, post};
use super::task_actions::Only;
use crate::id::{ScheduleId, TaskId};
use crate::store::bulk::{self, Bulk};
use crate::store::state::TaskStatus;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    vec![
        post(
            "/api/v1/bulk",
            "Count the tasks that match, or do something to the first thousand of them",
            act,
        )
        .to(&[Scope::Operator]),
    ]
}

/// What is done to each
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Cancel it
    Cancel,
    /// Open again what did not succeed
    Redrive,
    /// Hold it
    Pause,
    /// End its pause
    Resume,
    /// Another moment or priority, while it is scheduled
    Reschedule,
    /// Delete payloads, results, errors and logs
    Forget,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Redrive => "redrive",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reschedule => "reschedule",
            Self::Forget => "forget",
        }
    }
}

/// One or several
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Several<T> {
    /// One
    One(T),
    /// Several
    Many(Vec<T>),
}

/// Which tasks: all of what is said; nothing at all is refused
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Filter {
    /// Every task
    all: Option<bool>,
    /// These, at most 10,000
    #[schemars(length(max = 10_000))]
    ids: Option<Vec<TaskId>>,
    /// Of these types
    task_type: Option<Several<String>>,
    /// In these states
    status: Option<Several<TaskStatus>>,
    /// Made after this moment
    created_after: Option<DateTime<Utc>>,
    /// Made before this moment
    created_before: Option<DateTime<Utc>>,
    /// Ended after this moment
    finished_after: Option<DateTime<Utc>>,
    /// Ended before this moment
    finished_before: Option<DateTime<Utc>>,
    /// With this group_key
    group_key: Option<String>,
    /// With all of these labels
    labels: Option<Several<String>>,
    /// With this dedupe_key
    dedupe_key: Option<String>,
    /// With a dedupe_key that begins so
    dedupe_prefix: Option<String>,
    /// That failed so, themselves or a split of them: a fingerprint of /dead
    error: Option<String>,
    /// Made by this schedule
    schedule_id: Option<ScheduleId>,
    /// Made by the end of this task
    parent_task_id: Option<TaskId>,
    /// Go on after this one: last_id of the call before
    after: Option<TaskId>,
}

/// How it is done
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Why, for those who look later
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// pause: until this moment; default: until it is resumed
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<DateTime<Utc>>,
    /// reschedule: not before this moment; default: now
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<DateTime<Utc>>,
    /// reschedule: 1 (first) to 4
    #[schemars(range(min = 1, max = 4))]
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    /// redrive: also those that were skipped by hand
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<bool>,
    /// redrive: only these splits
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    only: Option<Text<Only>>,
    /// redrive: the budget of attempts from here on
    #[schemars(range(min = 1, max = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<i32>,
    /// redrive: forget checkpoints
    #[serde(skip_serializing_if = "Option::is_none")]
    fresh: Option<bool>,
}

/// What to do to which tasks
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ask {
    /// Which tasks
    filter: Filter,
    /// What is done to each
    action: Action,
    /// Only count; default: true
    dry_run: Option<bool>,
    /// How it is done
    options: Option<Options>,
}

async fn act(call: Call, ask: Ask) -> Result<Answer<Bulk>, Problem> {
    let mut filter = json!(ask.filter);
    if let Value::Object(said) = &mut filter {
        said.retain(|_, value| !value.is_null());
    }
    let options = json!(ask.options.unwrap_or_default());
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            bulk::bulk(c, &filter, ask.action.as_str(), ask.dry_run.unwrap_or(true), &options).await
        })
    })
    .await
}

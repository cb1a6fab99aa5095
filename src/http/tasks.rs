//! Tasks: enqueue, list, look, wait.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::intake;
use super::new_task::{NewTask, Text};
use super::page::{self, List, Page};
use super::problem::Problem;
use super::route::{Nothing, Route, get, post};
use super::{splits, stream};
use crate::id::{ScheduleId, TaskId};
use crate::store::enqueue;
use crate::store::listing::detail::{self, TaskDetail};
use crate::store::listing::history::{self, LogLine, LogPlace};
use crate::store::listing::{self, TaskFilter, TaskRow};
use crate::store::overview::{self, Progress};
use crate::store::state::TaskStatus;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::to_raw_value;
use std::time::Duration;
use tokio::time::timeout;

/// The longest wait for a task's end, in seconds.
const WAIT_MAX: f64 = 60.0;
/// The most tasks of one batch.
const BATCH_TASKS_MAX: usize = 10_000;

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    const LOOK: &[Scope] = &[Scope::Reader, Scope::Payloads, Scope::Operator];
    const OWN: &[Scope] = &[Scope::Producer, Scope::Reader, Scope::Payloads, Scope::Operator];
    const MAKE: &[Scope] = &[Scope::Producer];
    vec![
        get("/api/v1/tasks", "List tasks, newest first", list).to(LOOK),
        post("/api/v1/tasks", "Make a task", enqueue_one).to(MAKE).answers(&[201, 200]).fails(&[409]),
        post("/api/v1/tasks/batch", "Make many tasks, all or none", enqueue_many)
            .to(MAKE)
            .answers(&[201])
            .fails(&[409]),
        get("/api/v1/tasks/{task_id}", "Look at a task", one).to(LOOK).fails(&[404]),
        get(
            "/api/v1/tasks/{task_id}/result",
            "How a task ended, or where it stands; wait for its end",
            result,
        )
        .to(OWN)
        .fails(&[404]),
        get("/api/v1/tasks/{task_id}/progress", "How far a task is", progress).to(OWN).fails(&[404]),
        get(
            "/api/v1/tasks/{task_id}/stream",
            "How far a task is, as it changes, until it ends",
            stream::progress,
        )
        .to(OWN)
        .flows("text/event-stream")
        .fails(&[404]),
        get("/api/v1/tasks/{task_id}/splits", "The splits of a task, by number", splits::of_task).to(LOOK),
        get("/api/v1/tasks/{task_id}/log", "The log lines of a task's splits, oldest first", log).to(LOOK),
    ]
}

/// The answer to an enqueue
#[derive(Debug, Serialize, JsonSchema)]
struct Made {
    /// The task: the new one, or the one that holds the dedupe_key
    task_id: TaskId,
    /// False when the dedupe_key was held
    created: bool,
}

fn status(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}

async fn enqueue_one(call: Call, task: Text<NewTask>) -> Result<Answer<Made>, Problem> {
    if call.keyed.is_none() {
        let made = call.api.group.enqueue(task.raw, task.value.is_plain()).await?;
        let made = Made { task_id: made.task_id, created: made.created };
        return Answer::with(status(made.created), &made);
    }
    let tasks = to_raw_value(&[task.raw]).map_err(|error| Problem::malformed(error.to_string()))?;
    call.act_as(move |c| {
        Box::pin(async move {
            let rows = enqueue::enqueue_text(c, &tasks).await?;
            let made = rows.first().map(|row| Made { task_id: row.task_id, created: row.created });
            let made =
                made.ok_or_else(|| crate::Error::new(crate::ErrorKind::Protocol, "no task was made"))?;
            Ok((status(made.created), made))
        })
    })
    .await
}

/// Tasks to be made
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewTasks {
    /// 1 to 10,000 tasks
    #[schemars(length(min = 1, max = 10_000))]
    tasks: Vec<Text<NewTask>>,
}

/// The answers, in the order of the tasks
#[derive(Debug, Serialize, JsonSchema)]
struct AllMade {
    /// One for each
    items: Vec<Made>,
}

async fn enqueue_many(call: Call, body: NewTasks) -> Result<Answer<AllMade>, Problem> {
    let count = body.tasks.len();
    if !(1..=BATCH_TASKS_MAX).contains(&count) {
        return Err(Problem::invalid(format!("{count} tasks; a batch has 1 to {BATCH_TASKS_MAX}")));
    }
    let texts: Vec<_> = body.tasks.into_iter().map(|task| task.raw).collect();
    let tasks = to_raw_value(&texts).map_err(|error| Problem::malformed(error.to_string()))?;
    call.act(StatusCode::CREATED, move |c| {
        Box::pin(async move {
            let rows = enqueue::enqueue_text(c, &tasks).await?;
            let items = rows.iter().map(|row| Made { task_id: row.task_id, created: row.created });
            Ok(AllMade { items: items.collect() })
        })
    })
    .await
}

/// Which tasks
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Of this type
    task_type: Option<String>,
    /// In one of these states, separated by commas
    #[serde(default, deserialize_with = "intake::list")]
    #[schemars(length(min = 1))]
    status: Vec<TaskStatus>,
    /// With this label
    label: Option<String>,
    /// With this dedupe_key
    dedupe_key: Option<String>,
    /// Made by the `then` of this task
    parent_task_id: Option<TaskId>,
    /// Made by this schedule
    schedule_id: Option<ScheduleId>,
    /// Rows of a page; default 50
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u64>,
    /// The page after: next_cursor of the page before
    cursor: Option<TaskId>,
}

async fn list(call: Call, which: Which) -> Result<Answer<Page<TaskRow>>, Problem> {
    let limit = page::asked(which.limit)?;
    let filter = TaskFilter {
        task_type: which.task_type,
        statuses: which.status,
        label: which.label,
        dedupe_key: which.dedupe_key,
        parent: which.parent_task_id,
        schedule: which.schedule_id,
        before: which.cursor,
        limit: Some(limit + 1),
    };
    let rows = call.look(move |c| Box::pin(async move { listing::tasks(c, &filter).await })).await?;
    call.show(&Page::of(rows, limit, |row| row.task_id.to_string()))
}

async fn one(call: Call, _: Nothing) -> Result<Answer<TaskDetail>, Problem> {
    let id = call.task()?;
    let task = call.look(move |c| Box::pin(detail::task(c, id))).await?;
    call.show(&task)
}

/// How long to wait
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wait {
    /// Seconds to wait for the end: 0 to 60; default 0
    #[schemars(range(min = 0, max = 60))]
    wait: Option<f64>,
}

/// How a task ended, or where it stands
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Outcome {
    /// The task
    task_id: TaskId,
    /// Its status
    pub(super) status: TaskStatus,
    /// What it returned
    result: Option<Value>,
    /// Why it failed
    error: Option<Value>,
    /// When it ended
    finished_at: Option<DateTime<Utc>>,
}

/// A number of seconds that is none too many.
pub(super) fn seconds(name: &str, given: Option<f64>, most: f64) -> Result<Duration, Problem> {
    let given = given.unwrap_or_default();
    if !(0.0..=most).contains(&given) {
        return Err(Problem::invalid(format!("{name} is {given}; it must be 0 to {most} seconds")));
    }
    Ok(Duration::from_secs_f64(given))
}

async fn result(call: Call, query: Wait) -> Result<Answer<Outcome>, Problem> {
    let (id, wait) = (call.task()?, seconds("wait", query.wait, WAIT_MAX)?);
    let found = outcome(&call, id).await?;
    if found.status.is_final() || wait.is_zero() {
        return shown(&call, found);
    }
    tokio::select! {
        _ = timeout(wait, call.api.watch.ended(id)) => {}
        () = call.api.stop.cancelled() => {}
    }
    call.still_let_in().await?;
    let found = outcome(&call, id).await?;
    shown(&call, found)
}

pub(super) async fn outcome(call: &Call, id: TaskId) -> Result<Outcome, Problem> {
    let found = call.look(move |c| Box::pin(enqueue::task_result(c, id))).await?;
    let enqueue::TaskResult { status, result, error, finished_at } = found;
    Ok(Outcome { task_id: id, status, result, error, finished_at })
}

/// Producers read results, as `divvy.task_result` lets them.
fn shown(call: &Call, found: Outcome) -> Result<Answer<Outcome>, Problem> {
    match call.who.may(&[Scope::Producer]) {
        true => Answer::ok(&found),
        false => call.show(&found),
    }
}

async fn progress(call: Call, _: Nothing) -> Result<Answer<Progress>, Problem> {
    let id = call.task()?;
    let found = call.look(move |c| Box::pin(overview::progress(c, id))).await?;
    call.show(&found.ok_or_else(|| Problem::unknown("task", &id.to_string()))?)
}

/// Where to begin
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Since {
    /// Lines from this moment on
    since: Option<DateTime<Utc>>,
}

async fn log(call: Call, query: Since) -> Result<Answer<List<LogLine>>, Problem> {
    let id = call.task()?;
    let at = query.since.unwrap_or(DateTime::UNIX_EPOCH);
    let place = LogPlace { at, split: crate::id::SplitId(0), token: crate::id::Token(0), line: 0 };
    let lines = call.look(move |c| Box::pin(history::task_log(c, id, place))).await?;
    let cut = lines.len() as i64 >= history::ROWS_MAX;
    let mut list = List::of(lines);
    list.truncated |= cut;
    call.show(&list)
}

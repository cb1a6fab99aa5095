//! Splits: list, look, ask why one waits, set aside.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::intake;
use super::page::{self, List, Page};
use super::problem::Problem;
use super::route::{Nothing, Route, get, post};
use super::task_actions::{DONE, Done, Why};
use crate::id::{SplitId, TaskId};
use crate::store::explain::{self, RuleRow};
use crate::store::listing::detail::{self, AttemptRow, SplitDetail};
use crate::store::listing::history::{self, LogLine};
use crate::store::listing::{self, SplitFilter, SplitRow};
use crate::store::operate;
use crate::store::state::{Phase, SplitStatus};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    const LOOK: &[Scope] = &[Scope::Reader, Scope::Payloads, Scope::Operator];
    vec![
        get("/api/v1/splits", "List splits, by id", list).to(LOOK),
        get("/api/v1/splits/{split_id}", "Look at a split", one).to(LOOK).fails(&[404]),
        get("/api/v1/splits/{split_id}/attempts", "The attempts of a split, oldest first", attempts).to(LOOK),
        get("/api/v1/splits/{split_id}/log", "The log lines of a split, oldest first", log).to(LOOK),
        get(
            "/api/v1/splits/{split_id}/explain",
            "Why a split is not running: each rule that a claim applies, in order",
            explain,
        )
        .to(LOOK)
        .fails(&[404]),
        post("/api/v1/splits/{split_id}/skip", "Set a split aside: reduce does not wait for it", skip)
            .to(&[Scope::Operator])
            .fails(&[404, 409]),
    ]
}

/// Which splits
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Of this type
    task_type: Option<String>,
    /// In one of these states, separated by commas
    #[serde(default, deserialize_with = "intake::list")]
    #[schemars(length(min = 1))]
    status: Vec<SplitStatus>,
    /// For this
    phase: Option<Phase>,
    /// Held by this worker
    worker: Option<Uuid>,
    /// With an error of this class
    error_class: Option<String>,
    /// Rows of a page; default 50
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u64>,
    /// The page after: next_cursor of the page before
    cursor: Option<SplitId>,
}

async fn list(call: Call, which: Which) -> Result<Answer<Page<SplitRow>>, Problem> {
    page_of(call, None, which).await
}

/// The same of one task, in the order of their numbers.
pub(super) async fn of_task(call: Call, which: OfTask) -> Result<Answer<Page<SplitRow>>, Problem> {
    let task = call.task()?;
    let OfTask { status, phase, limit, cursor } = which;
    let which = Which { task_type: None, status, phase, worker: None, error_class: None, limit, cursor };
    page_of(call, Some(task), which).await
}

/// Which splits of the task
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfTask {
    /// In one of these states, separated by commas
    #[serde(default, deserialize_with = "intake::list")]
    #[schemars(length(min = 1))]
    status: Vec<SplitStatus>,
    /// For this
    phase: Option<Phase>,
    /// Rows of a page; default 50
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u64>,
    /// The page after: next_cursor of the page before
    cursor: Option<SplitId>,
}

async fn page_of(call: Call, task: Option<TaskId>, which: Which) -> Result<Answer<Page<SplitRow>>, Problem> {
    let limit = page::asked(which.limit)?;
    let filter = SplitFilter {
        task,
        task_type: which.task_type,
        statuses: which.status,
        phase: which.phase,
        worker: which.worker,
        error_class: which.error_class,
        after: which.cursor,
        limit: Some(limit + 1),
    };
    let rows = call.look(move |c| Box::pin(async move { listing::splits(c, &filter).await })).await?;
    call.show(&Page::of(rows, limit, |row| row.split_id.to_string()))
}

async fn one(call: Call, _: Nothing) -> Result<Answer<SplitDetail>, Problem> {
    let id = call.split()?;
    let split = call.look(move |c| Box::pin(detail::split(c, id))).await?;
    call.show(&split)
}

async fn attempts(call: Call, _: Nothing) -> Result<Answer<List<AttemptRow>>, Problem> {
    let id = call.split()?;
    let rows = call.look(move |c| Box::pin(detail::attempts(c, id))).await?;
    call.show(&List::of_last(rows))
}

async fn log(call: Call, _: Nothing) -> Result<Answer<List<LogLine>>, Problem> {
    let id = call.split()?;
    let rows = call.look(move |c| Box::pin(history::split_log(c, id))).await?;
    call.show(&List::of_last(rows))
}

async fn explain(call: Call, _: Nothing) -> Result<Answer<List<RuleRow>>, Problem> {
    let id = call.split()?;
    let rows = call.look(move |c| Box::pin(explain::split(c, id))).await?;
    call.show(&List::of(rows))
}

async fn skip(call: Call, why: Why) -> Result<Answer<Done>, Problem> {
    let id = call.split()?;
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            operate::skip_split(c, id, why.reason.as_deref()).await?;
            Ok(DONE)
        })
    })
    .await
}

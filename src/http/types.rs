//! Task types: list, look, declare, forget, pause.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::new_task::{Name, ReduceOn, Span, Text};
use super::page::List;
use super::problem::Problem;
use super::route::{Nothing, Route, delete, get, post, send};
use super::task_actions::{DONE, Done, Pause, Plain};
use crate::store::listing::detail::{self, TypeDetail};
use crate::store::operate;
use crate::store::overview::{self, TypeRow};
use axum::http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    const LOOK: &[Scope] = &[Scope::Reader, Scope::Payloads, Scope::Operator];
    const ACT: &[Scope] = &[Scope::Operator];
    vec![
        get("/api/v1/types", "List types: what waits and runs of each", list).to(LOOK),
        get("/api/v1/types/{task_type}", "Look at a type", one).to(LOOK).fails(&[404]),
        send(
            Method::PUT,
            "/api/v1/types/{task_type}",
            "Declare a type, or change the options that are named",
            put,
        )
        .to(ACT)
        .fails(&[409]),
        delete("/api/v1/types/{task_type}", "Forget a type that has no open task", drop)
            .to(ACT)
            .fails(&[404, 409]),
        post("/api/v1/types/{task_type}/pause", "Claim nothing more of a type", pause).to(ACT).fails(&[404]),
        post("/api/v1/types/{task_type}/resume", "End the pause of a type", resume).to(ACT).fails(&[404]),
    ]
}

async fn list(call: Call, _: Nothing) -> Result<Answer<List<TypeRow>>, Problem> {
    let rows = call.look(move |c| Box::pin(overview::types(c))).await?;
    call.show(&List::of(rows))
}

/// A type: what waits and runs of it, and its declaration
#[derive(Debug, Serialize, JsonSchema)]
struct Whole {
    /// What waits and runs
    stats: TypeRow,
    /// Its options; null when nobody has declared it
    declaration: Option<TypeDetail>,
}

async fn one(call: Call, _: Nothing) -> Result<Answer<Whole>, Problem> {
    let name = call.name("task_type").to_owned();
    let wanted = name.clone();
    let (declaration, rows) = call
        .look(move |c| {
            Box::pin(async move {
                Ok((detail::task_type(&mut *c, &wanted).await?, overview::types(&mut *c).await?))
            })
        })
        .await?;
    let stats = rows.into_iter().find(|row| row.task_type == name);
    let stats = stats.ok_or_else(|| Problem::unknown("type", &name))?;
    call.show(&Whole { stats, declaration })
}

/// The options of a type; null returns one to its default. What each means is in the protocol's paper
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read for its shape; the text is what is stored")]
struct Options {
    /// Who serves it: {"worker": true}. Other kinds run code on the server's side and are declared there
    handler: Option<Text<Handler>>,
    /// Whether a task begins with a plan
    plan: Option<bool>,
    /// Whether a task ends with a reduce
    reduce: Option<bool>,
    /// Attempts of a split
    #[schemars(range(min = 1, max = 1000))]
    max_attempts: Option<i32>,
    /// Time between attempts
    backoff: Option<Map<String, Value>>,
    /// The longest an attempt may take
    timeout: Option<Span>,
    /// How long a claim holds without a heartbeat
    lease: Option<Span>,
    /// Splits that run at once
    max_running: Option<i32>,
    /// Splits of one task that run at once
    max_running_per_task: Option<i32>,
    /// Splits of one group that run at once
    max_running_per_group: Option<i32>,
    /// At most so many starts in so much time
    rate: Option<Map<String, Value>>,
    /// Groups take turns
    fair_by_group: Option<bool>,
    /// Refuse more tasks than this waiting
    max_waiting: Option<i32>,
    /// How long a dedupe_key is held: open, an interval, or forever
    dedupe_window: Option<String>,
    /// How many splits may fail
    max_failed: Option<i32>,
    /// How many percent of them
    #[schemars(range(min = 0, max = 100))]
    max_failed_percent: Option<f64>,
    /// Whether reduce runs when splits failed
    reduce_on: Option<ReduceOn>,
    /// How long ended tasks are kept
    retention: Option<Map<String, Value>>,
    /// Tasks that follow
    then: Option<Map<String, Value>>,
}

/// Any worker that claims it
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read for its shape")]
struct Handler {
    /// Always true
    worker: bool,
}

/// A type
#[derive(Debug, Serialize, JsonSchema)]
struct Declared {
    /// The type
    task_type: Name,
}

async fn put(call: Call, options: Text<Options>) -> Result<Answer<Declared>, Problem> {
    let name = call.name("task_type").to_owned();
    let options: Value =
        serde_json::from_str(options.raw.get()).map_err(|e| Problem::malformed(e.to_string()))?;
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            operate::put_task_type(c, &name, &options).await?;
            Ok(Declared { task_type: Name(name) })
        })
    })
    .await
}

async fn drop(call: Call, _: Nothing) -> Result<Answer<Done>, Problem> {
    let name = call.name("task_type").to_owned();
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            operate::drop_task_type(c, &name).await?;
            Ok(DONE)
        })
    })
    .await
}

async fn pause(call: Call, pause: Pause) -> Result<Answer<Done>, Problem> {
    let name = call.name("task_type").to_owned();
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            operate::pause(c, &name, pause.until, pause.reason.as_deref()).await?;
            Ok(DONE)
        })
    })
    .await
}

async fn resume(call: Call, _: Plain) -> Result<Answer<Done>, Problem> {
    let name = call.name("task_type").to_owned();
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            operate::resume(c, &name).await?;
            Ok(DONE)
        })
    })
    .await
}

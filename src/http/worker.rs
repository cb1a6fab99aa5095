//! The worker protocol by HTTP: each route is one function of `sql/`, and a claim may wait for work.
//!
//! A worker's id is its own choice. Two that come with one id are one worker to the list and to commands; each claim still
//! has a token of its own, so neither can finish what the other holds by mistake.

mod claim;
mod settle;

use super::auth::Scope;
use super::call::{Answer, Call};
use super::new_task::{Name, Text};
use super::problem::Problem;
use super::route::{Route, post};
use crate::id::{SplitId, Token};
use crate::store::claim::next_wait;
use crate::store::state::{Command, Pulse};
use crate::store::worker::{self, Registration};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Ids of one call at most.
const IDS_MAX: usize = 10_000;
/// Types of one call at most.
const TYPES_MAX: usize = 1_000;
/// The longest lease or delay that may be asked for: ten years.
const SPAN_SECONDS_MAX: f64 = 315_360_000.0;

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    let routes = vec![
        post("/api/v1/worker/register", "Make a worker known", register).fails(&[409]),
        post("/api/v1/worker/claim", "Take ready splits; wait for some", claim::claim).fails(&[404]),
        post("/api/v1/worker/heartbeat", "Renew leases, and hear what to do", heartbeat).fails(&[404]),
        post("/api/v1/worker/wait", "How long nothing is expected; runs a small tick", wait),
    ];
    let settling = settle::routes();
    routes.into_iter().chain(settling).map(|route| route.to(&[Scope::Worker]).unkeyed()).collect()
}

/// A number of seconds as a lease or a delay.
pub(super) fn span(name: &str, seconds: Option<f64>) -> Result<Option<Duration>, Problem> {
    seconds.map(|given| super::tasks::seconds(name, Some(given), SPAN_SECONDS_MAX)).transpose()
}

fn names(given: Vec<Name>) -> Result<Vec<String>, Problem> {
    match given.len() {
        0..=TYPES_MAX => Ok(given.into_iter().map(|name| name.0).collect()),
        more => Err(Problem::invalid(format!("{more} task_types; a call has at most {TYPES_MAX}"))),
    }
}

/// Who the worker is
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Register {
    /// Its id: new for each process that starts
    worker: Uuid,
    /// Its name, for people
    name: String,
    /// What it serves
    #[schemars(length(max = 1000))]
    task_types: Vec<Name>,
    /// How many splits at once
    #[schemars(range(min = 1))]
    slots: i32,
    /// Types to declare that are not there yet
    #[serde(default)]
    types: BTreeMap<String, Text<Declare>>,
    /// What else to show of it
    #[serde(default)]
    meta: Map<String, Value>,
}

/// How a type begins and ends
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read for its shape; the text is what is stored")]
struct Declare {
    /// Its tasks begin with a plan
    #[serde(default)]
    plan: bool,
    /// Its tasks end with a reduce
    #[serde(default)]
    reduce: bool,
}

/// What to do
#[derive(Debug, Serialize, JsonSchema)]
struct Registered {
    /// run, quiet or terminate
    command: Command,
    /// How often to send a heartbeat
    heartbeat_seconds: f64,
}

async fn register(call: Call, who: Register) -> Result<Answer<Registered>, Problem> {
    let mut meta = who.meta;
    // What a type is may be said in `types` alone: a handler of another kind runs code on the server's side.
    meta.insert("types".to_owned(), json!(who.types));
    let who = Registration {
        worker: who.worker,
        name: who.name,
        task_types: names(who.task_types)?,
        slots: who.slots,
        meta: Value::Object(meta),
    };
    // In the token's name: it may declare types.
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            let (command, beat) = worker::register(c, &who).await?;
            Ok(Registered { command, heartbeat_seconds: beat.as_secs_f64() })
        })
    })
    .await
}

/// A split and the token that holds it
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Held {
    /// The split
    split_id: SplitId,
    /// The token of its claim
    token: Token,
}

/// What the worker holds
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Beat {
    /// The worker
    worker: Uuid,
    /// The splits that it still works on
    #[schemars(length(max = 10_000))]
    splits: Vec<Text<Held>>,
    /// For how long, in seconds; default: as before
    #[schemars(range(min = 0, max = 315_360_000))]
    lease: Option<f64>,
}

/// What to do
#[derive(Debug, Serialize, JsonSchema)]
struct Beaten {
    /// run, quiet or terminate
    command: Command,
    /// What each split is to do
    splits: Vec<Verdict>,
}

/// What a split is to do
#[derive(Debug, Serialize, JsonSchema)]
struct Verdict {
    /// The split
    split_id: SplitId,
    /// ok, cancel or lost
    verdict: Pulse,
}

fn few(what: &str, count: usize) -> Result<(), Problem> {
    match count {
        0..=IDS_MAX => Ok(()),
        more => Err(Problem::invalid(format!("{more} {what}; a call has at most {IDS_MAX}"))),
    }
}

async fn heartbeat(call: Call, beat: Beat) -> Result<Answer<Beaten>, Problem> {
    few("splits", beat.splits.len())?;
    let lease = span("lease", beat.lease)?;
    let (splits, tokens): (Vec<_>, Vec<_>) =
        beat.splits.iter().map(|held| (held.value.split_id, held.value.token)).unzip();
    let told = call
        .look(move |c| {
            Box::pin(async move { worker::heartbeat(c, beat.worker, &splits, &tokens, lease).await })
        })
        .await?;
    let splits = told.splits.into_iter().map(|(split_id, verdict)| Verdict { split_id, verdict }).collect();
    Answer::ok(&Beaten { command: told.command, splits })
}

/// Of which types
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Types {
    /// The types
    #[schemars(length(max = 1000))]
    task_types: Vec<Name>,
}

/// How long
#[derive(Debug, Serialize, JsonSchema)]
struct Waits {
    /// Seconds for which nothing is expected
    seconds: Option<f64>,
}

async fn wait(call: Call, types: Types) -> Result<Answer<Waits>, Problem> {
    let types = names(types.task_types)?;
    let wait = call.look(move |c| Box::pin(async move { next_wait(c, &types).await })).await?;
    Answer::ok(&Waits { seconds: wait.map(|wait| wait.as_secs_f64()) })
}

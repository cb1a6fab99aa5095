//! Schedules: list, look, put, preview, and what people do to them.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::new_schedule::{NewSchedule, Rule};
use super::new_task::{Name, Text};
use super::page::{self, List, Page};
use super::problem::Problem;
use super::route::{Nothing, Route, get, post, send};
use super::task_actions::{DONE, Done, Pause, Plain, Why};
use crate::id::{ScheduleId, TaskId};
use crate::store::clock;
use crate::store::overview::{self, ScheduleRow};
use crate::store::schedule::{self, FireRow, Put};
use crate::trigger::Trigger;
use axum::http::{Method, StatusCode};
use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most moments of a preview.
const PREVIEW_MAX: usize = 1_000;

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    const LOOK: &[Scope] = &[Scope::Reader, Scope::Payloads, Scope::Operator];
    const ACT: &[Scope] = &[Scope::Operator];
    const BOTH: &[u16] = &[404, 409];
    vec![
        get("/api/v1/schedules", "List schedules, those that have ended last", list).to(LOOK),
        post("/api/v1/schedules/preview", "The next moments of a rule that is not stored", preview)
            .to(LOOK)
            .unkeyed(),
        get("/api/v1/schedules/{name}", "Look at a schedule", one).to(LOOK).fails(&[404]),
        send(
            Method::PUT,
            "/api/v1/schedules/{name}",
            "Store a schedule, or change the one of that name, whole",
            put,
        )
        .to(ACT)
        .answers(&[200, 201])
        .fails(&[409]),
        get("/api/v1/schedules/{name}/history", "The moments that were decided, latest first", history)
            .to(LOOK)
            .fails(&[404]),
        post("/api/v1/schedules/{name}/trigger", "Make a task now", trigger).to(ACT).fails(BOTH),
        post("/api/v1/schedules/{name}/backfill", "Make the tasks of past moments", backfill)
            .to(ACT)
            .fails(BOTH),
        post("/api/v1/schedules/{name}/pause", "Stop a schedule from firing", pause).to(ACT).fails(BOTH),
        post("/api/v1/schedules/{name}/resume", "Let a schedule fire again", resume).to(ACT).fails(BOTH),
        post("/api/v1/schedules/{name}/cancel", "End a schedule; tasks it made go on", cancel)
            .to(ACT)
            .fails(BOTH),
    ]
}

async fn list(call: Call, _: Nothing) -> Result<Answer<List<ScheduleRow>>, Problem> {
    let rows = call.look(move |c| Box::pin(overview::schedules(c))).await?;
    call.show(&List::of(rows))
}

async fn one(call: Call, _: Nothing) -> Result<Answer<ScheduleRow>, Problem> {
    let name = call.name("name").to_owned();
    let rows = call.look(move |c| Box::pin(overview::schedules(c))).await?;
    let mut rows = rows.into_iter().filter(|row| row.name.as_ref() == Some(&name)).collect::<Vec<_>>();
    // Those that have ended come last: the open one, else the newest.
    rows.sort_by_key(|row| {
        (matches!(row.status.as_str(), "done" | "cancelled"), std::cmp::Reverse(row.schedule_id))
    });
    match rows.first() {
        Some(row) => call.show(row),
        None => Err(Problem::unknown("schedule", call.name("name"))),
    }
}

/// What became of it
#[derive(Debug, Serialize, JsonSchema)]
struct Stored {
    /// The schedule
    schedule_id: ScheduleId,
    /// Its name
    name: Name,
    /// created, changed or unchanged
    outcome: String,
}

async fn put(call: Call, new: Text<NewSchedule>) -> Result<Answer<Stored>, Problem> {
    let name = call.name("name").to_owned();
    let trigger = new.value.rule().trigger()?;
    let mut options: Map<String, Value> =
        serde_json::from_str(new.raw.get()).map_err(|error| Problem::malformed(error.to_string()))?;
    if let Some(Trigger::Timed { at }) = &trigger {
        options.insert("run_at".to_owned(), at.to_rfc3339().into());
    }
    call.act_as(move |c| {
        Box::pin(async move {
            if let Some(trigger) = trigger {
                let now = clock::now(&mut *c).await?;
                trigger.ensure_fires_after(now, now)?;
            }
            let put = schedule::put_whole(&mut *c, &name, options, false).await?;
            let (status, schedule_id, outcome) = match put {
                Put::Created(id) => (StatusCode::CREATED, id, "created"),
                Put::Changed(id) => (StatusCode::OK, id, "changed"),
                Put::Unchanged(id) => (StatusCode::OK, id, "unchanged"),
            };
            Ok((status, Stored { schedule_id, name: Name(name), outcome: outcome.to_owned() }))
        })
    })
    .await
}

/// A rule, and what to show of it
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Preview {
    /// When it fires
    rule: Text<Rule>,
    /// Moments after this one; default: now, by the database's clock
    after: Option<DateTime<Utc>>,
    /// How many; default 5
    #[schemars(range(min = 1, max = 1000))]
    count: Option<usize>,
}

/// The next moments
#[derive(Debug, Serialize, JsonSchema)]
struct Moments {
    /// The moments, in UTC
    moments: Vec<DateTime<Utc>>,
}

async fn preview(call: Call, ask: Preview) -> Result<Answer<Moments>, Problem> {
    let count = ask.count.unwrap_or(5);
    if !(1..=PREVIEW_MAX).contains(&count) {
        return Err(Problem::invalid(format!("count is {count}; it must be 1 to {PREVIEW_MAX}")));
    }
    let trigger = ask.rule.value.trigger()?;
    let trigger = trigger.ok_or_else(|| Problem::invalid("give one of cron, run_at, steps and every"))?;
    let after = match ask.after {
        Some(after) => after,
        None => call.look(move |c| Box::pin(clock::now(c))).await?,
    };
    let moments = trigger.moments(after, after, DateTime::<Utc>::MAX_UTC, count);
    call.show(&Moments { moments })
}

/// Which rows
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Rows of a page; default 50
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u64>,
    /// The page after: next_cursor of the page before
    cursor: Option<DateTime<Utc>>,
}

async fn history(call: Call, which: Which) -> Result<Answer<Page<FireRow>>, Problem> {
    let limit = page::asked(which.limit)?;
    let name = call.name("name").to_owned();
    let (rows, more) = call
        .look(move |c| {
            Box::pin(async move {
                let schedule = schedule::rule(&mut *c, &name).await?.schedule_id;
                let asked = i64::try_from(limit).unwrap_or(i64::MAX);
                let rows = schedule::history(&mut *c, schedule, which.cursor, asked).await?;
                Ok((rows, asked))
            })
        })
        .await?;
    // A moment that was decided in several ways is never cut in two: a page may have a few rows more.
    let next = rows.last().filter(|_| rows.len() as i64 >= more);
    let next_cursor = next.map(|row| row.fire_at.to_rfc3339_opts(SecondsFormat::Micros, true));
    call.show(&Page { items: rows, next_cursor })
}

/// What was made
#[derive(Debug, Serialize, JsonSchema)]
struct Triggered {
    /// The task; null when its dedupe_key is held
    task_id: Option<TaskId>,
}

async fn trigger(call: Call, why: Why) -> Result<Answer<Triggered>, Problem> {
    let name = call.name("name").to_owned();
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            let task_id = schedule::trigger_schedule(c, &name, why.reason.as_deref()).await?;
            Ok(Triggered { task_id })
        })
    })
    .await
}

/// Which moments
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Backfill {
    /// Past moments, at most 10,000
    #[schemars(length(max = 10_000))]
    moments: Vec<DateTime<Utc>>,
    /// How many of the tasks may be open at a time; default 1
    #[schemars(range(min = 1, max = 1000))]
    max_running: Option<i32>,
    /// Why, for those who look later
    reason: Option<String>,
}

/// How many were new
#[derive(Debug, Serialize, JsonSchema)]
struct Backfilled {
    /// Moments that were not backfilled before
    new: i32,
}

async fn backfill(call: Call, which: Backfill) -> Result<Answer<Backfilled>, Problem> {
    let name = call.name("name").to_owned();
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            let running = which.max_running.unwrap_or(1);
            let reason = which.reason.as_deref();
            let new = schedule::backfill_schedule(c, &name, &which.moments, running, reason).await?;
            Ok(Backfilled { new })
        })
    })
    .await
}

async fn pause(call: Call, pause: Pause) -> Result<Answer<Done>, Problem> {
    let name = call.name("name").to_owned();
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            schedule::pause_schedule(c, &name, pause.until, pause.reason.as_deref()).await?;
            Ok(DONE)
        })
    })
    .await
}

async fn resume(call: Call, _: Plain) -> Result<Answer<Done>, Problem> {
    let name = call.name("name").to_owned();
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            schedule::resume_schedule(c, &name).await?;
            Ok(DONE)
        })
    })
    .await
}

async fn cancel(call: Call, why: Why) -> Result<Answer<Done>, Problem> {
    let name = call.name("name").to_owned();
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            schedule::cancel_schedule(c, &name, why.reason.as_deref()).await?;
            Ok(DONE)
        })
    })
    .await
}

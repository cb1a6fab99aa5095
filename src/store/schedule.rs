//! Schedules: making and replacing one, what people do to them, and what they have fired.

use crate::id::{ScheduleId, TaskId};
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::types::PgInterval;
use sqlx::{PgConnection, PgExecutor};

/// When a schedule fires, as its row says it.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Once per offset after its creation.
    Steps(Vec<TimeDelta>),
    /// Once.
    At(DateTime<Utc>),
    /// By cron text.
    Cron(String),
    /// One interval after another.
    Every(TimeDelta),
}

/// A schedule to be stored.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    /// Its name.
    pub name: String,
    /// The type of the tasks it makes.
    pub task_type: String,
    /// Their payload.
    pub payload: Value,
    /// When.
    pub rule: Rule,
    /// The zone whose clock a cron rule reads.
    pub timezone: String,
    /// Other columns by name; a null leaves a column at its default.
    pub options: Value,
}

/// What [`put`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// There was none of that name.
    Created(ScheduleId),
    /// The one of that name was ended and this one takes its place.
    Replaced(ScheduleId),
    /// The one of that name says the same: it was left alone.
    Unchanged(ScheduleId),
}

/// A schedule that has not ended.
#[derive(sqlx::FromRow)]
struct Open {
    id: ScheduleId,
    status: String,
    paused_until: Option<DateTime<Utc>>,
    reason: Option<String>,
}

/// The columns that make a schedule what it is, as one value.
const DEFINITION: &str = "select jsonb_build_object('type', s.task_type, 'payload', s.payload, 'steps', s.steps,
        'run_at', s.run_at, 'cron', s.cron, 'every', s.every, 'timezone', s.timezone, 'overlap', s.overlap,
        'gap', s.dst_gap, 'fold', s.dst_fold, 'starts_at', s.starts_at, 'ends_at', s.ends_at,
        'max_runs', s.max_runs, 'stop_on_success', s.stop_on_success, 'priority', s.priority, 'labels', s.labels)
   from divvy.schedule s where s.id = $1";

/// Stores a schedule. One of that name that has not ended is replaced, unless it says the same; a pause of it
/// goes on. Call it in a transaction: what it answers holds from its commit.
///
/// # Errors
/// BadSchedule, BadOption, OverLimit, naming the value.
pub async fn put(connection: &mut PgConnection, schedule: &NewSchedule) -> Result<Put> {
    let open: Option<Open> = sqlx::query_as(
        "select id, status::text as status, nullif(paused_until, 'infinity') as paused_until, reason from divvy.schedule
          where name = $1 and status in ('active', 'paused', 'refused') for update",
    )
    .bind(&schedule.name)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(open) = open else {
        return Ok(Put::Created(insert(connection, schedule).await?));
    };
    sqlx::query("savepoint divvy_put").execute(&mut *connection).await?;
    cancel_schedule(&mut *connection, &schedule.name, Some("replaced")).await?;
    let new = insert(connection, schedule).await?;
    if open.status != "refused"
        && definition(connection, open.id).await? == definition(connection, new).await?
    {
        sqlx::query("rollback to savepoint divvy_put").execute(&mut *connection).await?;
        return Ok(Put::Unchanged(open.id));
    }
    if open.status == "paused" {
        pause_schedule(&mut *connection, &schedule.name, open.paused_until, open.reason.as_deref()).await?;
    }
    Ok(Put::Replaced(new))
}

async fn definition(connection: &mut PgConnection, id: ScheduleId) -> Result<Value> {
    Ok(sqlx::query_scalar(DEFINITION).bind(id).fetch_one(connection).await?)
}

async fn insert(connection: &mut PgConnection, schedule: &NewSchedule) -> Result<ScheduleId> {
    let interval = |delta: &TimeDelta| -> Result<PgInterval> {
        let microseconds = delta.num_microseconds().ok_or_else(|| {
            Error::new(ErrorKind::BadSchedule, format!("schedule {}: {delta} is too long", schedule.name))
        })?;
        Ok(PgInterval { months: 0, days: 0, microseconds })
    };
    let (mut steps, mut run_at, mut cron, mut every) = (None, None, None, None);
    match &schedule.rule {
        Rule::Steps(offsets) => steps = Some(offsets.iter().map(interval).collect::<Result<Vec<_>>>()?),
        Rule::At(at) => run_at = Some(*at),
        Rule::Cron(text) => cron = Some(text),
        Rule::Every(delta) => every = Some(interval(delta)?),
    }
    Ok(sqlx::query_scalar(
        "insert into divvy.schedule (name, task_type, payload, steps, run_at, cron, every, timezone, overlap, dst_gap,
                dst_fold, starts_at, ends_at, max_runs, stop_on_success, priority, labels)
         select $1, $2, $3, $4, $5, $6, $7, $8, coalesce(o.overlap, 'skip'), coalesce(o.dst_gap, 'shift'),
                coalesce(o.dst_fold, 'first'), o.starts_at, o.ends_at, o.max_runs,
                coalesce(o.stop_on_success, false), coalesce(o.priority, 2), o.labels
           from jsonb_to_record($9) as o (overlap text, dst_gap text, dst_fold text, starts_at timestamptz,
                ends_at timestamptz, max_runs int, stop_on_success boolean, priority smallint, labels text[])
         returning id",
    )
    .bind(&schedule.name)
    .bind(&schedule.task_type)
    .bind(&schedule.payload)
    .bind(steps)
    .bind(run_at)
    .bind(cron)
    .bind(every)
    .bind(&schedule.timezone)
    .bind(&schedule.options)
    .fetch_one(connection)
    .await?)
}

/// A stored schedule's rule, for previews.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct StoredRule {
    /// Its id.
    pub schedule_id: ScheduleId,
    /// How it stands.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Stepped: the moments themselves.
    pub step_moments: Option<Vec<DateTime<Utc>>>,
    /// Timed.
    pub run_at: Option<DateTime<Utc>>,
    /// Cron.
    pub cron: Option<String>,
    /// Every so many seconds.
    pub every_seconds: Option<f64>,
    /// The zone whose clock it reads.
    pub timezone: String,
    /// What becomes of a local time that the clock skips.
    pub dst_gap: String,
    /// What becomes of a local time that comes twice.
    pub dst_fold: String,
    /// What it counts from.
    pub anchor: DateTime<Utc>,
    /// It fires from this moment on.
    pub starts_at: Option<DateTime<Utc>>,
    /// It fires before this.
    pub ends_at: Option<DateTime<Utc>>,
    /// How often it may still fire.
    pub runs_left: Option<i32>,
    /// Moments up to here are decided.
    pub fired_through: Option<DateTime<Utc>>,
}

/// The newest schedule of a name.
///
/// # Errors
/// NotFound.
pub async fn rule(executor: impl PgExecutor<'_>, name: &str) -> Result<StoredRule> {
    sqlx::query_as(
        "select s.id as schedule_id, s.status::text as status, s.reason,
                (select array_agg(s.created_at + o order by o) from unnest(s.steps) o) as step_moments, s.run_at, s.cron,
                extract(epoch from s.every)::float8 as every_seconds, s.timezone, s.dst_gap, s.dst_fold,
                coalesce(s.starts_at, s.created_at) as anchor, s.starts_at, s.ends_at,
                s.max_runs - s.runs as runs_left, s.fired_through
           from divvy.schedule s where s.name = $1
          order by s.status in ('active', 'paused', 'refused') desc, s.id desc limit 1",
    )
    .bind(name)
    .fetch_optional(executor)
    .await?
    .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no schedule {name}")))
}

/// A row of `divvy.schedule_fire`: a moment and what was decided.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "the table's columns, documented in sql/README.md")]
pub struct FireRow {
    pub schedule_id: ScheduleId,
    pub fire_at: DateTime<Utc>,
    pub kind: String,
    pub outcome: String,
    pub task_id: Option<TaskId>,
    pub task_status: Option<String>,
    pub reason: Option<String>,
    pub count: i32,
    pub late_seconds: Option<f64>,
    pub decided_at: DateTime<Utc>,
}

/// The moments of one schedule, latest first, before a given one.
///
/// # Errors
/// Database.
pub async fn history(
    executor: impl PgExecutor<'_>,
    schedule: ScheduleId,
    before: Option<DateTime<Utc>>,
    limit: i64,
) -> Result<Vec<FireRow>> {
    Ok(sqlx::query_as(
        "select f.schedule_id, f.fire_at, f.kind, f.outcome, f.task_id, k.status::text as task_status, f.reason,
                f.count, extract(epoch from f.late)::float8 as late_seconds, f.at as decided_at
           from divvy.schedule_fire f left join divvy.task k on k.id = f.task_id
          where f.schedule_id = $1 and ($2::timestamptz is null or f.fire_at < $2)
          order by f.fire_at desc, f.kind limit $3",
    )
    .bind(schedule)
    .bind(before)
    .bind(limit)
    .fetch_all(executor)
    .await?)
}

/// `divvy.pause_schedule`: no fires until `until`, or until resumed.
///
/// # Errors
/// NotFound when none of that name is open; Conflict when it is refused.
pub async fn pause_schedule(
    executor: impl PgExecutor<'_>,
    name: &str,
    until: Option<DateTime<Utc>>,
    reason: Option<&str>,
) -> Result<()> {
    let query = sqlx::query("select divvy.pause_schedule($1, $2, $3)").bind(name).bind(until).bind(reason);
    query.execute(executor).await?;
    Ok(())
}

/// `divvy.resume_schedule`: fires again.
///
/// # Errors
/// NotFound when none of that name is open; Conflict when it is refused.
pub async fn resume_schedule(executor: impl PgExecutor<'_>, name: &str) -> Result<()> {
    sqlx::query("select divvy.resume_schedule($1)").bind(name).execute(executor).await?;
    Ok(())
}

/// `divvy.trigger_schedule`: one task now, beside the rule; none when its dedupe key is held.
///
/// # Errors
/// NotFound when none of that name is open.
pub async fn trigger_schedule(executor: impl PgExecutor<'_>, name: &str) -> Result<Option<TaskId>> {
    Ok(sqlx::query_scalar("select divvy.trigger_schedule($1)").bind(name).fetch_one(executor).await?)
}

/// `divvy.cancel_schedule`: ends it; no later moment fires.
///
/// # Errors
/// NotFound when none of that name is open.
pub async fn cancel_schedule(executor: impl PgExecutor<'_>, name: &str, reason: Option<&str>) -> Result<()> {
    sqlx::query("select divvy.cancel_schedule($1, $2)").bind(name).bind(reason).execute(executor).await?;
    Ok(())
}

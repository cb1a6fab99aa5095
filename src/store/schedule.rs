//! Schedules: making and replacing one, what people do to them, and what they have fired.

use crate::id::{ScheduleId, TaskId};
use crate::in_sql::row;
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::PgExecutor;

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
    /// Other options by name; a null is the default.
    pub options: Value,
    /// A name that is taken is refused.
    pub is_new: bool,
}

/// What [`put`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// There was none of that name.
    Created(ScheduleId),
    /// The one of that name is another from now on; its ledger and a pause go on.
    Changed(ScheduleId),
    /// The one of that name says the same: it was left alone.
    Unchanged(ScheduleId),
}

/// Every option that may be left out: then it is at its default.
const DEFAULTED: [&str; 25] = [
    "dst_gap",
    "dst_fold",
    "starts_at",
    "ends_at",
    "anchor",
    "calendar",
    "calendar_shift",
    "overlap",
    "catch_up",
    "catch_up_max",
    "catch_up_window",
    "catch_up_pace",
    "jitter",
    "max_runs",
    "stop_on_success",
    "pause_on_failure",
    "priority",
    "dedupe_key",
    "group_key",
    "labels",
    "headers",
    "max_attempts",
    "timeout",
    "max_failed",
    "max_failed_percent",
];

/// `divvy.put_schedule`: makes a schedule, or changes the one of that name, whole: what is not said is at its
/// default afterwards. What was due before fires as it was.
///
/// # Errors
/// BadSchedule, BadOption, OverLimit, naming the value; Conflict when moments are due that nobody has planned yet.
pub async fn put(executor: impl PgExecutor<'_>, schedule: &NewSchedule) -> Result<Put> {
    let mut options = schedule.options.as_object().cloned().unwrap_or_default();
    options.insert("task_type".to_owned(), json!(schedule.task_type));
    options.insert("payload".to_owned(), schedule.payload.clone());
    options.insert("timezone".to_owned(), json!(schedule.timezone));
    let (kind, rule) = match &schedule.rule {
        Rule::Steps(offsets) => ("steps", json!(offsets.iter().map(seconds).collect::<Vec<_>>())),
        Rule::At(at) => ("run_at", json!(at.to_rfc3339())),
        Rule::Cron(text) => ("cron", json!(text)),
        Rule::Every(delta) => ("every", json!(seconds(delta))),
    };
    options.insert(kind.to_owned(), rule);
    put_whole(executor, &schedule.name, options, schedule.is_new).await
}

/// The same with options as JSON, the rule among them; `is_new` refuses a name that is taken.
///
/// # Errors
/// As [`put`].
pub async fn put_whole(
    executor: impl PgExecutor<'_>,
    name: &str,
    given: Map<String, Value>,
    is_new: bool,
) -> Result<Put> {
    let mut options: Map<String, Value> =
        DEFAULTED.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    options.extend(given);
    let (id, outcome): (ScheduleId, String) =
        sqlx::query_as("select schedule_id, outcome from divvy.put_schedule($1, $2, $3)")
            .bind(name)
            .bind(Value::Object(options))
            .bind(is_new)
            .fetch_one(executor)
            .await?;
    Ok(match outcome.as_str() {
        "created" => Put::Created(id),
        "unchanged" => Put::Unchanged(id),
        _ => Put::Changed(id),
    })
}

/// A duration as an interval's text.
pub fn seconds(delta: &TimeDelta) -> String {
    let (whole, rest) = (delta.num_seconds(), delta.subsec_nanos() / 1_000);
    if rest == 0 { format!("{whole} s") } else { format!("{whole}.{rest:06} s") }
}

row! {
    /// A stored schedule's rule, for previews.
    #[derive(Debug, Clone, PartialEq)]
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
        /// What it counts from: created or previous_end.
        pub anchor: String,
        /// The instant that is. With previous_end, null while a run is open.
        pub anchored_at: Option<DateTime<Utc>>,
        /// Stepped, previous_end: the delays that are left, in seconds.
        pub delays: Option<Vec<f64>>,
        /// Its next moment, as far as it is known.
        pub moment_at: Option<DateTime<Utc>>,
        /// The last task that its rule made.
        pub last_task_id: Option<TaskId>,
        /// Whether a calendar or jitter moves what it names: see [`due_times`].
        pub moves: bool,
        /// It fires from this moment on.
        pub starts_at: Option<DateTime<Utc>>,
        /// It fires before this.
        pub ends_at: Option<DateTime<Utc>>,
        /// How often it may still fire.
        pub runs_left: Option<i32>,
        /// Moments up to here are decided.
        pub fired_through: Option<DateTime<Utc>>,
    }
}

/// The newest schedule of a name.
///
/// # Errors
/// NotFound.
pub async fn rule(executor: impl PgExecutor<'_>, name: &str) -> Result<StoredRule> {
    sqlx::query_as(
        "select s.id as schedule_id, s.status::text as status, s.reason,
                case s.anchor when 'created' then (select array_agg(s.anchored_at + o order by o) from unnest(s.steps) o) end as step_moments,
                s.run_at, s.cron, extract(epoch from s.every)::float8 as every_seconds, s.timezone, s.dst_gap, s.dst_fold, s.anchor, s.anchored_at,
                (select array_agg(extract(epoch from o)::float8 order by n) from unnest(s.steps) with ordinality as d (o, n) where n > s.step) as delays,
                s.moment_at, s.last_task_id, s.calendar is not null or s.jitter is not null as moves, s.starts_at, s.ends_at,
                s.max_runs - s.runs as runs_left, s.fired_through
           from divvy.schedule s where s.name = $1
          order by s.status in ('active', 'paused', 'refused') desc, s.id desc limit 1",
    )
    .bind(name)
    .fetch_optional(executor)
    .await?
    .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no schedule {name}")))
}

row! {
    /// What calendar and jitter make of a moment.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Due {
        /// The moment.
        pub moment: DateTime<Utc>,
        /// fires, skipped or merged.
        pub outcome: String,
        /// When it fires.
        pub due_at: Option<DateTime<Utc>>,
        /// Why, where that is not its own time.
        pub reason: Option<String>,
    }
}

/// `divvy.due_times`: what becomes of moments by the schedule's calendar and jitter.
///
/// # Errors
/// NotFound.
pub async fn due_times(
    executor: impl PgExecutor<'_>,
    schedule: ScheduleId,
    moments: &[DateTime<Utc>],
) -> Result<Vec<Due>> {
    let query = "select moment, outcome, due_at, reason from divvy.due_times($1, $2)";
    Ok(sqlx::query_as(query).bind(schedule).bind(moments).fetch_all(executor).await?)
}

row! {
    /// A row of `divvy.schedule_fire`: a moment and what was decided.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
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
        pub through: Option<DateTime<Utc>>,
        pub due_at: Option<DateTime<Utc>>,
        pub late_seconds: Option<f64>,
        pub decided_at: DateTime<Utc>,
    }
}

/// The moments of one schedule, latest first, before a given one. A moment that was decided in several ways, by hand
/// or again, is never cut in two: there may be a few rows more.
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
                f.count, f.through, f.due_at, extract(epoch from f.late)::float8 as late_seconds, f.at as decided_at
           from divvy.schedule_fire f left join divvy.task k on k.id = f.task_id
          where f.schedule_id = $1 and ($2::timestamptz is null or f.fire_at < $2)
          order by f.fire_at desc fetch first $3 rows with ties",
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
pub async fn trigger_schedule(
    executor: impl PgExecutor<'_>,
    name: &str,
    reason: Option<&str>,
) -> Result<Option<TaskId>> {
    let query = sqlx::query_scalar("select divvy.trigger_schedule($1, $2)").bind(name).bind(reason);
    Ok(query.fetch_one(executor).await?)
}

/// `divvy.backfill_schedule`: the tasks of past moments, `max_running` of them open at a time. How many moments
/// were not backfilled before.
///
/// # Errors
/// NotFound when none of that name is open; Conflict when it is refused; BadOption, OverLimit.
pub async fn backfill_schedule(
    executor: impl PgExecutor<'_>,
    name: &str,
    moments: &[DateTime<Utc>],
    max_running: i32,
    reason: Option<&str>,
) -> Result<i32> {
    let query = sqlx::query_scalar("select divvy.backfill_schedule($1, $2, $3, $4)")
        .bind(name)
        .bind(moments)
        .bind(max_running)
        .bind(reason);
    Ok(query.fetch_one(executor).await?)
}

/// `divvy.cancel_schedule`: ends it; no later moment fires.
///
/// # Errors
/// NotFound when none of that name is open.
pub async fn cancel_schedule(executor: impl PgExecutor<'_>, name: &str, reason: Option<&str>) -> Result<()> {
    sqlx::query("select divvy.cancel_schedule($1, $2)").bind(name).bind(reason).execute(executor).await?;
    Ok(())
}

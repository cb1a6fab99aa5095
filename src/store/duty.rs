//! The duties, each one pass of at most `max` rows. All are safe from any number of callers at once.

use crate::Result;
use crate::id::ScheduleId;
use crate::in_sql::row;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use sqlx::types::Json;

/// `divvy.promote`: makes ready what has waited for its moment.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn promote(executor: impl PgExecutor<'_>, max: i32) -> Result<i32> {
    Ok(sqlx::query_scalar("select divvy.promote($1)").bind(max).fetch_one(executor).await?)
}

/// `divvy.reclaim`: takes back the splits of ended leases.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn reclaim(executor: impl PgExecutor<'_>, max: i32) -> Result<i32> {
    Ok(sqlx::query_scalar("select divvy.reclaim($1)").bind(max).fetch_one(executor).await?)
}

/// `divvy.settle`: the reduce check. Opens the reduce of tasks whose splits have all ended, or ends them.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn settle(executor: impl PgExecutor<'_>, max: i32) -> Result<i32> {
    Ok(sqlx::query_scalar("select divvy.settle($1)").bind(max).fetch_one(executor).await?)
}

/// `divvy.prune`: deletes what has outlived its retention.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn prune(executor: impl PgExecutor<'_>, max: i32) -> Result<i32> {
    Ok(sqlx::query_scalar("select divvy.prune($1)").bind(max).fetch_one(executor).await?)
}

/// `divvy.take_sample`: keeps what waits and runs of each type, once a minute over all callers.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn sample(executor: impl PgExecutor<'_>) -> Result<i32> {
    Ok(sqlx::query_scalar("select divvy.take_sample()").fetch_one(executor).await?)
}

/// `divvy.look_for_alerts`: opens and closes alerts, once a minute over all callers.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn alert(executor: impl PgExecutor<'_>) -> Result<i32> {
    Ok(sqlx::query_scalar("select divvy.look_for_alerts()").fetch_one(executor).await?)
}

/// `divvy.advance_low_water`: moves the marks below which nothing is ready.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn advance_low_water(executor: impl PgExecutor<'_>) -> Result<i32> {
    Ok(sqlx::query_scalar("select divvy.advance_low_water()").fetch_one(executor).await?)
}

/// `divvy.fire_due`: makes the task of each schedule whose next moment has come.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn fire_due(executor: impl PgExecutor<'_>, max: i32) -> Result<i32> {
    Ok(sqlx::query_scalar("select divvy.fire_due($1)").bind(max).fetch_one(executor).await?)
}

/// `divvy.rests`: for how many seconds each duty has nothing to do, as far as anybody can tell now.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn rests(executor: impl PgExecutor<'_>) -> Result<Vec<(String, f64)>> {
    Ok(sqlx::query_as("select duty, rest from divvy.rests()").fetch_all(executor).await?)
}

/// `divvy.tick`: every duty once, each with what it did. Cron schedules need a plan first: `leader::fire`.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn tick(executor: impl PgExecutor<'_>, max: i32) -> Result<Vec<(String, i32)>> {
    Ok(sqlx::query_as("select duty, done from divvy.tick($1)").bind(max).fetch_all(executor).await?)
}

row! {
    /// A cron schedule without a next moment.
    #[derive(Debug, Clone)]
    pub struct Unplanned {
        /// Its id.
        pub schedule_id: ScheduleId,
        /// Its name.
        pub name: String,
        /// The cron text, not yet parsed.
        pub cron: String,
        /// The zone whose clock it reads.
        pub timezone: String,
        /// What becomes of a local time that the clock skips.
        pub dst_gap: String,
        /// What becomes of a local time that comes twice.
        pub dst_fold: String,
        /// Moments up to here are decided.
        pub planned_from: DateTime<Utc>,
        /// It fires from here on.
        pub starts_at: Option<DateTime<Utc>>,
        /// It fires before this.
        pub ends_at: Option<DateTime<Utc>>,
        /// The database's clock.
        pub server_now: DateTime<Utc>,
        /// Its rule has not been planned yet: without a moment it never fires.
        pub is_first: bool,
    }
}

/// `divvy.schedules_to_plan`: all that wait for a plan, or the one of that name whose moments up to now are not
/// all known.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn schedules_to_plan(
    executor: impl PgExecutor<'_>,
    max: i32,
    name: Option<&str>,
) -> Result<Vec<Unplanned>> {
    let query =
        "select schedule_id, name, cron, timezone, dst_gap, dst_fold, planned_from, starts_at, ends_at, server_now, is_first
                   from divvy.schedules_to_plan($1, $2)";
    Ok(sqlx::query_as(query).bind(max).bind(name).fetch_all(executor).await?)
}

/// What follows for one schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The schedule.
    pub schedule_id: ScheduleId,
    /// From where it was planned: another caller may have been faster.
    pub planned_from: DateTime<Utc>,
    /// The next moments in order, those that are due and some that are to come.
    pub moments: Vec<DateTime<Utc>>,
    /// Up to here none is left out; none: never.
    pub planned_through: Option<DateTime<Utc>>,
    /// How many before them are due, too, but too many to be named.
    pub earlier: usize,
    /// The first of those.
    pub earlier_from: Option<DateTime<Utc>>,
    /// The last of those.
    pub earlier_through: Option<DateTime<Utc>>,
}

/// `divvy.plan_schedule` of each, in one transaction. Those that another caller has planned meanwhile stay as
/// they are.
///
/// # Errors
/// When the database refuses or is lost; then none is planned.
pub async fn plan_schedules(executor: impl PgExecutor<'_>, plans: &[Planned]) -> Result<()> {
    let query = "
        select count(divvy.plan_schedule(p.schedule_id, p.planned_from, p.moments, p.planned_through, p.earlier, p.earlier_from,
                p.earlier_through))
          from jsonb_to_recordset($1)
               as p (schedule_id bigint, planned_from timestamptz, moments timestamptz[], planned_through timestamptz,
                     earlier int, earlier_from timestamptz, earlier_through timestamptz)";
    sqlx::query(query).bind(Json(plans)).execute(executor).await?;
    Ok(())
}

/// `divvy.refuse_schedule`: sets a schedule aside that can't be understood, with the reason.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn refuse_schedule(
    executor: impl PgExecutor<'_>,
    schedule: ScheduleId,
    reason: &str,
) -> Result<()> {
    sqlx::query("select divvy.refuse_schedule($1, $2)").bind(schedule).bind(reason).execute(executor).await?;
    Ok(())
}

//! What people do to schedules. (Making one is an INSERT; what may fire is the leader's to ask.)

use crate::Result;
use sqlx::PgExecutor;

/// `divvy.pause_schedule`: no fires until resumed.
///
/// # Errors
/// NotFound; Conflict when it has ended.
pub async fn pause_schedule(executor: impl PgExecutor<'_>, name: &str) -> Result<()> {
    sqlx::query("select divvy.pause_schedule($1)").bind(name).execute(executor).await?;
    Ok(())
}

/// `divvy.resume_schedule`: fires again.
///
/// # Errors
/// NotFound; Conflict when it has ended.
pub async fn resume_schedule(executor: impl PgExecutor<'_>, name: &str) -> Result<()> {
    sqlx::query("select divvy.resume_schedule($1)").bind(name).execute(executor).await?;
    Ok(())
}

/// `divvy.trigger_schedule`: one fire now, beside the rule.
///
/// # Errors
/// NotFound; Conflict when it has ended.
pub async fn trigger_schedule(executor: impl PgExecutor<'_>, name: &str) -> Result<()> {
    sqlx::query("select divvy.trigger_schedule($1)").bind(name).execute(executor).await?;
    Ok(())
}

/// `divvy.cancel_schedule`: ends it; no later moment fires.
///
/// # Errors
/// NotFound.
pub async fn cancel_schedule(executor: impl PgExecutor<'_>, name: &str) -> Result<()> {
    sqlx::query("select divvy.cancel_schedule($1)").bind(name).execute(executor).await?;
    Ok(())
}

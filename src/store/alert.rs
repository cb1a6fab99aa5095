//! What somebody should look at.

use crate::Result;
use crate::in_sql::row;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

row! {
    /// A row of `divvy.alert_overview`: an alert that is open.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    pub struct AlertRow {
        /// The rule, such as `lag`.
        pub name: String,
        /// What it is about: a type, a schedule, a setting; empty: all of it.
        pub object: String,
        /// Since when.
        pub since: DateTime<Utc>,
        /// The values, at the last look.
        pub detail: String,
        /// When that was.
        pub looked_at: DateTime<Utc>,
        /// Somebody has said that it is known.
        pub silenced: bool,
        /// Until then; null: for ever, or it is not silenced.
        pub silenced_until: Option<DateTime<Utc>>,
        /// Why.
        pub silence_reason: Option<String>,
    }
}

/// Alerts that are open, those that were silenced last.
///
/// # Errors
/// Database.
pub async fn all(executor: impl PgExecutor<'_>) -> Result<Vec<AlertRow>> {
    // "For ever" is infinity, which chrono can't hold.
    Ok(sqlx::query_as(
        "select name, object, since, detail, looked_at, silenced_until is not null as silenced,
                nullif(silenced_until, 'infinity') as silenced_until, silence_reason
           from divvy.alert_overview order by silenced_until is not null, name, object",
    )
    .fetch_all(executor)
    .await?)
}

row! {
    /// A row of `divvy.findings`: what is wrong now.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    pub struct Finding {
        /// The rule.
        pub name: String,
        /// What it is about.
        pub object: String,
        /// The values.
        pub detail: String,
    }
}

/// `divvy.findings`: what is wrong now, without waiting for the duty that looks once a minute.
///
/// # Errors
/// Database.
pub async fn findings(executor: impl PgExecutor<'_>) -> Result<Vec<Finding>> {
    let query = "select name, coalesce(object, '') as object, detail from divvy.findings() order by 1, 2";
    Ok(sqlx::query_as(query).fetch_all(executor).await?)
}

/// `divvy.silence_alert`: says that an open alert is known, until a moment, or for ever.
///
/// # Errors
/// NotFound when it is not open.
pub async fn silence(
    executor: impl PgExecutor<'_>,
    name: &str,
    object: &str,
    until: Option<DateTime<Utc>>,
    reason: Option<&str>,
) -> Result<()> {
    sqlx::query("select divvy.silence_alert($1, $2, $3, $4)")
        .bind(name)
        .bind(object)
        .bind(until)
        .bind(reason)
        .execute(executor)
        .await?;
    Ok(())
}

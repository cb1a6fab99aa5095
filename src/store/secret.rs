//! Secrets of http handlers.

use crate::Result;
use crate::in_sql::row;
use crate::store::interval;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use std::fmt;
use std::time::Duration;

row! {
    /// A secret as a worker needs it. It is never printed.
    #[derive(Clone, PartialEq, Eq)]
    pub struct Secret {
        /// Its name.
        pub name: String,
        /// Its value.
        pub value: String,
        /// The one before, while it still signs.
        pub previous: Option<String>,
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The name of divvy's own secret, which signs the tokens of callbacks.
pub const CALLBACK: &str = "callback";

/// `divvy.secret_values`: those of these names that are there.
///
/// # Errors
/// Database, also when the role is no worker's.
pub async fn values(executor: impl PgExecutor<'_>, names: &[String]) -> Result<Vec<Secret>> {
    let query = sqlx::query_as("select name, value, previous from divvy.secret_values($1)").bind(names);
    Ok(query.fetch_all(executor).await?)
}

/// `divvy.create_secret`: makes a secret, with a new signing key unless there is a value. Returns the value.
///
/// # Errors
/// Conflict when there is one of that name; BadOption.
pub async fn create(executor: impl PgExecutor<'_>, name: &str, value: Option<&str>) -> Result<String> {
    Ok(sqlx::query_scalar("select divvy.create_secret($1, $2)")
        .bind(name)
        .bind(value)
        .fetch_one(executor)
        .await?)
}

/// `divvy.rotate_secret`: gives it another value; the one before signs for `keep`, too. Returns the value.
///
/// # Errors
/// NotFound; BadOption.
pub async fn rotate(
    executor: impl PgExecutor<'_>,
    name: &str,
    value: Option<&str>,
    keep: Duration,
) -> Result<String> {
    Ok(sqlx::query_scalar("select divvy.rotate_secret($1, $2, $3)")
        .bind(name)
        .bind(value)
        .bind(interval(keep))
        .fetch_one(executor)
        .await?)
}

/// `divvy.drop_secret`.
///
/// # Errors
/// NotFound; Conflict while a type uses it.
pub async fn forget(executor: impl PgExecutor<'_>, name: &str) -> Result<()> {
    sqlx::query("select divvy.drop_secret($1)").bind(name).execute(executor).await?;
    Ok(())
}

row! {
    /// A row of `divvy.secret_overview`.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct SecretRow {
        pub name: String,
        pub signs: bool,
        pub created_by: String,
        pub created_at: DateTime<Utc>,
        pub rotated_at: Option<DateTime<Utc>>,
        pub previous_until: Option<DateTime<Utc>>,
        pub used_by: Vec<String>,
    }
}

/// All secrets, by name.
///
/// # Errors
/// Database.
pub async fn list(executor: impl PgExecutor<'_>) -> Result<Vec<SecretRow>> {
    Ok(sqlx::query_as(
        "select name, signs, created_by, created_at, rotated_at, previous_until, used_by
           from divvy.secret_overview order by name limit 10000",
    )
    .fetch_all(executor)
    .await?)
}

//! Tokens of the HTTP API, known by their hashes alone.

use crate::Result;
use crate::in_sql::row;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

row! {
    /// What a good token may do.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Token {
        /// Its name, for the log of decisions.
        pub name: String,
        /// Its scopes.
        pub scopes: Vec<String>,
    }
}

/// `divvy.create_token`: makes a token known by its hash.
///
/// # Errors
/// BadOption; Conflict when a token that was not revoked has that name.
pub async fn create(
    executor: impl PgExecutor<'_>,
    name: &str,
    hash: &str,
    scopes: &[String],
    expires_at: Option<DateTime<Utc>>,
) -> Result<i64> {
    Ok(sqlx::query_scalar("select divvy.create_token($1, $2, $3, $4)")
        .bind(name)
        .bind(hash)
        .bind(scopes)
        .bind(expires_at)
        .fetch_one(executor)
        .await?)
}

/// `divvy.revoke_token`: ends a token at once.
///
/// # Errors
/// NotFound when none of that name is left.
pub async fn revoke(executor: impl PgExecutor<'_>, name: &str, reason: Option<&str>) -> Result<()> {
    sqlx::query("select divvy.revoke_token($1, $2)").bind(name).bind(reason).execute(executor).await?;
    Ok(())
}

/// `divvy.token_of`: whose token it is; none when it is not good.
///
/// # Errors
/// Database.
pub async fn token_of(executor: impl PgExecutor<'_>, hash: &str) -> Result<Option<Token>> {
    let query = sqlx::query_as("select name, scopes from divvy.token_of($1)").bind(hash);
    Ok(query.fetch_optional(executor).await?)
}

/// `divvy.act_as`: the decisions of this transaction are the token's. False when it is not good any more.
///
/// # Errors
/// Database.
pub async fn act_as(executor: impl PgExecutor<'_>, hash: &str) -> Result<bool> {
    let name: Option<String> =
        sqlx::query_scalar("select divvy.act_as($1)").bind(hash).fetch_one(executor).await?;
    Ok(name.is_some())
}

row! {
    /// A row of `divvy.token_overview`.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    #[expect(missing_docs, reason = "the view's columns, documented in sql/README.md")]
    pub struct TokenRow {
        pub name: String,
        pub scopes: Vec<String>,
        pub created_by: String,
        pub created_at: DateTime<Utc>,
        pub expires_at: Option<DateTime<Utc>>,
        pub revoked_at: Option<DateTime<Utc>>,
        pub used_at: Option<DateTime<Utc>>,
        pub good: bool,
    }
}

/// All tokens, the newest first.
///
/// # Errors
/// Database.
pub async fn list(executor: impl PgExecutor<'_>) -> Result<Vec<TokenRow>> {
    Ok(sqlx::query_as(
        "select name, scopes, created_by, created_at, expires_at, revoked_at, used_at, good
           from divvy.token_overview order by created_at desc, name limit 10000",
    )
    .fetch_all(executor)
    .await?)
}

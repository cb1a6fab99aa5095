//! Why a split is not running.

use crate::Result;
use crate::id::SplitId;
use crate::in_sql::row;
use serde::Serialize;
use sqlx::PgExecutor;

row! {
    /// What one rule says of a split: a row of `divvy.explain`.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    pub struct RuleRow {
        /// The rule, such as `max_running`.
        pub rule: String,
        /// Whether this alone is enough to keep the split waiting.
        pub blocking: bool,
        /// The values it looked at.
        pub detail: String,
    }
}

/// `divvy.explain`: every rule between a split and its run, in the order of a claim.
///
/// # Errors
/// NotFound.
pub async fn split(executor: impl PgExecutor<'_>, id: SplitId) -> Result<Vec<RuleRow>> {
    Ok(sqlx::query_as("select rule, blocking, detail from divvy.explain($1)")
        .bind(id)
        .fetch_all(executor)
        .await?)
}

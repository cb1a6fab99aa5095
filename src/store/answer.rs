//! Answers to requests that may come again, kept in the transaction of what they did.

use crate::Result;
use sqlx::PgExecutor;

/// A request with a key of its sender's.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// Whose key it is.
    pub holder: String,
    /// The key.
    pub key: String,
    /// A hash of what is asked.
    pub request: String,
}

/// `divvy.take_key`: takes the key for a request, or finds what it was answered before.
///
/// # Errors
/// BadOption when the key was used for another request, or has no length that a key may have.
pub async fn take_key(executor: impl PgExecutor<'_>, keyed: &Keyed) -> Result<Option<(u16, String)>> {
    let (status, answer): (Option<i32>, Option<String>) =
        sqlx::query_as("select status, answer from divvy.take_key($1, $2, $3)")
            .bind(&keyed.holder)
            .bind(&keyed.key)
            .bind(&keyed.request)
            .fetch_one(executor)
            .await?;
    Ok(status.and_then(|status| u16::try_from(status).ok()).zip(answer))
}

/// `divvy.keep_answer`: keeps the answer of the request whose key this transaction has taken.
///
/// # Errors
/// Database.
pub async fn keep(executor: impl PgExecutor<'_>, keyed: &Keyed, status: u16, answer: &str) -> Result<()> {
    sqlx::query("select divvy.keep_answer($1, $2, $3, $4)")
        .bind(&keyed.holder)
        .bind(&keyed.key)
        .bind(i32::from(status))
        .bind(answer)
        .execute(executor)
        .await?;
    Ok(())
}

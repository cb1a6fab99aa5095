//! Types whose handler is a URL.

use crate::Result;
use crate::in_sql::row;
use serde_json::Value;
use sqlx::PgExecutor;

row! {
    /// A row of `divvy.http_type`. Lengths of time are in seconds.
    #[derive(Debug, Clone, PartialEq)]
    pub struct HttpType {
        /// The type.
        pub name: String,
        /// Where its splits are pushed.
        pub url: String,
        /// The name of the secret that signs, if one does.
        pub secret: Option<String>,
        /// Headers besides those that divvy sets: a text, or `{"secret": NAME}`.
        pub headers: Value,
        /// How long a request may take, where it is less than the attempt may.
        pub request_timeout: Option<f64>,
        /// How long a callback is waited for, where it is less than the attempt may take.
        pub callback_timeout: Option<f64>,
        /// Whether it is left alone while it does not answer,
        pub has_breaker: bool,
        /// after so many failures in a row,
        pub breaker_failures: i32,
        /// for so long at first,
        pub breaker_open: f64,
        /// and so long at most.
        pub breaker_most: f64,
        /// Whether its tasks are planned.
        pub plan: bool,
        /// Whether its tasks are reduced.
        pub reduce: bool,
    }
}

/// The declared types whose handler is a URL, by name.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn http_types(executor: impl PgExecutor<'_>) -> Result<Vec<HttpType>> {
    let query = "
        select name, url, secret, headers, request_timeout, callback_timeout, has_breaker, breaker_failures, breaker_open,
               breaker_most, plan, reduce
          from divvy.http_type order by name";
    Ok(sqlx::query_as(query).fetch_all(executor).await?)
}

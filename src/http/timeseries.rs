//! What waited and ran, minute by minute.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::page::{self, Page};
use super::problem::Problem;
use super::route::{Route, get};
use crate::store::metric::{self, MinuteFilter, MinuteRow};
use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::Deserialize;

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/timeseries", "What waited and ran of each type in each minute, oldest first", list)
            .to(&[Scope::Reader, Scope::Payloads, Scope::Operator]),
    ]
}

/// Which minutes
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Of this type
    task_type: Option<String>,
    /// From this moment on
    from: Option<DateTime<Utc>>,
    /// Up to this moment, which is not included
    to: Option<DateTime<Utc>>,
    /// Rows of a page; default 50
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u64>,
    /// The page after: next_cursor of the page before
    cursor: Option<String>,
}

async fn list(call: Call, which: Which) -> Result<Answer<Page<MinuteRow>>, Problem> {
    let limit = page::asked(which.limit)?;
    let filter = MinuteFilter {
        task_type: which.task_type,
        from: which.from,
        to: which.to,
        after: which.cursor.as_deref().map(after).transpose()?,
        limit: i64::try_from(limit + 1).unwrap_or(i64::MAX),
    };
    let rows = call.look(move |c| Box::pin(async move { metric::minutes(c, &filter).await })).await?;
    call.show(&Page::of(rows, limit, |row| {
        format!("{}/{}", row.at.to_rfc3339_opts(SecondsFormat::Secs, true), row.task_type)
    }))
}

/// The minute and the type of a cursor.
fn after(cursor: &str) -> Result<(DateTime<Utc>, String), Problem> {
    let parts = cursor.split_once('/').and_then(|(at, name)| Some((at.parse().ok()?, name.to_owned())));
    parts.ok_or_else(|| {
        Problem::invalid(format!("cursor is {cursor:?}; it is next_cursor of the page before"))
    })
}

//! The log of decisions: all of it, newest first, and that of one thing.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::page::{self, List, Page};
use super::problem::Problem;
use super::route::{Route, get};
use crate::id::EventId;
use crate::store::listing::history::{self, EventFilter, EventRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    const LOOK: &[Scope] = &[Scope::Reader, Scope::Payloads, Scope::Operator];
    vec![
        get("/api/v1/audit", "Who decided what, newest first", audit).to(LOOK),
        get("/api/v1/events", "The last decisions on one thing, oldest first", events).to(LOOK),
    ]
}

/// What was decided on
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Object {
    /// A task
    Task,
    /// Many tasks at once
    Tasks,
    /// A split
    Split,
    /// A type
    Type,
    /// A schedule
    Schedule,
    /// A calendar
    Calendar,
    /// A worker
    Worker,
    /// An alert
    Alert,
    /// A token
    Token,
}

impl Object {
    fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Tasks => "tasks",
            Self::Split => "split",
            Self::Type => "type",
            Self::Schedule => "schedule",
            Self::Calendar => "calendar",
            Self::Worker => "worker",
            Self::Alert => "alert",
            Self::Token => "token",
        }
    }
}

/// Which decisions
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// On things of this kind
    object: Option<Object>,
    /// On the thing with this id or name
    object_id: Option<String>,
    /// By this role, token or duty
    actor: Option<String>,
    /// Of this kind, such as cancel
    verb: Option<String>,
    /// Rows of a page; default 50
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u64>,
    /// The page after: next_cursor of the page before
    cursor: Option<EventId>,
}

async fn audit(call: Call, which: Which) -> Result<Answer<Page<EventRow>>, Problem> {
    let limit = page::asked(which.limit)?;
    let filter = EventFilter {
        object: which.object.map(|object| object.as_str().to_owned()),
        object_id: which.object_id,
        actor: which.actor,
        verb: which.verb,
        before: which.cursor,
        limit: limit + 1,
    };
    let rows = call.look(move |c| Box::pin(async move { history::audit(c, &filter).await })).await?;
    call.show(&Page::of(rows, limit, |row| row.event_id.to_string()))
}

/// Which thing
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Thing {
    /// Its kind
    object: Object,
    /// Its id or name
    object_id: String,
    /// How many at most; default 50
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u64>,
}

async fn events(call: Call, thing: Thing) -> Result<Answer<List<EventRow>>, Problem> {
    let limit = i64::try_from(page::asked(thing.limit)?).unwrap_or(history::ROWS_MAX);
    let object = thing.object.as_str();
    let rows = call
        .look(move |c| Box::pin(async move { history::events(c, object, &thing.object_id, limit).await }))
        .await?;
    call.show(&List::of_last(rows))
}

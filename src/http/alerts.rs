//! What somebody should look at: list, and say that one is known.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::page::List;
use super::problem::Problem;
use super::route::{Nothing, Route, get, post};
use super::task_actions::{DONE, Done};
use crate::store::alert::{self, AlertRow};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Deserialize;

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/alerts", "What somebody should look at, what is known already last", list).to(&[
            Scope::Reader,
            Scope::Payloads,
            Scope::Operator,
        ]),
        post("/api/v1/alerts/{name}/silence", "Say that an open alert is known", silence)
            .to(&[Scope::Operator])
            .fails(&[404]),
    ]
}

async fn list(call: Call, _: Nothing) -> Result<Answer<List<AlertRow>>, Problem> {
    let rows = call.look(move |c| Box::pin(alert::all(c))).await?;
    call.show(&List::of(rows))
}

/// Which one, and until when
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Silence {
    /// What it is about; default: empty, as of alerts about all
    object: Option<String>,
    /// Until this moment, one that has passed ends the silence; default: for ever
    until: Option<DateTime<Utc>>,
    /// Why, for those who look later
    reason: Option<String>,
}

async fn silence(call: Call, silence: Silence) -> Result<Answer<Done>, Problem> {
    let name = call.name("name").to_owned();
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            let object = silence.object.as_deref().unwrap_or_default();
            alert::silence(c, &name, object, silence.until, silence.reason.as_deref()).await?;
            Ok(DONE)
        })
    })
    .await
}

//! How it goes: what has failed for good, what waits and runs, how the database is.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::page::List;
use super::problem::Problem;
use super::route::{Nothing, Route, get};
use crate::store::overview::{self, DeadRow, TypeRow};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    const LOOK: &[Scope] = &[Scope::Reader, Scope::Payloads, Scope::Operator];
    vec![
        get("/api/v1/dead", "Failed splits by what went wrong, the most frequent first", dead).to(LOOK),
        get("/api/v1/stats", "What waits and runs of each type, and the database's health", stats).to(LOOK),
    ]
}

async fn dead(call: Call, _: Nothing) -> Result<Answer<List<DeadRow>>, Problem> {
    let rows = call.look(move |c| Box::pin(overview::dead(c))).await?;
    call.show(&List::of(rows))
}

/// How it goes
#[derive(Debug, Serialize, JsonSchema)]
struct Stats {
    /// What waits and runs, by type
    types: Vec<TypeRow>,
    /// What the database says of itself
    database: BTreeMap<String, Option<String>>,
}

async fn stats(call: Call, _: Nothing) -> Result<Answer<Stats>, Problem> {
    let (types, health) = call
        .look(move |c| {
            Box::pin(async move { Ok((overview::types(&mut *c).await?, overview::health(&mut *c).await?)) })
        })
        .await?;
    call.show(&Stats { types, database: health.into_iter().collect() })
}

//! Workers: who is there, and what they are told.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::page::List;
use super::problem::Problem;
use super::route::{Nothing, Route, get, post};
use super::task_actions::{DONE, Done, Plain};
use crate::store::overview::{self, WorkerRow};
use crate::store::state::Command;
use crate::store::worker;
use axum::http::StatusCode;

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    const ACT: &[Scope] = &[Scope::Operator];
    let looks = get("/api/v1/workers", "List workers, the last seen first", list).to(&[
        Scope::Reader,
        Scope::Payloads,
        Scope::Operator,
    ]);
    let quiet = |call, _: Plain| tell(call, Command::Quiet);
    let terminate = |call, _: Plain| tell(call, Command::Terminate);
    let run = |call, _: Plain| tell(call, Command::Run);
    vec![
        looks,
        post("/api/v1/workers/{worker}/quiet", "Let a worker claim nothing more", quiet)
            .to(ACT)
            .fails(&[404]),
        post("/api/v1/workers/{worker}/terminate", "Let a worker stop", terminate).to(ACT).fails(&[404]),
        post("/api/v1/workers/{worker}/run", "Let a worker go on", run).to(ACT).fails(&[404]),
    ]
}

async fn list(call: Call, _: Nothing) -> Result<Answer<List<WorkerRow>>, Problem> {
    let rows = call.look(move |c| Box::pin(overview::workers(c))).await?;
    call.show(&List::of(rows))
}

async fn tell(call: Call, command: Command) -> Result<Answer<Done>, Problem> {
    let id = call.worker()?;
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            worker::command(c, id, command).await?;
            Ok(DONE)
        })
    })
    .await
}

//! `/healthz`: the process answers. `/readyz`: it can work.

use super::Api;
use crate::store::migrate::{self, Status};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Longest wait for the database's answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long an answer is repeated without asking again, so that many probes are one question.
const REPEAT: Duration = Duration::from_secs(1);

/// What the probes know.
#[derive(Debug)]
pub(super) struct Health {
    options: PgConnectOptions,
    draining: CancellationToken,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Health {
    /// Of one database; not ready from the moment `draining` is cancelled.
    pub(super) fn new(options: PgConnectOptions, draining: CancellationToken) -> Self {
        Self { options: options.application_name("divvy readyz"), draining, last: Mutex::new(None) }
    }

    /// Why it is not ready.
    async fn fault(&self) -> Result<(), String> {
        if self.draining.is_cancelled() {
            return Err("it is shutting down".to_owned());
        }
        let mut last = self.last.lock().await;
        match last.as_ref() {
            Some((at, answer)) if at.elapsed() < REPEAT => answer.clone(),
            _ => {
                let answer = self.ask().await;
                *last = Some((Instant::now(), answer.clone()));
                answer
            }
        }
    }

    async fn ask(&self) -> Result<(), String> {
        match timeout(ANSWER_MAX, migrate::check(&self.options)).await {
            Ok(Ok(Status::Current)) => Ok(()),
            Ok(Ok(Status::Missing)) => Err("the database has no divvy schema: run divvy migrate".to_owned()),
            Ok(Ok(Status::Behind)) => {
                Err("the schema is older than this divvy: run divvy migrate".to_owned())
            }
            Ok(Ok(Status::Ahead)) => Err("the schema is a newer divvy's: use that one".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the database did not answer within {ANSWER_MAX:?}")),
        }
    }
}

/// The process answers; nothing else is asked.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// The database can be reached, its schema is this divvy's, and the process is not shutting down.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> (StatusCode, Json<Value>) {
    match api.health.fault().await {
        Ok(()) => (StatusCode::OK, Json(json!({"status": "ready"}))),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not ready", "reason": reason})))
        }
    }
}

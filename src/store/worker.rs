//! A worker's standing: the protocol's version, registration, heartbeats.

use crate::id::{SplitId, Token};
use crate::in_sql::row;
use crate::store::state::{Command, Pulse};
use crate::store::{interval, seconds};
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;
use std::time::Duration;
use uuid::Uuid;

/// The protocol version this crate speaks.
pub const PROTOCOL: i32 = 1;

row! {
    /// What the database says of itself.
    #[derive(Debug, Clone, Copy)]
    pub struct Protocol {
        /// The oldest version it understands.
        pub min: i32,
        /// The newest.
        pub max: i32,
        /// Its clock.
        pub server_now: DateTime<Utc>,
    }
}

/// `divvy.protocol`: the versions the schema speaks.
///
/// # Errors
/// Protocol when this crate's version isn't among them; Database when there is no schema.
pub async fn protocol(executor: impl PgExecutor<'_>) -> Result<Protocol> {
    let answer: Protocol =
        sqlx::query_as("select min, max, server_now from divvy.protocol()").fetch_one(executor).await?;
    if (answer.min..=answer.max).contains(&PROTOCOL) {
        return Ok(answer);
    }
    Err(Error::new(
        ErrorKind::Protocol,
        format!(
            "this divvy speaks protocol {PROTOCOL}, the schema {} to {}: run `divvy migrate` with the newer of the two",
            answer.min, answer.max
        ),
    ))
}

/// Who a worker is.
#[derive(Debug, Clone)]
pub struct Registration {
    /// New for each process start, so that no two are taken for one another.
    pub worker: Uuid,
    /// For people.
    pub name: String,
    /// What it serves.
    pub task_types: Vec<String>,
    /// How many splits at once, over all types.
    pub slots: i32,
    /// `{"types": {name: {"plan", "reduce"}}, …}`: declares what is not declared yet.
    pub meta: Value,
}

/// `divvy.register_worker`: makes the worker known; again is harmless. Returns what it is to do and how
/// often to beat.
///
/// # Errors
/// BadOption for a malformed name; Database.
pub async fn register(executor: impl PgExecutor<'_>, who: &Registration) -> Result<(Command, Duration)> {
    let (command, beat): (Command, f64) = sqlx::query_as(
        "select command::text, extract(epoch from heartbeat)::float8
           from divvy.register_worker($1, $2, $3, $4, $5)",
    )
    .bind(who.worker)
    .bind(&who.name)
    .bind(&who.task_types)
    .bind(who.slots)
    .bind(&who.meta)
    .fetch_one(executor)
    .await?;
    Ok((command, seconds(beat)))
}

/// The answer to a heartbeat.
#[derive(Debug, Clone)]
pub struct Beat {
    /// What the worker is to do.
    pub command: Command,
    /// What each split is to do.
    pub splits: Vec<(SplitId, Pulse)>,
}

/// `divvy.heartbeat`: renews exactly the tokens it is given.
///
/// # Errors
/// NotFound when the worker isn't registered; Database.
pub async fn heartbeat(
    executor: impl PgExecutor<'_>,
    worker: Uuid,
    splits: &[SplitId],
    tokens: &[Token],
    lease: Option<Duration>,
) -> Result<Beat> {
    let rows: Vec<(Option<SplitId>, String)> =
        sqlx::query_as("select split_id, verdict::text from divvy.heartbeat($1, $2, $3, $4)")
            .bind(worker)
            .bind(splits)
            .bind(tokens)
            .bind(lease.map(interval))
            .fetch_all(executor)
            .await?;
    let mut beat = Beat { command: Command::Run, splits: Vec::with_capacity(splits.len()) };
    for (split, verdict) in rows {
        match (split, verdict.as_str()) {
            (Some(split), "ok") => beat.splits.push((split, Pulse::Ok)),
            (Some(split), "cancel") => beat.splits.push((split, Pulse::Cancel)),
            (Some(split), "lost") => beat.splits.push((split, Pulse::Lost)),
            (None, "run") => beat.command = Command::Run,
            (None, "quiet") => beat.command = Command::Quiet,
            (None, "terminate") => beat.command = Command::Terminate,
            (_, other) => {
                return Err(Error::new(ErrorKind::Protocol, format!("divvy.heartbeat answered {other:?}")));
            }
        }
    }
    Ok(beat)
}

/// `divvy.worker_command`: tells a worker to run, be quiet or stop; it hears at its next heartbeat.
///
/// # Errors
/// NotFound when there is no such worker.
pub async fn command(executor: impl PgExecutor<'_>, worker: Uuid, command: Command) -> Result<()> {
    sqlx::query("select divvy.worker_command($1, $2)")
        .bind(worker)
        .bind(command.as_str())
        .execute(executor)
        .await?;
    Ok(())
}

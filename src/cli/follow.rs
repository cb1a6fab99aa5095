//! Waiting for a task: a progress bar on a terminal, and what its end means for the exit code.

use super::output;
use crate::id::TaskId;
use crate::store::enqueue::TaskResult;
use crate::store::overview::{self, Progress};
use crate::store::state::TaskStatus;
use crate::store::{enqueue, sqlstate};
use crate::{Error, ErrorKind, Result};
use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::Instant;

/// Pauses between two looks.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_MOST: Duration = Duration::from_millis(500);
/// Counting the splits of a large task may take this share of the time at most.
const COUNT_SHARE: u32 = 10;

/// Waits until `task` has ended, through outages of the database, with a progress bar where stderr is a
/// terminal.
///
/// # Errors
/// NotFound; Busy when it has not ended within `limit`.
pub async fn wait(pool: &PgPool, task: TaskId, limit: Option<Duration>) -> Result<TaskResult> {
    let until = limit.map(|limit| Instant::now() + limit);
    let bar = std::io::stderr().is_terminal().then(|| bar(task));
    let outcome = look_until(pool, task, until, limit, bar.as_ref()).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    outcome
}

async fn look_until(
    pool: &PgPool,
    task: TaskId,
    until: Option<Instant>,
    limit: Option<Duration>,
    bar: Option<&ProgressBar>,
) -> Result<TaskResult> {
    let mut pause = LOOK_FIRST;
    loop {
        let asked = Instant::now();
        let standing = match enqueue::task_result(pool, task).await {
            Ok(result) if result.status.is_final() => return Ok(result),
            Ok(result) => result.status.as_str().to_owned(),
            Err(error) if sqlstate::is_passing(&error) => format!("the database can't be asked: {error}"),
            Err(error) => return Err(error),
        };
        if let Some(bar) = bar {
            match overview::progress(pool, task).await {
                Ok(Some(progress)) => show(bar, &progress),
                _ => bar.set_message(standing.clone()),
            }
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            let limit = limit.unwrap_or_default();
            let message = format!("task {task} has not ended within {limit:?}: {standing}");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        pause = (pause * 2).min(LOOK_MOST).max(asked.elapsed() * COUNT_SHARE);
        let next = Instant::now() + pause;
        tokio::time::sleep_until(until.map_or(next, |until| next.min(until))).await;
    }
}

fn bar(task: TaskId) -> ProgressBar {
    let bar = ProgressBar::new(1);
    let template = format!("task {task} [{{bar:24}}] {{pos}}/{{len}} {{msg}} {{elapsed}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn show(bar: &ProgressBar, progress: &Progress) {
    bar.set_message(standing(progress));
    bar.set_length(u64::try_from(progress.splits).unwrap_or_default());
    bar.set_position(u64::try_from(ended(progress)).unwrap_or_default());
}

/// How many splits have ended, however.
pub fn ended(progress: &Progress) -> i64 {
    progress.succeeded + progress.failed + progress.cancelled + progress.skipped
}

/// The phase and the splits by state, those that are there: `running: 2 running, 1 failed`.
pub fn standing(progress: &Progress) -> String {
    let counts = [
        (progress.running, "running"),
        (progress.ready, "ready"),
        (progress.delayed, "delayed"),
        (progress.failed, "failed"),
        (progress.cancelled, "cancelled"),
        (progress.skipped, "skipped"),
    ];
    let parts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    match parts.is_empty() {
        true => progress.status.to_string(),
        false => format!("{}: {}", progress.status, parts.join(", ")),
    }
}

/// How a task ended, as JSON.
pub fn json_of(task: TaskId, ended: &TaskResult) -> Value {
    json!({
        "task_id": task.to_string(),
        "status": ended.status,
        "result": ended.result,
        "error": ended.error,
        "finished_at": ended.finished_at,
    })
}

/// Says how the task ended: well, where it succeeded, or in part, as its type tolerates.
///
/// # Errors
/// When it failed or was cancelled, with its error.
pub fn verdict(task: TaskId, ended: &TaskResult) -> anyhow::Result<()> {
    let why = ended.error.as_ref().map(|error| format!(": {}", message(error))).unwrap_or_default();
    match ended.status {
        TaskStatus::Failed => bail!("task {task} failed{why}"),
        TaskStatus::Cancelled => bail!("task {task} was cancelled{why}"),
        TaskStatus::Partial => {
            output::say(&format!("task {task} succeeded in part: some of its splits failed"))
        }
        other => output::say(&format!("task {task} {other}")),
    }
    Ok(())
}

/// The words of an error as it is stored: its message, else the whole.
pub fn message(error: &Value) -> String {
    let class = error.get("class").and_then(Value::as_str);
    match (error.get("message").and_then(Value::as_str), class) {
        (Some(message), Some(class)) if !message.contains(class) => format!("{class}: {message}"),
        (Some(message), _) => message.to_owned(),
        (None, _) => error.to_string(),
    }
}

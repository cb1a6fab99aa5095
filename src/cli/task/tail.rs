//! `divvy task tail`: a task's events, failed attempts, log lines and progress as they come, until it ends.

use super::follow;
use crate::cli::output;
use crate::id::{EventId, SplitId, TaskId, Token};
use crate::store::listing::history::{self, EventRow, FailedAttempt, LogLine, LogPlace};
use crate::store::overview::{self, Progress};
use crate::store::{clock, enqueue, sqlstate};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// Pauses between two looks: as long as the last look took, ten times over, within these.
const LOOK_LEAST: Duration = Duration::from_millis(300);
const LOOK_MOST: Duration = Duration::from_secs(10);
/// A row's moment is its transaction's begin: one that commits later may come in behind what was shown.
const BEHIND: TimeDelta = TimeDelta::seconds(60);
/// Decisions on one task that a look sees.
const EVENTS_SEEN: i64 = 200;

/// What has been shown.
struct Tail<'p> {
    pool: &'p PgPool,
    task: TaskId,
    as_json: bool,
    events: HashSet<EventId>,
    attempts: HashSet<(SplitId, Token)>,
    lines: HashSet<LogPlace>,
    log_from: LogPlace,
    attempts_from: DateTime<Utc>,
    progress: Option<Progress>,
}

/// Follows `task` until it ends.
///
/// # Errors
/// NotFound; when the task failed or was cancelled.
pub(super) async fn tail(pool: &PgPool, task: TaskId, as_json: bool) -> anyhow::Result<()> {
    let begin = DateTime::UNIX_EPOCH;
    let log_from = LogPlace { at: begin, split: SplitId(0), token: Token(0), line: 0 };
    let mut tail = Tail {
        pool,
        task,
        as_json,
        events: HashSet::new(),
        attempts: HashSet::new(),
        lines: HashSet::new(),
        log_from,
        attempts_from: begin,
        progress: None,
    };
    loop {
        let asked = Instant::now();
        // Asked first: what happened before the end is then shown before it.
        let standing = enqueue::task_result(pool, task).await;
        let shown = match &standing {
            Ok(_) => tail.look().await,
            Err(_) => Ok(()),
        };
        match (standing, shown) {
            (Ok(ended), Ok(())) if ended.status.is_final() => {
                if as_json {
                    let mut end = follow::json_of(task, &ended);
                    end["kind"] = "end".into();
                    output::json(&end)?;
                }
                return follow::verdict(task, &ended);
            }
            (Err(error), _) if !sqlstate::is_passing(&error) => return Err(error.into()),
            (Ok(_), Err(error)) if !passes(&error) => return Err(error),
            _ => {}
        }
        tokio::time::sleep((asked.elapsed() * 10).clamp(LOOK_LEAST, LOOK_MOST)).await;
    }
}

fn passes(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(sqlstate::is_passing)
}

/// Something that happened, ready to be shown.
struct Happened {
    at: DateTime<Utc>,
    text: String,
    json: Value,
}

impl Tail<'_> {
    async fn look(&mut self) -> anyhow::Result<()> {
        let now = clock::now(self.pool).await?;
        let mut news = self.new_events().await?;
        news.extend(self.new_attempts(now).await?);
        news.extend(self.new_lines(now).await?);
        news.sort_by_key(|happened| happened.at);
        if let Some(progress) = overview::progress(self.pool, self.task).await?
            && self.progress.as_ref() != Some(&progress)
        {
            news.push(of_progress(&progress, now)?);
            self.progress = Some(progress);
        }
        let texts = news.into_iter().map(|happened| match self.as_json {
            true => format!("{}\n", happened.json),
            false => format!("{}  {}\n", output::exact(happened.at), happened.text),
        });
        output::print(&texts.collect::<String>())
    }

    async fn new_events(&mut self) -> anyhow::Result<Vec<Happened>> {
        let rows = history::events(self.pool, "task", &self.task.to_string(), EVENTS_SEEN).await?;
        rows.iter().filter(|row| self.events.insert(row.event_id)).map(of_event).collect()
    }

    async fn new_attempts(&mut self, now: DateTime<Utc>) -> anyhow::Result<Vec<Happened>> {
        let rows = history::failed_attempts(self.pool, self.task, self.attempts_from).await?;
        let keys = rows.iter().map(|row| (row.split_id, row.token)).collect();
        let seen = std::mem::replace(&mut self.attempts, keys);
        self.attempts_from = from(rows.len(), rows.last().map(|row| row.at), now);
        rows.iter().filter(|row| !seen.contains(&(row.split_id, row.token))).map(of_attempt).collect()
    }

    async fn new_lines(&mut self, now: DateTime<Utc>) -> anyhow::Result<Vec<Happened>> {
        let rows = history::task_log(self.pool, self.task, self.log_from).await?;
        let keys = rows.iter().map(LogLine::place).collect();
        let seen = std::mem::replace(&mut self.lines, keys);
        self.log_from = match rows.last() {
            Some(last) if is_full(rows.len()) => last.place(),
            _ => LogPlace { at: now - BEHIND, split: SplitId(0), token: Token(0), line: 0 },
        };
        rows.iter().filter(|row| !seen.contains(&row.place())).map(of_line).collect()
    }
}

fn is_full(rows: usize) -> bool {
    i64::try_from(rows).is_ok_and(|rows| rows >= history::ROWS_MAX)
}

/// Where the next look begins: at the last row of a full answer, else a little behind.
fn from(rows: usize, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> DateTime<Utc> {
    last.filter(|_| is_full(rows)).unwrap_or(now - BEHIND)
}

fn of_event(event: &EventRow) -> anyhow::Result<Happened> {
    let reason =
        event.reason.as_deref().map(|reason| format!(": {}", output::clean(reason))).unwrap_or_default();
    let text = format!("{} by {}{reason}", event.verb, output::clean(&event.actor));
    Ok(Happened { at: event.at, text, json: tagged("event", event)? })
}

fn of_attempt(attempt: &FailedAttempt) -> anyhow::Result<Happened> {
    let why = attempt.error.as_ref().map(|error| format!(": {}", output::clean(&follow::message(error))));
    let split = named(attempt.split_id, attempt.split_no);
    let text = format!("{split} attempt {} {}{}", attempt.attempt, attempt.outcome, why.unwrap_or_default());
    Ok(Happened { at: attempt.at, text, json: tagged("attempt", attempt)? })
}

fn of_line(line: &LogLine) -> anyhow::Result<Happened> {
    let fields = line.fields.as_ref().map(|fields| format!(" {fields}")).unwrap_or_default();
    let split = named(line.split_id, Some(line.split_no));
    let text = format!("{split} {:<5} {}{fields}", line.level, output::clean(&line.message));
    Ok(Happened { at: line.at, text, json: tagged("log", line)? })
}

fn of_progress(progress: &Progress, now: DateTime<Utc>) -> anyhow::Result<Happened> {
    let text = format!(
        "{} of {} splits ended; {}",
        follow::ended(progress),
        progress.splits,
        follow::standing(progress)
    );
    let mut json = tagged("progress", progress)?;
    json["at"] = json!(now);
    Ok(Happened { at: now, text, json })
}

fn named(split: SplitId, no: Option<i32>) -> String {
    no.map_or_else(|| format!("split {split}"), |no| format!("split {split} (no {no})"))
}

fn tagged(kind: &str, row: impl serde::Serialize) -> anyhow::Result<Value> {
    let mut object = output::row(row)?;
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

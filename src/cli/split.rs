//! `divvy split`: list and show splits, say why one is not running, set one aside.

mod explain;

use super::output::{self, Fields};
use super::{Global, args, database};
use crate::id::{SplitId, TaskId};
use crate::store::listing::detail::{self, AttemptRow, SplitDetail};
use crate::store::listing::history::{self, LogLine};
use crate::store::listing::{self, PAGE_ROWS_MAX, SplitFilter, SplitRow};
use crate::store::state::SplitStatus;
use crate::store::{clock, operate};
use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::fmt::Write as _;

/// Arguments of `divvy split`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the splits of a task, by number
    List(List),
    /// Show one split: its payload and result, its attempts, their log lines, its error
    Show {
        /// The split's id
        id: SplitId,
    },
    /// Say why a split is not running: each rule that a claim applies, and whether it keeps the split waiting
    Explain {
        /// The split's id; of a task that has not started, the task's
        id: SplitId,
    },
    /// Set one split aside: reduce does not wait for it, and it counts as neither failed nor done
    Skip {
        /// The split's id
        id: SplitId,
        /// Why, for those who look later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

#[derive(clap::Args)]
struct List {
    /// The task's id
    task: TaskId,
    /// In these states
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = args::split_status())]
    status: Vec<SplitStatus>,
    /// Rows a page
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..PAGE_ROWS_MAX))]
    limit: u64,
    /// The page after this split
    #[arg(long, value_name = "ID")]
    after: Option<SplitId>,
}

/// Runs the command.
///
/// # Errors
/// When there is no such split or task, its state doesn't allow the call, or the database can't be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    database::with(global, 2, async |database| match &args.action {
        Action::List(args) => list(&database.pool, args, global.json).await,
        Action::Show { id } => show(&database.pool, *id, global.json).await,
        Action::Explain { id } => explain::explain(&database.pool, *id, global.json).await,
        Action::Skip { id, reason } => {
            operate::skip_split(&database.pool, *id, reason.as_deref()).await?;
            if global.json {
                return output::json(&json!({ "split_id": id.to_string(), "status": "skipped" }));
            }
            output::say(&format!("split {id} is skipped"));
            Ok(())
        }
    })
    .await
}

async fn list(pool: &PgPool, args: &List, as_json: bool) -> anyhow::Result<()> {
    let filter = SplitFilter {
        task: Some(args.task),
        statuses: args.status.clone(),
        after: args.after,
        limit: Some(args.limit + 1),
        ..SplitFilter::default()
    };
    let mut rows = listing::splits(pool, &filter).await?;
    if rows.is_empty() {
        // Nothing of a task is one thing, no such task another.
        detail::task(pool, args.task).await?;
    }
    let more = output::cut(&mut rows, args.limit);
    let next = rows.last().filter(|_| more).map(|row| row.split_id.to_string());
    if as_json {
        return output::json(&json!({ "splits": output::rows(&rows)?, "next": next }));
    }
    let now = clock::now(pool).await?;
    let mut table =
        output::Table::new(["ID", "NO", "PHASE", "STATUS", "TRIES", "DONE", "STARTED", "TOOK", "WORKER"])
            .right(&["NO", "TRIES", "DONE"])
            .note("REASON");
    rows.iter().for_each(|row| add(&mut table, row, now));
    table.print(&format!("no split of task {} matches", args.task))?;
    output::say_next(next.as_deref());
    Ok(())
}

fn add(table: &mut output::Table<9>, row: &SplitRow, now: DateTime<Utc>) {
    let due = row.due_at.filter(|at| row.status == SplitStatus::Delayed && *at > now);
    let waits =
        due.map(|at| format!("{}: {}", row.reason.as_deref().unwrap_or("waits"), output::ago(at, now)));
    let note = row.error.clone().or_else(|| waits.or_else(|| row.reason.clone()));
    let ended = row.finished_at.or_else(|| (row.status == SplitStatus::Running).then_some(now));
    let cells = [
        row.split_id.to_string(),
        row.split_no.to_string(),
        row.phase.to_string(),
        row.status.to_string(),
        format!("{}/{}", row.attempt, row.max_attempts.map_or("?".to_owned(), |max| max.to_string())),
        output::some(row.progress.map(|share| format!("{:.0}%", share * 100.0))),
        output::some(row.started_at.map(|at| output::ago(at, now))),
        output::some(row.started_at.zip(ended).map(|(from, to)| output::span(to - from))),
        output::some(row.worker_name.as_ref().filter(|_| row.status == SplitStatus::Running)),
    ];
    table.row(cells, note.as_deref());
}

async fn show(pool: &PgPool, id: SplitId, as_json: bool) -> anyhow::Result<()> {
    let split = detail::split(pool, id).await?;
    let attempts = detail::attempts(pool, id).await?;
    let log = history::split_log(pool, id).await?;
    if as_json {
        let mut object = output::row(&split)?;
        object.insert("attempts".to_owned(), output::rows(&attempts)?);
        object.insert("log".to_owned(), output::rows(&log)?);
        return output::json(&Value::Object(object));
    }
    let now = clock::now(pool).await?;
    let mut fields = Fields::new(now);
    describe(&mut fields, &split);
    if !attempts.is_empty() {
        fields.heading("ATTEMPTS").lines(&tries(&attempts, now));
    }
    if !log.is_empty() {
        fields.heading("LOG").lines(&lines(&log, &attempts));
    }
    fields.print()
}

fn describe(fields: &mut Fields, split: &SplitDetail) {
    let max = split.max_attempts.map(|max| format!(" of {max}")).unwrap_or_default();
    let reason = split.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    fields.add("split", split.split_id).add("task", format!("{} ({})", split.task_id, split.task_type));
    fields.add("phase", split.phase).add("number", split.split_no);
    fields.add("status", format!("{}{reason}", split.status));
    fields.add("attempt", format!("{}{max}", split.attempt));
    fields.maybe("continuation", (split.continuation > 0).then_some(split.continuation));
    fields.maybe("crashes", (split.crashes > 0).then_some(split.crashes));
    if !split.status.is_final() {
        let due = if split.status == SplitStatus::Delayed { "due" } else { "ready since" };
        fields.at(due, split.due_at);
    }
    fields.at("started", split.started_at).at("finished", split.finished_at);
    fields.maybe("took", split.started_at.zip(split.finished_at).map(|(from, to)| output::span(to - from)));
    fields.maybe("progress", split.progress.map(|share| format!("{:.0}%", share * 100.0)));
    fields.maybe("worker", split.worker_name.as_ref().or(split.worker.map(|id| id.to_string()).as_ref()));
    fields.at("lease until", split.lease_until);
    fields.json("payload", split.payload.as_ref()).json("checkpoint", split.checkpoint.as_ref());
    fields.json("result", split.result.as_ref()).json("error", split.error.as_ref());
}

fn tries(attempts: &[AttemptRow], now: DateTime<Utc>) -> String {
    let mut table = output::Table::new(["ATTEMPT", "OUTCOME", "STARTED", "AGE", "TOOK", "WORKER"])
        .right(&["ATTEMPT"])
        .note("ERROR");
    for attempt in attempts {
        let error = attempt.error.as_ref().map(super::follow::message);
        let ended = attempt.finished_at.or_else(|| (attempt.outcome == "running").then_some(now));
        let cells = [
            attempt.attempt.to_string(),
            attempt.outcome.clone(),
            output::some(attempt.started_at.map(output::exact)),
            output::some(attempt.started_at.map(|at| output::ago(at, now))),
            output::some(attempt.started_at.zip(ended).map(|(from, to)| output::span(to - from))),
            attempt.worker_name.clone().or(attempt.worker.map(|id| id.to_string())).unwrap_or_default(),
        ];
        table.row(cells, error.as_deref());
    }
    table.text(output::width(), output::colours())
}

fn lines(log: &[LogLine], attempts: &[AttemptRow]) -> String {
    let mut text = String::new();
    for line in log {
        let attempt =
            attempts.iter().find(|attempt| attempt.token == line.token).map(|attempt| attempt.attempt);
        let attempt = attempt.map(|attempt| format!("attempt {attempt}  ")).unwrap_or_default();
        let fields = line.fields.as_ref().map(|fields| format!(" {fields}")).unwrap_or_default();
        let message = output::clean(&line.message);
        _ = writeln!(text, "{}  {attempt}{:<5} {message}{fields}", output::exact(line.at), line.level);
    }
    text
}

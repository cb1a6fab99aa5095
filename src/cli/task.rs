//! `divvy task`: list, show, wait for, follow, cancel and redrive tasks.

mod show;
mod tail;

use super::{Global, args, database, follow, output};
use crate::id::TaskId;
use crate::store::listing::{self, PAGE_ROWS_MAX, TaskFilter, TaskRow};
use crate::store::state::TaskStatus;
use crate::store::{clock, operate};
use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use std::time::Duration;

/// Arguments of `divvy task`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List tasks, newest first
    List(List),
    /// Show one task: its options, how far it is, what it returned, what was decided about it
    Show {
        /// The task's id
        id: TaskId,
    },
    /// Wait until a task has ended, and print its result; exit code 1 when it failed or was cancelled
    Wait {
        /// The task's id
        id: TaskId,
        /// How long, such as 90s or 15m; exit code 75 when it has not ended by then
        #[arg(long, value_name = "DURATION", value_parser = args::duration)]
        timeout: Option<Duration>,
    },
    /// Follow a task's events, log lines and progress until it ends
    Tail {
        /// The task's id
        id: TaskId,
    },
    /// Cancel what is open of a task; running splits hear it at their next heartbeat
    Cancel {
        /// The task's id
        id: TaskId,
        /// Why, for those who look later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Re-open the failed and cancelled splits of an ended task, and print how many
    Redrive(Redrive),
}

#[derive(clap::Args)]
struct List {
    /// In these states
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = args::task_status())]
    status: Vec<TaskStatus>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE")]
    task_type: Option<String>,
    /// With this label
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// Rows a page
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..PAGE_ROWS_MAX))]
    limit: u64,
    /// The page after this task
    #[arg(long, value_name = "ID")]
    after: Option<TaskId>,
}

#[derive(clap::Args)]
struct Redrive {
    /// The task's id
    id: TaskId,
    /// Those set aside by hand too
    #[arg(long)]
    skipped: bool,
    /// Only these splits, by number
    #[arg(long, value_name = "NO", value_delimiter = ',')]
    split_no: Vec<i32>,
    /// Only splits with an error of this class
    #[arg(long, value_name = "CLASS")]
    error_class: Option<String>,
    /// Attempts each split may use from now on
    #[arg(long, value_name = "N")]
    max_attempts: Option<i32>,
    /// Forget checkpoints: begin anew
    #[arg(long)]
    fresh: bool,
    /// Why, for those who look later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// When there is no such task, its state doesn't allow the call, or the database can't be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    database::with(global, 2, async |database| {
        let pool = &database.pool;
        match &args.action {
            Action::List(args) => list(pool, args, global.json).await,
            Action::Show { id } => show::show(pool, *id, global.json).await,
            Action::Wait { id, timeout } => wait(pool, *id, *timeout, global.json).await,
            Action::Tail { id } => tail::tail(pool, *id, global.json).await,
            Action::Cancel { id, reason } => cancel(pool, *id, reason.as_deref(), global.json).await,
            Action::Redrive(args) => redrive(pool, args, global.json).await,
        }
    })
    .await
}

async fn list(pool: &PgPool, args: &List, as_json: bool) -> anyhow::Result<()> {
    let filter = TaskFilter {
        task_type: args.task_type.clone(),
        statuses: args.status.clone(),
        label: args.label.clone(),
        before: args.after,
        // One more than is shown tells whether there is another page.
        limit: Some(args.limit + 1),
        ..TaskFilter::default()
    };
    let mut rows = listing::tasks(pool, &filter).await?;
    let more = output::cut(&mut rows, args.limit);
    let next = rows.last().filter(|_| more).map(|row| row.task_id.to_string());
    if as_json {
        return output::json(&json!({ "tasks": output::rows(&rows)?, "next": next }));
    }
    let now = clock::now(pool).await?;
    let mut table = output::Table::new(["ID", "TYPE", "STATUS", "SPLITS", "CREATED", "AGE", "TOOK"])
        .right(&["SPLITS"])
        .note("REASON");
    rows.iter().for_each(|row| add(&mut table, row, now));
    table.print("no task matches")?;
    output::say_next(next.as_deref());
    Ok(())
}

fn add(table: &mut output::Table<7>, row: &TaskRow, now: DateTime<Utc>) {
    let status =
        if row.paused && !row.status.is_final() { "paused".to_owned() } else { row.status.to_string() };
    let waits = row
        .run_at
        .filter(|at| *at > now && !row.status.is_final())
        .map(|at| format!("runs {}", output::ago(at, now)));
    let note = row.error.clone().or_else(|| waits.or_else(|| row.reason.clone()));
    let cells = [
        row.task_id.to_string(),
        row.task_type.clone(),
        status,
        row.split_count.to_string(),
        output::exact(row.created_at),
        output::ago(row.created_at, now),
        output::some(row.finished_at.map(|at| output::span(at - row.created_at))),
    ];
    table.row(cells, note.as_deref());
}

async fn wait(pool: &PgPool, id: TaskId, timeout: Option<Duration>, as_json: bool) -> anyhow::Result<()> {
    let ended = follow::wait(pool, id, timeout).await?;
    if as_json {
        output::json(&follow::json_of(id, &ended))?;
    } else if let Some(result) = &ended.result {
        output::json(result)?;
    }
    follow::verdict(id, &ended)
}

async fn cancel(pool: &PgPool, id: TaskId, reason: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let status = operate::cancel(pool, id, reason).await?;
    if as_json {
        return output::json(&json!({ "task_id": id.to_string(), "status": status }));
    }
    output::line(status.as_str())?;
    match status {
        TaskStatus::Cancelled => {}
        ended if ended.is_final() => output::say(&format!("task {id} had ended before: {ended}")),
        _ => {
            output::say(&format!("task {id} ends when its running splits have heard it, after 30 s at most"))
        }
    }
    Ok(())
}

async fn redrive(pool: &PgPool, args: &Redrive, as_json: bool) -> anyhow::Result<()> {
    let mut only = Map::new();
    if !args.split_no.is_empty() {
        only.insert("split_no".to_owned(), args.split_no.clone().into());
    }
    if let Some(class) = &args.error_class {
        only.insert("error_class".to_owned(), class.clone().into());
    }
    let mut options = json!({ "skipped": args.skipped, "fresh": args.fresh });
    let given = [
        ("max_attempts", args.max_attempts.map(Value::from)),
        ("reason", args.reason.clone().map(Value::from)),
        ("where", (!only.is_empty()).then_some(Value::Object(only))),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            options[name] = value;
        }
    }
    let opened = operate::redrive(pool, args.id, &options).await?;
    if as_json {
        return output::json(&json!({ "task_id": args.id.to_string(), "reopened": opened }));
    }
    output::line(&opened.to_string())?;
    let what = if opened == 1 { "split is" } else { "splits are" };
    output::say(&format!("task {}: {opened} {what} open again", args.id));
    Ok(())
}

//! `divvy schedule`: list, put, preview, trigger, backfill, pause, resume and cancel schedules, and what they fired.

mod backfill;
mod policy;
mod preview;
mod put;
mod rule;

use super::{Global, args, database, output};
use crate::leader;
use crate::store::overview::{self, ScheduleRow};
use crate::store::{clock, schedule};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Subcommand;
use serde_json::json;
use sqlx::PgPool;

/// How much of a stepped rule a list shows.
const STEPS_CHARS: usize = 24;

/// Arguments of `divvy schedule`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List schedules, those that have ended last
    List {
        /// Those that have ended, too
        #[arg(long)]
        all: bool,
    },
    /// Store a schedule, or change the one of that name
    Put(Box<put::Args>),
    /// Show the next moments of a schedule, or of a rule that is not stored
    Preview(preview::Args),
    /// Make a task now, beside the rule, and print its id
    Trigger {
        /// The schedule
        name: String,
        /// Why, for those who look later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Make the tasks of a range that has passed, a few at a time
    Backfill(backfill::Args),
    /// Stop a schedule from firing
    Pause {
        /// The schedule
        name: String,
        /// Until this moment: 20261224180000, or 2026-12-24T18:00:00+01:00 [default: until resumed]
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// The zone of an --until without offset
        #[arg(long, value_name = "ZONE", default_value = "UTC", requires = "until")]
        timezone: String,
        /// Why, for those who look later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let a paused schedule fire again
    Resume {
        /// The schedule
        name: String,
    },
    /// End a schedule; tasks it made go on
    Cancel {
        /// The schedule
        name: String,
        /// Why, for those who look later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Show the moments a schedule has decided, latest first
    History {
        /// The schedule; of several with that name, the open one or the last
        name: String,
        /// Rows a page
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..1_000))]
        limit: u64,
        /// The page after this moment
        #[arg(long, value_name = "TIME")]
        after: Option<DateTime<Utc>>,
    },
}

/// Runs the command.
///
/// # Errors
/// When there is no such schedule, a rule can't be understood, or the database can't be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let as_json = global.json;
    match args.action {
        Action::Put(args) => put::run(*args, global).await,
        Action::Preview(args) => preview::run(args, global).await,
        Action::Backfill(args) => backfill::run(args, global).await,
        Action::List { all } => {
            database::with(global, 2, async |database| list(&database.pool, all, as_json).await).await
        }
        Action::History { name, limit, after } => {
            database::with(global, 2, async |database| {
                history(&database.pool, &name, limit, after, as_json).await
            })
            .await
        }
        other => intervene(other, global).await,
    }
}

async fn intervene(action: Action, global: &Global) -> anyhow::Result<()> {
    let until = match &action {
        Action::Pause { until: Some(until), timezone, .. } => Some(args::moment("--until", until, timezone)?),
        _ => None,
    };
    database::with(global, 2, async |database| {
        let pool = &database.pool;
        match &action {
            Action::Trigger { name, reason } => trigger(pool, name, reason.as_deref(), global.json).await,
            Action::Pause { name, reason, .. } => {
                schedule::pause_schedule(pool, name, until, reason.as_deref()).await?;
                done(name, "paused", global.json)
            }
            Action::Resume { name } => {
                schedule::resume_schedule(pool, name).await?;
                done(name, "active", global.json)
            }
            Action::Cancel { name, reason } => {
                let mut transaction = pool.begin().await?;
                // What was due before is known then, and skipped with a row for each.
                leader::plan_named(&mut transaction, name).await?;
                schedule::cancel_schedule(&mut *transaction, name, reason.as_deref()).await?;
                transaction.commit().await?;
                done(name, "cancelled", global.json)
            }
            Action::List { .. }
            | Action::Put(_)
            | Action::Preview(_)
            | Action::Backfill(_)
            | Action::History { .. } => Ok(()),
        }
    })
    .await
}

fn done(name: &str, status: &str, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return output::json(&json!({ "name": name, "status": status }));
    }
    output::say(&format!("schedule {name} is {status}"));
    Ok(())
}

async fn trigger(pool: &PgPool, name: &str, reason: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let task = schedule::trigger_schedule(pool, name, reason).await?;
    match task {
        _ if as_json => output::json(&json!({ "task_id": task.map(|task| task.to_string()) })),
        Some(task) => output::line(&task.to_string()),
        None => anyhow::bail!("schedule {name} made no task: another holds its dedupe key"),
    }
}

async fn list(pool: &PgPool, all: bool, as_json: bool) -> anyhow::Result<()> {
    let mut rows = overview::schedules(pool).await?;
    let known = rows.len();
    rows.retain(|row| all || !matches!(row.status.as_str(), "done" | "cancelled"));
    let ended = known - rows.len();
    if as_json {
        return output::json(&json!({ "schedules": output::rows(&rows)?, "ended": ended }));
    }
    let now = clock::now(pool).await?;
    let mut table = output::Table::new(["NAME", "TYPE", "STATUS", "RULE", "NEXT", "IN", "RUNS"])
        .right(&["RUNS"])
        .note("NOTE");
    rows.iter().for_each(|row| add(&mut table, row, now));
    table.print("there is no schedule")?;
    if ended > 0 {
        output::say(&format!("not shown: {ended} that ended (--all)"));
    }
    Ok(())
}

fn add(table: &mut output::Table<7>, row: &ScheduleRow, now: DateTime<Utc>) {
    let until = row.paused_until.map(|at| format!("resumes {}", output::ago(at, now)));
    let unplanned = row.status == "active" && row.kind == "cron" && row.next_fire_at.is_none();
    let unplanned = unplanned.then(|| "waits for a leader to plan it".to_owned());
    let zone =
        (row.kind == "cron" && row.timezone != "UTC").then(|| format!("on the clock of {}", row.timezone));
    let undeclared =
        (!row.type_declared).then(|| format!("its tasks wait: nobody declared the type {}", row.task_type));
    let waiting = (row.waiting > 0).then(|| format!("{} moments wait for their turn", row.waiting));
    let notes: Vec<String> =
        [zone, row.reason.clone(), until, unplanned, undeclared, waiting].into_iter().flatten().collect();
    let cells = [
        row.name.clone().unwrap_or_default(),
        row.task_type.clone(),
        row.status.clone(),
        words(row),
        output::some(row.next_fire_at.map(output::exact)),
        output::some(row.next_fire_at.map(|at| output::ago(at, now))),
        row.max_runs.map_or(row.runs.to_string(), |max| format!("{}/{max}", row.runs)),
    ];
    table.row(cells, Some(&notes.join("; ")));
}

/// The rule as one would say it.
fn words(row: &ScheduleRow) -> String {
    let rule = row.rule.as_deref().unwrap_or_default();
    let spans = || rule.split(", ").map(interval).collect::<Vec<_>>().join(",");
    match row.kind.as_str() {
        "cron" => rule.to_owned(),
        "every" => format!("every {}", spans()),
        "timed" => "once".to_owned(),
        _ => format!("steps {}", output::short(&spans(), STEPS_CHARS)),
    }
}

/// An interval as people write it, where Postgres says it in hours, minutes and seconds.
fn interval(text: &str) -> String {
    let parts: Option<Vec<i64>> = text.split(':').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([hours, minutes, seconds]) => {
            output::span(TimeDelta::seconds(hours * 3_600 + minutes * 60 + seconds)).replace(' ', "")
        }
        _ => text.to_owned(),
    }
}

async fn history(
    pool: &PgPool,
    name: &str,
    limit: u64,
    after: Option<DateTime<Utc>>,
    as_json: bool,
) -> anyhow::Result<()> {
    let stored = schedule::rule(pool, name).await?;
    let asked = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = schedule::history(pool, stored.schedule_id, after, asked).await?;
    let last = rows.last().map(|row| row.fire_at);
    let more = last.is_some() && !schedule::history(pool, stored.schedule_id, last, 1).await?.is_empty();
    let next = last.filter(|_| more).map(|at| at.to_rfc3339());
    if as_json {
        return output::json(&json!({ "name": name, "fires": output::rows(&rows)?, "next": next }));
    }
    let now = clock::now(pool).await?;
    let mut table =
        output::Table::new(["MOMENT", "AGE", "KIND", "OUTCOME", "TASK", "ENDED", "LATE"]).note("REASON");
    for row in &rows {
        let count =
            if row.count > 1 { format!("{} x{}", row.outcome, row.count) } else { row.outcome.clone() };
        let late = row.late_seconds.map(|seconds| TimeDelta::milliseconds((seconds * 1_000.0) as i64));
        let cells = [
            output::exact(row.fire_at),
            output::ago(row.fire_at, now),
            row.kind.clone(),
            count,
            output::some(row.task_id),
            row.task_status.clone().unwrap_or_default(),
            output::some(late.filter(|_| row.outcome != "waiting").map(output::span)),
        ];
        table.row(cells, row.reason.as_deref());
    }
    table.print(&format!("schedule {name} has decided no moment yet"))?;
    output::say_next(next.as_deref());
    Ok(())
}

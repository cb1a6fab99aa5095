//! `divvy type`: list, show, declare, pause and resume task types.

use super::output::{self, Fields};
use super::{Global, args, database};
use crate::store::listing::detail::{self, TypeDetail};
use crate::store::overview::{self, TypeRow};
use crate::store::{clock, operate};
use crate::{Error, ErrorKind};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Subcommand;
use serde_json::{Value, json};
use sqlx::PgPool;

/// The steps of a task.
const STEPS: [&str; 3] = ["split", "execute", "reduce"];

/// Arguments of `divvy type`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List all types: declared ones, and those that tasks wait for
    List,
    /// Show one type: its options, what waits and runs of it
    Show {
        /// The type
        name: String,
    },
    /// Declare a type, or change the options that are named; null returns an option to its default
    Put {
        /// The type
        name: String,
        #[command(flatten)]
        options: args::Options,
    },
    /// Claim nothing more of a type; what runs goes on
    Pause {
        /// The type
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
    /// End the pause of a type
    Resume {
        /// The type
        name: String,
    },
}

/// Runs the command.
///
/// # Errors
/// When there is no such type, an option is malformed, or the database can't be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    // What is typed wrongly is told before a database is looked for.
    let given = match &args.action {
        Action::Put { options, .. } => Some(options.read()?),
        _ => None,
    };
    let until = match &args.action {
        Action::Pause { until: Some(until), timezone, .. } => Some(args::moment("--until", until, timezone)?),
        _ => None,
    };
    database::with(global, 2, async |database| {
        let pool = &database.pool;
        match &args.action {
            Action::List => list(pool, global.json).await,
            Action::Show { name } => show(pool, name, global.json).await,
            Action::Put { name, .. } => {
                operate::put_task_type(pool, name, &given.clone().unwrap_or_default()).await?;
                done(pool, name, "is declared", global.json).await
            }
            Action::Pause { name, reason, .. } => {
                operate::pause(pool, name, until, reason.as_deref()).await?;
                let until = until
                    .map_or("until it is resumed".to_owned(), |at| format!("until {}", output::exact(at)));
                done(pool, name, &format!("is paused {until}"), global.json).await
            }
            Action::Resume { name } => {
                operate::resume(pool, name).await?;
                done(pool, name, "is not paused", global.json).await
            }
        }
    })
    .await
}

async fn done(pool: &PgPool, name: &str, what: &str, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return show(pool, name, true).await;
    }
    output::say(&format!("type {name} {what}"));
    Ok(())
}

async fn list(pool: &PgPool, as_json: bool) -> anyhow::Result<()> {
    let rows = overview::types(pool).await?;
    if as_json {
        return output::json(&json!({ "types": output::rows(&rows)? }));
    }
    let now = clock::now(pool).await?;
    let mut table = output::Table::new([
        "TYPE",
        "STATUS",
        "READY",
        "RUNNING",
        "DELAYED",
        "SCHEDULED",
        "WAITS",
        "WORKERS",
    ])
    .right(&["READY", "RUNNING", "DELAYED", "SCHEDULED", "WORKERS"])
    .note("REASON");
    for row in &rows {
        let cells = [
            row.task_type.clone(),
            status(row).to_owned(),
            row.ready.to_string(),
            row.running.to_string(),
            row.delayed.to_string(),
            row.scheduled.to_string(),
            output::some(row.oldest_ready_seconds.map(|seconds| output::span(seconds_of(seconds)))),
            row.workers.to_string(),
        ];
        table.row(cells, note(row, now).as_deref());
    }
    table.print("there is no type: `divvy type put NAME` declares one, and so does a worker that starts")
}

fn seconds_of(seconds: f64) -> TimeDelta {
    std::time::Duration::try_from_secs_f64(seconds).map(args::delta).unwrap_or_default()
}

fn steps(row: &TypeRow) -> String {
    let there = [row.plan == Some(true), true, row.reduce == Some(true)];
    let steps: Vec<&str> =
        STEPS.iter().zip(there).filter(|(_, there)| *there).map(|(step, _)| *step).collect();
    steps.join(", ")
}

fn status(row: &TypeRow) -> &'static str {
    match (row.declared, row.paused) {
        (false, _) => "undeclared",
        (true, true) => "paused",
        (true, false) => "active",
    }
}

fn note(row: &TypeRow, now: DateTime<Utc>) -> Option<String> {
    if !row.paused {
        return (row.held > 0).then(|| format!("a limit holds back {}", row.held));
    }
    let until =
        row.paused_until.map_or("until resumed".to_owned(), |at| format!("resumes {}", output::ago(at, now)));
    Some(row.pause_reason.as_ref().map_or_else(|| until.clone(), |reason| format!("{reason} ({until})")))
}

async fn show(pool: &PgPool, name: &str, as_json: bool) -> anyhow::Result<()> {
    let declaration = detail::task_type(pool, name).await?;
    let stats = overview::types(pool).await?.into_iter().find(|row| row.task_type == name);
    let Some(stats) = stats else {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no type {name}")).into());
    };
    if as_json {
        let mut object = output::row(&stats)?;
        for (key, value) in declaration.map(output::row).transpose()?.unwrap_or_default() {
            object.insert(key, value);
        }
        return output::json(&Value::Object(object));
    }
    let now = clock::now(pool).await?;
    let mut fields = Fields::new(now);
    fields.add("type", name);
    let why = note(&stats, now).map(|note| format!(": {note}")).unwrap_or_default();
    fields.add("status", format!("{}{why}", status(&stats)));
    fields.maybe("steps", stats.declared.then(|| steps(&stats)));
    fields.add("now", counts(&stats)).add("workers", stats.workers);
    if let Some(declaration) = &declaration {
        declared(&mut fields, declaration);
    }
    fields.print()
}

fn counts(stats: &TypeRow) -> String {
    let TypeRow { ready, running, delayed, scheduled, .. } = stats;
    let waits =
        stats.oldest_ready_seconds.map(|seconds| format!(" (longest {})", output::span(seconds_of(seconds))));
    format!(
        "{ready} ready{}, {running} running, {delayed} delayed, {scheduled} scheduled",
        waits.unwrap_or_default()
    )
}

fn declared(fields: &mut Fields, declaration: &TypeDetail) {
    fields.add("declared by", &declaration.declared_by);
    fields.at("created", Some(declaration.created_at)).at("updated", Some(declaration.updated_at));
    fields.heading("OPTIONS");
    for (name, value) in declaration.options.as_object().into_iter().flatten() {
        match value {
            Value::String(text) => fields.add(name, text),
            Value::Object(handler) if name == "handler" && handler.contains_key("sql") => continue,
            other => fields.json(name, Some(other)),
        };
    }
    let sql = &declaration.options["handler"]["sql"];
    for (name, value) in
        sql.as_object().into_iter().flatten().filter(|(name, _)| !STEPS.contains(&name.as_str()))
    {
        fields.add(&format!("sql {name}"), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    for (step, statement) in STEPS.iter().filter_map(|step| Some((step, sql[step].as_str()?))) {
        fields.heading(&format!("{} IN SQL", step.to_uppercase())).text(statement);
    }
}

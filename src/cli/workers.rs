//! `divvy workers`: list them, and tell one to be quiet, to stop or to go on.

use super::{Global, args, database, output};
use crate::store::overview::{self, WorkerRow};
use crate::store::state::Command;
use crate::store::{clock, worker};
use crate::{Error, ErrorKind, Result};
use clap::Subcommand;
use serde_json::json;
use sqlx::PgPool;

/// How much of an id a terminal shows.
const ID_END: usize = 12;
/// Less of an id means nobody.
const ID_LEAST: usize = 4;

/// Arguments of `divvy workers`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the workers that were seen in the last minute
    List {
        /// Those that are gone, too
        #[arg(long)]
        all: bool,
    },
    /// Claim nothing more, finish what runs, stay
    Quiet {
        /// Its name, its id, or how its id ends
        worker: String,
    },
    /// Stop gracefully
    Terminate {
        /// Its name, its id, or how its id ends
        worker: String,
    },
    /// Work again after a quiet
    Run {
        /// Its name, its id, or how its id ends
        worker: String,
    },
}

/// Runs the command.
///
/// # Errors
/// When no worker, or more than one, is meant, or the database can't be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    database::with(global, 2, async |database| {
        let pool = &database.pool;
        match &args.action {
            Action::List { all } => list(pool, *all, global.json).await,
            Action::Quiet { worker } => tell(pool, worker, Command::Quiet, global.json).await,
            Action::Terminate { worker } => tell(pool, worker, Command::Terminate, global.json).await,
            Action::Run { worker } => tell(pool, worker, Command::Run, global.json).await,
        }
    })
    .await
}

async fn list(pool: &PgPool, all: bool, as_json: bool) -> anyhow::Result<()> {
    let mut rows = overview::workers(pool).await?;
    let known = rows.len();
    rows.retain(|row| all || row.alive);
    let gone = known - rows.len();
    if as_json {
        return output::json(&json!({ "workers": output::rows(&rows)?, "gone": gone }));
    }
    let now = clock::now(pool).await?;
    let mut table = output::Table::new(["WORKER", "NAME", "STATUS", "LEASED", "SLOTS", "SEEN", "UP"])
        .right(&["LEASED", "SLOTS"])
        .note("TYPES");
    for row in &rows {
        let cells = [
            id_of(row),
            row.name.clone(),
            status(row).to_owned(),
            row.leased.to_string(),
            row.slots.to_string(),
            output::ago(row.seen_at, now),
            output::span(row.seen_at - row.registered_at),
        ];
        table.row(cells, Some(&row.task_types.join(" ")));
    }
    table.print("no worker is here")?;
    if gone > 0 {
        output::say(&format!("not shown: {gone} not seen for a minute (--all)"));
    }
    Ok(())
}

/// Ids begin with the time, so on a terminal the end tells more.
fn id_of(row: &WorkerRow) -> String {
    let id = row.worker.to_string();
    if output::width().is_some() { id[id.len() - ID_END..].to_owned() } else { id }
}

fn status(row: &WorkerRow) -> &str {
    match row.command.as_str() {
        _ if !row.alive => "gone",
        "run" => "alive",
        command => command,
    }
}

async fn tell(pool: &PgPool, which: &str, command: Command, as_json: bool) -> anyhow::Result<()> {
    let rows = overview::workers(pool).await?;
    let row = meant(&rows, which)?;
    worker::command(pool, row.worker, command).await?;
    if as_json {
        return output::json(&json!({ "worker": row.worker, "name": row.name, "command": command }));
    }
    output::say(&format!(
        "worker {} ({}) is told: {command}; it hears it at once or at its next heartbeat",
        row.name, row.worker
    ));
    Ok(())
}

/// The one worker that `which` means: of several with that name, the one that is there.
fn meant<'r>(rows: &'r [WorkerRow], which: &str) -> Result<&'r WorkerRow> {
    let lower = which.to_lowercase();
    let by_id = |id: String| lower.len() >= ID_LEAST && (id.starts_with(&lower) || id.ends_with(&lower));
    let matches = |row: &&WorkerRow| row.name == which || by_id(row.worker.to_string());
    let found: Vec<&WorkerRow> = rows.iter().filter(matches).collect();
    let alive: Vec<&WorkerRow> = found.iter().copied().filter(|row| row.alive).collect();
    match (alive.as_slice(), found.as_slice()) {
        ([row], _) | ([], [row]) => Ok(row),
        ([], []) => Err(Error::new(ErrorKind::NotFound, format!("there is no worker {which}"))),
        (several, _) => Err(args::usage(format!(
            "{} workers are called {which}: give the id of one",
            several.len().max(found.len())
        ))),
    }
}

//! `divvy demo`, and the worker process that it starts.

use std::io::Write;

use anyhow::bail;
use tokio_util::sync::CancellationToken;

use super::{Global, database};
use crate::apart;
use crate::demo::handler::Collisions;
use crate::demo::run::{self, LEASE, Options};
use crate::demo::screen::Screen;
use crate::demo::show::Outcome;
use crate::demo::workers::{Addresses, name_of};
use crate::leader::Leader;
use crate::store::{connect, migrate, pool};
use crate::worker::Worker;

/// How many connections a worker process opens: one per slot, and some beside.
const WORKER_CONNECTIONS: u32 = WORKER_SLOTS as u32 + 1;

/// How many splits a worker process works on at once. The demo's work is half computing, half waiting
/// for Postgres.
const WORKER_SLOTS: usize = 4;

/// Arguments of `divvy demo`.
#[derive(clap::Args)]
pub struct Args {
    /// How many worker processes to start; one of them is killed
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=16))]
    workers: u8,
    /// Into how many splits the task is divided
    #[arg(long, default_value_t = 480, value_parser = clap::value_parser!(u16).range(200..=2_000))]
    splits: u16,
    /// Stay up afterwards and say how to look around
    #[arg(long)]
    keep: bool,
    /// Change one row of the report before the check, to see that the check notices
    #[arg(long)]
    tamper: bool,
}

/// Runs the command.
///
/// # Errors
/// When a step fails, the result differs from Postgres' own, or no split had to run again.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let database = database::connect(global, 1).await?;
    let outcome = tokio::select! {
        outcome = show(&args, global, &database) => outcome,
        _ = tokio::signal::ctrl_c() => interrupted(&database).await,
    };
    if args.keep
        && let Ok(outcome) = &outcome
    {
        keep(outcome.task_id, database.embedded_url.is_some());
        tokio::signal::ctrl_c().await?;
    }
    database.close().await?;
    judge(&outcome?)
}

/// The run was dropped, and with it its workers were killed.
async fn interrupted(database: &database::Database) -> anyhow::Result<Outcome> {
    let mut connection = connect::connect(&database.addresses.direct).await?;
    run::cancel_open(&mut connection, "the demo was interrupted").await?;
    bail!("interrupted: the task is being cancelled");
}

async fn show(args: &Args, global: &Global, database: &database::Database) -> anyhow::Result<Outcome> {
    let mut screen = Screen::new();
    screen.say("divvy demo: which names look different and are one once normalised?\n");
    let options = &database.addresses.direct;
    let mut connection = connect::connect(options).await?;
    let facts = connect::facts(&mut connection).await?;
    // "15.18 (Debian 15.18-0+deb12u1)" → "15.18"
    let version = facts.version.split(' ').next().unwrap_or_default();
    let whose = if database.embedded_url.is_some() { "divvy's own at" } else { "at" };
    screen.fact("database", &format!("Postgres {version}, {whose} {}", connect::place(options)));
    migrate::migrate(options).await?;

    let given = global.database();
    let url = database.embedded_url.clone().or(given.url).unwrap_or_default();
    let addresses = Addresses { url, direct_url: given.direct_url };
    let wishes = Options { workers: args.workers.into(), splits: args.splits.into(), tamper: args.tamper };
    let outcome = run::run(&mut connection, &addresses, &wishes, &mut screen).await?;
    print(&outcome, global.json)?;
    Ok(outcome)
}

fn print(outcome: &Outcome, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", outcome.json())?;
    } else {
        writeln!(out, "{}", outcome.text())?;
    }
    Ok(out.flush()?)
}

fn judge(outcome: &Outcome) -> anyhow::Result<()> {
    if let Some(first) = outcome.differences.first() {
        bail!(
            "the report and Postgres differ in {} rows, first in {} {:?}",
            first.differing,
            first.row.form,
            first.row.normalized
        );
    }
    if !outcome.proven() {
        bail!("no split had to run again because of a killed worker: try more --splits");
    }
    Ok(())
}

fn keep(task_id: i64, embedded: bool) {
    let psql = if embedded { "divvy db psql" } else { "psql \"$DATABASE_URL\"" };
    eprintln!(
        "
The database stays up until Ctrl-C. From another terminal:  {psql}

  select * from divvy.task_overview where task_id = {task_id};
  select * from divvy.split_overview where task_id = {task_id} and attempt > 1;
  select * from divvy.event order by at desc limit 20;
  select members from demo.collision where form = 'NFKC' and normalized = 'kg';"
    );
}

/// Runs one worker of the demo until its standard input is closed.
///
/// # Errors
/// When there is no usable database.
pub async fn work(global: &Global) -> anyhow::Result<()> {
    let database = database::connect(global, WORKER_CONNECTIONS).await?;
    let direct = database.addresses.direct.clone();
    let listening = pool::options().max_connections(1).connect_lazy_with(direct.clone());
    let worker = Worker::builder(database.pool.clone())
        .name(name_of(std::process::id()))
        .handler(Collisions::default())
        .slots(WORKER_SLOTS)
        .lease(LEASE)
        .listen_through(listening)
        .build()?;
    let shutdown = CancellationToken::new();
    let closed = shutdown.clone();
    std::thread::spawn(move || {
        // Whatever ends the reading, an end or an error, means that the demo is gone.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        closed.cancel();
    });
    let leader = Leader::new(direct, name_of(std::process::id()));
    let leading = apart::spawn(leader.run(shutdown.clone()));
    let worked = worker.run(shutdown.clone()).await;
    shutdown.cancel();
    leading.await?;
    database.close().await?;
    worked?;
    Ok(())
}
